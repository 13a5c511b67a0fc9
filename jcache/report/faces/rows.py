"""The report's numbers as labelled rows: what text and HTML show alike. The labels are a contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcache.report.faces.savings import savings
from jcache.report.faces.units import human, percent, span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.report.model import Report

INTERIM = "interim report: the run goes on, or was killed"
"""What is said of a single report that is not complete."""

ASKED = "up to now: the process goes on"
"""What is said of one that a living process made when it was asked, in a notebook say."""

Row = tuple[str, str, str, str]
"""Label, number, unit, and `bad` where the number means trouble, else `value`."""


def unfinished(report: Report) -> str:
    """Return what is to be said of a single process that had not ended; empty for others."""
    if not report.incomplete == report.processes == 1:
        return ""
    return INTERIM if report.interval_s else ASKED


def groups(report: Report) -> Iterable[list[Row]]:
    """Yield the rows that every report has, in groups, then what else happened. The labels are a contract."""
    read, readv, files = report.read, report.readv, report.files
    size, size_unit = human(files.unique_bytes)
    yield [
        _rate("cache combined hit rate", report.hit_bytes, report.requested_bytes),
        _rate("cache read hit rate", read.hit_bytes, read.bytes),
        _rate("cache readv hit rate", readv.hit_bytes, readv.bytes),
    ]
    yield [_count("total bytes read", read.bytes), _count("total bytes readv", readv.bytes)]
    yield [
        _count("total iops read", read.ops),
        _count("total iops readv", readv.ops),
        _count("total iops readvread", readv.ranges),
    ]
    yield [
        ("avg. bytes read", f"{read.bytes / read.ops:.2f}" if read.ops else "-", "", "value"),
        ("avg. bytes readv", f"{readv.bytes / readv.ops:.2f}" if readv.ops else "-", "", "value"),
    ]
    yield [
        _count("open files read", files.opened),
        _count("open unique f. read", files.unique),
        ("time to open files (s)", f"{files.open_s:.3f}", "", "value"),
    ]
    yield [
        _count("total unique files bytes", files.unique_bytes),
        ("total unique files size", size, size_unit, "value"),
        _rate("percentage dataset read", report.known_size_bytes, files.unique_bytes),
    ]
    acceleration = f"{report.user_s / report.real_s:.2f}x" if report.real_s > 0 else "-"
    rate, rate_unit = "-", ""
    if report.requested_bytes and report.real_s > 0:
        rate, unit = human(report.requested_bytes / report.real_s)
        peak, window_s = report.peak()
        rate_unit = f"{unit}/s [peak ({window_s:g}s) {' '.join(human(peak))}/s]"
    yield [
        ("app user time", f"{report.user_s:.2f}", "s", "value"),
        ("app real time", f"{report.real_s:.2f}", "s", "value"),
        ("app sys time", f"{report.sys_s:.2f}", "s", "value"),
        ("app acceleration", acceleration, "", "value"),
        ("app readrate", rate, rate_unit, "value"),
    ]
    origin, cache, requests = report.origin, report.cache, report.requests
    saved = savings(report)
    more = [
        _count("requests full hits", requests.full_hits),
        _count("requests partial hits", requests.partial_hits),
        _count("requests misses", requests.misses),
        _count("origin requests", origin.requests),
        _count("origin bytes", origin.bytes),
        _count("origin bytes ahead", origin.prefetch_bytes),
        _count("origin bytes ahead unused", origin.prefetch_unused_bytes),
        _count("origin retries", origin.retries, "bad"),
        _count("origin errors", origin.errors, "bad"),
        _count("cache bypassed bytes", read.bypass_bytes + readv.bypass_bytes, "bad"),
        _count("cache recorded bytes", cache.recorded_bytes),
        _count("cache damaged extents", cache.damaged_extents, "bad"),
        _count("cache failures", cache.failures, "bad"),
    ]
    if saved.bytes_per_s is not None:
        rate, unit = human(saved.bytes_per_s)
        more.append(("origin throughput", rate, f"{unit}/s", "value"))
    more = [row for row in more if row[1] != "0"]
    if more:
        yield more
    if report.tiers:
        yield [("bytes from below", str(item.hit_bytes), f"of {item.place}", "value") for item in report.tiers]
    if report.uncached:
        most = sorted(report.uncached, key=lambda item: (-item.bytes, item.reason))
        yield [("bytes not cached", str(item.bytes), f"because {item.reason}", "bad") for item in most]
    if saved.bytes:
        size, size_unit = human(saved.bytes)
        yield [
            ("saved bytes", size, size_unit, "value"),
            ("saved time (estimate)", *span(saved.seconds), "value"),
        ]


def _count(label: str, number: int, style: str = "value") -> Row:
    return label, str(number), "", style


def _rate(label: str, part: int, whole: int) -> Row:
    return label, percent(part, whole), "%" if whole > 0 else "", "value"
