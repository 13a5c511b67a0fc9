"""HTTP over fsspec's `HTTPFileSystem`: ranges are asked for under a version, and every response names its own."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange, Sharing
from jcache.planning.snapshot import REPLACED
from jcache_plugins.origins.answers import (
    Answer,
    content_range,
    cut,
    details_of,
    is_plain,
    is_short,
    length_of,
    size_beyond,
    took_long,
)
from jcache_plugins.origins.base import UnsizedError, reaching
from jcache_plugins.origins.questions import (
    OK,
    OUT_OF_RANGE,
    PARTIAL,
    PRECONDITION_FAILED,
    RANGE_REFUSED,
    WHOLE,
    HttpQuestions,
)
from jcache_plugins.origins.sharing import headers_of, sharing_of, strictest
from jcache_plugins.origins.stream import Stream
from jcache_plugins.origins.witness import Witnesses

__all__ = ["HttpOrigin"]

# How servers refuse a request that they would have answered without a condition.
CONDITION_REFUSED = frozenset({400, PRECONDITION_FAILED, 501})
# So often the event loop is let go round after bytes have come, for what is to be asked next to be asked.
TURNS = 4
# So often, and for so many bytes, it is asked again whether validators change where bytes do not: of two servers behind
# one name, each with tags of its own, chance says which one answers.
PROBES, PROBE_BYTES, PAUSE_S = 12, 4096, 0.01
# For so long a time of modification stays as it is that is always the present one.
SECOND_S = 1.0


class HttpOrigin(HttpQuestions):
    """One file of an HTTP server (RFC 9110).

    Bytes are asked for with `If-Match` where the server has strong entity tags, and each response's own `ETag`,
    `Last-Modified` and `Content-Range` say which version its bytes are of: no request is spent on proof, but for one
    `HEAD` behind bodies that are large, or took longer than a round trip.
    """

    transient = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        self._witnesses = Witnesses()
        # Whether conditions are sent, and whether the server answers a range by that range, as if it were the file.
        self._conditional = True
        self._sends_alone: bool | None = None
        self._stream: Stream | None = None
        self._probing = asyncio.Lock()

    def of_open_file(self, error: Exception) -> Exception:
        """Return the client's own error, which makes a missing file known where the file is read by name."""
        return error.__cause__ if isinstance(error.__cause__, aiohttp.ClientResponseError) else error

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges side by side, each in a request of its own, as fsspec does."""
        with reaching():
            session = await self.fs.set_session()
            if len(ranges) == 1:
                answers = [await self._get(session, ranges[0], known)]
            else:
                answers = await self._get_all(session, ranges, known)
            good = [answer for answer in answers if isinstance(answer, Answer)]
            while True:
                used = self._validators.tags, self._validators.times
                try:
                    for answer in answers:
                        if isinstance(answer, OriginChangedError):
                            raise answer
                    info = await self._prove(session, good, known, arrived)
                    break
                except OriginChangedError:
                    if not (self._is_misled or known is None) and self._is_by_head_alone(known.version):
                        if not await self._is_so_by_get(session, known):
                            raise
                        continue
                    async with self._probing:  # of two who ask by turns each may be named one and the same tag
                        is_known = used != (self._validators.tags, self._validators.times)
                        if not is_known and not await self._is_restless(session, good):
                            if known is None and len(answers) == 1 and good:
                                return Fetched([good[0].body], None, recordable=False)  # of one version, whichever
                            raise
                    arrived = None
                    self._witnesses = Witnesses()  # the others told by what is dropped now
        if info is None and known is not None and known.version.is_provable and not self._validators.all:
            raise UnsizedError(self.path)  # what it was known by was worth nothing
        return Fetched(
            [answer.body if isinstance(answer, Answer) else answer for answer in answers],
            info,
            recordable=all(answer.settled for answer in good),
            requests=len(ranges),
        )

    async def _prove(
        self, session: Any, answers: Sequence[Answer], known: Info | None, arrived: Callable[[], None] | None
    ) -> Info | None:
        """Return the one version that all answers are of, None if that is not proved.

        Raises:
            OriginChangedError: They are of several, or of another one than the known one.
        """
        info = self._common(answers, known)
        if info is not None and took_long(answers):
            done_s = max(answer.done_s for answer in answers)
            if arrived is not None:
                arrived()
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            if not await self._is_proved_by_others(info.version, done_s):
                if not self._heads and not self._ranged and any(answer.part != WHOLE for answer in answers):
                    # Each question would be answered with the file.
                    for answer in answers:
                        answer.settled = False
                    return info
                await self._ask_again(session, info.version)
        return info

    def _common(self, answers: Sequence[Answer], known: Info | None) -> Info | None:
        info, proved = known, True
        sharings: list[Sharing] = []
        for answer in answers:
            if answer.beyond:
                continue  # no bytes to prove
            seen = self._seen(answer, known)
            if seen is None:
                proved = False
                continue
            sharings.append(seen.sharing)
            if info is None:
                info = seen
                self._is_named(seen.version, seen.version)
            else:
                told = self._tells(info.version, seen.version)
                if told:
                    raise OriginChangedError(REPLACED)
                if told is False:
                    self._is_named(info.version, seen.version)
                proved = proved and told is False
        if info is not None and sharings and info.sharing != strictest(sharings):
            info = replace(info, sharing=strictest(sharings))
        return info if proved else None

    def _seen(self, answer: Answer, known: Info | None) -> Info | None:
        """Return the version that an answer names, None where it does not show that its bytes are of it."""
        size = answer.size_bytes
        if size is not None:
            self._sizes |= {size}
        elif known is not None and self._is_sized_by_head_alone(known.version):
            raise OriginChangedError(REPLACED)  # it is as long as HEAD says, or not
        else:
            if known is None or not is_plain(answer.headers):
                return None
            # Of the known version it may be; it is not recorded where nothing shows which bytes these are.
            seen = self._version(answer.headers, known.version.size_bytes)
            answer.settled = answer.settled and answer.placed
            return Info(seen, sharing=sharing_of(answer.headers, self.fs)) if seen.is_provable else None
        if not answer.placed:
            return None
        version = self._version(answer.headers, size)
        if known is None and version.etag is None and not answer.settled:
            return None  # a change within this second would not show
        return Info(version, details_of(self.path, size, answer.headers), sharing_of(answer.headers, self.fs))

    async def _is_restless(self, session: Any, answers: Sequence[Answer]) -> bool:
        """Whether the server names another version each time it is asked, of the same bytes; that is then dropped."""
        sample = next((answer for answer in answers if answer.body), None)
        if sample is None:
            return False
        start, body = sample.part[0], sample.body[:PROBE_BYTES]
        behind: list[Mapping[str, str]] = []
        answer = sample
        for probe in range(PROBES + 1):
            if probe == PROBES:
                # What an answer says of the time by its `Date` need not be so.
                if not self._validators.times or self._version(answer.headers, 0).etag is not None:
                    return False
                await asyncio.sleep(SECOND_S)
            try:
                # Not in step with who asks for another file.
                await asyncio.sleep(random.uniform(0, PAUSE_S) if probe > 1 else 0)
                again = self._get_once if self._ranged else self._get_anew
                answer = await again(session, (start, start + len(body)), None)
            except Exception as error:  # noqa: BLE001 - who cannot be asked has not said that it was replaced
                if self._ranged and getattr(error, "status", None) in {*RANGE_REFUSED, OUT_OF_RANGE}:
                    self._ranged, self._refuses = False, True
                elif self.retry_after(error, met=True) != 0.0:
                    return False
                continue
            sizes = {answer.size_bytes, sample.size_bytes} - {None}
            if answer.body != body or len(sizes) > 1:
                return False
            behind.append(answer.headers)
            if self._validators.doubt(behind):
                return True
        return False

    async def _is_proved_by_others(self, version: Version, done_s: float) -> bool:
        """Whether the answer to a request that was sent behind the bytes says that the file is still of a version."""
        seen = await self._witnesses.version_behind(done_s)
        if seen is not None and self._tells(version, seen):
            raise OriginChangedError(REPLACED)
        return seen is not None

    async def _ask_again(self, session: Any, version: Version) -> None:
        """Ask whether the file is still of a version; servers that do not answer such questions are not pressed."""
        testimony = self._witnesses.ask()
        try:
            info = await self._ask_head(session) if self._heads else None
            if info is None or self._tells(version, info.version) is not False:
                # What HEAD says against it counts for nothing.
                info = await self._ask_get(session)
                self._heads = self._heads and info is not None and self._tells(version, info.version) is True
            told = None if info is None else info.version
            testimony.tell(told if told is not None and told.is_provable else None)
        except Exception:  # noqa: BLE001 - the bytes are here, and were of that version as they were sent
            return
        finally:
            testimony.tell(None)
        if told is not None and self._tells(version, told):
            raise OriginChangedError(REPLACED)

    async def _get_all(
        self, session: Any, ranges: Sequence[OriginRange], known: Info | None
    ) -> "list[Answer | Exception]":
        limit = asyncio.Semaphore(self.fs.batch_size or 64)

        async def one(part: OriginRange) -> "Answer | Exception":
            async with limit:
                return await self._get(session, part, known)

        return await asyncio.gather(*map(one, ranges))

    async def _get(self, session: Any, part: OriginRange, known: Info | None) -> "Answer | Exception":
        try:
            return await self._get_once(session, part, known)
        except Exception as error:  # noqa: BLE001 - the result of this range; the others have theirs
            return error

    async def _get_once(self, session: Any, part: OriginRange, known: Info | None) -> Answer:
        etag = None if known is None or not self._conditional or not self._validators.tags else known.version.etag
        if etag is not None:
            try:
                return await self._answer(session, part, known, etag)
            except Exception as error:
                if getattr(error, "status", None) not in CONDITION_REFUSED:
                    raise
        # Some servers refuse whatever has a condition. What this answer names says whether the file was replaced.
        answer = await self._answer(session, part, known, None)
        if etag is not None and answer.headers.get("ETag") == etag:
            self._conditional = False
        return answer

    async def _get_anew(self, session: Any, part: OriginRange, etag: str | None) -> Answer:
        """Read a range of a file whose server sends no parts, of a body of its own."""
        stream = Stream()
        try:
            return await self._get_on(session, part, etag, stream)
        finally:
            stream.close()

    async def _get_on(self, session: Any, part: OriginRange, etag: str | None, stream: Stream | None = None) -> Answer:
        """Read a range of a file whose server sends no parts."""

        async def ask() -> tuple[Any, Mapping[str, str]]:
            response = await self._request(session, WHOLE, etag)
            try:
                self._raise_for_status(response)
                if response.status == PARTIAL:
                    msg = f"{self.path}: asked for the file, got {response.headers.get('Content-Range')}"
                    raise ShortReadError(msg)
            except BaseException:
                response.close()
                raise
            return response, headers_of(response, self.fs)

        if stream is None:
            stream = self._stream = self._stream or Stream()
        body, headers, asked_s, told_s = await stream.read(ask, *part)
        answer = Answer(part, body, headers, size_bytes=length_of(headers), placed=True)
        answer.timed(asked_s, told_s)
        return answer

    async def _answer(self, session: Any, part: OriginRange, known: Info | None, etag: str | None) -> Answer:
        if known is not None and part == (0, known.version.size_bytes):
            part = WHOLE
        if not self._ranged and part != WHOLE and not (self._refuses and known is None):
            return await self._get_on(session, part, etag)
        testimony = self._witnesses.ask()
        try:
            async with self._request(session, part, etag) as response:
                told_s = time.monotonic()
                testimony.tell(self._told(response))
                if response.status in RANGE_REFUSED and part != WHOLE and known is not None:
                    self._ranged, self._refuses = False, True
                    return await self._get_on(session, part, None)
                if response.status == OUT_OF_RANGE:
                    answer = await self._beyond(session, response, part, known)
                else:
                    self._raise_for_status(response)
                    answer = await self._answered(session, response, part, known)
        finally:
            testimony.tell(None)
        answer.timed(testimony.asked_s, told_s)
        return answer

    def _told(self, response: Any) -> Version | None:
        """Return the version that a response names before its body, if it is one that bytes can be held against."""
        found = content_range(response.headers)
        if response.status != PARTIAL or found is None or found[2] is None or not is_plain(response.headers):
            return None
        version = self._version(response.headers, found[2])
        return version if version.is_provable else None

    async def _answered(self, session: Any, response: Any, part: OriginRange, known: Info | None) -> Answer:
        """Read the body: the range, or the file, of which the range is cut out."""
        headers = headers_of(response, self.fs)
        found, size = content_range(headers), length_of(headers)
        if response.status == PARTIAL or (found is not None and found[0] == part[0]):
            if found is not None and found[1] != part[1] and is_short(part, found):
                # It bounds what it sends at once. In one body the range is of one version.
                self._ranged = False
                response.close()
                return await self._get_on(session, part, None)
            return cut(self.path, part, await response.read(), headers)
        start, stop = part
        if part != WHOLE:
            if await self._is_alone(session, part, size, known):
                body = await response.read()
                if stop is not None and len(body) > stop - start:
                    body = body[start:stop]  # it was the file after all
                return Answer(part, body, headers, size_bytes=None, placed=False)
            self._ranged = False
            response.close()
            return await self._get_on(session, part, None)
        if known is not None and size is not None and size != known.version.size_bytes:
            response.close()  # of no use, however long it is
            return Answer(part, b"", headers, size_bytes=size, placed=True)
        body = await response.read()
        if size is not None and len(body) != size:
            msg = f"{self.path}: got {len(body)} of {size} bytes"
            raise ShortReadError(msg)
        if "chunked" in headers.get("Transfer-Encoding", ""):
            size = len(body)  # and not cut off
        return Answer(part, body, headers, size_bytes=size, placed=True)

    async def _is_alone(self, session: Any, part: OriginRange, size: int | None, known: Info | None) -> bool:
        """Whether a body that is not said to be a part is the range that was asked for, and not the file."""
        start, stop = part
        if known is not None and size is not None and size == known.version.size_bytes:
            return False
        if size is not None and stop is not None and (size > stop - start or (start == 0 and size < stop)):
            return False
        if self._sends_alone is None:
            self._sends_alone = await self._is_one_byte_alone(session)
        return self._sends_alone

    async def _is_one_byte_alone(self, session: Any) -> bool:
        try:
            async with self._request(session, (0, 1)) as response:
                begin = await response.content.read(2)
                begin += await response.content.read(1) if len(begin) == 1 else b""
                response.close()
                return response.status == OK and len(begin) == 1
        except Exception:  # noqa: BLE001 - then it is what it should be
            return False

    async def _beyond(self, session: Any, response: Any, part: OriginRange, known: Info | None) -> Answer:
        """Return nothing for a range behind the end, unless the file is known to have reached there."""
        size = size_beyond(response.headers)
        if known is None and size is not None and size <= part[0]:
            return Answer(part, b"", response.headers, size_bytes=None, placed=False, beyond=True)
        if known is None:
            if await self._ends_before(session, part[0]):
                return Answer(part, b"", response.headers, size_bytes=None, placed=False, beyond=True)
            response.raise_for_status()
            raise AssertionError
        # Ranges are clamped to a known size: the file has shrunk, if it can be asked for at all.
        now = await self._ask_get(session)
        if now is None:
            self._ranged = False  # it refuses parts
            return await self._get_on(session, part, None)
        if self._tells(known.version, now.version):
            raise OriginChangedError(REPLACED)
        response.raise_for_status()
        raise AssertionError

    async def _ends_before(self, session: Any, start: int) -> bool:
        """Whether a server that says that nothing is there sends what is before it, or has nothing at all."""
        if start:
            async with self._request(session, (0, 1)) as response:
                response.close()
                if response.status != OUT_OF_RANGE:
                    return bool(OK <= response.status < 300)
        async with self._request(session, WHOLE) as response:
            begin = await response.content.read(1)
            response.close()
            return OK <= response.status < 300 and not begin
