"""What a hooked file system does instead of `open_async`: its own asynchronous file objects, journaled."""

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import Any

from fsspec.asyn import AbstractAsyncStreamedFile

from jcache.errors import OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.session import current
from jcache_plugins.fsspec.access import Access, unwrapped
from jcache_plugins.fsspec.ahead import Window
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.fsspec.files import asked, known_version, options_of
from jcache_plugins.fsspec.journal_cache import leave_soon, mixed
from jcache_plugins.fsspec.metadata import serving, told
from jcache_plugins.fsspec.reads import find_soon, one_range
from jcache_plugins.fsspec.written import opened_for_writing

__all__ = ["ASYNC", "SYNC", "open_journaled_async"]

Method = Callable[..., Any]

# Methods whose file objects ask the origin for nothing when they are made.
QUIET = frozenset({"fsspec.implementations.http.HTTPFileSystem.open_async", "s3fs.core.S3FileSystem.open_async"})
# Methods whose file objects are not asynchronous.
SYNCHRONOUS = frozenset({"fsspec_xrootd.xrootd.XRootDFileSystem.open_async"})


class JournaledStream(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec is untyped
    """What a class of asynchronous file objects does otherwise where a file's reads go through the journal."""

    journal: "AsyncJournal"
    loc: int
    size: int
    # All of the file, where it is not as long as it was said to be, or another one each time.
    whole: bytes | None = None

    async def read(self, length: Any = -1) -> bytes:
        """Read up to `length` bytes, to the end of the file where it is negative or None."""
        length = -1 if length is None else int(length)
        if self.journal.is_closed:
            return await super().read(length)  # type: ignore[no-any-return]  # which says what is wrong with that
        start: int = self.loc
        data = await self._read(start, None if length < 0 else start + length)
        self.loc = start + len(data)
        return data

    async def _read(self, start: int, stop: int | None) -> bytes:
        """Return [start, stop) of the file, however long that turns out to be."""
        journal = self.journal
        if self.whole is None:
            try:
                data = await self._fetch_range(start, self.size if stop is None else stop)
            except OriginChangedError:
                if journal.is_used:
                    raise
                if await journal.takes_another():
                    self.size = journal.size
                    return await self._read(start, stop)
            else:
                if start + len(data) < self.size or journal.ends_as_said():
                    return data
            self.whole = await journal.whole()
            self.size = len(self.whole)
        return self.whole[start:stop]

    async def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        if end <= start:
            return b""
        if current() is None:  # deactivated: the file system is what it was without us
            data: bytes = await self.fs._cat_file(self.path, start, end)  # noqa: SLF001 - fsspec's asynchronous interface
            return data
        return await self.journal.read(self.fs, start, end)

    async def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        self.journal.close()
        await super().close()

    def __del__(self) -> None:
        """Have what was read ahead dropped where the file was never closed, without waiting for a lock."""
        journal = self.__dict__.get("journal")
        if journal is not None:  # else it was never made
            journal.close_soon()


class AsyncJournal:
    """One version of the file of one asynchronous file object, through the journal."""

    def __init__(self, found: Access, info: Info) -> None:
        """Read nothing yet."""
        self.is_closed = False
        # Whether bytes were delivered, or another version was taken than the one that was opened.
        self.is_used = self._is_another = False
        self.size = info.version.size_bytes
        self._access = found
        self._version = info.version
        self._details = info.details
        self._window = Window()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, fs: Any, start: int, stop: int) -> bytes:
        """Read [start, stop), which lies in the file and is not empty; ahead where reads follow one another."""
        window = self._window
        self._loop = asyncio.get_running_loop()
        behind, ahead_until = window.next, window.ahead_until
        if not window.follow(start, stop) and ahead_until:
            self._access.drop_ahead(behind, ahead_until)
        ahead_bytes = window.size_bytes
        try:
            rows = await self._access.read(
                [(start, stop)], vector=False, ahead_bytes=ahead_bytes, version=self._version
            )
        except OriginChangedError:
            kept = self._access.kept(fs, self._details)  # where the origin keeps this version beside a later one
            if kept is None:
                raise
            self._access = kept
            rows = await kept.read([(start, stop)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
        if ahead_bytes and start >= window.ahead_until:
            window.ahead_until = stop + ahead_bytes
        data = unwrapped(rows[0])
        self.is_used = True
        return data

    def close(self) -> None:
        """Drop what was read ahead and never asked for."""
        if not self.is_closed and self._window.ahead_until:
            self._access.drop_ahead(self._window.next, self._window.ahead_until)
        self.is_closed = True

    async def takes_another(self) -> bool:
        """Take the version that the origin has now, once, where nothing was read of the file."""
        if self._is_another:
            return False
        self._is_another = True
        try:
            info = await self._access.stat()
        except RestlessError:
            return False
        self.size, self._version, self._details = info.version.size_bytes, info.version, info.details
        return info.version.is_provable

    def ends_as_said(self) -> bool:
        """Whether the file is known to end where it was said to."""
        return current() is None or self._access.origin.says_length(self.size) or self._access.is_as_long(self.size)

    async def whole(self) -> bytes:
        """Return all of the file by one request, of whichever version that is."""
        data = await one_range(self._access, (None, None))
        return data if isinstance(data, bytes) else unwrapped((await self._access.read_past([(0, None)]))[0])

    def close_soon(self) -> None:
        """Do as `close` does, without taking a lock; see `JournalReader.close_soon`."""
        if not self.is_closed and self._window.ahead_until and not sys.is_finalizing():
            drop = functools.partial(self._access.drop_ahead, self._window.next, self._window.ahead_until)
            leave_soon(self._loop, drop)


def open_async(original: Method) -> Method:
    """Make `open_async`."""
    name = f"{original.__module__}.{original.__qualname__}"
    if original.__module__ == "fsspec.asyn" or name in SYNCHRONOUS:
        return original  # or there is none

    parameters = Parameters.of(original)

    async def open_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        said = parameters.said(args, kwargs)
        path, mode = asked(parameters, said)
        if said is None or mode != "rb":
            return opened_for_writing(self, path, await original(self, *args, **kwargs))
        found = await find_soon(self, path, options_of(said))
        path = undirected(path)
        if found is not None:
            found.begin()
        info = None if found is None else await known_version(found)
        if found is None or info is None:
            return await original(self, *args, **kwargs)
        if name not in QUIET:
            return open_journaled_async(self, path, found, info)
        with serving(self, path, info):
            file = await original(self, *args, **kwargs)
        return journaled_stream(file, found, info)

    return open_async


def open_journaled_async(fs: Any, path: Any, found: Access, info: Info) -> Any:
    """Return an asynchronous file object whose reads go through the journal; see `open_journaled`."""
    file = AbstractAsyncStreamedFile(fs, path, "rb", cache_type="none", size=info.version.size_bytes)
    file._details = told(info, path)  # noqa: SLF001 - fsspec's own name for what `details` returns
    return journaled_stream(file, found, info)


def journaled_stream(file: Any, found: Access, info: Info) -> Any:
    """Have an asynchronous file object read through the journal."""
    file.journal = AsyncJournal(found, info)
    file.size = info.version.size_bytes
    file.__class__ = mixed(JournaledStream, type(file))
    return file


ASYNC: dict[str, Callable[[Method], Method]] = {"open_async": open_async}
SYNC: dict[str, Callable[[Method], Method]] = {}
