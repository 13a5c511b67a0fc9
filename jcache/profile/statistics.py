"""What a profile says in numbers: of each file and of all of them, sizes and order of ranges, what coalescing saves."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jcache.counters import LISTING, NAMED, OPEN, STAT, VECTOR
from jcache.profile.format import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jcache.profile.format import Batch
    from jcache.profile.reader import Profile, State

__all__ = ["GAPS", "Coalescing", "FileUse", "Look", "Union", "look_at"]

GAPS = (0, 1 << 10, 16 << 10, 128 << 10, 1 << 20)
"""At which gaps it is told what coalescing would save and cost, in bytes."""

_MOST_PENDING = 1 << 16


class Union:
    """Byte ranges as a set of bytes, in memory that grows with the number of its pieces alone."""

    __slots__ = ("_pending", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int]] = []
        self._pending: list[tuple[int, int]] = []

    def add(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Add half-open ranges."""
        self._pending.extend(ranges)
        if len(self._pending) > _MOST_PENDING + len(self._pieces):
            self._merge()

    def _merge(self) -> None:
        pieces: list[tuple[int, int]] = []
        for start, stop in sorted(itertools.chain(self._pieces, self._pending)):
            if pieces and start <= pieces[-1][1]:
                if stop > pieces[-1][1]:
                    pieces[-1] = pieces[-1][0], stop
            elif start < stop:
                pieces.append((start, stop))
        self._pieces, self._pending = pieces, []

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """What is in it, in order, no two pieces touching."""
        self._merge()
        return self._pieces

    @property
    def size_bytes(self) -> int:
        """How many bytes are in it."""
        return sum(stop - start for start, stop in self.pieces)


@dataclass(slots=True)
class FileUse:
    """What was asked of one file, by all processes. Sizes are in bytes, times in seconds.

    Attributes:
        sequential: Ranges that begin where the one before in the same process and file ended; `forward` and `backward`
            are those that begin behind it or before it. The first one of each process is none of them.
        waited_s: The sum of what the requests took.
    """

    url: str
    size: int | None = None
    opens: int = 0
    reads: int = 0
    ranges: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    miss_bytes: int = 0
    bypass_bytes: int = 0
    ahead_bytes: int = 0
    distinct_bytes: int = 0
    sequential: int = 0
    forward: int = 0
    backward: int = 0
    waited_s: float = 0.0
    first_s: float = 0.0
    reach: int = 0
    union: Union = field(default_factory=Union, repr=False, compare=False)

    @property
    def extent(self) -> int:
        """Its size, or as far as anybody read."""
        return max(self.size or 0, self.reach)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        names = self.__dataclass_fields__.keys() - {"union", "reach", "first_s"}
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name in names}


@dataclass(frozen=True, slots=True)
class Coalescing:
    """What it would save and cost if vectors asked for neighbours as one range, at most `gap` bytes apart."""

    gap: int
    saved_ranges: int
    extra_bytes: int


@dataclass(slots=True)
class Look:
    """What a profile says in numbers. Sizes are in bytes, times in seconds.

    Attributes:
        requests: By the name of their kind.
        answered: Questions that were answered without asking an origin.
        sizes: How many ranges there are of so many bytes or fewer, and more than half of that: by that power of two.
        distances: How many ranges begin so far from the end of the one before, likewise; negative backwards.
    """

    processes: int
    states: dict[State, int]
    lost: int
    start_time: float
    real_s: float
    requests: dict[str, int]
    answered: int
    files: list[FileUse]
    sizes: dict[int, tuple[int, int]]
    distances: dict[int, int]
    coalescing: list[Coalescing]

    def total(self) -> FileUse:
        """Return the sum of all files."""
        whole = FileUse("all", size=sum(one.size or 0 for one in self.files))
        for one in self.files:
            for name in ("opens", "reads", "ranges", "bytes", "hit_bytes", "miss_bytes", "bypass_bytes", "ahead_bytes"):
                setattr(whole, name, getattr(whole, name) + getattr(one, name))
            for name in ("distinct_bytes", "sequential", "forward", "backward", "waited_s"):
                setattr(whole, name, getattr(whole, name) + getattr(one, name))
        return whole

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "processes": self.processes,
            "states": dict(self.states),
            "lost": self.lost,
            "start_time": self.start_time,
            "real_s": self.real_s,
            "requests": self.requests,
            "answered": self.answered,
            "total": self.total().to_json(),
            "sizes": [{"most": most, "ranges": count, "bytes": size} for most, (count, size) in self.sizes.items()],
            "distances": [{"most": most, "ranges": count} for most, count in self.distances.items()],
            "coalescing": [
                {"gap": one.gap, "saved_ranges": one.saved_ranges, "extra_bytes": one.extra_bytes}
                for one in self.coalescing
            ],
            "files": [one.to_json() for one in self.files],
        }


def look_at(profile: Profile, *, gaps: Sequence[int] = GAPS) -> Look:
    """Return what a profile says in numbers; it is read once, block by block.

    Args:
        profile: The profile.
        gaps: At which gaps to tell what coalescing would save.

    Raises:
        ProfileError: A file cannot be read, or is no profile.
    """
    looking = _Looking(sorted(set(gaps)))
    for process, batch in profile.batches():
        looking.add(process, batch, profile.files)
    for one in looking.files.values():
        one.distinct_bytes = one.union.size_bytes
    return Look(
        processes=len(profile.recordings),
        states=profile.states,
        lost=profile.lost,
        start_time=profile.start_time,
        real_s=looking.end_us / 1e6,
        requests={name: looking.kinds[kind] for kind, name in enumerate(KINDS)},
        answered=looking.answered,
        files=sorted(looking.files.values(), key=lambda one: one.first_s),
        sizes={most: (looking.sizes[most], looking.bytes_of[most]) for most in sorted(looking.sizes)},
        distances=dict(sorted(looking.distances.items())),
        coalescing=list(looking.coalesced()),
    )


class _Looking:
    """One pass over the requests."""

    def __init__(self, gaps: list[int]) -> None:
        self.files: dict[int, FileUse] = {}
        self.kinds: Counter[int] = Counter()
        # Of so many or fewer, and more than half of that: by that power of two.
        self.sizes: defaultdict[int, int] = defaultdict(int)
        self.bytes_of: defaultdict[int, int] = defaultdict(int)
        self.distances: defaultdict[int, int] = defaultdict(int)
        self.answered = self.end_us = 0
        self._gaps = gaps
        self._saved = [0] * (len(gaps) + 1)
        self._extra = [0] * (len(gaps) + 1)
        self._last: dict[tuple[int, int], int] = {}

    def add(self, process: int, batch: Batch, urls: Sequence[str]) -> None:
        """Take requests of one process into account: by column, since there may be millions of them."""
        self.kinds.update(batch.kinds)
        self.end_us = max(self.end_us, *batch.ends_us)
        heads = zip(batch.kinds, batch.ends_us, batch.durations_us, batch.files, batch.counts, strict=True)
        served = zip(batch.hits, batch.misses, batch.bypasses, batch.aheads, strict=True)
        at = 0
        for (kind, end_us, took_us, file, count), (hit, miss, bypass, ahead) in zip(heads, served, strict=True):
            ranges = slice(at, at + count)
            at += count
            use = self.files.get(file)
            if kind in (STAT, LISTING):
                self.answered += hit
                if count and use is not None:
                    use.size = batch.stops[ranges][0]
                continue
            if use is None:
                use = self.files[file] = FileUse(urls[file], first_s=(end_us - took_us) / 1e6)
            use.waited_s += took_us / 1e6
            if kind in (OPEN, NAMED):
                use.opens += 1
                use.size = batch.stops[ranges][0] if count else use.size
                continue
            use.reads += 1
            use.ranges += count
            use.bytes += hit + miss + bypass
            use.hit_bytes += hit
            use.miss_bytes += miss
            use.bypass_bytes += bypass
            use.ahead_bytes += ahead
            if count:
                pairs = list(zip(batch.starts[ranges], batch.stops[ranges], strict=True))
                use.union.add(pairs)
                self._follow(use, (process, file), pairs)
                if kind == VECTOR:
                    self._coalesce(pairs)

    def _follow(self, use: FileUse, key: tuple[int, int], pairs: Sequence[tuple[int, int]]) -> None:
        sizes, bytes_of, distances = self.sizes, self.bytes_of, self.distances
        before = self._last.get(key)
        for start, stop in pairs:
            size = stop - start
            most = 1 << (size - 1).bit_length() if size else 0
            sizes[most] += 1
            bytes_of[most] += size
            if before is not None:
                distance = start - before
                if distance > 0:
                    use.forward += 1
                    distances[1 << (distance - 1).bit_length()] += 1
                elif distance:
                    use.backward += 1
                    distances[-(1 << (-distance - 1).bit_length())] += 1
                else:
                    use.sequential += 1
                    distances[0] += 1
            before = stop
            use.reach = max(use.reach, stop)
        assert before is not None
        self._last[key] = before

    def _coalesce(self, pairs: Sequence[tuple[int, int]]) -> None:
        reach: int | None = None
        for start, stop in sorted(pairs):
            if reach is not None:
                gap = max(start - reach, 0)
                place = bisect_left(self._gaps, gap)
                self._saved[place] += 1
                self._extra[place] += gap
            reach = stop if reach is None else max(reach, stop)

    def coalesced(self) -> Iterator[Coalescing]:
        """Yield what each gap would save: what a smaller one saves, too."""
        for gap, saved, extra in zip(
            self._gaps, itertools.accumulate(self._saved), itertools.accumulate(self._extra), strict=False
        ):
            yield Coalescing(gap, saved, extra)
