"""What is asked of an HTTP server about a file, beside its bytes: by `HEAD`, or by a `GET` of one byte."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp

from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Info, OriginRange
from jcache_plugins.origins.answers import (
    Encoded,
    Validators,
    content_range,
    details_of,
    is_plain,
    is_settled_since,
    length_of,
    size_beyond,
)
from jcache_plugins.origins.base import FileSystemOrigin, UnsizedError, adler32, beside, is_past, reaching
from jcache_plugins.origins.sharing import headers_of, sharing_of

__all__ = ["OK", "OUT_OF_RANGE", "PARTIAL", "PRECONDITION_FAILED", "RANGE_REFUSED", "WHOLE", "HttpQuestions"]

OK, NO_CONTENT, PARTIAL, NOT_FOUND, PRECONDITION_FAILED, OUT_OF_RANGE = 200, 204, 206, 404, 412, 416
# How servers refuse a range that they would have answered with the file.
RANGE_REFUSED = frozenset({400, 405, 501})
# A `HEAD` that takes longer than this will not be answered.
HEAD_S = 10.0
# So long a file is taken to be one of which the server gives no size.
UNSIZED_S = 60.0
WHOLE = (0, None)


class HttpQuestions(FileSystemOrigin):
    """What an HTTP server says of one file: its version, its length, for whom it is.

    What a `GET` says goes before what a `HEAD` says. One that fails, says less, or contradicts is not sent again for
    this file: a `GET` of one byte asks instead.
    """

    exists_by_reading = True

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        self._validators = Validators()
        # Whether `HEAD` is asked, and which versions it has named.
        self._heads: bool = True
        self._by_head: frozenset[Version] = frozenset()
        # The one that a GET named as well, last, and how: where the tags are one, the times may be two.
        self._by_get: tuple[Version, Version] | None = None
        self._is_misled = self._raises = False
        self._unsized_until_s = 0.0
        # How long the file is by what a GET says.
        self._sizes: frozenset[int] = frozenset()
        # A version as `GET` names it and as `HEAD` does; while it is not sure that it is one, that of `HEAD`.
        self._also: tuple[Version, Version] | None = None
        self._doubted: Version | None = None
        # Whether parts are asked for; else the file is, and read on from where it is.
        self._ranged: bool = True
        # Whether who asks for a part is refused, and not given the file.
        self._refuses: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the server sends no parts of the file."""
        return not self._ranged

    def says_length(self, nbytes: int) -> bool:
        """Whether a `GET` has said that the file is so long, and none something else."""
        return self._sizes == {nbytes}

    @property
    def is_got(self) -> bool:
        """Whether a `GET` has told of the file: some servers refuse it where `HEAD` does not."""
        return self._by_get is not None or bool(self._sizes)

    async def stat_by_reading(self) -> Info | None:
        """Ask by a `GET` of one byte; None where the answer does not tell how long the file is."""
        with reaching():
            return await self._ask_get(await self.fs.set_session())

    async def stat(self) -> Info:
        """Ask for the file's version now: the one that answers to range requests name."""
        if time.monotonic() < self._unsized_until_s:
            raise UnsizedError(self.path)
        with reaching():
            session = await self.fs.set_session()
            info = await self._ask_head(session) if self._heads else None
            if info is None:
                self._heads = False
                info = await self._ask_get(session)
        if info is None:
            asked_s = time.time()
            info = await super().stat()
            if not is_past(info.version.mtime_ns, asked_s):
                info = replace(info, version=info.version._replace(mtime_ns=None))
            # As HEAD says, which may be 0 of a file that is made when it is asked for.
            self._by_head |= {info.version}
            if self._is_misled or not info.version.size_bytes:
                self._unsized_until_s = time.monotonic() + UNSIZED_S
                msg = f"{self.path}: the origin gives no size"
                raise UnsizedError(msg)
        # With a range, Content-MD5 is that of the range.
        return replace(info, version=info.version._replace(checksum=None)) if info.version.checksum else info

    async def checksum(self) -> str | None:
        """Ask for the digest that storage systems of physics give with `Want-Digest` (RFC 3230)."""
        options = dict(self.fs.kwargs)
        headers = {**(options.pop("headers", None) or {}), "Want-Digest": "adler32"}
        try:
            session = await self.fs.set_session()
            async with (
                asyncio.timeout(HEAD_S),
                session.head(self.fs.encode_url(self.path), headers=headers, **options) as response,
            ):
                told = response.headers.get("Digest", "").split(",")
        except Exception:  # noqa: BLE001 - then there is none
            return None
        return next((found for digest in told if (found := adler32(*digest.partition("=")[::2]))), None)

    async def _ask_head(self, session: Any) -> Info | None:
        """Ask by `HEAD`; None where that fails, or does not name a version."""
        options = dict(self.fs.kwargs)
        headers = {**(options.pop("headers", None) or {}), "Accept-Encoding": "identity"}
        options.setdefault("allow_redirects", True)
        asked_s = time.time()
        try:
            async with (
                asyncio.timeout(HEAD_S),
                session.head(self.fs.encode_url(self.path), headers=headers, **options) as response,
            ):
                size = length_of(response.headers)
                if response.status != OK or not size:
                    return None
                info = self._info(response, size)
                if not is_settled_since(asked_s, response.headers):
                    info = replace(info, version=info.version._replace(mtime_ns=None))
        except Exception:  # noqa: BLE001 - there is a better way to ask
            return None
        if not info.version.is_provable:
            return None
        self._by_head |= {info.version}
        return info

    async def _ask_get(self, session: Any) -> Info | None:
        """Ask for one byte; None where the answer does not tell how long the file is."""
        async with self._request(session, (0, 1)) as response:
            if response.status in RANGE_REFUSED:
                self._ranged, self._refuses = False, True
                return None
            if response.status != OUT_OF_RANGE:
                self._raise_for_status(response)
            found, size = content_range(response.headers), length_of(response.headers)
            if response.status == OUT_OF_RANGE:
                size = 0 if size_beyond(response.headers) == 0 else None
            elif found is not None or response.status != OK:
                size = None if found is None else found[2]
            elif size == 1:
                size = None  # the file, or the range?
            info = None
            if size is not None and is_plain(response.headers):
                self._sizes |= {size}
                info = self._info(response, size)
            if response.status == OK:
                response.close()  # the file itself is on its way
        if info is None or self._doubted is None:
            return info
        # Either the file was replaced since, or HEAD calls the same version by another name.
        doubted, self._doubted = self._doubted, None
        again = [head.version for head in (await self._ask_head(session), await self._ask_head(session)) if head]
        if any(doubted.tells_from(version) is not True for version in again) or len(set(again)) > 1:
            self._also = info.version, doubted
        return replace(info, also=self._also_named(info.version))

    def _info(self, response: Any, size: int) -> Info:
        more: dict[str, Any] = {}
        if response.headers.get("Accept-Ranges") == "none":
            more["partial"] = False
            self._ranged = False
        version = self._version(response.headers, size)
        details = details_of(self.path, size, response.headers, **more, url=str(response.url))
        return Info(
            version, details, sharing_of(headers_of(response, self.fs), self.fs), also=self._also_named(version)
        )

    def _also_named(self, version: Version) -> Version | None:
        """Return what `HEAD` calls the version that a `GET` names; of a later version it says nothing."""
        return self._also[1] if self._also is not None and self._also[0].tells_from(version) is False else None

    def _version(self, headers: Mapping[str, str], size: int) -> Version:
        return self._validators.version(headers, size)

    def _is_named(self, version: Version, seen: Version) -> None:
        """Keep how a `GET` names a version."""
        self._by_get = version, seen

    def _tells(self, version: Version, seen: Version) -> bool | None:
        """Whether what a `GET` names is another version than this one, which may be known by what `HEAD` said."""
        told = version.tells_from(seen)
        if told and self._by_get is not None and self._by_get[0] == version:
            return self._by_get[1].tells_from(seen)
        return told

    def _is_by_head_alone(self, version: Version) -> bool:
        """Whether it was `HEAD` that named a version, and no `GET`."""
        return version in self._by_head and (self._by_get is None or version != self._by_get[0])

    def _is_sized_by_head_alone(self, version: Version) -> bool:
        return self._is_by_head_alone(version) and version.size_bytes not in self._sizes

    async def _is_so_by_get(self, session: Any, known: Info) -> bool:
        """Whether a `GET` says it too; else `HEAD` is not asked any more."""
        try:
            info = await self._ask_get(session)
        except Exception:  # noqa: BLE001 - it has not said so
            info = None
        if info is not None and known.version.tells_from(info.version) is False:
            self._is_named(known.version, info.version)
            return True
        self._heads, self._doubted, self._is_misled = False, known.version, True
        return False

    def _request(self, session: Any, part: OriginRange, etag: str | None = None) -> Any:
        start, stop = part
        options = dict(self.fs.kwargs)
        headers = dict(options.pop("headers", None) or {})
        # Offsets count the bytes of the file itself, not those of a compressed transfer of it.
        headers["Accept-Encoding"] = "identity"
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if etag is not None:
            headers["If-Match"] = etag
        # The status says what is to be done, also where the client would raise for it.
        self._raises = bool(options.pop("raise_for_status", getattr(session, "raise_for_status", False)))
        return session.get(self.fs.encode_url(self.path), headers=headers, raise_for_status=False, **options)

    def _raise_for_status(self, response: Any) -> None:
        beside(self.fs, Encoded).note(self.path, response.headers)
        try:
            response.raise_for_status()
        except aiohttp.ClientResponseError as error:
            if response.status == NOT_FOUND and not self._raises:
                raise FileNotFoundError(self.path) from error
            raise
        if not OK <= response.status < 300 or response.status == NO_CONTENT:
            msg = f"{self.path}: the server answered with {response.status} {response.reason}"
            raise UnsizedError(msg)  # whatever the client makes of it
