"""What a hooked file system does instead of `cat_ranges` and `cat`: `maker(original) -> replacement`; see `reads`."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

from fsspec.asyn import _get_batch_size, sync

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.origin import Origin
from jcache.reader.many import read_many
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.fsspec.access import Access, behind, identities, on_loop_of, origin_of, run
from jcache_plugins.fsspec.answers import question
from jcache_plugins.fsspec.calls import Parameters, as_bound
from jcache_plugins.fsspec.directives import directives_of, undirected
from jcache_plugins.fsspec.directories import Reading, given_again
from jcache_plugins.fsspec.reads import (
    Method,
    Span,
    any_odd,
    carried_out,
    failed,
    find,
    is_its_own,
    is_settled,
    learn,
    may_ask,
    measured,
    one_range,
)
from jcache_plugins.fsspec.writes import prepared
from jcache_plugins.origins.base import in_thread, reaching, within_origin

__all__ = ["ASYNC", "MIRRORED", "SYNC", "cat_many"]

Ranges = tuple[list[str], list[int | None], list[int | None], Any]

UNSET: Any = object()
_BOUNDS = frozenset({int, type(None)})

# -- cat_ranges -------------------------------------------------------------------------------------------------


def ranges_of(parameters: Parameters, args: Any, kwargs: Any) -> Ranges | None:
    """Return paths, starts, ends and `on_error` of a `cat_ranges` call; None where it says something else, too."""
    on_error = UNSET if parameters.defaults.get("on_error") == "return" else "raise"
    if len(args) == 3 and not kwargs:
        paths, starts, ends = args
    else:
        said = parameters.named(args, kwargs)
        if said is None:
            return None
        paths, starts, ends = (said.pop(name, None) for name in ("paths", "starts", "ends"))
        on_error = said.pop("on_error", on_error)
        if any(value is not None for name, value in said.items() if name != "batch_size"):
            return None
    if not isinstance(paths, list) or not paths:
        return None
    try:
        starts, ends = bounds(starts, len(paths)), bounds(ends, len(paths))
    except (TypeError, ValueError):
        return None
    with contextlib.suppress(TypeError):
        if min(starts) >= 0:  # type: ignore[operator,type-var]
            return paths, starts, ends, on_error
    reaches_back = (
        start is not None and start < 0 and end is not None for start, end in zip(starts, ends, strict=True)
    )
    return None if any(reaches_back) and may_ask() else (paths, starts, ends, on_error)


def bounds(value: Any, count: int) -> list[int | None]:
    """Return one bound for each of so many ranges.

    Raises:
        TypeError: One is no integer, or nobody knows how many there are.
        ValueError: There are more or fewer.
    """
    values = list(value) if isinstance(value, Iterable) else [value] * count
    if len(value if isinstance(value, Iterable) else values) != count:  # type: ignore[arg-type]
        msg = f"{count} paths, but {len(values)} bounds"
        raise ValueError(msg)
    return values if _BOUNDS.issuperset(map(type, values)) else [as_bound(one) for one in values]


def all_of(fs: Any, paths: list[str]) -> dict[str, Access] | None:
    """Return the ways to the journals of paths; None where one of them goes past the cache."""
    found = {}
    for path in paths[:1] if paths.count(paths[0]) == len(paths) else dict.fromkeys(paths):
        way = find(fs, path)
        if way is None:
            return None
        found[path] = way
    return found


async def cat_many(
    fs: Any, found: dict[str, Access], asked: Ranges, past: Callable[[list[str], list[Any], list[Any]], Any]
) -> list[Any]:
    """Read ranges of one or more files, those of one file as one vector, different files side by side.

    Args:
        fs: The file system.
        found: The ways to the paths' journals.
        asked: Paths, starts, ends, and `on_error`: "return" puts exceptions into the list, as `UNSET` does with those
            that are not JCache's own; anything else raises the first one.
        past: Reads ranges past the cache, with exceptions in the list: those that fail, and those that have no bytes.

    Returns:
        Bytes, in the caller's order, and exceptions.
    """
    paths, starts, ends, on_error = asked
    reading = Reading()
    if len(found) == 1:
        out = await one_vector(found[paths[0]], Vector(starts, ends))
    else:
        places: dict[str, list[int]] = {}
        for i, path in enumerate(paths):
            places.setdefault(path, []).append(i)
        out = [None] * len(paths)
        limit = asyncio.Semaphore(128)

        async def one(path: str, rows: list[int]) -> None:
            async with limit:
                results = await one_vector(found[path], [(starts[i], ends[i]) for i in rows])
            for i, result in zip(rows, results, strict=True):
                out[i] = result

        await asyncio.gather(*(one(path, rows) for path, rows in places.items()))
    if not all(out) or set(map(type, out)) != {bytes} or not found[paths[0]].origin.slices:
        open_ = [i for i, one in enumerate(out) if not is_settled(fs, found[paths[i]], one, starts[i], ends[i])]
        if open_:
            told = await past([paths[i] for i in open_], [starts[i] for i in open_], [ends[i] for i in open_])
            for i, result in zip(open_, told, strict=True):
                learn(fs, out[i], result, starts[i], ends[i])
                reading.gave(found[paths[i]], (starts[i], ends[i]), result)
                out[i] = result
        ours = OfflineMissError | OriginChangedError if on_error is UNSET else Exception
        for result in out if on_error != "return" else ():
            if isinstance(result, ours):
                raise result
    return out


async def one_vector(found: Access, spans: Any) -> list[Any]:
    """Return the bytes of one file's ranges, and the exceptions that they met; see `one_range`."""
    odd = spans if not found.origin.slices and any_odd(*zip(*spans, strict=True)) else ()
    own = [i for i, span in enumerate(odd) if is_its_own(found, *span)]
    asked = [(0, 0) if i in own else span for i, span in enumerate(spans)] if own else spans
    reading = Reading()
    try:
        out: list[Any] = list(await found.read(asked, vector=True))
        if found.origin.is_directory:
            for span, result in zip(asked, out, strict=True):
                reading.gave(found, span, result)
    except OfflineMissError as error:
        out = [await given_again(found, span, error) for span in spans]
    except Exception as error:  # noqa: BLE001 - the result of this file's ranges; the others have theirs
        out = [failed(error)] * len(spans)
    for i in own:
        out[i] = await one_range(found, spans[i])
    return out


async def cat_past(
    original: Method, fs: Any, paths: list[str], starts: list[Any], ends: list[Any]
) -> list[bytes | Exception]:
    """Have the file system read ranges itself, and count them; exceptions are put into the list."""
    options = {"on_error": "return"} if "on_error" in Parameters.of(original).names else {}
    call = functools.partial(original, fs, paths, starts, ends, **options)
    started_s = time.monotonic()
    with reaching():
        try:
            out = await (call() if fs.async_impl else in_thread(call))
        except Exception as error:  # noqa: BLE001 - of one, which it does not name, so of each
            return [error] * len(paths)
    spans = spans_of((paths, starts, ends, None))
    return measured(fs, paths[0], out, ranges=len(out), spans=spans, seconds=time.monotonic() - started_s)  # type: ignore[no-any-return]


def measured_ranges(fs: Any, asked: Ranges | None, out: Any, seconds: float) -> Any:
    """Count ranges that the file system read itself."""
    if not out:
        return out
    path = None if asked is None else asked[0][0]
    return measured(fs, path, out, ranges=len(out), spans=spans_of(asked), seconds=seconds)


def spans_of(asked: Ranges | None) -> Iterable[Span]:
    """Return which ranges were asked for, where all are of one file."""
    return () if asked is None or asked[0].count(asked[0][0]) < len(asked[0]) else zip(asked[1], asked[2], strict=True)


def async_cat_ranges(original: Method) -> Method:
    """Make `_cat_ranges`."""
    parameters = Parameters.of(original)
    composed = original.__module__ == "fsspec.asyn"  # of `_cat_file`, which is hooked

    async def carry_out(self: Any, asked: Any, found: dict[str, Access] | None, args: Any, kwargs: Any) -> Any:
        if found is not None:
            return await cat_many(self, found, asked, functools.partial(cat_past, original, self))
        if composed and asked is None:
            return await original(self, *args, **kwargs)
        started_s = time.monotonic()
        with reaching():
            out = await original(self, *args, **kwargs)
        return measured_ranges(self, asked, out, time.monotonic() - started_s)

    async def _cat_ranges(self: Any, *args: Any, **kwargs: Any) -> Any:
        await prepared(self)
        asked = ranges_of(parameters, args, kwargs)
        found = None if asked is None else all_of(self, asked[0])
        return await carry_out(self, asked, found, args, kwargs)

    return carried_out(_cat_ranges, carry_out)


def sync_cat_ranges(original: Method) -> Method:
    """Make `cat_ranges` of a synchronous file system."""
    parameters = Parameters.of(original)
    composed = original.__module__ == "fsspec.spec"  # of `cat_file`, which is hooked

    def cat_ranges(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = ranges_of(parameters, args, kwargs)
        found = None if asked is None or on_loop_of(self) else all_of(self, asked[0])
        if asked is not None and found is not None:
            rows = read_here(found, asked)
            if rows is not None:
                return rows
            return run(self, cat_many(self, found, asked, functools.partial(cat_past, original, self)))
        if composed and asked is None:
            return original(self, *args, **kwargs)
        started_s = time.monotonic()
        with reaching():
            out = original(self, *args, **kwargs)
        return measured_ranges(self, asked, out, time.monotonic() - started_s)

    return cat_ranges


def read_here(found: dict[str, Access], asked: Ranges) -> list[bytes] | None:
    """Return ranges of one file on the caller's thread; None where the origin is needed."""
    if len(found) != 1:
        return None
    one = found[asked[0][0]]
    if not one.origin.slices and any_odd(asked[1], asked[2]) and may_ask():
        return None
    return one.read_here(Vector(asked[1], asked[2]), vector=True)


def mirrored_cat_ranges(fs: Any, plain: Method) -> Method:
    """Make the `cat_ranges` that fsspec binds to an asynchronous instance; see `mirrored_cat_file`."""
    hooked: Any = getattr(type(fs), "_cat_ranges")  # noqa: B009 - fsspec's asynchronous interface
    parameters, carry_out = Parameters.of(hooked), getattr(hooked, "carry_out", None)
    if carry_out is None:
        return plain  # the class's own could not be hooked

    def cat_ranges(*args: Any, **kwargs: Any) -> Any:
        asked = ranges_of(parameters, args, kwargs)
        found = None if asked is None or on_loop_of(fs) else all_of(fs, asked[0])
        if asked is None or found is None:
            return plain(*args, **kwargs)
        rows = read_here(found, asked)
        return sync(fs.loop, carry_out, fs, asked, found, args, kwargs) if rows is None else rows

    return cat_ranges


# -- cat of many files ------------------------------------------------------------------------------------------


def async_cat(original: Method) -> Method:
    """Make `_cat`, where it is fsspec's own; another one goes through `_cat_file`, which is hooked."""
    if original.__module__ != "fsspec.asyn":
        return original
    parameters = Parameters.of(original)

    async def _cat(self: Any, *args: Any, **kwargs: Any) -> Any:
        await prepared(self)
        session = current()
        said = parameters.named(args, kwargs)
        shelf = None
        if not (said is None or within_origin() or session is None or session.bypassed is not None):
            path, recursive = said.pop("path", None), said.pop("recursive", False)
            on_error, batch_size = said.pop("on_error", "raise"), said.pop("batch_size", None)
            width = batch_size or self.batch_size or _get_batch_size(nofiles=True)
            is_directed = directives_of(self) is not None or undirected(path) is not path
            if isinstance(path, list) and len(path) > 1 and not said and width >= -1 and not is_directed:
                shelf = session.shelf(behind(self)[1])
        if session is None or shelf is None:
            return await original(self, *args, **kwargs)
        names: list[Any] = await self._expand_path(path, recursive=recursive)
        # An object that has several names is read once.
        objects: dict[Any, tuple[str, Any]] = {}
        places = []
        for name, identity in zip(names, identities(self, names), strict=True):
            key = name if identity is None else (identity.key,)
            places.append(key)
            objects.setdefault(key, (name, identity))
        paths = [name for name, _ in objects.values()]
        known = [identity for _, identity in objects.values()]

        asks = [
            None if one is None else question("read", path, {}, (one, None))
            for path, one in zip(paths, known, strict=True)
        ]
        for i, ask in enumerate(asks):
            if ask is not None and ask.trusts and await ask.is_absent():
                known[i] = None  # it may be there by now: the ordinary way tells

        def origin(i: int) -> Origin:
            identity = known[i]
            assert identity is not None  # or it would be read otherwise
            return origin_of(self, paths[i], identity)

        async def otherwise(i: int) -> bytes:
            data: bytes = await self._cat_file(paths[i])
            return data

        out = await read_many(session, shelf, known, origin, otherwise, width=len(paths) if width == -1 else width)
        for i, result in enumerate(out):
            if isinstance(result, Exception) and failed(result) is None:
                out[i] = await one_file(self, paths[i])
            elif isinstance(result, Exception) and (ask := asks[i]) is not None:
                ask.note_error(result)
        if on_error == "raise":
            for result in out:
                if isinstance(result, Exception):
                    raise result
        results = dict(zip(objects, out, strict=True))
        return {
            name: results[key]
            for name, key in zip(names, places, strict=True)
            if on_error != "omit" or not isinstance(results[key], Exception)
        }

    async def one_file(self: Any, path: str) -> bytes | Exception:
        try:
            data: bytes = await self._cat_file(path)
        except Exception as error:  # noqa: BLE001 - the result of this file; the others have theirs
            return error
        return data

    return _cat


ASYNC: dict[str, Callable[[Method], Method]] = {"_cat_ranges": async_cat_ranges, "_cat": async_cat}
# Of many files, synchronous file systems read one after the other in any case, each by a method that is hooked.
SYNC: dict[str, Callable[[Method], Method]] = {"cat_ranges": sync_cat_ranges}
MIRRORED: dict[str, Callable[[Any, Method], Method]] = {"cat_ranges": mirrored_cat_ranges}
