"""How a gateway ends: requests that are under way are answered, and no client sends one that nobody will read."""

import asyncio
import contextlib
from collections.abc import Set as AbstractSet
from typing import Any

from aiohttp import web

from jcache_plugins.gateway.channel import Orders

__all__ = ["HANDSHAKE_S", "Server", "drain"]

HANDSHAKE_S = 10.0
"""Who has not agreed on how to encrypt by then is gone."""

# A connection may be idle for this share of the time that requests have, before it is closed: its client may be about
# to send a request, and is told with the answer that there will be no other.
QUIET_SHARE = 0.05
LOOK_S = 0.02
# How long what is cut off may take to notice.
CUT_S = 0.1


class Server(web.Server):  # type: ignore[misc] # aiohttp is untyped here
    """A server that knows of connections which it does not have yet: those that agree on how to encrypt."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arriving: dict[Any, float] = {}

    def __call__(self) -> Any:
        """Return what handles a connection that was taken."""
        made = super().__call__()
        self._arriving[made] = asyncio.get_running_loop().time()
        self.is_expecting(HANDSHAKE_S)
        return made

    def connection_made(self, handler: Any, transport: Any) -> None:
        """Have a connection."""
        self._arriving.pop(handler, None)
        super().connection_made(handler, transport)

    def is_expecting(self, limit_s: float) -> bool:
        """Whether there will be connections yet, of those that were taken so long ago; others are forgotten."""
        since_s = asyncio.get_running_loop().time() - limit_s
        while self._arriving and (first := next(iter(self._arriving.items())))[1] < since_s:
            del self._arriving[first[0]]
        return bool(self._arriving)


async def drain(server: Server, answering: AbstractSet[Any], orders: Orders, *, seconds: float) -> None:
    """Wait until all connections of a server are closed, and close those that are idle; then cut off what is left.

    Args:
        server: It gets no more connections, and closes each with the next answer.
        answering: The connections on which a request is being answered, as they change.
        orders: Whether it is to end at once.
        seconds: How long requests may take.
    """
    loop = asyncio.get_running_loop()
    ends_s, looks_s, quiet_s = loop.time() + seconds, loop.time(), seconds * QUIET_SHARE
    idle: set[Any] = set()
    while (server.connections or server.is_expecting(min(quiet_s, HANDSHAKE_S))) and loop.time() < ends_s:
        if loop.time() >= looks_s:
            now = set(server.connections) - answering
            for connection in idle & now:
                connection.force_close()  # what is in its buffer is sent yet
            idle, looks_s = now, loop.time() + quiet_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(orders.end.wait(), LOOK_S)
            break
    server.pre_shutdown()
    await server.shutdown(CUT_S)
