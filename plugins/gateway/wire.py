"""What is sent of a body: from where it lies in memory, without a copy of what the connection does not take at once."""

import asyncio
import os
import socket
from typing import Any

from aiohttp import web

__all__ = ["Wire"]


class Wire:
    """The way of a body's bytes to a client whose header was sent.

    A transport of asyncio copies what its socket does not take at once, twice. So a body of a known length goes past
    it, through a second descriptor of the socket, as long as the transport has nothing left to send. What is encrypted,
    or sent in chunks, goes through it.

    Args:
        transport: The connection's.
        response: What was begun.
        length: How long its body is, in bytes; None where that is not known.
    """

    def __init__(self, transport: Any, response: web.StreamResponse, length: int | None) -> None:
        self._response = response
        self._transport = transport
        self._socket: socket.socket | None = None
        told = None if transport is None else transport.get_extra_info("socket")
        if length is not None and told is not None and transport.get_extra_info("sslcontext") is None:
            self._socket = socket.socket(fileno=os.dup(told.fileno()))
            self._socket.setblocking(False)

    def take(self, data: memoryview) -> int:
        """Send what the connection takes at once; return how many bytes that was."""
        if self._socket is None or self._transport.is_closing() or self._is_busy():
            return 0
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError, ConnectionError):  # who waits for it meets it
            return 0

    async def write(self, data: memoryview) -> None:
        """Send bytes, and wait until the connection takes more.

        Raises:
            ConnectionError: The client is gone.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        if self._socket is None or self._is_busy():
            await self._response.write(data)
        else:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def _is_busy(self) -> bool:
        """Whether the transport has not sent all of what it was given."""
        return bool(self._transport.get_write_buffer_size())

    def close(self) -> None:
        """Let go of the second descriptor."""
        if self._socket is not None:
            self._socket.close()
