"""What a hooked file system does instead of `cat_file`: `maker(original) -> replacement`; and what all reads share.

What only the file system can tell, it tells: a call that is not understood, a read that fails, and a range that has no
bytes are the original's, whatever it returns or raises.
"""

import operator
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsspec.asyn import sync

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.naming.layout import digest
from jcache.session import current
from jcache_plugins.fsspec.access import (
    NO_OPTIONS,
    Access,
    access,
    behind,
    delivered,
    on_loop_of,
    run,
    unwrapped,
)
from jcache_plugins.fsspec.calls import Parameters, as_bound
from jcache_plugins.fsspec.directories import Reading, given_again
from jcache_plugins.fsspec.writes import prepared
from jcache_plugins.fsspec.written import is_being_written, open_files
from jcache_plugins.origins.base import UnsizedError, reaching, within_origin

__all__ = [
    "ASYNC", "MIRRORED", "SYNC", "Method", "Span", "any_odd", "asks_origin", "carried_out", "failed", "find",
    "find_soon", "is_its_own", "is_settled", "learn", "may_ask", "measured", "one_range",
]  # fmt: skip

Method = Callable[..., Any]
Span = tuple[int | None, int | None]

NO_BOUNDS: Span = None, None
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
    nbytes: int = 0,
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
        nbytes: How many bytes went elsewhere.
    """
    session = current()
    if session is None or within_origin():
        return data
    total = nbytes + (
        len(data) if isinstance(data, bytes) else sum(len(part) for part in data if isinstance(part, bytes))
    )
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


ASYNC: dict[str, Callable[[Method], Method]] = {"_cat_file": async_cat_file}
SYNC: dict[str, Callable[[Method], Method]] = {"cat_file": sync_cat_file}
MIRRORED: dict[str, Callable[[Any, Method], Method]] = {"cat_file": mirrored_cat_file}
"""What takes the place of the synchronous methods that fsspec binds to each asynchronous instance."""
