"""One segment as its readers see it: opened through its trailer where it is sealed, scanned and followed where not."""

from __future__ import annotations

import stat
from array import array
from typing import TYPE_CHECKING

from jcache.segment.errors import UnusableSegment
from jcache.segment.format import (
    ENTRY,
    FRAME,
    HEAD_PATTERN,
    HEADER,
    MAX_METADATA_BYTES,
    MOST_BYTES,
    MOST_EXTENTS,
    MOST_SEARCHED_BYTES,
    Columns,
    parse_frame_head,
    parse_header,
    parse_index,
    parse_table,
    parse_trailer,
)
from jcache.segment.table import Table, open_source

if TYPE_CHECKING:
    from jcache.segment.format import FrameHead, Metadata
    from jcache.segment.proof import Moment
    from jcache.segment.table import Source
    from jcache.system.storage import Storage

__all__ = ["Segment", "read_all"]

TAIL_BYTES = 64 * 1024
_SMALLEST_WINDOW, _LARGEST_WINDOW = 4 * 1024, 1024 * 1024
_WORTH_SKIPPING_BYTES = 32 * 1024
_DAY_NS = 86_400 * 10**9
_SEARCH_BYTES = 1024 * 1024


class Segment:
    """A segment file of this journal, whoever writes it. Its methods are called under the journal's lock.

    Attributes:
        name: File name.
        source: The file.
        table: What it is known to hold.
        metadata: What it says of itself, or None while its header is not there yet.
        sealed: No more is to come.
        inode: The file's, where it is known.
        mtime_ns: The file's modification time when it was last looked at.
        damaged: Extents that were found damaged while scanning.
        problems: What was wrong with it, in words.
    """

    __slots__ = ("_end", "damaged", "inode", "metadata", "mtime_ns", "name", "problems", "sealed", "source", "table")

    def __init__(self, name: str, source: Source, mtime_ns: int) -> None:
        self.name = name
        self.source = source
        self.table = Table(source)
        self.metadata: Metadata | None = None
        self.sealed = False
        self.mtime_ns = mtime_ns
        self.inode = 0
        self.damaged = 0
        self.problems: list[str] = []
        self._end = 0  # position up to which the file was scanned

    @classmethod
    def open(cls, storage: Storage, path: str, name: str, salt: int) -> Segment:
        """Open a segment with a constant number of reads if it is sealed, and by a scan of its frames if not.

        Args:
            storage: The cache's file system.
            path: Where it is.
            name: Its file name.
            salt: The salt in its name.

        Returns:
            The segment, without `metadata` if its header is not written yet.

        Raises:
            UnusableSegment: It is no segment, or damaged beyond use.
            OSError: The file system failed.
        """
        source, status = open_source(storage, path, salt)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableSegment("not a regular file")
        segment = cls(name, source, status.st_mtime_ns)
        segment.inode = status.st_ino
        if not segment._load(storage):
            segment._scan(storage, search=True)
        return segment

    @property
    def rows(self) -> int:
        """How many extents it is known to hold."""
        return sum(map(len, self.table.runs))

    @property
    def proved(self) -> Moment | None:
        """When its version was known to be the origin's; None where nobody knows: in a copy, say."""
        about = self.metadata
        if about is None or about.proved is None or about.proved.inode != self.inode:
            return None
        # Set back by more than clocks differ: whoever did that has restored it, or says that it is old.
        return None if self.mtime_ns < about.created_ns - _DAY_NS else about.proved

    def refresh(self, storage: Storage) -> bool:
        """Take up what its writer has appended since: one `fstat`, and reads only if the file grew.

        Returns:
            True if there is anything new.

        Raises:
            UnusableSegment: Its header, now that it is there, is no good.
            OSError: The file system failed.
        """
        if self.sealed:
            return False
        status = self.source.status()
        if status.st_size == self.source.size_bytes and status.st_mtime_ns == self.mtime_ns:
            return False
        self.mtime_ns = status.st_mtime_ns
        self.source.size_bytes = status.st_size
        before = self._end
        # No search for frames behind unreadable bytes here: bytes on their way look just like damage.
        self._scan(storage, search=False)
        return self._end != before or self.sealed

    def _load(self, storage: Storage) -> bool:
        source = self.source
        size, salt = source.size_bytes, source.salt
        tail_position = max(0, size - TAIL_BYTES)
        tail = read_all(storage, source.fd, size - tail_position, tail_position)
        trailer = parse_trailer(tail, size, salt)
        if trailer is None:
            return False
        position = trailer.index_position
        if position >= tail_position:
            # Copied, so that the index alone stays in memory, not all of the tail.
            block = memoryview(tail[position - tail_position :])
        else:
            block = memoryview(read_all(storage, source.fd, size - position, position))
        columns = parse_index(block, trailer, salt)
        if columns is None:
            self.problems.append("index damaged; frames scanned instead")
            return False
        self.metadata = trailer.metadata
        self.table.adopt(columns)
        self.sealed = True
        return True

    def _scan(self, storage: Storage, *, search: bool) -> None:
        reader = _Window(storage, self.source)
        if self.metadata is None and not self._scan_header(reader):
            return
        found = Columns(array("Q"), array("I"), array("Q"), array("Q"))
        most, left_bytes = MOST_EXTENTS - self.rows, MOST_SEARCHED_BYTES
        try:
            while not self.sealed:
                head = self._scan_frame(reader, found, most)
                if head is None:
                    position = self._search(storage, left_bytes) if search else None
                    if position is None:
                        break
                    left_bytes -= position - self._end
                    self.damaged += 1
                    self.problems.append(f"damaged between {self._end} and {position}")
                    self._end = position
        finally:
            if len(found.starts):
                self.table.add(found)

    def _scan_header(self, reader: _Window) -> bool:
        start = reader.read(0, HEADER.size)
        if len(start) == HEADER.size:
            start = reader.read(0, HEADER.size + min(HEADER.unpack(start)[3], MAX_METADATA_BYTES))
        parsed = parse_header(bytes(start), self.source.salt)
        if parsed is None:
            return False
        if isinstance(parsed, str):
            raise UnusableSegment(parsed)
        self.metadata, self._end = parsed
        return True

    def _scan_frame(self, reader: _Window, found: Columns, most: int) -> FrameHead | None:
        """Take the frame at `_end` and step over it; None if there is no whole frame."""
        position, size = self._end, self.source.size_bytes
        if position + FRAME.size > size:
            return None
        seed = self.source.salt ^ position
        raw = reader.read(position, FRAME.size)
        head = parse_frame_head(raw, seed) if len(raw) == FRAME.size else None
        if head is None:
            return None
        if head.is_index:
            # All frames before it were read already: the index holds nothing new.
            self.sealed = True
            return head
        table_bytes = ENTRY.size * head.count
        data_position = position + FRAME.size + table_bytes
        if data_position + head.data_bytes > size:
            return None
        if len(found.starts) + head.count > most:
            raise UnusableSegment("more extents than any segment has")
        table = reader.read(position + FRAME.size, table_bytes)
        columns = parse_table(table, head, seed, data_position) if len(table) == table_bytes else None
        if columns is None:
            self.damaged += head.count
            self.problems.append(f"table of the frame at {position} damaged: {head.count} extents lost")
        else:
            found.starts.extend(columns.starts)
            found.lengths.extend(columns.lengths)
            found.checksums.extend(columns.checksums)
            found.positions.extend(columns.positions)
        self._end = data_position + head.data_bytes
        reader.skipped(table_bytes, head.data_bytes)
        return head

    def _search(self, storage: Storage, most_bytes: int) -> int | None:
        """Find the next valid header of a frame or index behind `_end`."""
        source, position = self.source, self._end + 1
        end = min(source.size_bytes, position + most_bytes)
        while position + FRAME.size <= end:
            block = memoryview(read_all(storage, source.fd, min(_SEARCH_BYTES, source.size_bytes - position), position))
            if len(block) < FRAME.size:
                return None  # the file is shorter by now
            for match in HEAD_PATTERN.finditer(block):
                head = block[match.start() : match.start() + FRAME.size]
                candidate = position + match.start()
                if len(head) == FRAME.size and parse_frame_head(head, source.salt ^ candidate) is not None:
                    return candidate
            # Blocks overlap, so that no header is cut in two.
            position += len(block) - FRAME.size + 1
        return None


class _Window:
    """Buffered reading for a walk forwards with skips: few reads where frames are small, small ones where not."""

    __slots__ = ("_block", "_fd", "_position", "_size_bytes", "_storage", "_window")

    def __init__(self, storage: Storage, source: Source) -> None:
        self._storage = storage
        self._fd = source.fd
        self._size_bytes = source.size_bytes
        self._block = memoryview(b"")
        self._position = 0
        self._window = _SMALLEST_WINDOW

    def read(self, position: int, size: int) -> memoryview:
        """Return bytes of the file, fewer only at its end; never allocates more than the file's size."""
        offset = position - self._position
        if not 0 <= offset <= len(self._block) - size:
            wanted = max(0, min(max(size, self._window), self._size_bytes - position))
            self._block = memoryview(read_all(self._storage, self._fd, wanted, position))
            self._position, offset = position, 0
        return self._block[offset : offset + size]

    def skipped(self, table_bytes: int, data_bytes: int) -> None:
        """Adapt to what lies ahead, taking the next frame to be like the last one.

        Little data is read through, many frames at a time; much data is skipped, and the next read is to have just a
        header and its table.
        """
        if data_bytes < _WORTH_SKIPPING_BYTES:
            self._window = min(2 * self._window, _LARGEST_WINDOW)
        else:
            self._window = min(max(FRAME.size + table_bytes, _SMALLEST_WINDOW), _LARGEST_WINDOW)


def read_all(storage: Storage, fd: int, size: int, position: int) -> bytes:
    """Read a piece of a file, fewer bytes only at its end; nothing from beyond where any file could end.

    Raises:
        OSError: The file system failed.
    """
    if size <= 0 or position >= MOST_BYTES:
        return b""
    data = storage.pread(fd, size, position)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := storage.pread(fd, missing, position + size - missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
