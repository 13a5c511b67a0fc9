"""`jcache report`: what finished and running jobs read, from their JSON reports."""

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, paths
from jcache.report.faces import columns
from jcache.report.faces.compare import Difference, compare
from jcache.report.faces.savings import savings
from jcache.report.faces.tables import KINDS, By, Line, coldest, slowest, table
from jcache.report.faces.units import parse_moment, visible
from jcache.report.model import Report, ReportError
from jcache.report.select import (
    LAST,
    SelectionError,
    expand,
    heads,
    in_directory,
    last_job,
    load,
    named,
    runs,
    total,
)
from jcache.settings.config import Config, ConfigError


@click.command()
@click.argument("files", nargs=-1, metavar="[FILES]...", shell_complete=paths("file"))
@directory_option
@click.option("--last", is_flag=True, help="The newest run only, of those chosen; without any choice, too.")
@click.option("--job", metavar="NAME", help="Reports of jobs of this name (a glob, or a run's id); all of their runs.")
@click.option("--since", metavar="WHEN", help="Runs that ended since: an age such as 12h or 7d, or a date and time.")
@click.option("--by", type=click.Choice(KINDS), multiple=True, help="Add a table by host, file or process; repeatable.")
@click.option("--compare", "pair", nargs=2, metavar="A B", help="Two runs side by side: files, directories or names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one page that needs no other file."
)
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a drawing of the time profiles.")
@click.pass_context
def report(
    ctx: click.Context,
    files: tuple[str, ...],
    directory: Path | None,
    *,
    last: bool,
    job: str | None,
    since: str | None,
    by: tuple[By, ...],
    pair: tuple[str, str] | None,
    as_json: bool,
    html: Path | None,
    svg: Path | None,
) -> None:
    """Print what jobs read, as if one process had done all the work.

    FILES are JSON reports, directories of them, cache directories, or globs. Without FILES they are those of --dir, in
    JCACHE_JSON or, where that is not set, in JCACHE_DIR/.reports; without any choice it is your newest run, printed as
    it was when it ended.

    \b
    Examples:
      jcache report                          your newest run
      jcache report --job ttbar --since 7d   all runs of a job in a week, added up
      jcache report --by host --by url       the newest run, with its hosts and files
      jcache report --compare last~1 last    the run before the newest, and the newest
      jcache report /shared/jcache --last    the newest run of that cache directory
      jcache report --html report.html       the newest run as a page to show

    A job's NAME stands for its newest run in --compare, NAME~1 for the run before that, and so on.

    \b
    Exit codes:
      0  done
      1  done, but some reports could not be read; they are named on stderr
      2  a path, name or value is wrong, or there is no report
    """
    errors: list[ReportError] = []
    if pair is not None:
        if files or last or job or since or by or svg:
            raise WrongInputError("--compare takes its two runs as A and B, and goes with --json and --html only")
        _compare(pair, _configured(directory), errors, as_json=as_json, html=html)
    else:
        if files and directory is not None:
            raise WrongInputError("which reports? FILES were given, and --dir")
        reports, place = _selected(files, directory, errors, last=last, job=job, since=since)
        if reports:
            whole = total(reports, place)
            if html is not None:
                from jcache.report.faces.html import page

                _write(html, page(whole, reports, sections=_profiles(reports, place)))
            if svg is not None:
                from jcache.report.faces.svg import document

                _write(svg, document(whole))
            if as_json:
                _print_json(whole, reports, by)
            elif html is None and svg is None:
                _print_text(whole, reports, by)
    for error in errors:
        click.echo(f"jcache: cannot read {visible(str(error))}", err=True)
    ctx.exit(1 if errors else 0)


def _selected(
    files: tuple[str, ...],
    given: Path | None,
    errors: list[ReportError],
    *,
    last: bool,
    job: str | None,
    since: str | None,
) -> tuple[list[Report], str | None]:
    """Load what the user chose; and the directory that tells what its jobs are called, unless files were named."""
    after = None
    if since is not None:
        try:
            after = parse_moment(since, time.time())
        except ValueError as error:
            raise WrongInputError(f"--since: {error}") from None
    try:
        if files:
            paths = expand(files)
            directory = files[0] if len(files) == 1 and os.path.isdir(files[0]) else None
        else:
            directory = _reports_directory(given)
            if not os.path.isdir(directory):
                raise WrongInputError(f"no reports yet: {directory} is not a directory")
            paths = in_directory(directory)
        if last or not (files or job is not None or since is not None):
            paths = last_job(paths, errors, name=job or LAST, uid=None if files else os.geteuid())
            job = None
        if job is not None or after is not None:
            paths = _filtered(paths, errors, job=job, after=after)
    except SelectionError as error:
        raise WrongInputError(str(error)) from None
    reports = load(paths, errors)
    return reports, None if directory is None or not reports else os.path.dirname(paths[0])


def _profiles(reports: list[Report], directory: str | None) -> list[str]:
    """Return what the page has of the access profiles beside the reports; nothing where there is none."""
    from jcache.profile.drawing import section
    from jcache.profile.format import SUFFIX
    from jcache.profile.reader import Profile, ProfileError, Recording
    from jcache.profile.statistics import look_at

    recordings = []
    for report in reports if directory is not None else ():
        with contextlib.suppress(ProfileError):  # as for all processes that recorded none
            path = os.path.join(directory or "", report.filename.removesuffix(".json") + SUFFIX)
            recordings.append(Recording.open(path))
    if not recordings:
        return []
    profile = Profile(sorted(recordings, key=lambda one: one.head.start_time))
    try:
        look = look_at(profile)
        return [section(profile, look)] if look.real_s and look.files else []
    except ProfileError:
        return []  # it has gone meanwhile


def _filtered(paths: list[str], errors: list[ReportError], *, job: str | None, after: float | None) -> list[str]:
    chosen = [
        head.path
        for run in runs(heads(paths, errors))
        if job is None or run.is_called(job)
        for head in run.heads
        if after is None or head.end_time >= after
    ]
    if not chosen:
        wanted = [f"of a job called {job}"] * (job is not None) + ["since then"] * (after is not None)
        raise SelectionError(f"none of {len(paths)} reports is {' '.join(wanted)}")
    return chosen


def _reports_directory(given: Path | None) -> str:
    directory = _configured(given)
    if directory is None:
        raise WrongInputError("where are the reports? Name them, give --dir DIR, or set JCACHE_DIR (or JCACHE_JSON)")
    return directory


def _configured(given: Path | None) -> str | None:
    environ = dict(os.environ)
    if given is not None:
        environ.pop("JCACHE_JSON", None)
        environ["JCACHE_DIR"] = os.path.abspath(given)
    try:
        return Config.from_environ(environ).report_directory
    except ConfigError as error:
        raise WrongInputError(str(error)) from None


def _print_text(whole: Report, reports: list[Report], by: tuple[By, ...]) -> None:
    from jcache.report.faces.text import render

    render(whole, sys.stdout)
    width = _width()
    for kind in dict.fromkeys(by):
        lines = table(reports, kind)
        _print_table(f"by {'file' if kind == 'url' else kind}", lines, width, of_files=kind == "url")
        if kind == "url":
            for title, chosen in (("slowest files", slowest(lines)), ("coldest files", coldest(lines))):
                if chosen:
                    _print_table(title, chosen, width, of_files=True)


def _print_table(title: str, lines: list[Line], width: int, *, of_files: bool) -> None:
    click.echo()
    for line in columns.parts(title, lines, width, of_files=of_files):
        click.echo(line)


def _print_json(whole: Report, reports: list[Report], by: tuple[By, ...]) -> None:
    """Print the merged report; what was asked for beside it under keys that the schema does not have."""
    if not by:
        click.echo(whole.dumps(), nl=False)
        return
    document = whole.to_json() | {"savings": asdict(savings(whole)), "by": {}}
    for kind in dict.fromkeys(by):
        lines = table(reports, kind)
        document["by"][kind] = [asdict(line) for line in lines]
        if kind == "url":
            document["slowest"] = [asdict(line) for line in slowest(lines)]
            document["coldest"] = [asdict(line) for line in coldest(lines)]
    click.echo(json.dumps(document, indent=1))


def _compare(
    pair: tuple[str, str], directory: str | None, errors: list[ReportError], *, as_json: bool, html: Path | None
) -> None:
    """Print two runs side by side."""
    found: list[Report] = []
    for word in pair:
        try:
            paths = named(word, directory, errors)
        except SelectionError as error:
            raise WrongInputError(str(error)) from None
        reports = load(paths, errors)
        if not reports:
            raise CommandError(f"no report of {word} can be read" + (f": {errors[-1]}" if errors else ""))
        found.append(total(reports, None if os.path.isfile(word) else os.path.dirname(paths[0])))
    a, b = found
    if html is not None:
        from jcache.report.faces.html import comparison

        _write(html, comparison(a, b, pair))
    differences = compare(a, b)
    if as_json:
        document = {"a": a.to_json(), "b": b.to_json(), "differences": [_difference(line) for line in differences]}
        click.echo(json.dumps(document, indent=1))
    elif html is None:
        for line in columns.differences(differences, pair, _width()):
            click.echo(line)


def _difference(line: Difference) -> dict[str, Any]:
    return asdict(line) | {"change": line.change, "ratio": line.ratio}


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 120


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongInputError(f"cannot write {path}: {error.strerror}") from None
