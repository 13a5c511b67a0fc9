"""`jcache::` in front of any fsspec URL, and `fsspec.filesystem("jcache", fs=...)`: caching asked for by name."""

import functools
import inspect
from typing import Any

from fsspec import filesystem, get_filesystem_class
from fsspec.asyn import AsyncFileSystem, mirror_sync_methods, sync
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.spec import AbstractFileSystem

from jcache.activate import ensure_directory
from jcache.session import current
from jcache.settings.policy import Directives
from jcache_plugins.fsspec.hooks import hook_reads, hook_writes, shorten
from jcache_plugins.fsspec.writes import doubt_path, prepared
from jcache_plugins.origins.base import in_thread

__all__ = ["JCacheFileSystem"]


class JCacheFileSystem(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A file system whose reads go through the journal; all else is the file system's behind it, method by method.

    Works with and without JCACHE_DIR set, over synchronous and asynchronous file systems, and is itself asynchronous.
    Paths are those of the file system behind it.
    """

    protocol = "jcache"
    reads_for_another = True

    def __init__(
        self,
        fs: Any = None,
        *,
        fo: str | None = None,  # noqa: ARG002 - fsspec passes it
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        bypass: bool | None = None,
        validate: str | float | None = None,
        refresh: bool | None = None,
        **options: Any,
    ) -> None:
        """Put the cache in front of a file system.

        Args:
            fs: The file system; else `target_protocol` and `target_options` make one.
            fo: The path in a chained URL; unused, fsspec passes it.
            target_protocol: Protocol of the file system behind.
            target_options: Its options.
            cache_dir: The cache directory; JCACHE_DIR by default.
            bypass: Measure only: record nothing and serve nothing.
            validate: As `JCACHE_VALIDATE`, for these files.
            refresh: Drop what is recorded of each file that is opened, and fetch it anew.
            options: fsspec's own: `asynchronous`, `loop`, `batch_size`, ...

        Raises:
            ValueError: There is no file system behind it, or no cache directory; or a value is wrong.
        """
        said = {"bypass": bypass, "validate": validate, "refresh": refresh}
        said = {name: value for name, value in said.items() if value is not None}
        self.said = Directives.of(said) if said else None
        super().__init__(**options)
        if fs is None:
            if target_protocol is None:
                msg = (
                    "jcache needs a file system behind it: jcache::https://host/file, or fs=..., or target_protocol=..."
                )
                raise ValueError(msg)
            target_options = dict(target_options or {})
            if get_filesystem_class(target_protocol).async_impl:  # others may pass it on to their client
                target_options.setdefault("asynchronous", self.asynchronous)
            fs = filesystem(target_protocol, **target_options)
        if self.asynchronous and fs.async_impl and not fs.asynchronous:
            msg = "jcache and the file system behind it must both be asynchronous or both not"
            raise ValueError(msg)
        self.fs = fs
        self.cache_dir = cache_dir
        ensure_directory(cache_dir)
        self._asks_async = is_asynchronous(fs)
        self.sep = fs.sep
        self.root_marker = fs.root_marker
        # What a path is, the file system behind decides.
        self._strip_protocol = fs._strip_protocol  # noqa: SLF001 - fsspec's own names for what subclasses override
        self._parent = fs._parent  # noqa: SLF001 - as above
        hook_writes(type(fs))
        mirror_sync_methods(self)
        shorten(self)

    def __getattr__(self, name: str) -> Any:
        """Return what the file system behind has and fsspec knows nothing of: `sign`, `merge`, `setxattr`, ..."""
        if name.startswith("__") or "fs" not in vars(self):
            raise AttributeError(name)
        return getattr(self.fs, name)

    def open(self, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file; one that is written is the file system's behind."""
        if mode in {"r", "rb", "rt"}:
            return super().open(path, mode, *args, **kwargs)
        self._prepare()
        return self.fs.open(path, mode, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return self.fs.open(path, mode, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Copy files to local paths, as the file system behind does it."""
        if self._asks_async:
            return sync(self.loop, self._get, *args, **kwargs)
        return AbstractFileSystem.get(self, *args, **kwargs)

    @property
    def transaction(self) -> Any:
        """The transaction of the file system behind."""
        return self.fs.transaction

    @property
    def _intrans(self) -> bool:
        return bool(self.fs._intrans)  # noqa: SLF001 - fsspec's own name

    @_intrans.setter
    def _intrans(self, value: bool) -> None:
        """Leave it to the file system behind."""

    def invalidate_cache(self, path: str | None = None) -> None:
        """Have the file system behind forget its listings, and the origin asked again."""
        super().invalidate_cache(path)
        self.fs.invalidate_cache(path)
        doubt_path(self, path)

    def _prepare(self) -> None:
        """Have the cache directory made and checked, so that what is written is dropped from it."""
        session = current()
        if session is not None:
            session.caches.get(self.cache_dir)

    async def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the file system behind by a synchronous name, without blocking the event loop."""
        await prepared(self)
        asynchronous = getattr(self.fs, f"_{name}", None)
        if self._asks_async and asynchronous is not None:
            result = asynchronous(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        return await in_thread(functools.partial(getattr(self.fs, name), *args, **kwargs))

    async def _walk(self, *args: Any, **kwargs: Any) -> Any:
        if self._asks_async:
            async for found in self.fs._walk(*args, **kwargs):  # noqa: SLF001 - fsspec's asynchronous interface
                yield found
        else:
            for found in await in_thread(lambda: list(self.fs.walk(*args, **kwargs))):
                yield found


def is_asynchronous(fs: Any) -> bool:
    """Whether a file system's asynchronous methods work: a directory of another one says so of itself in any case."""
    return is_asynchronous(fs.fs) if isinstance(fs, DirFileSystem) else bool(fs.async_impl)


# What is made of reads, and what says what the file system itself is.
OWN = frozenset(
    {"open", "get", "cat", "head", "tail", "read_block", "read_text", "read_bytes", "get_mapper", "download", "tree"}
    | {"cat_file", "cat_ranges", "get_file", "info", "stat", "exists", "isfile", "transaction", "invalidate_cache"}
    | {"to_json", "from_json", "to_dict", "from_dict", "clear_instance_cache", "current"}
    | {"_open", "_get", "_cat", "_walk", "_process_limits", "_strip_protocol", "_parent", "_get_kwargs_from_urls"}
)

# What a method has of fsspec's own; where it comes from says that it is another one.
_LOOKS = ("__name__", "__qualname__", "__doc__")


def delegated(name: str, plain: Any) -> Any:
    """Return a method that is the one of this name of the file system behind."""
    if inspect.iscoroutinefunction(plain):

        async def ask(self: JCacheFileSystem, *args: Any, **kwargs: Any) -> Any:
            asked = self.fs.open_async if name == "open_async" else functools.partial(self._ask, name[1:])
            return await asked(*args, **kwargs)

        return functools.update_wrapper(ask, plain, assigned=_LOOKS)

    def call(self: JCacheFileSystem, *args: Any, **kwargs: Any) -> Any:
        self._prepare()
        return getattr(self.fs, name)(*args, **kwargs)

    return functools.update_wrapper(call, plain, assigned=_LOOKS)


for _name in dir(AsyncFileSystem):
    _plain = inspect.getattr_static(AsyncFileSystem, _name)
    _is_public = not _name.startswith("_") or inspect.iscoroutinefunction(_plain)
    if inspect.isfunction(_plain) and _is_public and _name not in OWN:
        setattr(JCacheFileSystem, _name, delegated(_name, _plain))
hook_reads(JCacheFileSystem)
