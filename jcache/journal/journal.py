"""A journal: the merged view of all segments of one remote file."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jcache.journal.errors import JournalError, UnusableSegment
from jcache.journal.format import parse_segment_name
from jcache.journal.listing import Listing, writer_may_live
from jcache.journal.segment import Segment
from jcache.journal.view import View
from jcache.journal.writer import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Buffer, Mapping, Sequence  # type: ignore[attr-defined]  # Buffer: only for annotations

    from jcache.journal.table import Run
    from jcache.journal.version import Version
    from jcache.storage import Storage

__all__ = ["Journal", "StoredVersion"]

_MOST_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A state of the file of which the journal holds something.

    Attributes:
        version: The state.
        info: What the origin said of the file when a segment of it was begun.
        validated_ns: When it was last known to be the origin's, nanoseconds since the epoch: the newest modification
            time of its segments.
    """

    version: Version
    info: Mapping[str, Any]
    validated_ns: int


class Journal:
    """All segments of one remote file in one directory.

    Any thread may call any method. One lock orders what changes the journal; it is held over operations on the cache
    directory, never over the origin's. Views read without it. A forked child must call `forget` before anything else.
    Nothing is written when a journal is dropped without `close`: its segment stays unsealed, and valid.

    Attributes:
        damaged: Extents found damaged so far, while scanning or reading.
    """

    def __init__(
        self,
        storage: Storage,
        directory: bytes | str,
        identity: str,
        *,
        dir_mode: int = 0o700,
        file_mode: int = 0o600,
    ) -> None:
        """Name a journal; nothing is touched before `attach` or `append`.

        Args:
            storage: The cache's file system.
            directory: Where the segments are; created when the first one is.
            identity: Canonical name of the remote file, without secrets. Segments of another one are ignored.
            dir_mode: Permissions of directories that are created, before the umask.
            file_mode: Permissions of segments, before the umask.
        """
        self._storage = storage
        self._directory = os.fsdecode(directory)
        self._identity = identity
        self._dir_mode = dir_mode
        self._file_mode = file_mode
        self.damaged = 0
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._segments: dict[str, Segment] = {}
        self._ignored: dict[str, str] = {}
        self._trouble: list[tuple[str, str]] = []
        self._views: dict[Version, View] = {}
        self._writer: SegmentWriter | None = None
        self._pid = os.getpid()
        self._closed = False
        self._listing = Listing(self._storage, self._directory)

    def attach(self) -> None:
        """Open every segment of this journal that the directory has; a missing directory is an empty journal.

        Sealed segments cost one open, one stat and one or two reads each; others are scanned. Files that are no usable
        segments of this journal, or cannot be opened, are ignored: see `problems`.
        """
        with self._lock:
            if not self._closed:
                self._list()

    def refresh(self, *, wait: bool = True) -> bool:
        """Look for what others have published: one stat of the directory and one of each segment still being written.

        The directory is listed only when its modification time has changed, or changed so recently that it may have
        changed again within the same tick.

        Args:
            wait: Whether to wait while this journal is being written to, which takes as long as the directory pleases;
                else nothing new is found then.

        Returns:
            True if anything new was found.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            if self._closed:
                return False
            changed = self._listing.may_have_changed() and self._list()
            for segment in list(self._segments.values()):
                if segment.sealed or (self._writer and segment is self._writer.segment):
                    continue
                changed |= self._follow(segment)
            if changed:
                self._publish()
            return changed
        finally:
            self._lock.release()

    def _list(self) -> bool:
        try:
            names = self._listing.read()
        except OSError as error:
            self._report(self._directory, f"cannot be listed: {error.strerror}")
            return False
        found = set(names)
        changed = False
        for name in names:
            if name not in self._segments and name not in self._ignored and name.startswith("@"):
                changed |= self._open(name)
        for name in self._segments.keys() - found:
            changed |= self._drop(name)
        for name in self._ignored.keys() - found:
            del self._ignored[name]
        if changed:
            self._publish()
        return changed

    def _open(self, name: str) -> bool:
        parsed = parse_segment_name(name)
        if parsed is None:
            if name.endswith(".seg"):
                self._ignore(name, "not a segment's name")
            return False
        path = os.path.join(self._directory, name)
        try:
            segment = Segment.open(self._storage, path, name, parsed[2])
            self._check_identity(segment)
        except UnusableSegment as error:
            self._ignore(name, str(error))
            return False
        except FileNotFoundError:
            # Removed since the directory was listed.
            return False
        except OSError as error:
            # Not for good: the next listing tries again (too many open files, a server that comes back).
            self._report(path, f"cannot be opened: {error.strerror}")
            return False
        self._segments[name] = segment
        self._collect(segment)
        return True

    def _follow(self, segment: Segment) -> bool:
        try:
            changed = segment.refresh(self._storage)
            self._check_identity(segment)
        except UnusableSegment as error:
            del self._segments[segment.name]
            self._ignore(segment.name, str(error))
            return True
        except OSError as error:
            self._report(os.path.join(self._directory, segment.name), f"cannot be followed: {error.strerror}")
            return False
        self._collect(segment)
        return changed

    def _check_identity(self, segment: Segment) -> None:
        if segment.metadata is not None and segment.metadata.identity != self._identity:
            raise UnusableSegment(f"belongs to {segment.metadata.identity}")

    def _collect(self, segment: Segment) -> None:
        self.damaged += segment.damaged
        segment.damaged = 0
        for what in segment.problems:
            self._report(os.path.join(self._directory, segment.name), what)
        segment.problems.clear()

    def _drop(self, name: str) -> bool:
        writer = self._writer
        if writer is not None and writer.segment.name == name:
            try:
                if not writer.is_unlinked():
                    return False  # a listing that lags behind
            except OSError:
                # ESTALE, where a server removed it: gone as well.
                pass
            self._writer = None
        del self._segments[name]
        return True

    def _ignore(self, name: str, what: str) -> None:
        self._ignored[name] = what
        self._report(os.path.join(self._directory, name), what)

    def _report(self, path: str, what: str) -> None:
        if len(self._trouble) < _MOST_PROBLEMS and (path, what) not in self._trouble[-10:]:
            self._trouble.append((path, what))

    def _publish(self) -> None:
        for view in self._views.values():
            self._fill(view)

    def _fill(self, view: View) -> None:
        known = [(segment, segment.metadata.version) for segment in self._segments.values() if segment.metadata]
        chosen = [(segment, version) for segment, version in known if version.same_as(view.version)]
        # Versions that differ by their ETag may both be the same as one of which only the modification time is known.
        # Nothing says which of them it is, so neither is used.
        if any(not a.same_as(b) for _, a in chosen[1:] for _, b in chosen[:1]):
            chosen = [(segment, version) for segment, version in chosen if not version.says_more_than(view.version)]
        runs = [run for segment, _ in chosen for run in segment.table.runs]
        # The longest is the likeliest to have what is sought.
        view.runs = tuple(sorted(runs, key=len, reverse=True))

    def versions(self) -> list[StoredVersion]:
        """Return the states of the file that the journal's segments belong to, the most recently validated first."""
        newest: dict[Version, StoredVersion] = {}
        # A copy at one moment, without the lock: whoever asks does not wait for what is being written.
        for segment in list(self._segments.values()):
            if segment.metadata is None:
                continue
            version = segment.metadata.version
            stored = newest.get(version)
            if stored is None or stored.validated_ns < segment.mtime_ns:
                newest[version] = StoredVersion(version, segment.metadata.info, segment.mtime_ns)
        return sorted(newest.values(), key=lambda stored: stored.validated_ns, reverse=True)

    def view(self, version: Version) -> View:
        """Return what the journal holds of one version: the same object each time, always up to date.

        Args:
            version: A version of the file. One that proves nothing has no bytes.
        """
        known = self._views.get(version)
        if known is not None:
            return known  # without the lock, as above
        with self._lock:
            view = self._views.get(version)
            if view is None:
                view = View(self._storage, version, self._forget_rows)
                self._fill(view)
                self._views[version] = view
            return view

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
        extents = [(start, memoryview(data).cast("B")) for start, data in extents]
        extents = [(start, data) for start, data in extents if len(data)]
        if not version.is_provable:
            raise JournalError("bytes of a version that proves nothing are not recorded")
        if any(start < 0 or start + len(data) > version.size_bytes for start, data in extents):
            raise JournalError(f"an extent lies outside the file of {version.size_bytes} bytes")
        if not extents:
            return 0
        with self._lock:
            if self._closed:
                raise JournalError("the journal is closed")
            try:
                writer = self._writer_for(version, info)
                size, replaced = writer.append(extents)
            except OSError as error:
                raise JournalError(
                    f"cannot record in {self._directory}: {error.strerror or error}", errno=error.errno
                ) from error
            if replaced:
                self._publish()
            return size

    def _writer_for(self, version: Version, info: Mapping[str, Any]) -> SegmentWriter:
        if self._pid != os.getpid():
            # A child that was not told to forget must not write where its parent does.
            self.forget()
        writer = self._writer
        if writer is not None:
            assert writer.segment.metadata is not None
            begun = writer.segment.metadata.version
            # Bytes are not said to be of a version that tells more than was proved of them.
            if begun.same_as(version) and not begun.says_more_than(version):
                return writer
            self._seal()
        try:
            writer = self._create(version, info)
        except FileNotFoundError:
            self._make_directory(self._directory)
            writer = self._create(version, info)
        self._writer = writer
        self._segments[writer.segment.name] = writer.segment
        return writer

    def _create(self, version: Version, info: Mapping[str, Any]) -> SegmentWriter:
        return SegmentWriter.create(
            self._storage, self._directory, self._identity, version, info, file_mode=self._file_mode
        )

    def _make_directory(self, path: str) -> None:
        try:
            self._storage.mkdir(path, self._dir_mode)
        except FileExistsError:
            return
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if parent == path:
                raise
            self._make_directory(parent)
            with contextlib.suppress(FileExistsError):  # another process was faster
                self._storage.mkdir(path, self._dir_mode)

    def seal(self) -> None:
        """Seal this process's segment, if it has one; it stays readable, and the next append begins another.

        Raises:
            JournalError: It stays unsealed, and valid.
        """
        with self._lock:
            try:
                self._seal()
            except OSError as error:
                raise JournalError(
                    f"cannot seal a segment in {self._directory}: {error.strerror or error}", errno=error.errno
                ) from error

    def _seal(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None or self._pid != os.getpid():
            return
        try:
            writer.seal()
        finally:
            if not writer.segment.table.runs:
                self._segments.pop(writer.segment.name, None)
            self._publish()

    def close(self) -> None:
        """Seal, and let go of every file. The journal is empty from then on, and takes nothing.

        Raises:
            JournalError: Sealing failed; everything is let go of nevertheless.
        """
        with self._lock:
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
        # The lock may be held by a thread that the child does not have.
        self._reset()
        for view in views:
            view.runs = ()

    def _empty(self) -> None:
        self._segments.clear()
        self._publish()
        self._views.clear()

    def touch(self, version: Version) -> None:
        """Note that a version was found to be the origin's just now, for every process that attaches later.

        Sets the modification time of the version's newest segment. A failure (a directory of another user's) is no
        error: others ask the origin themselves.

        Args:
            version: The version.
        """
        with self._lock:
            segments = [s for s in self._segments.values() if s.metadata and s.metadata.version.same_as(version)]
            for segment in sorted(segments, key=lambda segment: segment.mtime_ns, reverse=True)[:1]:
                now_ns = time.time_ns()
                try:
                    self._storage.utime(segment.source.fd, (now_ns, now_ns))
                except OSError:
                    # EPERM or EROFS: another user's segment, or a cache that is only read.
                    return
                segment.mtime_ns = now_ns

    def others_live(self) -> bool:
        """Whether another process may be writing to this journal, as far as is known without a look at the disk.

        That is: a segment of another process is not sealed, and its writer is not known to be dead (a process of this
        machine that no longer exists).
        """
        with self._lock:
            own = self._writer.segment if self._writer else None
            return any(
                not segment.sealed and segment is not own and writer_may_live(segment.name)
                for segment in self._segments.values()
            )

    def problems(self) -> list[tuple[str, str]]:
        """Return path and description of every file that was ignored or found damaged, oldest first."""
        with self._lock:
            return list(self._trouble)

    def _forget_rows(self, run: Run, rows: Sequence[int], what: str) -> int:
        with self._lock:
            forgotten = 0
            segment = next((s for s in self._segments.values() if s.source is run.source), None)
            for row in rows:
                start, position = run.starts[row], run.positions[row]
                known = segment is not None and segment.table.forget(start, position)
                forgotten += run.forget(start, position) or known
            if forgotten:
                name = segment.name if segment else "a removed segment"
                self.damaged += forgotten
                self._report(os.path.join(self._directory, name), f"{forgotten} extents: {what}")
            return forgotten
