"""How much one request fetches, and when: by the rate that was asked for, and by the speed of the wire."""

import math
import threading
import time

__all__ = ["Pace"]

# One request of so many bytes at most: enough of them at a time fill a long wire, and none takes for ever. The first
# ones, and those of a low rate, have the least: each costs a round trip.
MOST_BYTES, LEAST_BYTES = 8 << 20, 64 << 10


class Pace:
    """Has those who fetch wait until the bytes of their requests have had their time at a rate; threads share one.

    Args:
        rate: How many bytes a second may be asked for, over any time; None for as many as may be.
        parallel: How many requests are made at a time. All of them together are a second's worth.
    """

    def __init__(self, rate: float | None, parallel: int) -> None:
        self._rate = rate
        self._most = MOST_BYTES if rate is None else int(min(max(rate / parallel, LEAST_BYTES), MOST_BYTES))
        self._piece = LEAST_BYTES
        self._best = 0.0
        self._free_s = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def piece_bytes(self) -> int:
        """How much the next request may ask for."""
        return self._piece

    def took(self, nbytes: int, seconds: float) -> None:
        """Have pieces grow to what a second brings: those under way are lost when the process is killed.

        Where larger ones were quicker by the byte, the origin takes its time for each: they go on growing. They do not
        grow by much at a time: what buffers on the way hold arrives at once.
        """
        speed = nbytes / max(seconds, 1e-3)
        with self._lock:
            enough = max(min(speed, 4.0 * nbytes), 2.0 * nbytes if speed > 1.5 * self._best else 0.0)
            self._best = max(self._best, speed)
            self._piece = max(self._piece, int(min(enough, self._most)))

    def spend(self, nbytes: int) -> float:
        """Count bytes that are fetched; return when they have had their time, by the monotonic clock."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + nbytes / (self._rate or math.inf)
            return self._free_s

    def wait(self, nbytes: int) -> bool:
        """Wait until so many bytes may be asked for; return whether they still are to be."""
        until_s = self.spend(nbytes)
        if self._rate is not None:
            self._stopped.wait(max(until_s - time.monotonic(), 0.0))
        return not self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether nobody is to ask for anything any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Have nobody ask for anything any more."""
        self._stopped.set()
