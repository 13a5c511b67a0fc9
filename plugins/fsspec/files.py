"""File objects that read exactly what is asked, and ahead where reading is sequential."""

import asyncio
import contextlib
import functools
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fsspec.asyn import AbstractAsyncStreamedFile
from fsspec.spec import AbstractBufferedFile

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.origin import Info
from jcache.session import current
from jcache_plugins.fsspec.access import Access, access, loop_of, on_loop_of, run, unwrapped
from jcache_plugins.fsspec.ahead import ReadAhead, Window
from jcache_plugins.fsspec.reads import find, find_soon, measured
from jcache_plugins.fsspec.written import opened_for_writing
from jcache_plugins.origins.base import reaching, within_origin

if TYPE_CHECKING:
    from jcache.reader.lent import Lent

__all__ = ["ASYNC", "SYNC", "AsyncCachedFile", "CachedFile"]

Method = Callable[..., Any]

# Reads smaller than this are served in steps out of a piece of the journal that was verified once.
SMALL_BYTES = 64 << 10
PIECE_BYTES = 256 << 10
# What is read at a time to find the end of a line.
LINES_BYTES = 64 << 10
# Options of `open` that say how to read, not what.
OPEN_OPTIONS = frozenset({"autocommit", "block_size", "cache_options", "cache_type", "fill_cache", "size", "kwargs"})


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
        self._is_open_ended = info.details.get("partial") is False
        self._ahead = ReadAhead(access, lambda: loop_of(fs))
        self._buffer = b""
        self._buffer_start = 0
        # What `readline` has read and not handed out.
        self._block = b""
        self._block_start = 0
        # The piece of what was read ahead that is being used.
        self._lent: Lent | None = None
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
        if self._is_open_ended and stop == self.size:
            data += self._read_on(stop, None if length < 0 else start + length)
        self.loc = start + len(data)
        return data

    def _read_on(self, start: int, stop: int | None) -> bytes:
        """Read what there is behind the end that was told, of a file that is sent as a stream."""
        if stop is not None and stop <= start:
            return b""
        data = unwrapped(run(self.fs, self._access.read([(start, stop)], vector=False, version=self._version))[0])
        self.size += len(data)
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
        if current() is None or sys.is_finalizing():  # deactivated: the file system is what it was without us
            data: bytes = self.fs.cat_file(self.path, start, stop)
            return data
        window = self._ahead.window
        left = self._ahead.follow(start, stop)
        sequential = left is None
        if left is not None:
            self._leave(*left)
        if stop - start <= SMALL_BYTES:
            small = self._read_small(start, stop, sequential=sequential)
            if small is not None:
                return small
        found = self._access.try_read([(start, stop)], vector=False, version=self._version)
        if found is not None:
            self._ahead.keep(self.size)
            return found[0]
        # Else it is being read ahead, or is sent as a stream.
        if window.size_bytes and start >= window.ahead_until and not self._is_open_ended:
            self._ahead.skip(stop)
        self._ahead.keep(self.size)
        reading = self._access.read([(start, stop)], vector=False, version=self._version)
        try:
            return unwrapped(run(self.fs, reading)[0])
        except OriginChangedError:
            kept = self._access.kept(self.fs, self._details)
            if kept is None:
                raise
        self._leave(*self._ahead.end())
        self._access, self._ahead = kept, ReadAhead(kept, self._ahead.loop_of)
        return self._read(start, stop)

    def _read_small(self, start: int, stop: int, *, sequential: bool) -> bytes | None:
        """Read out of what is in hand, or can be had in one piece from memory or journal; None where it is neither."""
        at = start - self._buffer_start
        if at >= 0 and stop <= self._buffer_start + len(self._buffer):
            self._access.count_read(stop - start)
            return self._buffer[at : at + stop - start]
        if not sequential or not start:
            return None
        if self._ahead.window.ahead_until:
            data = None if self._lent is None else self._lent.take(start, stop)
            if data is None:
                self._lent = self._access.lend(start, self._lent, version=self._version)
                data = None if self._lent is None else self._lent.take(start, stop)
            if data is not None:
                self._access.count_ahead(len(data))
                self._ahead.keep(self.size)
                return data
        self._buffer = self._access.peek(start, start + PIECE_BYTES, version=self._version)
        self._buffer_start = start
        if len(self._buffer) < stop - start:
            return None
        self._access.count_read(stop - start)
        return self._buffer[: stop - start]

    def _leave(self, start: int, stop: int) -> None:
        """Drop what this file read ahead in [start, stop) and nobody asked for; nothing more of it comes."""
        lent, self._lent = self._lent, None
        leave(self._access, lent, start, stop)

    def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        if not self.closed:
            self._buffer = self._block = b""
            if self._ahead.window.ahead_until:
                self._leave(*self._ahead.end())
        super().close()

    def __del__(self) -> None:
        """Close a file that was never closed.

        It is collected at any point of any thread, also of one that holds a lock that is needed to drop what was read
        ahead. So that is left to the event loop; where it is closed, to the end of the session.
        """
        ahead = getattr(self, "_ahead", None)  # None: it was never made
        if ahead is not None and ahead.window.ahead_until:
            access, lent = self._access, self._lent
            # The session has ended when the interpreter is taken down.
            if not self.closed and not sys.is_finalizing():
                leave_soon(ahead.loop, lambda: leave(access, lent, *ahead.end()))
            self._ahead = ReadAhead(access, ahead.loop_of)  # closing it finds nothing to do
        super().__del__()


def leave(access: Access, lent: "Lent | None", start: int, stop: int) -> None:
    """Drop what a file object read ahead in [start, stop), of which nothing more comes; record what was taken of it."""
    if stop:
        if lent is not None:
            access.hand_back(lent)
        access.drop_ahead(start, stop)


def leave_soon(loop: asyncio.AbstractEventLoop | None, task: Callable[[], None]) -> None:
    """Have an event loop drop what a file object read ahead, unless it is closed; takes no lock."""
    if loop is not None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task)


class AsyncCachedFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec is untyped
    """A file opened with `open_async`, whose reads go through the journal."""

    def __init__(self, fs: Any, path: str, access: Access, info: Info, **kwargs: Any) -> None:
        """Open a file; the arguments are those of `CachedFile`."""
        self._access = access
        self._version = info.version
        self._window = Window()
        self._loop: asyncio.AbstractEventLoop | None = None
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
        self._loop = asyncio.get_running_loop()
        behind, ahead_until = window.next, window.ahead_until
        if not window.follow(start, end) and ahead_until:
            self._access.drop_ahead(behind, ahead_until)
        ahead_bytes = window.size_bytes
        try:
            rows = await self._access.read([(start, end)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
        except OriginChangedError:
            kept = self._access.kept(self.fs, self._details)
            if kept is None:
                raise
            self._access = kept
            rows = await kept.read([(start, end)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
        if ahead_bytes and start >= window.ahead_until:
            window.ahead_until = end + ahead_bytes
        return unwrapped(rows[0])

    async def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        if not self.closed and self._window.ahead_until:
            self._access.drop_ahead(self._window.next, self._window.ahead_until)
        await super().close()

    def __del__(self) -> None:
        """Have what was read ahead dropped where the file was never closed; see `CachedFile.__del__`."""
        window = getattr(self, "_window", None)  # None: it was never made
        if window is not None and window.ahead_until and not self.closed and not sys.is_finalizing():
            leave_soon(self._loop, functools.partial(self._access.drop_ahead, window.next, window.ahead_until))


# -- open -------------------------------------------------------------------------------------------------------


def open_file(original: Method) -> Method:
    """Make `_open`."""

    def _open(self: Any, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if mode != "rb":
            return opened_for_writing(self, path, original(self, path, mode, *args, **kwargs))
        found = None if on_loop_of(self) else find(self, path, options_of(kwargs))
        if found is not None:
            try:
                info = run(self, found.open())
            except (OfflineMissError, OriginChangedError):
                raise
            except Exception:  # noqa: BLE001 - the file system has its own way, or says better what is wrong
                found = None
        if found is None:
            return watched(self, path, original(self, path, mode, *args, **kwargs))
        block_size = args[0] if args else kwargs.get("block_size")
        return CachedFile(self, path, found, info, block_size=block_size)

    return _open


def options_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call of `open` that may say what is read, and that it is one."""
    options = {name: value for name, value in kwargs.items() if name not in OPEN_OPTIONS}
    return {**options, "mode": "rb"} if options else options


def watched(fs: Any, path: Any, file: Any) -> Any:
    """Count what is read from a file object that goes past the cache."""
    session = current()
    if session is None or within_origin() or not hasattr(file, "__dict__"):
        return file
    named = access(fs, path)
    if named is not None and named.excluded:
        return file
    if named is not None:
        session.counters.file_opened(named.identity.url, getattr(file, "size", None), 0.0)
    read = file.read

    def counted(*args: Any, **kwargs: Any) -> Any:
        with reaching():
            data = read(*args, **kwargs)
        return measured(fs, path, data) if isinstance(data, bytes) else data

    file.read = counted
    return file


def open_async(original: Method) -> Method:
    """Make `open_async`."""

    async def open_async(self: Any, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        found = await find_soon(self, path, options_of(kwargs)) if mode == "rb" and not args else None
        if found is not None:
            try:
                return AsyncCachedFile(self, path, found, await found.open())
            except (OfflineMissError, OriginChangedError):
                raise
            except Exception:  # noqa: BLE001 - the file system has its own way, or says better what is wrong
                found = None
        file = await original(self, path, mode, *args, **kwargs)
        return file if mode == "rb" else opened_for_writing(self, path, file)

    return open_async


ASYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file, "open_async": open_async}
SYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file}
