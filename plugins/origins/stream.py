"""The body of a file whose server sends it whole or not at all, read on from where it is."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Stream"]

CHUNK_BYTES = 1 << 20
# A body that nobody reads on is given up after so long, or when so many others are open: each has a connection.
IDLE_S = 10.0
MOST = 16

_open: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """One response to a request for the whole file. Used on one event loop only.

    Attributes:
        used_s: When it was last read, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._response: Any = None
        self._rest = b""
        self._at = 0
        self.used_s = 0.0
        self._told: tuple[Any, float, float] = {}, 0.0, 0.0

    async def read(
        self, ask: Callable[[], Awaitable[tuple[Any, Any]]], start: int, stop: int | None
    ) -> tuple[bytes, Any, float, float]:
        """Return a range of the file; what lies before it is passed over.

        Args:
            ask: Asks for the file, and returns the response if it is a good one, with its headers.
            start: The first byte.
            stop: One past the last one; None for the end.

        Returns:
            The bytes, the headers of the response that brought them, when it was asked for, and when it came.
        """
        async with self._lock:
            if self._response is None or self._at > start:
                self.close()
                asked_s = time.monotonic()
                (self._response, headers), self._at = await ask(), 0
                self._told = headers, asked_s, time.monotonic()
                self._make_room()
            told = self._told
            pieces: list[bytes] = []
            try:
                while stop is None or self._at < stop:
                    piece = self._rest or await self._response.content.read(CHUNK_BYTES)
                    self._rest = b""
                    if not piece:
                        self.close()
                        break
                    end = len(piece) if stop is None else min(len(piece), stop - self._at)
                    pieces.append(piece[max(start - self._at, 0) : end])
                    self._at, self._rest = self._at + end, piece[end:]
            except BaseException:
                self.close()  # nobody knows how far it got
                raise
            self.used_s = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE_S, _close_idle, weakref.ref(self))
            return b"".join(pieces), *told

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and nobody is reading it."""
        return self._response is not None and not self._lock.locked()

    def close(self) -> None:
        """Give the rest of the body up."""
        response, self._response = self._response, None
        self._rest = b""
        if response is not None:
            response.close()
        _open.discard(self)

    def _make_room(self) -> None:
        others = sorted((other for other in _open if other.is_idle), key=lambda other: other.used_s)
        for other in others[: max(len(_open) + 1 - MOST, 0)]:
            other.close()
        _open.add(self)

    def close_if_idle(self) -> None:
        """Give it up if it was not read for a while."""
        if self.is_idle and time.monotonic() - self.used_s >= IDLE_S:
            self.close()


def _close_idle(stream: "weakref.ref[Stream]") -> None:
    found = stream()
    if found is not None:
        found.close_if_idle()
