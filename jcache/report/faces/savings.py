"""What the cache saved: bytes as counted, time as estimated from what the origin was measured to deliver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.report.model import Report


@dataclass(frozen=True, slots=True)
class Savings:
    """What did not have to be fetched.

    Attributes:
        bytes: Requested bytes that came from the journal, less those that were fetched ahead for nothing.
        seconds: How long one process after the other would have waited for them; `None` where nothing is known.
        bytes_per_s: The origin's throughput that this is estimated by; `None` where nobody measured it.
    """

    bytes: int
    seconds: float | None
    bytes_per_s: float | None


def throughput(reports: Sequence[Report]) -> float | None:
    """Return the origin's bytes per second of time in which a process had a request under way; `None` if unknown."""
    measured = [report.origin for report in reports if report.origin.busy_s > 0 and report.origin.bytes > 0]
    if not measured:
        return None
    return sum(origin.bytes for origin in measured) / sum(origin.busy_s for origin in measured)


def savings(report: Report, *, bytes_per_s: float | None = None) -> Savings:
    """Estimate what the cache saved in a run.

    The estimate takes it that the origin would have delivered the hits as fast as it delivered the misses. What it took
    to read the hits from the cache is not subtracted.

    Args:
        report: The run, of one process or merged of many.
        bytes_per_s: The origin's throughput as other runs measured it; by default as this one did.
    """
    saved = max(0, report.hit_bytes - report.origin.prefetch_unused_bytes)
    rate = throughput([report]) if bytes_per_s is None else bytes_per_s
    return Savings(bytes=saved, seconds=None if rate is None else saved / rate, bytes_per_s=rate)
