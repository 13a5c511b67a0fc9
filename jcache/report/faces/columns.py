"""Tables of a report as plain text: names to the left, numbers aligned to the right, as wide as the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcache.report.faces.compare import Difference, ratio_shown, shown
from jcache.report.faces.units import duration, human, percent, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.report.faces.tables import Line

NAME_WIDTH = 24
"""A name gets at least so many characters, however narrow the terminal."""


def layout(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table whose first column shrinks, in the middle of its words, to fit a width."""
    cells = [[visible(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    widths[0] = max(min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:])), min(widths[0], NAME_WIDTH))
    lines = []
    for row in cells:
        first = f"{shortened(row[0], widths[0]):{widths[0]}}"
        others = (f"{cell:>{size}}" for cell, size in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *others]).rstrip())
    return lines


def parts(title: str, lines: Sequence[Line], width: int, *, of_files: bool) -> list[str]:
    """Return a run's parts as a table: hosts or processes, or files."""
    heads = [title, *(["size"] if of_files else ["processes"]), "read", "hit rate", "not cached", "opened", "waited"]
    rows = []
    for line in lines:
        first = ("-" if line.size is None else _bytes(line.size)) if of_files else str(line.processes)
        rate = percent(line.hit_bytes, line.bytes)
        cells = [line.name, first, _bytes(line.bytes), rate if rate == "-" else f"{rate} %", _bytes(line.missed_bytes)]
        cells += [str(line.opens), duration(line.waited_s)]
        rows.append(cells if of_files else [*cells, duration(line.real_s)])
    return layout(heads if of_files else [*heads, "real time"], rows, width)


def differences(found: Sequence[Difference], names: tuple[str, str], width: int) -> list[str]:
    """Return two runs side by side."""
    rows = [
        [
            line.label,
            shown(line.a, line.unit),
            shown(line.b, line.unit),
            shown(line.change, line.unit, sign=True),
            ratio_shown(line.ratio),
        ]
        for line in found
    ]
    heads = ["", *(shortened(visible(name), NAME_WIDTH) for name in names), "difference", "ratio"]
    return layout(heads, rows, width)


def _bytes(value: float) -> str:
    return " ".join(human(value))


def shortened(text: str, width: int) -> str:
    """Cut a text in its middle to fit a width: a URL's host and its file are at its ends."""
    if len(text) <= width:
        return text
    head = (width - 3) // 3
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"
