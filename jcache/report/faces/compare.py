"""Two runs side by side: the same measures of both, and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jcache.report.faces.savings import savings, throughput
from jcache.report.faces.units import duration, human

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.report.model import Report

Unit = Literal["%", "bytes", "bytes/s", "s", ""]


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of two runs; `None` where a run has none. `unit` is that of the values."""

    label: str
    unit: Unit
    a: float | None
    b: float | None

    @property
    def change(self) -> float | None:
        """What the second has more than the first."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def ratio(self) -> float | None:
        """The second over the first; `None` for shares, which are ratios already, and where the first is nothing."""
        return None if self.unit == "%" or not self.a or self.b is None else self.b / self.a


def compare(a: Report, b: Report) -> list[Difference]:
    """Return what two runs have in common as measures, in the order of the report.

    The time saved is estimated for both by what the origin delivered in both together: a warm run has not measured it.
    """
    rate = throughput([a, b])
    measures: list[tuple[str, Unit, Callable[[Report], float | None]]] = [
        ("processes", "", lambda run: run.processes),
        ("cache combined hit rate", "%", lambda run: _share(run.hit_bytes, run.requested_bytes)),
        ("cache read hit rate", "%", lambda run: _share(run.read.hit_bytes, run.read.bytes)),
        ("cache readv hit rate", "%", lambda run: _share(run.readv.hit_bytes, run.readv.bytes)),
        ("bytes requested", "bytes", lambda run: run.requested_bytes),
        ("bytes from the cache", "bytes", lambda run: run.hit_bytes),
        ("bytes from the origin", "bytes", lambda run: run.requested_bytes - run.hit_bytes),
        ("reads", "", lambda run: run.read.ops),
        ("vector reads", "", lambda run: run.readv.ops),
        ("ranges in vector reads", "", lambda run: run.readv.ranges),
        ("origin requests", "", lambda run: run.origin.requests),
        ("origin errors", "", lambda run: run.origin.errors),
        ("origin throughput", "bytes/s", lambda run: throughput([run])),
        ("open unique files", "", lambda run: run.files.unique),
        ("time to open files", "s", lambda run: run.files.open_s),
        ("time waited for data", "s", lambda run: run.waited_s or None),
        ("app user time", "s", lambda run: run.user_s),
        ("app real time", "s", lambda run: run.real_s),
        ("app sys time", "s", lambda run: run.sys_s),
        ("app readrate", "bytes/s", lambda run: run.requested_bytes / run.real_s if run.real_s > 0 else None),
        ("saved bytes", "bytes", lambda run: savings(run).bytes),
        ("saved time (estimate)", "s", lambda run: savings(run, bytes_per_s=rate).seconds),
    ]
    return [Difference(label, unit, measure(a), measure(b)) for label, unit, measure in measures]


def shown(value: float | None, unit: Unit, *, sign: bool = False) -> str:
    """Return a value of a measure as people read it, with its sign where it is a difference."""
    if value is None:
        return "-"
    mark = ("+" if value > 0 else "-" if value < 0 else "") if sign else ""
    size = abs(value) if sign else value
    if sign and unit and size < 0.005:
        mark = ""  # what is shown is nothing
    if unit == "%":
        return f"{mark}{size:.2f} {'points' if sign else '%'}"
    if unit in ("bytes", "bytes/s"):
        return mark + " ".join(human(size)) + unit.removeprefix("bytes")
    if unit == "s":
        return mark + duration(size)
    return f"{mark}{size:g}" if size != int(size) else f"{mark}{int(size)}"


def ratio_shown(ratio: float | None) -> str:
    """Return a ratio as people read it."""
    return "-" if ratio is None else f"x{ratio:.2f}" if ratio < 100 else f"x{ratio:.0f}"


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
