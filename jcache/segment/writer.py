"""The one writer of a segment: whole frames at explicit positions, or nothing."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from array import array
from typing import TYPE_CHECKING

from jcache.segment.directory import create_file
from jcache.segment.errors import JournalError
from jcache.segment.format import (
    PIECE_BYTES,
    Columns,
    Metadata,
    checksum,
    pack_frame,
    pack_header,
    pack_seal,
    segment_name,
)
from jcache.segment.segment import Segment
from jcache.segment.table import Source
from jcache.system import locks
from jcache.system.processes import here
from jcache.system.storage import IOV_MAX
from jcache.vectors import Extents

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator, Mapping, Sequence  # type: ignore[attr-defined]  # Buffer: only for annotations

    from jcache.segment.proof import Moment
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["SegmentWriter", "describe", "new_salt", "noted"]

_JOIN_BYTES = (
    16 * 1024
)  # buffers shorter than this on average are cheaper to copy together than to hand over one by one


class SegmentWriter:
    """Appends to a segment that it created. Its methods are called under the journal's lock.

    Attributes:
        segment: The same segment for this process's readers.
    """

    __slots__ = ("_dirty", "_end", "_header", "_storage", "path", "segment")

    def __init__(self, storage: Storage, path: str, segment: Segment) -> None:
        self._storage = storage
        self._header = b""  # goes out with the first frame
        self._end = 0
        self._dirty = False  # bytes of a failed write may lie behind the end
        self.path = path
        self.segment = segment

    @classmethod
    def announce(cls, storage: Storage, directory: str, *, file_mode: int, suffix: str = "") -> SegmentWriter:
        """Create a segment of its own name, empty, and lock it: others see that there is a writer.

        Args:
            storage: The cache's file system.
            directory: The journal's directory.
            file_mode: Permissions; see `create_file`.
            suffix: Follows the name, so that nobody takes the file for a segment before it is renamed.

        Raises:
            OSError: The file system failed.
        """
        salt = new_salt()
        name = segment_name(here(), os.getpid(), salt)
        path = os.path.join(directory, name + suffix)
        fd = create_file(storage, path, file_mode)
        source = Source(storage, path, salt)
        source.seal = _stay_open
        source.adopt(fd)
        segment = Segment(name, source, time.time_ns())
        # The lock only tells others that this writer lives. Many shared file systems have none.
        locks.hold(fd, storage=storage)
        return cls(storage, path, segment)

    @classmethod
    def create(
        cls,
        storage: Storage,
        directory: str,
        identity: str,
        version: Version,
        info: Mapping[str, object],
        *,
        file_mode: int,
        generation: int = 0,
    ) -> SegmentWriter:
        """Create a segment, as `announce` does, and say what is to come, as `begin` does.

        Raises:
            JournalError: `info` is not JSON or too long.
            OSError: The file system failed.
        """
        metadata = describe(identity, version, info, generation=generation)
        writer = cls.announce(storage, directory, file_mode=file_mode)
        writer.begin(metadata)
        return writer

    @property
    def is_blank(self) -> bool:
        """Whether nothing was written yet, so that it may still become anything."""
        return not self._end

    def begin(self, metadata: Metadata) -> None:
        """Say what is to come. Nothing is written before the first frame, and until then it may be said anew."""
        assert self.is_blank
        if metadata.proved is not None:
            metadata = metadata._replace(proved=noted(self._storage, self.segment.source.fd, metadata.proved))
            self.segment.inode = metadata.proved.inode if metadata.proved is not None else 0
        self.segment.metadata = metadata
        self._header = pack_header(self.segment.source.salt, metadata.pack())

    def append(self, extents: Sequence[tuple[int, bytes | memoryview]]) -> tuple[int, bool]:
        """Append one frame.

        Args:
            extents: Offset in the remote file and bytes (or a view of single bytes) of each extent, at least one, none
                empty, in the order in which they were asked for.

        Returns:
            Bytes written, and whether the table's runs were replaced.

        Raises:
            OSError: The frame was not written, not even in part as far as readers can tell. The next append may
                succeed.
        """
        salt = self.segment.source.salt
        # Loops in C, here and in what this calls: recording 100 bytes costs what surrounds them.
        extents = Extents.of(extents)
        offsets, pieces = extents.starts, extents.data
        if max(map(len, pieces)) > PIECE_BYTES:
            offsets, pieces = zip(*_cut(extents), strict=True)  # type: ignore[assignment]
        starts, lengths = array("Q", offsets), array("I", map(len, pieces))
        sums = array("Q", map(checksum, pieces, itertools.repeat(salt)))
        position = self._end + len(self._header)
        head = pack_frame(salt, position, starts, lengths, sums)
        size = self._write([self._header + head, *extents.data])
        self._header = b""
        self._end += size
        self.segment.source.size_bytes = self._end
        self.segment.mtime_ns = time.time_ns()
        positions = array("Q", itertools.accumulate(lengths, initial=position + len(head)))
        positions.pop()
        return size, self.segment.table.add(Columns(starts, lengths, sums, positions))

    def seal(self) -> None:
        """Append index and trailer. The segment takes nothing more, whether that succeeds or not.

        Raises:
            OSError: The segment stays unsealed, and valid.
        """
        segment = self.segment
        segment.sealed = True
        try:
            self._seal()
        finally:
            segment.source.seal = None

    def _seal(self) -> None:
        segment = self.segment
        if not self._end:
            # Nothing was ever written: not a segment yet, and of no use to anybody.
            with contextlib.suppress(FileNotFoundError):
                self._storage.unlink(self.path)
            return
        assert segment.metadata is not None
        columns = segment.table.columns()
        block = pack_seal(segment.source.salt, self._end, columns, segment.metadata.pack())
        size = self._write([block])
        if self._dirty:
            # The trailer counts only at the very end of the file.
            self._storage.ftruncate(segment.source.fd, self._end + size)
        self._end += size
        segment.source.size_bytes = self._end
        segment.table.adopt(columns)
        # The time says when the version was last proved; sealing, maybe hours later, proves nothing.
        with contextlib.suppress(OSError):
            self._storage.utime(segment.source.fd, (segment.mtime_ns, segment.mtime_ns))

    def _write(self, buffers: list[Buffer]) -> int:
        size = sum(map(len, buffers))
        if len(buffers) > 1 and size < _JOIN_BYTES * len(buffers):
            buffers = [b"".join(buffers)]
        fd, position = self.segment.source.fd, self._end
        try:
            while buffers:
                written = self._storage.pwritev(fd, buffers[:IOV_MAX], position)
                if not written:
                    raise OSError(errno.EIO, "nothing was written")
                position += written
                buffers = _rest(buffers, written)
        except BaseException:  # an interrupted write leaves remains just like a failed one
            self._dirty = True
            # Where this fails too, the remains are no valid frame, or one that the next frame overwrites, so that its
            # extents fail their checksums.
            with contextlib.suppress(OSError):
                self._storage.ftruncate(fd, self._end)
            raise
        return size


def _stay_open() -> None:
    """Go on writing: of those who write, only journals seal because others need their descriptors."""


def describe(
    identity: str,
    version: Version,
    info: Mapping[str, object],
    *,
    created_ns: int = 0,
    generation: int = 0,
    proved: Moment | None = None,
) -> Metadata:
    """Return what a segment of this process says of itself.

    Args:
        identity: Canonical name of the remote file.
        version: The state of the file whose bytes are to come.
        info: What the origin said of the file.
        created_ns: Nanoseconds since the epoch, instead of now.
        generation: See `Metadata`.
        proved: See `Metadata`.

    Raises:
        JournalError: `info` is not JSON or too long.
    """
    host, pid = os.uname().nodename, os.getpid()
    metadata = Metadata(identity, version, info, host, pid, created_ns or time.time_ns(), generation, proved)
    try:
        metadata.pack()
    except ValueError as error:
        raise JournalError(f"cannot describe {identity} in a segment: {error}") from error
    return metadata


def noted(storage: Storage, fd: int, moment: Moment) -> Moment | None:
    """Return a moment as it is noted in an open file, None where that cannot be told from its copies."""
    try:
        return moment._replace(inode=storage.fstat(fd).st_ino)
    except OSError:
        return None


def new_salt() -> int:
    """Return 64 random bits; `secrets` would do the same, and take 4 ms to import."""
    return int.from_bytes(os.urandom(8), "little")


def _cut(extents: Sequence[tuple[int, bytes | memoryview]]) -> Iterator[tuple[int, memoryview]]:
    """Yield what the table has an entry for each."""
    for start, data in extents:
        view = memoryview(data)
        for offset in range(0, len(view), PIECE_BYTES):
            yield start + offset, view[offset : offset + PIECE_BYTES]


def _rest(buffers: list[Buffer], written: int) -> list[Buffer]:
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [memoryview(buffer)[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []
