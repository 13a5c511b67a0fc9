"""Whose turn it is to fetch bytes of a file: asked before the first fetch, by one lock call, whoever else there is.

One file of the cache directory stands for all its journals, by a byte each, at a place that the object's name decides.
Two names that share a place wait for each other now and then; nothing worse.

- Who fetches while it knows of nobody else locks the journal's byte for itself, and keeps it for as long as it goes on
  fetching. So it needs no lease for what it fetches, and no call for the next fetch.
- Who finds the byte locked makes itself seen in the journal's directory (`Journal.announce`) and waits until the other
  one has published what it fetches. The other one sees it at its next fetch, lets it in, and both go on with leases.
- Those who go on with leases share the lock on the byte until they close the journal, so whoever comes later knows.

Locks go with their process. A process that is stopped is waited for as long as for a lease. Where there are no locks,
everything is as if there were no such file.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from typing import TYPE_CHECKING

from jcache.journal.leases import Contended, Lease
from jcache.segment.directory import create_file
from jcache.segment.format import checksum
from jcache.system.descriptors import Descriptor
from jcache.system.locks import Outcome, RangeLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.system.storage import Storage

__all__ = ["Sole", "Turn", "Turns"]

# Who is alone looks no more often than this whether somebody has come, who waits as long.
LOOK_S = 0.01


class Turns:
    """The file of one cache directory, for one process. Any thread may use it."""

    used = False
    is_writer = True  # of the budget of descriptors: closing the file would release all that is locked

    def __init__(self, storage: Storage, path: str, *, mode: int, prepare: Callable[[], None]) -> None:
        """Name the file; it is opened with the first question.

        Args:
            storage: The cache's file system.
            path: The file.
            mode: Its permissions, if it is created.
            prepare: Makes its directory.
        """
        self._storage = storage
        self._path = path
        self._mode = mode
        self._prepare = prepare
        self._lock = threading.Lock()
        self._locks: RangeLock | None = None
        self._is_open = False

    def of(self, name: str) -> Turn:
        """Return the turn of a journal.

        Args:
            name: The identity of its object.
        """
        return Turn(self, checksum(os.fsencode(name), 0) >> 2)

    def ask(self, at: int, *, shared: bool) -> Outcome:
        """Ask for the lock on a byte, instead of what this process has of it."""
        locks = self._open()
        if locks is None:
            return Outcome.UNSUPPORTED
        return locks.try_lock([(at, at + 1)], shared=shared).outcome

    def is_free(self, at: int) -> bool:
        """Whether nobody else has a byte for itself, as far as anybody can tell."""
        locks = self._open()
        return locks is None or isinstance(locks.conflict(at, at + 1, shared=True), Outcome)

    def leave(self, at: int) -> None:
        """Release what this process has of a byte."""
        if self._locks is not None:
            self._locks.unlock([(at, at + 1)])

    def rest(self) -> None:
        """Keep the file open; see `Holder`."""

    def forget(self) -> None:
        """Let go of the file in a forked child; the parent's locks stay."""
        self._locks, self._is_open = None, True

    def _open(self) -> RangeLock | None:
        if not self._is_open:
            with self._lock:
                if not self._is_open:
                    try:
                        self._locks = self._opened()
                    except OSError:
                        self._locks = None  # no permission, no space, read-only: then one does without
                    self._is_open = True
        return self._locks

    def _opened(self) -> RangeLock:
        try:
            fd = create_file(self._storage, self._path, self._mode, exclusive=False)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another process was faster
                self._prepare()
            fd = create_file(self._storage, self._path, self._mode, exclusive=False)
        return RangeLock(Descriptor(fd, self._storage.close, self), storage=self._storage)


class Sole(Lease):
    """The right to fetch anything, of who is alone. Who releases it has the turn `rest` some time later."""

    __slots__ = ("turn",)

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn, ())
        self.turn = turn


class Turn:
    """What this process has of the right to fetch bytes of one file. Any thread may call any method."""

    __slots__ = ("_at", "_fetches", "_is_alone", "_lock", "_looked_s", "_turns", "has_company")

    def __init__(self, turns: Turns | None, at: int) -> None:
        self._turns = turns
        self._at = at
        self._lock = threading.Lock()
        self._is_alone = False
        self._looked_s = -math.inf
        self._fetches = 0
        self.has_company = False
        """Whether others fetch, too, and everybody leases."""

    def go_on(self) -> Lease | None:
        """Return a lease as `take` does, where this process is alone and has looked for others a moment ago; else None.

        Nobody else has fetched since: those who come wait until they are seen. It waits for nobody itself.
        """
        if not self._lock.acquire(blocking=False):
            return None  # another thread may be in a lock call, which takes as long as the directory pleases
        try:
            if not self._is_alone or self.has_company or time.monotonic() - self._looked_s > LOOK_S:
                return None
            self._fetches += 1
            return Sole(self)
        finally:
            self._lock.release()

    def looked(self) -> None:
        """Note that this process has looked for others, and that there are none."""
        self._looked_s = time.monotonic()

    def take(self) -> Lease | Contended | None:
        """Ask whether this process may fetch what it wants.

        Returns:
            A lease on everything, to be released when what was fetched is published; who stands in the way; or None
            where others fetch with leases, or nobody can tell.
        """
        turns = self._turns
        if turns is None or self.has_company:
            return None
        with self._lock:
            if not self._is_alone:
                outcome = turns.ask(self._at, shared=False)
                if outcome is Outcome.HELD:
                    outcome = turns.ask(self._at, shared=True)
                    if outcome is Outcome.HELD:
                        return Contended(self, (self._at, self._at + 1))
                    self.has_company = True
                    return None
                if outcome is Outcome.UNSUPPORTED:
                    self._turns = None
                    return None
                self._is_alone, self._looked_s = True, -math.inf
            self._fetches += 1
            return Sole(self)

    def make_room(self) -> None:
        """Let others in, who were seen: from now on all lease. They come when what is being fetched is published."""
        with self._lock:
            self.has_company = True
            self._let_in()

    def release(self, lease: Lease) -> None:  # noqa: ARG002 - one is like another
        """Note that what was fetched is published, or will not be."""
        with self._lock:
            self._fetches -= 1
            self._let_in()

    def rest(self) -> None:
        """Let others have it, where nothing is being fetched just now."""
        with self._lock:
            if self._is_alone and not self._fetches and self._turns is not None:
                self._is_alone = False
                self._turns.leave(self._at)

    def is_free(self, wanted: tuple[int, int]) -> bool:
        """Whether nobody is alone here; see `Contended`."""
        return self._turns is None or self._turns.is_free(wanted[0])

    def stop_waiting(self) -> None:
        """Do not wait any more for who is alone here: everybody fetches."""
        self.has_company = True

    def close(self) -> None:
        """Leave what this process has; nothing is asked for any more."""
        with self._lock:
            turns, self._turns = self._turns, None
            if turns is not None and (self._is_alone or self.has_company):
                turns.leave(self._at)
            self._is_alone = False

    def forget(self) -> None:
        """Be as in the beginning, in a forked child: what was had is the parent's."""
        self._lock = threading.Lock()
        self._is_alone = self.has_company = False
        self._fetches = 0

    def _let_in(self) -> None:
        if self._is_alone and self.has_company and not self._fetches and self._turns is not None:
            self._is_alone = False
            self._turns.ask(self._at, shared=True)
