"""What a hooked file system's `info` and `exists` do instead: ask the journal where the origin must not be asked."""

from collections.abc import Callable
from typing import Any

from jcache_plugins.fsspec.access import Access, on_loop_of, run
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.reads import find, find_soon

__all__ = ["ASYNC", "SYNC", "stored_info"]

Method = Callable[..., Any]


async def stored_info(found: Access, path: Any) -> dict[str, Any] | None:
    """Return what `info` says of a file, out of the journal; None where the origin is to be asked.

    Raises:
        OfflineMissError: The origin must not be asked.
    """
    stored = await found.stored()
    if stored is None:
        return None
    return {"name": path, "type": "file", **stored.details, "size": stored.version.size_bytes}


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
        path = path_of(parameters, args, kwargs)
        found = None if path is None else await find_soon(self, path)
        info = None if found is None else await stored_info(found, path)
        return await original(self, *args, **kwargs) if info is None else info

    return _info


def sync_info(original: Method) -> Method:
    """Make `info` of a synchronous file system."""
    parameters = Parameters.of(original)

    def info(self: Any, *args: Any, **kwargs: Any) -> Any:
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
