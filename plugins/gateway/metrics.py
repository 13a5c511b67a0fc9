"""What the gateway has done, for Prometheus: the session's counters, and those of its requests."""

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jcache.session import Session

__all__ = ["Metrics", "Numbers", "added", "lasting", "text_of"]

BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)

Numbers = dict[str, tuple[str, str, dict[str, float]]]
"""Kind, meaning and values of each metric; of the values, by labels, each is a sum over processes."""


class Metrics:
    """Counts requests; it belongs to the event loop.

    Attributes:
        under_way: Requests that are being answered.
        connections: Returns how many connections are open.
        waiting: Returns how many requests wait for others of their client.
        refused: Connections that were one too many.
        broken: Answers that were broken off, since the origin's file could not be read to its end.
    """

    def __init__(self) -> None:
        self.connections: Callable[[], int] = lambda: 0
        self.waiting: Callable[[], int] = lambda: 0
        self.under_way = self.refused = self.broken = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent = self._hit = 0
        self._seconds = 0.0
        self._within = [0] * (len(BOUNDS_S) + 1)

    def ended(self, method: str, status: int, nbytes: int, hit_bytes: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests[method if method in {"GET", "HEAD"} else "other", status] += 1
        self._sent += nbytes
        self._hit += hit_bytes
        self._seconds += seconds
        self._within[bisect.bisect_left(BOUNDS_S, seconds)] += 1

    def numbers(self, session: "Session", *, lost: int) -> Numbers:
        """Return all numbers of this process.

        Args:
            session: Whose counters are told, too.
            lost: Lines that the access log has lost.
        """
        now = session.counters.snapshot()
        out: Numbers = {}

        def tell(name: str, kind: str, what: str, values: Mapping[str, float]) -> None:
            out[name] = kind, what, dict(values)

        requests = {f'{{method="{m}",status="{s}"}}': n for (m, s), n in sorted(self._requests.items())}
        tell("gateway_requests_total", "counter", "Requests answered.", requests)
        tell("gateway_sent_bytes_total", "counter", "Bytes of bodies sent to clients.", {"": self._sent})
        tell("gateway_hit_bytes_total", "counter", "Bytes of bodies that were cached as they began.", {"": self._hit})
        tell("gateway_broken_total", "counter", "Answers broken off in mid-body.", {"": self.broken})
        tell("gateway_refused_connections_total", "counter", "Connections beyond the limit.", {"": self.refused})
        tell("gateway_log_lost_total", "counter", "Lines of the access log that were lost.", {"": lost})
        tell("gateway_connections", "gauge", "Connections that are open.", {"": self.connections()})
        tell("gateway_requests", "gauge", "Requests that are being answered.", {"": self.under_way})
        tell("gateway_waiting", "gauge", "Requests that wait for others of their client.", {"": self.waiting()})
        tell("gateway_workers", "gauge", "Processes that answer.", {"": 1})
        total, buckets = 0, {}
        for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], self._within, strict=True):
            total += count
            buckets[f'_bucket{{le="{bound}"}}'] = float(total)
        buckets |= {"_sum": self._seconds, "_count": float(total)}
        tell("gateway_request_seconds", "histogram", "How long requests took, to their last byte.", buckets)
        read = {
            'source="hit"': now.read_hit + now.readv_hit,
            'source="miss"': now.read_miss + now.readv_miss,
            'source="bypass"': now.read_bypass + now.readv_bypass,
        }
        tell("read_bytes_total", "counter", "Bytes read for clients.", {f"{{{k}}}": v for k, v in read.items()})
        tell("reads_total", "counter", "Reads, a vector as one.", {"": now.read_ops + now.readv_ops})
        tell("origin_requests_total", "counter", "Requests sent to origins.", {"": now.origin_requests})
        tell("origin_bytes_total", "counter", "Bytes received from origins.", {"": now.origin_bytes})
        tell("origin_errors_total", "counter", "Requests to origins that failed.", {"": now.origin_errors})
        tell("origin_retries_total", "counter", "Requests to origins that were sent again.", {"": now.origin_retries})
        tell("recorded_bytes_total", "counter", "Bytes added to the cache.", {"": now.recorded_bytes})
        tell("damaged_extents_total", "counter", "Extents whose checksum did not match.", {"": now.damaged_extents})
        tell("cache_failures_total", "counter", "Operations on the cache that failed.", {"": now.failures})
        return out


def added(several: Iterable[Numbers]) -> Numbers:
    """Return the sums of the numbers of several processes."""
    out: Numbers = {}
    for numbers in several:
        for name, (kind, what, values) in numbers.items():
            total = out.setdefault(name, (kind, what, {}))[2]
            for labels, value in values.items():
                total[labels] = total.get(labels, 0) + value
    return out


def lasting(numbers: Numbers) -> Numbers:
    """Return what stays of the numbers of a process that has ended: what it has done, not what it was doing."""
    return {name: one for name, one in numbers.items() if one[0] != "gauge"}


def text_of(numbers: Numbers) -> str:
    """Return numbers in Prometheus' text format (0.0.4)."""
    lines: list[str] = []
    for name, (kind, what, values) in numbers.items():
        lines.append(f"# HELP jcache_{name} {what}")
        lines.append(f"# TYPE jcache_{name} {kind}")
        lines.extend(f"jcache_{name}{labels} {value}" for labels, value in values.items())
    return "\n".join(lines) + "\n"
