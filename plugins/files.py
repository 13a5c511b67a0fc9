"""File objects that read exactly what is asked, and ahead where reading is sequential."""

import asyncio
from typing import Any

from fsspec.asyn import AbstractAsyncStreamedFile
from fsspec.spec import AbstractBufferedFile

from jcache.origin import Info
from jcache.session import current
from jcache_plugins.access import Access, loop_of, run

__all__ = ["AsyncCachedFile", "CachedFile"]

# The window of reading ahead: none at first, then at least so much, doubled while reading stays sequential.
FIRST_WINDOW_BYTES = 64 << 10
# So many reads that follow one another are taken for sequential reading; two may be a header and its body.
STREAK = 3
LAST_WINDOW_BYTES = 16 << 20
# Reads smaller than this are served in steps out of a piece of the journal that was verified once.
SMALL_BYTES = 64 << 10
PIECE_BYTES = 256 << 10
# What is read at a time to find the end of a line.
LINES_BYTES = 64 << 10


class Window:
    """How far to read ahead: grows while reads follow one another, collapses at a jump."""

    __slots__ = ("ahead_until", "next", "size_bytes", "streak")

    def __init__(self) -> None:
        self.next = 0
        self.streak = 0
        self.size_bytes = 0
        # Where what was read ahead ends.
        self.ahead_until = 0

    def follow(self, start: int, stop: int) -> bool:
        """Take note of a read; return False where it was a jump."""
        sequential = start == self.next
        self.next = stop
        if not sequential:
            self.streak = self.size_bytes = self.ahead_until = 0
            return False
        self.streak += 1
        if self.streak >= STREAK:
            self.size_bytes = min(max(2 * self.size_bytes, 2 * (stop - start), FIRST_WINDOW_BYTES), LAST_WINDOW_BYTES)
        return True


class Ahead:
    """A piece that one file object has read ahead."""

    __slots__ = ("_access", "_future", "_left", "_start", "_stop")

    def __init__(self, access: Access, start: int, stop: int, loop: asyncio.AbstractEventLoop) -> None:
        self._access = access
        self._start = start
        self._stop = stop
        self._left = False
        self._future = asyncio.run_coroutine_threadsafe(self._fetch(), loop)

    @property
    def done(self) -> bool:
        """Whether nothing is under way any more."""
        return self._future.done()

    async def _fetch(self) -> None:
        try:
            if not self._left:
                await self._access.prefetch(self._start, self._stop)
        finally:
            if self._left:  # what has landed since, nobody else would drop
                self._access.drop_ahead(self._start, self._stop)

    def leave(self) -> None:
        """Have it drop what it brings from now on."""
        self._left = True
        self._future.cancel()


class CachedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """A file opened for reading, whose reads go through the journal.

    Like any file object it belongs to one thread at a time. It holds no descriptor of its own: closing it releases
    memory, and what it read stays with the process's session.
    """

    def __init__(
        self, fs: Any, path: str, access: Access, info: Info, *, block_size: int | None = None, **kwargs: Any
    ) -> None:
        """Open a file.

        Args:
            fs: The file system that the caller opened it with; pickling reopens it there.
            path: As that file system takes it.
            access: The path's way to the journal and the origin.
            info: The file's version and info.
            block_size: Kept for callers that look at `blocksize`; it bounds nothing.
            kwargs: Kept for pickling.
        """
        self._access = access
        self._version = info.version
        self._window = Window()
        self._buffer = b""
        self._buffer_start = 0
        # What `readline` has read and not handed out.
        self._block = b""
        self._block_start = 0
        self._ahead: Ahead | None = None
        self.loc: int = 0
        super().__init__(
            fs, path, "rb", block_size or "default", cache_type="none", size=info.version.size_bytes, **kwargs
        )
        self._details = {**info.details, "size": info.version.size_bytes}

    def read(self, length: int | None = -1) -> bytes:
        """Read up to `length` bytes, to the end of the file where it is negative or None."""
        if self.closed:
            msg = "I/O operation on closed file."
            raise ValueError(msg)
        length = -1 if length is None else int(length)
        start: int = self.loc
        stop = self.size if length < 0 else min(start + length, self.size)
        if stop <= start:
            return b""
        data = self._read(start, stop)
        self.loc = start + len(data)
        return data

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._read(start, end)

    def readuntil(self, char: bytes = b"\n", blocks: int | None = None) -> bytes:
        """Return the bytes up to and with the next `char`, or to the end of the file.

        Args:
            char: What to look for, one byte or more.
            blocks: How much to read at a time, in bytes.
        """
        line = b""
        while True:
            at = self.loc - self._block_start
            if not 0 <= at < len(self._block):
                self._block, self._block_start, at = self.read(blocks or LINES_BYTES), self.loc, 0
                self._block_start -= len(self._block)
            if not self._block:
                return line
            searched = max(len(line) - len(char) + 1, 0)
            line += self._block[at:]
            found = line.find(char, searched)
            if found >= 0:
                self.loc = self._block_start + len(self._block) - (len(line) - found - len(char))
                return line[: found + len(char)]
            self.loc = self._block_start + len(self._block)

    def _read(self, start: int, stop: int) -> bytes:
        if current() is None:  # deactivated: the file system is what it was without us
            data: bytes = self.fs.cat_file(self.path, start, stop)
            return data
        at = start - self._buffer_start
        if at >= 0 and stop <= self._buffer_start + len(self._buffer):
            self._window.follow(start, stop)
            data = self._buffer[at : at + stop - start]
            self._access.count_read(len(data))
            return data
        behind, ahead_until = self._window.next, self._window.ahead_until
        sequential = self._window.follow(start, stop)
        if not sequential and ahead_until:
            self._leave(behind, ahead_until)
        if sequential and start and stop - start <= SMALL_BYTES:
            self._buffer = self._access.peek(start, start + PIECE_BYTES, version=self._version)
            self._buffer_start = start
            if len(self._buffer) >= stop - start:
                self._access.count_read(stop - start)
                return self._buffer[: stop - start]
        found = self._access.try_read([(start, stop)], vector=False, version=self._version)
        if found is None:
            ahead_bytes = self._window.size_bytes
            reading = self._access.read([(start, stop)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
            data = unwrapped(run(self.fs, reading)[0])
            if start >= self._window.ahead_until:  # else what is being read ahead holds a part of it
                self._window.ahead_until = stop + ahead_bytes
        else:
            data = found[0]
        self._keep_ahead(stop)
        return data

    def _keep_ahead(self, at: int) -> None:
        """While reading stays sequential, have the next window fetched before the last one is used up."""
        window = self._window
        if not window.size_bytes or not window.ahead_until or window.ahead_until >= self.size:
            return
        if window.ahead_until - at > window.size_bytes // 2 or (self._ahead is not None and not self._ahead.done):
            return
        begin = max(window.ahead_until, at)
        window.ahead_until = begin + window.size_bytes
        self._ahead = Ahead(self._access, begin, window.ahead_until, loop_of(self.fs))

    def _leave(self, start: int, stop: int) -> None:
        """Drop what this file read ahead in [start, stop) and nobody asked for, and what is still on its way."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.leave()
        self._access.drop_ahead(start, stop)

    def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        if not self.closed:
            self._buffer = self._block = b""
            if self._window.ahead_until:
                self._leave(self._window.next, self._window.ahead_until)
        super().close()


class AsyncCachedFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec is untyped
    """A file opened with `open_async`, whose reads go through the journal."""

    def __init__(self, fs: Any, path: str, access: Access, info: Info, **kwargs: Any) -> None:
        """Open a file; the arguments are those of `CachedFile`."""
        self._access = access
        self._version = info.version
        self._window = Window()
        super().__init__(fs, path, "rb", cache_type="none", size=info.version.size_bytes, **kwargs)
        self._details = {**info.details, "size": info.version.size_bytes}

    async def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        if end <= start:
            return b""
        if current() is None:  # deactivated: the file system is what it was without us
            data: bytes = await self.fs._cat_file(self.path, start, end)  # noqa: SLF001 - fsspec's asynchronous interface
            return data
        window = self._window
        behind, ahead_until = window.next, window.ahead_until
        if not window.follow(start, end) and ahead_until:
            self._access.drop_ahead(behind, ahead_until)
        ahead_bytes = window.size_bytes
        rows = await self._access.read([(start, end)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
        if ahead_bytes and start >= window.ahead_until:
            window.ahead_until = end + ahead_bytes
        return unwrapped(rows[0])

    async def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        if not self.closed and self._window.ahead_until:
            self._access.drop_ahead(self._window.next, self._window.ahead_until)
        await super().close()


def unwrapped(result: bytes | Exception) -> bytes:
    """Return bytes; raise an exception."""
    if isinstance(result, Exception):
        raise result
    return result
