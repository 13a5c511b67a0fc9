"""`jcache top`: the jobs that use a cache just now."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from jcache.cli.errors import WrongInputError
from jcache.config import Config, ConfigError
from jcache.report.running import RunningJob, Watch
from jcache.report.select import SelectionError
from jcache.report.units import duration, human, percent, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

_HINT = "No running job reports here. Jobs do with JCACHE_STATS set: JCACHE_STATS=10 python job.py"


@click.command()
@click.argument("directory", required=False, metavar="[DIR]")
@click.option("--once", is_flag=True, help="Print the jobs once and end; so, too, where the output is no terminal.")
@click.option("--every", default=2.0, type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="How often to look; 2.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, once.")
def top(directory: str | None, *, once: bool, every: float, as_json: bool) -> None:
    """Show the jobs that use a cache just now: processes, bytes, hit rate, present bandwidth.

    DIR is a cache directory, or a directory of reports; by default the one that JCACHE_DIR (or JCACHE_JSON) names.

    Jobs are seen by the interim reports that they write with JCACHE_STATS set to a number of seconds. Processes are
    running, ended, killed (gone from this host without a final report) or silent (on another host, and late with
    their report). End it with Ctrl-C.

    \b
    Exit codes:
      0  shown, even if no job runs
      2  the directory or a value is wrong
    """
    watch = Watch(directory or _reports_directory())
    if not os.path.isdir(watch.directory) and (directory is not None or not _may_come(watch.directory)):
        raise WrongInputError(f"no such directory: {watch.directory}")
    try:
        if as_json:
            click.echo(json.dumps([job.to_json() for job in watch.look()], indent=1))
        elif once or not sys.stdout.isatty():
            from rich.console import Console

            Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(drawn(watch.look()))
        else:
            _live(watch, every)
    except SelectionError as error:
        raise WrongInputError(str(error)) from None
    except KeyboardInterrupt:
        pass  # the way to end it


def _live(watch: Watch, every: float) -> None:
    from rich.live import Live

    with Live(drawn(watch.look()), auto_refresh=False, screen=True) as live:
        while True:
            live.update(drawn(watch.look()), refresh=True)
            time.sleep(every)


def drawn(jobs: list[RunningJob]) -> RenderableType:
    """Return jobs as a table, or a line that says why there is none."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if not jobs:
        return Text(_HINT)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("job", overflow="ellipsis", no_wrap=True, min_width=8)
    table.add_column("host", overflow="ellipsis", no_wrap=True, min_width=8)
    for name in ("processes", "time", "read", "hit rate", "cache now", "origin now", "heard"):
        table.add_column(name, justify="right", no_wrap=name != "processes")
    for job in jobs:
        report = job.report
        hosts = report.hosts[0] if len(report.hosts) == 1 else f"{len(report.hosts)} hosts"
        states = Text()
        for state, style in (("running", "green"), ("ended", ""), ("killed", "bold red"), ("silent", "yellow")):
            count = job.states.get(state)  # type: ignore[call-overload]  # the four names are the four states
            if count:
                states.append(f"{', ' if states else ''}{count} {state}", style=style)
        rate = percent(report.hit_bytes, report.requested_bytes)
        table.add_row(
            Text(visible(job.name), style="bold"),
            Text(visible(hosts)),
            states,
            duration(report.real_s),
            " ".join(human(report.requested_bytes)),
            rate if rate == "-" else f"{rate} %",
            Text(f"{' '.join(human(job.hit_bytes_per_s))}/s", style="green"),
            Text(f"{' '.join(human(job.miss_bytes_per_s))}/s", style="yellow"),
            f"{duration(job.age_s)} ago",
        )
    return table


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
