"""What stands in a file object where fsspec has its own cache: reads through the journal, exactly, and ahead."""

import asyncio
import contextlib
import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsspec.caching import BaseCache, caches

from jcache.errors import OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.session import current
from jcache_plugins.fsspec.access import Access, loop_of, run, unwrapped
from jcache_plugins.fsspec.ahead import ReadAhead
from jcache_plugins.origins.base import is_settled

if TYPE_CHECKING:
    from jcache.planning.lent import Lent

__all__ = ["JournalCache", "JournalReader", "leave_soon", "mixed"]

# Reads smaller than this are served in steps out of a piece of the journal that was verified once.
SMALL_BYTES = 64 << 10
PIECE_BYTES = 256 << 10


class JournalReader:
    """The reads of one file object: one version of the file, through the journal, exactly, and ahead.

    Like the file object it belongs to one thread at a time; only `fetch_exactly` may be called by any. It stands apart
    from the cache because a class with `__getattr__` finds each of its attributes slowly.
    """

    __slots__ = (
        "_buffer",
        "_buffer_start",
        "_details",
        "_fs",
        "_is_delivered",
        "_is_restless",
        "_is_used",
        "_lent",
        "_path",
        "_version",
        "access",
        "ahead",
        "size",
    )

    def __init__(self, fs: Any, path: Any, access: Access, info: Info, *, is_used: bool = False) -> None:
        """Read nothing yet.

        Args:
            fs: The file system that the file belongs to.
            path: As that file system takes it.
            access: The path's way to the journal and the origin.
            info: The version to read.
            is_used: Whether the application has bytes of that version already, and is to get none of another.
        """
        self.size = info.version.size_bytes
        self.access = access
        session = current()
        whole_bytes = 0 if session is None else session.config.whole
        self.ahead = ReadAhead(access, lambda: loop_of(fs), self.size, whole_bytes=whole_bytes)
        self._fs = fs
        self._path = path
        self._version = info.version
        self._details = info.details
        self._buffer = b""
        self._buffer_start = 0
        # Whether anything was read of that version.
        self._is_used = is_used
        self._is_delivered = self._is_restless = False
        # The piece of what was read ahead that is being used.
        self._lent: Lent | None = None

    def fetch_exactly(self, start: int, stop: int) -> bytes:
        """Read [start, stop), up to the end of the file, and nothing ahead."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        if is_off():
            data: bytes = self._fs.cat_file(self._path, start, stop)
            return data
        found = self.access.try_read([(start, stop)], vector=False, version=self._version)
        if found is not None:
            self._is_used = self._is_delivered = True
        return self._ask(start, stop, self.fetch_exactly) if found is None else found[0]

    def read(self, start: int, stop: int) -> bytes:
        """Read [start, stop), which lies in the file and is not empty; ahead where reads follow one another."""
        if is_off():
            data: bytes = self._fs.cat_file(self._path, start, stop)
            return data
        ahead = self.ahead
        sequential, left = ahead.follow(start, stop)
        if self._lent is not None and not sequential:
            self.access.hand_back(self._lent)
            self._lent = None
        if left[1]:
            ahead.dropped(self.access.drop_ahead(*left))
        if stop - start <= SMALL_BYTES:
            small = self._read_small(start, stop, sequential=sequential)
            if small is not None:
                return small
        found = self.access.try_read([(start, stop)], vector=False, version=self._version)
        if found is not None:
            self._is_used = self._is_delivered = True
        if found is not None:
            if ahead.is_any:
                if not sequential:
                    ahead.served()
                ahead.keep()
            return found[0]
        # Else it is being read ahead, or is sent as a stream.
        ahead_bytes = 0
        if not self.access.origin.is_streamed:
            window = ahead.window
            if not ahead.goes_ahead():
                ahead_bytes = ahead.missed(start, stop)
            elif start >= window.ahead_until:
                ahead_bytes = ahead.with_read(stop)
                ahead.skip(stop + ahead_bytes)
        ahead.keep()
        return self._ask(start, stop, self.read, ahead_bytes=ahead_bytes)

    @property
    def has_delivered(self) -> bool:
        """Whether bytes of the version that was opened were delivered."""
        return self._is_delivered

    def is_as_long(self) -> bool:
        """Whether the file, of which all was read, has turned out to be as long as it was said to be."""
        return is_off() or self.access.is_as_long(self.size)

    def ends_as_said(self) -> bool:
        """Whether the end that was read to was only said, and not with the bytes: the file may go on."""
        return not self.access.origin.says_length(self.size) and not self.is_as_long()

    def _ask(self, start: int, stop: int, again: Callable[[int, int], bytes], *, ahead_bytes: int = 0) -> bytes:
        """Read [start, stop) on the event loop; once more where the origin keeps this version beside a later one."""
        try:
            reading = self.access.read([(start, stop)], vector=False, ahead_bytes=ahead_bytes, version=self._version)
            data = unwrapped(run(self._fs, reading)[0])
            self._is_used = self._is_delivered = True
            return data
        except OriginChangedError:
            kept = self.access if self._takes_another() else self.access.kept(self._fs, self._details)
            if kept is None:
                whole = self._whole_past() if (start, stop) == (0, self.size) else None
                if whole is None:
                    raise
                return whole
        except FileNotFoundError as error:
            told = self.access.origin.of_open_file(error)
            if told is error:
                raise
            raise told from None
        self._leave(self.ahead.end())
        self.access, self.ahead = kept, ReadAhead(kept, self.ahead.loop_of, self.size, whole_bytes=0)
        return again(start, stop)

    def _whole_past(self) -> bytes | None:
        """Return all of a file that was another one each time, by one request; None where that is not so.

        Nothing was read of it by then, and it is as long as it was when it was opened.
        """
        if self._is_delivered or not self._is_restless or self.access.tells_of_replacing:
            return None
        self.access.give_up()
        data = unwrapped(run(self._fs, self.access.read_past([(0, None)]))[0])
        return data if len(data) == self.size else None

    def _takes_another(self) -> bool:
        """Take the version that the origin has now, once, if nothing was read of the file and it is as long.

        A server may go on serving the file that a path named before, for as long as anybody has that open.
        """
        if self._is_used:
            return False
        self._is_used = True
        now_s = time.time()
        try:
            info = run(self._fs, self.access.stat())
        except RestlessError:
            self._is_restless = True
            return False
        is_last = self.access.origin.holds_open or is_settled(info.version, now_s)
        if info.version.size_bytes != self.size or not info.version.is_provable or not is_last:
            return False
        self._version, self._details = info.version, info.details
        self._is_restless = True  # if this one is not read either
        return True

    def _read_small(self, start: int, stop: int, *, sequential: bool) -> bytes | None:
        """Read out of what is in hand, or can be had in one piece from memory or journal; None where it is neither."""
        at = start - self._buffer_start
        if at >= 0 and stop <= self._buffer_start + len(self._buffer):
            self.access.count_read(start, stop)
            return self._buffer[at : at + stop - start]
        if not sequential or not start or not self._is_used:
            return None
        if self.ahead.window.ahead_until:
            data = None if self._lent is None else self._lent.take(start, stop)
            if data is None:
                self._lent = self.access.lend(start, self._lent, version=self._version)
                data = None if self._lent is None else self._lent.take(start, stop)
            if data is not None:
                self.access.count_ahead(start, len(data))
                self.ahead.keep()
                return data
        self._buffer = self.access.peek(start, start + PIECE_BYTES, version=self._version)
        self._buffer_start = start
        if len(self._buffer) < stop - start:
            return None
        self.access.count_read(start, stop)
        return self._buffer[: stop - start]

    def _leave(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Drop what was read ahead there and nobody asked for; nothing more of it comes."""
        lent, self._lent = self._lent, None
        leave(self.access, lent, ranges)

    def close(self) -> None:
        """Drop what was read ahead and never asked for; reading goes on where there is any more of it."""
        self._buffer = b""
        if self.ahead.is_any:
            self._leave(self.ahead.end())

    def close_soon(self) -> None:
        """Do as `close` does, without taking a lock: have the event loop do it.

        A file object is collected at any point of any thread, also of one that holds a lock that is needed to drop what
        was read ahead. Where the loop is closed, or the interpreter is taken down, the session has it dropped.
        """
        ahead, access, lent = self.ahead, self.access, self._lent
        if ahead.is_any:
            self.ahead = ReadAhead(access, ahead.loop_of, self.size, whole_bytes=0)  # `close` finds nothing to do
            if not sys.is_finalizing():
                leave_soon(ahead.loop, lambda: leave(access, lent, ahead.end()))


class JournalCache(BaseCache):  # type: ignore[misc]  # fsspec is untyped
    """What a file object has for its cache where its reads go through the journal."""

    # The class of the cache that would be here without JCache; `instead_of` makes a subclass of it.
    plain: Any = BaseCache

    def __init__(self, reader: JournalReader, *, blocksize: int, options: Mapping[str, Any]) -> None:
        """Stand in for a cache.

        Args:
            reader: The file object's.
            blocksize: The plain cache's; it bounds nothing.
            options: Likewise.

        Raises:
            TypeError: The plain cache does not take such options.
        """
        BaseCache.__init__(self, blocksize, None, reader.size)
        self._options = options
        self.reader = reader
        if options:
            inspect.signature(self.plain).bind(blocksize, None, self.size, **options)

    @classmethod
    def instead_of(cls, name: str) -> "type[JournalCache]":
        """Return the class that stands in the place of fsspec's cache of a name."""
        plain = BaseCache if name == "parts" else caches[name]  # those parts are in nobody else's hands
        return mixed(cls, plain, plain=plain)  # type: ignore[no-any-return]  # classes are made as they are needed

    def __getattr__(self, name: str) -> Any:
        """Give what the plain cache has while nothing was read, made without fetching anything once somebody asks."""
        if name.startswith("__") or "reader" not in self.__dict__:
            raise AttributeError(name)
        unused = self.__dict__.get("_unused")
        if unused is None:
            unused = self._unused = self.plain(self.blocksize, self.reader.fetch_exactly, 0, **self._options)
        return getattr(unused, name)

    @property
    def fetcher(self) -> Callable[[int, int], bytes]:
        """What another cache in this one's place reads with."""
        return self.reader.fetch_exactly

    @fetcher.setter
    def fetcher(self, _: Any) -> None:
        """Ignore what fsspec's own initialization sets."""

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else start
        stop = self.size if stop is None else min(stop, self.size)
        return self.reader.read(start, stop) if start < stop else b""

    def close(self) -> None:
        """Drop what was read ahead and never asked for; reading goes on where there is any more of it."""
        self.reader.close()

    def __del__(self) -> None:
        """Do what collecting a cache must not wait for: the plain one would close itself."""
        if "reader" in self.__dict__:
            self.reader.close_soon()


_mixed: dict[Any, Any] = {}


def mixed(mixin: Any, cls: Any, **more: Any) -> Any:
    """Return a class of fsspec's objects with something else in front of it, under its own name."""
    key = (mixin, cls)
    if key not in _mixed:
        names = ("__module__", "__qualname__", "__doc__")
        _mixed[key] = type(cls.__name__, key, {**{name: getattr(cls, name) for name in names}, **more})
    return _mixed[key]


def is_off() -> bool:
    """Whether JCache was deactivated since: the file system is what it was without us."""
    return current() is None or sys.is_finalizing()


def leave(access: Access, lent: "Lent | None", ranges: Sequence[tuple[int, int]]) -> None:
    """Drop what a file object read ahead, of which nothing more comes; record what was taken of it.

    What others read ahead of the same file stays.
    """
    if lent is not None and ranges:
        access.hand_back(lent)
    for start, stop in ranges:
        access.drop_ahead(start, stop)


def leave_soon(loop: asyncio.AbstractEventLoop | None, task: Callable[[], object]) -> None:
    """Have an event loop drop what a file object read ahead, unless it is closed; takes no lock."""
    if loop is not None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task)
