"""A wire of chosen length and width: a TCP proxy that delays each direction by half a round trip and limits its rate.

    python link.py PORT RTT_MS GBIT_S

It prints the port that it listens on, and ends with its standard input. It is a process of its own, so that its work
is not done under the measured process's interpreter lock. A byte leaves when the wire has had time to carry what was
before it, and arrives half a round trip later: the delay costs latency, not throughput, and all connections share one
wire.
"""

import asyncio
import collections
import selectors
import socket
import sys

WINDOW_BYTES = 16 << 20  # what may be on the wire before its sender has to wait; far above rate times delay
READ_BYTES = 1 << 20


class Wire:
    """One direction: when it has carried what it was given so far."""

    def __init__(self, delay_s, bytes_per_s):
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self._free = 0.0

    def arrival(self, now, nbytes):
        """Put bytes on the wire; return when they are through."""
        self._free = max(self._free, now)
        if self.bytes_per_s:
            self._free += nbytes / self.bytes_per_s
        return self._free + self.delay_s


class End(asyncio.BufferedProtocol):
    """One of the two sockets of a connection; what it receives goes over the wire to its peer."""

    def __init__(self, wire, loop):
        self._wire = wire
        self._loop = loop
        self._buffer = bytearray(READ_BYTES)
        self._queue = collections.deque()
        self._queued = 0
        self._timer = None
        self._paused = self._blocked = False
        self.peer = None
        self.transport = None

    def connection_made(self, transport):  # noqa: D102 - asyncio's
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=WINDOW_BYTES)

    def get_buffer(self, _hint):  # noqa: D102 - asyncio's
        return self._buffer

    def buffer_updated(self, nbytes):  # noqa: D102 - asyncio's
        self._put(bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self):  # noqa: D102 - asyncio's
        self._put(None)
        return True

    def connection_lost(self, _error):  # noqa: D102 - asyncio's
        self._put(None)

    def pause_writing(self):  # noqa: D102 - asyncio's
        self.peer.block(True)

    def resume_writing(self):  # noqa: D102 - asyncio's
        self.peer.block(False)

    def block(self, blocked):
        """Hold back what is due, because the peer's socket is full."""
        self._blocked = blocked
        if not blocked:
            self._send()

    def _put(self, data):
        now = self._loop.time()
        self._queue.append((self._wire.arrival(now, len(data or b"")), data))
        self._queued += len(data or b"")
        if self._queued > WINDOW_BYTES and not self._paused and self.transport.is_reading():
            self._paused = True
            self.transport.pause_reading()
        if self._timer is None:
            self._send()

    def start(self):
        """Send what came in before there was a peer."""
        self._send()

    def _send(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.peer is None or self.peer.transport is None:
            return
        while self._queue and not self._blocked:
            due, data = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._due)
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

    def _due(self):
        self._timer = None
        self._send()


async def serve(port, rtt_s, bytes_per_s):
    loop = asyncio.get_running_loop()
    up, down = Wire(rtt_s / 2, bytes_per_s), Wire(rtt_s / 2, bytes_per_s)

    class Near(End):
        def __init__(self):
            super().__init__(up, loop)

        def connection_made(self, transport):
            super().connection_made(transport)
            self._task = loop.create_task(self.connect())

        async def connect(self):
            far = End(down, loop)
            try:
                await loop.create_connection(lambda: far, "127.0.0.1", port)
            except OSError:
                self.transport.abort()
                return
            self.peer, far.peer = far, self
            self.start()
            far.start()

    server = await loop.create_server(Near, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: sys.stdin.buffer.raw.read(1) or ended.done() or ended.set_result(None))
    await ended


def main():
    port, rtt_s, gbit_s = int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3])
    # epoll counts in milliseconds, which is the round trip of a local network.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop._clock_resolution = 1e-6  # asyncio rounds up to what epoll can do
    loop.run_until_complete(serve(port, rtt_s, gbit_s * 1e9 / 8))


if __name__ == "__main__":
    main()
