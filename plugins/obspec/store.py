"""`JCacheStore(store)`: a store in front of another one, caching asked for by name, by the protocols of obspec."""

import functools
import inspect
from typing import Any

from obstore.store import MemoryStore

from jcache.activate import ensure_directory
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
        ensure_directory(cache_dir)
        install()
        self.store = store
        self.cache_dir = cache_dir

    def __getattr__(self, name: str) -> Any:
        """Return what the store behind has besides: its prefix, its settings."""
        if name.startswith("__") or "store" not in vars(self):
            raise AttributeError(name)
        return getattr(self.store, name)

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


def delegated(name: str, plain: Any) -> Any:
    """Return a method that is the one of this name of the store behind, reading through the cache."""
    if inspect.iscoroutinefunction(plain):

        async def ask(self: JCacheStore, *args: Any, **kwargs: Any) -> Any:
            with through(self.cache_dir):
                return await getattr(self.store, name)(*args, **kwargs)

        return functools.update_wrapper(ask, plain, assigned=_LOOKS)

    def call(self: JCacheStore, *args: Any, **kwargs: Any) -> Any:
        with through(self.cache_dir):
            return getattr(self.store, name)(*args, **kwargs)

    return functools.update_wrapper(call, plain, assigned=_LOOKS)


# What a method has of obstore's own; where it comes from says that it is another one.
_LOOKS = ("__name__", "__qualname__", "__doc__")

# By their names in the class itself: so the protocols of obspec find them.
for _name in dir(MemoryStore):
    _plain = inspect.getattr_static(MemoryStore, _name)
    if inspect.isroutine(_plain) and not _name.startswith("_"):
        setattr(JCacheStore, _name, delegated(_name, _plain))
