"""Waiting for what a task on another event loop is bringing, which may never turn again."""

import asyncio
from concurrent.futures import Future

from jcache.reader.snapshot import Flight

__all__ = ["landed"]

# An event loop that has not turned for so long does not bring what its tasks were fetching.
STUCK_S = 5.0


async def landed(flight: Flight) -> bool:
    """Wait for a flight of another task, whatever it brings; return False where its event loop has stopped turning.

    That loop may be closed, not run any more, or blocked by the very caller that waits here.
    """
    waiter = asyncio.wrap_future(flight.done)
    while True:
        await asyncio.wait({waiter}, timeout=STUCK_S)
        if waiter.done():
            waiter.exception()  # it is found in the flight by who needs it
            return True
        if not await turns(flight.loop):
            return False


async def turns(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether an event loop answers within the limit."""
    if loop is None or not loop.is_running():
        return False
    answer: Future[None] = Future()
    answer.set_running_or_notify_cancel()
    try:
        loop.call_soon_threadsafe(answer.set_result, None)
    except RuntimeError:
        return False
    done, _ = await asyncio.wait({asyncio.wrap_future(answer)}, timeout=STUCK_S)
    return bool(done)
