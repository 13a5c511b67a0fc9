"""Lines of a file, as pyxrootd finds them: what it reads for one it keeps for the next."""

from collections.abc import Callable, Iterator

__all__ = ["Chunks", "Lines"]

# Returns the bytes at an offset, of which there may be fewer at the end of the file.
Read = Callable[[int, int], bytes]

# What pyxrootd reads at a time.
CHUNK_BYTES = 2 << 20
LONGEST = (1 << 32) - 1


class Lines:
    """Where the lines of one open file are read; like the file it belongs to one thread at a time."""

    __slots__ = ("_block", "_start", "position")

    def __init__(self) -> None:
        self.position = 0
        self._block, self._start = b"", 0

    def readline(self, read: Read, offset: int, size: int, chunk_size: int) -> str:
        """Return a line as `File.readline` does: without an offset the next one, and only then it goes on.

        Args:
            read: Reads the file.
            offset: Where it begins; 0 for behind the line before.
            size: How many bytes it has at most; 0 for any number.
            chunk_size: How many are read at a time; 0 for as many as pyxrootd reads.
        """
        start = offset or self.position
        self.position = start
        line = self._sized(read, start, size, chunk_size) if size or chunk_size else self._line(read, start)
        if not offset:
            self.position += len(line)
        return line.decode()

    def readlines(self, read: Read, size: int, chunk_size: int) -> list[str]:
        """Return the lines that are left, as `File.readlines` does; a line that is no text is an error of its kind."""
        lines = []
        try:
            while line := self.readline(read, 0, size, chunk_size):
                lines.append(line)
        except UnicodeDecodeError as error:
            msg = "<method 'readlines' of 'pyxrootd.File' objects> returned a result with an exception set"
            raise SystemError(msg) from error
        return lines

    def _line(self, read: Read, start: int) -> bytes:
        line = b""
        while True:
            at = start + len(line) - self._start
            if not 0 <= at < len(self._block):
                self._start += at
                self._block, at = read(self._start, CHUNK_BYTES), 0
                if not self._block:
                    return line
            end = self._block.find(b"\n", at) + 1
            line += self._block[at : end or None]
            if end:
                return line

    def _sized(self, read: Read, start: int, size: int, chunk_size: int) -> bytes:
        """Return a line of limited length: where it takes several chunks, a byte more than the limit is pyxrootd's."""
        size = size or LONGEST
        chunk_size = min(chunk_size or CHUNK_BYTES, size)
        line, at = b"", start
        while at < start + size:
            chunk = read(at, chunk_size)
            at += len(chunk)
            if not chunk:
                break
            end = chunk.find(b"\n") + 1 or len(chunk) + 1
            line_end = min(end, max(size - len(line), 0) + 1)
            line += chunk[:line_end]
            if line_end <= len(chunk):
                break
        return line


class Chunks(Iterator[bytes]):
    """What `File.readchunks` returns."""

    def __init__(self, read: Read, offset: int, chunk_size: int) -> None:
        self._read, self._offset, self._size = read, offset, chunk_size

    def __next__(self) -> bytes:
        chunk = self._read(self._offset, self._size)
        if not chunk:
            raise StopIteration
        self._offset += self._size
        return chunk
