"""What a hooked file system's `info` and `exists` do instead: ask the journal where the origin must not be asked."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from jcache.origin import Info
from jcache_plugins.fsspec.access import Access, on_loop_of, run
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.reads import find, find_soon

__all__ = ["ASYNC", "MIRRORED", "SYNC", "served", "serving", "stored_info", "told"]

Method = Callable[..., Any]


async def stored_info(found: Access, path: Any) -> dict[str, Any] | None:
    """Return what `info` says of a file, out of the journal; None where the origin is to be asked.

    Raises:
        OfflineMissError: The origin must not be asked.
    """
    stored = await found.stored()
    if stored is None:
        return None
    return told(stored, path)


def told(info: Info, path: Any) -> dict[str, Any]:
    """Return what `info` says of a file of this version."""
    return {"name": path, "type": "file", **info.details, "size": info.version.size_bytes}


# What `info` says of one path of one file system to whoever is called with that.
_served: contextvars.ContextVar[tuple[Any, Any, Info] | None] = contextvars.ContextVar("jcache_served", default=None)


@contextlib.contextmanager
def serving(fs: Any, path: Any, info: Info) -> Iterator[None]:
    """Have `info` of a path, asked for inside, say what is known of it already: the origin is not asked again."""
    token = _served.set((fs, path, info))
    try:
        yield
    finally:
        _served.reset(token)


def served(fs: Any, parameters: Parameters, args: Any, kwargs: Any) -> dict[str, Any] | None:
    """Return what is known of the path that a call is about, where `serving` covers it; else None."""
    known = _served.get()
    if known is None or known[0] is not fs or (args[0] if args else kwargs.get(parameters.first)) != known[1]:
        return None
    return told(known[2], known[1])


async def is_there(found: Access) -> bool:
    """Whether a file of which something is recorded is there, as a stat says it; False where that tells nothing.

    For `exists` where the file system asks for the whole file, as HTTP's does; others ask as `stat` does, or less.
    """
    if not found.origin.exists_by_reading or not await found.is_known():
        return False
    try:
        await found.origin.stat()
    except Exception:  # noqa: BLE001 - the file system's own method says what that means
        return False
    return True


def path_of(parameters: Parameters, args: Any, kwargs: Any) -> Any:
    """Return the path that a call is about; None where it says something else, too."""
    said = parameters.said(args, kwargs)
    return None if said is None or len(said) != 1 else said.get(parameters.first)


def async_info(original: Method) -> Method:
    """Make `_info`."""
    parameters = Parameters.of(original)

    async def _info(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = served(self, parameters, args, kwargs)
        if known is not None:
            return known
        path = path_of(parameters, args, kwargs)
        found = None if path is None else await find_soon(self, path)
        info = None if found is None else await stored_info(found, path)
        return await original(self, *args, **kwargs) if info is None else info

    return _info


def mirrored_info(fs: Any, plain: Method) -> Method:
    """Make the `info` that fsspec binds to an asynchronous instance: for `serving` it never crosses to the loop."""
    parameters = Parameters.of(getattr(type(fs), "_info"))  # noqa: B009 - fsspec's asynchronous interface

    def info(*args: Any, **kwargs: Any) -> Any:
        known = served(fs, parameters, args, kwargs)
        return plain(*args, **kwargs) if known is None else known

    return info


def sync_info(original: Method) -> Method:
    """Make `info` of a synchronous file system."""
    parameters = Parameters.of(original)

    def info(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = served(self, parameters, args, kwargs)
        if known is not None:
            return known
        path = path_of(parameters, args, kwargs)
        found = None if path is None or on_loop_of(self) else find(self, path)
        info = None if found is None else run(self, stored_info(found, path))
        return original(self, *args, **kwargs) if info is None else info

    return info


def async_exists(original: Method) -> Method:
    """Make `_exists` and `_isfile`."""
    parameters = Parameters.of(original)

    async def _exists(self: Any, *args: Any, **kwargs: Any) -> Any:
        path = path_of(parameters, args, kwargs)
        found = None if path is None else await find_soon(self, path)
        if found is not None and (await found.stored() is not None or await is_there(found)):
            return True
        return await original(self, *args, **kwargs)

    return _exists


ASYNC: dict[str, Callable[[Method], Method]] = {"_info": async_info, "_exists": async_exists, "_isfile": async_exists}
SYNC: dict[str, Callable[[Method], Method]] = {"info": sync_info}
MIRRORED: dict[str, Callable[[Any, Method], Method]] = {"info": mirrored_info}
