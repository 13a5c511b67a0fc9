"""Which version of a remote file this process reads: validated as the settings want it, kept, or given up whole."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.journal import StoredVersion, Version
from jcache.origin import Fetched, Info, Origin, is_immutable, is_out_of_reach, retry_after
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.snapshot import REPLACED, Snapshot, agrees
from jcache.planning.waiting import landed
from jcache.reader.host import Host
from jcache.reader.retrying import stat
from jcache.reader.store import ROOM_S, Store
from jcache.segment.proof import clock_s
from jcache.vectors import Extents

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["RESTARTS", "Opening", "Validation", "offline_message", "vouched"]

# What others wait for while somebody finds out the version, and the epoch in which that began.
Opening = tuple[Flight, int]

# How often a file that nobody has read yet may be found replaced before that is the reader's problem.
RESTARTS = 4

AGAIN = "the remote file is being replaced again and again"

RESTLESS_S = 60.0
"""So long a file that was another one each time is not tried again."""
# How long it is waited until what was recorded is removed, where it is to be fetched anew.
CLEARING_S = 10.0
# The checksum of a file whose origin gives only a size, and for which JCACHE_VALIDATE=never vouches.
WRITE_ONCE = "write-once"


class Validation:
    """The snapshot that reads of one remote file go by.

    At any time at most one task validates; the others wait for it. Attributes other than methods are read-only.

    Attributes:
        snapshot: The version in use; None before the first validation and after it was given up.
        validate: When the origin is asked whether the file has changed.
        open_s: What attaching and validating took so far, in seconds.
        cleared: Done once what is recorded is removed, where nothing of that may be read.
    """

    def __init__(self, host: Host, store: Store, *, url: str, validate: str | float) -> None:
        """Prepare the validation of a file.

        Args:
            host: The process's settings.
            store: The file's journal.
            url: The file's address for messages, without secrets.
            validate: When the origin is asked whether the file has changed.
        """
        self._host = host
        self._store = store
        self.validate = validate
        self._url = url
        self.snapshot: Snapshot | None = None
        self.open_s = 0.0
        self.opening: Flight | None = None
        self.cleared: Future[None] | None = None
        self._validated_s = 0.0
        # How old the answer was that was trusted last.
        self._age_s = 0.0
        # Counts the changes of mind about the version: one that began before the last one is out of date.
        self._epoch = 0
        # The version that was validated before anything here was needed.
        self._trusted: Info | None = None
        # Whether what the journal has may no longer be trusted without asking the origin.
        self._restless_s = -RESTLESS_S
        self._must_stat = False
        # The snapshot that was in use until somebody doubted it.
        self._doubted: Snapshot | None = None
        # By which names the application may have bytes of versions that were given up, and of which.
        self._given: dict[Version, Version] = {}
        self._lock = threading.Lock()

    @property
    def age_s(self) -> float | None:
        """How long ago the version was the origin's, as far as this process knows; None where it has none."""
        return None if self.snapshot is None else clock_s() - self._validated_s

    def known(self) -> Info | None:
        """Return the version as this process holds it, if it is validated and need not be asked for again."""
        snapshot = self.fresh()
        return None if snapshot is None else snapshot.info

    @property
    def version(self) -> Version | None:
        """The version as it was when it was validated last; None where none is known."""
        snapshot = self.snapshot or self._doubted
        return None if snapshot is None or snapshot.info is None else snapshot.info.version

    def fresh(self) -> Snapshot | None:
        """Return the snapshot in use, unless it must be validated first."""
        validate = self.validate
        if isinstance(validate, float) and clock_s() - self._validated_s >= validate:
            return None
        return self.snapshot

    async def ready(self, origin: Origin) -> Snapshot:
        """Return the snapshot to read: journal attached, version validated as the settings want it."""
        while True:
            snapshot = self.fresh()
            if snapshot is not None:
                return snapshot
            with self._lock:
                opening, epoch = self.opening, self._epoch
                if opening is None:
                    mine = self.opening = Flight()
            if opening is not None:
                if not await landed(opening):
                    self._end_opening(opening, FlightAbortedError())
                    continue
                error = opening.error
                if error is not None and not isinstance(error, FlightAbortedError):
                    raise error
                continue
            started_s = time.perf_counter()
            try:
                snapshot = await self._open(origin)
            except BaseException as error:
                self._end_opening(mine, error if isinstance(error, Exception) else FlightAbortedError())
                raise
            self.open_s += time.perf_counter() - started_s
            kept = self._keep(snapshot, epoch)
            self._end_opening(mine, None)
            if kept:
                self._store.note_empty(snapshot)
                return snapshot

    async def stat(self, origin: Origin) -> Info:
        """Return the file's version and info as this process holds it: validated once, then kept.

        Raises:
            OfflineMissError: Nothing is known of the file and the origin must not be asked.
            Exception: Whatever the origin's stat raises.
        """
        self.check()
        for _ in range(RESTARTS):
            snapshot = await self.ready(origin)
            if snapshot.info is not None:
                return snapshot.info
            try:
                await self.pin_by_stat(snapshot, origin)
            except OriginChangedError:
                self.discard(snapshot)
        raise self.restless()

    def restless(self) -> RestlessError:
        """Take the file for another one each time that it is asked for, for some time; return what says so."""
        self._restless_s = time.monotonic()
        return RestlessError(f"{self._url}: {AGAIN}")

    def check(self) -> None:
        """Raise RestlessError where the file was found to be so a moment ago."""
        if time.monotonic() - self._restless_s < RESTLESS_S:
            raise RestlessError(f"{self._url}: {AGAIN}")

    async def stored(self, origin: Origin) -> Info | None:
        """Return the version and info where they may be had without asking the origin, else None.

        Raises:
            OfflineMissError: There are none, and the origin must not be asked.
        """
        if not self._host.offline and self.validate == "open":
            return None
        info = self.known()
        if info is None and (self._host.offline or not self._must_stat):
            info = self._trust(await self._store.versions(), None)
            if info is not None:
                info = await self.stat(origin)
            elif self._host.offline:
                raise OfflineMissError(offline_message(self._url))
        return info

    async def pin_by_stat(self, snapshot: Snapshot, origin: Origin) -> None:
        """Find out which version a snapshot is of that nothing is known of yet."""
        if self._host.offline:
            raise OfflineMissError(offline_message(self._url))
        info = await stat(self._host, origin)
        if snapshot.info is None:
            try:
                await self.pin(snapshot, info)
            except OriginChangedError:
                if snapshot.info is None:
                    raise
        # Else somebody's bytes have said it meanwhile, which goes before.

    async def pin(self, snapshot: Snapshot, info: Info) -> Info:
        """Hold what the origin has said against a snapshot's version; return it as it is recorded.

        Raises:
            OriginChangedError: It is another version.
        """
        if info is snapshot.info:
            return info
        info = self._named(vouched(info, self.validate))
        if await self._store.suit(info.sharing):
            snapshot.view = None
        snapshot.pin(info, await self._store.view(info.version) if snapshot.info is None else None)
        self._store.note_empty(snapshot)
        return info

    def discard(self, snapshot: Snapshot) -> bool:
        """Give up a version that the origin no longer has; return whether the application has bytes of it."""
        with self._lock:
            if snapshot in (self.snapshot, self._doubted):
                self.snapshot = self._doubted = None
                self._must_stat = True
                self._epoch += 1
            delivered = snapshot.discard()
            if delivered:
                self._note_given(snapshot)
        return delivered

    def invalidate(self) -> None:
        """Forget the version, because this process has written to the file: the next read asks the origin.

        Reads under way end with the version that they began with; nothing more of it is recorded.
        """
        with self._lock:
            snapshot, self.snapshot, self._doubted = self.snapshot or self._doubted, None, None
            self._must_stat = True
            self._epoch += 1
            if snapshot is not None:
                snapshot.outdated = True
                self._note_given(snapshot)

    def doubt(self) -> None:
        """Ask the origin at the next read whether it still has the version, unless the settings want none asked."""
        if self._host.offline or self.validate == "never":
            return
        with self._lock:
            self._doubted, self.snapshot = self.snapshot or self._doubted, None
            self._must_stat = True
            self._epoch += 1

    def _note_given(self, snapshot: Snapshot) -> None:
        info = snapshot.info
        if info is not None:
            self._given |= {name: info.version for name in (info.version, info.also) if name is not None}

    def _named(self, info: Info, versions: Sequence[StoredVersion] = ()) -> Info:
        """Return what the origin says, without a second name by which the application has bytes of another version.

        Args:
            info: What it says.
            versions: What is recorded, which it may have been given.
        """
        also = info.also
        if also is None:
            return info
        given = [self._given.get(also), *(stored.version for stored in versions if stored.version.same_as(also))]
        is_worn = any(version is not None and not agrees(version, info.version) for version in given)
        return replace(info, also=None) if is_worn else info

    async def _open(self, origin: Origin) -> Snapshot:
        if self.cleared is not None:
            await asyncio.wait([asyncio.wrap_future(self.cleared)], timeout=CLEARING_S)
            self.cleared = None
        self._age_s = 0.0
        versions = await self._store.versions()
        before, is_doubted = self.snapshot or self._doubted, self.snapshot is None
        info = self._trust(versions, before, immutable=is_immutable(origin))
        if info is None and before is None and self._trusted is not None and not self._must_stat:
            snapshot = Snapshot(self._trusted, await self._store.view(self._trusted.version))
            snapshot.deliver()
            return snapshot
        if info is None and before is not None and before.info is None:
            return before  # nothing was ever proved: nothing to hold against the origin
        if info is None and (before is not None or versions or self._must_stat) and not self._host.offline:
            info = self._named(vouched(await self._asked(origin, versions), self.validate), versions)
            if await self._store.suit(info.sharing) and before is not None:
                before.view = None
            keep_time = isinstance(self.validate, float)
            if keep_time or (versions and not versions[0].version.same_as(info.version)):
                await self._store.touch(info.version, keep_time=keep_time)
        if before is not None and before.info is not None and info is not None:
            if agrees(before.info.version, info.version):
                return before
            if self.discard(before) and not is_doubted:
                raise OriginChangedError(REPLACED)
        return Snapshot(info, None if info is None else await self._store.view(info.version))

    async def _asked(self, origin: Origin, versions: Sequence[StoredVersion]) -> Info:
        """Return what the origin says, or what is recorded, where that goes for an origin that cannot be reached."""
        if not versions or not self._host.trusts_unreachable:
            return await stat(self._host, origin)
        recorded = Info(versions[0].version, versions[0].info)
        if await is_out_of_reach(origin):
            return recorded
        try:
            return await stat(self._host, origin)
        except Exception as error:
            if retry_after(origin, error, met=True) is None:
                raise
            return recorded

    def _keep(self, snapshot: Snapshot, epoch: int) -> bool:
        with self._lock:
            if self._epoch != epoch:
                return False
            self.snapshot, self._doubted = snapshot, None
            self._validated_s = clock_s() - self._age_s
            return True

    def _end_opening(self, opening: Flight, error: Exception | None) -> None:
        with self._lock:
            if self.opening is opening:
                self.opening = None
            if not opening.is_over:
                opening.end(error)

    def _trust(
        self, versions: Sequence[StoredVersion], before: Snapshot | None, *, immutable: bool = False
    ) -> Info | None:
        """Return the recorded version that may be used without asking the origin, if there is one."""
        if not versions or (self._must_stat and not self._host.offline):
            return None
        validate, newest = self.validate, versions[0]
        if self._host.offline or validate == "never" or immutable:
            return Info(newest.version, newest.info)
        age_s = newest.age_s  # None of what another machine noted: nobody knows how long ago that was
        if isinstance(validate, float) and before is None and age_s is not None and age_s < validate:
            self._age_s = age_s
            return Info(newest.version, newest.info)
        return None

    # -- a small file that was read without all this, see `jcache.recording.small` ---------------------------------

    def expect(self, loop: asyncio.AbstractEventLoop) -> Opening:
        """Have whoever comes wait for a read of the whole file that is under way on an event loop."""
        flight = Flight()
        flight.loop = loop
        with self._lock:
            self.opening = flight
            return flight, self._epoch

    def expect_no_more(self, opening: Opening) -> None:
        """Let those who wait begin anew: nothing came of that read."""
        self._end_opening(opening[0], FlightAbortedError())

    async def adopt(self, opening: Opening, info: Info, data: bytes, *, record: bool) -> None:
        """Take in the file that was waited for, which the application has by now.

        Args:
            opening: What `expect` returned.
            info: The version that the bytes are proved to be of.
            data: The whole file.
            record: Whether it may be recorded.

        """
        flight, epoch = opening
        error: Exception | None = FlightAbortedError()
        try:
            await self._store.suit(info.sharing)
            snapshot = Snapshot(info, await self._store.view(info.version))
            extents = self._hold(snapshot, data, record=record and self._store.writable and self._store.is_used)
            if self._keep(snapshot, epoch):
                error = None
            else:
                snapshot.outdated = True
        finally:
            self._end_opening(flight, error)
        await self._store.record_in_time(snapshot, extents, room_s=ROOM_S)

    def take_over(self, info: Info, data: bytes) -> Snapshot:
        """Take in a file that was read whole and waits to be recorded, until `let_go`."""
        snapshot = Snapshot(info, self._store.view_now(info.version))
        self._hold(snapshot, data, record=True)
        self.snapshot = snapshot
        self._validated_s = clock_s()
        return snapshot

    def let_go(self, snapshot: Snapshot, data: bytes) -> None:
        """Release what `take_over` took: it is in the journal, if it could be recorded. Touches the cache directory."""
        self._store.attach_again()
        snapshot.settle([(0, data)])

    def trust(self, info: Info) -> None:
        """Take a version for validated that was found to be the origin's in this process."""
        self._trusted = info

    def _hold(self, snapshot: Snapshot, data: bytes, *, record: bool) -> Extents:
        """Hold the whole file in memory, unless the journal has any of it; return what is to be recorded."""
        snapshot.deliver()
        flight = snapshot.plan([(0, len(data))]).own if data else None
        if flight is None or snapshot.info is None:
            return Extents()
        if list(flight.ranges) != [(0, len(data))]:
            snapshot.abort(flight, FlightAbortedError())
            return Extents()
        return snapshot.land(flight, Fetched([data], snapshot.info), record=record)


def vouched(info: Info, validate: str | float) -> Info:
    """With JCACHE_VALIDATE=never the user vouches for files of which the origin gives nothing but a size."""
    version = info.version
    if version.is_provable or validate != "never":
        return info
    return replace(info, version=Version(version.size_bytes, checksum=WRITE_ONCE))


def as_origin_says(info: Info | None) -> Info | None:
    """Return a version without what only the user vouches for: the origin knows nothing of that."""
    if info is None or info.version.checksum != WRITE_ONCE:
        return info
    return replace(info, version=Version(info.version.size_bytes))


def offline_message(url: str, missing: str = "nothing is known of this file") -> str:
    """Say what is missing, and what to do."""
    return (
        f"{url}: {missing} and JCACHE_OFFLINE is set; "
        f"run once with the origin in reach and JCACHE_OFFLINE unset, then again offline"
    )
