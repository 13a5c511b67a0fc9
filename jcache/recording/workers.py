"""Threads that touch the cache directory for readers that must not wait for it for ever.

A mount that hangs (a server gone, a client stopped) blocks whoever calls into it, and nothing can be done for that
thread. So the calls are made by daemon threads, which do not hold up the end of the process either, and readers wait
for them with a time limit. Past it the directory counts as hung, and nobody waits for it again.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from jcache.journal import JournalError
from jcache.system.stopwatch import Stopwatch

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
        look_s: What the last look around a journal took, in seconds; see `Store.share`.
    """

    def __init__(self, *, threads: int, limit_s: float, on_hung: Callable[[float], None]) -> None:
        """Prepare the threads; none is started.

        Args:
            threads: How many there may be.
            limit_s: How long one task may take, besides a time in proportion to its bytes, in seconds.
            on_hung: Called once, when a task has exceeded its limit, with that limit.
        """
        self.hung = False
        self.look_s = math.inf
        self._threads = threads
        self._limit_s = limit_s
        self._on_hung = on_hung
        # None for each thread that is to end.
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._has_ended = False
        self._lock = threading.Lock()
        self._started = 0
        # Threads that wait for a task less the tasks that wait for a thread.
        self._spare = 0
        # When a thread last began a task: others wait behind it for as long as there is progress.
        self._began_s = 0.0

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
        submitted, limit_s, watch = self._submit(task), self._limit(size_bytes), Stopwatch()
        done: asyncio.Future[T] = asyncio.wrap_future(submitted.done)
        try:
            while True:
                await asyncio.wait({done}, timeout=watch.slice_s(limit_s))
                if done.done():
                    return done.result()
                if self._is_hung(submitted, limit_s, watch):
                    raise self._give_up(limit_s)
        finally:
            done.cancel()  # what comes too late is for nobody, an exception neither

    def call(self, task: Callable[[], T], *, size_bytes: int = 0) -> T:
        """Have a thread run a task, and wait for it; as `run`, for synchronous code."""
        submitted, limit_s, watch = self._submit(task), self._limit(size_bytes), Stopwatch()
        while True:
            wait({submitted.done}, watch.slice_s(limit_s))
            if submitted.done.done():
                result: T = submitted.done.result()
                return result
            if self._is_hung(submitted, limit_s, watch):
                raise self._give_up(limit_s)

    def _limit(self, size_bytes: int) -> float:
        return self._limit_s + size_bytes / SLOWEST_BYTES_PER_S

    def _is_hung(self, task: "_Task", limit_s: float, watch: Stopwatch) -> bool:
        """Whether a task that is not done had its time: its own, or where none was free for it that of those before."""
        return watch.lap(self._began_s if task.began_s is None else task.began_s) >= limit_s or self.hung

    def close(self) -> None:
        """Have the threads end behind what waits for them; what is asked for later gets a thread of its own."""
        with self._lock:
            if self.hung or self._has_ended:
                return
            self._has_ended = True
            started = self._started
        for _ in range(started):
            self._tasks.put(None)

    def give_up(self, limit_s: float) -> None:
        """Wait for no task any more: something that was not done by these threads has exceeded that limit."""
        with self._lock:
            first, self.hung = not self.hung, True
        if first:
            self._on_hung(limit_s)

    def _give_up(self, limit_s: float) -> CacheHungError:
        self.give_up(limit_s)
        return CacheHungError(f"the cache directory did not answer within {limit_s:.3g} s")

    def _submit(self, task: Callable[[], T]) -> "_Task":
        if self.hung:
            msg = "the cache directory does not answer"
            raise CacheHungError(msg)
        submitted = _Task(task)
        if self._has_ended:
            threading.Thread(target=submitted.carry_out, name="jcache-read", daemon=True).start()
            return submitted
        with self._lock:
            start = self._spare <= 0 and self._started < self._threads
            self._spare -= 1
            if start:
                self._started += 1
        if start:
            try:
                threading.Thread(target=self._run, name="jcache-read", daemon=True).start()
            except RuntimeError as error:  # the process has all the threads it may have
                with self._lock:
                    self._started -= 1
                    only = self._started == 0
                    self._spare += only
                if only:
                    msg = f"the cache directory cannot be read: {error}"
                    raise JournalError(msg) from error
        self._tasks.put(submitted)
        return submitted

    def _run(self) -> None:
        self._is_free()
        while (task := self._tasks.get()) is not None:
            self._began_s = time.monotonic()
            # Free before the result is known: who has waited for it may have the next task at once.
            task.carry_out(before_known=self._is_free)
            # Not kept until the next task comes: what was read may be large.
            del task

    def _is_free(self) -> None:
        with self._lock:
            self._spare += 1


class _Task:
    """What a thread is to do, and when it began."""

    __slots__ = ("began_s", "done", "task")

    def __init__(self, task: Callable[[], Any]) -> None:
        self.task = task
        self.began_s: float | None = None
        self.done: Future[Any] = Future()
        # A running future cannot be cancelled: the task goes on, whoever stopped waiting for it.
        self.done.set_running_or_notify_cancel()

    def carry_out(self, before_known: Callable[[], None] = lambda: None) -> None:
        self.began_s = time.monotonic()
        try:
            result = self.task()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            before_known()
            self.done.set_exception(error)
        else:
            before_known()
            self.done.set_result(result)
