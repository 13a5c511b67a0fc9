"""What obstore's writing functions do besides when they are hooked: what is cached of the paths is dropped."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from jcache.session import current
from jcache_plugins.fsspec import listing
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
        found = known(store, path)
        if found is not None:
            session.caches.get(found.directory)
            listing.doubt(filter(None, [found.place.path(found.path)]))
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


class Changes(NamedTuple):
    """What a call of a function changes.

    Attributes:
        parameters: By the names of those that it takes by position, behind the store.
        changed: Those of them that name what is changed.
    """

    parameters: tuple[str, ...]
    changed: tuple[str, ...]


def paths_of(changes: Changes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the store of a call, and the paths that it changes, as obstore has them: without slashes around."""
    said = {**dict(zip(("store", *changes.parameters), args, strict=False)), **kwargs}
    found: list[Any] = []
    for name in changes.changed:
        value = said.get(name)
        found += value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return said.get("store"), [path.strip("/") for path in found if isinstance(path, str)]


def synchronous(original: Function, changes: Changes) -> Function:
    """Make a synchronous function that writes."""

    @functools.wraps(original)
    def write(*args: Any, **kwargs: Any) -> Any:
        store, paths = paths_of(changes, args, kwargs)
        with changing(store, paths):
            return original(*args, **kwargs)

    return write


def asynchronous(original: Function, changes: Changes) -> Function:
    """Make an asynchronous one; it begins at once, as the original."""

    @functools.wraps(original)
    def write(*args: Any, **kwargs: Any) -> Any:
        store, paths = paths_of(changes, args, kwargs)
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
        store, paths = paths_of(ONE, args, kwargs)
        if current() is None or not paths or known(store, paths[0]) is None:
            return file
        return Writer(file, store, paths[0])

    return opened


ONE = Changes(("path",), ("path",))
# By the name of a function, and of its asynchronous form.
WRITES: dict[str, Changes] = {
    "put": ONE,
    "delete": Changes(("paths",), ("paths",)),
    "copy": Changes(("from_", "to"), ("to",)),
    "rename": Changes(("from_", "to"), ("from_", "to")),
}
OPENS = ("open_writer", "open_writer_async")
