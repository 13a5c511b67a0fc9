"""HTTP over fsspec's `HTTPFileSystem`: every response names its version, and ranges are asked for under it."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jcache.cache import Identity
from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.origin import Fetched, Info, OriginRange
from jcache.reader.snapshot import REPLACED, agrees
from jcache_plugins.origins.base import FileSystemOrigin, is_past, nanoseconds, reaching, strong
from jcache_plugins.origins.sharing import sharing_of
from jcache_plugins.origins.witness import Testimony, Witnesses

__all__ = ["HttpOrigin"]

PLAIN = frozenset({"", "identity"})
OK, PARTIAL, PRECONDITION_FAILED, OUT_OF_RANGE, NOT_FOUND = 200, 206, 412, 416, 404
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
# What an `info` says of a file besides its size and type.
TOLD = ("ETag", "Content-MD5", "Digest", "Last-Modified")
CHUNK_BYTES = 1 << 20
RETRIES = 2
# So often the event loop is let go round after bytes have come, for what is to be asked next to be asked.
TURNS = 4
# What a server is taken to read from its disk in one go.
AT_ONCE_BYTES = 256 << 10


class HttpOrigin(FileSystemOrigin):
    """One file of an HTTP server (RFC 9110).

    Bytes are asked for with `If-Match` where the server has strong entity tags, and each response's own `ETag`,
    `Last-Modified` and `Content-Range` say which version its bytes are of: no request is spent on proof, but for one
    `HEAD` behind bodies that are large, or took longer than a round trip.
    """

    exists_by_reading = True

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        self._witnesses = Witnesses()

    async def stat(self) -> Info:
        """Ask for the file's `info` now; its version is what answers to range requests name as well."""
        with reaching():
            info = await self._asked()
        if info is None:
            info = await super().stat()
        # With a range, Content-MD5 is that of the range.
        return replace(info, version=replace(info.version, checksum=None)) if info.version.checksum else info

    async def _asked(self) -> Info | None:
        """Ask as the file system does; None where its own way says better what the answer means."""
        session = await self.fs.set_session()
        async with self._head(session) as response:
            headers = response.headers
            length = headers.get("Content-Length", "")
            if response.status != OK or not length.isdecimal() or headers.get("Content-Encoding", "") not in PLAIN:
                return None
            details = self._details(int(length), headers)
            if headers.get("Accept-Ranges") == "none":
                details["partial"] = False
            return self._told_by(headers, int(length), {**details, "url": str(response.url)})

    def _head(self, session: Any) -> Any:
        options = dict(self.fs.kwargs)
        headers = {**(options.pop("headers", None) or {}), "Accept-Encoding": "identity"}
        options.setdefault("allow_redirects", True)
        return session.head(self.fs.encode_url(self.path), headers=headers, **options)

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges side by side, each in a request of its own, as fsspec does."""
        with reaching():
            session = await self.fs.set_session()
            if len(ranges) == 1:
                only = await self._get(session, ranges[0], known)
                if isinstance(only, _Answer) and known is None and not only.beyond and not took_long((only,)):
                    return Fetched([only.body], only.info, recordable=only.settled, retries=only.retries)
                answers = [only]
            else:
                answers = await self._get_all(session, ranges, known)
            for answer in answers:
                if isinstance(answer, OriginChangedError):
                    raise answer
            good = [answer for answer in answers if isinstance(answer, _Answer)]
            info = common_info(good)
            if info is not None and known is not None:
                if not agrees(known.version, info.version):
                    raise OriginChangedError(REPLACED)
                info = known if known.sharing == info.sharing else replace(known, sharing=info.sharing)
            if info is not None and took_long(good):
                done_s = max(answer.done_s for answer in good)
                if arrived is not None:
                    arrived()
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                if not await self._is_proved_by_others(info.version, done_s):
                    await self._ask_again(session, info.version)
        return Fetched(
            [answer.body if isinstance(answer, _Answer) else answer for answer in answers],
            info,
            recordable=all(answer.settled for answer in good),
            requests=len(ranges),
            retries=sum(answer.retries for answer in good),
        )

    async def _get_all(
        self, session: Any, ranges: Sequence[OriginRange], known: Info | None
    ) -> "list[_Answer | Exception]":
        limit = asyncio.Semaphore(self.fs.batch_size or 64)

        async def one(part: OriginRange) -> "_Answer | Exception":
            async with limit:
                return await self._get(session, part, known)

        return await asyncio.gather(*map(one, ranges))

    async def _is_proved_by_others(self, version: Version, done_s: float) -> bool:
        """Whether the answer to a request that was sent behind the bytes says that the file is still of a version."""
        seen = await self._witnesses.version_behind(done_s)
        if seen is not None and not agrees(version, seen):
            raise OriginChangedError(REPLACED)
        return seen is not None

    async def _ask_again(self, session: Any, version: Version) -> None:
        """Ask whether the file is still of a version; servers that do not answer such questions are not pressed."""
        testimony = self._witnesses.ask()
        try:
            async with self._head(session) as response:
                if response.status != OK or not response.headers.get("Content-Length", "").isdecimal():
                    return
                now = self._version(response.headers, int(response.headers["Content-Length"]))
                testimony.tell(now if now.is_provable else None)
        finally:
            testimony.tell(None)
        if now.is_provable and not agrees(version, now):
            raise OriginChangedError(REPLACED)

    async def _get(self, session: Any, part: OriginRange, known: Info | None) -> "_Answer | Exception":
        retries = 0
        while True:
            try:
                answer = await self._get_once(session, part, known)
            except Exception as error:  # noqa: BLE001 - the result of this range; the others have theirs
                # A connection that the server closed between two requests is no failure of this one.
                if type(error).__name__ != "ServerDisconnectedError" or retries == RETRIES:
                    return error
                retries += 1
            else:
                answer.retries = retries
                return answer

    async def _get_once(self, session: Any, part: OriginRange, known: Info | None) -> "_Answer":
        start, stop = part
        options = dict(self.fs.kwargs)
        headers = dict(options.pop("headers", None) or {})
        # Offsets count the bytes of the file itself, not those of a compressed transfer of it.
        headers["Accept-Encoding"] = "identity"
        whole = start == 0 and stop is None
        if not whole:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if known is not None and known.version.etag is not None:
            headers["If-Match"] = known.version.etag
        testimony = self._witnesses.ask()
        try:
            return await self._answer(session, part, known, headers=headers, options=options, testimony=testimony)
        finally:
            testimony.tell(None)

    async def _answer(
        self,
        session: Any,
        part: OriginRange,
        known: Info | None,
        *,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
        testimony: Testimony,
    ) -> "_Answer":
        start, stop = part
        async with session.get(self.fs.encode_url(self.path), headers=headers, **options) as response:
            told_s = time.monotonic()
            testimony.tell(self._told(response))
            if response.status == PRECONDITION_FAILED and "If-Match" in headers:
                raise OriginChangedError(REPLACED)
            if response.status == OUT_OF_RANGE:
                return self._beyond(response.headers, known)
            if response.status == NOT_FOUND:
                raise FileNotFoundError(self.path)
            response.raise_for_status()
            if response.status not in {OK, PARTIAL}:
                msg = f"{self.path}: the server answered with {response.status} {response.reason}"
                raise OSError(msg)
            if response.status == PARTIAL:
                body = await response.read()
                if not located(response.headers):
                    known = None  # nothing proves where in the file these bytes are from
                size = self._check_range(response.headers, start, stop, len(body))
            else:
                body, size = await self._cut(response, start, stop)
            answer = _Answer(body, response.headers, self._info(response, size, known))
            answer.asked_s, answer.told_s, answer.done_s = testimony.asked_s, told_s, time.monotonic()
            return answer

    def _told(self, response: Any) -> Version | None:
        """Return the version that a response names before its body, if it is one that bytes can be held against."""
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status != PARTIAL or match is None or match[3] == "*":
            return None
        if response.headers.get("Content-Encoding", "identity") != "identity":
            return None
        version = self._version(response.headers, int(match[3]))
        return version if version.is_provable else None

    def _check_range(self, headers: Mapping[str, str], start: int, stop: int | None, length: int) -> int | None:
        """Check that a partial response holds the range asked for, whole; return the file's size if it is told."""
        match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
        if match is None or match[1] is None:
            # Delivered as the plain file system would, if it has the right length, and not as proved.
            if stop is None or length != stop - start:
                msg = f"{self.path}: partial response without a usable Content-Range"
                raise ShortReadError(msg)
            return None
        size = None if match[3] == "*" else int(match[3])
        last = int(match[2]) + 1
        ends = {stop, size} if stop is None or size is None else {min(stop, size)}
        if int(match[1]) != start or last not in ends or length != last - start:
            msg = f"{self.path}: asked for bytes {start}-{stop}, got {match[0]} with {length} bytes"
            raise ShortReadError(msg)
        return size

    async def _cut(self, response: Any, start: int, stop: int | None) -> tuple[bytes, int | None]:
        """Cut the range out of a response that has the whole file, reading no further than its end."""
        length = response.headers.get("Content-Length")
        size = int(length) if length is not None and not response.headers.get("Content-Encoding") else None
        if start == 0 and (stop is None or (size is not None and stop >= size)):
            body = await response.read()
            if size is not None and len(body) != size:
                msg = f"{self.path}: got {len(body)} of {size} bytes"
                raise ShortReadError(msg)
            return body, size
        pieces: list[bytes] = []
        at = 0
        while stop is None or at < stop:
            piece = await response.content.read(CHUNK_BYTES)
            if not piece:
                break
            end = len(piece) if stop is None else min(len(piece), stop - at)
            pieces.append(piece[max(start - at, 0) : end])
            at += len(piece)
        else:
            response.close()  # the rest of the body is of no use
        return b"".join(pieces), size

    def _beyond(self, headers: Mapping[str, str], known: Info | None) -> "_Answer":
        """Return nothing for a range behind the end, unless the file is known to have reached there."""
        match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
        if known is not None:
            raise OriginChangedError(REPLACED)  # ranges are clamped to a known size: the file has shrunk
        size = None if match is None or match[3] == "*" else int(match[3])
        # Many servers name no validator here.
        version = None if size is None else self._version(headers, size)
        proved = version is not None and version.is_provable
        info = self._told_by(headers, version.size_bytes) if version is not None and proved else None
        return _Answer(b"", headers, info, beyond=True, size_bytes=size)

    def _info(self, response: Any, size: int | None, known: Info | None) -> Info | None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            return None
        if size is not None:
            return self._told_by(response.headers, size)
        etag = strong(response.headers.get("ETag"))
        if known is None or etag is None or known.version.etag is None:
            return None
        if known.version.etag != etag:
            raise OriginChangedError(REPLACED)
        return known  # the size is not told, but the entity tag is that of the known one

    def _told_by(self, headers: Mapping[str, str], size: int, details: dict[str, Any] | None = None) -> Info:
        """Return what the headers of an answer say of the file, and for whom that is."""
        details = self._details(size, headers) if details is None else details
        return Info(self._version(headers, size), details, sharing_of(headers, self.fs))

    def _details(self, size: int | None, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return what `info` would have said, without asking."""
        details: dict[str, Any] = {"name": self.path, "size": size, "type": "file"}
        if "Content-Type" in headers:
            details["mimetype"] = headers["Content-Type"].partition(";")[0]
        for name in TOLD:
            value = headers.get(name)
            if value is not None:
                details[name] = value
        return details

    def _version(self, headers: Mapping[str, str], size: int) -> Version:
        return Version(size, mtime_ns=nanoseconds(headers.get("Last-Modified")), etag=strong(headers.get("ETag")))


def took_long(answers: "Sequence[_Answer]") -> bool:
    """Whether the file may have been overwritten in place while the server sent these bodies.

    A server names the version when it begins to send; nginx then goes on with whatever the file holds. Only a question
    behind the bytes can tell. It is spared for what a server has read at once as it named the version: little, and
    delivered within a round trip.
    """
    if len(answers) > 1:
        answers = [answer for answer in answers if answer.body]
    if not answers or not answers[0].body:
        return False
    round_trip_s = min(answer.told_s - answer.asked_s for answer in answers)
    sending_s = max(answer.done_s for answer in answers) - min(answer.told_s for answer in answers)
    return sending_s > round_trip_s or sum(len(answer.body) for answer in answers) > AT_ONCE_BYTES


class _Answer:
    """The bytes of one range and what the response said of them."""

    __slots__ = ("asked_s", "beyond", "body", "done_s", "info", "retries", "settled", "size_bytes", "told_s")

    def __init__(
        self,
        body: bytes,
        headers: Mapping[str, str],
        info: Info | None,
        *,
        beyond: bool = False,
        size_bytes: int | None = None,
    ) -> None:
        self.body = body
        self.info = info
        # Whether the range lies behind the end of the file, which has so many bytes.
        self.beyond = beyond
        self.size_bytes = size_bytes
        self.retries = 0
        # When the request was sent, its headers came, and its body was there.
        self.asked_s = self.told_s = self.done_s = 0.0
        date_ns = nanoseconds(headers.get("Date", ""))
        # By the server's own clock where it tells the time.
        read_s = time.time() if date_ns is None else date_ns / 1e9
        # nginx, for one, makes the entity tag of the mtime in whole seconds and the size: it is no stronger than those.
        self.settled = info is None or is_past(info.version.mtime_ns, read_s)


def located(headers: Mapping[str, str]) -> bool:
    """Whether a partial response says which range it holds."""
    match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
    return match is not None and match[1] is not None


def common_info(answers: Sequence[_Answer]) -> Info | None:
    """Return the one version that all answers are proved to be of, None if one of them does not say.

    Raises:
        OriginChangedError: They are not of one version.
    """
    telling = [answer for answer in answers if answer.info is not None or not answer.beyond]
    info = telling[0].info if telling else None
    for answer in telling:
        if answer.info is None or info is None:
            return None
        if not agrees(info.version, answer.info.version):
            raise OriginChangedError(REPLACED)
    for answer in answers:
        # No bytes to prove: it is enough that the file is as long as the others say.
        if info is not None and answer.beyond and answer.size_bytes not in {None, info.version.size_bytes}:
            raise OriginChangedError(REPLACED)
    return info
