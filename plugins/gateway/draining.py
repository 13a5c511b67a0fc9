"""How a gateway ends: requests that are under way are answered, and no client sends one that nobody will read."""

import asyncio
import contextlib
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Orders", "drain"]

# A connection may be idle for this share of the time that requests have, before it is closed: its client may be about
# to send a request, and is told with the answer that there will be no other.
QUIET_SHARE = 0.05
LOOK_S = 0.02
# How long what is cut off may take to notice.
CUT_S = 0.1


class Orders:
    """What a gateway was told to do, on its event loop.

    Attributes:
        drain: It is to take no more connections, and to end when there are none.
        end: It is to end at once.
    """

    def __init__(self) -> None:
        self.drain, self.end = asyncio.Event(), asyncio.Event()

    def advance(self) -> None:
        """Obey a signal: the first one drains, the second one ends."""
        (self.end if self.drain.is_set() else self.drain).set()


async def drain(server: "web.Server", answering: AbstractSet[Any], orders: Orders, *, seconds: float) -> None:
    """Wait until all connections of a server are closed, and close those that are idle; then cut off what is left.

    Args:
        server: It gets no more connections, and closes each with the next answer.
        answering: The connections on which a request is being answered, as they change.
        orders: Whether it is to end at once.
        seconds: How long requests may take.
    """
    loop = asyncio.get_running_loop()
    ends_s, looks_s = loop.time() + seconds, loop.time()
    idle: set[Any] = set()
    while server.connections and not orders.end.is_set() and loop.time() < ends_s:
        if loop.time() >= looks_s:
            now = set(server.connections) - answering
            for connection in idle & now:
                connection.force_close()  # what is in its buffer is sent yet
            idle, looks_s = now, loop.time() + seconds * QUIET_SHARE
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(orders.end.wait(), LOOK_S)
    server.pre_shutdown()
    await server.shutdown(CUT_S)
