"""What obstore's writing functions do besides when they are hooked: what is cached of the paths is dropped."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from jcache.session import current
from jcache_plugins.obspec.access import known
from jcache_plugins.origins.base import within_origin

__all__ = ["OPENS", "WRITES", "invalidate"]

Function = Callable[..., Any]


def invalidate(store: Any, paths: Iterable[Any]) -> None:
    """Forget what this process holds of paths that are being written, and drop it from its cache directories."""
    session = current()
    if session is None or session.bypassed is not None or within_origin():
        return
    for path in paths:
        found = known(store, path.strip("/") if isinstance(path, str) else path)
        if found is not None:
            session.caches.get(found.directory)
            for directory in session.caches.in_use():
                session.files.invalidate(found.identity, directory=directory, below=False)


@contextlib.contextmanager
def changing(store: Any, paths: list[Any]) -> Iterator[None]:
    """Invalidate paths now, and again behind what is done here."""
    invalidate(store, paths)
    try:
        yield
    finally:
        invalidate(store, paths)


def paths_of(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the store of a call, and the paths that it changes."""
    said = {**dict(zip(("store", *names), args, strict=False)), **kwargs}
    found: list[Any] = []
    for name in names:
        value = said.get(name)
        found += value if isinstance(value, list | tuple) else [value]
    return said.get("store"), found


def synchronous(original: Function, names: tuple[str, ...]) -> Function:
    """Make a synchronous function that writes."""

    @functools.wraps(original)
    def write(*args: Any, **kwargs: Any) -> Any:
        store, paths = paths_of(names, args, kwargs)
        with changing(store, paths):
            return original(*args, **kwargs)

    return write


def asynchronous(original: Function, names: tuple[str, ...]) -> Function:
    """Make an asynchronous one; it begins at once, as the original."""

    @functools.wraps(original)
    def write(*args: Any, **kwargs: Any) -> Any:
        store, paths = paths_of(names, args, kwargs)
        if current() is None or all(known(store, path) is None for path in paths):
            return original(*args, **kwargs)

        async def carry_out() -> Any:
            with changing(store, paths):
                return await original(*args, **kwargs)

        return asyncio.get_running_loop().create_task(carry_out())

    return write


class Writer:
    """A file of obstore's that is open for writing; what is cached of its path is dropped when it is closed."""

    def __init__(self, file: Any, store: Any, path: Any) -> None:
        self._file, self._store, self._path = file, store, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __repr__(self) -> str:
        return repr(self._file)

    def close(self) -> Any:
        """Close it; of an asynchronous one, return what may be awaited."""
        with changing(self._store, [self._path]):
            done = self._file.close()
        return self._finish(done) if isinstance(done, asyncio.Future) else done

    async def _finish(self, done: Any) -> Any:
        with changing(self._store, [self._path]):
            return await done

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *raised: object) -> Any:
        with changing(self._store, [self._path]):
            return self._file.__exit__(*raised)

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> Any:
        with changing(self._store, [self._path]):
            return await self._file.__aexit__(*raised)


def opening(original: Function) -> Function:
    """Make a function that opens a file for writing."""

    @functools.wraps(original)
    def opened(*args: Any, **kwargs: Any) -> Any:
        file = original(*args, **kwargs)
        store, paths = paths_of(("path",), args, kwargs)
        return file if current() is None or known(store, paths[0]) is None else Writer(file, store, paths[0])

    return opened


# By name what makes a function, and its asynchronous form, and which of its parameters name what is changed.
WRITES: dict[str, tuple[str, ...]] = {
    "put": ("path",),
    "delete": ("paths",),
    "copy": ("from_", "to"),
    "rename": ("from_", "to"),
}
OPENS = ("open_writer", "open_writer_async")
