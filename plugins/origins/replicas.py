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
from jcache_plugins.origins.base import FileSystemOrigin, in_thread, reaching

__all__ = ["Replicas"]

T = TypeVar("T")

# So long a place has for an answer while there is another one to ask; and so long a server that failed is asked last.
HANG_S, DOWN_S = 15.0, 60.0


class OtherBytesError(OSError):
    """What a place has is not known to be the same bytes."""


class Place:
    """One of the places.

    Attributes:
        origin: The way to it; None until it is first needed.
        own: The version that it has, in its own words, and the checksum of that; None until it was asked.
    """

    __slots__ = ("origin", "own", "url")

    def __init__(self, url: str, origin: FileSystemOrigin | None = None) -> None:
        self.url = url
        self.origin = origin
        self.own: tuple[Info, str | None] | None = None

    @property
    def server(self) -> str:
        """Who answers there."""
        return urlsplit(self.url).netloc

    async def take(self, info: Info) -> Info:
        """Take note of what it has; return that with the checksum, by which it is the same at other places."""
        assert self.origin is not None
        if self.own is None or not agrees(self.own[0].version, info.version):
            self.own = info, await self.origin.checksum()
        return replace(info, version=as_everywhere(info.version, self.own[1]))


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
            if known is not None and (place.own is None or not self._is_of(place.own, known)):
                told = await self._stat(place, origin)
                if not agrees(known.version, told.version):
                    if origin is self._first:
                        raise OriginChangedError(f"{place.url}: the remote file was replaced")
                    raise OtherBytesError(f"{place.url} has other bytes, or its checksum cannot be had")
            own = None if known is None or place.own is None else place.own[0]
            try:
                fetched = await origin.fetch(ranges, known=own, arrived=arrived)
            except OriginChangedError as error:
                place.own = None
                if known is None or origin is self._first:
                    raise
                raise OtherBytesError(f"{place.url} has other bytes by now") from error
            if fetched.info is None:
                return fetched
            return fetched._replace(info=known or self._named(await place.take(fetched.info)))

        return await self._ask(fetch)

    def _named(self, info: Info) -> Info:
        """Return what any place says of the file by the name that the application has for it."""
        return replace(info, details={**info.details, "name": self._first.path})

    @staticmethod
    def _is_of(own: tuple[Info, str | None], known: Info) -> bool:
        return agrees(known.version, as_everywhere(own[0].version, own[1]))

    @staticmethod
    async def _stat(place: Place, origin: FileSystemOrigin) -> Info:
        return await place.take(await origin.stat())

    async def _ask(self, request: Callable[[Place, FileSystemOrigin], Awaitable[T]]) -> T:
        at = self._at
        place = self._places[at]
        is_last = len(self._met.keys() | {at}) == len(self._places)
        try:
            async with asyncio.timeout(None if is_last else HANG_S):
                answer = await self._there(place, request)
        except OriginChangedError:
            raise
        except Exception as error:
            self._fail(at, error)
            if self._failures:
                raise self._failures[0] from error  # as the file system says it that the application asked
            raise
        errors = (
            () if not isinstance(answer, Fetched) else [each for each in answer.data if isinstance(each, Exception)]
        )
        if errors:
            self._fail(at, errors[0])
        else:
            self._met.clear()
            self._failures.clear()
        return answer

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


def as_everywhere(version: Version, checksum: str | None) -> Version:
    """Return a version with the checksum of the bytes, if there is one, and else as it is."""
    return version if checksum is None or version.checksum is not None else version._replace(checksum=checksum)
