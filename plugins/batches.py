"""What a hooked file system does instead of `cat` of many files: the journals of all are looked for together."""

from collections.abc import Callable
from typing import Any

from fsspec.asyn import _get_batch_size

from jcache.origin import Origin
from jcache.reader.many import read_many
from jcache.session import current
from jcache_plugins.access import identities, origin_of
from jcache_plugins.origins import within_origin
from jcache_plugins.writes import prepared

__all__ = ["ASYNC", "SYNC"]

Method = Callable[..., Any]


def async_cat(original: Method) -> Method:
    """Make `_cat`, where it is fsspec's own; another one goes through `_cat_file`, which is hooked."""
    if original.__module__ != "fsspec.asyn":
        return original

    async def _cat(
        self: Any, path: Any, recursive: Any = False, on_error: Any = "raise", batch_size: Any = None, **kwargs: Any
    ) -> Any:
        await prepared()
        session = current()
        shelf = None
        if not (kwargs or isinstance(path, str) or within_origin() or session is None or session.bypassed is not None):
            shelf = session.shelf()
        width = batch_size or self.batch_size or _get_batch_size(nofiles=True)
        if session is None or shelf is None or width < -1 or len(path) < 2:
            return await original(self, path, recursive=recursive, on_error=on_error, batch_size=batch_size, **kwargs)
        paths: list[Any] = await self._expand_path(path, recursive=recursive)
        known = identities(self, paths)

        def origin(i: int) -> Origin:
            identity = known[i]
            assert identity is not None  # or it would be read otherwise
            return origin_of(self, paths[i], identity)

        async def otherwise(i: int) -> bytes:
            data: bytes = await self._cat_file(paths[i])
            return data

        out = await read_many(session, shelf, known, origin, otherwise, width=len(paths) if width == -1 else width)
        if on_error == "raise":
            for result in out:
                if isinstance(result, Exception):
                    raise result
        return {
            one: result
            for one, result in zip(paths, out, strict=True)
            if on_error != "omit" or not isinstance(result, Exception)
        }

    return _cat


ASYNC: dict[str, Callable[[Method], Method]] = {"_cat": async_cat}
# Others read one file after the other in any case, each by a method that is hooked.
SYNC: dict[str, Callable[[Method], Method]] = {}
