"""One segment, read from end to end: every checksum verified, every flaw found with its place, nothing written.

Reading is sequential, in blocks of 4 MiB. Memory holds a block, one frame's table, and the index.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcache.journal.liveness import QUIET_S, may_live
from jcache.segment.format import (
    ENTRY,
    FRAME,
    HEAD_PATTERN,
    HEADER,
    MAX_METADATA_BYTES,
    MOST_EXTENTS,
    MOST_SEARCHED_BYTES,
    TRAILER,
    checksum,
    host_label,
    parse_frame_head,
    parse_header,
    parse_index,
    parse_segment_name,
    parse_table,
    parse_trailer,
)
from jcache.segment.segment import read_all
from jcache.system.processes import here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.segment.format import Column, Columns, FrameHead, Metadata, Trailer
    from jcache.system.storage import Storage

__all__ = ["Check", "Flaw", "FlawKind", "State", "Walk", "check", "open_walk", "take_status"]

_BLOCK_BYTES = 4 * 1024 * 1024
_MOST_FLAWS = 1000


def _ignore(_nbytes: int) -> None:
    """Take no note of progress."""


class State(enum.Enum):
    """What a segment is to others."""

    SEALED = "sealed"
    LIVE = "live"
    """Its writer may go on."""
    ORPHAN = "orphan"
    """Never sealed, and its writer is gone."""
    UNUSABLE = "unusable"
    """Nothing in it can be read by anybody."""
    FOREIGN = "foreign"
    """Not for this program to judge."""


class FlawKind(enum.Enum):
    """Kinds of flaws."""

    DAMAGED = "damaged"
    """Bytes that are not those that were written."""
    TORN = "torn"
    """A write that its process did not live to finish."""
    UNREADABLE = "unreadable"
    """The file system does not give the bytes."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A piece of a segment that is no good."""

    kind: FlawKind
    position: int
    """Where it begins in the file."""
    size_bytes: int
    what: str


@dataclass(slots=True)
class Check:
    """What was found out about one segment."""

    directory: str
    name: str
    state: State = State.UNUSABLE
    metadata: Metadata | None = None
    size_bytes: int = 0
    mtime_ns: int = 0
    mode: int = 0o600
    inode: tuple[int, int] = (0, 0)
    extents: int = 0
    """Extents that were read."""
    sound_extents: int = 0
    sound_bytes: int = 0
    flaws: list[Flaw] = field(default_factory=list)
    more_flaws: int = 0
    """Flaws that were found beyond those that are listed."""
    reason: str = ""
    """Why the segment is unusable or foreign."""

    @property
    def path(self) -> str:
        """The segment."""
        return os.path.join(self.directory, self.name)

    @property
    def stamp(self) -> tuple[tuple[int, int], int, int]:
        """What changes with the file: inode, size, modification time."""
        return self.inode, self.size_bytes, self.mtime_ns


def check(
    storage: Storage,
    directory: str,
    name: str,
    *,
    quiet_s: float = QUIET_S,
    progress: Callable[[int], object] = _ignore,
) -> Check:
    """Read a whole segment and verify every checksum in it. Nothing is written, and no lock kept.

    A segment that is being written is read as far as it went; what is torn or unfinished there is on its way, and no
    flaw.

    Args:
        storage: The cache's file system.
        directory: Where the segment is.
        name: Its file name, of a segment's form.
        quiet_s: See `may_live`.
        progress: Is told of bytes as they are read; in total about the file's size.

    Returns:
        What was found; also for a file that cannot be read at all.
    """
    found = Check(directory, name)
    try:
        with open_walk(storage, found, quiet_s, progress) as walk:
            if walk is not None:
                for _ in walk.sound():
                    pass
    except FileNotFoundError:
        found.state, found.reason = State.FOREIGN, "removed while it was being looked at"
    except OSError as error:
        found.flaws.append(Flaw(FlawKind.UNREADABLE, 0, found.size_bytes, f"cannot be read: {error.strerror or error}"))
    except MemoryError:
        found.flaws.append(Flaw(FlawKind.UNREADABLE, 0, found.size_bytes, "cannot be read: too large"))
    return found


@contextlib.contextmanager
def open_walk(
    storage: Storage, found: Check, quiet_s: float, progress: Callable[[int], object] = _ignore
) -> Iterator[Walk | None]:
    """Open a segment for a walk, with its state told in `found`; None where there is nothing to walk through."""
    parsed = parse_segment_name(found.name)
    assert parsed is not None, "the caller tells segments from other files by their names"
    fd = storage.open(found.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        take_status(storage.fstat(fd), found)
        if not stat.S_ISREG(found.mode):
            found.state, found.reason = State.FOREIGN, "not a regular file"
            yield None
            return
        found.mode &= 0o777
        walk = Walk(storage, fd, parsed[2], found, progress)
        if not walk.find_end():
            if may_live(storage, fd, found.name, found.mtime_ns, quiet_s=quiet_s):
                found.state = State.LIVE
                walk.is_local = parsed[0] == host_label(here())
            else:
                # Its writer may have sealed it and left between the look at its end and the look at its lock.
                mode = found.mode
                take_status(storage.fstat(fd), found)
                found.mode = mode
                if not walk.find_end():
                    found.state = State.ORPHAN
        yield walk if walk.find_start() else None
    finally:
        storage.close(fd)


def take_status(status: os.stat_result, found: Check) -> None:
    """Note what the file system knows of a segment."""
    found.mode, found.inode = status.st_mode, (status.st_dev, status.st_ino)
    found.size_bytes, found.mtime_ns = status.st_size, status.st_mtime_ns


class Walk:
    """The way through one segment, frame by frame; what is wrong goes into the `Check`."""

    def __init__(self, storage: Storage, fd: int, salt: int, found: Check, progress: Callable[[int], object]) -> None:
        self._storage, self._fd, self._salt, self._found = storage, fd, salt, found
        self._progress = progress
        self._block, self._block_position = memoryview(b""), 0
        self._start = 0  # of the first frame
        self._end = 0  # of the last one, if all is well
        self._index: Columns | None = None
        self._by_position: list[int] | None = None
        self._left_bytes = MOST_SEARCHED_BYTES
        self._bad: tuple[FlawKind, int, int, int] | None = None  # neighbouring bad extents, not reported yet
        self.is_local = False  # the writer is on this machine, whose view of the file is up to date

    def find_end(self) -> bool:
        """Look for the trailer; True if the segment is sealed."""
        found, size = self._found, self._found.size_bytes
        length = min(size, TRAILER.size + MAX_METADATA_BYTES)
        trailer = None
        try:
            trailer = parse_trailer(read_all(self._storage, self._fd, length, size - length), size, self._salt)
        except OSError as error:
            self._flaw(FlawKind.UNREADABLE, size - length, length, f"end cannot be read: {error.strerror or error}")
        self._end = size
        if trailer is None:
            return False
        self._end = trailer.index_position
        found.state, found.metadata = State.SEALED, trailer.metadata
        self._load_index(trailer)
        return True

    def _load_index(self, trailer: Trailer) -> None:
        position, size = trailer.index_position, self._found.size_bytes - trailer.index_position
        self._index = None
        try:
            block = memoryview(read_all(self._storage, self._fd, size, position))
            self._index = parse_index(block, trailer, self._salt)
        except OSError as error:
            self._flaw(FlawKind.UNREADABLE, position, size, f"index cannot be read: {error.strerror or error}")
            return
        if self._index is not None and sum(self._index.lengths) > position:
            self._index = None  # forged: the same bytes again and again
        if self._index is None:
            self._flaw(FlawKind.DAMAGED, position, size, "index damaged")

    def find_start(self) -> bool:
        """Read the header; False if nothing can be read."""
        found, salt = self._found, self._salt
        length = min(HEADER.size + MAX_METADATA_BYTES, found.size_bytes)
        try:
            raw = read_all(self._storage, self._fd, length, 0)
            parsed = parse_header(raw, salt)
        except OSError as error:
            if found.state is not State.SEALED:
                raise
            parsed = f"header cannot be read: {error.strerror}"
            raw = b""
        if isinstance(parsed, tuple):
            found.metadata, self._start = found.metadata or parsed[0], parsed[1]
            return True
        if found.state is State.SEALED:
            # The metadata is in front of the trailer as well, and all frames are behind the header's.
            self._flaw(FlawKind.DAMAGED, 0, HEADER.size, parsed or "header damaged: zeros")
            self._start = HEADER.size
            return True
        if found.state is State.LIVE:
            return False
        if isinstance(parsed, str) and parsed.startswith("format version"):
            found.state, found.reason = State.FOREIGN, parsed
            return False
        found.state = State.UNUSABLE
        if parsed is None and not any(raw):
            found.reason = "empty: its writer died before it wrote anything, or it never reached the disk"
            self._flaw(FlawKind.TORN, 0, found.size_bytes, found.reason)
        elif parsed is None:
            found.reason = "its header was not finished"
            self._flaw(FlawKind.TORN, 0, found.size_bytes, found.reason)
        else:
            found.reason = parsed
            self._flaw(FlawKind.DAMAGED, 0, found.size_bytes, parsed)
        return False

    def sound(self) -> Iterator[tuple[int, memoryview]]:
        """Yield start in the remote file and bytes of each extent that is as it was recorded, in the file's order."""
        position = self._start
        while position < self._end:
            try:
                head = self._head(position)
            except OSError as error:
                head = None
                self._flaw(FlawKind.UNREADABLE, position, FRAME.size, f"frame cannot be read: {error.strerror}")
            if head is not None and head.is_index:
                self._end_without_trailer(position, head)
                break
            table_bytes = 0 if head is None else ENTRY.size * head.count
            data_position = position + FRAME.size + table_bytes
            if head is None or data_position + head.data_bytes > self._end:
                following = self._search(position + 1)
                if following is None:
                    yield from self._tail(position)
                    break
                self._left_bytes -= following - position
                self._damage(position, following - position, "frame damaged")
                yield from self._through_index(position, following)
                position = following
                continue
            following = data_position + head.data_bytes
            columns = self._table(position, head, data_position) if head.count <= MOST_EXTENTS else None
            is_last = following >= self._end
            if columns is None and is_last and self._found.state is State.LIVE:
                break
            if columns is None:
                self._damage(position, FRAME.size + table_bytes, f"table of {head.count} extents damaged")
                yield from self._through_index(data_position, following)
            else:
                yield from self._extents(
                    columns.starts, columns.lengths, columns.checksums, columns.positions, is_last=is_last
                )
            position = following
        self._flush()

    def _tail(self, position: int) -> Iterator[tuple[int, memoryview]]:
        """Deal with an end where no frame follows."""
        size = self._end - position
        if self._found.state is State.SEALED:
            self._damage(position, size, "frame damaged")
            yield from self._through_index(position, self._end)
        elif self._found.state is not State.LIVE:
            self._flush()
            self._flaw(FlawKind.TORN, position, size, "torn tail: the last write was not finished")

    def _end_without_trailer(self, position: int, head: FrameHead) -> None:
        size = self._end - position
        if self._found.state is State.LIVE:
            return
        self._flush()
        if FRAME.size + head.data_bytes == size:
            self._flaw(FlawKind.DAMAGED, position, size, "trailer damaged")
        else:
            self._flaw(FlawKind.TORN, position, size, "torn seal: index and trailer were not finished")

    def _head(self, position: int) -> FrameHead | None:
        raw = self._read(position, FRAME.size)
        return parse_frame_head(raw, self._salt ^ position) if len(raw) == FRAME.size else None

    def _table(self, position: int, head: FrameHead, data_position: int) -> Columns | None:
        size = data_position - position - FRAME.size
        try:
            raw = self._read(position + FRAME.size, size)
        except OSError:
            return None
        return parse_table(raw, head, self._salt ^ position, data_position) if len(raw) == size else None

    def _extents(
        self, starts: Column, lengths: Column, checksums: Column, positions: Column, *, is_last: bool
    ) -> Iterator[tuple[int, memoryview]]:
        found, salt, read = self._found, self._salt, self._read
        count = sound = size = 0
        on_their_way = found.state is State.LIVE and (is_last or not self.is_local)
        try:
            for start, length, expected, position in zip(starts, lengths, checksums, positions, strict=True):
                count += 1
                try:
                    data = read(position, length) if length <= _BLOCK_BYTES else memoryview(b"")
                except OSError:
                    self._bad_extent(FlawKind.UNREADABLE, position, length)
                    continue
                if checksum(data, salt) == expected and len(data) == length:
                    sound += 1
                    size += length
                    yield start, data
                elif not on_their_way:
                    self._bad_extent(FlawKind.DAMAGED, position, length)
        finally:
            found.extents += count
            found.sound_extents += sound
            found.sound_bytes += size

    def _through_index(self, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        """Yield extents between two positions whose frame is no good, but which the index knows."""
        index = self._index
        if index is None:
            return
        if self._by_position is None:
            self._by_position = sorted(range(len(index.positions)), key=index.positions.__getitem__)
        rows = [row for row in self._by_position if start <= index.positions[row] < stop]
        columns = (index.starts, index.lengths, index.checksums, index.positions)
        starts, lengths, checksums, positions = ([column[row] for row in rows] for column in columns)
        yield from self._extents(starts, lengths, checksums, positions, is_last=False)

    def _search(self, position: int) -> int | None:
        """Find the next valid header of a frame or index."""
        end = min(self._end, position + self._left_bytes)
        while position + FRAME.size <= end:
            try:
                block = self._read(position, min(_BLOCK_BYTES, self._end - position))
            except OSError:
                position += _BLOCK_BYTES
                continue
            if len(block) < FRAME.size:
                return None  # the file is shorter by now
            for match in HEAD_PATTERN.finditer(block):
                raw, candidate = block[match.start() : match.start() + FRAME.size], position + match.start()
                if len(raw) == FRAME.size and parse_frame_head(raw, self._salt ^ candidate) is not None:
                    return candidate
            # Blocks overlap, so that no header is cut in two.
            position += len(block) - FRAME.size + 1
        return None

    def _read(self, position: int, size: int) -> memoryview:
        """Return bytes of the file, fewer at its end, through one block that moves forward."""
        offset = position - self._block_position
        if 0 <= offset <= len(self._block) - size:
            return self._block[offset : offset + size]
        left = self._found.size_bytes - position
        wanted, least = min(max(size, _BLOCK_BYTES), left), min(size, left)
        try:
            data = read_all(self._storage, self._fd, max(wanted, 0), position)
        except OSError:
            if least == wanted:
                raise
            data = read_all(self._storage, self._fd, max(least, 0), position)
        self._progress(len(data))
        self._block, self._block_position = memoryview(data), position
        return self._block[:size]

    def _bad_extent(self, kind: FlawKind, position: int, length: int) -> None:
        bad = self._bad
        if bad is not None and bad[0] is kind and bad[1] + bad[2] == position:
            self._bad = (kind, bad[1], bad[2] + length, bad[3] + 1)
            return
        self._flush()
        self._bad = (kind, position, length, 1)

    def _flush(self) -> None:
        if self._bad is None:
            return
        kind, position, size, count = self._bad
        self._bad = None
        what = "wrong checksum" if kind is FlawKind.DAMAGED else "cannot be read"
        self._flaw(kind, position, size, f"{count} extent{'s'[: count != 1]}: {what}")

    def _damage(self, position: int, size: int, what: str) -> None:
        # What another client writes can reach this one in any order, so there only its seal says that all is there.
        if self._found.state is State.LIVE and not self.is_local:
            return
        self._flush()
        self._flaw(FlawKind.DAMAGED, position, size, what)

    def _flaw(self, kind: FlawKind, position: int, size: int, what: str) -> None:
        if len(self._found.flaws) < _MOST_FLAWS:
            self._found.flaws.append(Flaw(kind, position, size, what))
        else:
            self._found.more_flaws += 1
