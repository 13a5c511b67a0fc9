"""What this process read, counted in constant memory and cheap enough for every read.

One `Counters` belongs to one process. The only part that grows is the table of files (one small entry per distinct
URL); the time profile keeps a fixed number of bins and doubles their width whenever the run outgrows them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from jcache.vectors import Vector

    Asked = Vector | tuple[int, int] | None
    """Ranges, or one; None where they are not known."""

    class Profile(Protocol):
        """What records each request, beside the counts; see `jcache.profile.recorder`."""

        def add(  # noqa: PLR0917 - keywords would be a tenth of what it costs
            self,
            kind: int,
            url: str | None,
            asked: Asked,
            hit: int,
            miss: int,
            bypass: int,
            ahead: int,
            end_s: float,
            seconds: float,
            /,
        ) -> None:
            """Record a request that has ended.

            Args:
                kind: One of the five below.
                url: The file; None where it is not known.
                asked: Its ranges, which nobody changes.
                hit: Bytes that came from the journal.
                miss: Bytes that came from the origin.
                bypass: Bytes that went past the cache.
                ahead: Bytes of the missed ones that had been read ahead.
                end_s: When it ended, in seconds since the counting began.
                seconds: How long it took.
            """
            ...

        def from_here(self) -> None:
            """Have requests that begin in this thread recorded as its own, whatever thread ends them."""
            ...


OPEN, READ, VECTOR, STAT, LISTING, NAMED = range(6)
"""Kinds of requests, for who records them. The last is none: a file is read by name, which nobody has opened."""

FIRST_BIN_S = 1 / 64
"""Width of a time bin at the start. A power of two, so that every later width and every bin number is exact."""

MAX_BINS = 1024
"""Time bins kept: bins stay at one second or less for 17 minutes, and one process's profile stays near 10 KiB."""

MAX_REASONS = 32
"""Reasons why bytes were not cached that are told apart; more of them count as one."""

BUSY_SPANS = 256
"""Spans of origin traffic that are remembered, to count no second twice."""


class FileCount(NamedTuple):
    """What one URL was asked for, and how long that took. `size_bytes` is `None` where the origin did not say."""

    url: str
    size_bytes: int | None
    requested_bytes: int
    hit_bytes: int
    opens: int
    open_s: float
    read_s: float


class Snapshot(NamedTuple):
    """All counts at one moment. Sizes are in bytes; `hit`, `miss` and `bypass` add up to what was asked."""

    start_time: float
    elapsed_s: float
    read_ops: int
    read_hit: int
    read_miss: int
    read_bypass: int
    readv_ops: int
    readv_ranges: int
    readv_hit: int
    readv_miss: int
    readv_bypass: int
    full_hits: int
    partial_hits: int
    misses: int
    opened: int
    open_s: float
    origin_requests: int
    origin_bytes: int
    origin_errors: int
    origin_retries: int
    prefetch_bytes: int
    prefetch_unused_bytes: int
    origin_busy_s: float
    recorded_bytes: int
    damaged_extents: int
    failures: int
    bypassed: str | None
    uncached: tuple[tuple[str, int, int], ...]
    tiers: tuple[tuple[str, int, int], ...]
    bin_s: float
    profile_hit: tuple[int, ...]
    profile_miss: tuple[int, ...]
    files: tuple[FileCount, ...]


class _File:
    __slots__ = ("hit", "open_s", "opens", "read_s", "requested", "size")

    def __init__(self) -> None:
        self.size: int | None = None
        self.requested = 0
        self.hit = 0
        self.opens = 0
        self.open_s = 0.0
        self.read_s = 0.0


class _Busy:
    """The time in which at least one of some overlapping spans was under way; spans come in order of their ends."""

    __slots__ = ("_covered", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._covered: list[tuple[float, float]] = []  # disjoint, ascending; what is older is forgotten

    def add(self, start: float, stop: float) -> None:
        covered = self._covered
        self.seconds += stop - start
        while covered and covered[-1][1] > start:
            before, until = covered.pop()
            self.seconds -= until - max(before, start)
            start = min(before, start)
        covered.append((start, stop))
        if len(covered) > BUSY_SPANS:
            del covered[: BUSY_SPANS // 2]


class Counters:
    """Counts reads, files, origin traffic and trouble of one process.

    Safe across threads: one lock, held for a few additions. Not across forks: a child makes its own `Counters`, since
    the lock may have been held by a thread that the child does not have.

    Args:
        clock: Seconds that never go backwards; the profile's time axis.
        start_time: Unix time of the run's start in seconds; now when not given.

    Attributes:
        profile: What is told of each request as it is counted; None where nobody asked for that.
    """

    __slots__ = (
        "_bin_s",
        "_bins_per_s",
        "_bypassed",
        "_clock",
        "_damaged",
        "_failures",
        "_files",
        "_full_hits",
        "_last_bin",
        "_lock",
        "_misses",
        "_on_read",
        "_open_s",
        "_opened",
        "_origin_busy",
        "_origin_bytes",
        "_origin_errors",
        "_origin_requests",
        "_origin_retries",
        "_partial_hits",
        "_prefetch",
        "_prefetch_unused",
        "_profile_hit",
        "_profile_miss",
        "_read_bypass",
        "_read_hit",
        "_read_miss",
        "_read_ops",
        "_readv_bypass",
        "_readv_hit",
        "_readv_miss",
        "_readv_ops",
        "_readv_ranges",
        "_recorded",
        "_start",
        "_start_time",
        "_tiers",
        "_uncached",
        "profile",
    )

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, start_time: float | None = None) -> None:
        self._clock = clock
        self._start = clock()
        self._start_time = time.time() if start_time is None else start_time
        # Reentrant: a signal handler or a finaliser may write the report while this very thread is inside a count.
        # It then sees at most that one count half done; totals are derived from their parts, so sums hold all the same.
        self._lock = threading.RLock()
        self._read_ops = self._read_hit = self._read_miss = self._read_bypass = 0
        self._readv_ops = self._readv_ranges = self._readv_hit = self._readv_miss = self._readv_bypass = 0
        self._full_hits = self._partial_hits = self._misses = 0
        self._opened = 0
        self._open_s = 0.0
        self._files: dict[str, _File] = {}
        self._origin_requests = self._origin_bytes = self._origin_errors = self._origin_retries = 0
        self._origin_busy = _Busy()
        self._prefetch = self._prefetch_unused = 0
        self._recorded = self._damaged = self._failures = 0
        self._bypassed: str | None = None
        self._uncached: dict[str, list[int]] = {}
        self._tiers: dict[str, list[int]] = {}
        self._bin_s = FIRST_BIN_S
        self._bins_per_s = 1 / FIRST_BIN_S
        self._profile_hit = [0] * MAX_BINS
        self._profile_miss = [0] * MAX_BINS
        self._last_bin = -1
        self._on_read: Callable[[], None] | None = None
        self.profile: Profile | None = None

    @property
    def start_time(self) -> float:
        """Unix time of the run's start, in seconds."""
        return self._start_time

    def at_first_read(self, call: Callable[[], None]) -> None:
        """Have something called once, after the first read that is counted from now on, in that read's thread.

        Args:
            call: It must not raise, and must not take long.
        """
        with self._lock:
            self._on_read = call

    def read(
        self,
        nbytes: int,
        hit: int,
        miss: int,
        bypass: int,
        *,
        url: str | None = None,
        seconds: float = 0.0,
        asked: Asked = None,
        ahead: int = 0,
    ) -> None:
        """Count one plain read.

        Args:
            nbytes: Bytes delivered, `hit + miss + bypass`.
            hit: Bytes of them that came from the journal.
            miss: Bytes of them that this process fetched from the origin for or ahead of the reader.
            bypass: Bytes of them that went past the cache.
            url: The file, to count `nbytes`, `hit` and `seconds` for it as well.
            seconds: How long the reader waited for it.
            asked: The range, for the profile; the caller never changes it. None where it is not known.
            ahead: Bytes of `miss` that were here before they were asked for, for the profile.
        """
        now = self._clock()
        with self._lock:
            self._read_ops += 1
            self._read_hit += hit
            self._read_miss += miss
            self._read_bypass += bypass
            self._count(now, nbytes, hit, miss, bypass, url, seconds)
        if self.profile is not None:
            self.profile.add(READ, url, asked, hit, miss, bypass, ahead, now - self._start, seconds)
        if self._on_read is not None:
            self._tell()

    def readv(
        self,
        ranges: int,
        nbytes: int,
        hit: int,
        miss: int,
        bypass: int,
        *,
        url: str | None = None,
        seconds: float = 0.0,
        asked: Asked = None,
        ahead: int = 0,
    ) -> None:
        """Count one vector read of `ranges` ranges; the other arguments are those of `read`, for the whole vector."""
        now = self._clock()
        with self._lock:
            self._readv_ops += 1
            self._readv_ranges += ranges
            self._readv_hit += hit
            self._readv_miss += miss
            self._readv_bypass += bypass
            self._count(now, nbytes, hit, miss, bypass, url, seconds)
        if self.profile is not None:
            self.profile.add(VECTOR, url, asked, hit, miss, bypass, ahead, now - self._start, seconds)
        if self._on_read is not None:
            self._tell()

    def file_opened(self, url: str, size_bytes: int | None, seconds: float, *, asked: bool = True) -> None:
        """Count one opening of a file.

        Args:
            url: The file as shown to people, without secrets.
            size_bytes: Its size; `None` where it is not known (yet).
            seconds: What opening took.
            asked: Whether the application opened it; else it is about to read it by name.
        """
        with self._lock:
            self._opened += 1
            self._open_s += seconds
            entry = self._files.get(url) or self._files.setdefault(url, _File())
            entry.opens += 1
            entry.open_s += seconds
            if size_bytes is not None:
                entry.size = size_bytes
        if self.profile is not None:
            whole = None if size_bytes is None else (0, size_bytes)
            kind = OPEN if asked else NAMED
            self.profile.add(kind, url, whole, 0, 0, 0, 0, self._clock() - self._start, seconds)

    def asked(self, kind: int, url: str, *, seconds: float, hit: bool) -> None:
        """Take note of a question about a name, for the profile, which is the only one that counts those.

        Args:
            kind: `STAT` or `LISTING`.
            url: The name, without secrets.
            seconds: How long the answer took, up to now.
            hit: Whether it was remembered, and no origin was asked.
        """
        if self.profile is not None:
            miss = 0 if hit else 1
            self.profile.add(kind, url, None, 1 - miss, miss, 0, 0, self._clock() - self._start, seconds)

    def file_read(self, url: str, nbytes: int, hit: int, seconds: float, *, fetched: bool) -> None:
        """Count a file that was opened, and read whole by one plain read.

        Args:
            url: As for `file_opened`.
            nbytes: Its size; all that `hit` does not have was missed.
            hit: As for `read`.
            seconds: How long the reader waited for it, up to now.
            fetched: Whether it came from the origin, by one request in that time.
        """
        now = self._clock()
        with self._lock:
            self._opened += 1
            self._read_ops += 1
            self._read_hit += hit
            self._read_miss += nbytes - hit
            self._count(now, nbytes, hit, nbytes - hit, 0, url, seconds)
            entry = self._files[url]
            entry.opens += 1
            entry.size = nbytes
            if fetched:
                self._origin_requests += 1
                self._origin_bytes += nbytes
                self._origin_busy.add(now - seconds, now)
        if self.profile is not None:
            whole, end_s = (0, nbytes), now - self._start
            self.profile.add(NAMED, url, whole, 0, 0, 0, 0, end_s - seconds, 0.0)
            self.profile.add(READ, url, whole, hit, nbytes - hit, 0, 0, end_s, seconds)
        if self._on_read is not None:
            self._tell()

    def file_size(self, url: str, size_bytes: int) -> None:
        """Note the size of a file that was not known when it was opened."""
        with self._lock:
            entry = self._files.get(url) or self._files.setdefault(url, _File())
            entry.size = size_bytes

    def origin(
        self,
        *,
        requests: int = 0,
        nbytes: int = 0,
        errors: int = 0,
        retries: int = 0,
        prefetch: int = 0,
        prefetch_unused: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Count traffic with the origin.

        Args:
            requests: Requests sent.
            nbytes: Data bytes received, those fetched ahead included.
            errors: Requests that failed.
            retries: Requests sent again.
            prefetch: Bytes of `nbytes` that were fetched ahead.
            prefetch_unused: Bytes fetched ahead that nobody asked for in the end.
            seconds: How long it took, if it ends now; what overlaps in time counts once.
        """
        now = self._clock() if seconds > 0 else 0.0
        with self._lock:
            self._origin_requests += requests
            self._origin_bytes += nbytes
            self._origin_errors += errors
            self._origin_retries += retries
            self._prefetch += prefetch
            self._prefetch_unused += prefetch_unused
            if seconds > 0:
                self._origin_busy.add(now - seconds, now)

    def recorded(self, nbytes: int) -> None:
        """Count bytes written into the journal."""
        with self._lock:
            self._recorded += nbytes

    def damaged(self, n: int = 1) -> None:
        """Count extents whose checksum did not match."""
        with self._lock:
            self._damaged += n

    def failure(self, n: int = 1) -> None:
        """Count cache operations that failed (no space, no permission, a lock that never came) and became misses."""
        with self._lock:
            self._failures += n

    def bypassed(self, reason: str) -> None:
        """Note why the cache is not used; the first reason stays."""
        with self._lock:
            if self._bypassed is None:
                self._bypassed = reason

    def uncached(self, reason: str, nbytes: int) -> None:
        """Count what was read and is not kept, by the reason; `read` or `readv` count it as well.

        Args:
            reason: A clause without secrets, the same for all files that it holds for.
            nbytes: How much was read.
        """
        with self._lock:
            if reason not in self._uncached and len(self._uncached) >= MAX_REASONS:
                reason = "other reasons"
            entry = self._uncached.setdefault(reason, [0, 0])
            entry[0] += 1
            entry[1] += nbytes

    def tier(self, place: str, hit_bytes: int, copied_bytes: int = 0) -> None:
        """Count what a tier of the cache below the first has served; `read` or `readv` count it as a hit as well.

        Args:
            place: Its directory, or its bundle.
            hit_bytes: How much was read there.
            copied_bytes: How much was recorded in the first one since it was read there again.
        """
        with self._lock:
            entry = self._tiers.setdefault(place, [0, 0])
            entry[0] += hit_bytes
            entry[1] += copied_bytes

    def any_activity(self) -> bool:
        """Tell whether there is anything to report."""
        with self._lock:
            return bool(self._read_ops or self._readv_ops or self._files or self._origin_requests)

    def snapshot(self) -> Snapshot:
        """Return all counts of one moment, as Python's integers even if they were counted as numpy's."""
        now = self._clock()
        with self._lock:
            bins = self._last_bin + 1
            return Snapshot(
                start_time=self._start_time,
                elapsed_s=max(0.0, now - self._start),
                read_ops=self._read_ops,
                read_hit=int(self._read_hit),
                read_miss=int(self._read_miss),
                read_bypass=int(self._read_bypass),
                readv_ops=self._readv_ops,
                readv_ranges=self._readv_ranges,
                readv_hit=int(self._readv_hit),
                readv_miss=int(self._readv_miss),
                readv_bypass=int(self._readv_bypass),
                full_hits=self._full_hits,
                partial_hits=self._partial_hits,
                misses=self._misses,
                opened=self._opened,
                open_s=self._open_s,
                origin_requests=self._origin_requests,
                origin_bytes=int(self._origin_bytes),
                origin_errors=self._origin_errors,
                origin_retries=self._origin_retries,
                prefetch_bytes=int(self._prefetch),
                prefetch_unused_bytes=int(self._prefetch_unused),
                origin_busy_s=max(0.0, self._origin_busy.seconds),
                recorded_bytes=int(self._recorded),
                damaged_extents=self._damaged,
                failures=self._failures,
                bypassed=self._bypassed,
                uncached=tuple((reason, ops, int(nbytes)) for reason, (ops, nbytes) in self._uncached.items()),
                tiers=tuple((place, int(hit), int(copied)) for place, (hit, copied) in self._tiers.items()),
                bin_s=self._bin_s,
                profile_hit=tuple(map(int, self._profile_hit[:bins])),
                profile_miss=tuple(map(int, self._profile_miss[:bins])),
                files=tuple(
                    FileCount(url, f.size, int(f.requested), int(f.hit), f.opens, f.open_s, f.read_s)
                    for url, f in self._files.items()
                ),
            )

    def _tell(self) -> None:
        with self._lock:
            call, self._on_read = self._on_read, None
        if call is not None:
            call()

    def _count(  # noqa: PLR0917 - keywords would be a tenth of what it costs
        self, now: float, nbytes: int, hit: int, miss: int, bypass: int, url: str | None, seconds: float
    ) -> None:
        """Classify one request, count it for its file, and for the time bin of its end; the caller holds the lock."""
        if url is not None:
            entry = self._files.get(url) or self._files.setdefault(url, _File())
            entry.requested += nbytes
            entry.hit += hit
            entry.read_s += seconds
        if bypass == 0 and nbytes:  # bypassed and empty requests say nothing about the journal
            if hit == nbytes:
                self._full_hits += 1
            elif hit == 0:
                self._misses += 1
            else:
                self._partial_hits += 1
        number = max(0, int((now - self._start) * self._bins_per_s))
        if number > self._last_bin:
            if number >= MAX_BINS:
                number = self._widen(number)
            self._last_bin = number
        self._profile_hit[number] += hit
        # The profile has two lines, cache and origin: bypassed bytes came from the origin.
        self._profile_miss[number] += miss + bypass

    def _widen(self, number: int) -> int:
        """Double the bins' width, merging neighbours, until bin `number` fits; return its new number."""
        while number >= MAX_BINS:
            for bins in (self._profile_hit, self._profile_miss):
                bins[:] = [a + b for a, b in zip(bins[::2], bins[1::2], strict=True)] + [0] * (MAX_BINS // 2)
            self._bin_s *= 2
            self._bins_per_s /= 2
            number //= 2
        return number
