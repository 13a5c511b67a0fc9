"""`jcache profile`: what jobs read, request by request, as they recorded it with JCACHE_PROFILE."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, map_option, pairs_of, paths
from jcache.cli.progress import progress, reading, size_of
from jcache.cli.recorded import counted, given_above, profiles_directory, recorded
from jcache.profile.format import SUFFIX
from jcache.profile.reader import Profile, ProfileError
from jcache.profile.select import in_directory, runs
from jcache.profile.statistics import GAPS, Look, look_at
from jcache.report.faces import columns
from jcache.report.faces.units import human, percent, visible
from jcache.report.select import SelectionError
from jcache.settings.config import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_file_option = click.option("--file", "pattern", metavar="GLOB", help="Only files whose address this matches.")
_run_argument = click.argument("run", default="last", metavar="[RUN]", shell_complete=paths("file"))


@click.group("profile")
@directory_option
@click.pass_context
def profile(ctx: click.Context, *, directory: Path | None) -> None:
    """Look at what jobs read, request by request, and carry it away.

    Jobs record their requests with JCACHE_PROFILE=1, or under 'jcache run --profile'. RUN is a job's name, a run's id,
    'last' (the newest one, which it is by default), NAME~1 for the run before NAME's newest, and so on; or a file, a
    glob of files, or a directory.

    \b
    Examples:
      JCACHE_PROFILE=1 python job.py
      jcache profile show                    the newest run
      jcache profile show --file '*/nano_1*' some of its files
      jcache profile diff last~1 last        the run before the newest, and the newest
      jcache profile export --parquet requests.parquet

    \b
    Exit codes:
      0  done
      1  some profiles are damaged or cannot be read; stderr names them, and the rest was used
      2  a path, name or value is wrong, or there is no profile
    """
    ctx.obj = directory  # of all commands, where they are given none themselves


@profile.command("list")
@click.argument("place", required=False, metavar="[DIR]", shell_complete=paths("dir"))
@directory_option
@_json_option
@click.pass_context
def list_(ctx: click.Context, place: str | None, directory: Path | None, *, as_json: bool) -> None:
    """List the runs that have a profile, the newest first.

    DIR is a directory of profiles, or a cache directory.
    """
    errors: list[ProfileError] = []
    try:
        found = runs(in_directory(place or profiles_directory(given_above(directory))), errors)
    except SelectionError as error:
        raise WrongInputError(str(error)) from None
    rows, documents = [], []
    for one in found:
        with reading("counting", one.recordings):
            counts = [counted(recording, errors) for recording in one.recordings]
        requests, ranges = (sum(column) for column in zip(*counts, strict=True))
        size = sum(map(size_of, one.recordings))
        states = {state: count for state, count in one.profile.states.items() if state != "complete"}
        documents.append({
            "run": one.run,
            "appname": one.appname,
            "start_time": one.start_time,
            "processes": len(one.recordings),
            "requests": requests,
            "ranges": ranges,
            "size": size,
            "states": one.profile.states,
            "paths": [recording.path for recording in one.recordings],
        })  # fmt: skip
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.start_time))
        note = ", ".join(f"{count} {state}" for state, count in states.items())
        numbers = [str(len(one.recordings)), str(requests), str(ranges), " ".join(human(size))]
        rows.append([one.appname or "-", one.run or "-", when, *numbers, note or "-"])
    if as_json:
        click.echo(json.dumps(documents, indent=1))
    else:
        heads = ["job", "run", "began", "processes", "requests", "ranges", "on disk", "not to the end"]
        _print(columns.layout(heads, rows, _width()))
    _end(ctx, errors)


@profile.command()
@_run_argument
@directory_option
@_file_option
@click.option("--gap", "gaps", multiple=True, metavar="SIZE", help="Tell what coalescing at this gap would save.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write the picture as a drawing.")
@_json_option
@click.pass_context
def show(
    ctx: click.Context,
    *,
    run: str,
    directory: Path | None,
    pattern: str | None,
    gaps: tuple[str, ...],
    svg: Path | None,
    as_json: bool,
) -> None:
    """Show what a run read, and in which order.

    `distinct` are the bytes that were read at least once, `again` is the share of what was read more often, `in order`
    that of the ranges which begin where the one before them ended, `rate` what a file gave while it was waited for.
    """
    try:
        wanted = [0 if gap == "0" else parse_size(gap) for gap in gaps] or list(GAPS)
    except (ValueError, OverflowError):
        raise WrongInputError(f"--gap: {', '.join(gaps)} is no size: give one such as 16k") from None
    errors: list[ProfileError] = []
    found = recorded(run, given_above(directory), errors)
    look = _look(found, wanted)
    chosen = [one for one in look.files if pattern is None or fnmatchcase(one.url, pattern)]
    if pattern is not None and not chosen:
        raise WrongInputError(f"no file of this run matches {pattern}; * stands for any text")
    if svg is not None:
        from jcache.profile.drawing import document, picture_of
        from jcache.profile.faces import name_of

        with reading("drawing", found.recordings):
            picture = picture_of(found, look, chosen)
        _write(svg, lambda file: file.write(document(picture, f"{name_of(found)}: offset over time")))
    if as_json:
        told = look.to_json()
        click.echo(json.dumps(told | {"files": [one.to_json() for one in chosen]}, indent=1))
    elif svg is None:
        from jcache.profile.faces import drawn, print_profile

        files, width = chosen if pattern is not None else None, _width()
        with reading("drawing", found.recordings):
            shown = drawn(found, look, width=width, files=files)
        print_profile(found, look, shown, sys.stdout, width=width, files=files)
    _end(ctx, errors)


@profile.command("columns")
@_run_argument
@directory_option
@_file_option
@map_option
@_json_option
@click.pass_context
def columns_(
    ctx: click.Context, *, run: str, directory: Path | None, pattern: str | None, maps: tuple[str, ...], as_json: bool
) -> None:
    """Show which columns a run read: of TTree, RNTuple, Parquet, HDF5 and zarr.

    The metadata of each file is read for that, past the cache, from where the run read it or where --map says.
    """
    pairs, errors = pairs_of(maps), list[ProfileError]()
    found = recorded(run, given_above(directory), errors)
    for name in [name for name in os.environ if name.startswith("JCACHE_")]:
        del os.environ[name]  # it is no job
    try:
        shares_of = importlib.import_module("jcache_plugins.columns.shares").shares_of
        with progress("looking") as tell:
            shares = shares_of(found, maps=pairs, pattern=pattern, progress=tell)
    except ProfileError as error:
        raise CommandError(str(error)) from None
    if as_json:
        click.echo(json.dumps(shares.to_json(), indent=1))
    else:
        rows = [
            [
                one.name or "(no column)",
                " ".join(human(one.read_bytes)),
                f"{percent(one.read_bytes, one.size_bytes)} %" if one.name else "-",
                str(one.pieces),
                str(one.files),
            ]
            for one in shares.columns
        ]
        _print(columns.layout(["column", "read", "of it", "ranges", "files"], rows, _width()))
    for url, why in shares.failed.items():
        click.echo(f"jcache: {visible(url)}: {visible(why)}", err=True)
    _end(ctx, errors)


@profile.command()
@click.argument("a", metavar="A", shell_complete=paths("file"))
@click.argument("b", metavar="B", shell_complete=paths("file"))
@directory_option
@_json_option
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, directory: Path | None, *, as_json: bool) -> None:
    """Put two runs side by side, and the files that they read differently."""
    from dataclasses import asdict

    from jcache.profile.faces import differences, file_differences, files_apart

    errors: list[ProfileError] = []
    first, second = (_look(recorded(word, given_above(directory), errors), list(GAPS)) for word in (a, b))
    found, apart = differences(first, second), files_apart(first, second)
    if as_json:
        sides = [{"url": url, "a": x and x.to_json(), "b": y and y.to_json()} for url, x, y in apart]
        told = [asdict(line) | {"change": line.change, "ratio": line.ratio} for line in found]
        click.echo(
            json.dumps({"a": first.to_json(), "b": second.to_json(), "differences": told, "files": sides}, indent=1)
        )
    else:
        _print(columns.differences(found, (a, b), _width()))
        _print(["", *(file_differences(apart, _width()) if apart else ["the same was read of all files"])])
    _end(ctx, errors)


@profile.command()
@_run_argument
@directory_option
@click.option("--csv", "csv_path", metavar="FILE", help="A line a request; - for the output.")
@click.option("--parquet", metavar="FILE", help="A row a request.")
@click.option("--xrootd", metavar="FILE", help="As XRootD's recorder writes it, for xrdreplay; - for the output.")
@_json_option
@click.pass_context
def export(
    ctx: click.Context,
    *,
    run: str,
    directory: Path | None,
    csv_path: str | None,
    parquet: str | None,
    xrootd: str | None,
    as_json: bool,
) -> None:
    """Write a run's requests in a form that other programs read; with --json, tell what was written where."""
    from jcache.profile.exporting import to_csv, to_parquet
    from jcache.profile.xrootd import to_xrootd

    if not (csv_path or parquet or xrootd):
        raise WrongInputError("in which form? Give --csv, --parquet or --xrootd")
    if as_json and "-" in (csv_path, xrootd):
        raise WrongInputError("the output cannot be both: give a file instead of -, or leave out --json")
    errors: list[ProfileError] = []
    found = recorded(run, given_above(directory), errors)
    lines: dict[str, int] = {}
    for path, write in ((csv_path, to_csv), (xrootd, to_xrootd)):
        if path == "-":
            write(found, sys.stdout)
        elif path:
            with reading("exporting", found.recordings):
                lines[path] = _write(Path(path), functools.partial(write, found))
    if parquet:
        try:
            with reading("exporting", found.recordings):
                lines[parquet] = to_parquet(found, parquet)
        except ModuleNotFoundError as error:
            raise CommandError(f"--parquet needs the Python package '{error.name}'") from None
        except OSError as error:
            raise WrongInputError(f"cannot write {parquet}: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps({"files": [{"path": path, "lines": count} for path, count in lines.items()]}))
    _end(ctx, errors)


@profile.command("synthesize")
@click.option("-o", "--output", metavar="PROFILE", default="synthetic.jcp", show_default=True, help="The profile.")
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(1e-4, 1.0), help="A part of it only.")
@click.option("--base", default="root://eos.example//agc/", show_default=True, metavar="URL", help="Where files are.")
@_json_option
def synthesize(output: str, *, share: float, base: str, as_json: bool) -> None:
    """Make the profile of an analysis that nobody ran here: 796 files, 10,707 vectors, 63 GB of a data set of 977 GB.

    Its statistics are those of the analysis of top-quark pairs with which JCache was introduced (CHEP 2024), for
    'jcache replay', 'jcache whatif', and whoever plans a site.
    """
    from dataclasses import asdict

    from jcache.profile.synthetic import Statistics, write_synthetic

    statistics = Statistics().scaled(share) if share < 1 else Statistics()
    try:
        with open(output, "xb") as file:
            write_synthetic(file, statistics, base=base)
    except OSError as error:
        raise WrongInputError(f"cannot write {output}: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps({"path": output, **asdict(statistics)}))
    else:
        counts = f"{statistics.opens} opens, {statistics.reads} reads, {statistics.vectors} vectors"
        click.echo(f"{output}: {counts} of {statistics.ranges} ranges")


@profile.command("import")
@click.argument("source", metavar="FILE", shell_complete=paths("file"))
@click.option("--xrootd", is_flag=True, required=True, help="FILE is the CSV of XRootD's recorder (XrdClRecorder).")
@click.option("-o", "--output", metavar="PROFILE", help="The profile; FILE with another ending, if it is not given.")
@_json_option
def import_(source: str, output: str | None, *, xrootd: bool, as_json: bool) -> None:  # noqa: ARG001  # the only form yet
    """Make a profile of what another recorder has recorded."""
    from dataclasses import asdict

    from jcache.profile.xrootd import from_xrootd

    target = output or os.path.splitext(source)[0] + SUFFIX
    try:
        with open(target, "xb") as file:
            done = from_xrootd(source, file)
    except OSError as error:
        raise WrongInputError(f"{error.filename or target}: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps({"path": target, **asdict(done)}))
    else:
        left = f"{done.failed} failed, {done.writes} wrote, {done.odd} are not understood"
        click.echo(f"{target}: {done.requests} requests; of the other lines {left}")
    if not done.requests:
        raise CommandError(f"{source} has no reads that XRootD's recorder would have written")


# -- what they have in common -------------------------------------------------------------------------------------


def _look(found: Profile, gaps: Sequence[int]) -> Look:
    try:
        with reading("reading", found.recordings):
            return look_at(found, gaps=gaps)
    except ProfileError as error:
        raise CommandError(str(error)) from None


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 120


def _write(path: Path, write: Callable[[IO[str]], int]) -> int:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            return write(file)
    except OSError as error:
        raise WrongInputError(f"cannot write {path}: {error.strerror}") from None


def _end(ctx: click.Context, errors: list[ProfileError]) -> None:
    for error in errors:
        click.echo(f"jcache: {visible(str(error))}", err=True)
    ctx.exit(1 if errors else 0)
