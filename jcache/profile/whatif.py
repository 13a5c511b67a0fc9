"""What a recorded run would have read from caches of other sizes and of other kinds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from jcache.cache.keeper import LOW_SHARE, credit_bytes
from jcache.cache.policy import eviction_order
from jcache.cache.usage import Entry
from jcache.counters import LISTING, NAMED, OPEN, STAT
from jcache.ranges import normalise, subtract, total

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

# What a journal takes beside its bytes: of itself (header, index, trailer), for each vector, and for each extent.
_JOURNAL_BYTES, _VECTOR_BYTES, _EXTENT_BYTES = 430, 32, 52


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
        lives = _ends_of(profile)
        for process, one in profile.requests():
            url = profile.files[one.file]
            if one.kind in (OPEN, NAMED, STAT, LISTING):
                if one.kind != LISTING and len(one.stops):
                    sizes[url] = one.stops[0]
            elif len(one.starts):
                for cache in caches:
                    cache.read(process, url, one, sizes.get(url), profile.start_time + one.end_us / 1e6)
            if one.end_us >= lives[process]:
                for cache in caches:
                    cache.ended(process)
    return [cache.result() for cache in caches]


def _ends_of(profile: Profile) -> dict[int, int]:
    """Return when the last request of each process ended, in microseconds since the run began."""
    ends: dict[int, int] = {}
    for process, batch in profile.batches():
        ends[process] = max(ends.get(process, 0), *batch.ends_us)
    return ends


class _Held(Protocol):
    """What a cache has of one file."""

    disk_bytes: int

    def has(self, start: int, stop: int) -> int:
        """Return how many bytes of a range are there."""
        ...

    def take(self, start: int, stop: int) -> int:
        """Have a range in it from now on; return how many bytes are fetched for that."""
        ...


class _Ranges:
    """The very ranges that were asked for."""

    __slots__ = ("_starts", "_stops", "disk_bytes")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.disk_bytes = _JOURNAL_BYTES

    def gaps(self, start: int, stop: int) -> list[Range]:
        """Return what of a range is not there."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        return subtract([(start, stop)], list(zip(self._starts[first:last], self._stops[first:last], strict=True)))

    def has(self, start: int, stop: int) -> int:
        """See `_Held`."""
        return stop - start - total(self.gaps(start, stop))

    def take(self, start: int, stop: int) -> int:
        """See `_Held`; each gap is an extent."""
        gaps = self.gaps(start, stop)
        if gaps:
            first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
            begin, end = min([start, *self._starts[first:last]]), max([stop, *self._stops[first:last]])
            self._starts[first:last], self._stops[first:last] = [begin], [end]
            self.disk_bytes += total(gaps) + _EXTENT_BYTES * len(gaps)
        return total(gaps)


class _Blocks:
    """Blocks of a file, each of them whole."""

    __slots__ = ("_block", "_blocks", "_size", "disk_bytes")

    def __init__(self, block_bytes: int, size_bytes: int | None) -> None:
        self._block = block_bytes
        self._blocks: set[int] = set()
        self._size = size_bytes
        self.disk_bytes = 0

    def _numbers(self, start: int, stop: int) -> range:
        return range(start // self._block, -(-stop // self._block))

    def has(self, start: int, stop: int) -> int:
        """See `_Held`."""
        block = self._block
        there = (number * block for number in self._numbers(start, stop) if number in self._blocks)
        return sum(min(begin + block, stop) - max(begin, start) for begin in there)

    def take(self, start: int, stop: int) -> int:
        """See `_Held`."""
        block, fetched = self._block, 0
        for number in self._numbers(start, stop):
            if number not in self._blocks:
                self._blocks.add(number)
                end = (number + 1) * block if self._size is None else min((number + 1) * block, self._size)
                fetched += max(end - number * block, 0)
        self.disk_bytes += fetched
        return fetched


class _Whole:
    """A file, all of it; of one whose size nobody has told, as far as it was read."""

    __slots__ = ("_size", "disk_bytes")

    def __init__(self, size_bytes: int | None) -> None:
        self._size = size_bytes
        self.disk_bytes = 0

    def has(self, start: int, stop: int) -> int:
        """See `_Held`."""
        return max(min(stop, self.disk_bytes) - start, 0)

    def take(self, start: int, stop: int) -> int:  # noqa: ARG002 - all of it
        """See `_Held`."""
        before = self.disk_bytes
        self.disk_bytes = max(stop if self._size is None else self._size, before)
        return self.disk_bytes - before


@dataclass(slots=True)
class _Cache:
    """One cache, while a run reads through it."""

    kind: Kind
    held: dict[str, _Held] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    # Segments that are gone stay readable for those who have them open.
    kept: dict[tuple[int, str], list[_Ranges]] = field(default_factory=dict)
    users: dict[str, set[int]] = field(default_factory=dict)
    alive: set[int] = field(default_factory=set)
    total: int = 0
    done: WhatIf = field(init=False)

    def __post_init__(self) -> None:
        self.done = WhatIf(self.kind)

    def read(self, process: int, url: str, one: Request, size_bytes: int | None, now_s: float) -> None:
        """Read what a request of a process asked for."""
        held = self.held.get(url)
        if held is None:
            held = self.held[url] = self._empty(size_bytes)
            self.entries[url] = Entry(now_s)
        entry, before = self.entries[url], held.disk_bytes
        self.users.setdefault(url, set()).add(process)
        self.alive.add(process)
        own = self.kept.get((process, url), ())
        ranges = list(_within(one.starts, one.stops, size_bytes))
        # Whatever the vector itself brings is no hit for another range of it.
        left = [gap for start, stop in ranges for gap in _not_in(own, start, stop)]
        hit_bytes = total(ranges) - total(left) + sum(held.has(*gap) for gap in left)
        fetched_bytes = sum(held.take(*gap) for gap in normalise(left))
        if self.kind.unit == EXACT and fetched_bytes:
            held.disk_bytes += _VECTOR_BYTES
        self.done.read_bytes += total(ranges)
        self.done.hit_bytes += hit_bytes
        self.done.origin_bytes += fetched_bytes
        self.total += held.disk_bytes - before
        entry.used_s = max(entry.used_s, now_s)
        entry.hits += not fetched_bytes
        entry.hit_bytes += hit_bytes
        entry.size_bytes = held.disk_bytes
        limit = self.kind.size_bytes
        if limit is not None and self.total > limit - (len(self.alive) + 2) * credit_bytes(limit):
            self._make_room(limit, now_s)

    def _empty(self, size_bytes: int | None) -> _Held:
        if self.kind.unit == EXACT:
            return _Ranges()
        return _Whole(size_bytes) if self.kind.unit == WHOLE else _Blocks(self.kind.unit, size_bytes)

    def _make_room(self, limit: int, now_s: float) -> None:
        low = LOW_SHARE * limit
        for url in self._order(int(low), now_s):
            if self.total <= low:
                return
            gone = self.held.pop(url)
            self.total -= gone.disk_bytes
            del self.entries[url]
            self.done.evicted += 1
            if isinstance(gone, _Ranges):
                for process in self.users.pop(url, ()):
                    self.kept.setdefault((process, url), []).append(gone)

    def ended(self, process: int) -> None:
        """Take note that a process has come to its end."""
        self.alive.discard(process)
        for key in [key for key in self.kept if key[0] == process]:
            del self.kept[key]
        for users in self.users.values():
            users.discard(process)

    def _order(self, room_bytes: int, now_s: float) -> list[str]:
        if self.kind.policy == "lru":
            return sorted(self.entries, key=lambda url: self.entries[url].used_s)
        first, last = eviction_order(self.entries, room_bytes, now_s=now_s)
        return first + last

    def result(self) -> WhatIf:
        """Return what came of it."""
        self.done.held_bytes = self.total
        return self.done


def _not_in(held: Sequence[_Ranges], start: int, stop: int) -> list[Range]:
    left = [(start, stop)]
    for one in held:
        left = [gap for begin, end in left for gap in one.gaps(begin, end)]
    return left


def _within(starts: Iterable[int], stops: Iterable[int], size_bytes: int | None) -> Iterator[Range]:
    """Yield what of some ranges lies before the end of the file."""
    for start, stop in zip(starts, stops, strict=True):
        end = stop if size_bytes is None else min(stop, size_bytes)
        if start < end:
            yield start, end
