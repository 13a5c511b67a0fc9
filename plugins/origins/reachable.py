"""Whether anybody listens at a server's address: for clients that try for minutes before they say that nobody does."""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

__all__ = ["listens"]

# So long a connection may take to be made, and so long the answer holds.
CONNECT_S, HOLDS_S = 3.0, 30.0

_told: dict[tuple[str, int], tuple[bool, float]] = {}


async def listens(url: str, port: int) -> bool:
    """Try to connect to a URL's host.

    Args:
        url: Names the host.
        port: Where the URL names none.
    """
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or port
    known, told_s = _told.get(address, (False, 0.0))
    if told_s and time.monotonic() - told_s < HOLDS_S:
        return known
    found = False
    with contextlib.suppress(OSError):  # a TimeoutError is one
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(*address)
        found = True
        writer.close()
    _told[address] = found, time.monotonic()
    return found
