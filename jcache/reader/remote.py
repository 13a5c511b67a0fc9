"""One remote file, shared by all that read it in this process: hits from the journal, gaps from the origin."""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from jcache.errors import OriginChangedError
from jcache.journal import Journal, JournalError, Lease, LostSegment, Version, View
from jcache.origin import Info, Origin
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.held import Held
from jcache.planning.lent import Lent
from jcache.planning.plan import Part, Plan
from jcache.planning.snapshot import END, REPLACED, Snapshot
from jcache.planning.waiting import landed
from jcache.ranges import Range, resolve
from jcache.reader.assembly import assemble, missed, part_bytes, row_bytes
from jcache.reader.fetching import Fetching
from jcache.reader.host import Host
from jcache.reader.store import ROOM_S, Home, Own, Store
from jcache.reader.tiers import Tiers
from jcache.reader.validation import RESTARTS, Validation
from jcache.recording.workers import CacheHungError
from jcache.segment.table import Run
from jcache.vectors import Extents, Vector

__all__ = ["RemoteFile", "Span"]

# A byte range as fsspec's callers give it: Python's slice rules, None for "from the start" and "to the end".
Span = tuple[int | None, int | None]


class RemoteFile:
    """One remote file in this process: its journal, its version as it was validated, its requests under way.

    Any number of tasks on any event loops, and threads, read through one instance. Each call names the origin to
    use, since credentials and event loops belong to the caller.

    Attributes:
        url: The file's address for messages and reports, without secrets.
        active: How many read just now.
        used_s: When the last one did.
        hits: Reads that the journal served entirely, since the session last noted them. Threads may lose some.
        hit_bytes: Bytes that it served, likewise.
        noted_s: The registry's: when it last noted the use of this file.
    """

    def __init__(
        self,
        host: Host,
        journal: Journal | Home | None,
        *,
        url: str,
        writable: bool = True,
        local: bool = True,
        own: Own | None = None,
        shared: bool = False,
        why_not: str = "",
        validate: str | float | None = None,
        query: str = "",
        lock: "threading.Lock | None" = None,
    ) -> None:
        """Make the file known; nothing is read yet.

        Args:
            host: The process's counters, recorder and settings.
            journal: The file's journal; None where the cache cannot serve it.
            url: The file's address for messages and reports, without secrets.
            writable: Whether what is fetched may be recorded.
            local: Whether the cache directory is on this machine.
            own: Gives the journal that is the asker's own; None where there cannot be one.
            shared: Whether the journal is for all who ask, whatever the origin says.
            why_not: Why there is no journal, where there is none.
            validate: When the origin is asked whether it has changed; as the settings say by default.
            query: Of the file's URL, as `Identity` has it.
            lock: Over how many read it; one of its own by default.
        """
        self._host = host
        home = Home(journal) if isinstance(journal, Journal) else journal
        self._store = Store(
            host, home, url=url, writable=writable, local=local, own=own, shared=shared, why_not=why_not
        )
        self._tiers = Tiers(host, self._store) if self._store.below else None
        self._validation = Validation(
            host, self._store, url=url, validate=host.validate if validate is None else validate
        )
        self._fetching = Fetching(host, self._store, self._validation, url=url)
        self._opened = False
        self.url = url
        self.query = query
        self._lock = threading.Lock() if lock is None else lock
        self.active = 0
        self.used_s = time.monotonic()
        self.hits = self.hit_bytes = 0
        self.noted_s = -1.0

    def __enter__(self) -> Self:
        """Read, having acquired it."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Allow it, once acquired, to be closed when it is the one not used for longest."""
        with self._lock:
            self.active -= 1
            self.used_s = time.monotonic()

    @property
    def place(self) -> str | None:
        """The journal's directory; None where there is none."""
        return self._store.place

    @property
    def validation(self) -> Validation:
        """Which version is read; for who has read the file already, see `jcache.recording.small`."""
        return self._validation

    @property
    def version(self) -> Version | None:
        """The version that was read last, as far as it is known."""
        return self._validation.version

    # -- reading --------------------------------------------------------------------------------------------

    def try_read(
        self, spans: Sequence[Span], *, vector: bool, version: Version | None = None, whole: bool = False
    ) -> list[bytes] | None:
        """Read from journal and memory alone, on the caller's thread, without any event loop.

        Args:
            spans: Byte ranges with Python's slice rules.
            vector: Whether the application asked for them in one vector read.
            version: The version that the caller has bytes of already, if it must not be another one.
            whole: Whether a range in which the file has no byte is for `read` to answer, and with it all of them.

        Returns:
            Their bytes in the caller's order; None where any byte is missing or the version must be asked for
            first, and nothing is counted.
        """
        started_s = time.monotonic()
        snapshot = self._validation.fresh()
        if snapshot is None or snapshot.info is None or not (version is None or snapshot.is_of(version)):
            return None
        view = snapshot.view
        asked = in_file(spans if isinstance(spans, Vector) else Vector.of(spans), snapshot.info.version)
        rows = snapshot.lookup(asked)
        if rows is None or (whole and not all(rows)):
            return None
        out = self._read_rows(rows, snapshot, view)
        if out is None:
            return None
        if self._tiers is not None:
            self._tiers.served(snapshot.info, view, (part for row in rows for part in row))
        miss = 0
        ahead = [part for row in rows for part in row if isinstance(part[2], Held) and part[2].ahead]
        if ahead:
            miss = sum(part[1] - part[0] for part in ahead)
            self._record(snapshot, snapshot.use_ahead(ahead))
        total = sum(map(len, out))
        if total:  # no byte is of no version
            try:
                snapshot.deliver()
            except OriginChangedError:
                return None
        self._count(vector, len(out), total, miss, started_s, asked=asked, ahead=miss)
        return out

    def peek(self, start: int, stop: int, *, version: Version | None = None) -> bytes:
        """Return what the journal has of [start, stop) from `start` on without a gap, and count nothing.

        A reader in small steps takes more than it was asked for from here, and counts what it hands out.
        """
        snapshot = self._validation.fresh()
        view = None if snapshot is None else snapshot.use_view()
        if snapshot is None or snapshot.info is None or view is None:
            return b""
        if not snapshot.is_of(version):
            return b""
        stop = min(stop, snapshot.info.version.size_bytes)
        if start >= stop:
            return b""
        row: list[Part] = []
        for part in view.find(start, stop):
            if part[2] is None:
                break
            row.append(part)  # type: ignore[arg-type]  # not a gap
        data = self._read_rows([row], snapshot, view) if row else None
        if data is None:
            return b""
        try:
            snapshot.deliver()
        except OriginChangedError:
            return b""
        self.hits += 1
        self.hit_bytes += len(data[0])
        return data[0]

    def lend(self, start: int, *, version: Version | None = None) -> Lent | None:
        """Lend what was read ahead from `start` on to a reader in small steps, who counts what it takes as missed.

        The reader hands it back with `hand_back`; if it never does, what was taken is recorded with `hand_over`.
        """
        snapshot = self._validation.fresh()
        if snapshot is None or not snapshot.is_of(version):
            return None
        held = snapshot.lend(start)
        if held is None:
            return None
        try:
            snapshot.deliver()
        except OriginChangedError:
            return None
        return Lent(snapshot, held)

    def hand_back(self, lent: Lent) -> None:
        """Have recorded what was taken of a piece that was lent."""
        held = lent.held
        if held.taken > held.start:
            self._record(lent.snapshot, lent.snapshot.use_ahead([(held.start, held.taken, held, 0, 0)]))

    def hand_over(self) -> None:
        """Have recorded what was taken of all pieces that are lent."""
        snapshot = self._validation.snapshot
        if snapshot is not None:
            self._record(snapshot, snapshot.use_taken())

    def _record(self, snapshot: Snapshot, extents: Extents) -> None:
        """Hand over to record, where there is room for it just now."""
        if extents and not self._store.record(snapshot, extents, timeout_s=0):
            snapshot.settle(extents)

    def _read_rows(self, rows: Sequence[Sequence[Part]], snapshot: Snapshot, view: View | None) -> list[bytes] | None:
        """Read ranges that lie in journal and memory, in synchronous code; None where that failed."""

        def read_all() -> list[bytes]:
            return [row_bytes(row, view) for row in rows]

        try:
            if self._store.local:  # and cannot take for ever
                if view is None:
                    return read_all()
                # What lies in one piece in the journal, by far the most, is read without another call.
                return [
                    view.read(row[0]) if len(row) == 1 and type(row[0][2]) is Run else row_bytes(row, view)  # type: ignore[arg-type]  # just asked
                    for row in rows
                ]
            size_bytes = sum(part[1] - part[0] for row in rows for part in row)
            return self._host.workers.call(read_all, size_bytes=size_bytes)
        except CacheHungError:
            snapshot.view = None  # from here on the origin serves this version
        except JournalError as error:
            self._host.counters.damaged(not isinstance(error, LostSegment))
        return None

    async def read(
        self,
        origin: Origin,
        spans: Sequence[Span],
        *,
        vector: bool,
        ahead_bytes: int = 0,
        version: Version | None = None,
    ) -> list[bytes | Exception]:
        """Read byte ranges: what the journal has from there, the gaps from the origin in one vectored request.

        Args:
            origin: Where the gaps come from.
            spans: Byte ranges with Python's slice rules, in any order, overlapping or not.
            vector: Whether the application asked for them in one vector read.
            ahead_bytes: How far to read ahead behind the last range if it misses.
            version: The version that the caller has bytes of already, if it must not be another one.

        Returns:
            For each range its bytes (shorter at the end of the file) or the exception that it met.

        Raises:
            OriginChangedError: The file was replaced and bytes of its old version have been delivered, or it is not
                of `version`.
            OfflineMissError: Bytes are missing and the origin must not be asked.
            Exception: Whatever the origin's stat raises.
        """
        if version is None and len(spans) == 1:  # of one, what is read past the cache is of one version
            self._validation.check()
        for restart in range(RESTARTS):
            snapshot = await self._validation.ready(origin)
            if version is not None and not snapshot.is_of(version):
                raise OriginChangedError(REPLACED)
            try:
                rows = await self._read(snapshot, origin, spans, vector=vector, ahead_bytes=ahead_bytes)
            except OriginChangedError as error:
                if self._validation.discard(snapshot) or (version is not None and restart == RESTARTS - 1):
                    raise
                if restart == RESTARTS - 1:
                    raise self._validation.restless() from error
                continue
            if version is not None and not snapshot.is_of(version):  # which was not known before
                raise OriginChangedError(REPLACED)
            return rows
        raise AssertionError

    async def prefetch(
        self, origin: Origin, start: int, stop: int, *, arrived: Callable[[], None] | None = None
    ) -> None:
        """Read [start, stop) ahead, up to the first byte that is there already; failures are left to the reader.

        Args:
            origin: Where the bytes come from.
            start: The first one.
            stop: One past the last one.
            arrived: Called once they are here, proved or not: the wire is free for what comes next.
        """
        snapshot = self._validation.snapshot
        if snapshot is None or snapshot.info is None or self._host.offline:
            return
        share = self._host.ahead.take(stop - start)
        flight = None if share is None else snapshot.claim_ahead(start, stop, share)
        if flight is not None:
            try:
                await self._fetching.fly(snapshot, origin, flight, arrived=arrived)
            except Exception:  # noqa: BLE001 - nobody has asked for these bytes yet; who does will meet the error
                return

    def gaps(self, least_bytes: int, start: int = 0, stop: int = END) -> list[Range]:
        """Return what neither journal nor memory has of [start, stop), but for what is shorter than this."""
        snapshot = self._validation.snapshot
        return [] if snapshot is None or self._host.offline else snapshot.gaps(least_bytes, start, stop)

    def drop_ahead(self, start: int = 0, stop: int = END) -> int:
        """Forget what was read ahead in [start, stop) and not asked for; return how many bytes that were."""
        snapshot = self._validation.snapshot
        unused = 0
        if snapshot is not None:
            unused, extents = snapshot.drop_ahead(start, stop)
            self._record(snapshot, extents)
            if unused:
                self._host.counters.origin(prefetch_unused=unused)
        return unused

    async def _read(
        self, snapshot: Snapshot, origin: Origin, spans: Sequence[Span], *, vector: bool, ahead_bytes: int
    ) -> list[bytes | Exception]:
        started_s = time.monotonic()
        if snapshot.info is None and any((a or 0) < 0 or (b or 0) < 0 for a, b in spans):
            await self._validation.pin_by_stat(snapshot, origin)  # counted from the end: the size is needed first
        spans, count = Vector.of(spans), len(spans)
        results: list[bytes | Exception | None] = [None] * count
        todo = list(range(count))
        total = miss = ahead = 0
        is_profiled = self._host.counters.profile is not None
        share = self._host.ahead.take(ahead_bytes) if ahead_bytes else None
        ahead_bytes = 0 if share is None else ahead_bytes
        # What a plan before the last one fetched: it may be in the journal by now, and is a miss all the same.
        fetched: dict[int, list[Range]] = {}
        while todo:
            chosen = spans if len(todo) == count else Vector.of(spans[i] for i in todo)
            plan = snapshot.plan(in_file(chosen, snapshot.version), ahead_bytes=ahead_bytes, share=share)
            lease = None if plan.own is None else await self._fetching.share(snapshot, origin, plan.own)
            if plan.own is not None and lease is None:
                continue
            if is_profiled and plan.has_ahead:
                every = (part for row in plan.parts for part in row)
                ahead += sum(part[1] - part[0] for part in every if isinstance(part[2], Held) and part[2].ahead)
            rows = await self._carry_out(snapshot, origin, plan, lease)
            result = plan.result
            if plan.own is not None and result is not None and len(todo) == count and not fetched:
                # Each range was fetched as it is: its result is in its place.
                total = plan.own.sizes(result)[0]
                if total:
                    snapshot.deliver()
                asked = asked_for(spans, snapshot.version, rows) if is_profiled else None
                self._count(vector, count, total, total, started_s, asked=asked)
                return rows  # type: ignore[return-value]  # no None is among them
            again: list[int] = []
            for i, row, parts in zip(todo, rows, plan.parts, strict=True):
                if row is None:
                    again.append(i)
                    fetched.setdefault(i, []).extend(
                        part[:2] for part in parts if isinstance(part[2], Flight) and part[2].error is None
                    )
                    continue
                results[i] = row
                if isinstance(row, bytes):
                    total += len(row)
                    miss += missed(parts, len(row), fetched.get(i, ()))
            todo = again
        if total:
            snapshot.deliver()
        asked = asked_for(spans, snapshot.version, results) if is_profiled else None
        self._count(vector, count, total, miss, started_s, asked=asked, ahead=min(ahead, miss))
        return [result if result is not None else b"" for result in results]

    async def _carry_out(
        self, snapshot: Snapshot, origin: Origin, plan: Plan, lease: Lease | None
    ) -> list[bytes | Exception | None]:
        """Return each row's bytes, or its exception, or None where it must be planned again."""
        served: dict[Part, bytes] = {}
        if plan.own is None or lease is None:
            if plan.has_hits:
                served = await self._serve(snapshot, plan)
        elif plan.has_hits:
            fetch = asyncio.ensure_future(self._fetching.fetch(snapshot, origin, plan.own, lease))
            try:
                served = await self._serve(snapshot, plan)
                await fetch
            except BaseException:
                fetch.add_done_callback(functools.partial(self._fetching.ended, snapshot, plan.own, lease))
                fetch.cancel()
                raise
        else:
            await self._fetching.fetch(snapshot, origin, plan.own, lease)
        for flight in plan.others:
            if not await landed(flight):
                snapshot.abort(flight, FlightAbortedError())
        # What was being read ahead as this was planned has been asked for as well.
        ahead = (
            []
            if not plan.has_ahead and not plan.others
            else [
                part
                for row in plan.parts
                for part in row
                if (part[2].ahead if isinstance(part[2], Held) else part[2] in plan.others)
            ]
        )
        if ahead:
            await self._store.record_in_time(snapshot, snapshot.use_ahead(ahead), room_s=ROOM_S)
        result = plan.result
        return [assemble(row, served) for row in plan.parts] if result is None else list(result)

    async def _serve(self, snapshot: Snapshot, plan: Plan) -> dict[Part, bytes]:
        """Read the parts that lie in the journal; what cannot be read is left out, to be planned again."""
        view, counters = snapshot.view, self._host.counters
        hits = [part for row in plan.parts for part in row if isinstance(part[2], Run)]
        served: dict[Part, bytes] = {}

        def read_all() -> None:
            for part in hits:
                try:
                    served[part] = part_bytes(part, view)
                except JournalError as error:
                    counters.damaged(not isinstance(error, LostSegment))

        try:
            await self._host.workers.run(read_all, size_bytes=sum(stop - start for start, stop, *_ in hits))
        except JournalError:  # it hangs, or there is no thread to be had
            # From here on the origin serves this version; what was read so far stays good.
            snapshot.view = None
            return dict(served)
        if self._tiers is not None and snapshot.info is not None:
            self._tiers.served(snapshot.info, view, list(served))
        return served

    # -- version, life ----------------------------------------------------------------------------------------

    async def stat(self, origin: Origin) -> Info:
        """Return the file's version and info as this process holds it; see `Validation.stat`."""
        return await self._validation.stat(origin)

    async def stored(self, origin: Origin) -> Info | None:
        """Return the version and info where they may be had without asking the origin; see `Validation.stored`."""
        return await self._validation.stored(origin)

    @property
    def is_ready(self) -> bool:
        """Whether its version is known, as well as the settings want it; else the next read finds out."""
        return self._validation.fresh() is not None

    def is_proved_as_long(self, nbytes: int) -> bool:
        """Whether the file was so long when it was validated last, and that was not only said."""
        snapshot = self._validation.snapshot
        is_said = snapshot is not None and snapshot.info is not None and snapshot.info.version.size_bytes == nbytes
        return is_said and not self.is_end_unproved([(0, None)])

    def is_end_unproved(self, spans: Sequence[Span]) -> bool:
        """Whether any of these ranges depends on where the file ends, and the origin has said that and not shown it."""
        snapshot = self._validation.snapshot
        if snapshot is None or not snapshot.unproved or snapshot.info is None:
            return False
        size = snapshot.info.version.size_bytes
        return any(stop is None or stop > size or stop < 0 or (start or 0) < 0 for start, stop in spans)

    async def make_ready(self, origin: Origin) -> None:
        """Attach the journal and validate the version; whatever fails is left to the next read to meet."""
        with contextlib.suppress(Exception):
            await self._validation.ready(origin)

    def known(self) -> Info | None:
        """Return the file's version and info, if they were validated and need not be asked for again."""
        return self._validation.known()

    async def is_known(self) -> bool:
        """Whether anything of the file is recorded, or was validated in this process."""
        return self.known() is not None or await self.is_recorded()

    async def is_recorded(self) -> bool:
        """Whether anything of the file is recorded."""
        return bool(await self._store.versions())

    def opened(self, seconds: float, *, asked: bool = True) -> None:
        """Count an open of this file, `seconds` long; by the application, or because it reads it by name."""
        self._opened = True
        info = self.known()
        size_bytes = None if info is None else info.version.size_bytes
        self._host.counters.file_opened(self.url, size_bytes, seconds, asked=asked)

    def invalidate(self) -> None:
        """Forget the version, because this process has written to the file; see `Validation.invalidate`."""
        self._validation.invalidate()

    def doubt(self) -> None:
        """Ask the origin again at the next read; see `Validation.doubt`."""
        self._validation.doubt()

    def attach_again(self) -> None:
        """Look which segments there still are, after some were removed; it touches the cache directory."""
        self._store.attach_again()

    def seal(self) -> None:
        """Seal what was recorded; call it behind the last recording."""
        self._store.seal()

    def close(self, *, compact_until_s: float = 0.0) -> None:
        """Seal and close the journal; call it behind the last recording.

        Args:
            compact_until_s: Until when, by the monotonic clock, it may be compacted if it has gathered many segments.
        """
        self.drop_ahead()
        self._store.close(compact_s=compact_until_s - time.monotonic())

    def forget(self) -> None:
        """In a forked child: drop everything without writing or unlocking what is the parent's."""
        self._store.forget()

    def _count(
        self,
        vector: bool,
        ranges: int,
        total: int,
        miss: int,
        started_s: float,
        *,
        asked: Vector | None,
        ahead: int = 0,
    ) -> None:
        counters = self._host.counters
        if not self._opened:
            self.opened(self._validation.open_s, asked=False)
        if not self._store.is_used:
            hit, missed_bytes, bypass, ahead = 0, 0, total, 0
            if self._store.why_not:
                counters.uncached(self._store.why_not, total)
        else:
            hit, missed_bytes, bypass = total - miss, miss, 0
            self.hits += not miss
            self.hit_bytes += hit
        seconds = time.monotonic() - started_s
        if vector:
            counters.readv(
                ranges, total, hit, missed_bytes, bypass, url=self.url, seconds=seconds, asked=asked, ahead=ahead
            )
        else:
            counters.read(total, hit, missed_bytes, bypass, url=self.url, seconds=seconds, asked=asked, ahead=ahead)


def in_file(spans: Vector, version: Version | None) -> Vector:
    """Return spans as byte ranges, cut at the end of the file where its size is known."""
    if version is None:
        stops: Sequence[int | None] = spans.stops
        return Vector([start or 0 for start in spans.starts], [END if stop is None else stop for stop in stops])
    if spans.is_ascending and spans.stops[-1] <= version.size_bytes:
        return spans
    return Vector.of(resolve(start, stop, version.size_bytes) for start, stop in spans)


def asked_for(spans: Vector, version: Version | None, rows: Sequence[bytes | Exception | None]) -> Vector:
    """Return spans as byte ranges, for the profile: where no size is known, one without an end is what came of it."""
    if version is not None:
        return in_file(spans, version)
    sizes = [len(row) if isinstance(row, bytes) else 0 for row in rows]
    starts = [start or 0 for start in spans.starts]
    stops: Sequence[int | None] = spans.stops
    ends = [start + size if stop is None else stop for start, stop, size in zip(starts, stops, sizes, strict=True)]
    return Vector(starts, ends)
