"""`JCacheStore(store)`: a store in front of another one, caching asked for by name, by the protocols of obspec."""

import functools
import inspect
from typing import Any

from jcache.activate import ensure
from jcache_plugins.obspec.access import through
from jcache_plugins.obspec.hooks import install

__all__ = ["JCacheStore"]


class JCacheStore:
    """A store whose reads go through the journals; all else is the store's behind it.

    Works with and without JCACHE_DIR set. A store of which it cannot be told which objects it means (in memory, local,
    of another library) is passed by: each method is its own.
    """

    def __init__(self, store: Any, *, cache_dir: str | None = None) -> None:
        """Put the cache in front of a store.

        Args:
            store: Of obstore, or of anything else that has the protocols of obspec.
            cache_dir: The cache directory; JCACHE_DIR by default.

        Raises:
            ValueError: There is no cache directory.
        """
        if ensure().config.dir is None and cache_dir is None:
            msg = "jcache needs a cache directory: set JCACHE_DIR, or pass cache_dir=..."
            raise ValueError(msg)
        install()
        self.store = store
        self.cache_dir = cache_dir

    def __getattr__(self, name: str) -> Any:
        """Return what the store behind has; its methods read through the cache."""
        if name.startswith("__") or "store" not in vars(self):
            raise AttributeError(name)
        found = getattr(self.store, name)
        return self._through(found) if inspect.isroutine(found) else found

    def _through(self, method: Any) -> Any:
        directory = self.cache_dir

        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def call_soon(*args: Any, **kwargs: Any) -> Any:
                with through(directory):
                    return await method(*args, **kwargs)

            return call_soon

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with through(directory):
                return method(*args, **kwargs)

        return call

    def __eq__(self, other: object) -> bool:
        """Whether both are the same store behind the same directory."""
        if not isinstance(other, JCacheStore):
            return NotImplemented
        return bool(self.store == other.store) and self.cache_dir == other.cache_dir

    __hash__ = None  # type: ignore[assignment]  # as obstore's own

    def __reduce__(self) -> Any:
        return functools.partial(type(self), cache_dir=self.cache_dir), (self.store,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"
