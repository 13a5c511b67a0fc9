"""A remote file's journal as its readers use it: with time limits, behind their back, only as long as it is well."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from jcache.journal import Journal, JournalError, Lease, StoredVersion, Version, View
from jcache.origin import Info, Sharing
from jcache.planning.plan import Part
from jcache.planning.snapshot import Snapshot
from jcache.ranges import Range
from jcache.reader.host import Host
from jcache.reader.lookout import Lookout
from jcache.recording.details import storable
from jcache.recording.recorder import Recording
from jcache.recording.workers import CacheHungError
from jcache.vectors import Extents

__all__ = ["ROOM_S", "Home", "Own", "Store", "anything"]

# Recording may hold up a read for as long as its fetch took, and at least this long, before bytes go unrecorded.
ROOM_S = 0.1
# In pieces of at most this goes what is more than may wait.
PIECE_BYTES = 8 << 20
# What it takes to say that a file is empty, or a little more.
EMPTY_BYTES = 4096


def anything(*_: object, **__: object) -> bool:
    """Allow to record whatever there is: without a limit for the cache's size."""
    return True


class Home(NamedTuple):
    """Where a remote file's bytes are kept: for all who ask, or for one of them.

    Attributes:
        journal: The journal.
        place: Its directory, for the record of use.
        admit: See `Recording`. With `copy=True` it is asked for a compaction, which nothing is to wait or go for.
        below: Where else the journal looks for what it lacks: the tiers, from the first below it on.
    """

    journal: Journal
    place: str | None = None
    admit: Callable[..., bool] = anything
    below: tuple[str, ...] = ()


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
        self._storable: tuple[Info, Info] | None = None
        self.writable = writable
        # Why there is no journal, where there is none.
        self.why_not = why_not
        # Whether synchronous code may read on its own thread, since that cannot take for ever.
        self.local = local
        self._lookout = Lookout(host, local=local, writable=writable)

    @property
    def place(self) -> str | None:
        """The journal's directory; None where there is none."""
        return self._homes[-1].place if self._homes else None

    @property
    def below(self) -> tuple[str, ...]:
        """The tiers below the journal's directory."""
        return self._homes[-1].below if self._homes else ()

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
        self._lookout.moved()

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

    async def share(self, gaps: Sequence[Range], view: View | None) -> Lease | None:
        """Look around before gaps are fetched; see `Lookout.share`."""
        return await self._lookout.share(self._journal, gaps, view)

    def release(self, lease: Lease) -> None:
        """Release a lease behind the caller's back: it takes a call on the cache directory."""
        self._lookout.release(lease)

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
                self._lookout.release_here(lease)

        admit = self._homes[-1].admit
        recording = Recording(journal, self._storable[1], extents, settled, lambda: not snapshot.outdated, admit)
        urgent = lease is not None and bool(lease.ranges)
        return self._host.recorder.submit(recording, timeout_s=timeout_s, urgent=urgent)

    def copy_up(self, info: Info, view: View, parts: Sequence[Part], done: Callable[[int], None]) -> None:
        """Have bytes that lie below recorded in the journal's own directory, behind the caller's back, piece by piece.

        A failure, a directory that hangs, and the end of the process leave the rest where it is.

        Args:
            info: Of the version that they are of.
            view: Of that version.
            parts: Where they lie.
            done: Is told how many bytes were recorded.
        """
        journal, admit = self._journal, self._homes[-1].admit
        if journal is None or not self.writable:
            return
        what, host = Info(info.version, storable(info.details)), self._host
        pieces = cut(((start, stop) for start, stop, *_ in parts), PIECE_BYTES)

        def copy() -> None:
            piece = next(pieces, None)
            if piece is None or host.workers.hung or time.monotonic() > host.recorder.leisure_until_s:
                return
            with contextlib.suppress(JournalError):
                found = (part for start, stop in piece for part in view.find(start, stop))
                extents = Extents.of((part[0], view.read(part)) for part in found if part[2] and part[2].source.tier)
                if extents:
                    if not admit(extents.size_bytes):
                        return
                    journal.append(what.version, what.details, extents)
                    done(extents.size_bytes)
                host.recorder.call(copy)  # behind what was fetched meanwhile

        host.recorder.call(copy)

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


def cut(ranges: Iterable[Range], most_bytes: int) -> Iterator[list[Range]]:
    """Yield ranges, in order, in pieces of a bounded size."""
    piece: list[Range] = []
    size_bytes = 0
    for start, stop in ranges:
        for at in range(start, stop, most_bytes):
            end = min(at + most_bytes, stop)
            if size_bytes + end - at > most_bytes:
                yield piece
                piece, size_bytes = [], 0
            piece.append((at, end))
            size_bytes += end - at
    if piece:
        yield piece


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
