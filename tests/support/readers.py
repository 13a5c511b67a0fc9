"""What the reader's tests share: a session's host without a session, and an origin that does as it is told."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

from jcache.counters import Counters
from jcache.errors import OriginChangedError
from jcache.journal import Journal, Version
from jcache.journal.leases import LEASE_LIMIT_S
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.held import Room
from jcache.planning.snapshot import agrees
from jcache.planning.waiting import Patience
from jcache.reader.remote import RemoteFile
from jcache.reader.retrying import Retries
from jcache.recording.recorder import Recorder
from jcache.recording.workers import Workers
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

URL = "https://example.org/f"
IDENTITY = Identity(URL, URL, (b"https", b"example.org", b"f"))
# Longer than any test takes: what is waited for happens, or the test fails.
PATIENCE_S = 20


class Replaced:
    """One state of the remote file."""

    def __init__(self, number: int, size: int = 4000, *, fields: str = "etag") -> None:
        self.data = random.Random(number).randbytes(size)
        known = {"etag": f'"{number}"', "mtime_ns": 10**18 + number, "checksum": f"md5:{number}"}
        self.version = Version(size, **{name: known[name] for name in fields.split()})
        self.info = Info(self.version, {"name": "f", "size": size})


class ScriptedOrigin:
    """An origin in memory.

    Attributes:
        state: What it serves.
        proves: Whether its answers say which version they are of.
        recordable: Whether they may be recorded.
        before: Awaited when a fetch arrives, with its number (from 1) and ranges; may raise, wait, or replace the file.
        behind: Awaited when the bytes are read and before they are delivered.
        answer: Given the right bytes of each range, returns what is delivered instead.
        fetched: Every range that was asked for, in order.
        sent: Bytes that were delivered.
        stats: How often it was asked for its version.
    """

    def __init__(self, state: Replaced) -> None:
        self.state = state
        self.identity = IDENTITY
        self.proves = True
        self.conditional = True
        self.recordable = True
        self.before: Callable[[int, Sequence[OriginRange]], Awaitable[None]] | None = None
        self.behind: Callable[[int], Awaitable[None]] | None = None
        self.answer: Callable[[list[bytes | Exception]], list[bytes | Exception]] | None = None
        self.stat_fails: Exception | None = None
        self.fetched: list[OriginRange] = []
        self.fetches = 0
        self.sent = 0
        self.stats = 0

    async def stat(self) -> Info:
        self.stats += 1
        await asyncio.sleep(0)
        if self.stat_fails is not None:
            raise self.stat_fails
        return self.state.info

    async def fetch(self, ranges: Sequence[OriginRange], *, known: Info | None) -> Fetched:
        self.fetches += 1
        number = self.fetches
        self.fetched += ranges
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before(number, ranges)
        state = self.state
        if self.conditional and known is not None and not agrees(known.version, state.version):
            raise OriginChangedError("replaced")
        data: list[bytes | Exception] = [state.data[start:stop] for start, stop in ranges]
        if self.answer is not None:
            data = self.answer(data)
        if self.behind is not None:
            await self.behind(number)
        self.sent += sum(len(part) for part in data if isinstance(part, bytes))
        return Fetched(data, state.info if self.proves else None, recordable=self.recordable)


class Host:
    """A process's counters, recorder and settings, as a `Session` has them."""

    def __init__(
        self,
        *,
        validate: str | float = "open",
        offline: bool = False,
        limit_bytes: int = 1 << 20,
        pool: int = 2,
        retries: Retries | None = None,
    ) -> None:
        self.counters = Counters()
        self.validate = validate
        self.offline = offline
        self.trusts_unreachable = False
        self.troubles: list[str] = []
        self.patience = Patience(LEASE_LIMIT_S)
        self.ahead = Room(1 << 30, make=lambda: None)
        self.retries = retries or Retries()
        self.recorder = Recorder(
            limit_bytes=limit_bytes, recorded=self.counters.recorded, failed=lambda e: self.trouble(str(e)), pause_s=0.0
        )
        self.workers = Workers(threads=pool, limit_s=PATIENCE_S, on_hung=lambda limit_s: self.trouble("hung"))

    def trouble(self, what: str) -> None:
        self.troubles.append(what)
        self.counters.failure()

    def close(self) -> None:
        assert self.recorder.close(PATIENCE_S)


class Setup:
    """One remote file of one process."""

    def __init__(
        self,
        directory: object,
        *,
        state: Replaced | None = None,
        storage: Storage | None = None,
        host: Host | None = None,
        **options: object,
    ) -> None:
        self.host = host or Host(**options)  # type: ignore[arg-type]
        self.journal = Journal(storage or Storage(), os.fspath(directory), URL)  # type: ignore[call-overload]
        self.remote = RemoteFile(self.host, self.journal, url=URL)  # type: ignore[arg-type]
        self.origin = ScriptedOrigin(state or Replaced(1))

    async def read(self, *spans: tuple[int | None, int | None], vector: bool = True, ahead_bytes: int = 0) -> list:
        return await self.remote.read(self.origin, list(spans), vector=vector, ahead_bytes=ahead_bytes)

    def try_read(self, *spans: tuple[int | None, int | None], vector: bool = True) -> list[bytes] | None:
        return self.remote.try_read(list(spans), vector=vector)

    def settle(self) -> None:
        assert self.host.recorder.flush(PATIENCE_S)

    @property
    def data(self) -> bytes:
        return self.origin.state.data

    def assert_empty(self) -> None:
        """Nothing is under way, and no fetched byte is kept in memory."""
        self.settle()
        snapshot = self.remote._validation.snapshot
        if snapshot is not None:
            assert not list(snapshot._flights), "a flight was never landed"
            assert not list(snapshot._held), "bytes are kept for ever"
        assert self.host.recorder._waiting_bytes == 0
        assert self.remote._validation.opening is None

    def assert_adds_up(self) -> None:
        counts = self.host.counters.snapshot()
        assert counts.origin_bytes == self.origin.sent

    def close(self) -> None:
        self.remote.close()
        self.host.close()


async def once(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)
