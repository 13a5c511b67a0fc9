"""The report of this process, from its counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcache.report.model import (
    CacheState,
    Files,
    OriginTraffic,
    Profile,
    Read,
    ReadV,
    Report,
    Requests,
    TierUse,
    Uncached,
    UrlUse,
)
from jcache.report.redact import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.counters import Counters

__all__ = ["from_counters"]


def from_counters(
    counters: Counters,
    *,
    appname: str,
    host: str,
    pid: int,
    command: str | Sequence[str],
    user_s: float,
    sys_s: float,
    real_s: float | None = None,
    run: str = "",
    place: str = "",
    complete: bool = True,
    interval_s: float = 0.0,
) -> Report:
    """Return the report of this process as of now.

    Args:
        counters: What was counted.
        appname: Name of the program.
        host: Name of this host.
        pid: Number of this process.
        command: The command line; credentials and queries of URLs in it are cut.
        user_s: CPU time in user mode since the run's start.
        sys_s: CPU time in the kernel since the run's start.
        real_s: Time since the run's start; by the counters' clock when not given.
        run: What all processes of this job have in common.
        place: Where the number means this process: see `jcache.system.processes.here`.
        complete: Whether the process ends here.
        interval_s: Time until the next interim report, in one.
    """
    now = counters.snapshot()
    real_s = now.elapsed_s if real_s is None else real_s
    return Report(
        appname=appname,
        host=host,
        pid=pid,
        command=redact(command),
        start_time=now.start_time,
        end_time=now.start_time + real_s,
        complete=complete,
        real_s=real_s,
        user_s=user_s,
        sys_s=sys_s,
        run=run,
        place=place,
        interval_s=interval_s,
        read=Read(
            ops=now.read_ops,
            bytes=now.read_hit + now.read_miss + now.read_bypass,
            hit_bytes=now.read_hit,
            miss_bytes=now.read_miss,
            bypass_bytes=now.read_bypass,
        ),
        readv=ReadV(
            ops=now.readv_ops,
            ranges=now.readv_ranges,
            bytes=now.readv_hit + now.readv_miss + now.readv_bypass,
            hit_bytes=now.readv_hit,
            miss_bytes=now.readv_miss,
            bypass_bytes=now.readv_bypass,
        ),
        requests=Requests(full_hits=now.full_hits, partial_hits=now.partial_hits, misses=now.misses),
        files=Files(
            opened=now.opened,
            unique=len(now.files),
            unique_bytes=sum(file.size_bytes or 0 for file in now.files),
            open_s=now.open_s,
        ),
        origin=OriginTraffic(
            requests=now.origin_requests,
            bytes=now.origin_bytes,
            errors=now.origin_errors,
            retries=now.origin_retries,
            prefetch_bytes=now.prefetch_bytes,
            prefetch_unused_bytes=now.prefetch_unused_bytes,
            busy_s=now.origin_busy_s,
        ),
        cache=CacheState(
            recorded_bytes=now.recorded_bytes,
            damaged_extents=now.damaged_extents,
            failures=now.failures,
            bypassed=now.bypassed,
        ),
        profile=Profile(bin_s=now.bin_s, hit_bytes=now.profile_hit, miss_bytes=now.profile_miss),
        urls=tuple(
            UrlUse(
                url=f.url,
                size=f.size_bytes,
                bytes=f.requested_bytes,
                hit_bytes=f.hit_bytes,
                opens=f.opens,
                open_s=f.open_s,
                read_s=f.read_s,
            )
            for f in now.files
        ),
        uncached=tuple(Uncached(*item) for item in now.uncached),
        tiers=tuple(TierUse(*item) for item in now.tiers),
    )
