"""``jcache demo``: show on this machine what the cache does for an analysis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jcache.cli.errors import CommandError

if TYPE_CHECKING:
    from rich.table import Table

    from jcache.demo.runner import Outcome, Run

_EQUAL = {True: "yes", False: "NO", None: "-"}


@click.command()
@click.option(
    "--events",
    type=click.IntRange(100, 1_000_000),
    default=15_000,
    show_default=True,
    metavar="N",
    help="Events a file.",
)
@click.option(
    "--files", type=click.IntRange(1, 100), default=4, show_default=True, metavar="N", help="Number of files."
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["ttree", "rntuple", "both"]),
    default="both",
    show_default=True,
    help="How ROOT stores the events; with both, the last file is an RNTuple.",
)
@click.option(
    "--origin",
    type=click.Choice(["auto", "xrootd", "http"]),
    default="auto",
    show_default=True,
    help="Server of the files; auto takes XRootD where it is installed.",
)
@click.option(
    "--rtt",
    "rtt_ms",
    type=click.FloatRange(0, 1000),
    default=20,
    show_default=True,
    metavar="MS",
    help="Round trip to the server in milliseconds, as from a site of another country; 0 for none.",
)
@click.option(
    "--keep",
    "--dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work in DIR/jcache-demo and leave data set, cache and reports there; the data set is used again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def demo(
    *,
    events: int,
    files: int,
    formats: Literal["ttree", "rntuple", "both"],
    origin: Literal["auto", "xrootd", "http"],
    rtt_ms: float,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Show what the cache does for an analysis, on this machine.

    Writes a data set like CMS NanoAOD (947 columns), serves it on the loopback interface, and runs a selection of
    top-quark pairs over seven of the columns in fresh processes: without the cache, cold, warm, with more columns, and
    warm with the origin stopped. The analysis is plain uproot. At the end curl and xrdcp, if they are there, read a
    file through 'jcache serve'. A wire in front of the server makes it as far away as --rtt says; else there would be
    nothing to save.

    \b
    Exit codes:
      0  all runs gave the same results, and the warm run took no byte from the origin
      1  they did not, or the demonstration could not be set up; the message says why
      2  an option is wrong
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from jcache.demo.runner import DemoError, Options, run

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        options = Options(events=events, files=files, formats=formats, origin=origin, rtt_ms=rtt_ms, keep=keep)
        try:
            outcome = run(options, progress)
        except (DemoError, OSError) as error:
            raise CommandError(str(error)) from error
    if as_json:
        click.echo(json.dumps(outcome.to_json(), indent=2))
    else:
        _show(outcome, f"{files} files of {events:,} events", rtt_ms)
    if outcome.problems:
        raise SystemExit(1)


def _show(outcome: Outcome, content: str, rtt_ms: float) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if outcome.note:
        console.print(outcome.note, markup=False)
    distance = f"over a wire of {rtt_ms:g} ms (--rtt)" if rtt_ms else "over the loopback interface"
    console.print(
        f"Data set: {content}, {_megabytes(outcome.dataset_bytes)} MB, from {outcome.origin}, {distance}.\n"
        f"Bytes from the origin are counted by {outcome.counted}."
    )
    console.print()
    console.print(_table(outcome.runs))
    console.print()
    if outcome.warm.stderr:
        console.print("The warm run's report:\n" if outcome.warm.report else "The warm run printed:\n")
        console.print(outcome.warm.stderr.rstrip(), markup=False)
    for problem in outcome.problems:
        console.print(f"FAILED  {problem}", style="bold red", markup=False)
    if not outcome.problems:
        console.print("\nAll runs gave the same results; the warm run took no byte from the origin.")
        for read in outcome.clients:
            size = f"{_megabytes(read.nbytes)} MB"
            console.print(f"Origin stopped, {read.client} read {read.name} ({size}) from jcache serve: equal.")


def _table(runs: tuple[Run, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in ("time (s)", "origin (MB)", "disk (MB)", "hit rate", "equal"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.name,
            "-" if run.seconds is None else f"{run.seconds:.2f}",
            _megabytes(run.origin_bytes),
            "-" if run.disk_bytes is None else _megabytes(run.disk_bytes),
            "-" if run.hit_rate is None else f"{100 * run.hit_rate:.2f} %",
            _EQUAL[run.equal],
        )
    return table


def _megabytes(nbytes: int) -> str:
    """Return a number of bytes in MB, where anything but zero shows as more than zero."""
    return "0" if nbytes == 0 else f"{max(nbytes / 1e6, 0.001):.3f}"
