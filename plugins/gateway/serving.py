"""The life of a gateway: it listens, takes so many connections, and lets what is under way end before it does."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from fsspec.asyn import get_loop

from jcache.session import Session
from jcache_plugins.gateway.server import Gateway, Options

__all__ = ["Listening", "serve"]

# Connections without a request under way are closed after so long.
IDLE_S = 75.0
# Who has not agreed on how to encrypt by then is gone.
HANDSHAKE_S = 10.0
# The rest of a body that nobody asked for is read for so long, for the connection to be of use again.
LINGER_S = 2.0
# A field of many ranges is long.
FIELD_BYTES = 32 << 10
LINE_BYTES = 8 << 10
BACKLOG = 1024
# Descriptors that are left for the cache, and for connections to origins.
SPARE_FILES = 256
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a gateway listens, and how it ends.

    Attributes:
        host: Its address.
        port: Its port; 0 for any that is free.
        connections: How many it takes at once.
        drain_s: How long requests that are under way may take yet, once it is to end.
        tls: How connections are encrypted; None where they are not.
    """

    host: str = "127.0.0.1"
    port: int = 8080
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
    session: Session, options: Options, listening: Listening, *, started: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGTERM or SIGINT comes, then end what is under way; a second signal ends that, too.

    The main thread only waits for signals. The work is done on the event loop of fsspec's file systems, which has a
    thread of its own.

    Args:
        session: Whose journals are read.
        options: What is served, and to whom.
        listening: Where.
        started: Called with the address once connections are taken.

    Raises:
        OSError: It cannot listen there.
        Exception: See `Gateway`.
    """
    gateway = Gateway(session, options)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ends: asyncio.Queue[int] = asyncio.Queue()
    work = get_loop()

    async def watched() -> None:
        for number in before:
            asyncio.get_running_loop().add_signal_handler(number, work.call_soon_threadsafe, ends.put_nowait, number)
        serving = asyncio.run_coroutine_threadsafe(_serve(gateway, listening, started, ends), work)
        await asyncio.wrap_future(serving)

    try:
        asyncio.run(watched())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # which has the report written, if one comes now


async def _serve(
    gateway: Gateway, listening: Listening, started: Callable[[str], None], ends: "asyncio.Queue[int]"
) -> None:
    gateway.open()
    try:
        await _listen(gateway, listening, started, ends)
    finally:
        await gateway.close()


async def _listen(
    gateway: Gateway, listening: Listening, started: Callable[[str], None], ends: "asyncio.Queue[int]"
) -> None:
    loop = asyncio.get_running_loop()
    silent = logging.getLogger("jcache.gateway")
    # What aiohttp says of malformed requests is a traceback for each.
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    server = web.Server(
        gateway.handle,
        handler_cancellation=True,  # who goes away has nothing fetched any more
        logger=silent,
        access_log=None,
        keepalive_timeout=IDLE_S,
        lingering_time=LINGER_S,
        max_field_size=FIELD_BYTES,
        max_line_size=LINE_BYTES,
    )
    most = most_connections(listening.connections)
    metrics = gateway.metrics
    metrics.connections = lambda: len(server.connections)

    def connected() -> asyncio.BaseProtocol:
        if metrics.connections() >= most:
            metrics.refused += 1
            return Full()
        made: asyncio.BaseProtocol = server()
        return made

    listener = await loop.create_server(
        connected,
        listening.host,
        listening.port,
        ssl=listening.tls,
        ssl_handshake_timeout=None if listening.tls is None else HANDSHAKE_S,
        backlog=BACKLOG,
        reuse_address=True,
    )
    host, port = address_of(listener.sockets[0])
    for name in {host, listening.host, *(("localhost",) if host in {"127.0.0.1", "::1"} else ())}:
        gateway.is_at(name.strip("[]"), port)
    scheme = "http" if listening.tls is None else "https"
    started(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        await ends.get()
    finally:
        listener.close()
        server.pre_shutdown()
        # To aiohttp no time is for ever.
        draining = asyncio.ensure_future(server.shutdown(max(listening.drain_s, 0.001)))
        second = asyncio.ensure_future(ends.get())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({draining, second}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, second):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


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


def address_of(listener: socket.socket) -> tuple[str, int]:
    """Return the address and the port of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return str(host), int(port)
