"""One request and its answer: what was sent of it, and how it is broken off where that goes wrong."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from aiohttp import web

from jcache.session import Session
from jcache_plugins.gateway.conditions import Fields
from jcache_plugins.gateway.wire import Wire

__all__ = ["BrokenOffError", "Exchange"]

# A client that takes less than this in so long is taken to be gone.
SLICE_BYTES, STALL_S = 256 << 10, 120.0


# A body up to here is sent with its header by one call, for which it is copied.
JOINED_BYTES = 128 << 10


async def nothing() -> AsyncGenerator[bytes, None]:
    """Yield no more pieces."""
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


class BrokenOffError(asyncio.CancelledError):
    """The connection was broken off in mid-body: what the client has must not look as if it were all.

    Cancelled is what aiohttp takes it for, which then leaves the connection alone.
    """


class Exchange:
    """One request and what becomes of it.

    Attributes:
        request: The request.
        fields: Its header fields.
        session: Whose journals are read.
        status: Of the answer; 0 before there is one.
        sent_bytes: How much of its body was handed to the connection.
        hit_bytes: How much of it was cached as it began.
        is_begun: Whether its header was sent.
        is_private: Whether the answer is for who has a token or a key, and for no cache that others read from.
        trouble: What broke it off, if anything of the origin's did.
    """

    def __init__(
        self, request: web.BaseRequest, session: Session, *, via: str, is_last: Callable[[], bool] = lambda: False
    ) -> None:
        """Answer nothing yet.

        Args:
            request: The request.
            session: Whose journals are read.
            via: What the gateway calls itself.
            is_last: Returns whether the connection is to end with the answer.
        """
        self.request = request
        self.fields = Fields(request.headers)
        self.session = session
        self.status = self.sent_bytes = self.hit_bytes = 0
        self.is_begun = self.is_private = False
        self.trouble: Exception | None = None
        self.began_s = time.monotonic()
        self._via = via
        self._is_last = is_last

    def headers(self) -> dict[str, str]:
        """Return the header fields of all answers."""
        fields = {"Server": "JCache", "Via": self._via, "X-Content-Type-Options": "nosniff"}
        if self.request.raw_path.startswith("/"):
            # To a browser all its files are of one origin: a script in one of them could read the others.
            fields["Content-Security-Policy"] = "sandbox"
        # Of a request with a token every shared cache ought to know that (RFC 9111, 3.5); nginx does not.
        return fields | {"Cache-Control": "private"} if self.is_private else fields

    def plain(self, status: int, headers: dict[str, str], text: str = "") -> web.Response:
        """Return an answer without a file's bytes."""
        self.status = status
        if not text:
            return web.Response(status=status, headers=headers)
        self.sent_bytes = 0 if self.request.method == "HEAD" else len(text.encode())
        kind = headers.pop("Content-Type", "text/plain")
        return web.Response(status=status, headers=headers, text=text, content_type=kind, charset="utf-8")

    async def whole(self, status: int, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        """Send an answer with a body that is here; see `send`."""
        if len(body) > JOINED_BYTES:
            return await self._stream(status, headers, len(body), body, nothing())
        self.status, self.sent_bytes = status, len(body)
        return web.Response(status=status, headers=headers, body=body)

    async def send(
        self, status: int, headers: dict[str, str], length: int | None, body: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        """Send an answer with a body.

        Args:
            status: Of the answer.
            headers: Its own.
            length: How long the body is, in bytes; None where that is not known.
            body: Its pieces.

        Returns:
            What is sent, or was.

        Raises:
            BrokenOffError: The body could not be read to its end; the connection is broken.
            Exception: Its first piece could not be read; nothing was sent.
        """
        try:
            first = await anext(body, b"")
            if self.request.method == "HEAD":
                return self.plain(status, headers if length is None else headers | {"Content-Length": str(length)})
            if len(first) == length or (length is None and not first):
                return await self.whole(status, headers, first)
            return await self._stream(status, headers, length, first, body)
        finally:
            await body.aclose()

    async def _stream(
        self,
        status: int,
        headers: dict[str, str],
        length: int | None,
        first: bytes,
        body: AsyncGenerator[bytes, None],
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        if self._is_last():
            response.force_close()
        response.content_length = length
        self.status, self.is_begun = status, True
        await self._handed_over(response.prepare(self.request))
        try:
            with contextlib.closing(Wire(self.request.transport, response, length)) as wire:
                await self._write(wire, first)
                async for piece in body:
                    await self._write(wire, piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must not take what it has for all
            self.trouble = error
            raise self._broken_off() from None
        if length is not None and self.sent_bytes != length:
            raise self._broken_off()
        await self._handed_over(response.write_eof())
        return response

    async def _write(self, wire: Wire, piece: bytes) -> None:
        view = memoryview(piece)
        start = wire.take(view)
        self.sent_bytes += start
        while start < len(view):
            part = view[start : start + SLICE_BYTES]
            await self._handed_over(wire.write(part))
            self.sent_bytes += len(part)
            start += len(part)

    async def _handed_over(self, writing: Awaitable[object]) -> None:
        """Wait until the connection takes more."""
        try:
            async with asyncio.timeout(STALL_S):
                await writing
        except (ConnectionError, TimeoutError):  # the client's affair, and no trouble of the origin's
            raise self._broken_off() from None

    def _broken_off(self) -> BrokenOffError:
        transport: Any = self.request.transport
        if transport is not None:
            transport.abort()
        return BrokenOffError()
