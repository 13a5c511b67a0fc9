"""A TCP proxy that counts, and that delays, stalls and drops connections when told to."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine

_CHUNK_BYTES = 256 * 1024
_QUEUED_CHUNKS = 64
_READ, _READV, _PGREAD = 3013, 3025, 3030
_OK_SO_FAR, _STATUS = 4000, 4007
_PAGE_BYTES = 4096
NAMES = {_READ: "read", _READV: "readv", _PGREAD: "pgread"}


class Asked(NamedTuple):
    """One range in an XRootD request."""

    operation: str
    offset: int
    length: int


@dataclass(slots=True)
class XrootdStreams:
    """Follows both directions of one XRootD connection: which ranges were asked for, how many data bytes came back."""

    asked: list[Asked] = field(default_factory=list)
    data_bytes: int = 0
    _up: bytearray = field(default_factory=bytearray)
    _down: bytearray = field(default_factory=bytearray)
    _greeted: bool = False
    _skip: int = 0
    _pending: dict[bytes, int] = field(default_factory=dict)

    def up(self, data: bytes) -> None:
        buffer = self._up
        buffer += data
        if not self._greeted:
            if len(buffer) < 20:
                return
            del buffer[:20]
            self._greeted = True
        position = 0
        while len(buffer) - position >= 24:
            stream, operation, body, length = struct.unpack_from(">2sH16si", buffer, position)
            if len(buffer) - position < 24 + length:
                break
            payload = bytes(buffer[position + 24 : position + 24 + length])
            position += 24 + length
            if operation in {_READ, _PGREAD}:
                offset, count = struct.unpack_from(">qi", body, 4)
                self.asked.append(Asked(NAMES[operation], offset, count))
            elif operation == _READV:
                for _, count, offset in struct.iter_unpack(">4siq", payload):
                    self.asked.append(Asked("readv", offset, count))
            if operation in NAMES:
                self._pending[stream] = operation
            else:
                self._pending.pop(stream, None)
        del buffer[:position]

    def down(self, data: bytes) -> None:
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        buffer = self._down
        buffer += data[self._skip :]
        self._skip = 0
        position = 0
        while len(buffer) - position >= 8:
            stream, status, length = struct.unpack_from(">2sHi", buffer, position)
            operation = self._pending.get(stream)
            # A vector's segment headers and a page read's framing are needed to tell data from book-keeping.
            whole = operation == _READV or status == _STATUS
            if whole and len(buffer) - position < 8 + length:
                break
            body = position + 8
            position = body + length
            if status == _STATUS:
                more, offset = struct.unpack_from(">iq", buffer, body + 12)
                self.data_bytes += _page_data(offset, more)
                position += more
            elif status not in {0, _OK_SO_FAR} or operation is None:
                continue
            elif operation == _READV:
                while body < position:
                    count = struct.unpack_from(">4siq", buffer, body)[1]
                    self.data_bytes += count
                    body += 16 + count
            else:
                self.data_bytes += length
        if position > len(buffer):
            self._skip = position - len(buffer)
            position = len(buffer)
        del buffer[:position]


def _page_data(offset: int, framed: int) -> int:
    """Data bytes in `framed` bytes of pages, each with four bytes of checksum; the first ends at a page boundary."""
    if framed <= 0:
        return 0
    first = min(_PAGE_BYTES - offset % _PAGE_BYTES + 4, framed)
    rest = framed - first
    pages = 1 + -(-rest // (_PAGE_BYTES + 4))
    return framed - 4 * pages


class CountingProxy:
    """Forwards TCP connections from a free port to a server, in a thread of its own.

    Counters: `connections`, `bytes_to_server`, `bytes_to_client`, `turns` (how often a client spoke after it had been
    answered: its round trips, where it asks one thing at a time); with `xrootd=True` also `asked` (every range in every
    read request) and `data_bytes` (what the server sent for them, without the protocol around it). Bytes are counted
    before they are passed on, so that who has received them sees them counted.

    `delay_s` is added to every byte on its way to the client: the round-trip time. `drop_after(n)` cuts each connection
    after n further bytes to the client; `cut()` cuts all at once; `stall()` holds all bytes back until `resume()`;
    `refuse()` also closes the port until `accept()`.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", xrootd: bool = False, delay_s: float = 0.0) -> None:
        self.target = (host, port)
        self.delay_s = delay_s
        self.connections = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.turns = 0
        self._is_answered = True
        self._xrootd = xrootd
        self._streams: list[XrootdStreams] = []
        self._drop_left: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.accept()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Asked]:
        return [asked for streams in list(self._streams) for asked in list(streams.asked)]

    @property
    def asked_bytes(self) -> int:
        return sum(asked.length for asked in self.asked)

    @property
    def data_bytes(self) -> int:
        return sum(streams.data_bytes for streams in list(self._streams))

    def reset(self) -> None:
        """Set every counter to zero; call it while nothing is under way."""
        self.connections = self.bytes_to_server = self.bytes_to_client = self.turns = 0
        for streams in self._streams:
            streams.asked.clear()
            streams.data_bytes = 0

    def drop_after(self, nbytes: int | None) -> None:
        """Cut the connection that carries the n-th further byte to a client, once; None calls it off."""
        self._drop_left = nbytes

    def cut(self) -> None:
        self._run(self._cut())

    def stall(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.set)

    def refuse(self) -> None:
        self._run(self._close_port())

    def accept(self) -> None:
        self._run(self._open_port())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._run(self._close_port())
        self._run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _open_port(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close_port(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        streams = XrootdStreams() if self._xrootd else None
        if streams is not None:
            self._streams.append(streams)
        both = {writer, server_writer}
        self._open |= both
        try:
            await asyncio.gather(
                self._pump_up(reader, server_writer, streams), self._pump_down(server_reader, writer, streams)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open -= both
            for end in both:
                end.transport.abort()

    async def _pump_up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: XrootdStreams | None
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            self.bytes_to_server += len(data)
            self.turns += self._is_answered
            self._is_answered = False
            if streams is not None:
                streams.up(data)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _pump_down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: XrootdStreams | None
    ) -> None:
        # Chunks wait in a queue for their time, so that a delay costs latency and not bandwidth.
        queue: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_QUEUED_CHUNKS)

        async def receive() -> None:
            data: bytes | OSError = b"-"
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError as error:
                    data = error
                await queue.put((self._loop.time() + self.delay_s, data))

        receiver = asyncio.ensure_future(receive())
        try:
            while True:
                due, data = await queue.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._flowing.wait()
                if isinstance(data, OSError):
                    raise data
                if not data:
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                    return
                cut = self._drop_left is not None and len(data) >= self._drop_left
                if cut:
                    data = data[: self._drop_left]
                    self._drop_left = None
                elif self._drop_left is not None:
                    self._drop_left -= len(data)
                self.bytes_to_client += len(data)
                self._is_answered = True
                if streams is not None:
                    streams.down(data)
                writer.write(data)
                await writer.drain()
                if cut:
                    writer.close()
                    await writer.wait_closed()  # what was written goes out before the connection ends
                    raise ConnectionAbortedError
        finally:
            receiver.cancel()
