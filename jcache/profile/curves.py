"""The picture of what caches of several sizes would have had: hit rate against size, a line for each kind of cache."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from jcache.report.faces.svg import STYLE, WIDTH
from jcache.report.faces.units import human, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["curves"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 420, 64, 200, 40, 40
_DASHES = ("none", "8 4", "2 3", "12 4 2 4", "4 8")
# Labels at the ends of lines are so far apart.
_LABEL = 15


def curves(lines: Mapping[str, Sequence[tuple[int | None, float]]], title: str) -> str:
    """Return a drawing as an SVG file.

    Args:
        lines: Of each kind of cache, by its name: sizes in bytes (None without limit), and hit rates from 0 to 1.
        title: What it is of.
    """
    sizes = sorted({size for line in lines.values() for size, _ in line}, key=lambda size: (size is None, size))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{_HEIGHT}" viewBox="0 0 {WIDTH} {_HEIGHT}" ',
        f'role="img" class="jc jc-svg"><title>{escape(visible(title))}</title><style>{STYLE}</style>',
        '<rect class="jc-paper" width="100%" height="100%"/>',
        f'<text class="jc-title" x="{_LEFT}" y="20">{escape(visible(title))}</text>',
    ]
    parts += [*_axes(sizes), *_lines(lines, sizes), "</svg>"]
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(parts) + "\n"


def _x(number: int, count: int) -> float:
    width = WIDTH - _LEFT - _RIGHT
    return _LEFT + (width * number / (count - 1) if count > 1 else width / 2)


def _y(rate: float) -> float:
    return _HEIGHT - _FOOT - (_HEIGHT - _FOOT - _TOP) * rate


def _axes(sizes: Sequence[int | None]) -> Iterator[str]:
    for quarter in range(5):
        y = _y(quarter / 4)
        yield f'<path class="{"jc-grid" if quarter else "jc-axis"}" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{25 * quarter} %</text>'
    for number, size in enumerate(sizes):
        label = "no limit" if size is None else " ".join(human(size))
        yield f'<text x="{_x(number, len(sizes)):.1f}" y="{_HEIGHT - _FOOT + 19}" text-anchor="middle">{label}</text>'


def _lines(lines: Mapping[str, Sequence[tuple[int | None, float]]], sizes: Sequence[int | None]) -> Iterator[str]:
    ends = []
    for number, (name, line) in enumerate(lines.items()):
        color = f"var(--jc-{'origin' if number % 2 else 'cache'})"
        points = sorted((sizes.index(size), rate) for size, rate in line)
        path = "L".join(f"{_x(at, len(sizes)):.1f} {_y(rate):.1f}" for at, rate in points)
        dash = _DASHES[number // 2 % len(_DASHES)]
        yield f'<path d="M{path}" style="fill:none;stroke:{color};stroke-width:2.5;stroke-dasharray:{dash}"/>'
        for at, rate in points:
            told = f"{name}: {100 * rate:.2f} %"
            dot = f'cx="{_x(at, len(sizes)):.1f}" cy="{_y(rate):.1f}" r="4" style="fill:{color}"'
            yield f"<circle {dot}><title>{escape(told)}</title></circle>"
        ends.append((_y(points[-1][1]), name, points[-1][1], color))
    ends.sort()
    for (_, name, rate, color), y in zip(ends, _apart([end[0] for end in ends]), strict=True):
        yield f'<text class="jc-name" style="fill:{color}" x="{WIDTH - _RIGHT + 10}" y="{y + 4:.1f}">'
        yield f"{escape(name)}: {100 * rate:.1f} %</text>"


def _apart(places: Sequence[float]) -> list[float]:
    """Return ascending places so far apart that labels can be read, above the axis."""
    out = list(places)
    for number in range(1, len(out)):
        out[number] = max(out[number], out[number - 1] + _LABEL)
    limit = _y(0)
    for number in reversed(range(len(out))):
        out[number] = limit = min(out[number], limit)
        limit -= _LABEL
    return out
