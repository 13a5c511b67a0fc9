"""`jcache bundle`: exactly the bytes of an analysis, in one file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.bundle.format import SUFFIX
from jcache.bundle.reader import Bundle, BundleError
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, paths
from jcache.cli.output import whole_file
from jcache.cli.progress import progress
from jcache.cli.recorded import given_above, recorded
from jcache.naming.identity import address_of, is_answers
from jcache.profile.reader import ProfileError
from jcache.report.faces import columns
from jcache.report.faces.units import human, percent, visible
from jcache.settings.several import directories

if TYPE_CHECKING:
    from jcache.profile.reader import Profile

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_bundle_argument = click.argument("path", metavar="BUNDLE", shell_complete=paths("file"))


@click.group("bundle")
@directory_option
@click.pass_context
def bundle(ctx: click.Context, *, directory: Path | None) -> None:
    """Carry an analysis away: exactly the bytes that it read, in one file.

    Elsewhere, JCACHE_BUNDLES names the file, and the analysis runs as it is: without a network, and without unpacking.

    \b
    Examples:
      jcache bundle create ttbar -o ttbar.jcb
      JCACHE_BUNDLES=ttbar.jcb python analysis.py

    \b
    Exit codes:
      0  done
      1  some of it is missing or damaged; stderr says what
      2  a path, name or value is wrong, or there is no profile, cache or bundle
    """
    ctx.obj = directory  # of `create`, where that is given none


@bundle.command()
@click.argument("run", default="last", metavar="[RUN]", shell_complete=paths("file"))
@directory_option
@click.option("-o", "--output", help="The bundle, a pipe, or a device; the job's name, if it is not given.")
@_json_option
def create(*, run: str, directory: Path | None, output: str | None, as_json: bool) -> None:
    """Write what a recorded run read into a bundle; RUN is as in 'jcache profile'.

    The bytes come from the cache ('jcache warm' fetches what it lacks). The same run gives the same file, bit by bit.
    """
    from jcache.profile.bundling import write_bundle

    directory = given_above(directory)
    named = os.environ.get("JCACHE_DIR", "") if directory is None else os.fspath(directory)
    if not named:
        raise WrongInputError("there is no cache directory: give --dir DIR, or set JCACHE_DIR")
    roots = [os.path.abspath(os.path.expanduser(root)) for root in directories(named)]
    errors: list[ProfileError] = []
    found = recorded(run, directory, errors)
    head = found.recordings[0].head
    target = f"{head.appname or 'run'}{SUFFIX}" if output is None else output
    about = {"run": head.run, "appname": head.appname, "report": _report(found)}
    try:
        with whole_file(target) as file, progress("bundling") as tell:
            done = write_bundle(found, roots, file, about=about, progress=tell)
    except ProfileError as error:
        raise CommandError(str(error)) from None
    beside = _is_stdout(target)
    if as_json:
        click.echo(json.dumps({"path": target, **asdict(done)}), err=beside)
    else:
        size, listings = " ".join(human(done.bytes)), f"what was asked of {done.listings} directories"
        click.echo(f"{target}: {size} of {done.files} files, and {listings}", err=beside)
    for url in done.replaced:
        click.echo(f"jcache: {visible(url)}: the cache has another version than the run has read", err=True)
    for url, lacking in done.missing.items():
        click.echo(f"jcache: {visible(url)}: the cache lacks {' '.join(human(lacking))}", err=True)
    for unread in errors:
        click.echo(f"jcache: {visible(str(unread))}", err=True)
    sys.exit(1 if done.missing or done.replaced or errors else 0)


def _is_stdout(path: str) -> bool:
    try:
        return os.path.samefile(path, "/dev/stdout")
    except OSError:
        return False


@bundle.command("ls")
@_bundle_argument
@_json_option
def list_(path: str, *, as_json: bool) -> None:
    """List what a bundle has."""
    found = _opened(path)
    rows, documents = [], []
    for entry in found.entries.values():
        kind, nbytes = "listing" if is_answers(entry.identity) else "file", sum(entry.lengths)
        size = entry.version.size_bytes
        url = address_of(entry.identity)
        documents.append({"url": url, "kind": kind, "bytes": nbytes, "size": size, "version": entry.version.to_json()})
        whole = [" ".join(human(size)), f"{percent(nbytes, size)} %"] if kind == "file" else ["-", "-"]
        rows.append([url, " ".join(human(nbytes)), *whole])
    if as_json:
        click.echo(json.dumps({"about": found.about, "sha256": found.tail.sha256.hex(), "files": documents}, indent=1))
        return
    for line in columns.layout(["file", "here", "size", "of it"], rows, 120):
        click.echo(line)


@bundle.command()
@_bundle_argument
@_json_option
def verify(path: str, *, as_json: bool) -> None:
    """Read all of a bundle, and hold it against its checksums and its SHA-256."""
    found = _opened(path)
    damaged: dict[str, list[int]] = {}
    with progress("verifying") as tell:
        digest = found.digest(tell)
    for entry in found.entries.values():
        wrong = [start for start, _, is_sound in found.extents(entry) if not is_sound]
        if wrong:
            damaged[address_of(entry.identity)] = wrong
    is_whole = digest == found.tail.sha256.hex()
    if as_json:
        click.echo(json.dumps({"sha256": digest, "is_whole": is_whole, "damaged": damaged}))
    elif is_whole:
        click.echo(f"{path}: {digest}")
    for url, wrong in damaged.items():
        click.echo(f"jcache: {visible(url)}: damaged at {', '.join(map(str, wrong[:8]))}", err=True)
    if not (is_whole or damaged):
        click.echo(f"jcache: {visible(path)} is damaged: its SHA-256 is {digest}", err=True)
    sys.exit(0 if is_whole else 1)


@bundle.command()
@_bundle_argument
@directory_option
@_json_option
def extract(path: str, *, directory: Path | None, as_json: bool) -> None:
    """Record what a bundle has in a cache directory."""
    from jcache.profile.bundling import extract as extract_into

    root = str(directory or directories(os.environ.get("JCACHE_DIR", ""))[0])
    if not root:
        raise WrongInputError("there is no cache directory: give --dir DIR, or set JCACHE_DIR")
    found = _opened(path)
    with progress("extracting") as tell:
        done = extract_into(found, os.path.abspath(root), progress=tell)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        click.echo(f"{done.files} files, {' '.join(human(done.bytes))}")
    for identity, why in done.failed.items():
        click.echo(f"jcache: {visible(address_of(identity))}: {visible(why)}", err=True)
    sys.exit(1 if done.failed else 0)


def _opened(path: str) -> Bundle:
    try:
        return Bundle.open(path)
    except BundleError as error:
        raise WrongInputError(str(error)) from None


def _report(found: Profile) -> dict[str, object] | None:
    """Return the report of a run, if its processes left any beside their profiles."""
    from jcache.report.merge import merge
    from jcache.report.model import Report, ReportError

    reports = []
    for one in found.recordings:
        beside = Path(one.path).with_suffix(".json")
        if beside.exists():
            try:
                reports.append(Report.load(beside))
            except ReportError:
                continue
    return merge(reports).to_json() if reports else None
