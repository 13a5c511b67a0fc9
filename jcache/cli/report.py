"""`jcache report`: the report of a finished run, once more."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from jcache.cli.errors import WrongInputError
from jcache.config import Config, ConfigError
from jcache.report.merge import describe, merge
from jcache.report.model import Report, ReportError


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--last", is_flag=True, help="The newest job in the reports' directory; so without FILES, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.pass_context
def report(ctx: click.Context, files: tuple[Path, ...], *, last: bool, as_json: bool) -> None:
    """Print the report of a run again, as it was printed when the run ended.

    FILES are JSON reports, or directories of them; several are added up as if one process had done all the work.
    Without FILES it is the newest job in JCACHE_JSON or, where that is not set, in JCACHE_DIR/.reports, with all
    of the job's processes.

    \b
    Exit codes:
      0  printed
      1  printed, but some reports could not be read; they are named on stderr
      2  a path is wrong, or there is no report
    """
    if files and last:
        raise WrongInputError("give FILES or --last, not both")
    errors: list[ReportError] = []
    reports = _named(files, errors) if files else _last_job(_reports_directory(), errors)
    for error in errors:
        click.echo(f"jcache: cannot read {error}", err=True)
    if reports:
        total = merge(reports)
        if as_json:
            click.echo(total.dumps(), nl=False)
        else:
            from jcache.report.text import render

            render(total, sys.stdout, note=describe(total))
    ctx.exit(1 if errors else 0)


def _reports_directory() -> Path:
    try:
        directory = Config.from_environ(os.environ).report_directory
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    if directory is None:
        raise WrongInputError("where are the reports? Name them, or set JCACHE_DIR (or JCACHE_JSON)")
    return Path(directory)


def _in_directory(directory: Path) -> list[Path]:
    """Return a directory's reports; those that are being written have another name."""
    try:
        found = sorted(directory.glob("jcache.*.json"))
        if not found:
            next(directory.iterdir(), None)  # glob takes a directory that may not be read for an empty one
    except OSError as error:
        raise WrongInputError(f"cannot read {directory}: {error.strerror}") from None
    if not found:
        raise WrongInputError(f"no reports (jcache.*.json) in {directory}")
    return found


def _named(paths: tuple[Path, ...], errors: list[ReportError]) -> list[Report]:
    """Load what the user named, each file once; what cannot be read goes into `errors`."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files.update(dict.fromkeys(_in_directory(path)))
        elif path.exists():
            files[path] = None
        else:
            raise WrongInputError(f"no such file or directory: {path}")
    distinct = {path.resolve(): path for path in reversed(files)}
    return _load(reversed(distinct.values()), errors)


def _load(files: Iterable[Path], errors: list[ReportError]) -> list[Report]:
    reports = []
    for path in files:
        try:
            reports.append(Report.load(path))
        except ReportError as error:
            errors.append(error)
    return reports


def _last_job(directory: Path, errors: list[ReportError]) -> list[Report]:
    """Load the newest readable report and those of the same job; unreadable ones that are newer go into `errors`."""
    if not directory.is_dir():
        raise WrongInputError(f"no reports yet: {directory} is not a directory")
    ages: dict[Path, float] = {}
    for path in _in_directory(directory):
        try:
            ages[path] = path.stat().st_mtime
        except OSError:
            continue  # cleaned away since it was listed
    files = sorted(ages, key=lambda path: (ages[path], path.name), reverse=True)
    for number, path in enumerate(files):
        newest = _load([path], errors)
        if newest and newest[0].run:
            return newest + _load((other for other in files[number + 1 :] if _is_of(other, newest[0].run)), errors)
        if newest:
            return newest
    return []


def _is_of(path: Path, run: str) -> bool:
    """Tell whether a file looks like a report of this job, without parsing it; `Report.dumps` writes this line."""
    try:
        return f'"run": "{run}"'.encode() in path.read_bytes()
    except OSError:
        return False
