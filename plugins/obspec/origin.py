"""One object of a store of obstore: ranges are asked for under a version, and every response names its own."""

import asyncio
import bisect
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any

import obstore
from obstore.exceptions import PreconditionError

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange, Sharing
from jcache.planning.snapshot import REPLACED, agrees
from jcache_plugins.fsspec.access import on_loop_of
from jcache_plugins.obspec.places import Place
from jcache_plugins.origins.answers import AT_ONCE_BYTES, PLAIN, details_of
from jcache_plugins.origins.base import UnsizedError, in_thread, is_past, is_settled, nanoseconds, reaching, strong

__all__ = ["StoreOrigin"]

# What obstore's errors say where somebody answered.
ANSWERED = "status code"
# So many requests obstore makes side by side for one vector.
SIDE_BY_SIDE = 10


class NoFileSystem:
    """In place of a file system: what is asked for synchronously is done on fsspec's own event loop."""

    async_impl = False


class StoreOrigin:
    """One object of a store, for one call of the application.

    A request has the condition that the object is of the known version, and its response tells the version that its
    bytes are of. All stores but HTTP servers replace objects as a whole, so nothing is asked behind the bytes; of an
    HTTP server it is asked behind bodies that are large or took longer than a round trip.

    Attributes:
        fs: No file system.
        path: For messages, and for what is remembered of it.
        lenient: Whether a range in which the object has no byte is served as no bytes.
        attributes: What the last response said of the object; None before.
    """

    fs = NoFileSystem()
    lenient = True
    slices = True
    is_got = True
    one_at_a_time = False

    def __init__(
        self, store: Any, place: Place, path: str, identity: Identity, *, coalesce: int = 0, begins: Any = None
    ) -> None:
        """Name an object.

        Args:
            store: The store.
            place: Where it has its objects.
            path: As the store takes it.
            identity: Which object the path means.
            coalesce: Ranges with gaps up to this many bytes between them are asked for in one request.
            begins: The options of the request that tells the version, where that may be the one that brings the bytes.
        """
        self.path = path
        self._store, self._place, self._identity = store, place, identity
        self._coalesce = coalesce
        self._begins = begins
        # The response to that, as long as nobody has read its body, and when it was asked for.
        self._begun: tuple[Any, float] | None = None
        self.attributes: Mapping[str, Any] | None = None

    @property
    def identity(self) -> Identity:
        """Which object this is."""
        return self._identity

    def replaced(self, version: Version) -> Exception | None:
        """Return nothing: no file object of obstore's tells that an object was replaced."""

    async def stat(self) -> Info:
        """Ask for the object's version now."""
        if self._begins is None:
            return await self._head()
        asked_at = time.time()
        response = await self._get(self._begins)
        self._begun, self._begins = (response, asked_at), None
        return self._info(response)

    async def _head(self) -> Info:
        try:
            return self._info(await self._get({"head": True}))
        except Exception as error:
            if not self._place.is_http or ANSWERED not in str(error):
                raise
        # Some servers answer no HEAD, which obstore takes for an absence; and a signature may be good for a GET alone.
        return self._info(await self._get({"range": (0, 1)}))

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges side by side, near ones in one request."""
        try:
            return await self._fetch(ranges, known, arrived)
        except OriginChangedError as error:
            if await self._is_restless():
                msg = f"{self.path}: its server names another version each time"
                raise UnsizedError(msg) from error
            raise

    async def _is_restless(self) -> bool:
        """Whether an HTTP server names another version each time that it is asked: by that nothing can be told."""
        if not self._place.is_http:
            return False
        try:
            one, other = [(await self._head()).version for _ in range(2)]
        except Exception:  # noqa: BLE001 - who cannot be asked has not said so
            return False
        return one.size_bytes == other.size_bytes and not agrees(one, other)

    async def _fetch(
        self, ranges: Sequence[OriginRange], known: Info | None, arrived: Callable[[], None] | None
    ) -> Fetched:
        parts = merged(ranges, self._coalesce)
        limit = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(part: OriginRange) -> "_Answer | Exception":
            async with limit:
                try:
                    return await self._answer(part, known)
                except Exception as error:  # noqa: BLE001 - the result of this range; the others have theirs
                    return error

        answers = [await one(parts[0])] if len(parts) == 1 else await asyncio.gather(*map(one, parts))
        if arrived is not None:
            arrived()
        good = [answer for answer in answers if isinstance(answer, _Answer)]
        info = self._common(good, known)
        if info is not None and self._place.is_http and any(answer.took_long for answer in good):
            await self._ask_again(info.version)
        return Fetched(
            [taken(parts, answers, part) for part in ranges],
            info,
            recordable=all(answer.settled for answer in good),
            requests=len(parts),
        )

    async def _get(self, options: Mapping[str, Any]) -> Any:
        with reaching():
            if on_loop_of(NoFileSystem):
                # The caller is synchronous. A thread of obstore's own may still hold results of asynchronous calls when
                # the interpreter is taken down, and abort it.
                return await in_thread(functools.partial(obstore.get, self._store, self.path, options=options))
            return await obstore.get_async(self._store, self.path, options=options)

    async def _body(self, response: Any) -> bytes:
        body = await (in_thread(response.bytes) if on_loop_of(NoFileSystem) else response.bytes_async())
        data: bytes = body.to_bytes()
        return data

    async def _answer(self, part: OriginRange, known: Info | None) -> "_Answer":
        asked_s, asked_at = time.monotonic(), time.time()
        begun = None
        if self._begun is not None:
            (response, begun_at), self._begun = self._begun, None
            if tuple(response.range) == (part[0], response.meta["size"] if part[1] is None else part[1]):
                begun, asked_at = response, begun_at
        if begun is None:
            begun = await self._ask(part, known)
        told_s = time.monotonic()
        body = await self._body(begun)
        start, stop = begun.range
        if start != part[0] or len(body) != stop - start:
            msg = f"{self.path}: asked for bytes {part[0]}-{part[1]}, got {len(body)} from {start} on"
            raise ShortReadError(msg)
        took_long = time.monotonic() - told_s > told_s - asked_s or len(body) > AT_ONCE_BYTES
        is_encoded = self._is_encoded(begun)
        answer = _Answer(body, self._info(begun), asked_at, is_encoded=is_encoded, took_long=took_long)
        if self._place.is_http:
            # nginx, for one, makes the entity tag of the time in whole seconds and the size.
            answer.settled = is_past(answer.info.version.mtime_ns, asked_at)
        return answer

    async def _ask(self, part: OriginRange, known: Info | None) -> Any:
        start, stop = part
        options: dict[str, Any] = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        etag = None if known is None else known.version.etag
        if etag is not None:
            try:
                return await self._get({**options, "if_match": etag})
            except PreconditionError:
                pass  # some servers refuse whatever has a condition: what comes without one says whether it is true
        return await self._get(options)

    async def _ask_again(self, version: Version) -> None:
        """Ask whether the object is still of a version.

        Raises:
            OriginChangedError: It is not.
        """
        try:
            now = await self._head()
        except Exception:  # noqa: BLE001 - the bytes are here, and were of that version as they were sent
            return
        if not agrees(version, now.version):
            raise OriginChangedError(REPLACED)

    def _common(self, answers: "Sequence[_Answer]", known: Info | None) -> Info | None:
        """Return the one version that all bytes are of, None where a body is not the object's bytes as they are.

        Raises:
            OriginChangedError: They are not of one version, or not of the known one.
        """
        info = known
        for answer in answers:
            if answer.is_encoded:
                return None
            if info is None:
                info = answer.info
            elif not agrees(info.version, answer.info.version):
                raise OriginChangedError(REPLACED)
        return info if answers else None

    # -- what a response says --------------------------------------------------------------------------------------

    def _info(self, response: Any) -> Info:
        meta, attributes = response.meta, response.attributes
        modified = meta["last_modified"]
        # obstore has the beginning of the epoch for what a server does not tell.
        mtime_ns = nanoseconds(modified) or None
        self.attributes = attributes
        version = Version(meta["size"], mtime_ns=mtime_ns, etag=strong(meta["e_tag"]))
        return Info(version, self._details(meta, attributes, modified if mtime_ns else None), self._sharing(attributes))

    def _details(
        self, meta: Mapping[str, Any], attributes: Mapping[str, Any], modified: datetime | None
    ) -> dict[str, Any]:
        """Return what the `info` of fsspec's file system would say, for it may be asked after the bytes were read."""
        kind = attributes.get("Content-Type")
        if self._place.is_http:
            told = {"ETag": meta["e_tag"], "Last-Modified": modified and format_datetime(modified, usegmt=True)}
            headers = {name: value for name, value in {**told, "Content-Type": kind}.items() if value is not None}
            return details_of(self._identity.url, meta["size"], headers)
        if self._place.protocols[0] != "s3":
            return {} if meta["version"] is None else {"version": meta["version"]}
        return {
            "ETag": meta["e_tag"] or "",
            "LastModified": modified or "",
            "StorageClass": attributes.get("Storage-Class", "STANDARD"),
            "VersionId": meta["version"],
            "ContentType": kind,
            "size": meta["size"],
            "name": self._place.path(self.path),
            "type": "file",
        }

    def _sharing(self, attributes: Mapping[str, Any]) -> Sharing:
        """Return for whom a response is; an HTTP server may say so in a header that obstore does not hand on."""
        if not self._place.is_http:
            return "all"
        directives = {item.partition("=")[0].strip().lower() for item in attributes.get("Cache-Control", "").split(",")}
        if "no-store" in directives:
            return "nobody"
        return "asker" if self._place.is_asked_for_one or "private" in directives else "all"

    def _is_encoded(self, response: Any) -> bool:
        return self._place.is_http and response.attributes.get("Content-Encoding", "") not in PLAIN


class _Answer:
    """The bytes of one request and what the response said of them."""

    __slots__ = ("body", "info", "is_encoded", "settled", "took_long")

    def __init__(self, body: bytes, info: Info, asked_at: float, *, is_encoded: bool, took_long: bool) -> None:
        self.body, self.info = body, info
        self.is_encoded, self.took_long = is_encoded, took_long
        self.settled = is_settled(info.version, asked_at)


def merged(ranges: Sequence[OriginRange], coalesce: int) -> list[OriginRange]:
    """Return the ranges to ask for, in the order of the bytes: those that have no large gap between them as one."""
    parts: list[OriginRange] = []
    for start, stop in sorted(ranges, key=lambda part: part[0]):
        last = parts[-1] if parts else None
        if last is not None and last[1] is not None and stop is not None and start - last[1] <= coalesce:
            parts[-1] = last[0], max(last[1], stop)
        else:
            parts.append((start, stop))
    return parts


def taken(
    parts: Sequence[OriginRange], answers: "Sequence[_Answer | Exception]", part: OriginRange
) -> bytes | Exception:
    """Return a range out of the answer that has it."""
    start, stop = part
    place = bisect.bisect_right(parts, start, key=lambda asked: asked[0]) - 1
    answer, first = answers[place], parts[place][0]
    if isinstance(answer, Exception) or parts[place] == part:
        return answer if isinstance(answer, Exception) else answer.body
    return answer.body[start - first : None if stop is None else stop - first]
