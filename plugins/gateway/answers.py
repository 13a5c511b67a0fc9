"""The answer to a GET or HEAD of a file: its version, the client's conditions, its ranges, its bytes."""

import functools
import mimetypes
import re
import time
from typing import Any

from jcache.errors import OriginChangedError
from jcache.journal import Version
from jcache.ranges import Range
from jcache_plugins.fsspec.access import Access, access
from jcache_plugins.fsspec.directives import MARK
from jcache_plugins.gateway import byteranges, conditions
from jcache_plugins.gateway.bodies import FIRST_BYTES, Body, NotCachedError
from jcache_plugins.gateway.byteranges import Part, Unsatisfiable
from jcache_plugins.gateway.conditions import CacheControl
from jcache_plugins.gateway.exchange import Exchange
from jcache_plugins.gateway.freshness import Settled, settle
from jcache_plugins.gateway.passing import pass_on
from jcache_plugins.gateway.places import Place, is_recording
from jcache_plugins.gateway.targets import BadTargetError
from jcache_plugins.origins.base import UnsizedError

__all__ = ["answer_file"]

# So often a file that is replaced before the client has a byte of it is begun anew.
RESTARTS = 4
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
_MIMETYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")


async def answer_file(exchange: Exchange, place: Place, path: str, *, empty_has_none: bool = False) -> Any:
    """Answer with a file of a place.

    Args:
        exchange: What is answered.
        place: Where the file is.
        path: The file.
        empty_has_none: Whether a range of an empty file is refused, as S3 does, and not answered with the file.

    Raises:
        Exception: Whatever finding out the version, or reading the first bytes, raises; nothing was sent then.
    """
    if MARK in path:
        raise BadTargetError("no name has that in it")  # directives are the program's to give, not a client's
    asked = CacheControl.of(exchange.fields)
    if asked.no_store:
        path += f"{MARK}bypass"
    found = access(place.fs, path, session=exchange.session)
    if asked.only_if_cached and found is None:
        raise NotCachedError
    if found is None or (place.is_unproved(path) and not asked.only_if_cached):
        return await pass_on(exchange, place, path)
    begin = functools.partial(begin_of, exchange)
    for _ in range(RESTARTS):
        try:
            settled = await settle(exchange.session, place, found, asked, begin)
            if not settled.info.version.is_provable:
                raise UnsizedError(path)
            return await answer_version(exchange, place, found, settled, asked, empty_has_none=empty_has_none)
        except UnsizedError:
            if asked.only_if_cached:
                raise NotCachedError from None
            place.note_unproved(path)
            return await pass_on(exchange, place, path)
        except OSError as error:
            if not is_replaced(error):
                raise
    raise OriginChangedError


def begin_of(exchange: Exchange) -> Range | None:
    """Return with which bytes an answer begins whose status hangs on nothing but the file."""
    said = exchange.fields.get
    if exchange.request.method != "GET" or any(said(name) is not None for name in CONDITIONS):
        return None
    return byteranges.begin(said("Range"), FIRST_BYTES)


def is_replaced(error: BaseException) -> bool:
    """Whether the origin has another version by now, in whichever words its file system says so."""
    return isinstance(error, OriginChangedError) or isinstance(error.__cause__, OriginChangedError)


async def answer_version(
    exchange: Exchange, place: Place, found: Access, settled: Settled, asked: CacheControl, *, empty_has_none: bool
) -> Any:
    """Answer with a version of a file; see `answer_file`."""
    request, version = exchange.request, settled.info.version
    headers = exchange.headers() | described(found, settled)
    tag, size = headers["ETag"], version.size_bytes
    ended = conditions.verdict(exchange.fields, tag, version.mtime_ns)
    if ended is not None:
        headers["Cache-Status"] = cache_status(settled)
        return exchange.plain(ended, headers)
    ranges = None
    # Who asks for ranges of whatever there is would take it for an error that there are none.
    has_ranges = size > 0 or empty_has_none
    if request.method == "GET" and has_ranges and conditions.is_range_wanted(exchange.fields, tag, version.mtime_ns):
        try:
            ranges = byteranges.parse(exchange.fields.get("Range"), size)
        except Unsatisfiable:
            return exchange.plain(416, headers | {"Content-Range": f"bytes */{size}"})
    status, length, parts = 200, size, [Part(b"", 0, size)]
    if ranges is not None:
        status = 206
        if len(ranges) == 1:
            start, stop = ranges[0]
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            length, parts = stop - start, [Part(b"", start, stop)]
        else:
            headers["Content-Type"], parts, length = byteranges.multipart(ranges, size, headers["Content-Type"])
    if request.method == "HEAD":
        headers["Cache-Status"] = cache_status(settled)
        headers["Content-Length"] = str(size)
        return exchange.plain(200, headers)
    body = Body(exchange.session, place, found, version, parts, cached=asked.only_if_cached, first=settled.first)
    here = body.read_here()
    if here is not None:
        exchange.hit_bytes = len(here)
        headers["Cache-Status"] = cache_status(settled)
        return await exchange.whole(status, headers, here)
    missing, wanted = body.missing()
    if missing and asked.only_if_cached:
        raise NotCachedError
    exchange.hit_bytes = wanted - missing
    stores = settled.info.sharing != "nobody" and is_recording(found)
    headers["Cache-Status"] = cache_status(settled, missing, wanted, stores=stores)
    return await exchange.send(status, headers, length, body.stream())


def described(found: Access, settled: Settled) -> dict[str, str]:
    """Return the header fields that describe a version of a file."""
    version, details = settled.info.version, settled.info.details
    told = next((details[name] for name in ("mimetype", "ContentType", "contentType") if details.get(name)), None)
    kind = told if isinstance(told, str) and _MIMETYPE.fullmatch(told) else None
    kind = kind or kind_of(found.origin.path.partition("?")[0])
    out = {
        "Content-Type": kind,
        "ETag": conditions.entity_tag(version),
        "Accept-Ranges": "bytes",
        "Age": str(int(settled.age_s)),
    }
    modified = modified_of(version)
    if modified is not None:
        out["Last-Modified"] = modified
    if settled.info.sharing != "all":
        out["Cache-Control"] = "private" if settled.info.sharing == "asker" else "no-store"
    return out


@functools.lru_cache(4096)
def kind_of(path: str) -> str:
    """Return the media type that a name suggests."""
    kind, encoding = mimetypes.guess_type(path)
    return kind if kind and encoding is None else "application/octet-stream"


def modified_of(version: Version) -> str | None:
    """Return when a version was modified, as HTTP spells it; not later than now (RFC 9110, 8.8.2.1)."""
    mtime_ns = version.mtime_ns
    return conditions.http_date(None if mtime_ns is None else min(mtime_ns, int(time.time()) * 10**9))


def cache_status(settled: Settled, missing: int = 0, wanted: int = 0, *, stores: bool = False) -> str:
    """Return what the cache did (RFC 9211): it had all, and the origin was not asked; else why it was, and for what."""
    if missing or settled.forwarded == "uri-miss":
        why = "partial" if missing and missing < wanted else settled.forwarded or "miss"
        return f"JCache; fwd={why}" + ("; stored" if stores and missing else "")
    if settled.forwarded:
        return f"JCache; fwd={settled.forwarded}; detail=validated"
    return "JCache; hit" + ("" if settled.left_s is None else f"; ttl={int(settled.left_s)}")
