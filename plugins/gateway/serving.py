"""The life of a gateway: it listens, takes so many connections, and lets what is under way end before it does."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.asyn import get_loop

from jcache.session import Session
from jcache_plugins.gateway import handover, systemd
from jcache_plugins.gateway.channel import Link, Orders
from jcache_plugins.gateway.draining import HANDSHAKE_S, Server, drain
from jcache_plugins.gateway.server import Gateway, Options
from jcache_plugins.gateway.sockets import BACKLOG, address_of, listen

__all__ = ["Listening", "serve"]

# Connections without a request under way are closed after so long.
IDLE_S = 75.0
# The rest of a body that nobody asked for is read for so long, for the connection to be of use again.
LINGER_S = 2.0
# A field of many ranges is long.
FIELD_BYTES = 32 << 10
LINE_BYTES = 8 << 10
# Descriptors that are left for the cache, and for connections to origins.
SPARE_FILES = 256
# A connection that was taken is known to the server after so many rounds of the event loop.
ROUNDS = 8
LOOPBACK = frozenset({"127.0.0.1", "::1", "[::1]", "localhost"})
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a gateway listens, and how it ends.

    Attributes:
        host: Its address.
        port: Its port; 0 for any that is free.
        reuse_port: Whether another one may listen there as well, which takes its sockets over.
        connections: How many it takes at once.
        drain_s: How long requests that are under way may take yet, once it is to end.
        tls: How connections are encrypted; None where they are not.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    reuse_port: bool = False
    connections: int = 4096
    drain_s: float = 30.0
    tls: ssl.SSLContext | None = None


class Full(asyncio.Protocol):
    """Turns a connection away that is one too many."""

    def connection_made(self, transport: Any) -> None:
        """Say so, and close it."""
        transport.write(_FULL)
        transport.close()


def serve(
    session: Session,
    options: Options,
    listening: Listening,
    *,
    started: Callable[[str], None] = lambda _: None,
    link: Link | None = None,
    signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
) -> None:
    """Serve until a signal comes, then end what is under way; a second signal ends that, too.

    The main thread only waits for signals. The work is done on the event loop of fsspec's file systems, which has a
    thread of its own.

    Args:
        session: Whose journals are read.
        options: What is served, and to whom.
        listening: Where.
        started: Called with the address once connections are taken; of a worker, the parent is told instead.
        link: To the parent of a worker, which has the sockets; whether a second signal came it says.
        signals: What ends it.

    Raises:
        OSError: It cannot listen there.
        Exception: See `Gateway`.
    """
    gateway = Gateway(session, options, link)
    listeners = (
        link.listeners if link is not None else listen(listening.host, listening.port, reuse_port=listening.reuse_port)
    )
    before = {number: signal.getsignal(number) for number in signals}
    work, orders = get_loop(), Orders()
    # At a terminal, and under systemd, a signal is sent to all processes, and once more by the parent.
    obey = orders.advance if link is None else orders.drain.set

    async def watched() -> None:
        for number in before:
            asyncio.get_running_loop().add_signal_handler(number, work.call_soon_threadsafe, obey)
        serving = asyncio.run_coroutine_threadsafe(life.run(), work)
        await asyncio.wrap_future(serving)

    life = _Life(gateway, listening, listeners, orders, started, link)
    try:
        asyncio.run(watched())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # which has the report written, if one comes now


@dataclass(frozen=True, slots=True)
class _Life:
    """What `serve` does on the event loop."""

    gateway: Gateway
    listening: Listening
    listeners: list[socket.socket]
    orders: Orders
    started: Callable[[str], None]
    link: Link | None

    async def run(self) -> None:
        """Serve until it is ordered to end."""
        self.gateway.open()
        try:
            if self.link is not None:
                await self.link.open(self.orders, self.gateway.numbers)
            await self._listen()
        finally:
            await self.gateway.close()
            if self.link is not None:
                await self.link.close()

    async def _listen(self) -> None:
        listening, loop = self.listening, asyncio.get_running_loop()
        server = _server(self.gateway)
        most = most_connections(listening.connections)
        metrics = self.gateway.metrics
        metrics.connections = lambda: len(server.connections)

        def connected() -> asyncio.BaseProtocol:
            if metrics.connections() >= most:
                metrics.refused += 1
                return Full()
            made: asyncio.BaseProtocol = server()
            return made

        limit_s = None if listening.tls is None else HANDSHAKE_S
        how: dict[str, Any] = {"ssl": listening.tls, "ssl_handshake_timeout": limit_s}
        takers = [await loop.create_server(connected, sock=one, backlog=BACKLOG, **how) for one in self.listeners]
        offer = handover.offer(self.listeners) if listening.reuse_port and self.link is None else None
        self._tell_where()
        try:
            await self.orders.drain.wait()
        finally:
            if self.link is None:
                systemd.tell("STOPPING=1")
            if offer is not None:
                offer.close()
            self.gateway.ending = True
            late = await self._close(takers)
            taken = [asyncio.ensure_future(loop.connect_accepted_socket(connected, one, **how)) for one in late]
            await asyncio.sleep(0)  # they begin
            await drain(server, self.gateway.answering, self.orders, seconds=listening.drain_s)
            for task in taken:
                task.cancel()
            await asyncio.gather(*taken, return_exceptions=True)

    async def _close(self, takers: list[asyncio.Server]) -> list[socket.socket]:
        """Close the sockets, once all connections have been taken that wait in them; return the last of these."""
        for one in self.listeners:
            asyncio.get_running_loop().remove_reader(one.fileno())
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        late = []
        for one, taker in zip(self.listeners, takers, strict=True):
            with contextlib.suppress(OSError):  # there is none any more
                while True:
                    late.append(one.accept()[0])
                    late[-1].setblocking(False)
            taker.close()
        return late

    def _tell_where(self) -> None:
        for one in self.listeners:
            host, port = address_of(one)
            is_here = host in {"127.0.0.1", "::1"}
            # What systemd passes may listen elsewhere than --host says.
            said = {self.listening.host} if is_here or self.listening.host not in LOOPBACK else set()
            for name in {host, *said, *(("localhost",) if is_here else ())}:
                self.gateway.is_at(name.strip("[]"), port)
        host, port = address_of(self.listeners[0])
        scheme = "http" if self.listening.tls is None else "https"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        if self.link is not None:
            self.link.ready(address)
        else:
            self.started(address)
            systemd.tell("READY=1")


def _server(gateway: Gateway) -> Server:
    silent = logging.getLogger("jcache.gateway")
    # What aiohttp says of malformed requests is a traceback for each.
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    return Server(
        gateway.handle,
        handler_cancellation=True,  # who goes away has nothing fetched any more
        logger=silent,
        access_log=None,
        keepalive_timeout=IDLE_S,
        lingering_time=LINGER_S,
        max_field_size=FIELD_BYTES,
        max_line_size=LINE_BYTES,
    )


def most_connections(wanted: int) -> int:
    """Return how many connections may be open: as many as are wanted, or as the process has descriptors for."""
    with contextlib.suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = wanted + SPARE_FILES
        if soft != resource.RLIM_INFINITY and soft < needed:
            soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft != resource.RLIM_INFINITY:
            return max(1, min(wanted, soft - SPARE_FILES, soft * 3 // 4))
    return wanted
