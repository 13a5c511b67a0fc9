"""S3 over s3fs: every response names its version, and ranges are asked for under it."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError
from fsspec.asyn import _get_batch_size
from s3fs.core import _error_wrapper
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.snapshot import REPLACED, agrees
from jcache.reader.remote import Span
from jcache_plugins.origins.base import (
    FileSystemOrigin,
    UnsizedError,
    is_settled,
    nanoseconds,
    reaching,
    strong,
    version_of,
)

__all__ = ["S3Origin"]

PARTIAL, OUT_OF_RANGE = 206, 416
# How servers refuse a request that they might have answered without a condition.
CONDITION_REFUSED = frozenset({400, 412, 501})
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# What stands between an object's key and the version that is meant of it.
PIN = "?versionId="
# The version of an object that was written while its bucket kept no versions: another one takes its name.
UNVERSIONED = "null"
# Options of a read that leave open which bytes are meant.
TUNING = frozenset({"chunksize", "max_concurrency"})
# What `info` says of an object besides its name, size and type, and what it says where the server says nothing.
TOLD: Mapping[str, Any] = {
    "ETag": "",
    "LastModified": "",
    "StorageClass": "STANDARD",
    "VersionId": None,
    "ContentType": None,
}


class S3Origin(FileSystemOrigin):
    """One object of an S3 server, or one version of it.

    All requests go through s3fs's own `_call_s3`, so its options, retries, credentials and errors hold. A GET is sent
    with `If-Match` where the version is known, and its response names the one that its bytes are of. S3 replaces
    objects as a whole, so nothing is asked behind the bytes.
    """

    lenient = False

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name an object; the arguments are those of `FileSystemOrigin`, the path as `named` gives it."""
        name, _, version_id = path.partition(PIN)
        super().__init__(fs, name, identity)
        self._bucket, self._key, _ = fs.split_path(name)
        self._pin = {"VersionId": version_id} if version_id else {}
        self.immutable = bool(version_id)
        # Whether conditions are sent, and HEAD is asked; and a version as GET names it, and as HEAD does.
        self._conditional = self._heads = True
        self._also: tuple[Version, Version] | None = None

    @classmethod
    def named(cls, fs: Any, path: str, options: Mapping[str, Any]) -> str | None:
        """Return the path with the version that a call asks for: by an option, or in the path where s3fs heeds it."""
        rest = {name: value for name, value in options.items() if name not in TUNING and value is not None}
        version_id, opened = rest.pop("version_id", None), rest.pop("mode", None)
        if opened and version_id and not fs.version_aware:
            return None  # s3fs refuses to
        if rest.pop("requester_pays", fs.requester_pays) != fs.requester_pays or rest:
            return None
        name, _, pinned = path.partition(PIN)
        version_id = version_id or (pinned if fs.version_aware else None)
        if version_id == UNVERSIONED:
            return None  # not one version, and yet named as one
        return f"{name}{PIN}{version_id}" if version_id else name

    @classmethod
    def written(cls, path: str) -> str:
        """Return the path of what changes: s3fs heeds no version where it writes."""
        return path.partition(PIN)[0]

    def kept(self, details: Mapping[str, Any]) -> str | None:
        """Return the name of one version of the object, None unless the file system reads on in an overwritten one."""
        version_id = details.get("VersionId")
        if self._pin or not self.fs.version_aware or version_id in {None, UNVERSIONED}:
            return None
        return f"{self.path}{PIN}{version_id}"

    async def stat(self) -> Info:
        """Ask for the object's `info` now, and leave the listings that s3fs has cached as they are."""
        if not self._key:
            raise DirectoryError(self.path)
        with reaching():
            return await (self._ask_head() if self._heads else self._ask_get())

    async def _ask_head(self) -> Info:
        if self._pin:
            answer = await self._call("call_s3", "head_object", self.fs.kwargs, **self._names())
            details = self._details(answer, answer["ContentLength"])
            return Info(version_of(details) if self._is_pinned(answer) else Version(details["size"]), details)
        details = await self.fs._info(self.path, refresh=True)  # noqa: SLF001 - fsspec's asynchronous interface
        if details["type"] == "directory":
            raise DirectoryError(self.path)
        return Info(version_of(details), details)

    async def _ask_get(self) -> Info:
        answer = await self._get((0, 1), None)
        info = None if isinstance(answer, Exception) else self._common([answer], None)
        if info is None:
            return await self._ask_head()
        is_also = self._also is not None and agrees(self._also[0], info.version)
        return replace(info, also=self._also[1]) if self._also is not None and is_also else info

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges side by side, each in a request of its own, as fsspec does."""
        with reaching():
            if len(ranges) == 1:
                answers = [await self._get(ranges[0], known)]
            else:
                limit = asyncio.Semaphore(max(1, self.fs.batch_size or _get_batch_size(nofiles=True)))

                async def one(part: OriginRange) -> "_Answer | Exception":
                    async with limit:
                        return await self._get(part, known)

                answers = await asyncio.gather(*map(one, ranges))
        if arrived is not None:
            arrived()
        for answer in answers:
            if isinstance(answer, OriginChangedError):
                raise answer
        good = [answer for answer in answers if isinstance(answer, _Answer)]
        try:
            info = self._common(good, known)
        except OriginChangedError:
            with reaching():
                await self._doubt_head(good, known)
            raise
        return Fetched(
            [answer.body if isinstance(answer, _Answer) else answer for answer in answers],
            info,
            recordable=all(answer.settled for answer in good),
            requests=len(ranges) + sum(answer.requests - 1 for answer in good),
            retries=sum(answer.retries for answer in good),
        )

    def without_bytes(self, start: int | None, stop: int | None, size: int) -> Span | Exception | None:
        """Return what a range without a byte means to S3: another range, an error, or None for nothing.

        A range behind the end is an error. One that ends before it begins is none at all (RFC 9110, 14.1.1), and the
        whole object is sent; Ceph's gateway, where it may be asked, calls that an error as well.
        """
        first = start or 0
        if start is None and stop is None:
            return None
        first += size if first < 0 else 0
        last = size + 1 if stop is None else stop + size if stop < 0 else stop
        if first >= size and last > 0:
            return out_of_range()
        return (None, None)

    def replaced(self, version: Version) -> Exception:
        """Return what is both s3fs's error and JCache's."""
        return ReplacedError(self.path, version.etag)

    async def _doubt_head(self, answers: "Sequence[_Answer]", known: Info | None) -> None:
        """Ask by GET from now on, where HEAD sticks to a version that these answers contradict."""
        seen = next((answer.version for answer in answers if answer.version is not None), None)
        if known is None or seen is None or not self._heads or agrees(known.version, seen):
            return
        try:
            head = await self._ask_head()
        except Exception:  # noqa: BLE001 - what it was asked for is known
            return
        if agrees(known.version, head.version):
            self._heads, self._also = False, (seen, known.version)

    # -- one range --------------------------------------------------------------------------------------------

    def _names(self) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._key, **self._pin}

    async def _get(self, part: OriginRange, known: Info | None) -> "_Answer | Exception":
        start, stop = part
        request = self._names()
        if start or stop is not None:
            request["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        etag = None if known is None else known.version.etag
        is_asked = not self._pin and self._conditional and not getattr(self.fs, "local_expiry_check", False)
        if etag is not None and is_asked:
            request["IfMatch"] = etag
        tries = 0

        async def attempt() -> _Answer:
            nonlocal tries
            tries += 1
            asked_s = time.time()
            response = await self.fs._call_s3("get_object", self.fs.req_kw, **request)  # noqa: SLF001 - s3fs's way to its client
            try:
                return await self._answer(response, start, stop, known, asked_s)
            finally:
                response["Body"].close()

        try:
            try:
                answer = await _error_wrapper(attempt, retries=self.fs.retries)
            except Exception as error:
                if status_of(error) not in CONDITION_REFUSED or request.pop("IfMatch", None) is None:
                    raise
                # Some refuse whatever has a condition. What this answer names says whether the object was replaced.
                answer = await _error_wrapper(attempt, retries=self.fs.retries)
                self._conditional = answer.version is None or answer.version.etag != etag
                answer.requests, tries = answer.requests + 1, tries - 1
        except Exception as error:  # noqa: BLE001 - the result of this range; the others have theirs
            if status_of(error) == OUT_OF_RANGE and known is not None:
                return OriginChangedError(REPLACED)  # ranges are clamped to a known size: the object has shrunk
            if isinstance(error, FileNotFoundError) and "Range" not in request and self.fs.max_concurrency > 1:
                return FileNotFoundError(self.path)  # its own method asks for the size first, and says it so
            return error
        answer.retries += tries - 1
        return answer  # type: ignore[no-any-return]  # s3fs is untyped

    async def _answer(
        self, response: Mapping[str, Any], start: int, stop: int | None, known: Info | None, asked_s: float
    ) -> "_Answer":
        length: int | None = response.get("ContentLength")
        partial = response["ResponseMetadata"]["HTTPStatusCode"] == PARTIAL
        version = self._version(response, start, stop) if partial else version_told(response, length)
        answer = _Answer(response, version if self._is_pinned(response) else None, asked_s)
        if known is not None and version is not None and not agrees(known.version, version):
            return answer  # of no use, however long it is
        chunk = self.fs.default_block_size
        asked = partial or (not start and stop is None)
        if asked and length is not None and length > chunk and self.fs.max_concurrency > 1 and answer.is_tagged:
            bodies = [await read_exactly(response["Body"], chunk)]
            bodies += await self._rest(range(start + chunk, start + length, chunk), start + length, answer)
            answer.body, answer.requests = b"".join(bodies), len(bodies)
            return answer
        answer.body = await response["Body"].read()
        if length is not None and len(answer.body) != length:
            msg = f"{self.path}: got {len(answer.body)} of {length} bytes"
            raise ShortReadError(msg)
        if not asked:
            answer.body = answer.body[start:stop]  # a server without ranges
        return answer

    async def _rest(self, starts: range, stop: int, first: "_Answer") -> list[bytes]:
        """Read what follows the first chunk of a large body side by side, as s3fs does with large objects."""
        assert first.version is not None  # or nothing could be asked for under it
        known = Info(first.version)
        bodies: list[bytes] = []
        for i in range(0, len(starts), self.fs.max_concurrency):
            parts = [(at, min(at + starts.step, stop)) for at in starts[i : i + self.fs.max_concurrency]]
            for answer in await asyncio.gather(*(self._get(part, known) for part in parts)):
                if isinstance(answer, Exception):
                    raise answer
                self._common([answer], known)
                bodies.append(answer.body)
        return bodies

    # -- versions -----------------------------------------------------------------------------------------------

    def _version(self, response: Mapping[str, Any], start: int, stop: int | None) -> Version | None:
        """Return the version that a partial response names, having checked that it holds the range asked for."""
        match = CONTENT_RANGE.match(response.get("ContentRange") or "")
        if match is None or match[3] == "*":
            return None
        size = int(match[3])
        if int(match[1]) != start or int(match[2]) + 1 != (size if stop is None else min(stop, size)):
            msg = f"{self.path}: asked for bytes {start}-{stop}, got {match[0]}"
            raise ShortReadError(msg)
        return version_told(response, size)

    def _is_pinned(self, response: Mapping[str, Any]) -> bool:
        """Whether a response is of the version that was asked for, if one was: some servers know of none."""
        return not self._pin or response.get("VersionId") == self._pin["VersionId"]

    def _details(self, response: Mapping[str, Any], size: int) -> dict[str, Any]:
        """Return what `info` says of an object, out of a response that is about it."""
        told = {name: response.get(name, otherwise) for name, otherwise in TOLD.items()}
        return {**told, "size": size, "name": f"{self._bucket}/{self._key}", "type": "file"}

    def _common(self, answers: "Sequence[_Answer]", known: Info | None) -> Info | None:
        """Return the one version that all bytes are proved to be of, None where a response does not say.

        Raises:
            OriginChangedError: They are not of one version, or not of the known one.
        """
        for answer in answers:
            if answer.version is None:
                return None
            if known is None:
                known = Info(answer.version, self._details(answer.response, answer.version.size_bytes))
            elif not agrees(known.version, answer.version):
                raise OriginChangedError(REPLACED)
        return known


class ReplacedError(OriginChangedError, FileExpired):  # type: ignore[misc]  # s3fs is untyped
    """An object was replaced while a file object read it."""


class DirectoryError(FileNotFoundError, UnsizedError):
    """There is no object of this name, but others below it: s3fs opens an empty file, and finds nothing to read."""


class _Answer:
    """The bytes of one range and what the response said of them."""

    __slots__ = ("body", "requests", "response", "retries", "settled", "version")

    def __init__(self, response: Mapping[str, Any], version: Version | None, asked_s: float) -> None:
        self.body = b""
        self.response = response
        self.version = version
        self.settled = version is None or is_settled(version, asked_s)
        self.requests = 1
        self.retries = response["ResponseMetadata"].get("RetryAttempts", 0)

    @property
    def is_tagged(self) -> bool:
        """Whether further bytes can be asked for under the condition that they are of this version."""
        return self.version is not None and self.version.etag is not None


def version_told(response: Mapping[str, Any], size: int | None) -> Version | None:
    """Return the version that a response names of an object of a size, None where that is not known."""
    if size is None:
        return None
    return Version(size, mtime_ns=nanoseconds(response.get("LastModified")), etag=strong(response.get("ETag")))


async def read_exactly(body: Any, nbytes: int) -> bytes:
    """Read so many bytes of a response's body.

    Raises:
        ShortReadError: It ends before.
    """
    pieces: list[bytes] = []
    left = nbytes
    while left and (piece := await body.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left:
        msg = f"got {nbytes - left} of {nbytes} bytes"
        raise ShortReadError(msg)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind what s3fs raises, None where there was no response."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def out_of_range() -> Exception:
    """Return what s3fs raises for a range behind the end of an object."""
    told = {"Error": {"Code": "InvalidRange", "Message": "The requested range is not satisfiable"}}
    error: Exception = translate_boto_error(ClientError(told, "GetObject"))
    return error
