"""The bytes of one version of a file, for one client: read in pieces, no more of them at once than a few.

The piece that is sent next is read on the event loop where it lies in a journal on this machine. Where it has to be
fetched, the next ones are fetched beside it, as long as all clients together have room for that. A slow client holds up
itself alone, with as much memory as those take.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Sequence
from functools import partial
from typing import Any

from jcache.errors import ShortReadError
from jcache.journal import Version
from jcache.reader.remote import RemoteFile
from jcache.session import Session
from jcache_plugins.fsspec.access import Access, unwrapped
from jcache_plugins.gateway.byteranges import Cutter, Part
from jcache_plugins.gateway.places import Place
from jcache_plugins.origins.base import in_thread

__all__ = ["Body", "NotCachedError", "held"]

# A body is read in pieces of so many bytes: a small one first, so that it begins soon; twice as many with each that had
# to be fetched, up to the most.
FIRST_BYTES, PIECE_BYTES, MOST_BYTES = 256 << 10, 1 << 20, 4 << 20
# So many are under way for one client where they are fetched, the one that is sent next included.
DEPTH = 4
# What is fetched ahead for all clients together; beyond it each has the one piece that is sent next.
AHEAD_BYTES = 256 << 20


class NotCachedError(Exception):
    """The client wants what is cached, and this is not."""


class Ahead:
    """A piece that is under way."""

    total = 0
    """How many bytes are under way ahead of what is sent next, for all clients."""

    def __init__(self, reading: Coroutine[Any, Any, bytes], size: int) -> None:
        self.task = asyncio.ensure_future(reading)
        self._size = size
        Ahead.total += size

    def release(self) -> None:
        """Give back the room that it took."""
        Ahead.total -= self._size
        self._size = 0

    def cancel(self) -> None:
        """Have nobody wait for it any more."""
        self.release()
        self.task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.task.cancel()


def held(session: Session, found: Access) -> RemoteFile:
    """Return the remote file of an access, a context in which it is kept open."""
    return session.files.acquire(found.identity, directory=found.directory, terms=found.terms)


class Body:
    """What a client gets of one version of a file.

    Attributes:
        parts: Its ranges, in the order in which they are sent.
    """

    def __init__(
        self,
        session: Session,
        place: Place,
        found: Access,
        version: Version,
        parts: Sequence[Part],
        *,
        cached: bool,
        first: bytes = b"",
    ) -> None:
        """Read nothing yet.

        Args:
            session: Whose journals are read.
            place: Where the file is.
            found: The file.
            version: What all bytes have to be of.
            parts: What is to be read, and what stands before each of it.
            cached: Whether the origin is not to be asked.
            first: With which bytes it begins, where they are here.
        """
        self._session = session
        self._place = place
        self._found = found
        self._version = version
        self._cached = cached
        self._first = first
        cache = session.caches.get(found.directory)
        self._here = cache is not None and cache.is_local
        self.parts = parts

    def missing(self) -> tuple[int, int]:
        """Return how many bytes of it would have to be fetched now, and how many it has."""
        with held(self._session, self._found) as remote:
            gaps = [gap for start, stop in spans_of(self.parts) for gap in remote.gaps(1, start, stop)]
        wanted = sum(part.stop - part.start for part in self.parts)
        return min(sum(stop - start for start, stop in gaps) + len(self._first), wanted), wanted

    def read_here(self) -> bytes | None:
        """Return all of it, where that is one short range which lies in a journal on this machine; None else."""
        (part, *others) = self.parts
        if others or part.prefix or self._first or not 0 < part.stop - part.start <= FIRST_BYTES:
            return None
        return self._read_here(self.parts)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield it in pieces.

        Raises:
            OriginChangedError: The origin has another version by now.
            NotCachedError: Not all of it is cached, and the origin is not to be asked.
            Exception: Whatever reading raises.
        """
        cutter, size = Cutter(self.parts), FIRST_BYTES
        under_way: deque[Ahead] = deque()
        try:
            while under_way or (piece := cutter.next(size)):
                if not under_way:
                    data = self._read_here(piece)
                    if data is not None:
                        size = PIECE_BYTES
                        yield data
                        await asyncio.sleep(0)  # there are others
                        continue
                    under_way.append(Ahead(self._read(piece), 0))
                    size = max(PIECE_BYTES, min(size, MOST_BYTES))
                while len(under_way) < self._depth() and Ahead.total + size <= AHEAD_BYTES:
                    following = cutter.next(size)
                    if not following:
                        break
                    under_way.append(Ahead(self._read(following), size))
                size = min(2 * size, MOST_BYTES)
                data = await under_way[0].task
                under_way.popleft().release()
                yield data
        finally:
            for ahead in under_way:
                ahead.cancel()

    def _depth(self) -> int:
        """How many pieces may be under way: one where a server sends files in sequence, or takes one call at a time."""
        origin = self._found.origin
        return 1 if origin.is_streamed or origin.one_at_a_time else DEPTH

    def _read_here(self, piece: Sequence[Part]) -> bytes | None:
        """Return a piece that lies in a journal on this machine, or in memory; None where it does not."""
        first, self._first = self._first, b""
        if first and len(piece) == 1 and not piece[0].prefix and len(first) == piece[0].stop - piece[0].start:
            return first
        if not self._here:
            return None
        spans = spans_of(piece)
        rows = self._found.try_read(spans, vector=len(spans) > 1, version=self._version) if spans else []
        return None if rows is None else joined(piece, rows)

    async def _read(self, piece: Sequence[Part]) -> bytes:
        spans = spans_of(piece)
        if not spans:
            return joined(piece, ())
        vector = len(spans) > 1
        if self._cached:
            rows = await in_thread(partial(self._found.try_read, spans, vector=vector, version=self._version))
            if rows is None:
                raise NotCachedError
            return joined(piece, rows)
        async with self._place.limit(self._found.origin.path):
            found = await self._found.read(spans, vector=vector, version=self._version)
        return joined(piece, [unwrapped(row) for row in found])


def spans_of(piece: Sequence[Part]) -> list[tuple[int, int]]:
    """Return the ranges of a piece that have a byte."""
    return [(part.start, part.stop) for part in piece if part.start < part.stop]


def joined(piece: Sequence[Part], rows: Sequence[bytes]) -> bytes:
    """Return a piece as it is sent.

    Raises:
        ShortReadError: A range is not as long as it has to be.
    """
    if len(piece) == 1 and not piece[0].prefix and rows:
        out = rows[0]
    else:
        left = iter(rows)
        out = b"".join(part.prefix + (next(left) if part.start < part.stop else b"") for part in piece)
    if len(out) != sum(len(part.prefix) + part.stop - part.start for part in piece):
        raise ShortReadError("the file ends before it should")
    return out
