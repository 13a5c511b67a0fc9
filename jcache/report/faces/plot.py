"""The report's time profiles as rows of characters: pure functions from numbers to text with style names."""

from __future__ import annotations

import math
from dataclasses import dataclass

Span = tuple[str, str]
"""Text and the name of its style: `cache`, `origin`, `axis`, or nothing."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Characters to draw with. `levels` fill a cell from the bottom, the last one wholly."""

    levels: str
    origin: str
    origin_low: str
    zero: str
    corner: str
    tick: str
    across: str
    up: str
    notch: str


BLOCKS = Marks(
    levels="▁▂▃▄▅▆▇█", origin="░", origin_low=".", zero="·", corner="└", tick="┬", across="─", up="│", notch="┤"
)
ASCII = Marks(levels="_=#", origin=":", origin_low=".", zero="o", corner="+", tick="+", across="-", up="|", notch="+")


def columns(bins: tuple[int, ...], bin_s: float, real_s: float, count: int) -> list[float]:
    """Spread bins over columns of equal time.

    Args:
        bins: Bytes in each bin.
        bin_s: Width of a bin in seconds.
        real_s: Time that all columns together stand for; what lies behind it is counted in the last column.
        count: Number of columns.

    Returns:
        Bytes in each column; a bin that lies in several is divided among them by time.
    """
    totals = [0.0] * count
    column_s = real_s / count
    for number, nbytes in enumerate(bins):
        if not nbytes:
            continue
        start = min(number * bin_s / column_s, count - 1)
        stop = max(start, min((number + 1) * bin_s / column_s, count))
        first, last = int(start), min(math.ceil(stop), count) - 1
        if stop == start or last <= first:
            totals[first] += nbytes
            continue
        for column in range(first, last + 1):
            totals[column] += nbytes * (min(column + 1, stop) - max(column, start)) / (stop - start)
    return totals


def nice_ceiling(value: float) -> float:
    """Return the lowest round number that is not below a positive value and whose quarters are round, too."""
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10):
        if step * power >= value * (1 - 1e-9):
            return step * power
    return 10 * power


def stacked(low: list[float], high: list[float], top: float, rows: int, marks: Marks) -> list[list[Span]]:
    """Draw two stacked quantities: `low` (the cache) as solid bars, `high` (the origin) on top of them, shaded.

    Returns:
        One list of spans for each row, the highest first. A column that is not empty shows a mark however small it is.
    """
    drawn: list[list[Span]] = []
    for row in range(rows - 1, -1, -1):
        cells: list[Span] = []
        for solid, shaded in zip(low, high, strict=True):
            cells.append(_stacked_cell(solid / top * rows - row, (solid + shaded) / top * rows - row, row, marks))
        drawn.append(_join(cells))
    return drawn


def _stacked_cell(solid: float, both: float, row: int, marks: Marks) -> Span:
    """Choose the mark of one cell from how far up the cell (1.0: its top) the two quantities reach."""
    solid = min(max(solid, 0.0), 1.0)
    both = min(max(both, 0.0), 1.0)
    if both - solid > solid:
        if both >= 0.5:
            return marks.origin, "origin"
        return (" ", "") if row else (marks.origin_low, "origin")
    level = round(both * len(marks.levels))
    if level == 0 and (row or both <= 0):
        return " ", ""
    return marks.levels[max(level, 1) - 1], "cache"


def shares(part: list[float], whole: list[float], rows: int, marks: Marks) -> list[list[Span]]:
    """Draw part/whole of each column; only a whole fills the highest row, 0 has a mark of its own, 0/0 is blank."""
    steps = len(marks.levels)
    heights: list[int | None] = []
    for some, every in zip(part, whole, strict=True):
        if every <= 0:
            heights.append(None)
        elif some <= 0:
            heights.append(0)
        elif some >= every * (1 - 1e-12):
            heights.append(rows * steps)
        else:
            heights.append(min(max(round(some / every * rows * steps), 1), rows * steps - 1))
    drawn: list[list[Span]] = []
    for row in range(rows - 1, -1, -1):
        cells: list[Span] = []
        for height in heights:
            if height is None or height <= row * steps:
                cells.append((marks.zero, "origin") if height == 0 and row == 0 else (" ", ""))
            else:
                cells.append((marks.levels[min(height - row * steps, steps) - 1], "cache"))
        drawn.append(_join(cells))
    return drawn


def time_axis(real_s: float, width: int, marks: Marks) -> tuple[str, str]:
    """Return the line below a plot and its labels, both `width` characters: five times from 0 to the run's end."""
    count = 5 if width >= 50 else 3 if width >= 24 else 2
    line = [marks.across] * width
    labels = [" "] * width
    unit, divisor = time_unit(real_s)
    for number in range(count):
        at = round(number * (width - 1) / (count - 1))
        if number:
            line[at] = marks.tick
        value = real_s * number / (count - 1) / divisor
        text = f"{short(value, real_s / divisor)} {unit}" if number == count - 1 else short(value, real_s / divisor)
        start = min(max(at - len(text) // 2, 0), width - len(text))
        labels[start : start + len(text)] = text
    return "".join(line), "".join(labels)


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which to write times of up to so many seconds, and its length in seconds."""
    if seconds < 1:
        return "ms", 1e-3
    if seconds < 600:
        return "s", 1.0
    return ("min", 60.0) if seconds < 4 * 3600 else ("h", 3600.0)


def short(value: float, largest: float) -> str:
    """Return a number with as many decimals as an axis that ends at `largest` needs."""
    if value == 0:
        return "0"
    return f"{value:.2f}" if largest < 10 else f"{value:.1f}" if largest < 100 else f"{value:.0f}"


def _join(cells: list[Span]) -> list[Span]:
    """Put neighbours of one style together."""
    spans: list[Span] = []
    for text, style in cells:
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + text, style)
        else:
            spans.append((text, style))
    return spans
