"""Origins over fsspec file systems: what is common to all, and the one for a file system nothing else is known of."""

import asyncio
import contextvars
import errno
import functools
import inspect
import numbers
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from fsspec.spec import AbstractFileSystem

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.snapshot import REPLACED, agrees
from jcache.reader.remote import Span
from jcache_plugins.origins.unlisted import unlisted

__all__ = ["FileSystemOrigin", "beside", "in_thread", "is_settled", "reaching", "version_of", "within_origin"]

T = TypeVar("T")

# Synchronous file systems that threads may share: each request stands alone, or its client keeps them apart.
CONCURRENT = frozenset({
    "fsspec.implementations.github.GithubFileSystem",
    "fsspec.implementations.smb.SMBFileSystem",
    "webdav4.fsspec.WebdavFileSystem",
})  # fmt: skip
# Those whose file objects are none of fsspec's, and tell no size.
UNSIZED = frozenset({
    "fsspec.implementations.arrow.ArrowFSWrapper",
    "fsspec.implementations.sftp.SFTPFileSystem",
    "fsspec.implementations.smb.SMBFileSystem",
})  # fmt: skip
# File systems that send requests again by themselves.
RETRYING = frozenset({"adlfs", "gcsfs", "s3fs"})
# Options of theirs that leave open which bytes are meant; `mode` comes with those of `open`.
TUNING = frozenset({"chunksize", "concurrency", "max_concurrency", "mode"})
# Beyond that, in 1697 and 2242, a time in nanoseconds may be none that can be recorded.
MOST_S = 1 << 33
# HTTP's statuses of what may pass, error numbers of a lost connection, and those of one that could not be made.
BUSY = frozenset({408, 429, 502, 503, 504})
LOST = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.ENETRESET})
NOBODY = frozenset({
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, socket.EAI_AGAIN,
})  # fmt: skip
# True while a file system is asked on JCache's own behalf: the hooks then let it through.
_reaching: contextvars.ContextVar[bool] = contextvars.ContextVar("jcache_reaching", default=False)


def within_origin() -> bool:
    """Whether the running code is asking an origin on JCache's behalf.

    So is what runs while the interpreter is taken down: then no thread and no event loop works any more.
    """
    return _reaching.get() or sys.is_finalizing()


class reaching:  # noqa: N801 - used like a function; as a generator it would take four times as long
    """Mark the code inside as asking an origin on JCache's behalf."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _reaching.set(True)

    def __exit__(self, *exc_info: object) -> None:
        _reaching.reset(self._token)


_beside: dict[tuple[int, Callable[[Any], Any]], tuple["weakref.ref[Any]", Any]] = {}


def beside(fs: Any, make: Callable[[Any], T]) -> T:
    """Return what JCache keeps of one file-system object, made at first; nothing of it shows on the object.

    By its address, for a file system equals every other one that was made with the same arguments. It goes with the
    object, and must not refer to it.
    """
    target: Any = fs
    if type(fs) is weakref.ProxyType:
        target = target.__reduce__.__self__  # a method is bound to what the proxy stands for
    key = id(target), make
    known = _beside.get(key)
    if known is None:  # another thread may be faster
        known = _beside.setdefault(key, (weakref.ref(target, lambda _: _beside.pop(key, None)), make(target)))
    return known[1]  # type: ignore[no-any-return]  # what `make` made


def all_beside(make: Callable[[Any], T]) -> list[T]:
    """Return what was made so for all file-system objects that there are."""
    return [made for (_, maker), (_, made) in list(_beside.items()) if maker is make]


class FileSystemOrigin:
    """One file of any fsspec file system, asynchronous or not.

    Nothing is known of its protocol, so the version is proved by one `info` before and one behind the bytes. The one
    behind a request counts as the one before the next.

    Attributes:
        lenient: Whether a range in which the file has no byte is served as no bytes; else `without_bytes` tells.
        slices: Whether bounds from the end, and those with no byte between them, mean what they mean to Python's
            slices; else `meant` tells.
        is_directory: Whether the name was a directory when the origin was asked last.
        exists_by_reading: Whether `exists` of the file system asks for the whole file.
        one_at_a_time: Whether the file system may not stand two calls at once: they take turns, and are made only while
            the application waits for one. What is read ahead comes with what is asked for.
        holds_open: Whether the file is held open at the server: a file that takes its name is not read for it.
        transient: Errors of the file system's own after which the same request may succeed.
    """

    lenient = True
    is_directory = False
    exists_by_reading = False
    holds_open = False
    transient: tuple[type[Exception], ...] = ()

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file.

        Args:
            fs: The file system instance whose credentials and event loop are to be used.
            path: As that file system takes it.
            identity: Which object the path means.
        """
        self.fs = fs
        self.path = path
        self._identity = identity
        # A synchronous one may have a single connection, and promises nothing.
        self.slices = bool(fs.async_impl)
        self.one_at_a_time = not fs.async_impl and CONCURRENT.isdisjoint(map(_name, type(fs).__mro__))

    @classmethod
    def named(cls, fs: Any, path: str, options: Mapping[str, Any]) -> str | None:
        """Return the path of what a call with options means; None where only the file system can tell."""
        heeded = TUNING if fs.__class__.__module__.partition(".")[0] in RETRYING else frozenset[str]()
        return None if options.keys() - heeded else path

    @classmethod
    def written(cls, path: str) -> str:
        """Return the path of what changes where a path is written."""
        return path

    @classmethod
    def let_go(cls, paths: Sequence[str], *, below: bool) -> None:
        """Use nothing any more that is open of paths which are being written, by whichever file system.

        Args:
            paths: As file systems of this class take them.
            below: Whether what lies below them is written as well.
        """

    def kept(self, details: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - for subclasses
        """Return the path of one version of the file, where the origin keeps it when the file is overwritten.

        Args:
            details: What `stat` told of that version.
        """
        return None

    def without_bytes(self, start: int | None, stop: int | None, size: int) -> Span | Exception | None:  # noqa: ARG002 - for subclasses
        """Return what a range means in which a file has no byte: another range, an error, or None for no bytes."""
        return None

    def meant(self, start: int | None, stop: int | None, size: int) -> tuple[int, int] | None:
        """Return what bounds mean that count from the end, or have no byte between them, in a file of that size.

        Returns:
            None where only the file system itself can tell.
        """
        cls = self.fs.__class__
        is_composed = inspect.unwrap(cls.cat_file) is AbstractFileSystem.cat_file
        return as_read(start, stop, size) if is_composed and UNSIZED.isdisjoint(map(_name, cls.__mro__)) else None

    def replaced(self, version: Version) -> Exception | None:  # noqa: ARG002 - for subclasses
        """Return what the file system's file objects raise where the file is no longer of a version, if they do."""
        return None

    def of_open_file(self, error: Exception) -> Exception:
        """Return what the file system's file objects raise where a read by name raises an error."""
        return error

    def retry_after(self, error: Exception, *, met: bool) -> float | None:
        """Return after how many seconds a request that failed may be sent again; None where that is of no use."""
        if self.fs.__class__.__module__.partition(".")[0] in RETRYING:
            return None
        status = getattr(error, "status", None)
        if status in BUSY:
            return seconds_of((getattr(error, "headers", None) or {}).get("Retry-After"))
        if isinstance(error, (TimeoutError, ConnectionResetError, BrokenPipeError, ShortReadError, *self.transient)):
            return 0.0
        number = error.errno if isinstance(error, OSError) and status is None else None
        return 0.0 if number in LOST or (met and number in NOBODY) else None

    async def checksum(self) -> str | None:
        """Return a checksum of the whole file that other servers give, too (`adler32:` and hexadecimal), if they do."""
        return None

    @property
    def is_got(self) -> bool:
        """Whether the file is known to be given to who reads it, and not only to be told of."""
        return True

    async def stat_by_reading(self) -> Info | None:
        """Ask for the file's version as who reads it does; None where the answer does not tell it."""
        return await self.stat()

    async def ask(self, start: int | None, stop: int | None) -> bytes | Exception:
        """Return what the file system itself gives for a range, or the exception that it raises."""
        try:
            with reaching():
                data: bytes = await self._call("cat_file", self.path, start=start, end=stop)
        except Exception as error:  # noqa: BLE001 - it is the answer
            return error
        return data

    @property
    def identity(self) -> Identity:
        """Which object this is."""
        return self._identity

    @property
    def is_streamed(self) -> bool:
        """Whether the server sends no parts of the file."""
        return False

    def says_length(self, nbytes: int) -> bool:  # noqa: ARG002 - for origins that say it with the bytes
        """Whether the answers that brought bytes have said that the file is so long."""
        return True

    async def stat(self) -> Info:
        """Ask for the file's `info` now, past any listing cache that the file system keeps."""
        with reaching(), unlisted(self.fs) as fs:
            self.is_directory = False
            details = await self._call("info", self.path, fs=fs)
            self.is_directory = details.get("type") == "directory"
            if self.is_directory:
                raise IsADirectoryError(self.path)
            version = version_of(details)
            if version.mtime_ns is None and not version.is_provable:
                modified = await self._modified(fs)
                version = Version(version.size_bytes, mtime_ns=modified)
        return Info(version, details)

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges and prove their version by a stat on either side of them."""
        try:
            before = known or await self.stat()
        except Exception:  # noqa: BLE001 - the plain file system does not ask before it reads
            with reaching():
                return Fetched(await self._read(ranges), None)
        started_s = time.time()
        with reaching():
            data = await self._read(ranges)
        if arrived is not None:
            arrived()
        after = await self.stat()
        if not agrees(before.version, after.version):
            raise OriginChangedError(REPLACED)
        return Fetched(data, after, recordable=is_settled(after.version, started_s), requests=1)

    async def _read(self, ranges: Sequence[OriginRange]) -> list[bytes | Exception]:
        if len(ranges) == 1:
            start, stop = ranges[0]
            # The whole file is asked for without bounds: obstore's file system takes both, or none.
            bounds = {"start": start, "end": stop} if start or stop is not None else {}
            return [await self._call("cat_file", self.path, **bounds)]
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        return list(await self._call("cat_ranges", [self.path] * len(ranges), starts, stops))

    async def _modified(self, fs: Any) -> int | None:
        try:
            return nanoseconds(await self._call("modified", self.path, fs=fs))
        except (NotImplementedError, AttributeError, OSError):
            return None

    async def _call(self, name: str, *args: Any, fs: Any = None, **kwargs: Any) -> Any:
        """Call a method of the file system by its synchronous name, without blocking the event loop."""
        fs = fs or self.fs
        asynchronous: Callable[..., Any] | None = getattr(fs, f"_{name}", None)
        if fs.async_impl and asynchronous is not None:
            result = asynchronous(*args, **kwargs)
            # Not asked of the function: a decorated one may be none that `inspect` calls a coroutine function.
            return await result if inspect.isawaitable(result) else result
        return await self._in_turn(functools.partial(getattr(fs, name), *args, **kwargs))

    async def _in_turn(self, call: Callable[[], Any]) -> Any:
        """Have a thread make a synchronous call; see `one_at_a_time`."""
        if not self.one_at_a_time:
            return await in_thread(call)
        turns = beside(self.fs, Turns)

        def task() -> Any:
            with turns.lock:
                return call()

        return await in_thread(task)


def as_read(start: int | None, stop: int | None, size: int) -> tuple[int, int]:
    """Return what bounds mean to fsspec's own `cat_file`, which opens the file: one that goes back reads it all."""
    first = start or 0
    first = first if first >= 0 else max(0, size + first)
    last = size if stop is None else size + stop if stop < 0 else stop
    return first, size if last < first else min(last, size)


class Turns:
    """Who may call a file system that cannot stand two calls at once."""

    def __init__(self, _fs: Any) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()

    @property
    def lock(self) -> threading.Lock:
        """Held for a call; a new one in a forked child, where nobody is left to release the parent's."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


async def in_thread(call: Callable[[], Any]) -> Any:
    """Have a thread make a synchronous call, without blocking the event loop.

    Also when the main thread has ended and others read on, or in an exit handler: asyncio's own way takes nothing then.
    """
    context = contextvars.copy_context()

    def task() -> Any:
        return context.run(call)

    try:
        answer = asyncio.get_running_loop().run_in_executor(None, task)
    except RuntimeError:
        done: Future[Any] = Future()
        done.set_running_or_notify_cancel()

        def run() -> None:
            try:
                done.set_result(task())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                done.set_exception(error)

        try:
            threading.Thread(target=run, name="jcache-origin", daemon=True).start()
        except RuntimeError:
            run()  # nor can a thread be had any more
        answer = asyncio.wrap_future(done)
    return await answer


def version_of(details: Mapping[str, Any]) -> Version:
    """Return the version that an `info` dictionary tells, in the words of the file systems in use.

    Args:
        details: What `info` returned.

    Raises:
        FileNotFoundError: It is not a file with a size.
    """
    size = details.get("size")
    if not isinstance(size, numbers.Integral):
        msg = f"{details.get('name')}: the origin gives no size"
        raise UnsizedError(msg)
    etag = first(details, ("ETag", "etag", "e_tag"))
    checksum = None
    for field in ("md5Hash", "crc32c", "Content-MD5", "content_md5", "sha256", "sha", "checksum", "generation"):
        value = details.get(field)
        if isinstance(value, str | int) and value:
            checksum = f"{field}:{value}"
            break
    modified = first(details, ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified"))
    return Version(int(size), mtime_ns=nanoseconds(modified), etag=strong(etag), checksum=checksum)


class UnsizedError(OSError):
    """The origin does not say how long the file is, so it is read past the cache."""


def first(details: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first of these entries that is there."""
    return next((details[name] for name in names if details.get(name) is not None), None)


def strong(etag: Any) -> str | None:
    """Return an entity tag that stands for bytes; a weak one (RFC 9110, 8.8.1) stands only for their meaning."""
    if not isinstance(etag, str) or not etag or etag.startswith("W/"):
        return None
    return etag


def nanoseconds(moment: Any) -> int | None:
    """Return a modification time as nanoseconds since the epoch: out of a number of seconds, a date or its text."""
    if isinstance(moment, str):
        return nanoseconds_of(moment)
    if isinstance(moment, bool) or moment is None:
        return None
    if isinstance(moment, numbers.Integral):
        return int(moment) * 10**9
    if isinstance(moment, numbers.Real):
        return round(float(moment) * 1e6) * 1000
    if isinstance(moment, datetime):
        try:
            whole = int(moment.replace(microsecond=0).timestamp())
        except (OverflowError, ValueError, OSError):
            return None  # the year 1, say
        if abs(whole) >= MOST_S:
            return None
        return whole * 10**9 + moment.microsecond * 1000
    return None


@functools.lru_cache(1024)
def nanoseconds_of(text: str) -> int | None:
    """Return a date in HTTP's or ISO's spelling as nanoseconds since the epoch, None if it is neither.

    Kept for a while: all responses of one second have the same `Date`, and many files were written in one second.
    """
    return nanoseconds(parsed(text))


def parsed(text: str) -> datetime | None:
    """Return a date out of HTTP's or ISO's text, None if it is neither."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(text)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def seconds_of(told: str | None) -> float:
    """Return what a server's `Retry-After` (RFC 9110, 10.2.3) means, a number of seconds or a date, from now on."""
    if told is None:
        return 0.0
    if told.strip().isdecimal():
        return float(told)
    moment_ns = nanoseconds(told)
    return 0.0 if moment_ns is None else max(0.0, moment_ns / 1e9 - time.time())


def adler32(name: str, value: str) -> str | None:
    """Return a checksum as all servers of it are compared, None where it is another one."""
    try:
        return f"adler32:{int(value, 16):08x}" if name.strip().lower() == "adler32" else None
    except ValueError:
        return None


def is_settled(version: Version, read_s: float) -> bool:
    """Whether a change after the read would show in the version.

    A modification time in whole seconds does not show a change within the second in which it was read
    (RFC 9110, 8.8.2.2). Stronger validators always do.

    Args:
        version: What the origin said.
        read_s: Unix time at which the read began, in seconds.
    """
    return version.etag is not None or version.checksum is not None or is_past(version.mtime_ns, read_s)


def is_past(mtime_ns: int | None, read_s: float) -> bool:
    """Whether a change after the read would show in a modification time; none there is none to be misled by."""
    return mtime_ns is None or mtime_ns % 10**9 != 0 or read_s >= mtime_ns / 1e9 + 1
