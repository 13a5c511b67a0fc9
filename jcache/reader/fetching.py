"""The flights of one remote file: what lies nowhere comes from the origin, is proved, and handed over to record."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.journal import Lease
from jcache.origin import Fetched, Origin
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.snapshot import END, REPLACED, Snapshot, to_origin
from jcache.reader.host import Host
from jcache.reader.retrying import fetch
from jcache.reader.store import ROOM_S, Store
from jcache.reader.validation import Validation, as_origin_says, offline_message
from jcache.vectors import Extents

if TYPE_CHECKING:
    import asyncio

__all__ = ["Fetching"]


class Fetching:
    """Carries out flights for the readers of one remote file.

    Args:
        host: The process's counters and recorder.
        store: The file's journal.
        validation: Which version is read.
        url: The file's address for messages, without secrets.
    """

    def __init__(self, host: Host, store: Store, validation: Validation, *, url: str) -> None:
        self._host = host
        self._store = store
        self._validation = validation
        self._url = url

    async def share(self, snapshot: Snapshot, origin: Origin, flight: Flight) -> Lease | None:
        """Look around before a flight is carried out; None where its bytes may be in the journal by now."""
        if self._host.offline:
            return Lease(None, ())
        try:
            lease = await self._store.share(flight.ranges, snapshot.view)
            if lease is not None:
                return lease
            if snapshot.info is None and await self._store.versions():
                # Another process has found out the version meanwhile, and recorded some of it.
                await self._validation.pin_by_stat(snapshot, origin)
        except BaseException as error:
            snapshot.abort(flight, error if isinstance(error, Exception) else FlightAbortedError())
            raise
        snapshot.abort(flight, FlightAbortedError())
        return None

    async def fetch(self, snapshot: Snapshot, origin: Origin, flight: Flight, lease: Lease) -> None:
        """Carry out a flight and hand over to record; what the origin raises is left to the ranges that needed it."""
        started_s = time.monotonic()
        try:
            extents = await self.fly(snapshot, origin, flight)
        except (OriginChangedError, OfflineMissError):
            self._store.release(lease)
            raise
        except Exception:  # noqa: BLE001 - the flight holds it, and `assemble` finds it there
            self._store.release(lease)
            return
        except BaseException:
            self._store.release(lease)
            raise
        # Where the queue is full the read waits for room as long as its fetch took, then goes on unrecorded.
        room_s = max(ROOM_S, time.monotonic() - started_s)
        await self._store.record_in_time(snapshot, extents, room_s=room_s, lease=lease)

    def ended(self, snapshot: Snapshot, flight: Flight, lease: Lease, fetch: "asyncio.Task[None]") -> None:
        """End a flight whose `fetch` nobody waits for any more; a task that is cancelled early has not even begun."""
        if fetch.cancelled():
            snapshot.abort(flight, FlightAbortedError())
            self._store.release(lease)
        else:
            fetch.exception()  # nobody else asks for it

    async def fly(
        self, snapshot: Snapshot, origin: Origin, flight: Flight, *, arrived: Callable[[], None] | None = None
    ) -> Extents:
        """Carry out a flight; return the extents to record. On any failure it is aborted and nothing recorded."""
        counters = self._host.counters
        try:
            if self._host.offline:
                start, stop = flight.ranges[0]
                end = "the end" if stop == END else stop
                raise OfflineMissError(offline_message(self._url, f"bytes {start} to {end} are not in the journal"))
            started_s = time.monotonic()
            self._host.recorder.fetching(1)
            try:
                ranges, known = to_origin(flight.ranges), as_origin_says(snapshot.info)
                fetched = await fetch(self._host, origin, ranges, known=known, arrived=arrived)
            except Exception:
                counters.origin(requests=1, errors=1)
                raise
            finally:
                self._host.recorder.fetching(-1)
            nbytes, ahead, errors = flight.sizes(fetched.data)
            counters.origin(
                requests=fetched.requests,
                nbytes=nbytes,
                errors=errors,
                retries=fetched.retries,
                prefetch=ahead,
                seconds=time.monotonic() - started_s,
            )
            # Where nothing came there is nothing to prove.
            try:
                record = errors < len(fetched.data) and await self._prove(snapshot, fetched)
            except OriginChangedError:
                if known is not None or snapshot.info is None:
                    raise
                # Another flight has named a version meanwhile; the origin finds out whether that name is worth it.
                return await self.fly(snapshot, origin, flight, arrived=arrived)
            if not record and nbytes > ahead and self._store.is_used:
                counters.uncached(self._why_not(snapshot, fetched), nbytes - ahead)
            return snapshot.land(flight, fetched, record=record)
        except BaseException as error:
            # A cancelled task takes nobody with it: the others plan again and fetch for themselves.
            snapshot.abort(flight, error if isinstance(error, Exception) else FlightAbortedError())
            raise

    async def _prove(self, snapshot: Snapshot, fetched: Fetched) -> bool:
        """Hold what was fetched against the snapshot's version; return whether it may be recorded."""
        if fetched.info is None:
            if not snapshot.go_without_journal():
                # Nothing shows that journal and origin have the same version: read on without the journal.
                self._store.leave("the origin does not say which version its bytes are of")
                raise OriginChangedError(REPLACED)
            return False
        info = await self._validation.pin(snapshot, fetched.info)
        return (
            self._store.writable
            and fetched.recordable
            and info.version.is_provable
            and self._store.is_used
            and not snapshot.unproved
        )

    def _why_not(self, snapshot: Snapshot, fetched: Fetched) -> str:
        """Say why what was fetched is not recorded."""
        if fetched.info is None or snapshot.unproved:
            return "the origin does not say which version the bytes are of"
        if not fetched.info.version.is_provable:
            return "the origin names nothing by which versions are told apart"
        if not self._store.writable:
            return "the cache directory, or a rule, allows no recording"
        return "the origin may have changed the file in the second of its modification time, or did not confirm it"
