"""Merging: as if one process had done all the work, and not a byte lost."""

import itertools
import random
from dataclasses import replace

import pytest
from report_samples import Clock, empty_report, ttbar_report

from jcache.counters import MAX_BINS, Counters
from jcache.report.counted import from_counters
from jcache.report.merge import describe, merge
from jcache.report.model import Report

START = 1729505520.0


def job(processes: int = 6, seed: int = 3) -> list[Report]:
    rng = random.Random(seed)
    return [
        ttbar_report(
            seed=seed + number,
            real_s=rng.uniform(0.5, 300),
            events=400,
            warm=rng.uniform(0.5, 3),
            start_time=START + rng.uniform(0, 100),
            pid=100 + number,
            host=f"node{number % 2}",
            command=f"worker {number}",
            run="r1",
        )
        for number in range(processes)
    ]


def counts(report: Report) -> dict[str, int]:
    return {
        f"{section}.{name}": value
        for section in ("read", "readv", "requests", "origin", "cache")
        for name, value in report.to_json()[section].items()
        if value is not None
    }


def test_counts_are_the_sums_of_the_parts():
    parts = job()
    total = merge(parts)
    for name, value in counts(total).items():
        assert value == sum(counts(part)[name] for part in parts), name
    assert total.files.opened == sum(part.files.opened for part in parts)
    assert total.user_s == pytest.approx(sum(part.user_s for part in parts))
    assert total.sys_s == pytest.approx(sum(part.sys_s for part in parts))
    assert sum(total.profile.hit_bytes) == total.hit_bytes
    assert sum(total.profile.hit_bytes) + sum(total.profile.miss_bytes) == total.requested_bytes
    assert Report.loads(total.dumps()) == total


def test_files_are_unique_by_url():
    parts = job()
    total = merge(parts)
    sizes = {use.url: use.size for part in parts for use in part.urls if use.size is not None}
    assert total.files.unique == len({use.url for part in parts for use in part.urls})
    assert total.files.unique < sum(part.files.unique for part in parts)
    assert total.files.unique_bytes == sum(sizes.values())
    assert sum(use.bytes for use in total.urls) == total.requested_bytes
    assert sum(use.hit_bytes for use in total.urls) == total.hit_bytes


def test_time_spans_the_union_and_the_names_are_the_first_ones():
    parts = job()
    total = merge(parts)
    first = min(parts, key=lambda part: part.start_time)
    assert (total.start_time, total.command, total.pid, total.run) == (
        first.start_time,
        first.command,
        first.pid,
        first.run,
    )
    assert total.end_time == max(part.end_time for part in parts)
    assert total.real_s == total.end_time - total.start_time
    assert total.complete
    assert not merge([*parts, replace(parts[0], complete=False)]).complete


def test_the_order_does_not_matter():
    parts = job(4)
    assert len({merge(order).dumps() for order in itertools.permutations(parts)}) == 1
    assert merge(parts[:1]) is parts[0]
    with pytest.raises(ValueError, match="no reports"):
        merge([])


def test_the_profile_is_on_wall_clock_time():
    parts = job(8)
    total = merge(parts)
    bin_s = total.profile.bin_s
    assert len(total.profile.hit_bytes) <= MAX_BINS + 1
    coarsest = max(part.profile.bin_s for part in parts)
    events = sorted(
        (part.start_time - total.start_time + (number + 0.5) * part.profile.bin_s, hit + miss)
        for part in parts
        for number, (hit, miss) in enumerate(zip(part.profile.hit_bytes, part.profile.miss_bytes, strict=True))
    )
    merged = list(itertools.accumulate(map(sum, zip(total.profile.hit_bytes, total.profile.miss_bytes, strict=True))))
    for number, until in enumerate(merged):
        stop = (number + 1) * bin_s
        assert sum(n for at, n in events if at < stop - coarsest) <= until
        assert until <= sum(n for at, n in events if at < stop + coarsest)


def test_processes_one_after_the_other_keep_their_places():
    def part(start, nbytes):
        clock = Clock()
        counters = Counters(clock=clock, start_time=START + start)
        counters.read(nbytes, 0, nbytes, 0)
        clock.now = 1.0
        return from_counters(counters, appname="a", host="h", pid=1, command="c", user_s=0.1, sys_s=0)

    total = merge([part(0, 5), part(3600, 7), part(86400 * 30, 11)])
    bins = {number: n for number, n in enumerate(total.profile.miss_bytes) if n}
    assert list(bins.values()) == [12, 11] or list(bins.values()) == [5, 7, 11]
    assert len(total.profile.miss_bytes) <= MAX_BINS + 1
    assert max(bins) * total.profile.bin_s == pytest.approx(86400 * 30, abs=total.profile.bin_s)


def test_sixteen_equal_processes_are_sixteen_times_one():
    one = ttbar_report()
    total = merge([replace(one, pid=number) for number in range(16)])
    assert total.profile.hit_bytes == tuple(16 * n for n in one.profile.hit_bytes)
    assert total.profile.miss_bytes == tuple(16 * n for n in one.profile.miss_bytes)
    assert total.peak()[0] == pytest.approx(16 * one.peak()[0])
    assert total.real_s == pytest.approx(one.real_s)


def test_idle_processes_and_reasons():
    idle = empty_report()
    total = merge([idle, replace(idle, pid=8, cache=replace(idle.cache, bypassed="no space", failures=2))])
    assert total.profile.hit_bytes == ()
    assert (total.cache.bypassed, total.cache.failures) == ("no space", 2)


def test_the_line_that_says_what_was_merged():
    parts = job(6)
    assert describe(parts[0]) == ""
    assert describe(merge(parts)) == "sum of 6 processes on 2 hosts"
    assert describe(merge(parts[::2])) == "sum of 3 processes"
    parts[1] = replace(parts[1], complete=False, interval_s=5.0)
    total = merge(parts)
    assert describe(total) == "sum of 6 processes on 2 hosts, 1 of them incomplete: still running, or killed"
    assert (total.processes, total.incomplete, total.hosts) == (6, 1, ("node0", "node1"))
    parts[1] = replace(parts[1], interval_s=0.0)  # as it says when it is asked
    assert describe(merge(parts)) == "sum of 6 processes on 2 hosts, 1 of them still running"


def test_merged_reports_merge_like_their_parts():
    parts = job(6)
    total, again = merge(parts), merge([merge(parts[:2]), Report.loads(merge(parts[2:]).dumps())])
    assert counts(again) == counts(total)
    assert again.parts == total.parts
    assert sum(again.profile.hit_bytes) == total.hit_bytes
    assert {use.url: use.bytes for use in again.urls} == {use.url: use.bytes for use in total.urls}
