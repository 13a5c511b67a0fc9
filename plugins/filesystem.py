"""`jcache::` in front of any fsspec URL, and `fsspec.filesystem("jcache", fs=...)`: caching asked for by name."""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

from fsspec import filesystem
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.chained import ChainedFileSystem

from jcache.activate import ensure
from jcache_plugins.fsspec.access import Access, access, run, unwrapped
from jcache_plugins.fsspec.downloads import download
from jcache_plugins.fsspec.files import known_version, open_journaled, options_of, version_of
from jcache_plugins.fsspec.metadata import stored_info
from jcache_plugins.fsspec.reads import UNSET, bounds, cat_many
from jcache_plugins.fsspec.streams import open_journaled_async
from jcache_plugins.fsspec.writes import invalidate, prepared
from jcache_plugins.fsspec.written import opened_for_writing
from jcache_plugins.origins.base import in_thread, reaching

__all__ = ["JCacheFileSystem"]


class JCacheFileSystem(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A file system whose reads go through the journal and whose other calls go to the file system behind it.

    Works with and without JCACHE_DIR set, over synchronous and asynchronous file systems, and is itself asynchronous.
    Paths are those of the file system behind it.
    """

    protocol = "jcache"

    def __init__(
        self,
        fs: Any = None,
        *,
        fo: str | None = None,  # noqa: ARG002 - fsspec passes it
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        """Put the cache in front of a file system.

        Args:
            fs: The file system; else `target_protocol` and `target_options` make one.
            fo: The path in a chained URL; unused, fsspec passes it.
            target_protocol: Protocol of the file system behind.
            target_options: Its options.
            cache_dir: The cache directory; JCACHE_DIR by default.
            options: fsspec's own: `asynchronous`, `loop`, `batch_size`, ...

        Raises:
            ValueError: There is no file system behind it, or no cache directory.
        """
        super().__init__(**options)
        if fs is None:
            if target_protocol is None:
                msg = (
                    "jcache needs a file system behind it: jcache::https://host/file, or fs=..., or target_protocol=..."
                )
                raise ValueError(msg)
            target_options = dict(target_options or {})
            target_options.setdefault("asynchronous", self.asynchronous)
            fs = filesystem(target_protocol, **target_options)
        if self.asynchronous and fs.async_impl and not fs.asynchronous:
            msg = "jcache and the file system behind it must both be asynchronous or both not"
            raise ValueError(msg)
        self.fs = fs
        self.cache_dir = cache_dir
        if ensure().config.dir is None and cache_dir is None:
            msg = "jcache needs a cache directory: set JCACHE_DIR, or pass cache_dir=..."
            raise ValueError(msg)
        self.sep = fs.sep
        self.root_marker = fs.root_marker
        # What a path is, the file system behind decides.
        self._strip_protocol = fs._strip_protocol  # noqa: SLF001 - fsspec's own names for what subclasses override
        self._parent = fs._parent  # noqa: SLF001 - as above

    # -- reading --------------------------------------------------------------------------------------------

    def _way(self, path: str) -> Access | None:
        session = ensure()
        if session.bypassed is not None or session.cache(self.cache_dir) is None:
            return None
        return access(self.fs, path, directory=self.cache_dir)

    async def _way_soon(self, path: str) -> Access | None:
        ensure()
        await prepared(self.cache_dir)
        return self._way(path)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        found = None if kwargs else await self._way_soon(path)
        if found is None:
            data: bytes = await self._ask("cat_file", path, start=start, end=end, **kwargs)
            return data
        return unwrapped((await found.read([(start, end)], vector=False))[0])

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return bytes of a file; what the journal has is read on the caller's thread."""
        found = None if kwargs else self._way(path)
        rows = None if found is None else found.try_read([(start, end)], vector=False)
        if rows is not None:
            return rows[0]
        return run(self, self._cat_file(path, start, end, **kwargs))

    async def _cat_ranges(  # noqa: PLR0917 - fsspec's own signature
        self,
        paths: list[str],
        starts: Iterable[int] | int | None,
        ends: Iterable[int] | int | None,
        max_gap: int | None = None,
        batch_size: int | None = None,  # noqa: ARG002 - fsspec's signature
        on_error: Any = UNSET,
        **kwargs: Any,
    ) -> list[Any]:
        await prepared(self.cache_dir)
        found = {path: self._way(path) for path in set(paths)}
        if max_gap is not None or kwargs or None in found.values():
            if on_error is not UNSET:
                kwargs["on_error"] = on_error
            out: list[Any] = await self._ask("cat_ranges", paths, starts, ends, max_gap=max_gap, **kwargs)
            return out

        async def past(paths: list[str], starts: list[Any], ends: list[Any]) -> Any:
            return await self._ask("cat_ranges", paths, starts, ends, on_error="return")

        asked = (paths, bounds(starts, len(paths)), bounds(ends, len(paths)), on_error)
        return await cat_many(self.fs, found, asked, past)  # type: ignore[arg-type]  # no None is left

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: Any = UNSET, **kwargs: Any
    ) -> list[Any]:
        """Return ranges of one or more files; what the journal has is read on the caller's thread."""
        if isinstance(paths, list) and paths and len(set(paths)) == 1 and max_gap is None and not kwargs:
            found = self._way(paths[0])
            spans = list(zip(bounds(starts, len(paths)), bounds(ends, len(paths)), strict=True))
            rows: list[Any] | None = None if found is None else found.try_read(spans, vector=True)
            if rows is not None:
                return rows
        return run(self, self._cat_ranges(paths, starts, ends, max_gap=max_gap, on_error=on_error, **kwargs))

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        found = self._way(path) if mode == "rb" and not options_of(kwargs) else None
        info = None if found is None else version_of(self, found)
        if found is not None and info is not None:
            return open_journaled(self, path, found, info, block_size=block_size)
        file = self.fs.open(path, mode, block_size=block_size, **kwargs)
        return file if mode == "rb" else opened_for_writing(self.fs, path, file, directory=self.cache_dir)

    async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """Open a file for asynchronous reading."""
        found = await self._way_soon(path) if mode == "rb" else None
        info = None if found is None else await known_version(found)
        if found is not None and info is not None:
            return open_journaled_async(self, path, found, info)
        file = await self.fs.open_async(path, mode, **kwargs)
        return file if mode == "rb" else opened_for_writing(self.fs, path, file, directory=self.cache_dir)

    async def _get_file(self, rpath: str, lpath: Any, **kwargs: Any) -> None:
        found = await self._way_soon(rpath)
        if found is None or not await download(found, lpath, kwargs.get("callback", DEFAULT_CALLBACK)):
            await self._ask("get_file", rpath, lpath, **kwargs)

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found = None if kwargs else await self._way_soon(path)
        stored = None if found is None else await stored_info(found, path)
        if stored is not None:
            return stored
        info: dict[str, Any] = await self._ask("info", path, **kwargs)
        return info

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        found = await self._way_soon(path)
        if found is not None and await found.stored() is not None:
            return True
        return bool(await self._ask("exists", path, **kwargs))

    async def _isfile(self, path: str) -> bool:
        found = await self._way_soon(path)
        if found is not None and await found.stored() is not None:
            return True
        return bool(await self._ask("isfile", path))

    # -- everything else is the file system's behind ------------------------------------------------------------

    async def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the file system behind by a synchronous name, without blocking the event loop."""
        with reaching():
            asynchronous = getattr(self.fs, f"_{name}", None)
            if self.fs.async_impl and asynchronous is not None:
                result = asynchronous(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            return await in_thread(functools.partial(getattr(self.fs, name), *args, **kwargs))

    async def _write(self, name: str, paths: tuple[str, ...], *args: Any, **kwargs: Any) -> Any:
        await prepared(self.cache_dir)
        invalidate(self.fs, *paths, directory=self.cache_dir)
        try:
            return await self._ask(name, *args, **kwargs)
        finally:
            invalidate(self.fs, *paths, directory=self.cache_dir)

    async def _isdir(self, path: str) -> bool:
        return bool(await self._ask("isdir", path))

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return await self._ask("ls", path, detail=detail, **kwargs)

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        await self._ask("mkdir", path, create_parents=create_parents, **kwargs)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self._ask("makedirs", path, exist_ok=exist_ok)

    async def _rmdir(self, path: str) -> None:
        await self._ask("rmdir", path)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await self._write("rm_file", (path,), path, **kwargs)

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        await self._write("cp_file", (path2,), path1, path2, **kwargs)

    async def _pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        await self._write("pipe_file", (path,), path, value, **kwargs)

    async def _put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        await self._write("put_file", (rpath,), lpath, rpath, **kwargs)

    def created(self, path: str) -> Any:
        """Return when a file was made, as the file system behind says it."""
        return self.fs.created(path)

    def modified(self, path: str) -> Any:
        """Return when a file was changed, as the file system behind says it."""
        return self.fs.modified(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Have the file system behind forget its listings."""
        super().invalidate_cache(path)
        self.fs.invalidate_cache(path)

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path at the file system behind."""
        url: str = self.fs.unstrip_protocol(name)
        return url
