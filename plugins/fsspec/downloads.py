"""What a hooked file system's `get_file` does instead: whole files, copied through the journal, each of one version."""

import contextlib
import functools
import inspect
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.planning.snapshot import REPLACED
from jcache_plugins.fsspec.access import Access, on_loop_of, run, unwrapped
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.files import lasting
from jcache_plugins.fsspec.reads import find, find_soon, may_ask, measured
from jcache_plugins.origins.base import in_thread, reaching

__all__ = ["ASYNC", "SYNC", "download"]

Method = Callable[..., Any]

# One piece of a file.
DOWNLOAD_BYTES = 16 << 20
# How often a copy may find that the file was replaced, and start over.
RESTARTS = 4
# Options that say how to copy, not what.
COPY_OPTIONS = frozenset({"callback", "chunk_size"})
# Where those are from that open the file, by methods that are hooked and count.
OPENING = frozenset({"fsspec.spec", "fsspec.implementations.arrow", "jcache_plugins.filesystem"})
# The packages whose methods read by a client that is hooked as well.
CLIENTS = frozenset({"fsspec_xrootd", "obstore"})
# Where the methods are from that make the directory of what they write.
MAKERS = frozenset({"fsspec.spec", "gcsfs.core", "gcsfs.extended_gcsfs"})


async def download(found: Access, target: Any, callback: Any) -> bool:
    """Copy a whole file through the journal to a local path or file object, piece by piece.

    All pieces are of one version. Where the file is replaced meanwhile, a copy to a path starts over. What a copy that
    fails has written to a path is removed.

    Returns:
        False, having touched nothing, where the pieces cannot be had, or cannot be proved to be of one version.
    """
    found.begin()
    begun = await begin(found)
    if begun is None:
        return False
    if isfilelike(target):
        await _copy(found, *begun, target.write, callback)
        return True
    file = await in_thread(functools.partial(_opened, found, target))

    async def write(data: bytes) -> None:
        await in_thread(functools.partial(file.write, data))

    try:
        for restart in range(RESTARTS):
            try:
                await _copy(found, *begun, write, callback)
            except OriginChangedError:
                if restart == RESTARTS - 1 or not _is_regular(file):
                    raise
            else:
                break
            await in_thread(functools.partial(file.seek, 0))
            await in_thread(file.truncate)
            callback.absolute_update(0)
            begun = await begin(found)
            if begun is None:
                raise OriginChangedError(REPLACED)
    except BaseException:
        _remove(file, target)
        raise
    finally:
        await in_thread(file.close)
    return True


async def begin(found: Access) -> tuple[Info, bytes] | None:
    """Return a file's version and first piece; None where it is to be read as ever, or the file system meets an error.

    The piece shows whether the version is what the origin said before.
    """
    try:
        info = await found.open()
        for _ in range(RESTARTS):
            if lasting(found, info) is None:
                return None
            data = unwrapped((await found.read([(0, min(DOWNLOAD_BYTES, info.version.size_bytes))], vector=False))[0])
            before, info = info, await found.stat()
            if info.version == before.version:
                return info, data
    except RestlessError:
        return None
    except (OfflineMissError, OriginChangedError):
        raise
    except Exception:
        if not may_ask():
            raise  # what it met before
        return None  # the file system itself meets it, and says it in its own words
    found.give_up()
    return None


async def _copy(found: Access, info: Info, data: bytes, write: Callable[[bytes], Any], callback: Any) -> None:
    """Copy one version of a file, of which the first piece is here, to where `write` writes."""
    size = info.version.size_bytes
    callback.set_size(size)
    start = 0
    while True:
        written = write(data)
        if inspect.isawaitable(written):
            await written
        callback.relative_update(len(data))
        start += DOWNLOAD_BYTES
        if start >= size:
            return
        span = (start, min(start + DOWNLOAD_BYTES, size))
        data = unwrapped((await found.read([span], vector=False, version=info.version))[0])


def _is_regular(file: Any) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _remove(file: Any, target: Any) -> None:
    """Remove what a copy that failed has written, also where the path is a symbolic link to it."""
    with contextlib.suppress(OSError, ValueError):
        if _is_regular(file):
            os.unlink(os.path.realpath(target))


def copy_of(parameters: Parameters, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any], Any, Any] | None:
    """Return file, other options, target and callback of a `get_file` call; None where it is not understood."""
    said = parameters.said(args, kwargs)
    if said is None or len(parameters.names) < 2:
        return None
    path, target = said.pop(parameters.first, None), said.pop(parameters.names[1], None)
    callback = said.pop("callback", DEFAULT_CALLBACK)
    options = {name: value for name, value in said.items() if name not in COPY_OPTIONS}
    return None if target is None else (path, options, target, callback)


def async_get_file(original: Method) -> Method:
    """Make `_get_file`."""
    parameters = Parameters.of(original)

    async def _get_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = copy_of(parameters, args, kwargs)
        found = None if asked is None else await find_soon(self, *asked[:2])
        if asked is None or found is None or not _is_for_us(found, asked[2]):
            with counted(self, original, asked):
                return await original(self, *args, **kwargs)
        try:
            if await download(found, *asked[2:]):
                return None
        except OfflineMissError:
            if not await self._isdir(asked[0]):
                raise
        with counted(self, original, asked):
            return await original(self, *args, **kwargs)

    return _get_file


def sync_get_file(original: Method) -> Method:
    """Make `get_file` of a synchronous file system."""
    parameters = Parameters.of(original)

    def get_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = copy_of(parameters, args, kwargs)
        found = None if asked is None or on_loop_of(self) else find(self, *asked[:2])
        if asked is None or found is None or not _is_for_us(found, asked[2]):
            with counted(self, original, asked):
                return original(self, *args, **kwargs)
        try:
            if run(self, download(found, *asked[2:])):
                return None
        except OfflineMissError:
            if not self.isdir(asked[0]):
                raise
        with counted(self, original, asked):
            return original(self, *args, **kwargs)

    return get_file


@contextlib.contextmanager
def counted(fs: Any, original: Method, asked: tuple[Any, ...] | None) -> Iterator[None]:
    """Count what a file system itself copies inside, past the cache."""
    if asked is None or original.__module__ in OPENING:
        yield
        return
    path, options, target, _ = asked
    before, started_s = _length(target), time.monotonic()
    # What a client that is hooked reads is this same copy. What others ask about names in turn is remembered.
    is_by_client = original.__module__.partition(".")[0] in CLIENTS and may_ask()
    with reaching() if is_by_client else contextlib.nullcontext():
        yield
    nbytes = _length(target) - (before if isfilelike(target) else 0)
    if nbytes > 0:
        measured(fs, path, (), options=options, nbytes=nbytes, seconds=time.monotonic() - started_s)


def _length(target: Any) -> int:
    """Return how many bytes a local file has, or a file object has taken; 0 where that is not known."""
    with contextlib.suppress(Exception):
        if isfilelike(target):
            return int(target.tell())
        return os.path.getsize(target) if os.path.isfile(target) else 0
    return 0


def _is_for_us(found: Access, target: Any) -> bool:
    """Whether a file may be written where it is to be; else the file system makes of that what it makes."""
    if isfilelike(target):
        return True
    return not os.path.isdir(target) and (_makes_directories(found) or os.path.isdir(_directory_of(target)))


def _directory_of(target: Any) -> str:
    return str(os.path.dirname(os.path.abspath(target)))


def _makes_directories(found: Access) -> bool:
    cls = found.origin.fs.__class__
    method: Any = getattr(cls, "_get_file" if cls.async_impl else "get_file", None)
    return getattr(inspect.unwrap(method), "__module__", None) in MAKERS


def _opened(found: Access, target: Any) -> Any:
    if _makes_directories(found):
        os.makedirs(_directory_of(target), exist_ok=True)
    return open(target, "wb")


ASYNC: dict[str, Callable[[Method], Method]] = {"_get_file": async_get_file}
SYNC: dict[str, Callable[[Method], Method]] = {"get_file": sync_get_file}
