"""Files of which nothing proves the version: they pass through as the file system gives them, and are not recorded."""

from collections.abc import AsyncGenerator
from typing import Any

from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.fsspec.reads import measured
from jcache_plugins.gateway.bodies import PIECE_BYTES
from jcache_plugins.gateway.exchange import Exchange
from jcache_plugins.gateway.places import Place
from jcache_plugins.origins.base import in_thread, reaching

__all__ = ["pass_on"]

# What is read at once where the file system has no stream: more than that might be of several versions.
WHOLE_BYTES = 16 << 20


class UnprovedError(OSError):
    """A large file of which nothing tells versions apart, and which is read in parts only."""


async def pass_on(exchange: Exchange, place: Place, path: str) -> Any:
    """Answer with a whole file as the file system gives it, in one request to its origin.

    Raises:
        Exception: Whatever that raises before the first bytes are there.
    """
    path = undirected(path)
    headers = exchange.headers() | {"Cache-Status": "JCache; fwd=bypass", "Content-Type": "application/octet-stream"}
    headers["Cache-Control"] = "no-store"  # a cache could not tell whether what it has is the file yet
    if place.is_http:
        return await exchange.send(200, headers, None, streamed(place, path))
    data = await whole(place, path)
    measured(place.fs, path, data)
    if exchange.request.method == "HEAD":
        return exchange.plain(200, headers | {"Content-Length": str(len(data))})

    async def body() -> AsyncGenerator[bytes, None]:
        yield data

    return await exchange.send(200, headers, len(data), body())


async def streamed(place: Place, path: str) -> AsyncGenerator[bytes, None]:
    """Yield a file of an HTTP server as it comes: in one answer, which is of one version if any is."""
    async with place.limit(path):  # for the question; how long the answer takes is the client's affair
        with reaching():
            response = await place.streams.get(place.fs.encode_url(path), raise_for_status=False, **place.fs.kwargs)
    try:
        if response.status == 404:
            raise FileNotFoundError(path)
        response.raise_for_status()
        if place.is_mounted and str(response.url) == f"{place.fs.encode_url(path)}/":
            raise IsADirectoryError(path)
        while data := await response.content.read(PIECE_BYTES):
            yield measured(place.fs, path, data)
    finally:
        response.close()


async def whole(place: Place, path: str) -> bytes:
    """Return a file that is small enough to be read at once.

    Raises:
        UnprovedError: It is not, or nobody knows how large it is.
        Exception: Whatever reading it raises.
    """
    fs = place.fs
    async with place.limit(path):
        with reaching():
            info = await (fs._info(path) if fs.async_impl else in_thread(lambda: fs.info(path)))  # noqa: SLF001 - fsspec's asynchronous interface
            if info.get("type") == "directory":
                raise IsADirectoryError(path)
            size = info.get("size")
            if not isinstance(size, int) or size > WHOLE_BYTES:
                msg = "nothing tells the versions of this file apart, and it is too large to be read at once"
                raise UnprovedError(msg)
            data: bytes = await (fs._cat_file(path) if fs.async_impl else in_thread(lambda: fs.cat_file(path)))  # noqa: SLF001 - as above
    return data
