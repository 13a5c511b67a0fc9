"""The report as people read it: one panel, the run's numbers in groups, two profiles over time.

Nothing of a report's own words (names, commands, reasons) is taken as markup or reaches a terminal as a control
character.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import time
from typing import TYPE_CHECKING, TextIO

from jcache.report import plot
from jcache.report.merge import describe
from jcache.report.rows import INTERIM, Row, groups, unfinished
from jcache.report.units import human, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jcache.report.model import Report

MIN_WIDTH, FILE_WIDTH, MAX_WIDTH = 40, 80, 100

Line = list[plot.Span]

# What a terminal takes for a style: bold, dim, and colours. Without rich, whose import and layout would take more than
# all else that the end of a process does.
_CODES = {"cache": "32", "origin": "33", "axis": "2", "value": "1", "bad": "1;31"}
_BLOCKS_FRAME, _ASCII_FRAME = "╭─╮│╰╯", "+-+|++"
# Characters of which it is not clear that each takes one cell.
_UNCLEAR = re.compile("[^\x00-\u02ff\u2500-\u259f]")


def render(
    report: Report, file: TextIO, *, note: str = "", width: int | None = None, color: bool | None = None
) -> None:
    """Print a report.

    Args:
        report: What to print.
        file: Where to: a terminal, or a file, which gets no colour and 80 columns.
        note: A line of the caller's below the run's own, instead of the one that says what was merged.
        width: Columns to use instead of the terminal's.
        color: Whether to use colour, instead of what the terminal and `NO_COLOR` say.

    Raises:
        OSError: The file does not take it.
    """
    terminal, encoding = file.isatty(), (getattr(file, "encoding", None) or "utf-8").lower()
    in_blocks = encoding.startswith("utf")
    width = max(MIN_WIDTH, width or (min(_columns(file), MAX_WIDTH) if terminal else FILE_WIDTH))
    marks = plot.BLOCKS if in_blocks else plot.ASCII
    inner = width - 4
    blocks = [_heading(report, note, inner, encoding), *(_table(group, inner) for group in groups(report))]
    blocks.extend(_profiles(report, inner, marks))
    styled = (terminal if color is None else color) and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}
    paint = _painter(styled=styled, colored=color is True or not os.environ.get("NO_COLOR"))
    frame = _BLOCKS_FRAME if in_blocks else _ASCII_FRAME
    text = [paint(f"{frame[0]}{frame[1]} ", "axis"), paint("JCache", "value")]
    text.append(paint(f" {frame[1] * (width - 11)}{frame[2]}", "axis") + "\n")
    side = paint(frame[3], "axis")
    for number, block in enumerate(blocks):
        for line in ([], *block) if number else block:
            for row in _wrapped(line, inner):
                pad = " " * (inner - sum(_cells(words) for words, _ in row))
                text.append(f"{side} {''.join(itertools.starmap(paint, row))}{pad} {side}\n")
    text.append(paint(f"{frame[4]}{frame[1] * (width - 2)}{frame[5]}", "axis") + "\n")
    file.write("".join(text))
    file.flush()


def _columns(file: TextIO) -> int:
    """Return the width of a terminal."""
    given = os.environ.get("COLUMNS", "")
    try:
        return int(given) if given.isdigit() else os.get_terminal_size(file.fileno()).columns or FILE_WIDTH
    except (OSError, ValueError):
        return FILE_WIDTH


def _painter(*, styled: bool, colored: bool) -> Callable[[str, str], str]:
    def paint(text: str, style: str) -> str:
        code = _CODES.get(style, "") if styled else ""
        if not colored:
            code = ";".join(part for part in code.split(";") if len(part) == 1)
        return f"\x1b[{code}m{text}\x1b[0m" if code and text else text

    return paint


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if _UNCLEAR.search(text) is None:
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    """Return what of a text fits."""
    if _cells(text) <= width:
        return text
    if _UNCLEAR.search(text) is None:
        return text[: width - 4] + " ..."
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 4) + " ..."


def _wrapped(line: Line, width: int) -> Iterator[Line]:
    """Yield a line as one or several that fit: a number in a narrow terminal, say."""
    cells = [(mark, style) for text, style in line for mark in text]
    while sum(_cells(text) for text, _ in line) > width:
        end = next((at + 1 for at in range(width, 0, -1) if cells[at][0] == " "), width)
        yield _joined(cells[:end] if cells[end - 1][0] != " " else cells[: end - 1])
        cells = cells[end:]
        line = _joined(cells)
    yield line


def _joined(cells: Line) -> Line:
    """Put neighbours of one style together."""
    parts = itertools.groupby(cells, lambda cell: cell[1])
    return [("".join(mark for mark, _ in part), style) for style, part in parts]


def _printable(text: str, encoding: str) -> str:
    """Return a text in one line that the file can take: control characters, lone surrogates and the like as escapes."""
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def _heading(report: Report, note: str, width: int, encoding: str) -> list[Line]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.start_time))
    lines = [
        (f"{report.appname} on {report.host} (pid {report.pid}), {when}", "value"),
        (report.command, ""),
        (note or describe(report), ""),
        (unfinished(report), "bad" if unfinished(report) == INTERIM else ""),
        (f"cache not used: {report.cache.bypassed}" if report.cache.bypassed is not None else "", "bad"),
    ]
    return [[(_cut(_printable(words, encoding), width), style)] for words, style in lines if words]


def _table(rows: list[Row], width: int) -> list[Line]:
    """Lay rows out as `label : number unit`, numbers aligned to the right where the width allows."""
    label_width = 25
    number_width = 15 if width >= 60 else 0
    lines: list[Line] = []
    for label, number, unit, style in rows:
        line = [(f"{label:{label_width}} : ", ""), (f"{number:>{number_width}}", style)]
        for word in unit.split(" ", 1):
            if sum(len(text) for text, _ in line) + 1 + len(word) > width:
                lines.append(line)
                line = [(" " * max(0, min(label_width + 2, width - 1 - len(word))), "")]
            if word:
                line.append((f" {word}", ""))
        lines.append(line)
    return lines


def _profiles(report: Report, width: int, marks: plot.Marks) -> list[list[Line]]:
    """Draw bandwidth and hit rate over the run's real time."""
    profile = report.profile
    if not (report.requested_bytes and report.real_s > 0):
        return []
    axis_width = 11
    count = width - axis_width - 3
    hit = plot.columns(profile.hit_bytes, profile.bin_s, report.real_s, count)
    miss = plot.columns(profile.miss_bytes, profile.bin_s, report.real_s, count)
    column_s = report.real_s / count
    rows = 8
    highest = max(a + b for a, b in zip(hit, miss, strict=True)) / column_s
    if highest <= 0:
        return []
    top = plot.nice_ceiling(highest)
    bandwidth = plot.stacked([n / column_s for n in hit], [n / column_s for n in miss], top, rows, marks)
    labels = {row: "{} {}/s".format(*human(top * (rows - row) / rows)) for row in range(0, rows, 2)}
    first = _legend("bandwidth", [(marks.levels[-1], "cache", "cache"), (marks.origin, "origin", "origin")])
    second = _legend("hit rate", [(marks.zero, "origin", "no hit"), ("", "", "blank: no reads")])
    rates = plot.shares(hit, [a + b for a, b in zip(hit, miss, strict=True)], 4, marks)
    percents = {row: f"{100 - 25 * row} %" for row in range(4)}
    framed = functools.partial(_framed, real_s=report.real_s, axis_width=axis_width, marks=marks)
    return [
        [first, *framed(bandwidth, labels, zero="0 B/s")],
        [second, *framed(rates, percents, zero="0 %")],
    ]


def _legend(title: str, marks: list[tuple[str, str, str]]) -> Line:
    line = [(title, "value")]
    for mark, style, meaning in marks:
        line += [("   ", ""), (mark, style), (f" {meaning}" if mark else meaning, "")]
    return line


def _framed(
    rows: list[list[plot.Span]], labels: dict[int, str], *, zero: str, real_s: float, axis_width: int, marks: plot.Marks
) -> Iterable[Line]:
    """Put labels to the left of a plot, and the time axis with its labels below it."""
    for number, spans in enumerate(rows):
        label = labels.get(number, "")
        yield [(f"{label:>{axis_width}} ", ""), (marks.notch if label else marks.up, "axis"), *spans]
    ticks, times = plot.time_axis(real_s, sum(len(text) for text, _ in rows[0]), marks)
    yield [(f"{zero:>{axis_width}} ", ""), (marks.corner + ticks, "axis")]
    yield [(" " * (axis_width + 2) + times, "")]
