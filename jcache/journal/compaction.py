"""Compaction: the segments of one version become one, in the order in which their bytes were first read.

The new segment is complete and on the disk under its final name before the first of those that it replaces goes, so a
reader that lists the directory at any moment finds every byte at least once, and one that holds the old files keeps
them. Whoever removes a segment has published its bytes before; so two who compact at once, where locks do not exclude
them, waste their time, and lose nothing. Killed at any moment, it leaves a temporary file, or the same bytes twice; the
next compaction clears up.

Memory holds the tables of all that is merged, some 200 bytes an extent, and some 16 MiB of data.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcache.journal.liveness import may_live
from jcache.segment.copying import Copy, TimeUp
from jcache.segment.directory import TEMPORARY, create_file
from jcache.segment.errors import JournalError, UnusableSegment
from jcache.segment.format import MOST_EXTENTS, parse_segment_name
from jcache.segment.proof import latest
from jcache.segment.segment import Segment
from jcache.segment.writer import SegmentWriter, describe
from jcache.system.locks import FileLock, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jcache.segment.directory import Directory
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["COMPACT_AT", "LOCK_FILE", "Compacted", "compact", "needs_compaction"]

COMPACT_AT = 8
"""So many segments of one version are worth compacting."""

LOCK_FILE = "@compact"
"""Whose `flock` keeps others from compacting the same journal; it stays, empty."""

SUPERSEDED_NS = 600 * 10**9
"""For so long nothing must have been written to a segment of an older version before it is called superseded."""

_MOST_SEGMENTS = 256  # the process has other uses for its descriptors


@dataclass(slots=True)
class Compacted:
    """What a compaction did."""

    removed: int = 0
    """Segments that are gone: merged, superseded, or empty ones that a dead writer left."""
    damaged: int = 0
    """Extents that were left out because they are not as they were recorded."""


@dataclass(slots=True)
class _Found:
    """What there is to do."""

    groups: list[list[Segment]]
    useless: list[Segment]
    leftovers: list[str]

    def __bool__(self) -> bool:
        return bool(self.groups or self.useless or self.leftovers)


def compact(
    storage: Storage,
    directory: Directory,
    identity: str,
    *,
    at_least: int,
    timeout_s: float | None = None,
    own: str | None = None,
) -> Compacted:
    """Merge the segments of each version, and remove what is of no use; see `Journal.compact`.

    Args:
        storage: The cache's file system.
        directory: The journal's directory.
        identity: Canonical name of the remote file; segments of others are left alone.
        at_least: Segments of one version below which they stay as they are.
        timeout_s: How long it may take until what is not finished by then is given up.
        own: Name of the segment that this process is writing, which is left alone too.

    Raises:
        JournalError: There is too little space.
        OSError: The file system failed. What was there is still there.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    work = _Compaction(storage, directory, identity, own)
    if not work.look(at_least):
        return work.done
    try:
        fd = create_file(storage, directory.join(LOCK_FILE), directory.file_mode, exclusive=False)
    except FileNotFoundError:
        return work.done  # the journal was removed
    try:
        if FileLock(fd, storage=storage).try_lock().outcome is not Outcome.HELD:
            # Looked at again, since another may have done it all before the lock was free.
            work.run(work.look(at_least), deadline_s)
    except TimeUp:
        pass
    finally:
        with contextlib.suppress(OSError):  # nothing was written through it
            storage.close(fd)  # and the lock goes with it
    return work.done


def needs_compaction(known: Iterable[Segment], at_rest: Iterable[Segment]) -> bool:
    """Tell whether there is enough to do for a compaction by itself.

    Args:
        known: All segments that have metadata.
        at_rest: Those of them that nobody writes to.
    """
    newest = _newest(known)
    versions: Counter[Version] = Counter()
    for segment in at_rest:
        assert segment.metadata is not None
        versions[segment.metadata.version] += 1
        if newest is not None and _is_superseded(segment, newest):
            return True
    return max(versions.values(), default=0) >= COMPACT_AT


def _newest(known: Iterable[Segment]) -> Segment | None:
    """Return a segment of the newest version."""
    return max((s for s in known if s.metadata is not None), key=_order, default=None)


def _is_superseded(segment: Segment, newest: Segment) -> bool:
    """Tell whether a segment's version is gone for so long that nobody may be about to use it."""
    assert segment.metadata is not None
    assert newest.metadata is not None
    age_ns = time.time_ns() - segment.mtime_ns
    return age_ns > SUPERSEDED_NS and not segment.metadata.version.same_as(newest.metadata.version)


class _Compaction:
    def __init__(self, storage: Storage, directory: Directory, identity: str, own: str | None) -> None:
        self._storage = storage
        self._directory = directory
        self._identity = identity
        self._own = own
        self.done = Compacted()

    def look(self, at_least: int) -> _Found:
        """Open what there is, and say what is to be done with it."""
        found = _Found([], [], [])
        names = [name for name in self._directory.read() if name.startswith("@")]
        found.leftovers = [name for name in names if name.endswith(TEMPORARY) and _salt(name) is not None]
        known = list(self._open(names))
        newest = _newest(known)
        groups: dict[Version, list[Segment]] = {}
        for segment in known:
            if not segment.sealed and self._may_live(segment):
                continue
            metadata = segment.metadata
            if metadata is None or newest is None or _is_superseded(segment, newest):
                found.useless.append(segment)
            else:
                groups.setdefault(metadata.version, []).append(segment)
        for group in groups.values():
            has_bytes = any(segment.table.runs for segment in group)
            if has_bytes and len(group) >= max(at_least, 1) and (len(group) > 1 or not group[0].sealed):
                group.sort(key=_created)
                found.groups.append(group)
        return found

    def run(self, found: _Found, deadline_s: float | None) -> None:
        """Do it."""
        for name in found.leftovers:
            self._clear(name)
        for segment in found.useless:
            self._remove(segment)
        for group in found.groups:
            self._merge(group, deadline_s)

    def _open(self, names: Iterable[str]) -> Iterator[Segment]:
        removable = self._removable()
        opened = rows = 0
        for name in names:
            salt = None if name == self._own or name.endswith(TEMPORARY) else _salt(name)
            if salt is None:
                continue
            try:
                segment = Segment.open(self._storage, self._directory.join(name), name, salt)
                if segment.metadata is not None and segment.metadata.identity != self._identity:
                    continue
                if removable is not None and segment.source.status().st_uid != removable:
                    continue
            except (UnusableSegment, OSError):
                continue  # for others to report; it stays
            if rows + segment.rows > MOST_EXTENTS:
                continue  # nobody would read what so many are merged into
            rows += segment.rows
            yield segment
            opened += 1
            if opened == _MOST_SEGMENTS:
                return

    def _removable(self) -> int | None:
        """Return the only user whose files may be removed from the directory; None for everybody's."""
        try:
            status = self._storage.stat(self._directory.path)
        except OSError:
            return None
        user = os.geteuid()
        return user if status.st_mode & stat.S_ISVTX and user not in (0, status.st_uid) else None

    def _may_live(self, segment: Segment) -> bool:
        return may_live(self._storage, segment.source.fd, segment.name, segment.mtime_ns)

    def _clear(self, name: str) -> None:
        """Remove the temporary file of a compaction whose process is gone."""
        path = self._directory.join(name)
        with contextlib.suppress(OSError):
            fd = self._storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                mtime_ns = self._storage.fstat(fd).st_mtime_ns
                if not may_live(self._storage, fd, name.removesuffix(TEMPORARY), mtime_ns):
                    self._storage.unlink(path)
            finally:
                self._storage.close(fd)

    def _remove(self, segment: Segment) -> None:
        with contextlib.suppress(FileNotFoundError):  # another compaction was faster
            self._storage.unlink(self._directory.join(segment.name))
            self.done.removed += 1

    def _merge(self, group: list[Segment], deadline_s: float | None) -> None:
        newest = max(group, key=lambda segment: segment.mtime_ns)
        last = group[-1].metadata
        assert last is not None, "what has no metadata is in no group"
        self._need_space(sum(segment.source.size_bytes for segment in group))
        about = [segment.metadata for segment in group if segment.metadata is not None]
        metadata = describe(
            self._identity,
            last.version,
            last.info,
            created_ns=_created(group[0]),
            generation=max(each.generation for each in about),
            proved=latest(segment.proved for segment in group),
        )
        writer = SegmentWriter.announce(
            self._storage, self._directory.path, file_mode=self._directory.file_mode, suffix=TEMPORARY
        )
        is_blank = True
        try:
            writer.begin(metadata)
            copy = Copy(self._storage, writer, deadline_s)
            copy.take(group)
            # Merging proves nothing of the version.
            writer.segment.mtime_ns = newest.mtime_ns
            is_blank = writer.is_blank
            writer.seal()
            if not is_blank:
                self._storage.fsync(writer.segment.source.fd)
                self._storage.rename(writer.path, self._directory.join(writer.segment.name))
        except (OSError, TimeUp):
            with contextlib.suppress(OSError):  # else it is a leftover
                self._storage.unlink(writer.path)
            raise
        self.done.damaged += copy.damaged
        removed = self.done.removed
        try:
            for segment in group:
                if segment not in copy.unreadable and not self._has_grown(segment):
                    self._remove(segment)
        except OSError:
            if self.done.removed == removed and not is_blank:
                # Nothing may be removed here: then there is to be no copy either, lest there be one more each time.
                with contextlib.suppress(OSError):
                    self._storage.unlink(self._directory.join(writer.segment.name))
            raise

    def _need_space(self, size_bytes: int) -> None:
        try:
            status = self._storage.statvfs(self._directory.path)
        except OSError:
            return
        if status.f_blocks and status.f_bavail * status.f_frsize < 2 * size_bytes:
            # What others record just now is to find room as well.
            raise JournalError(f"too little space to compact {self._directory.path}", errno=errno.ENOSPC)

    def _has_grown(self, segment: Segment) -> bool:
        """Whether a writer that was taken for dead is not."""
        try:
            return not segment.sealed and segment.source.status().st_size != segment.source.size_bytes
        except FileNotFoundError:
            return False  # removed by somebody else meanwhile


def _salt(name: str) -> int | None:
    parsed = parse_segment_name(name.removesuffix(TEMPORARY))
    return None if parsed is None else parsed[2]


def _order(segment: Segment) -> tuple[int, int]:
    return segment.metadata.order if segment.metadata is not None else (0, 0)


def _created(segment: Segment) -> int:
    return segment.metadata.created_ns if segment.metadata is not None else 0
