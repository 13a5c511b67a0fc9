"""A profile as people see it in a terminal: tables, the picture, two profiles side by side."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from jcache.profile.picture import HIT, MISS, Picture, draw
from jcache.report.faces import columns, plot
from jcache.report.faces.compare import Difference
from jcache.report.faces.units import duration, human, number_of, percent, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jcache.profile.reader import Profile
    from jcache.profile.statistics import FileUse, Look
    from jcache.report.faces.compare import Unit

__all__ = [
    "differences",
    "drawn",
    "file_differences",
    "files_apart",
    "heading",
    "name_of",
    "print_picture",
    "print_profile",
    "tables",
]

MOST_FILES = 40
"""Files that a table has; JSON has all."""

MOST_COLUMNS = 120
"""Of a picture; a terminal may be wider."""

_AXIS, _ROWS = 11, 20
_STYLES = {0: "", HIT: "green", MISS: "yellow", HIT | MISS: "cyan"}


def drawn(profile: Profile, look: Look, *, width: int, files: Sequence[FileUse] | None = None) -> Picture | None:
    """Return the picture for `print_profile`, whose arguments these are; None where there is nothing to be seen.

    Raises:
        ProfileError: The profile cannot be read.
    """
    chosen = look.files if files is None else files
    if not look.real_s or not any(one.bytes for one in chosen):
        return None
    return draw(profile, chosen, real_s=look.real_s, columns=min(width, MOST_COLUMNS) - _AXIS - 3, rows=_ROWS)


def print_profile(
    profile: Profile,
    look: Look,
    picture: Picture | None,
    file: TextIO,
    *,
    width: int,
    files: Sequence[FileUse] | None = None,
) -> None:
    """Print what a profile says, and its picture.

    Args:
        profile: The profile.
        look: What it says in numbers.
        picture: As it was `drawn`.
        file: Where to.
        width: Columns to use.
        files: Only these, of which there is then the first table only.
    """
    chosen = look.files if files is None else list(files)
    file.writelines(f"{line}\n" for line in heading(look, name_of(profile)))
    shown = tables(replace(look, files=chosen), width)
    for lines in shown if files is None else [next(shown)]:
        file.writelines(f"{line}\n" for line in ["", *lines])
    if picture is not None:
        file.write("\n")
        print_picture(picture, file, width=width)


def name_of(profile: Profile) -> str:
    """Return what a profile is of: a job, and where it ran."""
    head = profile.recordings[0].head
    hosts = {one.head.host for one in profile.recordings if one.head.host}
    where = f" on {hosts.pop()}" if len(hosts) == 1 else f" on {len(hosts)} hosts" if hosts else ""
    return f"{head.appname or 'profile'}{where}"


def heading(look: Look, name: str) -> list[str]:
    """Return what a profile is of, in a few lines."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(look.start_time))
    asked = ", ".join(number_of(count, kind) for kind, count in look.requests.items() if count)
    lines = [
        f"{name}, {when}: {number_of(look.processes, 'process')}, {duration(look.real_s)}",
        f"requests: {asked or 'none'}",
    ]
    questions = look.requests["stat"] + look.requests["listing"]
    if questions:
        lines[-1] += f"; {look.answered} of {number_of(questions, 'question')} answered from the cache"
    ends = [f"{number_of(count, 'recording')} {state}" for state, count in look.states.items() if state != "complete"]
    if ends:
        lines.append(f"{', '.join(ends)}: what came behind that is missing")
    if look.lost:
        lines.append(f"{number_of(look.lost, 'request')} could not be recorded in time")
    return [visible(line) for line in lines]


def tables(look: Look, width: int) -> Iterator[list[str]]:
    """Yield the tables of a profile, each as its lines."""
    total = look.total()
    most = sorted(look.files, key=lambda one: -one.bytes)[:MOST_FILES]
    heads = ["file", "reads", "ranges", "read", "hit rate", "distinct", "of file", "again", "in order"]
    rows = [_row(one) for one in [*most, *([total] if len(look.files) > 1 else [])]]
    yield columns.layout([*heads, "rate"], rows, width)
    if len(look.files) > len(most):
        yield [f"{len(look.files) - len(most)} files that less was read of are not shown; --json has all"]
    asked = sum(nbytes for _, nbytes in look.sizes.values())
    if look.sizes:
        yield columns.layout(
            ["ranges of up to", "ranges", "share", "bytes", "share"],
            [
                [_bytes(size), str(count), _percent(count, total.ranges), _bytes(nbytes), _percent(nbytes, asked)]
                for size, (count, nbytes) in look.sizes.items()
            ],
            width,
        )
    if look.distances:
        steps = sum(look.distances.values())
        yield columns.layout(
            ["from the end of the range before", "ranges", "share"],
            [[_distance(most), str(count), _percent(count, steps)] for most, count in look.distances.items()],
            width,
        )
    if any(one.saved_ranges for one in look.coalescing):
        yield columns.layout(
            ["coalescing vectors at gaps of up to", "ranges", "saved", "share", "extra bytes", "of all"],
            [
                [
                    _bytes(one.gap),
                    str(total.ranges - one.saved_ranges),
                    str(one.saved_ranges),
                    _percent(one.saved_ranges, total.ranges),
                    _bytes(one.extra_bytes),
                    _percent(one.extra_bytes, total.bytes),
                ]
                for one in look.coalescing
            ],
            width,
        )


def _row(one: FileUse) -> list[str]:
    steps = one.sequential + one.forward + one.backward
    again = max(one.bytes - one.distinct_bytes, 0)
    rate = f"{_bytes(one.bytes / one.waited_s)}/s" if one.waited_s else "-"
    return [
        one.url or "(not known)",
        str(one.reads),
        str(one.ranges),
        _bytes(one.bytes),
        _percent(one.hit_bytes, one.bytes),
        _bytes(one.distinct_bytes),
        _percent(one.distinct_bytes, one.size or 0),
        _percent(again, one.bytes),
        _percent(one.sequential, steps),
        rate,
    ]


def _percent(part: float, whole: float) -> str:
    share = percent(part, whole)
    return share if share == "-" else f"{share} %"


def _bytes(value: float) -> str:
    return " ".join(human(value))


def _distance(most: int) -> str:
    if not most:
        return "none: in order"
    return f"up to {_bytes(abs(most))} {'ahead' if most > 0 else 'back'}"


def print_picture(picture: Picture, file: TextIO, *, width: int) -> None:
    """Print a picture: time to the right, offset upwards, what the cache served and what it did not apart."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False, force_jupyter=False)
    is_utf = console.encoding.startswith("utf")
    marks = plot.BLOCKS if is_utf else plot.ASCII
    shown = {0: " ", HIT: marks.levels[-1], MISS: marks.origin, HIT | MISS: "▒" if is_utf else "x"}
    legend = Text("offset over time", style="bold")
    for kind, meaning in ((HIT, "cache"), (MISS, "origin"), (HIT | MISS, "both")):
        legend.append(f"   {shown[kind]}", style=f"not bold {_STYLES[kind]}")
        legend.append(f" {meaning}", style="not bold")
    console.print(legend)
    rows = len(picture.cells)
    for number, cells in enumerate(picture.cells):
        label = _bytes(picture.extent * (rows - number) / rows) if number % 4 == 0 else ""
        line = Text(f"{label:>{_AXIS}} ")
        line.append(marks.notch if label else marks.up, style="dim")
        for cell in cells:
            line.append(shown[cell], style=_STYLES[cell])
        console.print(line)
    ticks, times = plot.time_axis(picture.real_s, len(picture.cells[0]), marks)
    console.print(Text.assemble(f"{'0 B':>{_AXIS}} ", (marks.corner + ticks, "dim")))
    console.print(Text(" " * (_AXIS + 2) + times))
    if len(picture.files) > 1:
        console.print(Text(f"{len(picture.files)} files, laid end to end in the order of their first requests"))


def differences(a: Look, b: Look) -> list[Difference]:
    """Return two profiles side by side, in numbers."""
    measures: list[tuple[str, Unit, Callable[[Look, FileUse], float | None]]] = [
        ("processes", "", lambda look, _: look.processes),
        ("real time", "s", lambda look, _: look.real_s),
        *((f"requests: {kind}", "", _counted(kind)) for kind in a.requests),
        ("files", "", lambda look, _: len(look.files)),
        ("ranges", "", lambda _, total: total.ranges),
        ("bytes", "bytes", lambda _, total: total.bytes),
        ("bytes from the cache", "bytes", lambda _, total: total.hit_bytes),
        ("bytes from the origin", "bytes", lambda _, total: total.miss_bytes + total.bypass_bytes),
        ("distinct bytes", "bytes", lambda _, total: total.distinct_bytes),
        ("bytes read again", "bytes", lambda _, total: max(total.bytes - total.distinct_bytes, 0)),
        ("ranges in order", "%", lambda _, total: _share(total.sequential, total.ranges)),
        ("time waited", "s", lambda _, total: total.waited_s),
    ]
    totals = a.total(), b.total()
    return [Difference(label, unit, of(a, totals[0]), of(b, totals[1])) for label, unit, of in measures]


def _counted(kind: str) -> Callable[[Look, FileUse], float | None]:
    return lambda look, _: look.requests[kind]


def _share(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None


def files_apart(a: Look, b: Look) -> list[tuple[str, FileUse | None, FileUse | None]]:
    """Return the files that were read differently, by what lies between them, the most first."""
    first, second = ({one.url: one for one in look.files} for look in (a, b))
    found = [(url, first.get(url), second.get(url)) for url in dict.fromkeys([*first, *second])]

    def read(one: FileUse | None) -> tuple[int, int, int]:
        return (0, 0, 0) if one is None else (one.bytes, one.distinct_bytes, one.ranges)

    apart = [one for one in found if read(one[1]) != read(one[2])]
    return sorted(apart, key=lambda one: -abs(read(one[1])[0] - read(one[2])[0]))


def file_differences(apart: Sequence[tuple[str, FileUse | None, FileUse | None]], width: int) -> list[str]:
    """Return such files as a table."""
    rows = []
    for url, first, second in apart[:MOST_FILES]:
        cells = [url or "(not known)"]
        for one in (first, second):
            cells += (
                ["-", "-", "-"] if one is None else [str(one.ranges), _bytes(one.bytes), _bytes(one.distinct_bytes)]
            )
        rows.append(cells)
    return columns.layout(["file", "ranges", "read", "distinct", "ranges", "read", "distinct"], rows, width)
