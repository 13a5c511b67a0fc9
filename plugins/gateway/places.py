"""Where files are: the file system of an origin, and how the paths of requests become its paths."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from fsspec.core import split_protocol
from fsspec.implementations.http import HTTPFileSystem

from jcache.session import current
from jcache_plugins.fsspec.access import Access
from jcache_plugins.gateway.allowed import Allowed, guarded_session
from jcache_plugins.gateway.targets import BadTargetError, Forwarded, Mounted
from jcache_plugins.origins.base import in_thread
from jcache_plugins.places import PlaceError, remote_place

__all__ = ["OriginError", "Place"]

HTTP = ("http", "https")
# So long, and of so many files, it is remembered that nothing proves their version.
UNPROVED_S, UNPROVED = 60.0, 4096
# Of so many hosts it is known how many requests are made.
HOSTS = 1024


class OriginError(ValueError):
    """An origin cannot be served; the message says why."""


class Place:
    """One origin, or all that are forwarded to.

    Attributes:
        fs: Its file system, as a job would make it; it is asked on its own event loop, which is the server's.
        streams: A client of HTTP for what passes through, where each client may take its time.
        is_mounted: Whether it is one origin, whose paths are those of requests.
    """

    def __init__(
        self, fs: Any, base: str, *, is_mounted: bool, requests: int, allowed: Allowed | None = None, via: str = ""
    ) -> None:
        self.fs = fs
        self._requests, self._allowed, self._via = requests, allowed, via
        self._base = base
        self.is_mounted = is_mounted
        # Files of which nothing proved the version, and until when they are not asked for one.
        self._unproved: dict[str, float] = {}
        # By host, where there are several: one that is slow holds up nobody else's.
        self._limits: dict[str, asyncio.Semaphore] = {}
        self.streams: Any = None
        self.is_http = isinstance(fs, HTTPFileSystem)

    def open(self) -> None:
        """Prepare it to be asked, on its event loop."""
        if self._allowed is not None:
            made = [guarded_session(self._allowed, limit=n, headers={"Via": self._via}) for n in (self._requests, 0)]
            # Where fsspec would put one that goes anywhere. Not by an option: they tell files apart.
            self.fs._session, self.streams = made  # noqa: SLF001 - see above

    @classmethod
    def mount(cls, origin: str, *, requests: int, patterns: tuple[str, ...], via: str) -> "Place":
        """Return the place that an origin's URL names, which is no more asked than where it is.

        Raises:
            OriginError: There is no such file system here, or none that is cached.
        """
        if split_protocol(origin)[0] in HTTP:
            try:
                allowed = Allowed(patterns, origin=origin)
            except BadTargetError as error:
                raise OriginError(str(error)) from None
            if {"?", "#"} & set(origin):
                raise OriginError("an origin that is mounted has no query")
            fs = HTTPFileSystem(skip_instance_cache=True)
            return cls(fs, origin.rstrip("/"), is_mounted=True, requests=requests, allowed=allowed, via=via)
        try:
            fs, base = remote_place(origin)
        except PlaceError as error:
            raise OriginError(str(error)) from None
        return cls(fs, base.rstrip("/"), is_mounted=True, requests=requests)

    @classmethod
    def forward(cls, allowed: Allowed, *, requests: int, via: str) -> "Place":
        """Return the place of all URLs of HTTP that are allowed."""
        fs = HTTPFileSystem(skip_instance_cache=True)
        return cls(fs, "", is_mounted=False, requests=requests, allowed=allowed, via=via)

    def path(self, target: Mounted | Forwarded) -> str:
        """Return the path of a target, as the file system takes it.

        Raises:
            BadTargetError: There can be none of that name.
        """
        if isinstance(target, Forwarded):
            return target.url
        if self.is_http:
            # As it was spelt: what a plus sign means, say, is that server's affair.
            return f"{self._base}/{target.raw}{target.query}"
        if target.query or any("?" in name or "#" in name for name in target.names):
            raise BadTargetError("this origin has no queries, and none of its names has ? or # in it")
        return "/".join((self._base, *target.names))

    def limit(self, path: str) -> asyncio.Semaphore:
        """Return what bounds how many requests are made at once of the origin that a path is of."""
        host = "" if self.is_mounted else path.split("/", 3)[2]
        known = self._limits.get(host)
        if known is None:
            if len(self._limits) >= HOSTS:
                self._limits.pop(next(iter(self._limits)))  # who holds it goes on to do so
            known = self._limits[host] = asyncio.Semaphore(self._requests)
        return known

    def is_unproved(self, path: str) -> bool:
        """Whether nothing proved the version of a file a while ago."""
        until_s = self._unproved.get(path)
        return until_s is not None and time.monotonic() < until_s

    def note_unproved(self, path: str) -> None:
        """Take note that nothing proves the version of a file."""
        if len(self._unproved) >= UNPROVED:
            self._unproved.clear()
        self._unproved[path] = time.monotonic() + UNPROVED_S

    async def entries(self, target: Mounted) -> list[Mapping[str, Any]]:
        """Return what a directory lists, as the file system says it; asked under the limit.

        Raises:
            Exception: Whatever the file system raises.
        """
        return list(await self._ask("ls", target, detail=True))

    async def below(self, target: Mounted) -> list[Mapping[str, Any]]:
        """Return all files below a directory, as the file system says it; asked under the limit.

        Raises:
            Exception: Whatever the file system raises.
        """
        return list((await self._ask("find", target, detail=True)).values())

    async def told(self, target: Mounted) -> Mapping[str, Any]:
        """Return what the file system says of a file; asked under the limit.

        Raises:
            Exception: Whatever the file system raises.
        """
        told: Mapping[str, Any] = await self._ask("info", target)
        return told

    async def _ask(self, question: str, target: Mounted, **how: Any) -> Any:
        path = self.path(target)
        async with self.limit(path):
            if self.fs.async_impl:
                return await getattr(self.fs, f"_{question}")(path, **how)  # fsspec's asynchronous interface
            return await in_thread(lambda: getattr(self.fs, question)(path, **how))

    async def is_directory(self, target: Mounted) -> bool:
        """Whether the file system says that a path is a directory; what fails says no."""
        try:
            return bool(await self._ask("isdir", target))
        except Exception:  # noqa: BLE001 - then the error of reading it says more
            return False

    async def close(self) -> None:
        """Close what was opened to reach it."""
        if self.streams is not None:
            await self.streams.close()
            await self.fs._session.close()  # noqa: SLF001 - put there by `open`


def is_recording(found: Access) -> bool:
    """Whether what is fetched of a file now is recorded, as far as the settings and rules go."""
    session, terms = current(), found.terms
    cache = None if session is None else session.caches.get(found.directory)
    lets = terms is None or (terms.record and not terms.why_not and not terms.exclude)
    return lets and cache is not None and cache.writable
