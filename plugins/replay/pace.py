"""How much one request fetches, and when: by the rate that was asked for, and by the speed of the wire."""

import math
import threading
import time

__all__ = ["Pace"]

# One request of so many bytes at most: enough of them at a time fill a long wire, and none takes for ever. A rate may
# ask for as little as the least, and for no less: each request costs a round trip.
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
        self._free_s = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def piece_bytes(self) -> int:
        """How much the next request may ask for."""
        return self._most

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
