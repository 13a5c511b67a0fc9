"""A report as metrics, in the text form of OpenMetrics 1.0, which Prometheus' older parsers read as well.

Without timestamps, which node_exporter's collector of text files refuses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jcache.report.model import Report

    Labels = dict[str, str]
    Samples = Iterable[tuple[Labels, float]]

__all__ = ["openmetrics"]

# What a sample's name ends with, beyond its family's.
_SUFFIXES = {"counter": "_total", "info": "_info", "gauge": ""}
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def openmetrics(report: Report) -> str:
    """Return the numbers of a report, of one process or of many.

    Each sample has the program's name for a label (`app`); the host and the run's id are told once (`jcache_run_info`).
    Names and meanings are those of the gateway's `/metrics` where that has the same.
    """
    lines: list[str] = []
    for name, kind, text, samples in families(report):
        rows = [row(f"{name}{_SUFFIXES[kind]}", labels, value) for labels, value in samples]
        if rows:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *rows]
    return "\n".join([*lines, "# EOF", ""])


def families(report: Report) -> Iterator[tuple[str, str, str, Samples]]:
    """Yield the name, the kind, the meaning and the samples of each metric."""
    app = {"app": report.appname}

    def one(value: float) -> Samples:
        return [(app, value)]

    def by(name: str, **values: float) -> Samples:
        return [({**app, name: key}, value) for key, value in values.items()]

    told = {**app, "host": report.host, "run": report.run}
    yield "jcache_run", "info", "The job that the other metrics are about.", [(told, 1)]
    yield "jcache_run_complete", "gauge", "Whether all of its processes have ended.", one(int(report.complete))
    yield "jcache_processes", "gauge", "Its processes that have read.", one(report.processes)
    yield "jcache_start_time_seconds", "gauge", "When it began, in Unix time.", one(report.start_time)
    yield "jcache_elapsed_seconds", "gauge", "How long it has run.", one(report.real_s)
    cpu = by("mode", user=report.user_s, system=report.sys_s)
    yield "jcache_cpu_seconds", "counter", "Time of processors that it used.", cpu
    kinds = (("read", report.read), ("vector", report.readv))
    yield "jcache_reads", "counter", "Reads, a vector as one.", by("kind", **{kind: part.ops for kind, part in kinds})
    yield "jcache_vector_ranges", "counter", "Ranges in vector reads.", one(report.readv.ranges)
    sources = [
        ({**app, "kind": kind, "source": source}, nbytes)
        for kind, part in kinds
        for source, nbytes in (("hit", part.hit_bytes), ("miss", part.miss_bytes), ("bypass", part.bypass_bytes))
    ]
    yield "jcache_read_bytes", "counter", "Bytes read, by where they came from.", sources
    asked = report.requests
    found = by("result", full_hit=asked.full_hits, partial_hit=asked.partial_hits, miss=asked.misses)
    yield "jcache_requests", "counter", "Reads by what the cache had of them.", found
    files = report.files
    yield "jcache_files_opened", "counter", "Files opened.", one(files.opened)
    yield "jcache_open_seconds", "counter", "Time that opening files took.", one(files.open_s)
    yield "jcache_files", "gauge", "Distinct files.", one(files.unique)
    yield "jcache_files_bytes", "gauge", "Size of the distinct files.", one(files.unique_bytes)
    origin = report.origin
    yield "jcache_origin_requests", "counter", "Requests sent to origins.", one(origin.requests)
    yield "jcache_origin_bytes", "counter", "Bytes received from origins.", one(origin.bytes)
    yield "jcache_origin_errors", "counter", "Requests to origins that failed.", one(origin.errors)
    yield "jcache_origin_retries", "counter", "Requests to origins that were sent again.", one(origin.retries)
    yield "jcache_origin_busy_seconds", "counter", "Time with a request to an origin under way.", one(origin.busy_s)
    yield "jcache_prefetch_bytes", "counter", "Bytes of origins fetched ahead.", one(origin.prefetch_bytes)
    unused = one(origin.prefetch_unused_bytes)
    yield "jcache_prefetch_unused_bytes", "counter", "Bytes fetched ahead that nobody asked for.", unused
    cache = report.cache
    yield "jcache_recorded_bytes", "counter", "Bytes added to the cache.", one(cache.recorded_bytes)
    yield "jcache_damaged_extents", "counter", "Extents whose checksum did not match.", one(cache.damaged_extents)
    yield "jcache_cache_failures", "counter", "Operations on the cache that failed.", one(cache.failures)
    reasons = [({**app, "reason": item.reason}, item) for item in report.uncached]
    reads, nbytes = [(labels, item.ops) for labels, item in reasons], [(labels, item.bytes) for labels, item in reasons]
    yield "jcache_uncached_reads", "counter", "Reads that are not kept, by the reason.", reads
    yield "jcache_uncached_bytes", "counter", "Bytes read that are not kept, by the reason.", nbytes
    tiers = [({**app, "tier": tier.place}, tier.hit_bytes) for tier in report.tiers]
    yield "jcache_tier_hit_bytes", "counter", "Bytes that came from a tier below the first directory.", tiers


def row(name: str, labels: Labels, value: float) -> str:
    """Return the line of a sample."""
    pairs = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value}"


def escaped(text: str) -> str:
    """Return a text as the value of a label has it; bytes that are no UTF-8, and control characters, are replaced."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "replace").decode())
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
