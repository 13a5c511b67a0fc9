"""One remote file, shared by all that read it in this process: hits from the journal, gaps from the origin."""

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from jcache.counters import Counters
from jcache.errors import OfflineMissError, OriginChangedError
from jcache.journal import Journal, JournalError, StoredVersion, Version, View
from jcache.journal.table import Run
from jcache.origin import Fetched, Info, Origin
from jcache.ranges import Range, normalise, resolve, subtract
from jcache.ranges import total as size_of
from jcache.reader.recorder import Recorder, Recording
from jcache.reader.snapshot import (
    END,
    REPLACED,
    Extent,
    Flight,
    FlightAbortedError,
    Held,
    Part,
    Plan,
    Snapshot,
    agrees,
    to_origin,
)
from jcache.reader.workers import CacheHungError, Workers

__all__ = ["Host", "RemoteFile", "Span"]

# A byte range as fsspec's callers give it: Python's slice rules, None for "from the start" and "to the end".
Span = tuple[int | None, int | None]

# How often a file that nobody has read yet may be found replaced before that is the reader's problem.
RESTARTS = 4
# A reader that misses looks for what other writers published, but not more often than this (one stat each).
REFRESH_S = 0.1
# Recording may hold up a read for as long as its fetch took, and at least this long, before bytes go unrecorded.
ROOM_S = 0.1
# An event loop that has not turned for so long does not bring what its tasks were fetching.
STUCK_S = 5.0
# The checksum of a file whose origin gives only a size, and for which JCACHE_VALIDATE=never vouches.
WRITE_ONCE = "write-once"
# Of what a file system's `info` says besides the version.
DETAILS_BYTES = 8 << 10


class Host(Protocol):
    """What a remote file needs of the process that it lives in."""

    counters: Counters
    recorder: Recorder
    workers: Workers
    validate: str | float
    offline: bool

    def trouble(self, what: str) -> None:
        """Say once that the cache is in trouble, and count it."""
        ...


class RemoteFile:
    """One remote file in this process: its journal, its version as it was validated, its requests under way.

    Any number of tasks on any event loops, and threads, read through one instance. Each call names the origin to
    use, since credentials and event loops belong to the caller.
    """

    def __init__(self, host: Host, journal: Journal | None, *, url: str, writable: bool = True) -> None:
        """Make the file known; nothing is read yet.

        Args:
            host: The process's counters, recorder and settings.
            journal: The file's journal; None where the cache cannot serve it.
            url: The file's address for messages and reports, without secrets.
            writable: Whether what is fetched may be recorded.
        """
        self._writable = writable
        self._host = host
        # None once it is not to be used any more; `_owned` is what there is to close.
        self._journal = self._owned = journal
        self.url = url
        self._snapshot: Snapshot | None = None
        self._validated_s = 0.0
        self._refreshed_s = 0.0
        self._opening: Flight | None = None
        self._attached = False
        # Counts the changes of mind about the version: one that began before the last one is out of date.
        self._epoch = 0
        self._storable: tuple[Info, Info] | None = None
        # Whether what the journal has may no longer be trusted without asking the origin.
        self._must_stat = False
        self._opened = False
        # What attaching and validating took, for an application that reads without opening.
        self._open_s = 0.0
        self._lock = threading.Lock()
        # The session's: how many read just now, and when the last one did.
        self.active = 0
        self.used_s = time.monotonic()

    # -- reading --------------------------------------------------------------------------------------------

    def try_read(self, spans: Sequence[Span], *, vector: bool, version: Version | None = None) -> list[bytes] | None:
        """Read from journal and memory alone, on the caller's thread, without any event loop.

        Args:
            spans: Byte ranges with Python's slice rules.
            vector: Whether the application asked for them in one vector read.
            version: The version that the caller has bytes of already, if it must not be another one.

        Returns:
            Their bytes in the caller's order; None where any byte is missing or the version must be asked for
            first, and nothing is counted.
        """
        started_s = time.monotonic()
        snapshot = self._snapshot
        if snapshot is None or snapshot.info is None or not self._is_fresh() or not snapshot.is_of(version):
            return None
        size = snapshot.info.version.size_bytes
        view = snapshot.view
        rows = snapshot.lookup([resolve(start, stop, size) for start, stop in spans])
        if rows is None:
            return None
        out: list[bytes] = []
        ahead: list[Part] = []
        miss = 0
        try:
            for row in rows:
                out.append(row_bytes(row, view))
                for part in row:
                    if isinstance(part[2], Held) and part[2].ahead:
                        ahead.append(part)
                        miss += part[1] - part[0]
        except JournalError:
            self._host.counters.damaged(1)
            return None
        if ahead:
            used = snapshot.use_ahead(ahead)
            if not self._record(snapshot, used, timeout_s=0):
                snapshot.settle(used)
        try:
            snapshot.deliver()
        except OriginChangedError:
            return None
        self._count(vector, len(out), sum(map(len, out)), miss, started_s)
        return out

    def peek(self, start: int, stop: int, *, version: Version | None = None) -> bytes:
        """Return what the journal has of [start, stop) from `start` on without a gap, and count nothing.

        A reader in small steps takes more than it was asked for from here, and counts what it hands out.
        """
        snapshot = self._snapshot
        view = None if snapshot is None else snapshot.use_view()
        if snapshot is None or snapshot.info is None or view is None or not self._is_fresh():
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
        try:
            data = row_bytes(row, view)
        except JournalError:
            self._host.counters.damaged(1)
            return b""
        try:
            snapshot.deliver()
        except OriginChangedError:
            return b""
        return data

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
        for restart in range(RESTARTS):
            snapshot = await self.ready(origin)
            if not snapshot.is_of(version):
                raise OriginChangedError(REPLACED)
            try:
                rows = await self._read(snapshot, origin, spans, vector=vector, ahead_bytes=ahead_bytes)
            except OriginChangedError:
                if self._discard(snapshot) or restart == RESTARTS - 1:
                    raise
                continue
            if not snapshot.is_of(version):  # which was not known before
                raise OriginChangedError(REPLACED)
            return rows
        raise AssertionError

    async def prefetch(self, origin: Origin, start: int, stop: int) -> None:
        """Read [start, stop) ahead, up to the first byte that is there already; failures are left to the reader."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.info is None or self._host.offline:
            return
        flight = snapshot.claim_ahead(start, stop)
        if flight is not None:
            try:
                await self._fly(snapshot, origin, flight)
            except Exception:  # noqa: BLE001 - nobody has asked for these bytes yet; who does will meet the error
                return

    def drop_ahead(self, start: int = 0, stop: int = END) -> None:
        """Forget what was read ahead in [start, stop) and not asked for."""
        snapshot = self._snapshot
        if snapshot is not None and (unused := snapshot.drop_ahead(start, stop)):
            self._host.counters.origin(prefetch_unused=unused)

    async def _read(
        self, snapshot: Snapshot, origin: Origin, spans: Sequence[Span], *, vector: bool, ahead_bytes: int
    ) -> list[bytes | Exception]:
        started_s = time.monotonic()
        if snapshot.info is None and any((a or 0) < 0 or (b or 0) < 0 for a, b in spans):
            await self._pin_by_stat(snapshot, origin)  # counted from the end: the size is needed first
        version = snapshot.version
        if version is None:
            ranges = [(start or 0, END if stop is None else stop) for start, stop in spans]
        else:
            ranges = [resolve(start, stop, version.size_bytes) for start, stop in spans]
        results: list[bytes | Exception | None] = [None] * len(ranges)
        todo = list(range(len(ranges)))
        total = miss = 0
        # What a plan before the last one fetched: it may be in the journal by now, and is a miss all the same.
        fetched: dict[int, list[Range]] = {}
        while todo:
            plan = snapshot.plan([ranges[i] for i in todo], ahead_bytes=ahead_bytes)
            if plan.own is not None and await self._refresh(snapshot, plan.own):
                continue
            rows = await self._carry_out(snapshot, origin, plan)
            again: list[int] = []
            for i, row, parts in zip(todo, rows, plan.parts, strict=True):
                if row is None:
                    again.append(i)
                    fetched.setdefault(i, []).extend(
                        part[:2] for part in parts if isinstance(part[2], Flight) and part[2].done.exception() is None
                    )
                    continue
                results[i] = row
                if isinstance(row, bytes):
                    total += len(row)
                    miss += missed(parts, len(row), fetched.get(i, ()))
            todo = again
        if total:
            snapshot.deliver()
        self._count(vector, len(spans), total, miss, started_s)
        return [result if result is not None else b"" for result in results]

    async def _carry_out(self, snapshot: Snapshot, origin: Origin, plan: Plan) -> list[bytes | Exception | None]:
        """Return each row's bytes, or its exception, or None where it must be planned again."""
        served: dict[Part, bytes] = {}
        if plan.own is None:
            if plan.has_hits:
                served = await self._serve(snapshot, plan)
        elif plan.has_hits:
            fetch = asyncio.ensure_future(self._fetch(snapshot, origin, plan.own))
            try:
                served = await self._serve(snapshot, plan)
            except BaseException:
                fetch.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks for it
                fetch.cancel()
                raise
            await fetch
        else:
            await self._fetch(snapshot, origin, plan.own)
        for flight in plan.others:
            if not await landed(flight):
                snapshot.abort(flight, FlightAbortedError())
        # What was being read ahead as this was planned has been asked for as well.
        ahead = [
            part
            for row in plan.parts
            for part in row
            if (part[2].ahead if isinstance(part[2], Held) else part[2] in plan.others)
        ]
        if ahead:
            await self._record_in_time(snapshot, snapshot.use_ahead(ahead), room_s=ROOM_S)
        return [assemble(row, served) for row in plan.parts]

    async def _serve(self, snapshot: Snapshot, plan: Plan) -> dict[Part, bytes]:
        """Read the parts that lie in the journal; what cannot be read is left out, to be planned again."""
        view, counters = snapshot.view, self._host.counters
        hits = [part for row in plan.parts for part in row if isinstance(part[2], Run)]
        served: dict[Part, bytes] = {}

        def read_all() -> None:
            for part in hits:
                try:
                    served[part] = part_bytes(part, view)
                except JournalError:
                    counters.damaged(1)

        try:
            await self._host.workers.run(read_all, size_bytes=sum(stop - start for start, stop, *_ in hits))
        except CacheHungError:
            # From here on the origin serves this version; what was read so far stays good.
            snapshot.view = None
            return dict(served)
        return served

    # -- fetching and recording -----------------------------------------------------------------------------

    async def _fetch(self, snapshot: Snapshot, origin: Origin, flight: Flight) -> None:
        """Carry out a flight and hand over to record; what the origin raises is left to the ranges that needed it."""
        started_s = time.monotonic()
        try:
            extents = await self._fly(snapshot, origin, flight)
        except (OriginChangedError, OfflineMissError):
            raise
        except Exception:  # noqa: BLE001 - the flight holds it, and `assemble` finds it there
            return
        # Where the queue is full the read waits for room as long as its fetch took, then goes on unrecorded.
        await self._record_in_time(snapshot, extents, room_s=max(ROOM_S, time.monotonic() - started_s))

    async def _fly(self, snapshot: Snapshot, origin: Origin, flight: Flight) -> list[Extent]:
        """Carry out a flight; return the extents to record. On any failure it is aborted and nothing recorded."""
        counters = self._host.counters
        try:
            if self._host.offline:
                raise OfflineMissError(offline_message(self.url, flight))
            started_s = time.monotonic()
            try:
                fetched = await origin.fetch(to_origin(flight.ranges), known=as_origin_says(snapshot.info))
            except Exception:
                counters.origin(requests=1, errors=1)
                raise
            nbytes = sum(len(data) for data in fetched.data if not isinstance(data, Exception))
            errors = sum(isinstance(data, Exception) for data in fetched.data)
            ahead = sum(
                max(start + len(data) - wanted, 0)
                for (start, _), wanted, data in zip(flight.ranges, flight.wanted, fetched.data, strict=True)
                if not isinstance(data, Exception)
            )
            counters.origin(
                requests=fetched.requests,
                nbytes=nbytes,
                errors=errors,
                retries=fetched.retries,
                prefetch=ahead,
                seconds=time.monotonic() - started_s,
            )
            record = await self._prove(snapshot, fetched)
            return snapshot.land(flight, fetched, record=record)
        except BaseException as error:
            # A cancelled task takes nobody with it: the others plan again and fetch for themselves.
            snapshot.abort(flight, error if isinstance(error, Exception) else FlightAbortedError())
            raise

    async def _prove(self, snapshot: Snapshot, fetched: Fetched) -> bool:
        """Hold what was fetched against the snapshot's version; return whether it may be recorded."""
        if all(isinstance(data, Exception) for data in fetched.data):
            return False  # nothing came, so there is nothing to prove
        if fetched.info is None:
            if not snapshot.go_without_journal():
                # Nothing shows that journal and origin have the same version: read on without the journal.
                self._journal = None
                self._host.trouble(f"{self.url}: the origin does not say which version its bytes are of")
                raise OriginChangedError(REPLACED)
            return False
        info = self._trusted(fetched.info)
        snapshot.pin(info, await self._view(info.version) if snapshot.info is None else None)
        return (
            self._writable
            and fetched.recordable
            and info.version.is_provable
            and self._journal is not None
            and not snapshot.unproved
        )

    def _record(self, snapshot: Snapshot, extents: list[Extent], *, timeout_s: float) -> bool:
        if not extents:
            return True
        journal, info = self._journal, snapshot.info
        if journal is None or info is None:
            snapshot.settle(extents)
            return True
        if self._storable is None or self._storable[0] is not info:
            self._storable = info, Info(info.version, storable(info.details))
        recording = Recording(journal, self._storable[1], extents, snapshot.settle, lambda: not snapshot.outdated)
        return self._host.recorder.submit(recording, timeout_s=timeout_s)

    async def _record_in_time(self, snapshot: Snapshot, extents: list[Extent], *, room_s: float) -> None:
        if self._record(snapshot, extents, timeout_s=0):
            return
        taken = False
        try:
            taken = await asyncio.to_thread(self._record, snapshot, extents, timeout_s=room_s)
        except RuntimeError:
            taken = False  # no thread to wait in: the interpreter is about to end
        finally:
            if not taken:
                snapshot.settle(extents)
        if not taken:
            self._host.trouble("the cache directory is slower than the origin: some bytes were not recorded")

    async def _refresh(self, snapshot: Snapshot, flight: Flight) -> bool:
        """Before a gap is fetched: look for what other writers published. If there is any, give up the flight."""
        now_s = time.monotonic()
        if self._journal is None or snapshot.view is None or now_s - self._refreshed_s < REFRESH_S:
            return False
        self._refreshed_s = now_s
        found = False
        try:
            # Without waiting for the recorder: then the origin is the faster one.
            found = await self._host.workers.run(functools.partial(self._journal.refresh, wait=False))
        except (JournalError, OSError):
            found = False
        except BaseException:
            snapshot.abort(flight, FlightAbortedError())
            raise
        if found:
            snapshot.abort(flight, FlightAbortedError())
        return found

    # -- version --------------------------------------------------------------------------------------------

    async def stat(self, origin: Origin) -> Info:
        """Return the file's version and info as this process holds it: validated once, then kept.

        Raises:
            OfflineMissError: Nothing is known of the file and the origin must not be asked.
            Exception: Whatever the origin's stat raises.
        """
        for _ in range(RESTARTS):
            snapshot = await self.ready(origin)
            if snapshot.info is not None:
                return snapshot.info
            try:
                await self._pin_by_stat(snapshot, origin)
            except OriginChangedError:
                self._discard(snapshot)
        msg = f"{self.url}: the remote file is being replaced again and again"
        raise OriginChangedError(msg)

    async def stored(self, origin: Origin) -> Info | None:
        """Return the version and info where they may be had without asking the origin, else None.

        Raises:
            OfflineMissError: There are none, and the origin must not be asked.
        """
        if not self._host.offline and self._host.validate == "open":
            return None
        info = self.known()
        if info is None and (self._host.offline or not self._must_stat):
            info = self._stored(await self._versions(), None)
            if info is not None:
                info = await self.stat(origin)
            elif self._host.offline:
                raise OfflineMissError(offline_message(self.url))
        return info

    async def is_known(self) -> bool:
        """Whether anything of the file is recorded, or was validated in this process."""
        return self.known() is not None or bool(await self._versions())

    def known(self) -> Info | None:
        """Return the version as this process holds it, if it is validated and need not be asked for again."""
        snapshot = self._snapshot
        return None if snapshot is None or not self._is_fresh() else snapshot.info

    def opened(self, seconds: float) -> None:
        """Count an open of this file by the application, `seconds` long."""
        self._opened = True
        info = self.known()
        self._host.counters.file_opened(self.url, None if info is None else info.version.size_bytes, seconds)

    async def ready(self, origin: Origin) -> Snapshot:
        """Return the snapshot to read: journal attached, version validated as the settings want it."""
        while True:
            snapshot = self._snapshot
            if snapshot is not None and self._is_fresh():
                return snapshot
            with self._lock:
                opening, epoch = self._opening, self._epoch
                if opening is None:
                    mine = self._opening = Flight()
            if opening is not None:
                if not await landed(opening):
                    self._end_opening(opening, FlightAbortedError())
                    continue
                error = opening.done.exception()
                if error is not None and not isinstance(error, FlightAbortedError):
                    raise error
                continue
            started_s = time.perf_counter()
            try:
                snapshot = await self._open(origin)
            except BaseException as error:
                self._end_opening(mine, error if isinstance(error, Exception) else FlightAbortedError())
                raise
            self._open_s += time.perf_counter() - started_s
            kept = self._keep(snapshot, epoch)
            self._end_opening(mine, None)
            if kept:
                return snapshot

    def _end_opening(self, opening: Flight, error: Exception | None) -> None:
        with self._lock:
            if self._opening is opening:
                self._opening = None
            if opening.done.done():
                return
            if error is None:
                opening.done.set_result(None)
            else:
                opening.done.set_exception(error)

    async def _versions(self) -> list[StoredVersion]:
        """Return what the journal has, having attached to it."""
        journal, attached = self._journal, self._attached
        if journal is None:
            return []

        def look() -> list[StoredVersion]:
            if not attached:
                journal.attach()
            return journal.versions()

        if not attached:
            self._refreshed_s = time.monotonic()
        try:
            found = await self._host.workers.run(look)
        except (JournalError, OSError) as error:
            self._host.trouble(f"{self.url}: its journal cannot be read ({error})")
            self._journal = None
            return []
        self._attached = True
        return found

    async def _open(self, origin: Origin) -> Snapshot:
        versions = await self._versions()
        before = self._snapshot
        info = self._stored(versions, before)
        if info is None and before is not None and before.info is None:
            return before  # nothing was ever proved: nothing to hold against the origin
        if info is None and (before is not None or versions or self._must_stat) and not self._host.offline:
            info = self._trusted(await origin.stat())
            if isinstance(self._host.validate, float) and self._journal is not None:
                with contextlib.suppress(JournalError):
                    await self._host.workers.run(functools.partial(self._journal.touch, info.version))
        if before is not None and before.info is not None and info is not None:
            if agrees(before.info.version, info.version):
                return before
            if self._discard(before):
                raise OriginChangedError(REPLACED)
        return Snapshot(info, None if info is None else await self._view(info.version))

    def _keep(self, snapshot: Snapshot, epoch: int) -> bool:
        with self._lock:
            if self._epoch != epoch:
                return False
            self._snapshot = snapshot
            self._validated_s = time.monotonic()
            return True

    def _discard(self, snapshot: Snapshot) -> bool:
        """Give up a version that the origin no longer has; return whether the application has bytes of it."""
        with self._lock:
            if self._snapshot is snapshot:
                self._snapshot = None
                self._must_stat = True
                self._epoch += 1
        return snapshot.discard()

    def _is_fresh(self) -> bool:
        validate = self._host.validate
        return not isinstance(validate, float) or time.monotonic() - self._validated_s < validate

    def _stored(self, versions: Sequence[StoredVersion], before: Snapshot | None) -> Info | None:
        """Return the version that may be trusted without asking the origin, if there is one."""
        if self._must_stat and not self._host.offline:
            return None
        if not versions:
            return None
        validate, newest = self._host.validate, versions[0]
        if self._host.offline or validate == "never":
            return stored_info(newest)
        if isinstance(validate, float) and before is None:
            age_s = time.time() - newest.validated_ns / 1e9
            # A time in the future is another node's clock: no ground for trust.
            if 0 <= age_s < validate:
                return stored_info(newest)
        return None

    async def _pin_by_stat(self, snapshot: Snapshot, origin: Origin) -> None:
        if self._host.offline:
            raise OfflineMissError(offline_message(self.url))
        info = self._trusted(await origin.stat())
        snapshot.pin(info, await self._view(info.version))

    def _trusted(self, info: Info) -> Info:
        """With JCACHE_VALIDATE=never the user vouches for files of which the origin gives nothing but a size."""
        version = info.version
        if version.is_provable or self._host.validate != "never":
            return info
        return Info(Version(version.size_bytes, checksum=WRITE_ONCE), info.details)

    async def _view(self, version: Version) -> View | None:
        if self._journal is None or not version.is_provable:
            return None
        try:
            # Not on the event loop: the journal's lock is held while the recorder writes.
            return await self._host.workers.run(functools.partial(self._journal.view, version))
        except CacheHungError:
            return None

    # -- life -----------------------------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Forget the version, because this process has written to the file: the next read asks the origin.

        Reads under way end with the version that they began with; nothing more of it is recorded.
        """
        with self._lock:
            snapshot, self._snapshot = self._snapshot, None
            self._must_stat = True
            self._epoch += 1
        if snapshot is not None:
            snapshot.outdated = True

    def attach_again(self) -> None:
        """Look which segments there still are, after some were removed; it touches the cache directory."""
        if self._owned is not None:
            self._owned.attach()

    def close(self) -> None:
        """Seal and close the journal; call it behind the last recording."""
        self.drop_ahead()
        if self._owned is not None:
            self._owned.close()

    def forget(self) -> None:
        """In a forked child: drop everything without writing or unlocking what is the parent's."""
        if self._owned is not None:
            self._owned.forget()

    # -- helpers --------------------------------------------------------------------------------------------

    def _count(self, vector: bool, ranges: int, total: int, miss: int, started_s: float) -> None:
        counters = self._host.counters
        if not self._opened:
            self.opened(self._open_s)
        if self._journal is None:
            hit, missed_bytes, bypass = 0, 0, total
        else:
            hit, missed_bytes, bypass = total - miss, miss, 0
        if vector:
            counters.readv(
                ranges, total, hit, missed_bytes, bypass, url=self.url, seconds=time.monotonic() - started_s
            )
        else:
            counters.read(total, hit, missed_bytes, bypass, url=self.url, seconds=time.monotonic() - started_s)


def row_bytes(row: Sequence[Part], view: View | None) -> bytes:
    """Return the bytes of one range whose parts all lie in journal or memory."""
    if len(row) == 1:
        return part_bytes(row[0], view)
    return b"".join([part_bytes(part, view) for part in row])


def part_bytes(part: Part, view: View | None) -> bytes:
    """Return the bytes of a part that lies in journal or memory."""
    place = part[2]
    if isinstance(place, Held):
        return place.bytes_of(part[0], part[1])
    if view is None:
        msg = "the journal is not used any more"
        raise JournalError(msg)
    return view.read(part)  # type: ignore[arg-type]  # its place is a run


def assemble(row: Sequence[Part], served: dict[Part, bytes]) -> bytes | Exception | None:
    """Return a range's bytes from its parts; its exception; or None where it must be planned again."""
    pieces: list[bytes] = []
    for part in row:
        start, stop, place, index, _ = part
        if isinstance(place, Held):
            pieces.append(place.bytes_of(start, stop))
        elif isinstance(place, Flight):
            error = place.done.exception()
            if isinstance(error, FlightAbortedError):
                return None
            if isinstance(error, OriginChangedError):
                raise error
            if isinstance(error, Exception):
                return error
            data = place.data[index]
            if isinstance(data, Exception):
                return data
            pieces.append(place.bytes_of(start, stop, index))
        else:
            hit = served.get(part)
            if hit is None:
                return None
            pieces.append(hit)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def missed(row: Sequence[Part], size_bytes: int, before: Iterable[Range] = ()) -> int:
    """Return how many of a range's bytes this process fetched from the origin, ahead or not.

    Args:
        row: Where its bytes were in the end.
        size_bytes: How many there are.
        before: Parts of it that were fetched already when it had to be planned anew.
    """
    hits = [part[:2] for part in row if isinstance(part[2], Run) or (isinstance(part[2], Held) and not part[2].ahead)]
    fetched = normalise(before)
    hit = size_of(subtract(normalise(hits), fetched) if fetched else hits)
    # A range that was planned before the size was known may end behind the file.
    return size_bytes - hit


async def landed(flight: Flight) -> bool:
    """Wait for a flight of another task, whatever it brings; return False where its event loop has stopped turning.

    That loop may be closed, not run any more, or blocked by the very caller that waits here.
    """
    waiter = asyncio.wrap_future(flight.done)
    while True:
        await asyncio.wait({waiter}, timeout=STUCK_S)
        if waiter.done():
            waiter.exception()  # it is found in the flight by who needs it
            return True
        if not await turns(flight.loop):
            return False


async def turns(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether an event loop answers within the limit."""
    if loop is None or not loop.is_running():
        return False
    answer: Future[None] = Future()
    answer.set_running_or_notify_cancel()
    try:
        loop.call_soon_threadsafe(answer.set_result, None)
    except RuntimeError:
        return False
    done, _ = await asyncio.wait({asyncio.wrap_future(answer)}, timeout=STUCK_S)
    return bool(done)


def as_origin_says(info: Info | None) -> Info | None:
    """Return a version without what only the user vouches for: the origin knows nothing of that."""
    if info is None or info.version.checksum != WRITE_ONCE:
        return info
    return Info(Version(info.version.size_bytes), info.details)


def storable(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a file system's `info` what may be written to disk: JSON, of bounded size, and no address.

    Addresses may have passwords or signatures in them, those that a server redirected to as well.
    """
    kept: dict[str, Any] = {}
    room = DETAILS_BYTES
    for name, value in details.items():
        if name in {"name", "url"}:
            continue
        try:
            text = json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            continue
        if "://" not in text and len(text) <= room:
            kept[name] = value
            room -= len(text)
    return kept


def stored_info(stored: StoredVersion) -> Info:
    """Return a version as the journal remembers it."""
    return Info(stored.version, stored.info)


def offline_message(url: str, flight: Flight | None = None) -> str:
    """Say what is missing, and what to do."""
    if flight is None:
        what = "nothing is known of this file"
    else:
        start, stop = flight.ranges[0]
        what = f"bytes {start} to {'the end' if stop == END else stop} are not in the journal"
    return (
        f"{url}: {what} and JCACHE_OFFLINE is set; "
        f"run once with the origin in reach and JCACHE_OFFLINE unset, then again offline"
    )
