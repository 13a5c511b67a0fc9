"""`JCacheZarrStore(store)`: a zarr store in front of another one, whose byte ranges are kept in the journals.

With JCACHE_DIR set, zarr's `FsspecStore` and `ObjectStore` are read through the journals without it: it is for programs
that name a cache directory themselves.
"""

import functools
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Self

from zarr.abc.store import Store
from zarr.storage import FsspecStore, WrapperStore

from jcache.activate import ensure_directory
from jcache_plugins.filesystem import JCacheFileSystem
from jcache_plugins.obspec.access import through
from jcache_plugins.obspec.hooks import install

__all__ = ["JCacheZarrStore"]


class JCacheZarrStore(WrapperStore[Any]):  # type: ignore[misc]  # skipped by the type checker
    """A zarr store whose reads go through the journals, where the store behind it is a `FsspecStore` or `ObjectStore`.

    Any other store is passed by: each method is its own.
    """

    def __init__(self, store: Any, *, cache_dir: str | None = None) -> None:
        """Put the cache in front of a store.

        Args:
            store: Of zarr.
            cache_dir: The cache directory; JCACHE_DIR by default.

        Raises:
            ValueError: There is no cache directory.
        """
        ensure_directory(cache_dir)
        self.cache_dir = cache_dir
        if isinstance(store, FsspecStore) and not isinstance(store.fs, JCacheFileSystem):
            fs = JCacheFileSystem(store.fs, cache_dir=cache_dir, asynchronous=store.fs.asynchronous)
            store = type(store)(fs, store.read_only, store.path, store.allowed_exceptions)
        elif type(store).__name__ == "ObjectStore":
            install()
        super().__init__(store)

    def __reduce__(self) -> Any:
        return functools.partial(type(self), cache_dir=self.cache_dir), (self._store,)

    def _with_store(self, store: Any) -> Self:
        return type(self)(store, cache_dir=self.cache_dir)

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return a value, or a range of it."""
        with through(self.cache_dir):
            return await self._store.get(*args, **kwargs)

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        """Return ranges of values."""
        with through(self.cache_dir):
            return await self._store.get_partial_values(*args, **kwargs)

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        with through(self.cache_dir):
            return bool(await self._store.exists(key))

    async def getsize(self, key: str) -> int:
        """Return how long a value is, as the store behind tells it."""
        with through(self.cache_dir):
            return int(await self._store.getsize(key))

    async def getsize_prefix(self, prefix: str) -> int:
        """Return how long all values below a prefix are together, likewise."""
        with through(self.cache_dir):
            return int(await self._store.getsize_prefix(prefix))

    async def set(self, *args: Any, **kwargs: Any) -> None:
        """Set a value; what is cached of it is dropped."""
        with through(self.cache_dir):
            await self._store.set(*args, **kwargs)

    async def set_if_not_exists(self, *args: Any, **kwargs: Any) -> None:
        """Set a value that is not there."""
        with through(self.cache_dir):
            await self._store.set_if_not_exists(*args, **kwargs)

    async def delete(self, key: str) -> None:
        """Delete a value."""
        with through(self.cache_dir):
            await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all values below a prefix."""
        with through(self.cache_dir):
            await self._store.delete_dir(prefix)

    async def clear(self) -> None:
        """Delete all values."""
        with through(self.cache_dir):
            await self._store.clear()

    async def _get_many(self, requests: Iterable[Any]) -> AsyncGenerator[Any, None]:
        async for found in Store._get_many(self, requests):  # noqa: SLF001 - zarr's own, by this store's `get`
            yield found

    async def _set_many(self, values: Iterable[Any]) -> None:
        await Store._set_many(self, values)  # noqa: SLF001 - as above
