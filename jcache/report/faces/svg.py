"""The time profiles as SVG: a drawing that stands alone, or inside a page, in the reader's light or dark colours.

Pure functions from a report to text; no script, no font and no colour comes from anywhere else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from jcache.report.faces import plot
from jcache.report.faces.units import duration, human, percent, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcache.report.model import Report

COLORS = """
--jc-ink:#1c2430;--jc-muted:#566171;--jc-line:#d5dbe3;--jc-paper:#ffffff;--jc-cache:#0e7c74;--jc-origin:#d2780a;
--jc-bad:#b42318;--jc-card:#f5f7fa;
"""
DARK_COLORS = """
--jc-ink:#e8edf3;--jc-muted:#a3afbe;--jc-line:#343e4b;--jc-paper:#12171e;--jc-cache:#2cc4b2;--jc-origin:#f3ad3d;
--jc-bad:#ff8a7a;--jc-card:#1b222c;
"""
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"


def _of_lab(colors: str) -> str:
    """Return colours for JupyterLab: those of its theme where it names some."""
    for name, theirs in (
        ("ink", "content-font-color1"),
        ("muted", "content-font-color2"),
        ("line", "border-color2"),
        ("paper", "layout-color0"),
        ("card", "layout-color2"),
    ):
        colors = re.sub(rf"(--jc-{name}):(\S+?);", rf"\1:var(--jp-{theirs},\2);", colors)
    return colors


# Chosen by class, so that several drawings in one page, and the page itself, share them. JupyterLab tells its theme,
# which need not be that of the operating system, by an attribute, and the colours of any theme by variables.
STYLE = f"""
.jc{{{COLORS}}}
@media (prefers-color-scheme:dark){{.jc{{{DARK_COLORS}}}}}
[data-jp-theme-light] .jc{{{_of_lab(COLORS)}}}
[data-jp-theme-light=false] .jc{{{_of_lab(DARK_COLORS)}}}
.jc.jc-svg{{font:12px {FONT};font-variant-numeric:tabular-nums}}
.jc-svg text{{fill:var(--jc-muted)}}
.jc-svg .jc-title{{fill:var(--jc-ink);font-size:14px;font-weight:600}}
.jc-svg .jc-name{{fill:var(--jc-ink)}}
.jc-svg .jc-grid{{stroke:var(--jc-line);stroke-width:1;shape-rendering:crispEdges}}
.jc-svg .jc-axis{{stroke:var(--jc-muted);stroke-width:1;shape-rendering:crispEdges}}
.jc-svg .jc-c{{fill:var(--jc-cache)}}
.jc-svg .jc-o{{fill:var(--jc-origin)}}
.jc-svg .jc-paper{{fill:var(--jc-paper)}}
.jc-svg .jc-hover{{fill:transparent}}
.jc-svg .jc-hover:hover{{fill:var(--jc-ink);fill-opacity:.12}}
""".replace("\n", "")

WIDTH, NARROW_WIDTH = 920, 420
"""In units that are pixels where there is room; a drawing is scaled to what there is."""

_LEFT, _RIGHT = 84, 16
_TOP, _HIGH, _GAP, _LOW, _FOOT = 40, 220, 76, 110, 30
HEIGHT = _TOP + _HIGH + _GAP + _LOW + _FOOT
COLUMNS = 205


@dataclass(frozen=True, slots=True)
class Scale:
    """The axes of a drawing; two drawings with one scale can be compared by eye."""

    real_s: float
    top: float


def scale_of(*reports: Report) -> Scale:
    """Return axes that hold every one of some reports."""
    real_s = max(report.real_s for report in reports)
    highest = 0.0
    for report in reports:
        hit, miss = _columns(report, real_s)
        highest = max(highest, *(a + b for a, b in zip(hit, miss, strict=True)))
    return Scale(real_s, plot.nice_ceiling(highest * COLUMNS / real_s) if highest > 0 else 0.0)


def has_profile(report: Report) -> bool:
    """Tell whether there is anything to draw."""
    return bool(report.real_s > 0 and (any(report.profile.hit_bytes) or any(report.profile.miss_bytes)))


def document(report: Report) -> str:
    """Return a whole SVG file of a report's profiles."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + draw(report, alone=True) + "\n"


def draw(report: Report, *, scale: Scale | None = None, alone: bool = False, width: int = WIDTH) -> str:
    """Return the two profiles, bandwidth and hit rate, as one SVG element.

    Args:
        report: The run.
        scale: Its axes, where it is to be compared with another.
        alone: Whether it is a file of its own, with colours and background, or part of a page with `STYLE`.
        width: Of the drawing, in its own units: `NARROW_WIDTH` for a phone or half a window, lest the text be small.
    """
    scale = scale or scale_of(report)
    told = f"{report.filename} {report.run} {report.read} {report.readv} {scale} {width}"
    mark = hashlib.sha256(told.encode()).hexdigest()[:8]
    attributes = f'viewBox="0 0 {width} {HEIGHT}" role="img" aria-labelledby="t{mark} d{mark}" class="jc jc-svg"'
    size = f'width="{width}" height="{HEIGHT}"' if alone else 'width="100%"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {attributes}>']
    title = f"{report.appname} on {report.host}: bandwidth and hit rate over time"
    parts.append(f'<title id="t{mark}">{escape(visible(title))}</title>')
    parts.append(f'<desc id="d{mark}">{escape(visible(describe(report)))}</desc>')
    if alone:
        parts.append(f'<style>{STYLE}</style><rect class="jc-paper" width="100%" height="100%"/>')
    parts.extend(_drawn(report, scale, width) if scale.top > 0 else ['<text x="16" y="32">no reads</text>'])
    parts.append("</svg>")
    return "".join(parts)


def describe(report: Report) -> str:
    """Say in words what the drawing shows, for those who do not see it."""
    text = (
        f"In {duration(report.real_s)}, {' '.join(human(report.requested_bytes))} were read, "
        f"{percent(report.hit_bytes, report.requested_bytes)} % of them from the cache."
    )
    if report.requested_bytes and report.real_s > 0:
        peak, window_s = report.peak()
        text += f" The highest bandwidth was {' '.join(human(peak))}/s, over {window_s:g} s."
        half = int(report.real_s / report.profile.bin_s / 2)
        for name, part in (("first", slice(None, half)), ("second", slice(half, None))):
            hit, miss = sum(report.profile.hit_bytes[part]), sum(report.profile.miss_bytes[part])
            if hit + miss:
                text += f" In the {name} half of the time the hit rate was {percent(hit, hit + miss)} %."
    return text


def _columns(report: Report, real_s: float) -> tuple[list[float], list[float]]:
    if real_s <= 0:
        return [0.0], [0.0]
    profile = report.profile
    return (
        plot.columns(profile.hit_bytes, profile.bin_s, real_s, COLUMNS),
        plot.columns(profile.miss_bytes, profile.bin_s, real_s, COLUMNS),
    )


def _drawn(report: Report, scale: Scale, width: int) -> Iterator[str]:
    hit, miss = _columns(report, scale.real_s)
    step = (width - _LEFT - _RIGHT) / COLUMNS
    column_s = scale.real_s / COLUMNS
    base, floor = _TOP + _HIGH, _TOP + _HIGH + _GAP + _LOW
    # Title and legend stand to the left and right of one line above each plot.
    yield f'<text class="jc-title" x="{_LEFT}" y="20">Bandwidth</text>'
    yield _legend(20, width)
    yield f'<text class="jc-title" x="{_LEFT}" y="{base + _GAP - 16}">Hit rate</text>'
    for quarter in range(5):
        y = _TOP + _HIGH * (4 - quarter) / 4
        value, unit = human(scale.top * quarter / 4)
        yield _rule(y, f"{_trim(value)} {unit}/s", axis=quarter == 0, width=width)
        y = floor - _LOW * quarter / 4
        if quarter % 2 == 0:
            yield _rule(y, f"{25 * quarter} %", axis=quarter == 0, width=width)
    unit, divisor = plot.time_unit(scale.real_s)
    # The ticks at round times up to the one before the end, whose label is the end itself.
    apart = plot.nice_ceiling(scale.real_s / divisor / (7 if width == WIDTH else 3))
    ticks = [number * apart for number in range(1 + int(scale.real_s / divisor / apart - 0.6))]
    for at in [*ticks, scale.real_s / divisor]:
        x = _LEFT + (width - _LEFT - _RIGHT) * at * divisor / scale.real_s
        last = at not in ticks
        anchor = "end" if last else "middle"
        label = f"{plot.short(at, scale.real_s / divisor)} {unit}" if last else f"{at:g}"
        for y in (base, floor):
            yield f'<path class="jc-axis" d="M{x:.1f} {y}v5"/>'
            yield f'<text x="{x:.1f}" y="{y + 19}" text-anchor="{anchor}">{label}</text>'
    solid: list[str] = []
    both: list[str] = []
    rates: list[str] = []
    zeros: list[str] = []
    hover: list[str] = []
    for number, (from_cache, from_origin) in enumerate(zip(hit, miss, strict=True)):
        if from_cache + from_origin <= 0:
            continue
        x = _LEFT + number * step
        low = from_cache / column_s / scale.top * _HIGH
        high = (from_cache + from_origin) / column_s / scale.top * _HIGH
        if from_cache > 0:
            solid.append(_bar(x, base, step, low))
        if from_origin > 0:
            both.append(_bar(x, base - low, step, high - low))
        share = from_cache / (from_cache + from_origin)
        (rates if share > 0 else zeros).append(_bar(x, floor, step, share * _LOW if share > 0 else 3))
        words = (
            f"{plot.short(number * column_s / divisor, scale.real_s / divisor)} {unit}: "
            f"{' '.join(human(from_cache / column_s))}/s from cache, "
            f"{' '.join(human(from_origin / column_s))}/s from origin, hit rate {percent(share, 1)} %"
        )
        hover.append(
            f'<rect class="jc-hover" x="{x:.2f}" y="{_TOP}" width="{step:.2f}" height="{floor - _TOP}">'
            f"<title>{words}</title></rect>"
        )
    for name, bars in (("jc-c", solid), ("jc-o", both), ("jc-c", rates), ("jc-o", zeros)):
        if bars:
            yield f'<path class="{name}" d="{"".join(bars)}"/>'
    yield f'<g aria-hidden="true">{"".join(hover)}</g>'


def _bar(x: float, base: float, width: float, height: float) -> str:
    """Return one bar of a path; what is not nothing is at least half a pixel high."""
    height = max(height, 0.5)
    return f"M{x:.2f} {base - height:.2f}h{width:.2f}v{height:.2f}h-{width:.2f}z"


def _rule(y: float, label: str, *, axis: bool, width: int) -> str:
    name = "jc-axis" if axis else "jc-grid"
    return (
        f'<path class="{name}" d="M{_LEFT} {y:.1f}H{width - _RIGHT}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _legend(y: int, width: int) -> str:
    parts = []
    for x, name, text in ((width - 212, "jc-c", "from cache"), (width - 108, "jc-o", "from origin")):
        parts.append(f'<rect class="{name}" x="{x}" y="{y - 10}" width="11" height="11" rx="2"/>')
        parts.append(f'<text class="jc-name" x="{x + 17}" y="{y}">{text}</text>')
    return "".join(parts)


def _trim(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number
