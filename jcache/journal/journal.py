"""A journal: the merged view of all segments of one remote file."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from operator import add
from typing import TYPE_CHECKING, Any, overload

from jcache.journal.compaction import COMPACT_AT, compact, needs_compaction
from jcache.journal.leases import LEASE_FILE, Leases
from jcache.journal.presence import Presence, writer_exists
from jcache.journal.segments import Segments
from jcache.journal.turns import Turn
from jcache.segment.directory import Directory
from jcache.segment.errors import JournalError
from jcache.segment.version import StoredVersion
from jcache.segment.view import View
from jcache.segment.writer import SegmentWriter, describe
from jcache.vectors import Extents

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Mapping, Sequence  # type: ignore[attr-defined]  # Buffer: only for annotations

    from jcache.journal.leases import Contended, Lease
    from jcache.journal.turns import Turns
    from jcache.segment.table import Run
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

    Below = Callable[[str, int], Segments]
    """Gives the segments of a file, by its identity and the number of their tier, that are read only."""

__all__ = ["Journal", "StoredVersion"]


class Journal:
    """All segments of one remote file in one directory.

    Any thread may call any method. One lock orders what is written, and one what is known; both are held over
    operations on the cache directory, never over the origin's, and who looks for others' bytes does not wait for a
    write of this process. Views read without either. A forked child must call `forget` before anything else.
    Nothing is written when a journal is let go of without `close`: its segment stays unsealed, and valid.
    """

    def __init__(
        self,
        storage: Storage,
        directory: bytes | str,
        identity: str,
        *,
        dir_mode: int = 0o700,
        file_mode: int = 0o600,
        turns: Turns | None = None,
        below: Sequence[Below] = (),
    ) -> None:
        """Name a journal; nothing is touched before `attach` or `append`.

        Args:
            storage: The cache's file system.
            directory: Where the segments are; created when the first one is.
            identity: Canonical name of the remote file, without secrets. Segments of another one are ignored.
            dir_mode: Permissions of directories that are created. The umask narrows them only where they are the
                owner's alone: who asks for sharing gets it.
            file_mode: Permissions of files, likewise.
            turns: Tell whose turn it is to fetch; without them all is as where there are no locks.
            below: Where else segments of this file may lie, which are read only, for what this directory lacks.
        """
        self._below_places = below
        self._storage = storage
        self._directory = Directory(storage, os.fsdecode(directory), dir_mode=dir_mode, file_mode=file_mode)
        self._identity = identity
        self.turn = Turn(None, 0) if turns is None else turns.of(identity)
        self._reset()

    def _reset(self) -> None:
        self._writing = threading.RLock()  # taken before the other one, where both are
        self._lock = threading.RLock()
        self._directory.forget()
        self._segments = Segments(self._storage, self._directory, self._identity)
        self._below = [segments_of(self._identity, number) for number, segments_of in enumerate(self._below_places, 1)]
        self._presence = Presence(self._storage)
        self._leases = Leases(self._storage, self._directory.join(LEASE_FILE), mode=self._directory.file_mode)
        self._views: dict[Version, View] = {}
        self._pid = os.getpid()
        self._closed = False

    @property
    def damaged(self) -> int:
        """Extents found damaged so far, while scanning or reading."""
        return self._segments.damaged

    @property
    def size_bytes(self) -> int:
        """How much the segments that are known take up."""
        return sum(segment.source.size_bytes for segment in list(self._segments.known.values()))

    def attach(self) -> None:
        """Open every segment of this journal that the directory has; a missing directory is an empty journal.

        Sealed segments cost one open, one stat and one or two reads each; others are scanned. Files that are no usable
        segments of this journal, or cannot be opened, are ignored: see `problems`.
        """
        with self._lock:
            if not self._closed and any([self._segments.look(), *(below.look() for below in self._below)]):
                self._publish()

    def announce(self) -> bool:
        """Let others see, before the first byte was fetched, that this process is about to record; then look for them.

        Creates this process's segment, empty and locked, and lists the directory: of two processes that start together
        at least one sees the other. The first append writes to it, so recording costs no more operations than without;
        if there is none, sealing removes it. Nothing is done where the segment exists already.

        Returns:
            True if anything new was found.

        Raises:
            JournalError: This process stays unseen: others may fetch what it fetches.
        """
        with self._lock:
            if self._closed or self._own_writer() is not None:
                return False
            try:
                self._create()
            except OSError as error:
                raise self._failure("cannot announce a writer in", error) from error
            found = self._segments.look()
            if found:
                self._publish()
            return found

    def refresh(self, *, wait: bool = True) -> bool:
        """Look for what others have published: one stat of the directory and one of each segment still being written.

        The directory is listed only when its modification time has changed, or changed so recently that it may have
        changed again within the same tick.

        Args:
            wait: Whether to wait for another thread that is looking, beginning a segment or sealing one, which takes as
                long as the directory pleases; else nothing new is found then.

        Returns:
            True if anything new was found.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            if self._closed:
                return False
            changed = self._directory.may_have_changed() and self._segments.look()
            changed |= self._segments.follow()
            if changed:
                self._publish()
            return changed
        finally:
            self._lock.release()

    def _publish(self) -> None:
        for view in self._views.values():
            self._fill(view)

    def _fill(self, view: View) -> None:
        tiers = [
            [(segment, segment.metadata.version) for segment in segments.known.values() if segment.metadata]
            for segments in (self._segments, *self._below)
        ]
        versions = {version for known in tiers for _, version in known}
        # Versions that differ by their ETag may both be the same as one of which only the modification time is known.
        # Nothing says which of them that one is, so it stands for neither, and neither for it.
        usable = {
            version
            for version in versions
            if version.same_as(view.version)
            and all(other.same_as(version) is other.same_as(view.version) for other in versions)
        }
        found: list[Run] = []
        for known in tiers:
            runs = [run for segment, version in known if version in usable for run in segment.table.runs]
            # The longest is the likeliest to have what is sought.
            found += sorted(runs, key=len, reverse=True)
        view.runs = tuple(found)

    def versions(self) -> list[StoredVersion]:
        """Return the states of the file that the journal's segments belong to, the most recently validated first.

        Those that lie below only are behind all others: which of them is newer nobody knows.
        """
        found = self._segments.versions()
        for below in self._below:
            found += [one for one in below.versions() if not any(one.version.same_as(each.version) for each in found)]
        return found

    @overload
    def view(self, version: Version) -> View: ...

    @overload
    def view(self, version: Version, *, wait: bool) -> View | None: ...

    def view(self, version: Version, *, wait: bool = True) -> View | None:
        """Return what the journal holds of one version: the same object each time, always up to date.

        Args:
            version: A version of the file, the origin's as far as its generation matters: see `Generations`. One that
                proves nothing has no bytes.
            wait: Whether to wait while another thread has the journal look at its directory, which takes as long as the
                directory pleases; else the answer is None then.
        """
        known = self._views.get(version)
        if known is not None:
            return known  # without the lock, as above
        if not self._lock.acquire(blocking=wait):
            return None
        try:
            view = self._views.get(version)
            if view is None:
                view = View(self._storage, version, self._forget_rows, self._lose)
                self._fill(view)
                self._segments.generations.of(version, self._segments.described())
                self._views[version] = view
            return view
        finally:
            self._lock.release()

    def append(self, version: Version, info: Mapping[str, Any], extents: Sequence[tuple[int, Buffer]]) -> int:
        """Record extents in one frame, visible to this process's views at once and to others when they look.

        Args:
            version: The version that these bytes were proved to belong to.
            info: What the origin said of the file, as JSON; stored when a segment is begun.
            extents: Offset in the remote file and bytes, disjoint, in the order in which they were asked for.

        Returns:
            Bytes written to the cache directory.

        Raises:
            JournalError: Nothing was recorded. The same call may succeed later.
        """
        extents = Extents.of(extents)
        if set(map(type, extents.data)) != {bytes}:
            extents = Extents(extents.starts, [memoryview(data).cast("B") for data in extents.data])
        if not all(extents.data):
            extents = Extents.of((start, data) for start, data in extents if data)
        if not version.is_provable:
            raise JournalError("bytes of a version that proves nothing are not recorded")
        if not extents:
            return 0
        if min(extents.starts) < 0 or max(map(add, extents.starts, map(len, extents.data))) > version.size_bytes:
            raise JournalError(f"an extent lies outside the file of {version.size_bytes} bytes")
        with self._writing:
            try:
                with self._lock:
                    if self._closed:
                        raise JournalError("the journal is closed")
                    writer = self._writer_for(version, info)
                size, replaced = writer.append(extents)
            except OSError as error:
                raise self._failure("cannot record in", error) from error
            if replaced:
                with self._lock:
                    self._publish()
            return size

    def note_empty(self, version: Version, info: Mapping[str, Any]) -> int:
        """Record that the file is empty, in a segment of its own, which others see at once; return its size.

        Args:
            version: An empty file's, which proves something.
            info: As for `append`.

        Raises:
            JournalError: Nothing was recorded.
        """
        from jcache.journal.whole import Whole, write_whole

        place, segments = self._directory, self._segments
        with self._lock:
            generation, proved = segments.generations.of(version, segments.described())
        size = write_whole(
            self._storage,
            place.path,
            self._identity,
            Whole(version, info, b""),
            dir_mode=place.dir_mode,
            file_mode=place.file_mode,
            proved_ns=time.time_ns(),
            proved=proved,
            generation=generation,
        )
        self.attach()
        return size

    def _own_writer(self) -> SegmentWriter | None:
        if self._pid != os.getpid():
            # A child that was not told to forget must not write where its parent does.
            self.forget()
        return self._segments.writer

    def _writer_for(self, version: Version, info: Mapping[str, Any]) -> SegmentWriter:
        writer = self._own_writer()
        if writer is not None and not writer.is_blank:
            assert writer.segment.metadata is not None
            begun = writer.segment.metadata.version
            # Bytes are not said to be of a version that tells more than was proved of them.
            if begun.same_as(version) and not begun.says_more_than(version):
                return writer
            self._seal()
            writer = None
        segments = self._segments
        generation, proved = segments.generations.of(version, segments.described())
        metadata = describe(self._identity, version, info, generation=generation, proved=proved)
        if writer is None:
            writer = self._create()
        writer.begin(metadata)
        return writer

    def _create(self) -> SegmentWriter:
        path, mode = self._directory.path, self._directory.file_mode
        writer = self._directory.made_for(lambda: SegmentWriter.announce(self._storage, path, file_mode=mode))
        # Not a reference to this journal: it would keep both until the garbage collector comes by.
        rest = weakref.WeakMethod(self._rest)
        writer.segment.source.seal = lambda: (method := rest()) and method()
        self._segments.writer = writer
        self._segments.known[writer.segment.name] = writer.segment
        return writer

    def _failure(self, what: str, error: OSError) -> JournalError:
        return JournalError(f"{what} {self._directory.path}: {error.strerror or error}", errno=error.errno)

    def seal(self) -> None:
        """Seal this process's segment, if it has one; it stays readable, and the next append begins another.

        Raises:
            JournalError: It stays unsealed, and valid.
        """
        with self._writing, self._lock:
            try:
                self._seal()
            except OSError as error:
                raise self._failure("cannot seal a segment in", error) from error

    def _rest(self) -> None:
        """Seal this process's segment since others need its descriptor; not where that means to wait for anybody."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            if self._lock.acquire(blocking=False):
                try:
                    with contextlib.suppress(OSError):  # it stays unsealed, and valid
                        self._seal()
                finally:
                    self._lock.release()
        finally:
            self._writing.release()

    def _seal(self) -> None:
        segments = self._segments
        writer, segments.writer = segments.writer, None
        if writer is None or self._pid != os.getpid():
            return
        try:
            writer.seal()
        finally:
            if not writer.segment.table.runs:
                segments.known.pop(writer.segment.name, None)
            self._publish()

    def close(self) -> None:
        """Seal, release what is leased, and let go of every file. The journal is empty from then on, and takes nothing.

        Raises:
            JournalError: Sealing failed; everything is let go of nevertheless.
        """
        with self._writing, self._lock:
            try:
                self.seal()
            finally:
                self._closed = True
                self._empty()

    def forget(self) -> None:
        """Drop everything without writing or unlocking: for a forked child, whose parent goes on with the same files.

        The journal is then as it was before `attach`.
        """
        views = list(self._views.values())
        self._leases.forget()
        self.turn.forget()
        # The locks may be held by threads that the child does not have.
        self._reset()
        for view in views:
            view.runs = ()

    def _empty(self) -> None:
        self._leases.close()
        self.turn.close()
        for segments in (self._segments, *self._below):
            segments.known.clear()
        self._publish()
        self._views.clear()

    def touch(self, version: Version, *, keep_time: bool = True) -> None:
        """Note that a version was found to be the origin's just now, for every process that attaches later.

        A failure (a directory of another user's) is no error: others ask the origin themselves.

        Args:
            version: The version.
            keep_time: Whether others are to know when; otherwise nothing is written if they would take it for the
                newest version in any case.
        """
        with self._lock:
            self._segments.touch(version, keep_time=keep_time)

    def others_live(self) -> bool:
        """Whether another process is writing to this journal, as far as is known since the last `refresh`.

        That is: it has a segment that is not sealed, and whose lock is held. Costs nothing while there is no such
        segment, or its writer was asked for lately; see `Presence`. Does not wait for what is being written.
        """
        segments = self._segments
        for segment in list(segments.known.values()):
            if not segment.sealed and not segments.is_own(segment) and self._presence.may_live(segment):
                return True
        return False

    def lease(self, ranges: Sequence[tuple[int, int]]) -> Lease | Contended:
        """Ask for the right to fetch gaps, without waiting; only where `others_live`. See `jcache.journal.leases`.

        Args:
            ranges: What is about to be fetched, half-open, in any order.

        Returns:
            A lease on all of them, or who stands in the way.
        """
        return self._leases.take(ranges)

    def drop(self) -> None:
        """Remove all segments but those that other processes are writing: the remote file is being overwritten.

        This process's segment goes too, and the next append begins another. Leases stay.

        Raises:
            JournalError: Some could not be removed.
        """
        with self._writing, self._lock:
            if self._closed:
                return
            self._own_writer()
            failure = self._segments.remove()
            self._publish()
            if failure is not None:
                raise self._failure("cannot remove all segments in", failure) from failure

    def wants_compaction(self) -> bool:
        """Whether this journal has gathered so many segments, or so old versions, that `compact` is worth its time.

        Told from what `attach` and `refresh` saw, without a look at the disk.
        """
        known = [s for s in list(self._segments.known.values()) if s.metadata is not None]
        if len(known) < 2:
            return False
        at_rest = [s for s in known if s.sealed or (writer_exists(s.name) is False and not self._segments.is_own(s))]
        return needs_compaction(known, at_rest)

    def compact(self, *, at_least: int = COMPACT_AT, timeout_s: float | None = None) -> int:
        """Merge segments that nobody writes to any more into one for each version, and remove what is of no use.

        Every extent is verified and copied once, in the order in which the bytes were first read; the time of the last
        validation is kept. Readers of the old segments are not disturbed. Removed without a trace are segments of other
        versions than the one validated last, 10 minutes after that, and empty ones of dead writers. This process's own
        segment takes part once it is sealed. Other threads may use the journal meanwhile.

        Args:
            at_least: So many segments of one version must there be.
            timeout_s: When this time is up, what is not done is given up. (What the file system takes to write all to
                its medium comes on top.)

        Returns:
            How many segments were removed; 0 also if another process is compacting.

        Raises:
            JournalError: Every byte is where it was. With `ENOSPC` where there is not room for twice what is merged.
        """
        writer = self._segments.writer
        try:
            done = compact(
                self._storage,
                self._directory,
                self._identity,
                at_least=at_least,
                timeout_s=timeout_s,
                own=writer.segment.name if writer else None,
            )
        except OSError as error:
            raise self._failure("cannot compact", error) from error
        with self._lock:
            if not self._closed:
                self._segments.damaged += done.damaged
                if self._segments.look():
                    self._publish()
        return done.removed

    def problems(self) -> list[tuple[str, str]]:
        """Return path and description of every file that was ignored or found damaged, oldest first."""
        with self._lock:
            return list(self._segments.problems)

    def _lose(self, run: Run) -> None:
        with self._lock:
            self._segments_of(run).lose(run)
            self._publish()

    def _forget_rows(self, run: Run, rows: Sequence[int], what: str) -> int:
        with self._lock:
            return self._segments_of(run).forget_rows(run, rows, what)

    def _segments_of(self, run: Run) -> Segments:
        return next((below for below in self._below if below.has(run)), self._segments)
