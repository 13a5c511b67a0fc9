"""A wire of chosen length and width: a TCP proxy that delays each direction by half a round trip and limits its rate.

    python wire.py PORT RTT_MS GBIT_S

It prints the port that it listens on, and ends with its standard input. It is a process of its own, so that its work
is not done under the measured process's interpreter lock. A byte leaves when the wire has had time to carry what was
before it, and arrives half a round trip later: the delay costs latency, not throughput, and all connections share one
wire.
"""

import asyncio
import collections
import os
import selectors
import socket
import subprocess
import sys
from typing import Any, Self

WINDOW_BYTES = 16 << 20  # what may be on the wire before its sender has to wait; far above rate times delay
READ_BYTES = 1 << 20


class Wire:
    """The process, in front of a port of the loopback interface.

    Args:
        port: Where a server listens.
        rtt_ms: Round trip in milliseconds.
        gbit_s: Width in 10^9 bits per second, 0 for what the machine gives.
    """

    def __init__(self, port: int, rtt_ms: float, gbit_s: float = 0.0) -> None:
        command = [sys.executable, "-I", os.path.abspath(__file__), str(port), str(rtt_ms), str(gbit_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        """Where clients connect."""

    def close(self) -> None:
        """End it, with all its connections. Does nothing when it has ended."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Direction:
    """When one direction has carried what it was given so far."""

    def __init__(self, delay_s: float, bytes_per_s: float) -> None:
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self._free = 0.0

    def arrival(self, now: float, nbytes: int) -> float:
        """Put bytes on the wire; return when they are through."""
        self._free = max(self._free, now)
        if self.bytes_per_s:
            self._free += nbytes / self.bytes_per_s
        return self._free + self.delay_s


class _End(asyncio.BufferedProtocol):
    """One of the two sockets of a connection; what it receives goes over the wire to its peer."""

    def __init__(self, wire: _Direction, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop
        self._buffer = bytearray(READ_BYTES)
        self._queue: collections.deque[tuple[float, bytes | None]] = collections.deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._blocked = False
        self.peer: _End | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the socket; called by asyncio, as those that follow."""
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=WINDOW_BYTES)

    def get_buffer(self, _hint: int) -> bytearray:
        """Return where to put what comes in."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Put what came in on the wire."""
        self._put(bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self) -> bool:
        """Put the end on the wire."""
        self._put(None)
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """Put the end on the wire."""
        self._put(None)

    def pause_writing(self) -> None:
        """Hold back what is due to this end."""
        if self.peer is not None:
            self.peer.block(True)

    def resume_writing(self) -> None:
        """Go on."""
        if self.peer is not None:
            self.peer.block(False)

    def block(self, blocked: bool) -> None:
        """Hold back what is due, because the peer's socket is full."""
        self._blocked = blocked
        if not blocked:
            self.send()

    def send(self) -> None:
        """Send what is due, to the peer if there is one yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.peer is None or self.peer.transport is None:
            return
        while self._queue and not self._blocked:
            due, data = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.send)
                break
            self._queue.popleft()
            if data is None:
                self.peer.transport.close()
                break
            self._queued -= len(data)
            self.peer.transport.write(data)
        if self._paused and self._queued < WINDOW_BYTES // 2 and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def _put(self, data: bytes | None) -> None:
        nbytes = len(data or b"")
        self._queue.append((self._wire.arrival(self._loop.time(), nbytes), data))
        self._queued += nbytes
        if self._queued > WINDOW_BYTES and not self._paused and self.transport.is_reading():
            self._paused = True
            self.transport.pause_reading()
        if self._timer is None:
            self.send()


async def _serve(port: int, rtt_s: float, bytes_per_s: float) -> None:
    loop = asyncio.get_running_loop()
    up, down = _Direction(rtt_s / 2, bytes_per_s), _Direction(rtt_s / 2, bytes_per_s)

    class Near(_End):
        def __init__(self) -> None:
            super().__init__(up, loop)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._task = loop.create_task(self.connect())

        async def connect(self) -> None:
            far = _End(down, loop)
            try:
                await loop.create_connection(lambda: far, "127.0.0.1", port)
            except OSError:
                self.transport.abort()
                return
            self.peer, far.peer = far, self
            self.send()
            far.send()

    server = await loop.create_server(Near, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: None if os.read(0, 1) else ended.set())
    await ended.wait()


def _main() -> None:
    port, rtt_s, gbit_s = int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3])
    # epoll counts in milliseconds, which is the round trip of a local network.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop._clock_resolution = 1e-6  # type: ignore[attr-defined]  # noqa: SLF001 - it rounds up to what epoll can do
    loop.run_until_complete(_serve(port, rtt_s, gbit_s * 1e9 / 8))


if __name__ == "__main__":
    _main()
