"""How long this process has waited, without the time for which it was stopped."""

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType

__all__ = ["SLICE_S", "Stopwatch", "acquire"]

SLICE_S = 0.25
"""The longest that anybody with a time limit waits without a look at the stopwatch."""


class Stopwatch:
    """Adds up the slices in which one waiter waits.

    A slice that took much longer than was asked for is one in which this process did not run: it was stopped (SIGSTOP,
    a batch system, a paused container), its machine slept, or other threads kept it from running. What was waited for
    did not run either, and must not be taken for hung. So no slice counts for more than twice its length.
    """

    __slots__ = ("_mark", "_seen_s", "_slice_s", "waited_s")

    def __init__(self) -> None:
        self.waited_s = 0.0
        self._mark: object = None
        self._seen_s, self._slice_s = time.monotonic(), SLICE_S

    def slice_s(self, limit_s: float) -> float:
        """Return how long to wait before the next `lap`, in seconds."""
        self._slice_s = max(min(SLICE_S, limit_s / 20, limit_s - self.waited_s), 0.001)
        return self._slice_s

    def lap(self, mark: object = None) -> float:
        """Return how long was waited in all, in seconds.

        Args:
            mark: What counts as progress when it changes: the time is counted from there.
        """
        now_s = time.monotonic()
        if mark != self._mark:
            self._mark, self.waited_s = mark, 0.0
        self.waited_s += min(now_s - self._seen_s, 2 * self._slice_s)
        self._seen_s = now_s
        return self.waited_s


def acquire(lock: "LockType", limit_s: float) -> bool:
    """Acquire a lock within a limit that this process spends waiting; return whether it was had."""
    watch = Stopwatch()
    while not lock.acquire(timeout=watch.slice_s(limit_s)):
        if watch.lap() >= limit_s:
            return False
    return True
