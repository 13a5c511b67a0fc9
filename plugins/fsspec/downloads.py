"""What a hooked file system's `get_file` does instead: whole files, copied through the journal, each of one version."""

import contextlib
import functools
import inspect
import os
import stat
from collections.abc import Callable
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.planning.snapshot import REPLACED
from jcache_plugins.fsspec.access import Access, on_loop_of, run, unwrapped
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.files import lasting
from jcache_plugins.fsspec.reads import find, find_soon, may_ask
from jcache_plugins.origins.base import in_thread

__all__ = ["ASYNC", "SYNC", "download"]

Method = Callable[..., Any]

# One piece of a file.
DOWNLOAD_BYTES = 16 << 20
# How often a copy may find that the file was replaced, and start over.
RESTARTS = 4
# Options that say how to copy, not what.
COPY_OPTIONS = frozenset({"callback", "chunk_size"})


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
    file = await in_thread(functools.partial(open, target, "wb"))

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
        if asked is None or found is None or _is_directory(asked[2]):
            return await original(self, *args, **kwargs)
        try:
            if await download(found, *asked[2:]):
                return None
        except OfflineMissError:
            if not await self._isdir(asked[0]):
                raise
        return await original(self, *args, **kwargs)

    return _get_file


def sync_get_file(original: Method) -> Method:
    """Make `get_file` of a synchronous file system."""
    makes_directories = original.__module__ == "fsspec.spec"
    parameters = Parameters.of(original)

    def get_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = copy_of(parameters, args, kwargs)
        found = None if asked is None or on_loop_of(self) else find(self, *asked[:2])
        if asked is None or found is None or _is_directory(asked[2]):
            return original(self, *args, **kwargs)
        target = asked[2]
        if makes_directories and not isfilelike(target):
            os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        try:
            if run(self, download(found, *asked[2:])):
                return None
        except OfflineMissError:
            if not self.isdir(asked[0]):
                raise
        return original(self, *args, **kwargs)

    return get_file


def _is_directory(target: Any) -> bool:
    return not isfilelike(target) and os.path.isdir(target)


ASYNC: dict[str, Callable[[Method], Method]] = {"_get_file": async_get_file}
SYNC: dict[str, Callable[[Method], Method]] = {"get_file": sync_get_file}
