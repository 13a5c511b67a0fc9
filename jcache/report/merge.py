"""Many reports as if one process had done all the work."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from jcache.counters import MAX_BINS
from jcache.report.model import Files, Parts, Profile, Report, TierUse, Uncached, UrlUse

if TYPE_CHECKING:
    from collections.abc import Sequence

_Part = TypeVar("_Part")


def merge(reports: Sequence[Report]) -> Report:
    """Return the sum of reports.

    Counts add up exactly. Real time goes from the first start to the last end; user and system time are sums. Files are
    unique by URL. The profile is on wall-clock time, each bin moved by less than half of the merged bins' width. Names,
    process and command are those of the report that started first. Merged reports can be merged again.

    Args:
        reports: One or more, in any order; the result does not depend on it.

    Raises:
        ValueError: There is none.
    """
    if not reports:
        raise ValueError("no reports to merge")
    reports = sorted(reports, key=lambda report: (report.start_time, report.host, report.pid))
    first = reports[0]
    if len(reports) == 1:
        return first
    end_time = max(report.end_time for report in reports)
    urls = _merge_urls(reports)
    return replace(
        first,
        end_time=end_time,
        complete=all(report.complete for report in reports),
        interval_s=max(report.interval_s for report in reports),
        parts=Parts(
            processes=sum(report.processes for report in reports),
            incomplete=sum(report.incomplete for report in reports),
            hosts=tuple(sorted({host for report in reports for host in report.hosts})),
        ),
        real_s=end_time - first.start_time,
        user_s=math.fsum(report.user_s for report in reports),
        sys_s=math.fsum(report.sys_s for report in reports),
        read=_add([report.read for report in reports]),
        readv=_add([report.readv for report in reports]),
        requests=_add([report.requests for report in reports]),
        files=Files(
            opened=sum(report.files.opened for report in reports),
            unique=len(urls),
            unique_bytes=sum(use.size or 0 for use in urls),
            open_s=math.fsum(report.files.open_s for report in reports),
        ),
        origin=_add([report.origin for report in reports]),
        cache=replace(
            _add([replace(report.cache, bypassed=None) for report in reports]),
            bypassed=next((report.cache.bypassed for report in reports if report.cache.bypassed is not None), None),
        ),
        profile=_merge_profiles(reports, first.start_time),
        urls=urls,
        uncached=_merge_uncached(reports),
        tiers=_merge_tiers(reports),
    )


def describe(report: Report) -> str:
    """Return the line that says what was merged, and how much of it is not final; empty for a single process."""
    if report.processes < 2:
        return ""
    hosts = len(report.hosts)
    text = f"sum of {report.processes} processes" + (f" on {hosts} hosts" if hosts > 1 else "")
    if report.incomplete:
        # Without an interval they did not write interim reports, but were asked, and answered.
        state = "incomplete: still running, or killed" if report.interval_s else "still running"
        text += f", {report.incomplete} of them {state}"
    return text


def _add(parts: Sequence[_Part]) -> _Part:
    """Add up dataclasses of counts field by field; fields that hold `None` stay so."""
    first = parts[0]
    totals: dict[str, Any] = {}
    for member in fields(first):  # type: ignore[arg-type]  # every caller passes dataclasses
        values = [getattr(part, member.name) for part in parts]
        if values[0] is None:
            totals[member.name] = None
        else:
            totals[member.name] = math.fsum(values) if isinstance(values[0], float) else sum(values)
    return type(first)(**totals)


def _merge_urls(reports: Sequence[Report]) -> tuple[UrlUse, ...]:
    """Add up by URL, in order of first appearance; of several sizes the latest run's counts."""
    # Lists, since 10,000 reports of 100 files each go through here.
    sums: dict[str, list[Any]] = {}
    for report in reports:
        for use in report.urls:
            entry = sums.get(use.url)
            if entry is None:
                sums[use.url] = [use.size, use.bytes, use.hit_bytes, use.opens, use.open_s, use.read_s]
            else:
                if use.size is not None:
                    entry[0] = use.size
                entry[1] += use.bytes
                entry[2] += use.hit_bytes
                entry[3] += use.opens
                entry[4] += use.open_s
                entry[5] += use.read_s
    return tuple(
        UrlUse(url=url, size=size, bytes=requested, hit_bytes=hit, opens=opens, open_s=open_s, read_s=read_s)
        for url, (size, requested, hit, opens, open_s, read_s) in sums.items()
    )


def _merge_uncached(reports: Sequence[Report]) -> tuple[Uncached, ...]:
    """Add up by reason, in order of first appearance."""
    sums: dict[str, Uncached] = {}
    for item in (item for report in reports for item in report.uncached):
        before = sums.get(item.reason, Uncached(item.reason))
        sums[item.reason] = Uncached(item.reason, before.ops + item.ops, before.bytes + item.bytes)
    return tuple(sums.values())


def _merge_tiers(reports: Sequence[Report]) -> tuple[TierUse, ...]:
    """Add up by place, in order of first appearance."""
    sums: dict[str, TierUse] = {}
    for item in (item for report in reports for item in report.tiers):
        before = sums.get(item.place, TierUse(item.place))
        hit, copied = before.hit_bytes + item.hit_bytes, before.copied_bytes + item.copied_bytes
        sums[item.place] = TierUse(item.place, hit, copied)
    return tuple(sums.values())


def _merge_profiles(reports: Sequence[Report], start_time: float) -> Profile:
    """Put all bins on one time axis. Each goes whole into the bin that holds its middle, so that sums stay exact."""
    used = [report for report in reports if report.profile.hit_bytes]
    if not used:
        return Profile()
    bin_s = max(report.profile.bin_s for report in used)
    stop_s = max(
        report.start_time - start_time + len(report.profile.hit_bytes) * report.profile.bin_s for report in used
    )
    while stop_s > bin_s * MAX_BINS:
        bin_s *= 2
    hit = [0] * (MAX_BINS + 1)
    miss = [0] * (MAX_BINS + 1)
    for report in used:
        profile = report.profile
        # In units of merged bins. Subtracting times first keeps the digits that unix time would use up.
        step = profile.bin_s / bin_s
        middle = (report.start_time - start_time) / bin_s + step / 2
        for number, (hit_bytes, miss_bytes) in enumerate(zip(profile.hit_bytes, profile.miss_bytes, strict=True)):
            if hit_bytes or miss_bytes:
                target = int(middle + number * step)
                hit[target] += hit_bytes
                miss[target] += miss_bytes
    bins = max((number for number in range(len(hit)) if hit[number] or miss[number]), default=-1) + 1
    return Profile(bin_s=bin_s, hit_bytes=tuple(hit[:bins]), miss_bytes=tuple(miss[:bins]))
