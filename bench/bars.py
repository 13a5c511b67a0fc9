"""What must hold: each bar by name, with what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from compare import Ratio, paired, spread_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compare import Result


@dataclass(frozen=True, slots=True)
class Check:
    """One bar.

    Attributes:
        bar: What is asked for.
        limit: Where the bar is.
        measured: What was measured; None where it was not.
        text: The same, with its spread.
        at_least: Whether more is better.
    """

    bar: str
    limit: float
    measured: float | None
    text: str
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it holds; None where nothing was measured, or is shown for comparison only."""
        if self.measured is None or self.bar.endswith("(no bar)"):
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return it for a program to read."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True, slots=True)
class _Times:
    """A bar on what one way takes over another."""

    bar: str
    limit: float
    ours: tuple[str, str, str]  # workload, way, quantity
    theirs: tuple[str, str, str]
    at_least: bool = False


TIMES = (
    _Times("seed, warm, the first time / local file", 1.00,
           ("seed", "jcache-warm", "first"), ("seed", "local", "first")),
    _Times("seed, warm, from then on / local file", 1.00,
           ("seed", "jcache-warm", "steady"), ("seed", "local", "steady")),
    _Times("AGC ranges, warm / local file", 2.0,
           ("agc-ranges", "jcache-warm", "first"), ("agc-ranges", "local", "first")),
    _Times("seed, cold, loopback / origin", 1.20, ("seed", "jcache-cold", "first"), ("seed", "origin", "first")),
    _Times("seed, cold, 1 ms / origin", 1.05, ("seed-lan", "jcache-cold", "first"), ("seed-lan", "origin", "first")),
    _Times("tiny, cold / origin", 1.5, ("tiny", "jcache-cold", "first"), ("tiny", "origin", "first")),
    _Times("tiny, warm / origin", 1.0, ("tiny", "jcache-warm", "first"), ("tiny", "origin", "first")),
    _Times("stream, 8 kB steps, HTTP, 10 ms / one large read", 1.2,
           ("stream-8k", "jcache-cold", "first"), ("stream-8k", "whole", "first")),
    _Times("stream, 256 kB steps, HTTP, 10 ms / one large read", 1.2,
           ("stream-256k", "jcache-cold", "first"), ("stream-256k", "whole", "first")),
    _Times("stream, 8 kB steps, XRootD, 10 ms / one large read", 1.2,
           ("stream-8k-xrootd", "jcache-cold", "first"), ("stream-8k-xrootd", "whole", "first")),
    _Times("small files, cold / origin", 1.15,
           ("small-files", "jcache-cold", "first"), ("small-files", "origin", "first")),
    _Times("small files: 1 ms origin / warm", 5.0,
           ("small-files-lan", "origin", "first"), ("small-files-lan", "jcache-warm", "first"), at_least=True),
    _Times("the same with JCACHE_VALIDATE=never", 5.0,
           ("small-files-lan", "origin", "first"), ("small-files-lan", "trusted-warm", "first"), at_least=True),
)  # fmt: skip


def checks(results: Mapping[str, Mapping[str, Result]], costs: Mapping[str, Any]) -> Iterator[Check]:
    """Yield every bar of which anything was measured."""
    for bar in TIMES:
        ours, theirs = (taken(results, place) for place in (bar.ours, bar.theirs))
        if ours and theirs and len(ours) == len(theirs):
            yield of_ratio(bar.bar, bar.limit, paired(ours, theirs), at_least=bar.at_least)
    for name in ("stream-8k", "stream-256k", "stream-8k-xrootd"):
        result = results.get(name, {}).get("jcache-cold")
        if result is not None and result.origin_bytes is not None:
            share = result.origin_bytes / result.nbytes
            yield Check(f"{name}: bytes fetched / bytes of the file", 1.0, share, f"{share:.6f}")
    yield from attach_checks(costs.get("attach"))
    if calls := costs.get("calls"):
        yield Check("warm: system calls of an open", 8, calls["open"], f"{calls['open']} {calls['open_calls']}")
        yield Check(
            "warm: system calls of the close that goes with it (no bar)", 1, calls["close"], str(calls["close"])
        )
        extra = calls["preads"] - calls["pieces"] - calls["open_calls"].get("pread64", 0)
        yield Check("warm: system calls beyond one per contiguous piece", 0, extra, str(extra))
        yield Check("warm: locks", 0, len(calls["locks"]), str(len(calls["locks"])))
    if passed := costs.get("passed"):
        for how, what, limit in (("cold", "calls", 150), ("cold", "modules", 15), ("warm", "functions", 22),
                                 ("warm", "modules", 8)):  # fmt: skip
            count = passed[how][what]
            yield Check(f"{how} vector of two ranges: {what}", limit, count, str(count))
        yield of_ratio("second read of a file, cold / origin", 1.7, paired(*passed["second"]))
        yield of_ratio("context switches of a cold vector / origin", 1.3, paired(*passed["switches"]))
    if recorded := costs.get("profile"):
        for what, name, limit in (
            ("seed", "seed", 1.03), ("vectors", "vectors of 100 bytes", 1.15), ("steps", "steps of 100 bytes", 1.15),
        ):  # fmt: skip
            ways = recorded[what]
            yield of_ratio(f"warm {name}, recorded / not", limit, paired(ways["on"], ways["off"]))
    yield from of_uses(costs)
    if two := costs.get("two"):
        for way, name in (("jcache", "two processes, warm / one"), ("local", "the same of the local file (no bar)")):
            gain = Ratio(*two[way]["gain"], len(two[way]["one"]))
            yield of_ratio(name, 1.7 if way == "jcache" else 0.0, gain, at_least=True)
    if start := costs.get("start"):
        yield milliseconds("import and activation add", 60, start["added"])
    warm, origin = taken(results, ("seed", "jcache-warm", "exit")), taken(results, ("seed", "origin", "exit"))
    if warm and origin and len(warm) == len(origin):
        added = spread_of([a - b for a, b in zip(warm, origin, strict=True)])
        yield milliseconds("exit and report add", 100, [added.median, added.low, added.high])


def of_uses(costs: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the bars on what access profiles are good for."""
    yield from of_serving(costs.get("serving") or {})
    if again := costs.get("replay"):
        ratio = paired(again["replayed"], again["recorded"])
        yield of_ratio("replay / the run that was recorded", 1.1, ratio)
        yield of_ratio("the same, which is to be no faster", 0.9, ratio, at_least=True)
        yield of_ratio("replay at --speed max / recorded", 1.0, paired(again["max"], again["recorded"]))
    for protocol, shares in (costs.get("warm") or {}).items():
        share = spread_of(shares)
        text = f"{share.median:.3f} ({share.low:.3f}-{share.high:.3f})"
        yield Check(f"warm, {protocol}, 20 ms: share of a wire of 1 Gb/s", 0.9, share.median, text, at_least=True)
    for fmt, found in (costs.get("ahead") or {}).items():
        ways, unused = found["seconds"], max(found["unused"])
        # The analysis reads so little of its files that computing is most of the time.
        name = f"{fmt}, cold loop: off / prefetched by columns" + " (no bar)" * fmt.startswith("AGC")
        yield of_ratio(name, 1.5, paired(ways["off"], ways["columns"]), at_least=True)
        yield Check(f"{fmt}: fetched ahead and not used / fetched", 0.05, unused, f"{unused:.4f}")
    for size, rates in (costs.get("whatif") or {}).items():
        text = f"{rates['told']:.2f} % told, {rates['real']:.2f} % real"
        yield Check(f"whatif, {size}: points from the real hit rate", 1.0, abs(rates["told"] - rates["real"]), text)


def of_serving(found: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Check]:
    """Yield the bars on the gateway, over the nginx that it has for its origin."""
    for what, ways in found.items():
        ratio = paired(ways["gateway"], ways["origin"])
        match what:
            case "cold" | "cold, 20 ms":
                yield of_ratio(f"gateway, {what}, curl: time / origin's", 1.15, ratio)
            case "whole":
                text = paired(ways["origin"], ways["gateway"])
                yield of_ratio("gateway, warm, curl: throughput / nginx's", 0.8, text, at_least=True)
            case "4 kB":
                rate, other = spread_of(ways["gateway"]), spread_of(ways["origin"])
                text = f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f}); nginx {other.median:,.0f}"
                yield Check("gateway, warm, 4 kB: requests a second", 10_000, rate.median, text, at_least=True)
            case _:
                yield of_ratio(f"gateway, warm, ranges of {what}: throughput / nginx's", 0.8, ratio, at_least=True)


def taken(results: Mapping[str, Mapping[str, Result]], place: tuple[str, str, str]) -> list[float]:
    """Return a quantity of each round, nothing where the way was not measured."""
    workload, way, quantity = place
    result = results.get(workload, {}).get(way)
    return [] if result is None else getattr(result, quantity)


def attach_checks(found: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield the bars on attaching, whose limits are for a million extents."""
    if not found:
        return
    for how, limit_ms in (("sealed", 25), ("unsealed", 1000)):
        seconds, share = found[how]["seconds"], found[how]["extents"] / 1e6
        name = f"attach, {how}, {found[how]['extents']:,} extents: first byte"
        times = spread_of(seconds)
        yield milliseconds(name, limit_ms * max(share, 0.2), [times.median, times.low, times.high])
        memory = found[how]["bytes_per_extent"]
        yield Check(f"attach, {how}: memory an extent", 64, memory, f"{memory:.1f} B")
    calls = found["sealed"]["calls"]
    if calls is not None:
        yield Check("attach, sealed: system calls on the segment", 6, sum(calls.values()), f"{calls}")


def of_ratio(bar: str, limit: float, ratio: Ratio, *, at_least: bool = False) -> Check:
    return Check(bar, limit, ratio.median, str(ratio), at_least)


def milliseconds(bar: str, limit_ms: float, seconds: list[float]) -> Check:
    middle, low, high = (1000 * value for value in seconds)
    return Check(bar, limit_ms, middle, f"{middle:.1f} ms ({low:.1f}-{high:.1f})")
