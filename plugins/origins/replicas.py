"""One file at several places, of the same bytes: where one fails, the next request goes to another."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from jcache.errors import OriginChangedError
from jcache.journal import Version
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.snapshot import agrees
from jcache.reader.retrying import Retries
from jcache.session import current
from jcache_plugins.origins.base import FileSystemOrigin, in_thread, reaching

__all__ = ["Replicas"]

T = TypeVar("T")

# So long a place has for an answer while there is another one to ask, and what its bytes take at this rate. So long a
# server that failed is asked last.
HANG_S, DOWN_S, SLOWEST_BYTES_PER_S = 15.0, 60.0, 256 << 10


class OtherBytesError(OSError):
    """What a place has is not known to be the same bytes."""


class Place:
    """One of the places.

    Attributes:
        origin: The way to it; None until it is first needed.
        own: The version that it has, in its own words, and the checksum of that; None until it was asked.
        is_first: Whether the file goes by its name there.
    """

    __slots__ = ("is_first", "origin", "own", "url")

    def __init__(self, url: str, origin: FileSystemOrigin | None = None) -> None:
        self.url = url
        self.origin = origin
        self.own: tuple[Info, str | None] | None = None
        self.is_first = origin is not None

    @property
    def server(self) -> str:
        """Who answers there."""
        return urlsplit(self.url).netloc

    async def take(self, info: Info) -> Info:
        """Take note of what it has; return that as it is held against what other places have."""
        assert self.origin is not None
        if self.own is None or not agrees(self.own[0].version, info.version):
            self.own = info, await self.origin.checksum()
        return replace(info, version=self.as_everywhere(*self.own))

    def has(self, known: Version) -> bool:
        """Whether what it had last is a version that is known."""
        return self.own is not None and agrees(known, self.as_everywhere(*self.own))

    def as_everywhere(self, own: Info, checksum: str | None) -> Version:
        """Return a version with the checksum of the bytes, by which alone another place has the same as the first.

        Tags and times are of one place: copies that are not the same bytes may have the same. Without a checksum, those
        of another place than the first are made its own.
        """
        version = own.version
        if checksum is not None and version.checksum is None:
            version = version._replace(checksum=checksum)
        if self.is_first or not version.is_provable:
            return version
        told = None if version.checksum is not None else f"{version.etag or version.mtime_ns} of {self.url}"
        return Version(version.size_bytes, etag=told, checksum=version.checksum)


class Replicas:
    """The origin of a file that a rule says is at several places; otherwise what that of the first place is.

    A request is made at one place. Where it fails there, `retry_after` says to send it again, and then another place is
    asked: so it is `jcache.reader.retrying` that goes on, counts, and ends. Bytes of another place are of the known
    version only if size and checksum are the same; where nobody tells a checksum, it is asked only while nothing is
    known of the file.
    """

    # When servers failed last.
    _failed_s: ClassVar[dict[str, float]] = {}

    is_got = True

    def __init__(self, first: FileSystemOrigin, url: str, others: Sequence[str], make: Callable[..., Any]) -> None:
        """Name the places.

        Args:
            first: The way to the first one, by whose name the file goes.
            url: Its address.
            others: Those of the others.
            make: Makes a way to a file, of a file system, a path and an identity.
        """
        self._first = first
        self._make = make
        self._places = [Place(url, first), *map(Place, others)]
        # What was met at each place since the last answer; and at all of them, where none is left to ask.
        self._met: dict[int, Exception] = {}
        self._failures: dict[int, Exception] = {}
        now_s = time.monotonic()
        self._at = next((i for i, place in enumerate(self._places) if now_s >= self._down_until(place)), 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

    def retry_after(self, _: Exception, *, met: bool) -> float | None:
        """Return 0 while there is a place that was not asked yet, then what the first one says of all their errors."""
        pauses = [self._first.retry_after(each, met=met) for each in self._failures.values()]
        return min((pause for pause in pauses if pause is not None), default=None) if pauses else 0.0

    async def stat(self) -> Info:
        """Ask a place for the file's version."""
        return self._named(await self._ask(self._stat))

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges at a place that has the known version."""

        async def fetch(place: Place, origin: FileSystemOrigin) -> Fetched:
            if known is not None and not place.has(known.version):
                told = await self._stat(place, origin)
                if not agrees(known.version, told.version) or not (place.is_first or known.version.is_provable):
                    if not known.version.is_provable:
                        place.own = None  # what it has is not what was named, of which there is nothing but the size
                    if place.is_first:
                        raise OriginChangedError(f"{place.url}: the remote file was replaced")
                    raise OtherBytesError(f"{place.url} has other bytes, or its checksum cannot be had")
            own = None if known is None or place.own is None else place.own[0]
            try:
                fetched = await origin.fetch(ranges, known=own, arrived=arrived)
            except OriginChangedError as error:
                place.own = None
                if known is None or place.is_first:
                    raise
                raise OtherBytesError(f"{place.url} has other bytes by now") from error
            if fetched.info is None:
                return fetched
            return fetched._replace(info=known or self._named(await place.take(fetched.info)))

        size = None if known is None else known.version.size_bytes
        return await self._ask(fetch, ranges, size)

    def _named(self, info: Info) -> Info:
        """Return what any place says of the file by the name that the application has for it."""
        return replace(info, details={**info.details, "name": self._first.path})

    @staticmethod
    async def _stat(place: Place, origin: FileSystemOrigin) -> Info:
        return await place.take(await origin.stat())

    async def _ask(
        self,
        request: Callable[[Place, FileSystemOrigin], Awaitable[T]],
        ranges: Sequence[OriginRange] = (),
        size: int | None = None,
    ) -> T:
        at = self._at
        place, session = self._places[at], current()
        retries = Retries(10) if session is None else session.retries
        # Where nobody would ask another one, it has all the time that it has plain.
        is_last = len(self._met.keys() | {at}) == len(self._places) or len(self._met) >= retries.most
        try:
            if is_last:
                answer = await self._there(place, request)
            else:
                hang_s = patience_s(retries.for_s, len(self._places))
                answer = await self._in_time(place, request, ranges, size, hang_s)
        except OriginChangedError:
            raise
        except Exception as error:
            self._fail(at, error)
            if self._failures.get(0, error) is error:
                raise
            raise self._failures[0] from error  # as the file system says it that the application asked
        errors = (
            () if not isinstance(answer, Fetched) else [each for each in answer.data if isinstance(each, Exception)]
        )
        if errors:
            self._fail(at, errors[0])
        else:
            self._met.clear()
            self._failures.clear()
        return answer

    async def _in_time(
        self,
        place: Place,
        request: Callable[[Place, FileSystemOrigin], Awaitable[T]],
        ranges: Sequence[OriginRange],
        size: int | None,
        hang_s: float,
    ) -> T:
        """Make a request at a place, and give it up where that does not answer; who sends much may take long."""

        async def ask_size(_: Place, origin: FileSystemOrigin) -> int:
            return (await origin.stat()).version.size_bytes

        asked = asyncio.ensure_future(self._there(place, request))
        try:
            await asyncio.wait({asked}, timeout=hang_s + seconds_for(ranges, size))
            if not asked.done() and size is None:
                # Whether it is alive is a question of its own. Where two calls at once cannot be, it is taken to be.
                if place.origin is None or not place.origin.one_at_a_time:
                    async with asyncio.timeout(hang_s):
                        size = await self._there(place, ask_size)
                left_s = None if size is None else hang_s + seconds_for(ranges or [(0, None)], size)
                await asyncio.wait({asked}, timeout=left_s)
            if not asked.done():
                raise TimeoutError(f"{place.url} does not answer")
            return asked.result()
        finally:
            asked.cancel()

    async def _there(self, place: Place, request: Callable[[Place, FileSystemOrigin], Awaitable[T]]) -> T:
        """Make a request at a place, on the event loop of its file system."""
        if place.origin is None:
            with reaching():
                fs, path = await in_thread(lambda: url_to_fs(place.url))
            place.origin = self._make(fs, path, self._first.identity)
        origin, fs = place.origin, place.origin.fs
        loop = fs.loop if fs.async_impl and origin is not self._first else None
        if loop is None or loop is asyncio.get_running_loop():
            return await request(place, origin)

        async def asked() -> T:
            return await request(place, origin)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked(), loop))

    def _fail(self, at: int, error: Exception) -> None:
        """Have the next place asked from now on."""
        self._failed_s[self._places[at].server] = time.monotonic()
        if at != self._at:
            return  # another request has found that out
        self._met[at] = error
        self._failures = {}
        if len(self._met) == len(self._places):
            self._met, self._failures = {}, self._met
        self._at = min(range(len(self._places)), key=lambda i: (i in self._met, self._down_until(self._places[i])))

    def _down_until(self, place: Place) -> float:
        return self._failed_s.get(place.server, -DOWN_S) + DOWN_S


def patience_s(for_s: float, count: int) -> float:
    """Return how long one of so many places may be silent, if all are to be asked while requests are sent again."""
    return min(HANG_S, max(1.0, for_s / count))


def seconds_for(ranges: Sequence[OriginRange], size: int | None) -> float:
    """Return how long the bytes of ranges may take; of those that end where nobody knows, none."""
    stops = [size if stop is None else stop for _, stop in ranges]
    wanted = sum(stop - start for (start, _), stop in zip(ranges, stops, strict=True) if stop is not None)
    return max(wanted, 0) / SLOWEST_BYTES_PER_S
