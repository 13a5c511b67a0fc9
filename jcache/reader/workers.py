"""Threads that touch the cache directory for readers that must not wait for it for ever.

A mount that hangs (a server gone, a client stopped) blocks whoever calls into it, and nothing can be done for that
thread. So the calls are made by daemon threads, which do not hold up the end of the process either, and readers wait
for them with a time limit. Past it the directory counts as hung, and nobody waits for it again.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Any, TypeVar

from jcache.journal import JournalError

__all__ = ["CacheHungError", "Workers"]

T = TypeVar("T")

# A directory that delivers less than this is of no use, but it is not hung.
SLOWEST_BYTES_PER_S = 4 << 20


class CacheHungError(JournalError):
    """The cache directory did not answer within the limit."""


class Workers:
    """A few daemon threads, started as they are needed.

    Safe to use from any thread and any event loop. A forked child makes a new one.

    Attributes:
        hung: Whether the cache directory has ever exceeded the limit.
    """

    def __init__(self, *, threads: int, limit_s: float, on_hung: Callable[[float], None]) -> None:
        """Prepare the threads; none is started.

        Args:
            threads: How many there may be.
            limit_s: How long one task may take, besides a time in proportion to its bytes, in seconds.
            on_hung: Called once, when a task has exceeded its limit, with that limit.
        """
        self.hung = False
        self._threads = threads
        self._limit_s = limit_s
        self._on_hung = on_hung
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0

    async def run(self, task: Callable[[], T], *, size_bytes: int = 0) -> T:
        """Have a thread run a task, without blocking the event loop.

        Args:
            task: What touches the cache directory.
            size_bytes: How many bytes it is about, for its time limit.

        Returns:
            What the task returned.

        Raises:
            CacheHungError: The limit was exceeded, now or before.
            Exception: What the task raised.
        """
        done, limit_s = self._submit(task), self._limit(size_bytes)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), limit_s)
        except TimeoutError:
            if done.done() and not done.cancelled():
                raise
            raise self._give_up(limit_s) from None

    def call(self, task: Callable[[], T], *, size_bytes: int = 0) -> T:
        """Have a thread run a task, and wait for it; as `run`, for synchronous code."""
        done, limit_s = self._submit(task), self._limit(size_bytes)
        try:
            return done.result(limit_s)
        except FutureTimeoutError:
            if done.done() and not done.cancelled():
                raise
            raise self._give_up(limit_s) from None

    def _limit(self, size_bytes: int) -> float:
        return self._limit_s + size_bytes / SLOWEST_BYTES_PER_S

    def _give_up(self, limit_s: float) -> CacheHungError:
        with self._lock:
            first, self.hung = not self.hung, True
        if first:
            self._on_hung(limit_s)
        return CacheHungError(f"the cache directory did not answer within {limit_s:.0f} s")

    def _submit(self, task: Callable[[], T]) -> "Future[T]":
        if self.hung:
            msg = "the cache directory does not answer"
            raise CacheHungError(msg)
        done: Future[T] = Future()
        # A running future cannot be cancelled: the task goes on, whoever stopped waiting for it.
        done.set_running_or_notify_cancel()
        self._tasks.put((task, done))
        with self._lock:
            start = self._idle == 0 and self._started < self._threads
            if start:
                self._started += 1
        if start:
            threading.Thread(target=self._run, name="jcache-read", daemon=True).start()
        return done

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            task, done = self._tasks.get()
            with self._lock:
                self._idle -= 1
            try:
                result = task()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                done.set_exception(error)
            else:
                done.set_result(result)
            # Not kept until the next task comes: what was read may be large.
            del task, done
