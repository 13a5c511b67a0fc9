"""What an origin did not answer and may answer yet is asked again: for all origins here, within the settings' bound."""

import asyncio
import errno
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from jcache.counters import Counters
from jcache.errors import OriginChangedError, ShortReadError
from jcache.origin import Fetched, Info, Origin, OriginRange, renew, retry_after

__all__ = ["Retries", "RetryHost", "Tries", "fetch", "stat"]

# The first pause, twice as long each time up to the most; half of it is by chance, lest all processes come at once.
FIRST_S, MOST_S = 0.1, 10.0
# Who answers, but breaks off or is busy without saying for how long, may do so each time: he is asked again not more
# often than this, and sooner where he breaks off.
ANSWERS_MOST, CUT_FIRST_S = 6, 0.02
# Error numbers of that.
CUT = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})
# Not the generator of the module, which is the application's: it may have been seeded.
CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Retries:
    """The bound within which a request is sent again.

    Attributes:
        most: So often at most.
        for_s: And so long after it failed for the first time, in seconds.
        servers: Those that have answered this process.
    """

    most: int = 0
    for_s: float = 60.0
    servers: set[str] = field(default_factory=set)


class RetryHost(Protocol):
    """What asking again needs of the process."""

    counters: Counters
    retries: Retries


async def stat(host: RetryHost, origin: Origin) -> Info:
    """Ask for the file's version; as `Origin.stat`."""
    tries = Tries(host, origin)
    while True:
        try:
            info = await origin.stat()
        except Exception as error:
            if not await tries.again(error):
                raise
            host.counters.origin(requests=1, retries=1)
        else:
            tries.answered()
            return info


async def fetch(
    host: RetryHost,
    origin: Origin,
    ranges: Sequence[OriginRange],
    *,
    known: Info | None,
    arrived: Callable[[], None] | None = None,
) -> Fetched:
    """Fetch byte ranges; as `Origin.fetch`. Where some of them failed, they are asked for under the others' version."""
    tries = Tries(host, origin)
    whole: Fetched | None = None
    todo: Sequence[int] = range(len(ranges))
    while True:
        asked = ranges if whole is None else [ranges[i] for i in todo]
        try:
            if arrived is None:
                got = await origin.fetch(asked, known=known)
            else:
                got = await origin.fetch(asked, known=known, arrived=arrived)
        except Exception as error:
            if not await tries.again(error):
                if whole is None or isinstance(error, OriginChangedError):
                    raise
                return whole._replace(requests=whole.requests + 1)  # what failed is in its place, what came is good
            host.counters.origin(requests=1, retries=1)
            continue
        kinds = set(map(type, got.data))
        if bytes in kinds:
            tries.answered()
        whole = got if whole is None else _merged(whole, todo, got)
        if kinds <= {bytes}:
            return whole
        errors = {i: data for i in todo if isinstance(data := whole.data[i], Exception) and tries.may_pass(data)}
        if not errors or not await tries.again(max(errors.values(), key=tries.pause_s)):
            return whole
        known = known or got.info
        # Where nothing shows of which version the others are, they are asked for again as well.
        todo = list(errors) if known is not None and whole.info is not None else range(len(ranges))
        host.counters.origin(retries=len(todo))


def _merged(whole: Fetched, places: Sequence[int], got: Fetched) -> Fetched:
    """Return one answer out of two: the second is to these ranges of the first, asked for as its version."""
    if len(places) == len(whole.data):
        data, info, recordable = got.data, got.info, got.recordable
    else:
        data, info, recordable = list(whole.data), got.info and whole.info, whole.recordable and got.recordable
        for i, piece in zip(places, got.data, strict=True):
            data[i] = piece
    return got._replace(
        data=data,
        info=info,
        recordable=recordable,
        requests=whole.requests + got.requests,
        retries=whole.retries + got.retries,
    )


class Tries:
    """How often one request was sent, and since when it fails."""

    __slots__ = ("_answers", "_count", "_failed_s", "_host", "_origin")

    def __init__(self, host: RetryHost, origin: Origin) -> None:
        self._host = host
        self._origin = origin
        self._answers = self._count = 0
        self._failed_s = 0.0

    @property
    def _server(self) -> str:
        return urlsplit(self._origin.identity.url).netloc

    def answered(self) -> None:
        """Take note that there is somebody who answers."""
        self._host.retries.servers.add(self._server)

    def may_pass(self, error: Exception) -> bool:
        """Whether the same request may be answered later."""
        return self._host.retries.most > 0 and self.pause_s(error) >= 0

    def pause_s(self, error: Exception) -> float:
        """Return how long the server wants to be left alone, less than nothing where the failure will stay."""
        pause_s = retry_after(self._origin, error, met=self._server in self._host.retries.servers)
        return -1.0 if pause_s is None else pause_s

    async def again(self, error: Exception) -> bool:
        """Wait until the request is to be sent again, and return True; False where it is not."""
        retries, now_s = self._host.retries, time.monotonic()
        if self._count >= retries.most:
            return False
        if not self.may_pass(error):
            is_renewed = await renew(self._origin, error)
            self._count += is_renewed
            return is_renewed
        self._failed_s = self._failed_s or now_s
        said_s, cut = self.pause_s(error), is_cut(error)
        self._answers += cut or (not said_s and getattr(error, "status", None) is not None)
        if self._answers > ANSWERS_MOST:
            return False
        first_s = CUT_FIRST_S if cut else FIRST_S
        pause_s = max(said_s, CHANCE.uniform(0.5, 1.0) * min(MOST_S, first_s * 2**self._count))
        if now_s + pause_s - self._failed_s > retries.for_s:
            return False
        self._count += 1
        await asyncio.sleep(pause_s)
        return True


def is_cut(error: Exception) -> bool:
    """Whether somebody answered and broke off, or sent too little."""
    if isinstance(error, OSError):
        return isinstance(error, (ShortReadError, ConnectionResetError, BrokenPipeError)) or error.errno in CUT
    return getattr(error, "status", None) is None and not isinstance(error, TimeoutError)
