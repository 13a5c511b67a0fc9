"""What a hooked file system's write methods do besides: what is cached of the paths is dropped, before and behind."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from jcache.session import current
from jcache_plugins.fsspec.access import access
from jcache_plugins.origins.base import within_origin

__all__ = ["ASYNC", "SYNC", "invalidate"]

Method = Callable[..., Any]


async def prepared(directory: str | None = None) -> None:
    """Have the cache directory made and checked, without blocking the event loop, before it is asked for."""
    session = current()
    if session is not None and not within_origin():
        await session.prepare(directory)


def invalidate(fs: Any, *paths: Any, directory: str | None = None) -> None:
    """Forget what this process holds of paths that are being written, and drop it from the cache directory."""
    session = current()
    if session is None or session.bypassed is not None or within_origin() or session.cache(directory) is None:
        return
    for path in named(paths):
        found = access(fs, path, directory=directory)
        if found is not None:
            found.invalidate()


def named(paths: Any) -> Iterator[str]:
    """Yield the paths in arguments that are a path, a list of paths or a dictionary by path."""
    for item in paths:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list | tuple | set):
            yield from named(item)


def written(original: Method, count: int, place: int) -> Callable[[Any, Any], list[Any]]:
    """Return what finds, in a call's arguments, the `count` remote paths from place `place` on, named or not."""
    names = list(inspect.signature(original).parameters)[1:]

    def find(args: Any, kwargs: Any) -> list[Any]:
        named = [kwargs[name] for name in names[max(place, len(args)) : place + count] if name in kwargs]
        return [*args[place : place + count], *named]

    return find


def asynchronous(count: int, place: int = 0) -> Callable[[Method], Method]:
    """Make an asynchronous write method that has `count` remote paths from argument `place` on."""

    def make(original: Method) -> Method:
        paths = written(original, count, place)

        async def write(self: Any, *args: Any, **kwargs: Any) -> Any:
            await prepared()
            invalidate(self, *paths(args, kwargs))
            try:
                return await original(self, *args, **kwargs)
            finally:
                invalidate(self, *paths(args, kwargs))

        return write

    return make


def synchronous(count: int, place: int = 0) -> Callable[[Method], Method]:
    """Make a synchronous write method that has `count` remote paths from argument `place` on."""

    def make(original: Method) -> Method:
        paths = written(original, count, place)

        def write(self: Any, *args: Any, **kwargs: Any) -> Any:
            invalidate(self, *paths(args, kwargs))
            try:
                return original(self, *args, **kwargs)
            finally:
                invalidate(self, *paths(args, kwargs))

        return write

    return make


ASYNC: dict[str, Callable[[Method], Method]] = {
    "_pipe_file": asynchronous(1),
    "_put_file": asynchronous(1, 1),
    "_rm_file": asynchronous(1),
    "_rm": asynchronous(1),
    "_cp_file": asynchronous(1, 1),
    "_mv_file": asynchronous(2),
    "_touch": asynchronous(1),
}
SYNC: dict[str, Callable[[Method], Method]] = {
    "pipe_file": synchronous(1),
    "put_file": synchronous(1, 1),
    "rm_file": synchronous(1),
    "rm": synchronous(1),
    "cp_file": synchronous(1, 1),
    "mv": synchronous(2),
    "touch": synchronous(1),
}
