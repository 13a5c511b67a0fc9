"""What Counters promises: exact sums, constant memory, a profile that doubles its bins, and no harm across threads."""

import random
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest

from jcache.counters import FIRST_BIN_S, MAX_BINS, Counters


class Clock:
    def __init__(self) -> None:
        self.now = 1e6  # as a host that has been up for a while

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counters(clock):
    return Counters(clock=clock, start_time=1700000000.5)


def test_reads_add_up_by_kind(counters):
    counters.read(10, 10, 0, 0)
    counters.read(10, 4, 6, 0)
    counters.read(10, 0, 10, 0)
    counters.read(10, 0, 0, 10)
    counters.read(0, 0, 0, 0)
    counters.readv(3, 100, 60, 40, 0)
    counters.readv(2, 50, 50, 0, 0)
    now = counters.snapshot()
    assert (now.read_ops, now.read_hit, now.read_miss, now.read_bypass) == (5, 14, 16, 10)
    assert (now.readv_ops, now.readv_ranges, now.readv_hit, now.readv_miss, now.readv_bypass) == (2, 5, 110, 40, 0)
    # The bypassed read and the empty one are in none of the three.
    assert (now.full_hits, now.partial_hits, now.misses) == (2, 2, 1)
    assert sum(now.profile_hit) == 124
    assert sum(now.profile_miss) == 66  # 56 missed and 10 bypassed: they came from the origin, too
    assert now.start_time == 1700000000.5


def test_files_are_unique_by_url_and_sizes_may_come_late(counters):
    counters.file_opened("https://a/1", 1000, 0.25)
    counters.file_opened("https://a/1", 1000, 0.25)
    counters.file_opened("https://a/2", None, 0.5)
    counters.file_opened("https://a/1", None, 0.0)
    counters.read(10, 10, 0, 0, url="https://a/1")
    counters.readv(2, 20, 5, 15, 0, url="https://a/2")
    counters.read(7, 7, 0, 0, url="https://a/2")
    counters.read(3, 0, 3, 0, url="https://a/3")
    now = counters.snapshot()
    assert now.opened == 4
    assert now.open_s == 1.0
    files = {f.url: (f.size_bytes, f.requested_bytes, f.hit_bytes, f.opens) for f in now.files}
    assert files == {
        "https://a/1": (1000, 10, 10, 3),
        "https://a/2": (None, 27, 12, 1),
        "https://a/3": (None, 3, 0, 0),
    }
    counters.file_size("https://a/2", 55)
    assert counters.snapshot().files[1].size_bytes == 55


def test_origin_and_trouble_are_counted(counters):
    assert not counters.any_activity()
    counters.origin(requests=2, nbytes=100, retries=1)
    counters.origin(errors=1, prefetch=30, prefetch_unused=10)
    counters.recorded(100)
    counters.damaged(2)
    counters.failure()
    counters.bypassed("disk full")
    counters.bypassed("something later")
    now = counters.snapshot()
    assert (now.origin_requests, now.origin_bytes, now.origin_errors, now.origin_retries) == (2, 100, 1, 1)
    assert (now.prefetch_bytes, now.prefetch_unused_bytes) == (30, 10)
    assert (now.recorded_bytes, now.damaged_extents, now.failures, now.bypassed) == (100, 2, 1, "disk full")
    assert counters.any_activity()


def test_bins_double_and_stay_exact_over_a_week(counters, clock):
    start = clock.now
    rng = random.Random(7)
    events = []
    for _ in range(20_000):
        clock.now += rng.expovariate(1 / 0.05) if rng.random() < 0.999 else rng.uniform(0, 40_000)
        hit, miss, bypass = rng.randrange(1000), rng.randrange(1000), rng.randrange(10)
        events.append((clock.now - start, hit, miss + bypass))
        counters.read(hit + miss + bypass, hit, miss, bypass)
    now = counters.snapshot()
    assert events[-1][0] > 4 * 86400
    assert MAX_BINS / 2 <= len(now.profile_hit) <= MAX_BINS
    assert now.bin_s in {FIRST_BIN_S * 2**n for n in range(64)}
    expected_hit, expected_miss = [0] * len(now.profile_hit), [0] * len(now.profile_hit)
    for at, hit, miss in events:
        expected_hit[int(at / now.bin_s)] += hit
        expected_miss[int(at / now.bin_s)] += miss
    assert list(now.profile_hit) == expected_hit
    assert list(now.profile_miss) == expected_miss
    assert sum(now.profile_hit) == now.read_hit
    assert sum(now.profile_miss) == now.read_miss + now.read_bypass


def test_bin_borders(counters, clock):
    start = clock.now
    for at in (0.0, FIRST_BIN_S, MAX_BINS * FIRST_BIN_S - FIRST_BIN_S):
        clock.now = start + at
        counters.read(1, 1, 0, 0)
    now = counters.snapshot()
    assert now.bin_s == FIRST_BIN_S
    assert [i for i, n in enumerate(now.profile_hit) if n] == [0, 1, MAX_BINS - 1]
    clock.now = start + MAX_BINS * FIRST_BIN_S
    counters.read(1, 1, 0, 0)
    now = counters.snapshot()
    assert now.bin_s == 2 * FIRST_BIN_S
    assert [(i, n) for i, n in enumerate(now.profile_hit) if n] == [(0, 2), (MAX_BINS // 2 - 1, 1), (MAX_BINS // 2, 1)]
    clock.now = start - 5  # a clock that goes backwards loses no byte
    counters.read(1, 1, 0, 0)
    assert sum(counters.snapshot().profile_hit) == 5


def test_the_first_read_before_the_start_is_kept(counters, clock):
    clock.now -= 1
    counters.read(4, 4, 0, 0)
    assert counters.snapshot().profile_hit == (4,)


def test_memory_is_constant_over_a_million_events(counters, clock):
    def hammer(count: int) -> None:
        for number in range(count):
            clock.now += 0.37
            if number & 1:
                counters.readv(9, 10_000_000, 9_000_000, 1_000_000, 0, url="https://a/b")
            else:
                counters.read(300, 0, 300, 0, url="https://a/c")
            if number % 10 == 0:
                counters.file_opened("https://a/b", 1 << 40, 0.001)

    # Above the first bins, so that all numbers are as large as they get.
    hammer(50_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        hammer(50_000)
        grown_early = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    hammer(900_000)
    now = counters.snapshot()
    assert now.read_ops + now.readv_ops == 1_000_000
    assert len(now.profile_hit) <= MAX_BINS
    # Two profiles of MAX_BINS numbers are all that can be allocated anew.
    assert grown_early < 2 * MAX_BINS * 40 + 20_000
    assert len(counters._profile_hit) == len(counters._profile_miss) == MAX_BINS


def test_threads_lose_nothing():
    counters = Counters()
    threads, rounds = 8, 5000
    barrier = threading.Barrier(threads)
    interval = sys.getswitchinterval()

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(rounds):
            counters.read(3, 1, 1, 1, url=f"https://a/{number % 3}")
            counters.readv(2, 7, 7, 0, 0)
            counters.origin(requests=1, nbytes=5)
            counters.file_opened(f"https://a/{number % 3}", 10, 1.0)

    sys.setswitchinterval(1e-5)
    try:
        pool = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    total = threads * rounds
    now = counters.snapshot()
    assert (now.read_ops, now.read_hit, now.read_miss, now.read_bypass) == (total,) * 4
    assert (now.readv_ops, now.readv_ranges, now.readv_hit) == (total, 2 * total, 7 * total)
    assert (now.origin_requests, now.origin_bytes, now.opened, now.open_s) == (total, 5 * total, total, float(total))
    assert sum(f.requested_bytes for f in now.files) == 3 * total
    assert sum(now.profile_hit) == 8 * total
    assert sum(now.profile_miss) == 2 * total


def test_a_signal_handler_may_take_a_snapshot_inside_a_count():
    script = """
import signal, sys
from jcache.counters import Counters
seen = []
class Clock:
    def __call__(self):
        return 0.0
class Loud(str):
    # Hashing happens while the lock is held: the handler runs in the middle of a count.
    def __hash__(self):
        if armed: signal.raise_signal(signal.SIGTERM)
        return str.__hash__(self)
armed = False
counters = Counters(clock=Clock())
signal.signal(signal.SIGTERM, lambda *_: seen.append(counters.snapshot()))
url = Loud("https://a/b")
counters.read(5, 5, 0, 0, url=url)
armed = True
counters.read(5, 5, 0, 0, url=url)
assert seen and seen[0].read_ops == 2, seen
print("no deadlock")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.strip() == "no deadlock", done.stderr


def test_counters_import_nothing_heavy():
    script = "import sys, jcache.counters; print([m for m in ('rich', 'asyncio', 'click', 'json') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_count_costs_microseconds():
    counters = Counters()
    best = float("inf")
    for _ in range(5):
        begin = time.thread_time()
        for _ in range(20_000):
            counters.read(1000, 1000, 0, 0, url="https://a/b")
        best = min(best, time.thread_time() - begin)
    assert best / 20_000 < 5e-6  # measured: 0.6 us; the bound leaves room for a busy machine


def test_time_with_the_origin_counts_once_where_requests_overlap():
    clock = Clock()
    counters = Counters(clock=clock)
    rng = random.Random(5)
    spans = []
    for _ in range(100):
        start = rng.uniform(0, 50)
        spans.append((start, start + rng.uniform(0.01, 3)))
    spans.sort(key=lambda span: span[1])
    for start, stop in spans:
        clock.now = stop
        counters.origin(requests=1, nbytes=10, seconds=stop - start)
    covered, until = 0.0, 0.0
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, until))
        until = max(until, stop)
    assert counters.snapshot().origin_busy_s == pytest.approx(covered)


def test_time_is_counted_for_each_file():
    counters = Counters()
    counters.file_opened("a", 10, 0.5)
    counters.file_opened("a", 10, 0.25)
    counters.read(5, 5, 0, 0, url="a", seconds=1.5)
    counters.readv(2, 5, 0, 5, 0, url="b", seconds=2.0)
    assert [(file.url, file.open_s, file.read_s) for file in counters.snapshot().files] == [
        ("a", 0.75, 1.5),
        ("b", 0.0, 2.0),
    ]


def test_the_first_read_is_told_once_and_outside_the_lock():
    counters = Counters()
    calls = []

    def call():
        other = threading.Thread(target=lambda: calls.append(counters.snapshot().read_ops))
        other.start()
        other.join(10)

    counters.at_first_read(call)
    counters.file_opened("a", 10, 0.5)
    assert calls == []
    counters.read(5, 5, 0, 0)
    counters.readv(2, 5, 5, 0, 0)
    assert calls == [1]
