"""What a hooked file system does instead of `cat_file`, `cat_ranges` and `cat`: `maker(original) -> replacement`."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from fsspec.asyn import _get_batch_size, sync

from jcache.origin import Origin
from jcache.reader.many import read_many
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.fsspec.access import Access, access, identities, on_loop_of, origin_of, run, unwrapped
from jcache_plugins.fsspec.writes import prepared
from jcache_plugins.origins.base import reaching, within_origin

__all__ = ["ASYNC", "SYNC", "cat_many", "find", "find_soon", "measured"]

Method = Callable[..., Any]

UNSET: Any = object()


def find(fs: Any, path: Any, options: Any = None) -> Access | None:
    """Return the way to the journal for a call on a hooked file system, None where it goes past the cache."""
    if within_origin():
        return None
    session = current()
    if session is None or session.bypassed is not None or options:
        return None
    if session.cache() is None:
        return None
    found = access(fs, path)
    return None if found is not None and found.excluded else found


async def find_soon(fs: Any, path: Any, options: Any = None) -> Access | None:
    """Do as `find` does, without blocking the event loop while the cache directory is made and checked."""
    await prepared()
    return find(fs, path, options)


def measured(fs: Any, path: Any, data: Any, *, ranges: int = 0) -> Any:
    """Count bytes that the file system read itself, past the cache; `ranges` of them in one vector read."""
    session = current()
    if session is None or within_origin():
        return data
    total = len(data) if isinstance(data, bytes) else sum(len(part) for part in data if isinstance(part, bytes))
    counters, named = session.counters, access(fs, path)
    if named is not None and named.excluded:
        return data
    url = None if named is None else named.identity.url
    if ranges:
        counters.readv(ranges, total, 0, 0, total, url=url)
    else:
        counters.read(total, 0, 0, total, url=url)
    counters.origin(requests=1, nbytes=total)
    return data


# -- cat_file ---------------------------------------------------------------------------------------------------


def plain_order(original: Method) -> bool:
    """Whether a `cat_file` takes path, start and end by position, in this order."""
    return list(inspect.signature(original).parameters)[2:4] == ["start", "end"]


def async_cat_file(original: Method) -> Method:
    """Make `_cat_file`."""
    ordered = plain_order(original)

    async def _cat_file(self: Any, path: Any, *args: Any, **kwargs: Any) -> bytes:
        start, end, rest = span_of(args, kwargs, ordered=ordered)
        found = await find_soon(self, path, rest)
        if found is None:
            with reaching():  # what it calls in turn is this same read
                data = await original(self, path, *args, **kwargs)
            return measured(self, path, data)  # type: ignore[no-any-return]
        return unwrapped((await found.read([(start, end)], vector=False))[0])

    return _cat_file


def sync_cat_file(original: Method) -> Method:
    """Make `cat_file` of a synchronous file system."""
    ordered = plain_order(original)

    def cat_file(self: Any, path: Any, *args: Any, **kwargs: Any) -> bytes:
        start, end, rest = span_of(args, kwargs, ordered=ordered)
        found = None if on_loop_of(self) else find(self, path, rest)
        if found is None:
            with reaching():  # what it calls in turn is this same read
                data = original(self, path, *args, **kwargs)
            return measured(self, path, data)  # type: ignore[no-any-return]
        rows = found.try_read([(start, end)], vector=False) or run(self, found.read([(start, end)], vector=False))
        return unwrapped(rows[0])

    return cat_file


def mirrored_cat_file(original: Method) -> Method:
    """Make `cat_file` of an asynchronous file system: what the journal has never crosses to the event loop."""
    inherited = original.__module__ == "fsspec.spec"

    def cat_file(self: Any, path: Any, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        if not inherited:
            return original(self, path, start=start, end=end, **kwargs)  # type: ignore[no-any-return]
        found = find(self, path, kwargs)
        if found is not None:
            rows = found.try_read([(start, end)], vector=False)
            if rows is not None:
                return rows[0]
        return sync(self.loop, self._cat_file, path, start=start, end=end, **kwargs)  # type: ignore[no-any-return]

    return cat_file


def span_of(args: Any, kwargs: Any, *, ordered: bool) -> tuple[int | None, int | None, Any]:
    """Return start and end out of a `cat_file` call, and what else it was given."""
    if ordered:
        start = args[0] if args else kwargs.get("start")
        end = args[1] if len(args) > 1 else kwargs.get("end")
        more: Any = args[2:]
    else:
        start, end, more = kwargs.get("start"), kwargs.get("end"), [arg for arg in args if arg is not None]
    rest = more or {name: value for name, value in kwargs.items() if name not in ("start", "end") and value is not None}
    return start, end, rest


# -- cat_ranges -------------------------------------------------------------------------------------------------


async def cat_many(
    find_one: Callable[[Any], Access], paths: list[Any], starts: Any, ends: Any, *, on_error: Any
) -> list[Any]:
    """Read ranges of one or more files, those of one file as one vector, different files side by side.

    Args:
        find_one: Gives the way to a path's journal.
        paths: For each range its file.
        starts: For each range its first byte, or one number for all.
        ends: For each range one past its last byte, or one number for all.
        on_error: "return" puts exceptions into the list; anything else raises the first one.

    Returns:
        Bytes, in the caller's order, and exceptions.
    """
    starts, ends = spread(starts, paths), spread(ends, paths)
    if paths and paths.count(paths[0]) == len(paths):
        try:
            only = await find_one(paths[0]).read(Vector(starts, ends), vector=True)
        except Exception as error:
            if on_error is UNSET or on_error != "return":
                raise  # what concerns the whole call is clearer raised than put into a list
            only = [error] * len(paths)
        return raised(only, on_error)
    rows: dict[Any, list[int]] = {}
    for i, path in enumerate(paths):
        rows.setdefault(path, []).append(i)
    out: list[Any] = [None] * len(paths)

    limit = asyncio.Semaphore(128)

    async def one(path: Any, places: list[int]) -> None:
        async with limit:
            try:
                results = await find_one(path).read([(starts[i], ends[i]) for i in places], vector=True)
            except Exception as error:  # noqa: BLE001 - the result of this file's ranges; the others have theirs
                results = [error] * len(places)
        for i, result in zip(places, results, strict=True):
            out[i] = result

    await asyncio.gather(*(one(path, places) for path, places in rows.items()))
    return raised(out, on_error)


def raised(results: list[Any], on_error: Any) -> list[Any]:
    """Return results; raise the first exception among them where the caller wants that."""
    if on_error is not UNSET and on_error != "return":
        for result in results:
            if isinstance(result, Exception):
                raise result
    return results


def spread(value: Any, paths: list[Any]) -> list[Any]:
    """Return one bound for each path."""
    values = list(value) if isinstance(value, Iterable) else [value] * len(paths)
    if len(values) != len(paths):
        msg = f"{len(paths)} paths, but {len(values)} bounds"
        raise ValueError(msg)
    return values


def async_cat_ranges(original: Method) -> Method:
    """Make `_cat_ranges`."""
    returns_errors = "on_error" in inspect.signature(original).parameters
    merges = original.__module__ == "fsspec.asyn"  # what is left of a vector goes through `_cat_file`

    async def _cat_ranges(  # noqa: PLR0917 - fsspec's own signature
        self: Any,
        paths: Any,
        starts: Any,
        ends: Any,
        max_gap: Any = None,
        batch_size: Any = None,
        on_error: Any = UNSET,
        **kwargs: Any,
    ) -> list[Any]:
        await prepared()
        found = {path: find(self, path, kwargs) for path in set(paths)} if isinstance(paths, list) else {}
        if not found or max_gap is not None or None in found.values():
            if on_error is not UNSET:
                kwargs["on_error"] = on_error
            read = functools.partial(
                original, self, paths, starts, ends, max_gap=max_gap, batch_size=batch_size, **kwargs
            )
            if merges and found and None not in found.values():
                return await read()  # type: ignore[no-any-return]  # through the journal, merged as asked
            with reaching():
                out: list[Any] = await read()
            return measured(self, paths[0], out, ranges=len(out)) if out else out
        if on_error is UNSET and not returns_errors:
            on_error = "raise"
        return await cat_many(found.__getitem__, paths, starts, ends, on_error=on_error)  # type: ignore[arg-type]  # no None is left

    return _cat_ranges


def sync_cat_ranges(original: Method) -> Method:
    """Make `cat_ranges`, of synchronous and asynchronous file systems."""

    def cat_ranges(  # noqa: PLR0917 - fsspec's own signature
        self: Any, paths: Any, starts: Any, ends: Any, max_gap: Any = None, on_error: Any = UNSET, **kwargs: Any
    ) -> list[Any]:
        usable = isinstance(paths, list) and paths and max_gap is None and not kwargs
        found = {path: find(self, path) for path in set(paths)} if usable else {}
        if found and None not in found.values() and not on_loop_of(self):
            only = found[paths[0]] if len(found) == 1 else None
            if only is not None:
                rows = only.read_here(Vector(spread(starts, paths), spread(ends, paths)), vector=True)
                if rows is not None:
                    return rows
            if not self.async_impl:
                return run(self, cat_many(found.__getitem__, paths, starts, ends, on_error=on_error))  # type: ignore[arg-type]
        if on_error is not UNSET:
            kwargs["on_error"] = on_error
        if self.async_impl and original.__module__ == "fsspec.spec":
            return sync(self.loop, self._cat_ranges, paths, starts, ends, max_gap=max_gap, **kwargs)  # type: ignore[no-any-return]
        if self.async_impl:
            return original(self, paths, starts, ends, max_gap=max_gap, **kwargs)  # type: ignore[no-any-return]
        with reaching():
            out = original(self, paths, starts, ends, max_gap=max_gap, **kwargs)
        if not out:
            return out  # type: ignore[no-any-return]
        return measured(self, paths[0], out, ranges=len(out))  # type: ignore[no-any-return]

    return cat_ranges


# -- cat of many files ----------------------------------------------------------------------------------------


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


ASYNC: dict[str, Callable[[Method], Method]] = {
    "_cat_file": async_cat_file,
    "cat_file": mirrored_cat_file,
    "_cat_ranges": async_cat_ranges,
    "cat_ranges": sync_cat_ranges,
    "_cat": async_cat,
}
# Of many files, synchronous file systems read one after the other in any case, each by a method that is hooked.
SYNC: dict[str, Callable[[Method], Method]] = {
    "cat_file": sync_cat_file,
    "cat_ranges": sync_cat_ranges,
}
