"""What a hooked file system does instead of `cat_file`, `cat_ranges` and `cat`: `maker(original) -> replacement`.

What only the file system can tell, it tells: a call that is not understood, a read that fails, and a range that has no
bytes are the original's, whatever it returns or raises.
"""

import asyncio
import contextlib
import functools
import operator
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsspec.asyn import _get_batch_size, sync

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.naming.layout import digest
from jcache.origin import Origin
from jcache.reader.many import read_many
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.fsspec.access import (
    NO_OPTIONS,
    Access,
    access,
    behind,
    delivered,
    identities,
    on_loop_of,
    origin_of,
    run,
    unwrapped,
)
from jcache_plugins.fsspec.answers import question
from jcache_plugins.fsspec.calls import Parameters, as_bound
from jcache_plugins.fsspec.directives import directives_of, undirected
from jcache_plugins.fsspec.directories import Reading, given_again
from jcache_plugins.fsspec.writes import prepared
from jcache_plugins.fsspec.written import is_being_written, open_files
from jcache_plugins.origins.base import UnsizedError, in_thread, reaching, within_origin

__all__ = [
    "ASYNC", "MIRRORED", "SYNC", "asks_origin", "cat_many", "find", "find_soon", "may_ask", "measured", "one_range",
]  # fmt: skip

Method = Callable[..., Any]
Span = tuple[int | None, int | None]
Ranges = tuple[list[str], list[int | None], list[int | None], Any]

UNSET: Any = object()
NO_BOUNDS: Span = None, None
_BOUNDS = frozenset({int, type(None)})
# How a server refuses what was asked for with a condition, or with more or less than a range.
_REFUSALS = frozenset({400, 405, 406, 412, 416, 501})
# Classes of file systems that return nothing for a range behind the end.
_silent: set[type] = set()


def find(fs: Any, path: Any, options: Mapping[str, Any] = NO_OPTIONS) -> Access | None:
    """Return the way to the journal for a call on a hooked file system, None where it goes past the cache.

    Args:
        fs: The file system.
        path: As it takes it.
        options: What else the call says, but for the bounds of what is read.
    """
    if within_origin():
        return None
    session = current()
    if session is None:
        return None
    if session.counters.profile is not None:
        session.counters.profile.from_here()
    if session.bypassed is not None:
        return None
    if session.late:
        session.catch_up()
    found = access(fs, path, options, session=session)
    if found is None or found.excluded or (open_files and is_being_written(found.identity.address)):
        return None
    return None if session.caches.get(found.directory) is None else found


async def find_soon(fs: Any, path: Any, options: Mapping[str, Any] = NO_OPTIONS) -> Access | None:
    """Do as `find` does, without blocking the event loop while the cache directory is made and checked."""
    await prepared(fs)
    return find(fs, path, options)


def measured(
    fs: Any,
    path: Any,
    data: Any,
    *,
    ranges: int = 0,
    options: Mapping[str, Any] | None = NO_OPTIONS,
    spans: Iterable[Span] = (),
    seconds: float = 0.0,
) -> Any:
    """Count bytes that the file system read itself, past the cache, and why.

    Args:
        fs: The file system.
        path: As it takes it; None where that is not known.
        data: What it returned.
        ranges: How many of them there are, in a vector read.
        options: What else the call said; None where it was not understood.
        spans: Which ranges of the file they are, for the profile; none where that is not known.
        seconds: How long that took.
    """
    session = current()
    if session is None or within_origin():
        return data
    total = len(data) if isinstance(data, bytes) else sum(len(part) for part in data if isinstance(part, bytes))
    counters, named = session.counters, access(fs, path)
    if named is not None and named.excluded:
        return data
    url = None if named is None else named.identity.url
    if url is not None and options and access(fs, path, options) is None and " ~" not in url:
        url += f" ~{digest(repr(sorted(options)), 8)}"  # what the call says may make it another file
    asked = delivered(session, spans, [data] if isinstance(data, bytes) else data)
    if ranges:
        counters.readv(ranges, total, 0, 0, total, url=url, seconds=seconds, asked=asked)
    else:
        counters.read(total, 0, 0, total, url=url, seconds=seconds, asked=asked)
    counters.origin(requests=1, nbytes=total)
    if total and session.bypassed is None:
        counters.uncached(why_not(fs, path, options, is_known=named is not None), total)
    return data


def why_not(fs: Any, path: Any, options: Mapping[str, Any] | None, *, is_known: bool) -> str:
    """Say why a read went past the cache."""
    session = current()
    if options is None or path is None:
        return "the call is not understood"
    if not is_known:
        return "it cannot be told which object is meant"
    if options and access(fs, path, options) is None:
        return f"{', '.join(sorted(options.keys() - {'mode'}))} may decide which bytes are meant"
    if on_loop_of(fs):
        return "the call was made on the event loop that would have to do the work"
    if session is None or session.caches.get(behind(fs)[1]) is None:
        return "the cache directory cannot be used"
    return "it is a stream, or nothing tells its version, or only the file system itself could answer"


def is_settled(fs: Any, found: Access, result: Any, start: int | None, stop: int | None) -> bool:
    """Whether a range's result is the application's; else the file system is to be asked itself.

    It is asked where reading failed before the range was asked for, where the server refused, which may have been asked
    for more or less than this range, and where the file has not all of what the bounds say, from its end or behind it:
    what no byte, or less, means is each file system's own.
    """
    if result is None or isinstance(result, Exception):
        is_refused = result is None or getattr(result, "status", None) in _REFUSALS
        return not is_refused and (isinstance(result, OriginChangedError) or not (is_odd(start, stop) and may_ask()))
    if (result and (start or 0) >= 0 and (stop or 0) >= 0) or not may_ask():
        return True
    if is_its_own(found, start, stop):
        return True
    if result:
        return (start or 0) >= 0 or stop is None or len(result) == stop - (start or 0)
    if start == stop is not None:
        return True
    return (type(fs) in _silent and not is_odd(start, stop)) or (not start and stop is None and not asks_origin())


def is_its_own(found: Access, start: int | None, stop: int | None) -> bool:
    """Whether bounds need not mean what slices make of them, and the file system may be asked."""
    return not found.origin.slices and is_odd(start, stop) and may_ask()


def is_odd(start: int | None, stop: int | None) -> bool:
    """Whether bounds count from the end, or have no byte between them."""
    return (start or 0) < 0 or (stop is not None and stop <= (start or 0))


def any_odd(starts: Any, stops: Any) -> bool:
    """Whether bounds of any range count from the end, or have no byte between them."""
    try:
        return min(starts) < 0 or any(map(operator.le, stops, starts))
    except TypeError:  # None is among them
        return any(map(is_odd, starts, stops))


def may_ask() -> bool:
    """Whether the settings allow to ask the origin."""
    session = current()
    return session is not None and not session.offline


def asks_origin() -> bool:
    """Whether the settings have the origin asked before anything is read of a file."""
    session = current()
    return session is not None and not session.offline and session.validate != "never"


def learn(fs: Any, result: Any, told: Any, start: Any, stop: Any) -> None:
    """Note of a synchronous file system's class that it returns nothing for a range behind the end, if it did."""
    if result == b"" == told and not fs.async_impl and (start or 0) > 0 and not is_odd(start, stop):
        _silent.add(type(fs))


def failed(error: Exception) -> Exception | None:
    """Return what a read that failed gives; None where the file system is to be asked what it makes of it."""
    session = current()
    if isinstance(error, FileNotFoundError) and isinstance(error, UnsizedError):
        error = FileNotFoundError(*error.args)  # of a directory; the application knows the first one only
    is_known = isinstance(error, FileNotFoundError | OfflineMissError | OriginChangedError)
    return error if is_known or session is None or session.offline else None


def carried_out(hooked: Method, carry_out: Method) -> Method:
    """Note with a hooked method what carries a call out that is understood, for `MIRRORED`, which has understood it."""
    hooked.carry_out = carry_out  # type: ignore[attr-defined]  # our own mark
    return hooked


# -- cat_file ---------------------------------------------------------------------------------------------------


def span_of(parameters: Parameters, args: Any, kwargs: Any) -> tuple[Any, Span, Any] | None:
    """Return path, bounds and other options of a `cat_file` call; None where it is not understood."""
    said = parameters.said(args, kwargs)
    if said is None:
        return None
    try:
        span = as_bound(said.pop("start", None)), as_bound(said.pop("end", None))
    except TypeError:
        return None
    start, stop = span
    if start is not None and start < 0 and stop is not None and (stop >= 0 or stop == start) and may_ask():
        return None  # what begins so far from the end is not empty where the file is shorter
    return said.pop(parameters.first, None), span, said


def async_cat_file(original: Method) -> Method:
    """Make `_cat_file`."""
    parameters = Parameters.of(original)

    async def carry_out(self: Any, asked: Any, found: Access | None, args: Any, kwargs: Any) -> Any:
        result = None
        if found is not None:
            result = await one_range(found, asked[1])
            if result is not None and is_settled(self, found, result, *asked[1]):
                return unwrapped(result)
        started_s = time.monotonic()
        reading = Reading()
        try:
            with reaching():  # what it calls in turn is this same read
                data = await original(self, *args, **kwargs)
        except Exception as error:
            reading.gave(found, asked[1] if asked else NO_BOUNDS, error)
            raise
        reading.gave(found, asked[1] if asked else NO_BOUNDS, data)
        learn(self, result, data, *(asked[1] if asked else NO_BOUNDS))
        path, options = (None, None) if asked is None else (asked[0], asked[2])
        seconds = time.monotonic() - started_s
        return measured(self, path, data, options=options, spans=asked[1:2] if asked else (), seconds=seconds)

    async def _cat_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = span_of(parameters, args, kwargs)
        found = None if asked is None else await find_soon(self, asked[0], asked[2])
        return await carry_out(self, asked, found, args, kwargs)

    return carried_out(_cat_file, carry_out)


def sync_cat_file(original: Method) -> Method:
    """Make `cat_file` of a synchronous file system."""
    parameters = Parameters.of(original)

    def cat_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        result: bytes | Exception | None = None
        asked = span_of(parameters, args, kwargs)
        found = None if asked is None or on_loop_of(self) else find(self, asked[0], asked[2])
        if asked is not None and found is not None:
            rows = None if is_its_own(found, *asked[1]) else found.try_read([asked[1]], vector=False)
            result = run(self, one_range(found, asked[1])) if rows is None else rows[0]
            if result is not None and is_settled(self, found, result, *asked[1]):
                return unwrapped(result)
        started_s = time.monotonic()
        reading = Reading()
        try:
            with reaching():  # what it calls in turn is this same read
                data = original(self, *args, **kwargs)
        except Exception as error:
            reading.gave(found, asked[1] if asked else NO_BOUNDS, error)
            raise
        reading.gave(found, asked[1] if asked else NO_BOUNDS, data)
        learn(self, result, data, *(asked[1] if asked else NO_BOUNDS))
        path, options = (None, None) if asked is None else (asked[0], asked[2])
        seconds = time.monotonic() - started_s
        return measured(self, path, data, options=options, spans=asked[1:2] if asked else (), seconds=seconds)

    return cat_file


async def one_range(found: Access, span: Span) -> bytes | Exception | None:
    """Return a range's bytes, or the exception that it met; None where the file system is to be asked."""
    reading = Reading()
    try:
        if is_its_own(found, *span):
            size = (await found.stat()).version.size_bytes
            meant = found.origin.meant(*span, size)
            if meant is None or meant[0] >= meant[1]:
                return None if meant is None else b""
            return (await found.read([meant], vector=False))[0]
        result = (await found.read([span], vector=False))[0]
        reading.gave(found, span, result)
        return result
    except OfflineMissError as error:
        told: bytes | Exception = await given_again(found, span, error)
        return told
    except Exception as error:  # noqa: BLE001 - whether it is the application's is yet to be decided
        return failed(error)


def mirrored_cat_file(fs: Any, plain: Method) -> Method:
    """Make the `cat_file` that fsspec binds to an asynchronous instance: what is recorded never crosses to the loop."""
    hooked: Any = getattr(type(fs), "_cat_file")  # noqa: B009 - fsspec's asynchronous interface
    parameters, carry_out = Parameters.of(hooked), getattr(hooked, "carry_out", None)
    if carry_out is None:
        return plain  # the class's own could not be hooked

    def cat_file(*args: Any, **kwargs: Any) -> Any:
        asked = span_of(parameters, args, kwargs)
        found = None if asked is None else find(fs, asked[0], asked[2])
        if asked is None or found is None:
            return plain(*args, **kwargs)
        rows = None if is_its_own(found, *asked[1]) else found.try_read([asked[1]], vector=False)
        if rows is not None and is_settled(fs, found, rows[0], *asked[1]):
            return rows[0]
        return sync(fs.loop, carry_out, fs, asked, found, args, kwargs)

    return cat_file


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
    rows = one.read_here(Vector(asked[1], asked[2]), vector=True)
    return rows if rows is not None and all(rows) else None


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


ASYNC: dict[str, Callable[[Method], Method]] = {
    "_cat_file": async_cat_file,
    "_cat_ranges": async_cat_ranges,
    "_cat": async_cat,
}
# Of many files, synchronous file systems read one after the other in any case, each by a method that is hooked.
SYNC: dict[str, Callable[[Method], Method]] = {
    "cat_file": sync_cat_file,
    "cat_ranges": sync_cat_ranges,
}
MIRRORED: dict[str, Callable[[Any, Method], Method]] = {
    "cat_file": mirrored_cat_file,
    "cat_ranges": mirrored_cat_ranges,
}
"""What takes the place of the synchronous methods that fsspec binds to each asynchronous instance."""
