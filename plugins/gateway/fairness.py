"""Requests of one client wait for each other, so that they do not hold up those of others."""

import asyncio
import contextlib
import functools
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = ["Queues", "TooManyError", "client_at"]

WAIT_S = 60.0
"""How long a request may wait for others of its client."""

# One subscriber of IPv6 has as many addresses as these leave open.
_NETWORK_BITS = 64


class TooManyError(Exception):
    """A client has had too many requests under way for too long."""


@dataclass(slots=True)
class _Queue:
    free: asyncio.Semaphore
    users: int = 0


class Queues:
    """The requests of each client, of which so many are answered at once; they belong to the event loop.

    Args:
        most: How many; None for any number.

    Attributes:
        waiting: How many requests wait.
    """

    def __init__(self, most: int | None) -> None:
        self.waiting = 0
        self._most = most
        self._queues: dict[object, _Queue] = {}

    @contextlib.asynccontextmanager
    async def turn(self, client: object) -> AsyncIterator[None]:
        """Wait until a request of a client may be answered, in the order in which they came.

        Raises:
            TooManyError: It has waited too long.
        """
        if self._most is None:
            yield
            return
        queue = self._queues.setdefault(client, _Queue(asyncio.Semaphore(self._most)))
        queue.users += 1
        try:
            await self._acquire(queue)
            try:
                yield
            finally:
                queue.free.release()
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[client]

    async def _acquire(self, queue: _Queue) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await queue.free.acquire()
        except TimeoutError:
            raise TooManyError from None
        finally:
            self.waiting -= 1


@functools.lru_cache(4096)
def client_at(address: str | None) -> str:
    """Return which client is at an address."""
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address((address or "").partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address):
            if found.ipv4_mapped is not None:
                return str(found.ipv4_mapped)
            return str(ipaddress.IPv6Network((int(found), _NETWORK_BITS), strict=False))
    return address or ""
