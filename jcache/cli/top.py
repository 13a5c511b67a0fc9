"""`jcache top`: the jobs that use a cache just now."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from jcache.cli.catalogue import may_be_cache
from jcache.cli.errors import WrongInputError
from jcache.cli.options import directory_argument, directory_option, one_directory
from jcache.report.faces.columns import shortened
from jcache.report.faces.units import duration, human, number_of, percent, visible
from jcache.report.running import RunningJob, Watch
from jcache.report.select import SelectionError
from jcache.settings.config import Config, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
    from rich.text import Text

_FIRST_TO_GO = ("host", "heard", "time", "read", "user")
"""What is left out of a narrow terminal, the first one first."""

_GAP, _NAME_WIDTH, _LEAST_NAME_WIDTH = 2, 16, 8
_HINT = "No running job reports here. Jobs do from a second after their first read on, unless JCACHE_STATS=0."


@click.command()
@directory_argument
@directory_option
@click.option("--once", is_flag=True, help="Print the jobs once and end; so, too, where the output is no terminal.")
@click.option("--every", default=2.0, type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="How often to look; 2.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, once.")
def top(place: str | None, directory: Path | None, *, once: bool, every: float, as_json: bool) -> None:
    """Show the jobs that use a cache just now: processes, bytes, hit rate, present bandwidth.

    DIR is a cache directory, or a directory of reports; by default the one that JCACHE_DIR (or JCACHE_JSON) names.

    Jobs are seen by the interim reports that their processes write, from a second after their first read on. Processes
    are running, ended, killed (gone from this host without a final report) or silent (elsewhere, on another host
    or in a container, and not heard of for long: idle, or killed). End it with Ctrl-C.

    \b
    Exit codes:
      0  shown, even if no job runs
      2  the directory or a value is wrong
    """
    given = one_directory(place, directory)
    watch = Watch(given or _reports_directory())
    live = not (once or as_json) and sys.stdout.isatty()
    if not live and not os.path.isdir(watch.directory) and (given is not None or not _may_come(watch.directory)):
        raise WrongInputError(f"no such directory: {watch.directory}")
    if given is not None and os.path.isdir(given) and not (watch.has_reports() or may_be_cache(given)):
        raise WrongInputError(f"{given} is neither a cache directory nor one of reports")
    try:
        if as_json:
            click.echo(json.dumps([job.to_json() for job in watch.look()], indent=1))
            return
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        if not live or console.is_dumb_terminal:
            console.print(_seen(watch))
        else:
            _live(watch, every, console)
    except SelectionError as error:
        raise WrongInputError(str(error)) from None
    except KeyboardInterrupt:
        pass  # the way to end it


def _live(watch: Watch, every: float, console: Console) -> None:
    from rich.live import Live

    with Live(_seen(watch), console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_seen(watch), refresh=True)
            time.sleep(every)


def _seen(watch: Watch) -> RenderableType:
    """Return what there is to see just now: jobs, and what is known of processes that have not reported."""
    from rich.console import Group
    from rich.text import Text

    jobs, silent = watch.look(), watch.unheard()
    if not os.path.isdir(watch.directory):
        return Text(f"Waiting for {watch.directory}, which is not there yet.")
    if not silent:
        return drawn(jobs)
    verb = "uses the cache and has" if silent == 1 else "use the cache and have"
    lines = Text(f"{number_of(silent, 'process')} {verb} not reported yet.")
    return Group(drawn(jobs), lines) if jobs else lines


def drawn(jobs: list[RunningJob]) -> RenderableType:
    """Return jobs as a table, or a line that says why there is none."""
    from rich.text import Text

    return JobTable(jobs) if jobs else Text(_HINT)


class JobTable:
    """Jobs as a table that leaves out what matters least where the terminal is narrow, and cuts no number.

    Args:
        jobs: One or more, in their order.
    """

    def __init__(self, jobs: list[RunningJob]) -> None:
        rows = [_cells(job) for job in jobs]
        names = [name for name in rows[0] if name != "user" or len({job.user for job in jobs}) > 1]
        self._columns = {name: [row[name] for row in rows] for name in names}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, as wide as there is room."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        widths = {name: max(len(name), *(cell.cell_len for cell in cells)) for name, cells in self._columns.items()}
        room = options.max_width - _GAP * (len(widths) - 1)
        for name in _FIRST_TO_GO:
            if sum(widths.values()) - widths["job"] + min(widths["job"], _NAME_WIDTH) <= room:
                break
            if widths.pop(name, None) is not None:
                room += _GAP
        rest = sum(widths.values()) - widths["job"]
        widths["job"] = min(widths["job"], max(room - rest, _LEAST_NAME_WIDTH))
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for name, width in widths.items():
            justify: JustifyMethod = "left" if name in ("job", "user", "host") else "right"
            table.add_column(name, justify=justify, width=width, overflow="ellipsis", no_wrap=True)
        for job, *others in zip(*(self._columns[name] for name in widths), strict=True):
            table.add_row(Text(shortened(job.plain, widths["job"]), style="bold"), *others)
        yield table


def _cells(job: RunningJob) -> dict[str, Text]:
    """Return what a job's row says, by the names of the columns."""
    from rich.text import Text

    report = job.report
    hosts = report.hosts[0] if len(report.hosts) == 1 else f"{len(report.hosts)} hosts"
    states = Text()
    for state, style in (("running", "green"), ("ended", ""), ("killed", "bold red"), ("silent", "yellow")):
        count = job.states.get(state)  # type: ignore[call-overload]  # the four names are the four states
        if count:
            states.append(f"{', ' if states else ''}{count} {state}", style=style)
    rate = percent(report.hit_bytes, report.requested_bytes)
    return {
        "job": Text(visible(job.name)),
        "user": Text(visible(job.user)),
        "host": Text(visible(hosts)),
        "processes": states,
        "time": Text(duration(report.real_s)),
        "read": Text(" ".join(human(report.requested_bytes))),
        "hit rate": Text(rate if rate == "-" else f"{rate} %"),
        "cache now": Text(f"{' '.join(human(job.hit_bytes_per_s))}/s", style="green"),
        "origin now": Text(f"{' '.join(human(job.miss_bytes_per_s))}/s", style="yellow"),
        "heard": Text(f"{duration(job.age_s)} ago"),
    }


def _reports_directory() -> str:
    try:
        directory = Config.from_environ(os.environ).report_directory
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    if directory is None:
        raise WrongInputError("which cache? Name its directory, or set JCACHE_DIR")
    return directory


def _may_come(reports: str) -> bool:
    """Whether a cache is there that has no reports yet."""
    return os.path.isdir(os.path.dirname(reports))
