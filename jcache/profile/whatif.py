"""What a recorded run would have read from caches of other sizes and of other kinds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from jcache.cache.eviction import LIVE_S
from jcache.cache.keeper import DENIED_S, IDLE_S, LOW_SHARE, NEWS_S, WAIT_S, credit_bytes, most_at_once
from jcache.cache.policy import AGAIN_S, eviction_order, times_read_again
from jcache.cache.usage import CLOCKS_S, REMEMBER_S, Entry
from jcache.counters import LISTING, NAMED, OPEN, STAT
from jcache.journal.compaction import COMPACT_AT
from jcache.profile.contents import Blocks, Held, Ranges, Whole, not_in, take
from jcache.ranges import normalise, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jcache.profile.format import Request
    from jcache.profile.reader import Profile
    from jcache.ranges import Range

__all__ = ["EXACT", "WHOLE", "Kind", "Policy", "WhatIf", "what_if"]

Policy = Literal["jcache", "lru"]
"""Which files go first: as JCache chooses them, or always those that were not used for longest."""

EXACT, WHOLE = 0, -1
"""Kinds of caches: of the ranges that were asked for; of files. Any other is one of blocks of so many bytes."""

# What a segment takes beside its bytes: of itself (what is said of the file at either end, and the trailer), for each
# vector, and for each extent.
_SEGMENT_BYTES, _VECTOR_BYTES, _EXTENT_BYTES = 940, 32, 52

# As `jcache.recording.recorder` has them, and `jcache.registry`.
PAUSE_S, LONGEST_S = 0.005, 1.0
IDLE_FILES = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """A cache that a run might have had.

    Attributes:
        size_bytes: What it may hold; None where there is no limit.
        unit: `EXACT`, `WHOLE`, or the size of a block.
        policy: Which files go first.
    """

    size_bytes: int | None
    unit: int = EXACT
    policy: Policy = "jcache"


@dataclass(slots=True)
class WhatIf:
    """What would have come of it. Sizes are in bytes.

    Attributes:
        read_bytes: What the application read.
        hit_bytes: What of that the cache would have had.
        origin_bytes: What the origin would have sent.
        held_bytes: What the cache would hold at the end.
        evicted: How many times a file would have gone.
    """

    kind: Kind
    read_bytes: int = 0
    hit_bytes: int = 0
    origin_bytes: int = 0
    held_bytes: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of what was read that the cache would have had."""
        return self.hit_bytes / self.read_bytes if self.read_bytes else 0.0


def what_if(profiles: Sequence[Profile], kinds: Sequence[Kind]) -> list[WhatIf]:
    """Return what would have come of recorded runs, the one after the other, with each of some caches.

    The caches are empty at first. All are looked at in one pass over the profiles.

    Raises:
        ProfileError: A profile cannot be read.
    """
    ordered = sorted(profiles, key=lambda one: one.start_time)
    caches = [_Cache(kind) for kind in kinds]
    sizes: dict[str, int] = {}
    for profile in ordered:
        lives, end_s = _ends_of(profile), profile.start_time
        for process, one in profile.requests():
            url, end_s = profile.files[one.file], profile.start_time + one.end_us / 1e6
            if one.kind in (OPEN, NAMED, STAT, LISTING):
                if one.kind != LISTING and len(one.stops):
                    sizes[url] = one.stops[0]
            elif len(one.starts):
                for cache in caches:
                    cache.read(process, url, one, sizes.get(url), end_s)
            if one.end_us >= lives[process]:
                for cache in caches:
                    cache.ended(process, end_s)
        for process in lives:
            for cache in caches:
                cache.ended(process, end_s)
    return [cache.result() for cache in caches]


def _ends_of(profile: Profile) -> dict[int, int]:
    """Return when the last request of each process ended, in microseconds since the run began."""
    ends: dict[int, int] = {}
    for process, batch in profile.batches():
        ends[process] = max(ends.get(process, 0), *batch.ends_us)
    return ends


class _Fetched(NamedTuple):
    """What a read has brought, while it waits to be recorded."""

    url: str
    gaps: Sequence[Range]
    extents: int
    """How many: ranges of a vector stay apart, though one begins where another ends."""

    @property
    def disk_bytes(self) -> int:
        """What it takes in a journal."""
        return total(self.gaps) + _EXTENT_BYTES * self.extents + _VECTOR_BYTES


@dataclass(slots=True)
class _Use:
    """How a process has used a file since it last noted that; and when that was, and what had been served by then."""

    used_s: float | None = None
    hits: int = 0
    hit_bytes: int = 0
    noted_s: float = -AGAIN_S
    noted_bytes: int = 0


@dataclass(slots=True)
class _Process:
    """A process that reads through a cache.

    Attributes:
        waiting: What it has fetched and not recorded yet.
        since_s: When the first of that was fetched.
        fetched_s: When anything was, last.
        full_s: When the first of what is waiting found no room.
        denied_s: Until when nothing is recorded.
        ahead_bytes: What it has claimed, and not written yet.
        wrote: The files that it has written to, and when it noted that last.
        noted: Those that it has noted anything of.
        uses: How it has used files.
        used: Those that it has used since it last looked what of that is news.
        looked_s: When that was.
        files: Those that it has open, what was not used for longest first; with what is gone of them, and is readable
            nevertheless until something is fetched.
    """

    waiting: deque[_Fetched] = field(default_factory=deque)
    since_s: float = 0.0
    fetched_s: float = 0.0
    full_s: float | None = None
    denied_s: float = 0.0
    ahead_bytes: int = 0
    wrote: dict[str, float] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)
    uses: dict[str, _Use] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    looked_s: float = 0.0
    files: dict[str, list[Ranges]] = field(default_factory=dict)


@dataclass(slots=True)
class _Cache:
    """One cache, while a run reads through it."""

    kind: Kind
    held: dict[str, Held] = field(default_factory=dict)
    # What is noted of their use and size, by which the cleaner goes: not all that is true by now.
    entries: dict[str, Entry] = field(default_factory=dict)
    # The use of what is gone is remembered.
    gone: dict[str, Entry] = field(default_factory=dict)
    processes: dict[int, _Process] = field(default_factory=dict)
    # What is being written, and so must not go, or waits for that; and who has files open, and writes to them.
    fresh: dict[str, Ranges] = field(default_factory=dict)
    users: dict[str, set[int]] = field(default_factory=dict)
    writers: dict[str, set[int]] = field(default_factory=dict)
    # Of how many segments a file is; when it was really used last, and when a process began to write to it.
    segments: dict[str, int] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)
    begun_s: dict[str, float] = field(default_factory=dict)
    # What there is, and what all together have claimed ahead.
    total: int = 0
    ahead_bytes: int = 0
    done: WhatIf = field(init=False)

    def __post_init__(self) -> None:
        self.done = WhatIf(self.kind)

    def read(self, process: int, url: str, one: Request, size_bytes: int | None, now_s: float) -> None:
        """Read what a request of a process asked for."""
        of = self._use(process, url, now_s - one.duration_us / 1e6)
        ranges = list(_within(one.starts, one.stops, size_bytes))
        if self.kind.unit == EXACT:
            hit_bytes, fetched_bytes = self._read_exactly(of, url, ranges, now_s)
        else:
            held = self.held.setdefault(
                url, Whole(size_bytes) if self.kind.unit == WHOLE else Blocks(self.kind.unit, size_bytes)
            )
            hit_bytes = sum(held.has(*range_) for range_ in ranges)
            fetched_bytes = sum(held.take(*range_) for range_ in normalise(ranges))
        self.done.read_bytes += total(ranges)
        self.done.hit_bytes += hit_bytes
        self.done.origin_bytes += fetched_bytes
        use = of.uses.setdefault(url, _Use())
        use.used_s = self.used_s[url] = now_s
        use.hits += not fetched_bytes
        use.hit_bytes += hit_bytes
        of.used.add(url)
        if fetched_bytes and self.kind.unit != EXACT:
            self._grow(of, url, fetched_bytes, now_s)

    def _read_exactly(self, of: _Process, url: str, ranges: Sequence[Range], now_s: float) -> tuple[int, int]:
        """Return how many bytes are there, and how many are fetched, which wait to be recorded then."""
        there = [*of.files[url], *self._contents(url)]
        missing = [gap for range_ in ranges for gap in not_in(there, *range_)]
        gaps = normalise(missing)
        if gaps:
            of.files[url] = []  # who fetches looks first what there is
            take(self.fresh.setdefault(url, Ranges()), gaps)
            of.since_s = of.since_s if of.waiting else now_s
            of.waiting.append(_Fetched(url, gaps, len({start for start, _ in missing})))
            of.fetched_s = now_s
        # Whatever a vector itself brings is no hit for another range of it.
        return total(ranges) - total(missing), total(gaps)

    def ended(self, process: int, now_s: float) -> None:
        """Take note that a process has come to its end: it records what is waiting, and lets go of everything."""
        of = self.processes.get(process)
        if of is not None:
            self._record(process, of, now_s, is_end=True)
            for url in of.files:
                self._close(process, url)
            for url in of.files:
                self._compact(of, url, now_s)
            self._note(of, now_s, is_end=True)
            self.ahead_bytes -= of.ahead_bytes
            del self.processes[process]

    def result(self) -> WhatIf:
        """Return what came of it."""
        self.done.held_bytes = self.total
        return self.done

    def _contents(self, url: str) -> list[Ranges]:
        return [one for one in (self.held.get(url), self.fresh.get(url)) if isinstance(one, Ranges)]

    def _entry(self, url: str, now_s: float) -> Entry:
        entry = self.entries.get(url)
        if entry is None:
            entry = self.gone.pop(url, None)
            if entry is None or entry.used_s < now_s - REMEMBER_S:
                entry = Entry(now_s, check=False)
            self.entries[url] = entry
        return entry

    def _note(self, of: _Process, now_s: float, *, is_end: bool = False) -> None:
        """Have a process note what it has used, as far as that is news to others; see `Keeper`."""
        for url in of.uses if is_end else of.used:
            use = of.uses[url]
            if use.used_s is None or not (is_end or now_s - use.noted_s >= AGAIN_S or use.hit_bytes > use.noted_bytes):
                continue
            entry = self._entry(url, use.used_s)
            entry.used_s = max(entry.used_s, use.used_s)
            entry.hits += use.hits
            entry.hit_bytes += use.hit_bytes
            of.noted.add(url)
            of.uses[url] = _Use(noted_s=now_s, noted_bytes=use.noted_bytes + use.hit_bytes)
        of.used.clear()
        of.looked_s = now_s

    # -- files that are open ------------------------------------------------------------------------------------

    def _use(self, process: int, url: str, now_s: float) -> _Process:
        """Have a process open a file, if it has not, and record by then what there was time for."""
        of = self.processes.setdefault(process, _Process())
        due_s = min(of.fetched_s + PAUSE_S, of.since_s + LONGEST_S)
        if of.waiting and now_s >= due_s:
            self._record(process, of, due_s if of.full_s is None else now_s)
        if now_s - of.looked_s >= NEWS_S:
            self._note(of, now_s)
        of.files[url] = of.files.pop(url, [])
        self.users.setdefault(url, set()).add(process)
        if len(of.files) > IDLE_FILES:
            for idle in list(of.files)[: IDLE_FILES // 8]:
                del of.files[idle]
                self._close(process, idle)
                self._compact(of, idle, now_s)
        return of

    def _close(self, process: int, url: str) -> None:
        self.users[url].discard(process)
        writers = self.writers.get(url, set())
        writers.discard(process)
        if not writers:
            self._seal(url)
        if not self.users[url]:
            del self.users[url]

    def _seal(self, url: str) -> None:
        """Have what was written of a file go like anything else."""
        self.writers.pop(url, None)
        fresh = self.fresh.pop(url, None)
        if fresh is not None:
            held = self.held.setdefault(url, Ranges())
            assert isinstance(held, Ranges)
            take(held, fresh.ranges())
            held.disk_bytes += fresh.disk_bytes
            self.segments[url] = self.segments.get(url, 0) + 1

    def _compact(self, of: _Process, url: str, now_s: float) -> None:
        """Make one segment of many, as who lets go of a file does: for a while there are both."""
        segments, limit = self.segments.get(url, 0), self.kind.size_bytes
        if segments < COMPACT_AT or (limit is not None and not self._claim(of, self.held[url].disk_bytes, limit)):
            return
        self._make_room_in_time(now_s)
        if url in self.held:
            less = (segments - 1) * _SEGMENT_BYTES
            self.segments[url] = 1
            self.held[url].disk_bytes -= less
            self.total -= less

    # -- recording ----------------------------------------------------------------------------------------------

    def _record(self, process: int, of: _Process, now_s: float, *, is_end: bool = False) -> None:
        """Record what is waiting, as far as there is room; who is about to end waits for it."""
        while of.waiting:
            one = of.waiting[0]
            has_room = self._has_room(of, total(one.gaps), now_s)
            if has_room is None and is_end:
                now_s += IDLE_S / 10  # it waits, and what it has written is idle some time
                continue
            if has_room is None:
                return
            of.waiting.popleft()
            of.full_s, of.since_s = None, now_s
            if has_room:
                self._write(process, of, one, now_s)
                now_s += PAUSE_S if is_end else 0.0  # it takes a moment
                continue
            for there in (*of.files.get(one.url, ()), *self._contents(one.url)):
                for gap in one.gaps:
                    there.drop(*gap)

    def _write(self, process: int, of: _Process, one: _Fetched, now_s: float) -> None:
        fresh = self.fresh.setdefault(one.url, Ranges())
        take(fresh, one.gaps)  # if they are gone meanwhile
        nbytes = one.disk_bytes + (0 if fresh.disk_bytes else _SEGMENT_BYTES)
        fresh.disk_bytes += nbytes
        self.writers.setdefault(one.url, set()).add(process)
        self._grow(of, one.url, nbytes, now_s)

    def _has_room(self, of: _Process, need_bytes: int, now_s: float) -> bool | None:
        """Whether so many bytes may be recorded; None where that is not known yet."""
        limit = self.kind.size_bytes
        if limit is None:
            return True
        if need_bytes > most_at_once(limit) or now_s < of.denied_s:
            return need_bytes + credit_bytes(limit) // 2 <= of.ahead_bytes
        if self._claim(of, need_bytes, limit):
            return True
        waited_s = 0.0 if of.full_s is None else now_s - of.full_s
        low_bytes = max(min(int(LOW_SHARE * limit), limit - _claimed(need_bytes, limit)), 0)
        self._make_room(low_bytes, now_s, spares=waited_s < WAIT_S / 2)
        if self._claim(of, need_bytes, limit):
            return True
        of.full_s = now_s - waited_s
        if waited_s < WAIT_S:
            return None
        of.denied_s = now_s + DENIED_S
        return False

    def _claim(self, of: _Process, need_bytes: int, limit: int) -> bool:
        """Claim so many bytes, and some ahead, unless they are claimed already; False where there is no room."""
        ahead, others = _claimed(need_bytes, limit), self.ahead_bytes - of.ahead_bytes
        if ahead - credit_bytes(limit) <= of.ahead_bytes:
            return True
        if self.total + others + ahead > limit:
            return False
        of.ahead_bytes, self.ahead_bytes = ahead, others + ahead
        return True

    def _grow(self, of: _Process, url: str, nbytes: int, now_s: float) -> None:
        """Take note that so many bytes of a file were written."""
        entry = self._entry(url, now_s)
        # Noted now and then by each process; other kinds of caches have no claims that would keep them small without.
        if now_s - of.wrote.get(url, -CLOCKS_S) >= CLOCKS_S or self.kind.unit != EXACT:
            of.wrote[url] = now_s
            of.noted.add(url)
            entry.used_s, entry.check = max(entry.used_s, now_s), True
            self.begun_s[url] = now_s
        claimed = min(nbytes, of.ahead_bytes)
        of.ahead_bytes -= claimed
        self.ahead_bytes -= claimed
        self.total += nbytes
        self._make_room_in_time(now_s)

    def _make_room_in_time(self, now_s: float) -> None:
        """Make room before there is none."""
        limit = self.kind.size_bytes
        if limit is not None and self.total + self.ahead_bytes > limit - 2 * credit_bytes(limit):
            self._make_room(int(LOW_SHARE * limit), now_s)

    def _make_room(self, low_bytes: int, now_s: float, *, spares: bool = True) -> None:
        """Remove files until there is, with what is claimed, no more than so much; see `Cleaner`."""
        for of in self.processes.values():
            self._note(of, now_s)
        # What is idle is sealed when room is wanted, and only what is sealed may go.
        for url in [url for url in self.writers if self.used_s[url] <= now_s - IDLE_S]:
            self._seal(url)
        if self.total + self.ahead_bytes <= low_bytes:
            return
        for url, entry in self.entries.items():
            if entry.check and entry.looked_s < now_s - LIVE_S:
                self._look(url, entry, now_s)
        first, last = map(deque, self._order(low_bytes, now_s))
        again: set[str] = set()
        is_live = False
        while self.total + self.ahead_bytes > low_bytes and (first or (last and not (spares and is_live))):
            url = (first or last).popleft()
            entry = self.entries[url]
            if not entry.size_bytes and url not in again and self.kind.policy == "jcache":
                # Written since anybody looked: only now it shows whether it was read again. What it takes up is kept in
                # mind where nobody who is there has noted anything of it.
                sized = replace(entry, size_bytes=self._size(url))
                if not any(url in of.noted for of in self.processes.values()):
                    entry.size_bytes = sized.size_bytes
                if times_read_again(sized):
                    again.add(url)
                    first.append(url)
                    continue
            is_live |= url in self.writers
            if url in self.held and self.held[url].disk_bytes:
                self._evict(url, entry, now_s)

    def _size(self, url: str) -> int:
        """Return what a file takes up."""
        return sum(one.disk_bytes for one in (self.held.get(url), self.fresh.get(url)) if one is not None)

    def _look(self, url: str, entry: Entry, now_s: float) -> None:
        """Learn how large a file is; what was begun a moment ago, or is being written, is looked at once more."""
        entry.size_bytes, entry.looked_s = self._size(url), now_s
        entry.check = url in self.writers or self.begun_s.get(url, 0.0) > now_s - LIVE_S

    def _evict(self, url: str, entry: Entry, now_s: float) -> None:
        """Remove what is sealed of a file."""
        gone = self.held.pop(url)
        self.segments.pop(url, None)
        self.total -= gone.disk_bytes
        self._look(url, entry, now_s)
        self.done.evicted += 1
        if url not in self.fresh:
            self.gone[url] = self.entries.pop(url)
        if isinstance(gone, Ranges):
            # Segments that are gone stay readable for a while for those who have them open.
            for process in self.users.get(url, ()):
                self.processes[process].files[url].append(gone)

    def _order(self, room_bytes: int, now_s: float) -> tuple[list[str], list[str]]:
        if self.kind.policy == "lru":
            return sorted(self.entries, key=lambda url: self.entries[url].used_s), []
        return eviction_order(self.entries, room_bytes, now_s=now_s)


def _claimed(need_bytes: int, limit_bytes: int) -> int:
    """Return what is claimed by who needs so many bytes: for indexes half a credit more, and one ahead."""
    return need_bytes + credit_bytes(limit_bytes) // 2 + credit_bytes(limit_bytes)


def _within(starts: Iterable[int], stops: Iterable[int], size_bytes: int | None) -> Iterator[Range]:
    """Yield what of some ranges lies before the end of the file."""
    for start, stop in zip(starts, stops, strict=True):
        end = stop if size_bytes is None else min(stop, size_bytes)
        if start < end:
            yield start, end
