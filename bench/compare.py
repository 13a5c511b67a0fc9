"""From samples to medians and paired ratios, and the rounds that take them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stage import Sample, Stage
    from workloads import Workload


@dataclass(slots=True)
class Result:
    """One workload read in one way, over all rounds.

    Attributes:
        way: Family and temperature.
        first: Seconds of each round's first pass.
        steady: Of the later passes.
        cpu: Processor seconds of the first passes.
        exit: Seconds from the last byte to the end of the process.
        process: Seconds of the whole process.
        nbytes: Bytes that the application asked for.
        origin_bytes: Data bytes that the origin sent, counted in a run of its own; None where they were not counted.
        disk_bytes: Bytes on disk after that run.
        digest: Of all that was read in that run.
    """

    way: str
    first: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    exit: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    nbytes: int = 0
    peak_kib: int = 0
    origin_bytes: int | None = None
    disk_bytes: int | None = None
    digest: str = ""

    def take(self, sample: Sample) -> None:
        """Add one round."""
        for name in ("first", "steady", "cpu", "exit", "process"):
            getattr(self, name).append(getattr(sample, name))
        self.nbytes = sample.nbytes
        self.peak_kib = max(self.peak_kib, sample.peak_kib)

    def to_json(self) -> dict[str, Any]:
        """Return it for a program to read."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two quantities that were measured in the same rounds.

    Attributes:
        median: Of the rounds' ratios.
        low: Their first quartile.
        high: Their third quartile.
        rounds: How many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return what one way takes over another, round by round."""
    return spread_of([a / b for a, b in zip(ours, theirs, strict=True)])


def spread_of(values: Sequence[float]) -> Ratio:
    """Return median and quartiles."""
    if len(values) < 2:
        return Ratio(values[0], values[0], values[0], 1)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Ratio(median(values), low, high, len(values))


def measure(
    stage: Stage,
    workload: Workload,
    ways: Iterable[str],
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> dict[str, Result]:
    """Run a workload in all its ways: once with all counted and compared, then in interleaved rounds on the clock.

    Args:
        stage: Where.
        workload: What.
        ways: Families to take, of those in which the workload makes sense.
        rounds: How often each is measured.
        tell: Told what is being done.

    Raises:
        RuntimeError: A way returned other bytes than the origin.
    """
    wanted = set(ways)
    families = [family for family in workload.families if family in wanted]
    results: dict[str, Result] = defaultdict(lambda: Result(""))
    for family in families:
        tell(f"{workload.name}: counting, {family}")
        for way, (sample, sent, disk) in stage.family(workload, family, counted=True).items():
            results[way] = Result(way, origin_bytes=sent, disk_bytes=disk, digest=sample.digest, nbytes=sample.nbytes)
    digests = {result.digest for result in results.values()}
    if len(digests) > 1:
        raise RuntimeError(f"{workload.name}: not the same bytes: { {r.way: r.digest[:12] for r in results.values()} }")
    for turn in range(rounds):
        # Another order each time: what one way leaves in the machine's caches falls on all of them alike.
        for family in families[turn % len(families) :] + families[: turn % len(families)]:
            tell(f"{workload.name}: round {turn + 1} of {rounds}, {family}")
            for way, (sample, _, _) in stage.family(workload, family).items():
                results[way].take(sample)
    return dict(results)
