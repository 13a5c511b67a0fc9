"""Waiting for what others are bringing, who may never bring it: tasks on other event loops, other processes."""

import asyncio
import time
from concurrent.futures import Future

from jcache.planning.flight import Flight

__all__ = ["Patience", "landed"]

# An event loop that has not turned for so long does not bring what its tasks were fetching.
STUCK_S = 5.0


async def landed(flight: Flight) -> bool:
    """Wait for a flight of another task, whatever it brings; return False where its event loop has stopped turning.

    That loop may be closed, not run any more, or blocked by the very caller that waits here.
    """
    if flight.is_over:
        return True
    waiter = asyncio.wrap_future(flight.over())
    try:
        while flight.is_over or flight.loop is None or not flight.loop.is_closed():
            await asyncio.wait({waiter}, timeout=STUCK_S)
            if waiter.done():
                return True
            if not await turns(flight.loop):
                break
    finally:
        waiter.cancel()
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


class Patience:
    """How long a process may still wait in vain for what others are fetching, over all files.

    Waiting that bore fruit is free. Waiting in vain (for a process that is stopped, for locks of which the file system
    says that somebody has them) costs a limit once, and from then on one percent of the time. Safe to use from any
    thread: what two of them subtract at once may be subtracted once.
    """

    __slots__ = ("_left_s", "_limit_s", "_seen_s")

    def __init__(self, limit_s: float) -> None:
        self._left_s = self._limit_s = limit_s
        self._seen_s = time.monotonic()

    @property
    def left_s(self) -> float:
        """For how many seconds it is worth to wait now."""
        now_s = time.monotonic()
        self._left_s = min(self._limit_s, self._left_s + (now_s - self._seen_s) / 100)
        self._seen_s = now_s
        return self._left_s

    def waited(self, seconds: float, *, in_vain: bool) -> None:
        """Note how waiting went."""
        self._left_s = self.left_s - seconds if in_vain else self._limit_s
