"""Leases: who is fetching which bytes of a remote file just now, so that others wait for them instead.

A lease is a set of byte-range locks on one empty file in the journal's directory, at the offsets that the remote file's
bytes have. Use, on a miss:

    answer = journal.lease(gaps) if journal.others_live() else None
    if isinstance(answer, Contended):           # the reader holds nothing now, so nobody waits for it in a circle
        for pause_s in pauses(LEASE_LIMIT_S):
            sleep(pause_s)
            if answer.is_over():
                break
        else:
            answer.give_up()
    journal.refresh()                           # behind the lease: what others had was published before they released
    plan again: what is still a gap             # nothing, and a lease: release it; a gap, and no lease: from the top
    fetch; record; answer.release()             # when the bytes are in the journal, or will not be

A holder publishes before it releases, so who waited, or came a moment later, finds the bytes with one refresh. Once
`LEASE_LIMIT_S` was not enough (the holder is stopped, or slow), `lease` answers with a lease that holds nothing where
it would have had to wait. That costs a second fetch of the same bytes, as does everything else that goes wrong here: no
byte's rightness depends on a lease. All calls but the answers' attributes may block as long as the directory does.

Who is alone needs no lease: see `jcache.journal.turns`.

Cost: one lock call for each range, at most 32 for any number of ranges (the closest are joined), one more to release
them all; the file is opened at the first, and closed while nothing is leased and others need its descriptor. Nothing
where leases are not wanted.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING, Protocol

from jcache.ranges import Range, normalise, subtract
from jcache.segment.directory import create_file
from jcache.system.descriptors import Descriptor
from jcache.system.locks import Outcome, RangeLock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.system.storage import Storage

__all__ = ["LEASE_FILE", "LEASE_LIMIT_S", "Contended", "Lease", "Leases"]

LEASE_FILE = "@leases"
"""Name of the file in a journal's directory. It stays while the journal does: who opened it must meet who opens it."""

LEASE_LIMIT_S = 5.0
"""How long a reader waits for another's fetch before it stops waiting for leases of that journal altogether."""

MOST_RANGES = 32


class Lessor(Protocol):
    """Who gives out leases: `Leases`, or a `Turn`."""

    def release(self, lease: Lease) -> None:
        """Take a lease back."""

    def is_free(self, wanted: Range) -> bool:
        """Whether nobody else holds a byte of a range, as far as anybody can tell."""

    def stop_waiting(self) -> None:
        """Never answer `Contended` again."""


class Lease:
    """The right to fetch some bytes, until it is released or its process ends. Any thread may release it."""

    __slots__ = ("_leases", "ranges")

    def __init__(self, leases: Lessor | None, ranges: Sequence[Range]) -> None:
        self._leases = leases
        self.ranges = ranges
        """What is locked; empty where there are no locks to have, or nobody is waited for any more."""

    @property
    def is_held(self) -> bool:
        """Whether there is anything to release."""
        return self._leases is not None

    def release(self) -> None:
        """Let others have these bytes; does nothing the second time, in a forked child, and after the journal's end."""
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.release(self)


class Contended:
    """Another process is fetching some of the bytes that were asked for; nothing is held."""

    __slots__ = ("_leases", "held")

    def __init__(self, leases: Lessor, held: Range) -> None:
        self._leases = leases
        self.held = held
        """The first range that somebody else holds a byte of."""

    def is_over(self) -> bool:
        """Whether what stood in the way is gone; one lock call. Others, or another in the same way, may be there."""
        return self._leases.is_free(self.held)

    def give_up(self) -> None:
        """Note that waiting took too long: from now on this process does not wait for leases of this journal."""
        self._leases.stop_waiting()


class Leases:
    """The leases of one process on one journal. Any thread may call any method; none waits for another process."""

    __slots__ = (
        "__weakref__", "_held", "_lock", "_locks", "_mode", "_path", "_pid", "_storage", "_supported", "_waits", "used",
    )  # fmt: skip

    def __init__(self, storage: Storage, path: str, *, mode: int) -> None:
        """Name a lease file, which is created with the first lease.

        Args:
            storage: The cache's file system.
            path: The file, in a directory that exists by then.
            mode: Permissions of the file if it is created.
        """
        self._storage = storage
        self._path = path
        self._mode = mode
        self._lock = threading.Lock()
        self._locks: RangeLock | None = None
        self._held: list[Lease] = []
        self._pid = os.getpid()
        self._supported = True
        self._waits = True
        self.used = False

    def take(self, ranges: Sequence[Range]) -> Lease | Contended:
        """Lock all ranges or none; see `Journal.lease`."""
        wanted = join_closest(normalise(ranges), MOST_RANGES)
        if not wanted or not self._supported or self._pid != os.getpid():
            return Lease(None, ())
        with self._lock:
            locks = self._open()
            if locks is None:
                return Lease(None, ())
            taken: list[Range] = []
            for part in wanted:
                claim = locks.try_lock([part])
                if claim.outcome is Outcome.TAKEN:
                    taken.append(part)
                    continue
                self._unlock(locks, taken)
                if claim.outcome is Outcome.UNSUPPORTED:
                    self._supported = False
                elif self._waits:
                    return Contended(self, part)
                return Lease(None, ())
            lease = Lease(self, taken)
            self._held.append(lease)
            return lease

    def release(self, lease: Lease) -> None:
        """Unlock what a lease has and no other lease of this process."""
        if self._pid != os.getpid():
            return  # the locks are the parent's, and so may be the thread that held `_lock` at the fork
        with self._lock:
            if lease in self._held:
                self._held.remove(lease)
                if self._locks is not None:
                    self._unlock(self._locks, lease.ranges)

    def is_free(self, wanted: Range) -> bool:
        """Whether nobody else holds a byte of a range, as far as anybody can tell."""
        if self._pid != os.getpid():
            return True
        with self._lock:
            locks = self._open()
            return locks is None or isinstance(locks.conflict(*wanted), Outcome)

    def stop_waiting(self) -> None:
        """Never answer `Contended` again."""
        self._waits = False

    def close(self) -> None:
        """Release everything, and lease nothing any more."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._supported = False
            self._shut()

    def forget(self) -> None:
        """Let go of the file in a forked child; the parent's locks stay, since they go with its own descriptor."""
        self._supported = False
        self._shut()

    def _shut(self) -> None:
        self._locks = None
        self._held.clear()

    @property
    def is_writer(self) -> bool:
        """Whether anything is leased."""
        return bool(self._held)

    def rest(self) -> None:
        """Close the file where nothing is leased; see `Holder`."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._held:
                    self._locks = None
            finally:
                self._lock.release()

    def _open(self) -> RangeLock | None:
        self.used = True
        if self._locks is None and self._supported:
            try:
                fd = create_file(self._storage, self._path, self._mode, exclusive=False)
            except OSError:
                # No permission, no space, read-only: then one does without.
                self._supported = False
                return None
            self._locks = RangeLock(Descriptor(fd, self._storage.close, self), storage=self._storage)
        return self._locks

    def _unlock(self, locks: RangeLock, ranges: Sequence[Range]) -> None:
        if not ranges:
            return
        # Joined ranges of two leases may overlap, and a process's locks on a byte are one.
        others = normalise([part for lease in self._held for part in lease.ranges])
        span = (ranges[0][0], ranges[-1][1])
        left = subtract([span], others)
        locks.unlock([span] if left == [span] else subtract(list(ranges), others))


def join_closest(run: list[Range], most: int) -> list[Range]:
    """Return a run of at most so many ranges that covers another one, the narrowest holes filled first."""
    if len(run) <= most:
        return run
    holes = sorted(range(1, len(run)), key=lambda i: run[i][0] - run[i - 1][1], reverse=True)
    cuts = [0, *sorted(holes[: most - 1]), len(run)]
    return [(run[first][0], run[last - 1][1]) for first, last in itertools.pairwise(cuts)]
