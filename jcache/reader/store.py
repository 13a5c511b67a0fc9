"""A remote file's journal as its readers use it: with time limits, behind their back, only as long as it is well."""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from jcache.counters import Counters
from jcache.journal import Contended, Journal, JournalError, Lease, Sole, StoredVersion, Version, View
from jcache.locks import pauses
from jcache.origin import Info, Sharing
from jcache.ranges import Range
from jcache.reader.details import storable
from jcache.reader.held import Room
from jcache.reader.recorder import Recorder, Recording
from jcache.reader.snapshot import END, Snapshot
from jcache.reader.waiting import Patience
from jcache.reader.workers import CacheHungError, Workers
from jcache.vectors import Extents

__all__ = ["ROOM_S", "Home", "Host", "Own", "Store"]

T = TypeVar("T")

# Where a look around takes long, a first fetch of less than this is made without: others at most make it as well.
ALONE_BYTES = 64 << 10
# So long after its last fetch nobody waits any more for a process that fetches alone.
REST_S = 0.05
# What a look around may have taken for the next one to be made on the event loop.
QUICK_S = 0.0005
# Recording may hold up a read for as long as its fetch took, and at least this long, before bytes go unrecorded.
ROOM_S = 0.1
# In pieces of at most this goes what is more than may wait.
PIECE_BYTES = 8 << 20
# What it takes to say that a file is empty, or a little more.
EMPTY_BYTES = 4096


class Host(Protocol):
    """What a remote file needs of the process that it lives in."""

    counters: Counters
    recorder: Recorder
    workers: Workers
    patience: Patience
    ahead: Room
    validate: str | float
    offline: bool

    def trouble(self, what: str) -> None:
        """Say once that the cache is in trouble, and count it."""
        ...


def anything(*_: object, **__: object) -> bool:
    """Allow to record whatever there is: without a limit for the cache's size."""
    return True


@dataclass(frozen=True, slots=True)
class Home:
    """Where a remote file's bytes are kept: for all who ask, or for one of them.

    Attributes:
        journal: The journal.
        place: Its directory, for the record of use.
        admit: See `Recording`. With `copy=True` it is asked for a compaction, which nothing is to wait or go for.
    """

    journal: Journal
    place: str | None = None
    admit: Callable[..., bool] = anything


Own = Callable[[bool], Home | None]
"""Gives the journal of who asks: made if that is asked for, else only where there is one."""


class Store:
    """The journal of one remote file in this process.

    Nothing here raises for what happens to the cache directory: it is then as if the journal had nothing.
    Any number of tasks on any event loops, and threads, use one instance.
    """

    def __init__(
        self,
        host: Host,
        home: Home | None,
        *,
        url: str,
        writable: bool,
        local: bool,
        own: Own | None,
        shared: bool,
        why_not: str = "",
    ) -> None:
        """Take care of a journal; nothing is touched yet.

        Args:
            host: The process's counters, recorder and workers.
            home: The journal; None where the cache cannot serve the file.
            url: The file's address for messages, without secrets.
            writable: Whether what is fetched may be recorded.
            local: Whether the cache directory is on this machine, so that reading it on the caller's thread is safe.
            own: Gives the journal that is the asker's own; None where there cannot be one.
            shared: Whether the journal is for all who ask, whatever the origin says.
            why_not: Why there is no journal, where there is none.
        """
        self._host = host
        # None once it is not to be used any more; `_homes` is what there is to close.
        self._journal = None if home is None else home.journal
        self._homes = [] if home is None else [home]
        self._own = None if shared else own
        self._shared = shared
        self._url = url
        self._attached = False
        self._announced = False
        self._looked = False
        self._storable: tuple[Info, Info] | None = None
        self.writable = writable
        # Why there is no journal, where there is none.
        self.why_not = why_not
        self._local = local

    @property
    def place(self) -> str | None:
        """The journal's directory; None where there is none."""
        return self._homes[-1].place if self._homes else None

    @property
    def is_used(self) -> bool:
        """Whether there is a journal that may be used."""
        return self._journal is not None

    def leave(self, why: str) -> None:
        """Read and record nothing more of this file in this process, and say why."""
        self._journal = None
        self.why_not = why
        self._host.trouble(f"{self._url}: {why}")

    # -- what there is --------------------------------------------------------------------------------------

    async def versions(self) -> list[StoredVersion]:
        """Return what the journal has, newest first, having attached to it."""
        if self._journal is None:
            return []

        def look() -> list[StoredVersion]:
            if not self._attached and self._own is not None and (own := self._own(False)) is not None:
                # What the origin gave to who asks, if anything, rather than what it gives to everybody.
                own.journal.attach()
                if own.journal.versions():
                    self._move(own)
                else:
                    own.journal.close()
            journal = self._journal
            if journal is None:
                return []
            if not self._attached:
                journal.attach()
            return journal.versions()

        try:
            found = await self._host.workers.run(look)
        except (JournalError, OSError) as error:
            self.leave(f"its journal cannot be read ({error})")
            return []
        self._attached = True
        return found

    async def suit(self, sharing: Sharing) -> bool:
        """Go by what the origin says of for whom the file is.

        Args:
            sharing: What it said.

        Returns:
            Whether another journal is used from now on, or none: views of the one before are void.
        """
        if sharing == "all" or self._shared or self._journal is None or (sharing == "asker" and len(self._homes) > 1):
            return False
        make, home = self._own, None
        if sharing == "asker" and make is not None:

            def look() -> Home | None:
                own = make(True)
                if own is not None:
                    own.journal.attach()
                return own

            with contextlib.suppress(JournalError, OSError):
                home = await self._host.workers.run(look)
        if home is None:
            self._journal = None
            self.why_not = (
                "the origin forbids to store it (Cache-Control: no-store, or Vary: *)"
                if sharing == "nobody"
                else "it is for one asker only, who cannot be told from others"
            )
        elif len(self._homes) == 1:
            self._move(home)
        return True

    def _move(self, home: Home) -> None:
        self._homes.append(home)
        self._journal = home.journal
        self._announced = False

    async def view(self, version: Version) -> View | None:
        """Return what the journal has of one version, None where that cannot be used."""
        view = self.view_now(version)
        if view is not None or self._journal is None or not version.is_provable:
            return view
        try:
            return await self._host.workers.run(functools.partial(self._journal.view, version))
        except CacheHungError:
            return None

    def view_now(self, version: Version) -> View | None:
        """Return what is known of what the journal has of one version, without a look at the cache directory."""
        if self._journal is None or not version.is_provable:
            return None
        return self._journal.view(version, wait=False)

    async def touch(self, version: Version, *, keep_time: bool) -> None:
        """Note, for processes to come, that a version was found to be the origin's just now; see `Journal.touch`."""
        if self._journal is not None and self.writable:
            touch = functools.partial(self._journal.touch, version, keep_time=keep_time)
            with contextlib.suppress(JournalError):
                await self._host.workers.run(touch)

    def call(self, task: Callable[[], T], *, size_bytes: int) -> T:
        """Read from the cache directory in synchronous code: on this thread, where that cannot take for ever."""
        return task() if self._local else self._host.workers.call(task, size_bytes=size_bytes)

    # -- sharing with other processes ---------------------------------------------------------------------------

    async def share(self, gaps: Sequence[Range], view: View | None) -> Lease | None:
        """Look around before gaps are fetched: who else writes here, what they have published, what they are fetching.

        Costs one stat of the journal's directory while this process is alone, and a lock for as long as it goes on
        fetching. Where others write, the gaps are leased; if one of them is fetching some of these bytes, or was alone
        until now, its fetch is waited for, a bounded time.

        Args:
            gaps: What is about to be fetched.
            view: Where they are gaps; None where the version is not known yet.

        Returns:
            The lease, to be released when the bytes are recorded or will not be; None where some of the bytes are, or
            may be, in the journal by now, so that the read is to be planned anew.
        """
        journal = self._journal
        first, self._looked = not self._looked, True
        if journal is None:
            return NO_LEASE
        if first and not self._local and sum(stop - start for start, stop in gaps if stop != END) < ALONE_BYTES:
            return NO_LEASE

        taking, workers = _Taking(), self._host.workers

        def is_published() -> bool:
            if view is None:
                return bool(journal.versions())
            return any(part[2] is not None for gap in gaps for part in view.find(*gap))

        def be_seen() -> bool:
            first, self._announced = not self._announced, True
            with contextlib.suppress(JournalError):
                return first and journal.announce()
            return False

        def look() -> Lease | Contended | None:
            found, answer = False, journal.turn.take() if self.writable else NO_LEASE
            if answer is None or isinstance(answer, Contended):
                found = be_seen()
            if answer is None:
                answer = journal.lease(gaps) if journal.turn.has_company or journal.others_live() else NO_LEASE
            if isinstance(answer, Contended):
                return answer
            # Whoever holds a lease publishes before releasing it: what is looked for behind one's own is all there.
            # Without waiting for the recorder: then the origin is the faster one.
            found |= journal.refresh(wait=False)
            if not answer.ranges and journal.others_live():
                # They came since the last look, and wait for what is leased only.
                journal.turn.make_room()
                answer.release()
                found |= self.writable and be_seen()
                answer = journal.lease(gaps)
                if isinstance(answer, Contended):
                    return answer
                found |= journal.refresh(wait=False)
            if found and is_published():
                drop(answer)
                return None
            return taking.take(answer)

        def timed_look() -> Lease | Contended | None:
            began_s = time.monotonic()
            try:
                return look()
            finally:
                workers.look_s = time.monotonic() - began_s

        # Where that is known to be shorter than the way to another thread and back, and to wait for nobody.
        is_quick = self._local and workers.look_s < QUICK_S and not workers.hung
        try:
            if is_quick and not journal.others_live():
                answer = timed_look()
            else:
                answer = await workers.run(timed_look)
            if not isinstance(answer, Contended):
                return answer
            patience, began_s = self._host.patience, time.monotonic()
            over = False

            def look_again() -> bool:
                journal.refresh(wait=False)
                return is_published()

            for pause_s in pauses(patience.left_s):
                await asyncio.sleep(pause_s)
                # Who was alone keeps the right to go on for a while after what this reader waits for is there.
                over = await workers.run(lambda: answer.is_over() or look_again())
                if over:
                    break
            published = await workers.run(look_again)
            patience.waited(time.monotonic() - began_s, in_vain=not published)
            if not over:
                await workers.run(answer.give_up)
                # What came meanwhile is taken; for the rest nobody is waited for.
                return None if published else NO_LEASE
        except (JournalError, OSError):
            taking.leave()
            return NO_LEASE
        except BaseException:
            taking.leave()
            raise
        return None

    def release(self, lease: Lease) -> None:
        """Release a lease behind the caller's back: it takes a call on the cache directory."""
        if lease.is_held and not self._host.recorder.call(functools.partial(self._release_here, lease)):
            self._release_here(lease)

    def _release_here(self, lease: Lease) -> None:
        # In a directory that hangs the call would hang too, whoever makes it; the lease goes with the process.
        if lease.is_held and not self._host.workers.hung:
            lease.release()
            if isinstance(lease, Sole):
                self._host.recorder.later(lease.turn.rest, REST_S)

    # -- recording ------------------------------------------------------------------------------------------

    def record(self, snapshot: Snapshot, extents: Extents, *, timeout_s: float, lease: "Lease | None" = None) -> bool:
        """Queue extents of a snapshot's version for recording.

        Args:
            snapshot: Holds the extents in memory until they are recorded.
            extents: Origin offset and bytes of each.
            timeout_s: How long to wait for room in the queue.
            lease: Released when they are recorded, or given up.

        Returns:
            False where there is no room: nothing was queued, and nothing released.
        """
        journal, info = self._journal, snapshot.info
        if not extents or journal is None or info is None:
            snapshot.settle(extents)
            if lease is not None:
                self.release(lease)
            return True
        if self._storable is None or self._storable[0] is not info:
            self._storable = info, Info(info.version, storable(info.details))

        def settled(recorded: Extents) -> None:
            snapshot.settle(recorded)
            if lease is not None:
                self._release_here(lease)

        admit = self._homes[-1].admit
        recording = Recording(journal, self._storable[1], extents, settled, lambda: not snapshot.outdated, admit)
        urgent = lease is not None and bool(lease.ranges)
        return self._host.recorder.submit(recording, timeout_s=timeout_s, urgent=urgent)

    def note_empty(self, snapshot: Snapshot) -> None:
        """Have recorded, behind the caller's back, that the file is empty, unless it is not or that is known."""
        journal, info = self._journal, snapshot.info
        if info is None or info.version.size_bytes or journal is None or not self.writable:
            return
        version = info.version
        if not version.is_provable or any(stored.version.same_as(version) for stored in journal.versions()):
            return
        admit = self._homes[-1].admit

        def note() -> None:
            if not snapshot.outdated and admit(EMPTY_BYTES):
                with contextlib.suppress(JournalError):  # then nothing is known of it
                    journal.note_empty(version, storable(info.details))

        self._host.recorder.call(note)

    async def record_in_time(
        self, snapshot: Snapshot, extents: Extents, *, room_s: float, lease: "Lease | None" = None
    ) -> None:
        """Queue extents, waiting for room at most `room_s` seconds; without room they go unrecorded."""
        if extents.size_bytes > self._host.recorder.limit_bytes:
            taken = await self._record_pieces(snapshot, extents, room_s=room_s, lease=lease)
        else:
            if self.record(snapshot, extents, timeout_s=0, lease=lease):
                return
            taken = await self._wait_to_record(snapshot, extents, room_s=room_s, lease=lease)
        if not taken:
            self._host.trouble("the cache directory is slower than the origin: some bytes were not recorded")

    async def _wait_to_record(
        self, snapshot: Snapshot, extents: Extents, *, room_s: float, lease: "Lease | None" = None
    ) -> bool:
        taken = False
        try:
            taken = await asyncio.to_thread(self.record, snapshot, extents, timeout_s=room_s, lease=lease)
        except RuntimeError:
            taken = False  # no thread to wait in: the interpreter is about to end
        finally:
            if not taken:
                snapshot.settle(extents)
                if lease is not None:
                    self.release(lease)
        return taken

    async def _record_pieces(
        self, snapshot: Snapshot, extents: Extents, *, room_s: float, lease: "Lease | None"
    ) -> bool:
        """Queue more than may wait, piece by piece and as copies: what the application lets go of is then gone."""
        until_s = time.monotonic() + room_s
        try:
            for piece in pieces_of(extents, min(PIECE_BYTES, self._host.recorder.limit_bytes // 4)):
                snapshot.replace(extents, piece)
                left_s = max(until_s - time.monotonic(), 0.0)
                if not self.record(snapshot, piece, timeout_s=0) and not await self._wait_to_record(
                    snapshot, piece, room_s=left_s
                ):
                    return False
        finally:
            snapshot.settle(extents)
            if lease is not None:
                self.release(lease)
        return True

    # -- life -----------------------------------------------------------------------------------------------

    def attach_again(self) -> None:
        """Look which segments there still are, after some were removed; it touches the cache directory."""
        for home in self._homes:
            home.journal.attach()

    def seal(self) -> None:
        """Seal what was recorded; call it behind the last recording."""
        for home in self._homes:
            home.journal.seal()

    def close(self, *, compact_s: float) -> None:
        """Seal and close the journal; before, compact it if it wants that, for at most `compact_s` seconds."""
        for home in self._homes:
            journal = home.journal
            try:
                wanted = self.writable and not self._host.workers.hung and journal.wants_compaction()
                # For a while there are both what is merged and what it becomes.
                if wanted and compact_s > 0 and home.admit(journal.size_bytes, copy=True):
                    journal.seal()
                    with contextlib.suppress(JournalError):
                        # Every byte is where it was; the next who closes it tries again.
                        journal.compact(timeout_s=compact_s)
            finally:
                journal.close()

    def forget(self) -> None:
        """In a forked child: drop everything without writing or unlocking what is the parent's."""
        for home in self._homes:
            home.journal.forget()


def pieces_of(extents: Extents, most_bytes: int) -> Iterator[Extents]:
    """Yield copies of extents, in order, in pieces of a bounded size."""
    piece = Extents()
    size_bytes = 0
    for start, data in extents:
        for at in range(0, len(data), most_bytes):
            part = bytes(data[at : at + most_bytes])
            if size_bytes + len(part) > most_bytes:
                yield piece
                piece, size_bytes = Extents(), 0
            piece.append(start + at, part)
            size_bytes += len(part)
    if size_bytes:
        yield piece


def drop(lease: Lease) -> None:
    """Release a lease on what is not fetched after all."""
    lease.release()
    if isinstance(lease, Sole):
        lease.turn.rest()


NO_LEASE = Lease(None, ())


class _Taking:
    """A lease on its way from the thread that takes it to the task that wants it, which may be gone by then."""

    __slots__ = ("_lease", "_left", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._left = False

    def take(self, lease: Lease) -> Lease:
        """Hand the lease over, or release it where nobody waits for it any more."""
        with self._lock:
            self._lease = lease
            left = self._left
        if left:
            drop(lease)
        return lease

    def leave(self) -> None:
        """Wait no more. The lease is released here: that is one call, on a file that is open."""
        with self._lock:
            self._left = True
            lease = self._lease
        if lease is not None:
            drop(lease)
