"""One version of a remote file as this process sees it: what the journal has, what is in flight, what is held.

A vector is planned against a snapshot: each requested range is cut into parts that lie in the journal, in memory
(held), in a request under way (a flight), or nowhere (gaps, which become a flight of the planner's own). All
state changes happen under one lock with no I/O inside, so that tasks on several event loops and threads share it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version, View
from jcache.journal.table import Run
from jcache.origin import Fetched, Info, OriginRange
from jcache.reader.intervals import IntervalMap

__all__ = ["END", "REPLACED", "Flight", "FlightAbortedError", "Held", "Part", "Plan", "Snapshot"]

# Where a range ends that is asked for before the size is known.
END = 2**63 - 1
REPLACED = "the remote file was replaced while it was being read; reading it again starts with the new version"

Extent = tuple[int, bytes | memoryview]


class FlightAbortedError(Exception):
    """The task that was fetching these bytes was cancelled; whoever waited for them plans again."""


class Flight:
    """One vectored request to the origin that is under way.

    Attributes:
        ranges: What it fetches.
        wanted: For each range where the part ends that somebody asked for; what lies behind it is read ahead.
        data: For each range its bytes or the exception that it met, once `done`.
        done: Resolved when the flight has landed, or was given up.
        landed: Whether it was carried out, so that `data` is complete.
        loop: The event loop that carries it out.
    """

    __slots__ = ("data", "done", "landed", "loop", "ranges", "wanted")

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.wanted: list[int] = []
        self.data: list[bytes | Exception] = []
        self.landed = False
        self.done: Future[None] = Future()
        # A running future cannot be cancelled: one waiter's cancellation must not reach the others.
        self.done.set_running_or_notify_cancel()
        self.loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()

    def bytes_of(self, start: int, stop: int, index: int) -> bytes:
        """Return [start, stop) out of range `index` (shorter at the end of the file); raise what that range met."""
        data = self.data[index]
        if isinstance(data, Exception):
            raise data
        first = self.ranges[index][0]
        if start == first and stop - first >= len(data):
            return data
        return data[start - first : stop - first]


class Held:
    """Bytes in memory: on their way into the journal, or read ahead of the application and not yet asked for.

    Attributes:
        start: Where they begin.
        data: The bytes.
        ahead: Whether they were read ahead.
        record: Whether they may enter the journal.
        taken: Of what was read ahead, where the part ends that was taken in small steps and is still to be recorded.
    """

    __slots__ = ("ahead", "data", "record", "start", "taken")

    def __init__(self, start: int, data: bytes | memoryview, *, ahead: bool, record: bool = True) -> None:
        self.start = start
        self.data = data
        self.ahead = ahead
        self.record = record
        self.taken = start

    def bytes_of(self, start: int, stop: int) -> bytes:
        """Return [start, stop), which lies inside."""
        if isinstance(self.data, bytes) and start == self.start and stop - start == len(self.data):
            return self.data
        return bytes(self.data[start - self.start : stop - self.start])


# start, stop, where the bytes are, and what that place wants to know: a run of the journal its first and last row,
# a flight the index of the range.
Part = tuple[int, int, Run | Held | Flight, int, int]


@dataclass(slots=True)
class Plan:
    """Where the bytes of each range come from.

    Attributes:
        parts: For each range its parts, in order.
        own: The flight that the planner must now carry out; None where nothing is missing.
        others: Flights of other tasks that hold some of the bytes.
        has_hits: Whether any part lies in the journal.
        has_ahead: Whether any part was read ahead.
        is_plain: Whether each range is one gap, and so one range of `own`, in the same order.
    """

    parts: list[list[Part]] = field(default_factory=list)
    own: Flight | None = None
    others: set[Flight] = field(default_factory=set)
    has_hits: bool = False
    has_ahead: bool = False
    is_plain: bool = False


class Snapshot:
    """One version of a remote file in this process.

    Attributes:
        info: The version, once it is known; None until the first fetch has proved it.
        view: What the journal has of that version.
        used_journal: Whether bytes of the journal, or on their way there, have been planned for.
        unproved: Whether the origin has answered without saying which version that was: no use of the journal from then
            on, lest its bytes get mixed with others.
    """

    def __init__(self, info: Info | None = None, view: View | None = None) -> None:
        self.info = info
        self.view = view
        self.used_journal = False
        self.unproved = False
        self.lock = threading.Lock()
        # Whether this process has written to the file meanwhile: what it has of this version is not to be recorded.
        self.outdated = False
        self._delivered = False
        self._discarded = False
        self._held: IntervalMap[Held] = IntervalMap()
        self._flights: IntervalMap[tuple[Flight, int]] = IntervalMap()

    @property
    def version(self) -> Version | None:
        """The version's validators."""
        return None if self.info is None else self.info.version

    def is_of(self, version: Version | None) -> bool:
        """Whether this is the given version, as far as it is known by now; None is any."""
        return version is None or self.info is None or agrees(version, self.info.version)

    def deliver(self) -> None:
        """Note that bytes of this version go to the application; raise OriginChangedError if it was given up.

        Together with `discard` this keeps one process from ever handing out bytes of two versions in silence.
        """
        if self._delivered and not self._discarded:
            return
        with self.lock:
            if self._discarded:
                raise OriginChangedError(REPLACED)
            self._delivered = True

    def discard(self) -> bool:
        """Give this version up; return whether the application has been given bytes of it."""
        with self.lock:
            self._discarded = True
            return self._delivered

    def use_view(self) -> View | None:
        """Return the view to read from, for a reader that plans nothing."""
        with self.lock:
            self.used_journal = self.used_journal or self.view is not None
            return self.view

    # -- planning -------------------------------------------------------------------------------------------

    def lookup(self, ranges: Sequence[tuple[int, int]]) -> list[list[Part]] | None:
        """Return the parts of all ranges where journal and memory have every byte of them, else None."""
        out: list[list[Part]] = []
        with self.lock:
            for start, stop in ranges:
                parts = self._find(start, stop)
                for part in parts:
                    if part[2] is None:
                        return None
                out.append(parts)  # type: ignore[arg-type]  # no gap is left among them
            self.used_journal = True
        return out

    def plan(self, ranges: Sequence[tuple[int, int]], *, ahead_bytes: int = 0) -> Plan:
        """Plan a vector and claim its gaps.

        Args:
            ranges: Half-open byte ranges, clamped to the file where its size is known.
            ahead_bytes: How far to read ahead behind the last range if that range misses.

        Returns:
            The plan. Where `own` is set, the caller must call `land` or `abort` with it.
        """
        plan = Plan()
        with self.lock:
            if is_ascending(ranges) and self._is_clear(ranges[0][0], ranges[-1][1]):
                plan.own = flight = Flight()
                flight.ranges = list(ranges)
                flight.wanted = [stop for _, stop in ranges]
                self._flights.add_all([(start, stop, (flight, i)) for i, (start, stop) in enumerate(ranges)])
                plan.parts = [[(start, stop, flight, i, 0)] for i, (start, stop) in enumerate(ranges)]
                plan.is_plain = True
            else:
                self._plan(ranges, plan)
            if ahead_bytes and plan.own is not None and ranges:
                self._extend(plan.own, ranges[-1][1], ahead_bytes)
        return plan

    def _plan(self, ranges: Sequence[tuple[int, int]], plan: Plan) -> None:
        for start, stop in ranges:
            row: list[Part] = []
            for part in self._find(start, stop):
                if part[2] is None:
                    self._claim(part[0], part[1], plan, row)
                else:
                    row.append(part)  # type: ignore[arg-type]  # not a gap
                    if isinstance(part[2], Held):
                        plan.has_ahead = plan.has_ahead or part[2].ahead
                    else:
                        plan.has_hits = True
                    self.used_journal = True
            plan.parts.append(row)

    def _is_clear(self, start: int, stop: int) -> bool:
        """Whether nothing of [start, stop) is in the journal, held, or under way."""
        return (
            self._flights.is_clear(start, stop)
            and self._held.is_clear(start, stop)
            and (self.view is None or self.view.is_clear(start, stop))
        )

    def claim_ahead(self, start: int, stop: int) -> Flight | None:
        """Claim the part of [start, stop) up to the first byte that is already there, to read it ahead."""
        flight = Flight()
        with self.lock:
            stop = self._free_until(start, stop)
            if stop <= start:
                return None
            flight.ranges.append((start, stop))
            flight.wanted.append(start)
            self._flights.add(start, stop, (flight, 0))
        return flight

    def _find(self, start: int, stop: int) -> list[tuple[int, int, Run | Held | None, int, int]]:
        if start >= stop:
            return []
        view = self.view
        if self._held.is_clear(start, stop):
            return [(start, stop, None, 0, 0)] if view is None else view.find(start, stop)  # type: ignore[return-value]
        parts: list[tuple[int, int, Run | Held | None, int, int]] = []
        for a, b, held in self._held.find(start, stop):
            if held is not None:
                asked = min(max(a, held.taken), b)
                if a < asked:  # no longer ahead of the application
                    parts.append((a, asked, Held(held.start, held.data, ahead=False), 0, 0))
                if asked < b:
                    parts.append((asked, b, held, 0, 0))
            elif view is None:
                parts.append((a, b, None, 0, 0))
            else:
                parts.extend(view.find(a, b))
        return parts

    def _claim(self, start: int, stop: int, plan: Plan, row: list[Part]) -> None:
        flights = self._flights
        for a, b, flying in ((start, stop, None),) if flights.is_clear(start, stop) else flights.find(start, stop):
            if flying is not None:
                flight, index = flying
                if flight is not plan.own:
                    plan.others.add(flight)
            else:
                if plan.own is None:
                    plan.own = Flight()
                flight, index = plan.own, len(plan.own.ranges)
                flight.ranges.append((a, b))
                flight.wanted.append(b)
                self._flights.add(a, b, (flight, index))
            row.append((a, b, flight, index, 0))

    def _extend(self, flight: Flight, stop: int, ahead_bytes: int) -> None:
        if flight.ranges[-1][1] != stop or self.info is None:
            return
        end = self._free_until(stop, stop + ahead_bytes)
        if end > stop:
            start = flight.ranges[-1][0]
            self._flights.remove(start)
            flight.ranges[-1] = (start, end)
            self._flights.add(start, end, (flight, len(flight.ranges) - 1))

    def _free_until(self, start: int, stop: int) -> int:
        if self.info is None:
            return start
        stop = min(stop, self.info.version.size_bytes)
        if stop <= start:
            return start
        first = self._find(start, stop)[0]
        if first[2] is not None:
            return start
        first_flight = self._flights.find(start, first[1])[0]
        return start if first_flight[2] is not None else first_flight[1]

    # -- what comes back ------------------------------------------------------------------------------------

    def pin(self, info: Info, view: View | None) -> None:
        """Say which version this is, if that was not known; raise OriginChangedError where it is another."""
        with self.lock:
            if self.info is None:
                self.view = None if self.unproved else view
                self.info = info
            elif not agrees(self.info.version, info.version):
                raise OriginChangedError(REPLACED)

    def land(self, flight: Flight, fetched: Fetched, *, record: bool) -> list[Extent]:
        """Take in what a flight brought and wake those who wait for it.

        Args:
            flight: A flight of this snapshot's plan.
            fetched: What the origin answered; of this snapshot's version, where any is proved.
            record: Whether the bytes may enter the journal; they are held until `settle` says that they have.

        Returns:
            The extents to record, in the order in which they were asked for. Bytes read ahead are not among
            them: they stay held until somebody asks for them.
        """
        size = None if self.info is None or fetched.info is None else self.info.version.size_bytes
        extents: list[Extent] = []
        data = fetched.data
        if size is not None and is_exact(flight, data, size):
            with self.lock:
                if flight.done.done():
                    return []
                begins = [start for start, _ in flight.ranges]
                self._flights.remove_all(begins)
                if record:
                    extents = list(zip(begins, data, strict=True))  # type: ignore[arg-type]  # no exception is among them
                    self._held.add_all(
                        [(start, start + len(body), Held(start, body, ahead=False)) for start, body in extents]
                    )
                flight.data = data
                flight.landed = True
                flight.done.set_result(None)
            return extents
        parts = list(zip(flight.ranges, flight.wanted, fetched.data, strict=True))
        with self.lock:
            if flight.done.done():
                return []  # given up by somebody else, and its ranges may be under way again
            self._flights.remove_all([start for start, _ in flight.ranges])
            for (start, stop), wanted, body in parts:
                if isinstance(body, Exception):
                    flight.data.append(body)
                    continue
                if size is not None and len(body) != max(min(stop, size) - start, 0):
                    msg = f"origin sent {len(body)} of {min(stop, size) - start} bytes at offset {start}"
                    flight.data.append(ShortReadError(msg))
                    continue
                flight.data.append(body)
                asked = wanted - start
                asked_for: bytes | memoryview = body
                if asked < len(body):
                    rest = memoryview(body)[asked:]
                    self._held.add(wanted, start + len(body), Held(wanted, rest, ahead=True, record=record))
                    asked_for = memoryview(body)[:asked]
                if record and asked_for:
                    self._held.add(start, start + len(asked_for), Held(start, asked_for, ahead=False))
                    extents.append((start, asked_for))
            flight.landed = True
            flight.done.set_result(None)
        return extents

    def abort(self, flight: Flight, error: Exception) -> None:
        """Give up a flight: those who wait for it meet `error`, and its bytes are gaps again.

        Nothing happens to one that has landed or was given up before.
        """
        with self.lock:
            if flight.done.done():
                return
            self._flights.remove_all([start for start, _ in flight.ranges])
            flight.done.set_exception(error)

    def settle(self, extents: Sequence[Extent]) -> None:
        """Release held bytes: the journal has them now, or never will."""
        with self.lock:
            # By identity: these bytes may have been released before, and fetched again.
            get = self._held.get
            self._held.remove_all(
                [start for start, data in extents if (held := get(start)) is not None and held.data is data]
            )

    def go_without_journal(self) -> bool:
        """Use and record nothing more of this version; return False, and change nothing, where any of it was used."""
        with self.lock:
            if self.used_journal:
                return False
            self.unproved = True
            self.view = None
            self._held.clear()
            return True

    def use_ahead(self, used: Sequence[Part]) -> list[Extent]:
        """Turn read-ahead bytes that the application has now asked for into extents to record."""
        extents: list[Extent] = []
        with self.lock:
            for start, stop, _, _, _ in used:
                for a, b, held in self._held.find(start, stop):
                    if held is not None and held.ahead:
                        self._cut(held, a, b, extents)
        return extents

    def _cut(self, held: Held, start: int, stop: int, extents: list[Extent]) -> None:
        """Cut what was taken of a piece, and [start, stop), out of what is ahead; add them to the extents to record."""
        end, taken = held.start + len(held.data), held.taken
        start, stop = max(start, taken), max(stop, taken)
        self._held.remove(held.start)
        for c, d, ahead in ((held.start, taken, False), (taken, start, True), (start, stop, False), (stop, end, True)):
            if c < d and (ahead or held.record):
                piece = memoryview(held.data)[c - held.start : d - held.start]
                self._held.add(c, d, Held(c, piece, ahead=ahead, record=held.record))
                if not ahead:
                    extents.append((c, piece))

    def drop_ahead(self, start: int = 0, stop: int = END) -> tuple[int, list[Extent]]:
        """Forget what was read ahead in pieces that reach into [start, stop) and never asked for.

        Returns:
            How many bytes nobody asked for, and the extents to record of those that were taken.
        """
        unused = 0
        extents: list[Extent] = []
        with self.lock:
            for _, _, held in self._held.find(start, stop):
                if held is not None and held.ahead:
                    self._cut(held, held.taken, held.taken, extents)
                    self._held.remove(held.taken)
                    unused += held.start + len(held.data) - held.taken
        return unused, extents

    # -- taking what was read ahead in small steps ------------------------------------------------------------

    def lend(self, start: int) -> Held | None:
        """Return the piece of what was read ahead that begins at `start`, if there is one, to `take` from."""
        with self.lock:
            held = self._held.get(start)
            return held if held is not None and held.ahead and not self._discarded else None

    def take(self, held: Held, start: int, stop: int) -> bool:
        """Note that the application was given [start, stop), the next bytes of a piece; False where it must not be."""
        with self.lock:
            if held.taken != start or self._discarded or self._held.get(held.start) is not held:
                return False
            held.taken = stop
            return True

    def use_taken(self) -> list[Extent]:
        """Turn what was taken into extents to record."""
        extents: list[Extent] = []
        with self.lock:
            for _, _, held in self._held:
                if held.taken > held.start:
                    self._cut(held, held.taken, held.taken, extents)
        return extents


def agrees(known: Version, seen: Version) -> bool:
    """Whether two versions are one: by their strongest validator, by size alone where neither has any."""
    if known.is_provable or seen.is_provable:
        return known.same_as(seen)
    return known.size_bytes == seen.size_bytes


def is_ascending(ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether ranges are in ascending order, disjoint, and none is empty; False where there are none."""
    at = -1
    for start, stop in ranges:
        if start < at or stop <= start:
            return False
        at = stop
    return at >= 0


def is_exact(flight: Flight, data: Sequence[bytes | Exception], size_bytes: int) -> bool:
    """Whether an origin sent exactly what a flight wanted, in ascending order, nothing ahead, nothing short."""
    if len(data) != len(flight.ranges) or not is_ascending(flight.ranges) or flight.ranges[-1][1] > size_bytes:
        return False
    for (start, stop), wanted, body in zip(flight.ranges, flight.wanted, data, strict=True):
        if wanted != stop or type(body) is not bytes or len(body) != stop - start:
            return False
    return True


def to_origin(ranges: Sequence[tuple[int, int]]) -> list[OriginRange]:
    """Return ranges as an origin takes them: None for an end that is not known."""
    return [(start, None if stop == END else stop) for start, stop in ranges]
