"""A job in parts: by host, by process, by remote file; the files that were waited for longest, and the coldest ones."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.report.model import Report, UrlUse

By = Literal["host", "url", "process"]
KINDS: tuple[By, ...] = ("host", "url", "process")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table. Sizes are in bytes, times in seconds.

    Attributes:
        name: Host, URL, or program, host and process id.
        processes: How many processes read there, or that file.
        bytes: Requested bytes; `hit_bytes` of them came from the journal.
        opens: Openings of files.
        size: Of the file; `None` where it is not one file, or not known.
        waited_s: Time in which openings and reads kept somebody waiting; `None` where nobody measured.
        real_s: From the first start to the last end; `None` for files.
    """

    name: str
    processes: int
    bytes: int
    hit_bytes: int
    opens: int
    size: int | None
    waited_s: float | None
    real_s: float | None

    @property
    def missed_bytes(self) -> int:
        """Requested bytes that did not come from the journal."""
        return self.bytes - self.hit_bytes


def table(reports: Sequence[Report], by: By) -> list[Line]:
    """Return one line for each host, process or URL, the largest first; lines of a kind add up to the whole.

    A merged report is one process here, unless the table is by URL.
    """
    if by == "url":
        return _by_url(reports)
    groups: dict[tuple[str, int, float], list[Report]] = defaultdict(list)
    for report in reports:
        groups[(report.host, 0, 0.0) if by == "host" else (report.host, report.pid, report.start_time)].append(report)
    lines = [
        Line(
            name=key[0] if by == "host" else f"{members[0].appname} on {key[0]} (pid {key[1]})",
            processes=sum(report.processes for report in members),
            bytes=sum(report.requested_bytes for report in members),
            hit_bytes=sum(report.hit_bytes for report in members),
            opens=sum(report.files.opened for report in members),
            size=None,
            waited_s=math.fsum(report.waited_s for report in members) or None,
            real_s=max(report.end_time for report in members) - min(report.start_time for report in members),
        )
        for key, members in groups.items()
    ]
    return _largest_first(lines)


def slowest(lines: Sequence[Line], count: int = 5) -> list[Line]:
    """Return the files that were waited for longest; none where nobody measured it."""
    waited = [line for line in lines if line.waited_s]
    return sorted(waited, key=lambda line: (-(line.waited_s or 0.0), line.name))[:count]


def coldest(lines: Sequence[Line], count: int = 5) -> list[Line]:
    """Return the files of which most bytes did not come from the cache."""
    cold = [line for line in lines if line.missed_bytes > 0]
    return sorted(cold, key=lambda line: (-line.missed_bytes, line.name))[:count]


def _by_url(reports: Sequence[Report]) -> list[Line]:
    uses: dict[str, list[UrlUse]] = defaultdict(list)
    processes: dict[str, int] = defaultdict(int)
    for report in sorted(reports, key=lambda report: (report.start_time, report.host, report.pid)):
        for use in report.urls:
            uses[use.url].append(use)
            processes[use.url] += 1
    return _largest_first(
        [
            Line(
                name=url,
                processes=processes[url],
                bytes=sum(use.bytes for use in members),
                hit_bytes=sum(use.hit_bytes for use in members),
                opens=sum(use.opens for use in members),
                size=next((use.size for use in reversed(members) if use.size is not None), None),
                waited_s=math.fsum(use.open_s + use.read_s for use in members) or None,
                real_s=None,
            )
            for url, members in uses.items()
        ]
    )


def _largest_first(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (-line.bytes, line.name))
