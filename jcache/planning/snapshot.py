"""One version of a remote file as this process sees it: what the journal has, what is in flight, what is held.

A vector is planned against a snapshot: each requested range is cut into parts that lie in the journal, in memory
(held), in a request under way (a flight), or nowhere (gaps, which become a flight of the planner's own). All
state changes happen under one lock with no I/O inside, so that tasks on several event loops and threads share it.
"""

import threading
from collections.abc import Iterable, Sequence

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version, View
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.held import Held, Share
from jcache.planning.intervals import Comb, IntervalMap
from jcache.planning.plan import Part, Plan
from jcache.ranges import Range
from jcache.segment.table import Run
from jcache.vectors import Extents, Vector

__all__ = ["END", "REPLACED", "Extent", "Flight", "FlightAbortedError", "Snapshot", "agrees", "to_origin"]

Extent = tuple[int, bytes | memoryview]

# Where a range ends that is asked for before the size is known.
END = 2**63 - 1
REPLACED = "the remote file was replaced while it was being read; reading it again starts with the new version"


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
        self._delivered = self._delivered_proved = False
        self._discarded = False
        self._held: IntervalMap[Held] = IntervalMap()
        self._flights: IntervalMap[tuple[Flight, int]] = IntervalMap()

    @property
    def version(self) -> Version | None:
        """The version's validators."""
        return None if self.info is None else self.info.version

    def is_of(self, version: Version | None) -> bool:
        """Whether this is the given version, as far as it is known by now; None is any."""
        info = self.info
        return version is None or info is None or agrees(version, info.version) or version == info.also

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
        """Give this version up; return whether the application has been given bytes that were proved to be of it."""
        with self.lock:
            self._discarded = True
            return self._delivered_proved if self.unproved else self._delivered

    def use_view(self) -> View | None:
        """Return the view to read from, for a reader that plans nothing."""
        with self.lock:
            self.used_journal = self.used_journal or self.view is not None
            return self.view

    # -- planning -------------------------------------------------------------------------------------------

    def lookup(self, ranges: Iterable[Range]) -> list[list[Part]] | None:
        """Return the parts of all ranges where journal and memory have every byte of them, else None."""
        out: list[list[Part]] = []
        with self.lock:
            view = self.view
            find = self._find if view is None or self._held else view.find
            for start, stop in ranges:
                parts = find(start, stop)
                for part in parts:
                    if part[2] is None:
                        return None
                out.append(parts)  # type: ignore[arg-type]  # no gap is left among them
            self.used_journal = True
        return out

    def plan(self, ranges: Sequence[Range], *, ahead_bytes: int = 0, share: Share | None = None) -> Plan:
        """Plan a vector and claim its gaps.

        Args:
            ranges: Half-open byte ranges, clamped to the file where its size is known.
            ahead_bytes: How far to read ahead behind the last range if that range misses.
            share: The room for that.

        Returns:
            The plan. Where `own` is set, the caller must call `land` or `abort` with it.
        """
        ranges = Vector.of(ranges)
        is_ascending = ranges.is_ascending
        with self.lock:
            if is_ascending and self._is_clear(ranges.starts[0], ranges.stops[-1]):
                # As a whole: thousands of ranges of a few bytes would cost more than the origin takes for them.
                flight = Flight(ranges)
                plan = Plan(flight)
                if len(ranges) > 1:
                    self._flights.add_comb(Comb(ranges, flight, lambda i: (flight, i)))
                else:
                    self._flights.add(ranges.starts[0], ranges.stops[0], (flight, 0))
            else:
                plan = Plan()
                self._plan(ranges, plan)
            if ahead_bytes and plan.own is not None and ranges:
                self._extend(plan.own, ranges.stops[-1], ahead_bytes, share)
        return plan

    def _plan(self, ranges: Vector, plan: Plan) -> None:
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

    def claim_ahead(self, start: int, stop: int, share: Share | None = None) -> Flight | None:
        """Claim the part of [start, stop) up to the first byte that is already there, to read it ahead."""
        flight = Flight()
        flight.share = share
        with self.lock:
            stop = self._free_until(start, stop)
            if stop <= start:
                return None
            flight.ranges.append(start, stop)
            flight.wanted.append(start)
            flight.is_extended = True
            self._flights.add(start, stop, (flight, 0))
        return flight

    def gaps(self, least_bytes: int, start: int = 0, stop: int = END) -> list[Range]:
        """Return what neither journal nor memory has of [start, stop), but for what is shorter than this."""
        with self.lock:
            parts = [] if self.info is None else self._find(start, min(stop, self.info.version.size_bytes))
        return [(start, stop) for start, stop, there, *_ in parts if there is None and stop - start >= least_bytes]

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
                flight.ranges.append(a, b)
                flight.wanted.append(b)
                self._flights.add(a, b, (flight, index))
            row.append((a, b, flight, index, 0))

    def _extend(self, flight: Flight, stop: int, ahead_bytes: int, share: Share | None) -> None:
        starts, stops = flight.ranges.starts, flight.ranges.stops
        if stops[-1] != stop or self.info is None:
            return
        end = self._free_until(stop, stop + ahead_bytes)
        if end > stop:
            flight.share, flight.is_extended = share, True
            self._flights.remove(starts[-1])
            # Other columns: those that there are may be the caller's.
            flight.ranges = Vector(starts, [*stops[:-1], end])
            self._flights.add(starts[-1], end, (flight, len(starts) - 1))

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

    def land(self, flight: Flight, fetched: Fetched, *, record: bool) -> Extents:
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
        ranges, data = flight.ranges, fetched.data
        is_whole = size is not None and flight.brought(data) and ranges.is_ascending and ranges.stops[-1] <= size
        with self.lock:
            if flight.is_over:
                return Extents()  # given up by somebody else, and its ranges may be under way again
            if is_whole:
                self._end(flight)
                extents = self._hold(ranges, Extents(ranges.starts, data)) if record else Extents()  # type: ignore[arg-type]
                flight.data = data
            else:
                parts = list(zip(ranges, flight.wanted, data, strict=True))
                self._end(flight)
                flight.data, extents = self._take_in(parts, size, record=record, share=flight.share)
            flight.landed, flight.record = True, record
            flight.end()
        return extents

    def _end(self, flight: Flight) -> None:
        """Nothing of a flight is under way any more."""
        starts = flight.ranges.starts
        if starts and not self._flights.remove_comb(starts[0], flight):
            self._flights.remove_all(starts)

    def _hold(self, ranges: Vector, extents: Extents) -> Extents:
        """Hold extents until they are recorded, which have exactly these ranges."""
        starts, data = extents.starts, extents.data
        if len(starts) == 1:
            self._held.add(starts[0], ranges.stops[0], Held(starts[0], data[0], ahead=False))
        else:
            self._held.add_comb(Comb(ranges, extents, lambda i: Held(starts[i], data[i], ahead=False)))
        return extents

    def _take_in(
        self,
        parts: Sequence[tuple[Range, int, bytes | Exception]],
        size: int | None,
        *,
        record: bool,
        share: Share | None,
    ) -> tuple[list[bytes | Exception], Extents]:
        """Take in range by range: return what each brought, and the extents to record."""
        out: list[bytes | Exception] = []
        extents = Extents()
        for (start, stop), wanted, body in parts:
            if isinstance(body, Exception):
                out.append(body)
                continue
            if size is not None and len(body) != max(min(stop, size) - start, 0):
                msg = f"origin sent {len(body)} of {min(stop, size) - start} bytes at offset {start}"
                out.append(ShortReadError(msg))
                continue
            out.append(body)
            asked = wanted - start
            asked_for: bytes | memoryview = body
            if asked < len(body):
                rest = memoryview(body)[asked:]
                self._held.add(wanted, start + len(body), Held(wanted, rest, ahead=True, record=record, share=share))
                asked_for = memoryview(body)[:asked]
            if record and asked_for:
                self._held.add(start, start + len(asked_for), Held(start, asked_for, ahead=False))
                extents.append(start, asked_for)
        return out, extents

    def abort(self, flight: Flight, error: Exception) -> None:
        """Give up a flight: those who wait for it meet `error`, and its bytes are gaps again.

        Nothing happens to one that has landed or was given up before.
        """
        with self.lock:
            if flight.is_over:
                return
            self._end(flight)
            flight.end(error)

    def settle(self, extents: Sequence[tuple[int, bytes | memoryview]]) -> None:
        """Release held bytes: the journal has them now, or never will."""
        self.replace(Extents.of(extents), Extents())

    def replace(self, extents: Extents, piece: Extents) -> None:
        """Hold copies of some bytes, on their way into the journal, and no more the extents that they are of."""
        if not extents:
            return
        with self.lock:
            # By identity: these bytes may have been released before, and fetched again.
            if not self._held.remove_comb(extents.starts[0], extents):
                get = self._held.get
                self._held.remove_all(
                    [start for start, data in extents if (held := get(start)) is not None and held.data is data]
                )
            for start, data in piece:
                stop = start + len(data)
                # Who fetches them anew will hold them when they are there, and no two hold the same.
                if not self._discarded and self._held.is_clear(start, stop) and self._flights.is_clear(start, stop):
                    self._held.add(start, stop, Held(start, data, ahead=False))

    def go_without_journal(self) -> bool:
        """Use and record nothing more of this version; return False, and change nothing, where any of it was used."""
        with self.lock:
            if self.used_journal:
                return False
            if not self.unproved:
                self._delivered_proved = self._delivered
            self.unproved = True
            self.view = None
            self._held.clear()
            return True

    def use_ahead(self, used: Sequence[Part]) -> Extents:
        """Turn read-ahead bytes that the application has now asked for into extents to record.

        Some may have been let go of since they were planned for, with the file object that had them fetched.
        """
        extents = Extents()
        with self.lock:
            for start, stop, place, index, _ in used:
                for a, b, held in self._held.find(start, stop):
                    if held is None:
                        self._hold_again(place, index, a, b, extents)
                    elif held.ahead:
                        self._cut(held, a, b, extents)
        return extents

    def _hold_again(self, place: Run | Held | Flight, index: int, start: int, stop: int, extents: Extents) -> None:
        """Have bytes of a place recorded, but for those that somebody else records, or has recorded."""
        if self._discarded or isinstance(place, Run) or not place.record:
            return
        if isinstance(place, Flight) and isinstance(place.data[index], Exception):
            return  # there are none
        for a, b, there, _, _ in self._find(start, stop):
            for c, d, flying in self._flights.find(a, b) if there is None else ():
                if flying is not None and flying[0].wanted[flying[1]] > c:
                    continue  # who fetches them anew has asked for them, too
                piece = place.bytes_of(c, d, index)
                extents.append(c, piece)
                if flying is None:
                    self._held.add(c, c + len(piece), Held(c, piece, ahead=False))

    def _cut(self, held: Held, start: int, stop: int, extents: Extents) -> None:
        """Cut what was taken of a piece, and [start, stop), out of what is ahead; add them to the extents to record."""
        end, taken = held.start + len(held.data), held.taken
        start, stop = max(start, taken), max(stop, taken)
        self._held.remove(held.start)
        for c, d, ahead in ((held.start, taken, False), (taken, start, True), (start, stop, False), (stop, end, True)):
            if c < d and (ahead or (held.record and not self._has(c, d))):
                piece = memoryview(held.data)[c - held.start : d - held.start]
                self._held.add(c, d, Held(c, piece, ahead=ahead, record=held.record, share=held.share))
                if not ahead:
                    extents.append(c, piece)

    def _has(self, start: int, stop: int) -> bool:
        """Whether the journal has all of [start, stop) by now."""
        return self.view is not None and all(part[2] is not None for part in self.view.find(start, stop))

    def drop_ahead(self, start: int = 0, stop: int = END) -> tuple[int, Extents]:
        """Forget what was read ahead in pieces that reach into [start, stop) and never asked for.

        Returns:
            How many bytes nobody asked for, and the extents to record of those that were taken.
        """
        unused = 0
        extents = Extents()
        with self.lock:
            for _, _, held in self._held.singles(start, stop):
                if held.ahead:
                    self._cut(held, held.taken, held.taken, extents)
                    left = held.start + len(held.data) - held.taken
                    if left:  # else the next piece begins there
                        self._held.remove(held.taken)
                        unused += left
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

    def use_taken(self) -> Extents:
        """Turn what was taken into extents to record."""
        extents = Extents()
        with self.lock:
            for _, _, held in self._held.singles(0, END):
                if held.taken > held.start:
                    self._cut(held, held.taken, held.taken, extents)
        return extents


def agrees(known: Version, seen: Version) -> bool:
    """Whether two versions are one: by their strongest validator, by size alone where neither has any."""
    if known.is_provable or seen.is_provable:
        return known.same_as(seen)
    return known.size_bytes == seen.size_bytes


def to_origin(ranges: Vector) -> Sequence[OriginRange]:
    """Return ranges as an origin takes them: None for an end that is not known."""
    if END not in ranges.stops:
        return ranges
    return [(start, None if stop == END else stop) for start, stop in ranges]
