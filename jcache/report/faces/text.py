"""The report as people read it: one panel, the run's numbers in groups, two profiles over time.

Nothing of a report's own words (names, commands, reasons) is taken as markup or reaches a terminal as a control
character.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, TextIO

from rich.box import ROUNDED
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from jcache.report.faces import plot
from jcache.report.faces.rows import INTERIM, Row, groups, unfinished
from jcache.report.faces.units import human, visible
from jcache.report.merge import describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.report.model import Report

MIN_WIDTH, FILE_WIDTH, MAX_WIDTH = 40, 80, 100

_STYLES = {"cache": "green", "origin": "yellow", "axis": "dim", "label": "", "value": "bold", "bad": "bold red", "": ""}


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
    console = _console(file, width, color)
    # The same test by which rich takes an ASCII frame.
    marks = plot.BLOCKS if console.encoding.startswith("utf") else plot.ASCII
    inner = console.width - 4
    blocks = [
        _heading(report, note, inner, console.encoding),
        *(_table(group, inner, console.encoding) for group in groups(report)),
    ]
    blocks.extend(_profiles(report, inner, marks))
    lines: list[Text] = []
    for number, block in enumerate(blocks):
        if number:
            lines.append(Text(""))
        lines.extend(block)
    title = Text("JCache", style="bold")
    console.print(Panel(Group(*lines), title=title, title_align="left", box=ROUNDED, border_style="dim"))


def _console(file: TextIO, width: int | None, color: bool | None) -> Console:
    terminal = file.isatty()
    if width is None and not terminal:
        width = FILE_WIDTH  # rich would take the width of whatever terminal is open on another descriptor
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal if color is None else color,
        no_color=None if color is None else not color,
        force_jupyter=False,  # inside a notebook's kernel, too, the report goes where it was sent
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.width = max(MIN_WIDTH, console.width if width is not None else min(console.width, MAX_WIDTH))
    return console


def _printable(text: str, encoding: str) -> str:
    """Return a text in one line that the file can take: control characters, lone surrogates and the like as escapes."""
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def _heading(report: Report, note: str, width: int, encoding: str) -> list[Text]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.start_time))
    lines = [
        (f"{report.appname} on {report.host} (pid {report.pid}), {when}", "bold"),
        (report.command, ""),
        (note or describe(report), ""),
        (unfinished(report), _STYLES["bad" if unfinished(report) == INTERIM else ""]),
        (f"cache not used: {report.cache.bypassed}" if report.cache.bypassed is not None else "", _STYLES["bad"]),
    ]
    heading = []
    for words, style in lines:
        text = _printable(words, encoding)
        if cell_len(text) > width:
            text = set_cell_size(text, width - 4) + " ..."
        if text:
            heading.append(Text(text, style=style, no_wrap=True))
    return heading


def _table(rows: list[Row], width: int, encoding: str) -> list[Text]:
    """Lay rows out as `label : number unit`, numbers aligned to the right where the width allows."""
    label_width = 25
    number_width = 15 if width >= 60 else 0
    lines: list[Text] = []
    for label, number, unit, style in rows:
        line = Text.assemble(f"{label:{label_width}} : ", (f"{number:>{number_width}}", _STYLES[style]))
        for word in _printable(unit, encoding).split(" ", 1):
            if line.cell_len + 1 + len(word) > width:
                lines.append(line)
                line = Text(" " * max(0, min(label_width + 2, width - 1 - len(word))))
            line.append(f" {word}" if word else "")
        lines.append(line)
    return lines


def _profiles(report: Report, width: int, marks: plot.Marks) -> list[list[Text]]:
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


def _legend(title: str, marks: list[tuple[str, str, str]]) -> Text:
    line = Text(title, style="bold")
    for mark, style, meaning in marks:
        line.append("   ", style="not bold")
        line.append(mark, style=f"not bold {_STYLES[style]}".strip())
        line.append(f" {meaning}" if mark else meaning, style="not bold")
    return line


def _framed(
    rows: list[list[plot.Span]], labels: dict[int, str], *, zero: str, real_s: float, axis_width: int, marks: plot.Marks
) -> Iterable[Text]:
    """Put labels to the left of a plot, and the time axis with its labels below it."""
    axis = _STYLES["axis"]
    for number, spans in enumerate(rows):
        label = labels.get(number, "")
        line = Text(f"{label:>{axis_width}} ")
        line.append(marks.notch if label else marks.up, style=axis)
        for text, style in spans:
            line.append(text, style=_STYLES[style])
        yield line
    ticks, times = plot.time_axis(real_s, sum(len(text) for text, _ in rows[0]), marks)
    yield Text.assemble(f"{zero:>{axis_width}} ", (marks.corner + ticks, axis))
    yield Text(" " * (axis_width + 2) + times)
