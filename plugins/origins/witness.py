"""Requests for one file that tell of its version, whoever sent them and for whatever bytes."""

import asyncio
import time

from jcache.journal import Version

__all__ = ["Testimony", "Witnesses"]


class Testimony:
    """What the answer to one request says of the file's version.

    Attributes:
        asked_s: When the request was sent, by the monotonic clock.
    """

    __slots__ = ("_is_told", "_of", "_waiter", "asked_s")

    def __init__(self, of: "Witnesses") -> None:
        self._of = of
        self._is_told = False
        self._waiter: asyncio.Event | None = None
        self.asked_s = time.monotonic()

    def tell(self, version: Version | None) -> None:
        """Say of which version the answer says that the file is; None where it does not. Only the first word counts."""
        if not self._is_told:
            self._is_told = True
            self._of.heard(self, version)
            if self._waiter is not None:
                self._waiter.set()

    async def wait(self) -> None:
        """Wait until it is told."""
        if not self._is_told:
            if self._waiter is None:
                self._waiter = asyncio.Event()
            await self._waiter.wait()


class Witnesses:
    """Which requests for one file are under way. Used on one event loop only.

    A question that is asked behind some bytes need not be asked if another request was sent behind them: its answer
    names the version, too.
    """

    __slots__ = ("_asking", "_seen")

    def __init__(self) -> None:
        self._asking: list[Testimony] = []
        # When the last request was sent of those that were answered, and the version that the answer named.
        self._seen: tuple[float, Version] | None = None

    def ask(self) -> Testimony:
        """Note a request that is about to be sent; `tell` must follow."""
        testimony = Testimony(self)
        self._asking.append(testimony)
        return testimony

    def heard(self, testimony: Testimony, version: Version | None) -> None:
        """Note an answer."""
        self._asking.remove(testimony)
        if version is not None and (self._seen is None or self._seen[0] < testimony.asked_s):
            self._seen = testimony.asked_s, version

    async def version_behind(self, done_s: float) -> Version | None:
        """Return the version that a request names that was sent after a moment; None where there is none that does."""
        while self._seen is None or self._seen[0] <= done_s:
            behind = next((testimony for testimony in self._asking if testimony.asked_s > done_s), None)
            if behind is None:
                return None
            await behind.wait()
        return self._seen[1]
