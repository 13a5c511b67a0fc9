"""What a hooked file system's `get_file` does instead: whole files, copied through the journal."""

import functools
import os
from collections.abc import Callable
from typing import Any

import aiofiles
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from jcache_plugins.fsspec.access import Access, on_loop_of, run, unwrapped
from jcache_plugins.fsspec.reads import find, find_soon
from jcache_plugins.origins.base import UnsizedError, in_thread

__all__ = ["ASYNC", "SYNC", "download"]

Method = Callable[..., Any]

# One piece of a file.
DOWNLOAD_BYTES = 16 << 20


async def download(found: Access, target: Any, callback: Any) -> None:
    """Copy a whole file through the journal to a local path or file object, piece by piece."""
    size = (await found.open()).version.size_bytes
    callback.set_size(size)
    file = None
    if not isfilelike(target):
        try:
            file = await aiofiles.open(target, "wb")
        except RuntimeError:  # the main thread has ended, and there is no executor any more
            target = await in_thread(functools.partial(open, target, "wb"))
            with target:
                return await download(found, target, callback)
    try:
        for start in range(0, size, DOWNLOAD_BYTES):
            rows = await found.read([(start, min(start + DOWNLOAD_BYTES, size))], vector=False)
            data = unwrapped(rows[0])
            if file is not None:
                await file.write(data)
            else:
                target.write(data)
            callback.relative_update(len(data))
    finally:
        if file is not None:
            await file.close()


def async_get_file(original: Method) -> Method:
    """Make `_get_file`."""

    async def _get_file(self: Any, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> Any:
        callback = kwargs.get("callback", DEFAULT_CALLBACK)
        found = None if args else await find_soon(self, rpath, kwargs.keys() - {"callback", "chunk_size"})
        if found is None or (isinstance(lpath, str) and os.path.isdir(lpath)):  # noqa: ASYNC240 - as fsspec does it
            return await original(self, rpath, lpath, *args, **kwargs)
        try:
            await found.stat()
        except (UnsizedError, IsADirectoryError):
            return await original(self, rpath, lpath, **kwargs)
        return await download(found, lpath, callback)

    return _get_file


def sync_get_file(original: Method) -> Method:
    """Make `get_file` of a synchronous file system that has its own; fsspec's opens the file, which is hooked."""
    if original.__module__ == "fsspec.spec":
        return original

    def get_file(self: Any, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> Any:
        found = None if args or on_loop_of(self) else find(self, rpath, kwargs.keys() - {"callback"})
        if found is None or (isinstance(lpath, str) and os.path.isdir(lpath)):
            return original(self, rpath, lpath, *args, **kwargs)
        try:
            run(self, found.stat())
        except (UnsizedError, IsADirectoryError):
            return original(self, rpath, lpath, **kwargs)
        return run(self, download(found, lpath, kwargs.get("callback", DEFAULT_CALLBACK)))

    return get_file


ASYNC: dict[str, Callable[[Method], Method]] = {"_get_file": async_get_file}
SYNC: dict[str, Callable[[Method], Method]] = {"get_file": sync_get_file}
