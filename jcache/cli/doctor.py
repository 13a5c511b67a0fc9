"""`jcache doctor`: whether a directory is fit to be a cache."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from jcache.cli.catalogue import cache_config
from jcache.cli.errors import WrongInputError
from jcache.cli.options import directory_argument, directory_option, one_directory
from jcache.doctor.examine import PEER_WAIT_S, examine
from jcache.doctor.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcache.doctor.model import Diagnosis


@click.command("doctor")
@directory_argument
@directory_option
@click.option("--peer", is_flag=True, help="Try it together with another node, where the same command runs.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.1),
    default=PEER_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the other node.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(
    ctx: click.Context, place: str | None, directory: Path | None, *, peer: bool, wait_s: float, as_json: bool
) -> None:
    """Tell whether DIR (by default JCACHE_DIR) is fit to be a cache directory, and what would be better.

    It tries what the cache does there: files, names, times, locks between two processes, and how long each takes. It
    takes a few seconds, and leaves nothing behind.

    What a file system does between nodes shows only there: run `jcache doctor --peer DIR` on two nodes at the same
    time.

    \b
    Exit codes:
      0  fit, perhaps with limits: something works less well than it could
      1  not fit
      2  DIR is wrong
    """
    where = _locate(one_directory(place, directory))
    with _progress() as progress:
        if peer:
            click.echo(
                f"jcache: run `jcache doctor --peer` for this directory on another node, within {wait_s:g} s", err=True
            )
        diagnosis = examine(where, peer_wait_s=wait_s if peer else None, progress=progress)
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=1))
    else:
        _show(diagnosis)
    ctx.exit(1 if diagnosis.verdict is Verdict.UNFIT else 0)


def _locate(directory: str | None) -> str:
    if directory is None:
        return cache_config(None, remedy="name one, or set JCACHE_DIR")[0]
    if not os.path.isdir(directory):
        if os.path.lexists(directory):
            raise WrongInputError(f"not a directory: {directory}")
        raise WrongInputError(f"no such directory: {directory}; make it first")
    return os.path.abspath(directory)


def _show(diagnosis: Diagnosis) -> None:
    click.echo(diagnosis.summary)
    width = max(len(check.name) for check in diagnosis.checks)
    # In a pipe, a line stays a line: it can be searched for.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for check in diagnosis.checks:
        _show_lines(f"  {check.level.value:<6} {check.name:<{width}}  ", check.finding, columns)
        if check.advice:
            _show_lines(" " * (width + 11), f"-> {check.advice}", columns)


def _show_lines(before: str, text: str, columns: int) -> None:
    room = max(columns - len(before), 30)
    for line in textwrap.wrap(text, room, break_on_hyphens=False) or [""]:
        click.echo(before + line)
        before = " " * len(before)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Show on stderr, if that is a terminal, what is being tried."""
    if not sys.stderr.isatty():
        yield lambda what: None  # noqa: ARG005
        return
    from rich.console import Console

    with Console(stderr=True).status("trying") as status:
        yield lambda what: status.update(f"trying: {what}")
