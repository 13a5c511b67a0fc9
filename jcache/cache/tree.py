"""The journals below a cache's root as the disk has them: found by a walk, looked into, and removed.

What is not ours is left alone: only plain files with a segment's name and content, and the few files that belong to a
journal, are ever removed, and directories only once they are empty. Symbolic links are not followed, and a cache inside
a cache is another cache.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from jcache.journal.compaction import LOCK_FILE
from jcache.journal.leases import LEASE_FILE
from jcache.journal.liveness import may_live
from jcache.naming.layout import TAG_NAME
from jcache.segment.directory import TEMPORARY
from jcache.segment.format import (
    HEADER,
    HEADER_MAGIC,
    MAX_METADATA_BYTES,
    TRAILER,
    TRAILER_MAGIC,
    Metadata,
    parse_header,
    parse_segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jcache.system.storage import Storage

__all__ = ["Found", "Part", "State", "look_into", "prune", "remove_directory", "remove_parts", "useless", "walk"]


class Found(NamedTuple):
    """A directory in which a walk found segments, or what compactions left."""

    path: str
    """Relative to the root."""
    files: dict[str, os.stat_result]
    """Segments, and unfinished ones, by name."""

    @property
    def size_bytes(self) -> int:
        """Of all of them together."""
        return sum(status.st_size for status in self.files.values())

    @property
    def used_s(self) -> float:
        """When it was used as far as the file system tells: the newest modification."""
        return max(status.st_mtime for status in self.files.values())


class State(enum.Enum):
    """What a segment is to whoever makes room."""

    SEALED = "sealed"
    LIVE = "being written"
    ORPHAN = "orphan"
    """Never sealed, and its writer is gone."""
    LEFTOVER = "leftover"
    """What a compaction did not finish, or a segment that nothing was ever written to."""
    FOREIGN = "not a segment"


class Part(NamedTuple):
    """One file of a journal."""

    path: str
    state: State
    size_bytes: int
    mtime_ns: int
    metadata: Metadata | None


def walk(storage: Storage, root: str, *, after: str = "", pace: Callable[[], object] = lambda: None) -> Iterator[Found]:
    """Yield the journals below a root, in the order of their paths' components; what cannot be read is left out.

    Costs one listing for each directory, and one `lstat` for each segment.

    Args:
        storage: The cache's file system.
        root: The cache's root.
        after: The path, relative to the root, that a former walk came to; what comes before it is left out.
        pace: Called after each directory.
    """
    done = tuple(after.split("/")) if after else ()
    left: list[tuple[str, ...]] = [()]
    while left:
        parts = left.pop()
        pace()
        path = "/".join((root, *parts))
        try:
            names = storage.entries(path)
        except OSError:
            continue  # removed meanwhile, or not ours to read
        if parts and any(name == TAG_NAME for name, _ in names):
            continue
        if parts > done:
            files = {}
            for name, is_directory in names:
                if name.startswith("@") and not is_directory and _is_part(name):
                    with contextlib.suppress(OSError):  # removed meanwhile
                        status = storage.lstat(f"{path}/{name}")
                        if stat.S_ISREG(status.st_mode):
                            files[name] = status
            if files:
                yield Found("/".join(parts), files)
        below = [name for name, is_directory in names if is_directory and name[0] not in "@."]
        for name in sorted(below, reverse=True) if below else ():
            inner = (*parts, name)
            if inner >= done[: len(inner)]:
                left.append(inner)


def look_into(storage: Storage, directory: str) -> list[Part]:
    """Return what a journal's directory holds; one open and two short reads for each segment.

    Args:
        storage: The cache's file system.
        directory: The journal's directory.
    """
    try:
        names = [name for name in storage.listdir(directory) if name.startswith("@") and _is_part(name)]
    except OSError:
        return []
    parts = []
    for name in sorted(names):
        with contextlib.suppress(OSError):  # removed meanwhile, or not ours to read: then not ours to remove
            parts.append(_look_at(storage, os.path.join(directory, name), name))
    return parts


def useless(parts: list[Part]) -> list[Part]:
    """Return of a journal's files those that go before anything else.

    These are leftovers, orphans, and segments of other versions of the remote file than the newest.
    """
    known = [part for part in parts if part.metadata is not None and part.state in {State.SEALED, State.LIVE}]
    newest = max(known, key=lambda part: part.metadata.order if part.metadata else (0, 0), default=None)
    chosen = []
    for part in parts:
        if part.state in {State.LEFTOVER, State.ORPHAN}:
            chosen.append(part)
        elif part.state is State.SEALED and newest is not None and part.metadata is not None:
            assert newest.metadata is not None
            same_file = part.metadata.identity == newest.metadata.identity
            if same_file and not part.metadata.version.same_as(newest.metadata.version):
                chosen.append(part)
    return chosen


def remove_parts(storage: Storage, parts: list[Part]) -> int:
    """Remove files of a journal; return how many bytes are gone.

    Raises:
        OSError: One could not be removed.
    """
    freed = 0
    for part in parts:
        with contextlib.suppress(FileNotFoundError):  # another cleaner was faster
            storage.unlink(part.path)
            freed += part.size_bytes
    return freed


def remove_directory(storage: Storage, directory: str) -> None:
    """Remove the directory of a journal without segments, and its lock files, unless anything else is there."""
    with contextlib.suppress(OSError):
        try:
            storage.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError:
            names = storage.listdir(directory)
            if any(parse_segment_name(name) for name in names):
                return  # somebody has begun anew
            for name in {LEASE_FILE, LOCK_FILE}.intersection(names):
                with contextlib.suppress(FileNotFoundError):
                    storage.unlink(os.path.join(directory, name))
            storage.rmdir(directory)


def prune(storage: Storage, root: str, paths: Iterable[str], *, pace: Callable[[], object] = lambda: None) -> None:
    """Remove directories below a root that are empty, and those above them that are empty then.

    Once for many: to find that a directory of thousands is not empty, some file systems go through all that were.

    Args:
        storage: The cache's file system.
        root: Stays.
        paths: The directories, relative to the root; some may be gone.
        pace: Called after each directory.
    """
    levels: defaultdict[int, set[str]] = defaultdict(set)
    for path in paths:
        levels[path.count("/")].add(path)
    for level in range(max(levels, default=-1), -1, -1):
        for path in levels[level] - {""}:
            pace()
            try:
                storage.rmdir(os.path.join(root, path))
            except FileNotFoundError:
                pass
            except OSError:
                continue  # something is left in it
            levels[level - 1].add(os.path.dirname(path))


def _is_part(name: str) -> bool:
    return parse_segment_name(name.removesuffix(TEMPORARY)) is not None


def _look_at(storage: Storage, path: str, name: str) -> Part:
    parsed = parse_segment_name(name.removesuffix(TEMPORARY))
    assert parsed is not None
    fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        status = storage.fstat(fd)
        size = status.st_size
        start = storage.pread(fd, HEADER.size + MAX_METADATA_BYTES, 0) if stat.S_ISREG(status.st_mode) else b"?"
        header = parse_header(start, parsed[2])
        metadata = header[0] if isinstance(header, tuple) else None
        if not stat.S_ISREG(status.st_mode) or (any(start) and start[:8] != HEADER_MAGIC[: len(start)]):
            state = State.FOREIGN
        elif not name.endswith(TEMPORARY) and size > TRAILER.size and _is_trailer(storage, fd, size, parsed[2]):
            state = State.SEALED
        elif may_live(storage, fd, name.removesuffix(TEMPORARY), status.st_mtime_ns):
            state = State.LIVE
        elif name.endswith(TEMPORARY) or metadata is None:
            state = State.LEFTOVER
        else:
            state = State.ORPHAN
        return Part(path, state, size, status.st_mtime_ns, metadata)
    finally:
        with contextlib.suppress(OSError):  # nothing was written through it
            storage.close(fd)


def _is_trailer(storage: Storage, fd: int, size: int, salt: int) -> bool:
    tail = storage.pread(fd, TRAILER.size, size - TRAILER.size)
    if len(tail) < TRAILER.size:
        return False
    magic, _, _, _, found, *_ = TRAILER.unpack(tail)
    return bool(magic == TRAILER_MAGIC and found == salt)
