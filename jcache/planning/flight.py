"""A vectored request to the origin that is under way, and whoever waits for it."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from jcache.vectors import Vector

if TYPE_CHECKING:
    from jcache.planning.held import Share

__all__ = ["Flight", "FlightAbortedError"]


class FlightAbortedError(Exception):
    """The task that was fetching these bytes was cancelled; whoever waited for them plans again."""


class Flight:
    """One vectored request to the origin that is under way.

    Attributes:
        ranges: What it fetches.
        wanted: For each range where the part ends that somebody asked for; what lies behind it is read ahead.
        data: For each range its bytes or the exception that it met, once `landed`.
        is_over: Whether it has landed, or was given up.
        error: Why it was given up.
        landed: Whether it was carried out, so that `data` is complete.
        record: Whether its bytes may enter the journal; known once it has landed.
        loop: The event loop that carries it out.
        share: Of the room for what is read ahead.
        is_extended: Whether anything of it is read ahead.
    """

    __slots__ = (
        "_lock", "_over", "data", "error", "is_extended", "is_over", "landed", "loop", "ranges", "record", "share",
        "wanted",
    )  # fmt: skip

    def __init__(self, ranges: Vector | None = None) -> None:
        """Prepare a flight.

        Args:
            ranges: What somebody asked for; none for now.
        """
        self.ranges = Vector([], []) if ranges is None else ranges
        self.wanted = list(self.ranges.stops)
        self.data: Sequence[bytes | Exception] = []
        self.landed = self.record = False
        self.share: Share | None = None
        self.is_extended = False
        self.is_over = False
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._over: Future[None] | None = None  # made for who waits, since mostly nobody does
        self.loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()

    def end(self, error: Exception | None = None) -> None:
        """Wake those who wait for it. Once only: the owner sees to that."""
        with self._lock:
            self.is_over, self.error = True, error
            over = self._over
        if over is not None:
            over.set_result(None)

    def over(self) -> "Future[None]":
        """Return what is resolved when it is over."""
        with self._lock:
            over = self._over
            if over is None:
                over = self._over = Future()
                # A running future cannot be cancelled: one waiter's cancellation must not reach the others.
                over.set_running_or_notify_cancel()
                if self.is_over:
                    over.set_result(None)
        return over

    def brought(self, data: Sequence[bytes | Exception]) -> bool:
        """Whether this is what was wanted: all the bytes of each range, nothing ahead, nothing short, no exception."""
        return (
            set(map(type, data)) == {bytes}
            and list(map(len, data)) == self.ranges.lengths()  # type: ignore[arg-type]  # no exception is among them
            and not self.is_extended
        )

    def sizes(self, data: Sequence[bytes | Exception]) -> tuple[int, int, int]:
        """Return of what the origin sent how many bytes it is, how many of them ahead, and how many ranges failed."""
        bodies = data if set(map(type, data)) == {bytes} else [body for body in data if isinstance(body, bytes)]
        nbytes = sum(map(len, bodies))  # type: ignore[arg-type]  # no exception is among them
        ahead = 0
        if self.is_extended:
            for start, wanted, body in zip(self.ranges.starts, self.wanted, data, strict=True):
                if isinstance(body, bytes) and start + len(body) > wanted:
                    ahead += start + len(body) - wanted
        return nbytes, ahead, len(data) - len(bodies)

    def bytes_of(self, start: int, stop: int, index: int) -> bytes:
        """Return [start, stop) out of range `index` (shorter at the end of the file); raise what that range met."""
        data = self.data[index]
        if isinstance(data, Exception):
            raise data
        first = self.ranges.starts[index]
        if start == first and stop - first >= len(data):
            return data
        return data[start - first : stop - first]
