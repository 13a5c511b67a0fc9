"""What `get` returns of an object that is cached: obstore's own result in Python, whose bytes are read on demand."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import obstore

from jcache.origin import Info

__all__ = ["BytesStream", "GetResult", "meta_of"]

EPOCH = datetime.fromtimestamp(0, UTC)
# What of an object is read at once where it is asked for in chunks.
WHOLE_BYTES = 32 << 20
CHUNK_BYTES = 10 << 20
# Chunks are no smaller, whatever is asked for: it is a minimum.
LEAST_BYTES = 16 << 10


class Source(Protocol):
    """What a result needs of its object."""

    async def read(self, start: int, stop: int) -> bytes:
        """Return the bytes in [start, stop)."""
        ...

    def read_now(self, start: int, stop: int) -> bytes:
        """Do so in synchronous code."""
        ...

    def attributes(self) -> dict[str, Any]:
        """Return its attributes."""
        ...


def meta_of(path: str, info: Info) -> dict[str, Any]:
    """Return what obstore says of an object of this version."""
    version, details = info.version, info.details
    modified = EPOCH
    if version.mtime_ns is not None:
        modified += timedelta(microseconds=version.mtime_ns // 1000)
    return {
        "path": path,
        "last_modified": modified,
        "size": version.size_bytes,
        "e_tag": version.etag or details.get("ETag") or details.get("etag") or None,
        "version": next((details[name] for name in ("version", "VersionId", "version_id") if details.get(name)), None),
    }


class GetResult:
    """The result of one `get`; it can be read once, as obstore's."""

    __slots__ = ("_is_read", "_source", "meta", "range")

    def __init__(self, meta: dict[str, Any], span: tuple[int, int], source: Source) -> None:
        """Make it.

        Args:
            meta: What is said of the object.
            span: Which of its bytes are asked for.
            source: Gives them.
        """
        self.meta, self.range = meta, span
        self._source, self._is_read = source, False

    def _begin(self) -> None:
        if self._is_read:
            msg = "Result has already been disposed."
            raise ValueError(msg)
        self._is_read = True

    @property
    def attributes(self) -> dict[str, Any]:
        """Additional attributes of the object."""
        return self._source.attributes()

    def bytes(self) -> obstore.Bytes:
        """Return the data as one buffer."""
        self._begin()
        return obstore.Bytes(self._source.read_now(*self.range))

    async def bytes_async(self) -> obstore.Bytes:
        """Return the data as one buffer."""
        self._begin()
        return obstore.Bytes(await self._source.read(*self.range))

    def buffer(self) -> obstore.Bytes:
        """Return the data as one buffer."""
        return self.bytes()

    async def buffer_async(self) -> obstore.Bytes:
        """Return the data as one buffer."""
        return await self.bytes_async()

    def stream(self, min_chunk_size: int = CHUNK_BYTES) -> "BytesStream":
        """Return the data in chunks of this size, or `LEAST_BYTES` if that is more, but for the last one.

        Args:
            min_chunk_size: In bytes.
        """
        self._begin()
        return BytesStream(self.range, max(min_chunk_size, LEAST_BYTES), self._source)

    def __iter__(self) -> "BytesStream":
        return self.stream()

    def __aiter__(self) -> "BytesStream":
        return self.stream()


class BytesStream(Iterator[bytes], AsyncIterator[bytes]):
    """The bytes of a result in chunks; what is not large is read at once."""

    def __init__(self, span: tuple[int, int], chunk_bytes: int, source: Source) -> None:
        self._at, self._stop = span
        self._chunk_bytes, self._source = chunk_bytes, source
        self._had, self._had_from = b"", self._at

    def _missing(self) -> tuple[int, int] | None:
        """Return what is to be read before the next chunk can be taken; None where it is there."""
        stop = min(self._at + self._chunk_bytes, self._stop)
        if stop <= self._had_from + len(self._had):
            return None
        if self._stop - self._at <= WHOLE_BYTES:
            return self._at, self._stop
        return self._at, min(self._at + self._chunk_bytes * max(1, CHUNK_BYTES // self._chunk_bytes), self._stop)

    def _take(self) -> bytes:
        start = self._at - self._had_from
        data = self._had[start : start + self._chunk_bytes]
        self._at += len(data)
        return data

    def __iter__(self) -> "BytesStream":
        return self

    def __aiter__(self) -> "BytesStream":
        return self

    def __next__(self) -> bytes:
        if self._at >= self._stop:
            raise StopIteration
        if (part := self._missing()) is not None:
            self._had, self._had_from = self._source.read_now(*part), part[0]
        return self._take()

    async def __anext__(self) -> bytes:
        if self._at >= self._stop:
            raise StopAsyncIteration
        if (part := self._missing()) is not None:
            self._had, self._had_from = await self._source.read(*part), part[0]
        return self._take()
