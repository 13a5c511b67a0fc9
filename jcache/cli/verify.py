"""`jcache verify`: every checksum in the cache."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jcache.cache.booking import booked
from jcache.cache.directory import Cache, CacheUnusable
from jcache.cache.meter import MeteredStorage
from jcache.cache.verify import Finding, Progress, Totals, measure, verify
from jcache.cli.catalogue import cache_config, cache_of, find_journal, must_hold_something, root_of
from jcache.cli.errors import WrongInputError
from jcache.cli.options import directory_option, one_directory, paths
from jcache.naming.identity import Unidentifiable
from jcache.naming.layout import escape
from jcache.report.faces.units import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcache.system.storage import Storage

_MOST_IN_JSON = 10_000


@click.command("verify")
@click.argument("target", required=False, metavar="[DIR|URL]", shell_complete=paths("dir"))
@directory_option
@click.option("--repair", is_flag=True, help="Drop what is unusable; what is sound is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify_command(
    ctx: click.Context, target: str | None, directory: Path | None, *, repair: bool, as_json: bool
) -> None:
    """Read the whole cache and verify every checksum in it.

    DIR is a cache directory, or one below it; a URL means the journal of that remote file in JCACHE_DIR (or --dir).
    Without either it is all of JCACHE_DIR. Nothing needs to be stopped for it: what is being written is read as far as
    it got.

    Each finding is one line: kind, file, where in the file, how many bytes, what. Damaged, torn, unreadable and orphan
    are wrong, though no job ever gets wrong bytes from them. Superseded, leftover, empty and foreign are only of no
    use.

    With --repair, damaged segments are replaced by new ones with what is sound in them, orphans are sealed, and what is
    of no use is removed. What a live process writes, and what JCache did not make, is left alone.

    \b
    Exit codes:
      0  all is well
      1  something was wrong, repaired or not
      2  DIR or URL is wrong
    """
    storage = MeteredStorage()
    where, identity = _locate(target, directory, storage)
    started_s = time.monotonic()
    totals, findings, omitted = Totals(), deque[Finding](), 0
    with (
        _booked(where, storage, repair=repair) as tell,
        _progress(storage, where, one_journal=identity is not None) as (progress, show),
    ):
        for item in verify(storage, where, identity=identity, repair=repair, progress=progress):
            tell()
            if isinstance(item, Totals):
                totals = item
            elif not as_json:
                show(_line(item, where))
            elif len(findings) < _MOST_IN_JSON:
                findings.append(item)
            else:
                omitted += 1
    seconds = time.monotonic() - started_s
    if as_json:
        document = {
            "directory": where,
            "identity": identity,
            "ok": not totals.wrong,
            **asdict(totals),
            "seconds": round(seconds, 3),
            "findings": [_to_json(finding) for finding in findings],
            "omitted_findings": omitted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(_summary(totals, seconds, repair=repair))
    ctx.exit(1 if totals.wrong else 0)


def _locate(target: str | None, given: Path | None, storage: Storage) -> tuple[str, str | None]:
    """Return the directory that is meant and, if it is one journal's, whose."""
    if target is None or "://" not in target:
        target = one_directory(target, given)
    if target is not None and "://" not in target:
        if not os.path.isdir(target):
            what = "not a directory" if os.path.lexists(target) else "no such directory"
            raise WrongInputError(f"{what}: {target}")
        must_hold_something(os.path.abspath(target), storage=storage)
        return os.path.abspath(target), None
    directory, config = cache_config(given, remedy="give --dir DIR, or set JCACHE_DIR")
    if target is None:
        must_hold_something(directory, storage=storage)
        return directory, None
    cache = cache_of(directory, config, storage=storage)
    url = target.removeprefix("jcache::")
    with contextlib.suppress(Unidentifiable):
        identity = cache.identify(url.partition("://")[0], url, {})
        if os.path.isdir(cache.path(identity)):
            return cache.path(identity), identity.key
    # Options of the file system, or who asked, may have decided too.
    entry = find_journal(url, directory, config, storage=storage)
    if entry is not None:
        return entry.directory, entry.name
    raise WrongInputError(f"the cache {directory} holds nothing of {target}; 'jcache ls' lists what it holds")


@contextlib.contextmanager
def _booked(directory: str, storage: MeteredStorage, *, repair: bool) -> Iterator[Callable[[], None]]:
    """Book what a repair does, in the cache that the directory is or belongs to."""
    root = root_of(directory) if repair else None
    if root is not None:
        cache = Cache(root)
        with contextlib.suppress(CacheUnusable):
            cache.prepare()
        if cache.writable:
            with booked(cache, storage) as tell:
                yield tell
            return
    yield lambda: None


@contextlib.contextmanager
def _progress(
    storage: Storage, directory: str, *, one_journal: bool
) -> Iterator[tuple[Progress | None, Callable[[str], object]]]:
    """Show how far the work is, on stderr, if that is a terminal; and give out how to print a line meanwhile."""
    if not sys.stderr.isatty():
        yield None, click.echo
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task("", total=None if one_journal else measure(storage, directory))

        class Advance:
            def advance(self, nbytes: int) -> None:
                bars.advance(task, nbytes)

        def show(line: str) -> None:
            if sys.stdout.isatty():
                bars.stop()  # the bar would be written over the line
                click.echo(line)
                bars.start()
            else:
                click.echo(line)

        yield Advance(), show


def _line(finding: Finding, directory: str) -> str:
    where, what = _printable(os.path.relpath(finding.path, directory)), _printable(finding.what)
    line = f"{finding.kind.value:<11} {where}  at {finding.offset}, {finding.size_bytes} bytes: {what}"
    return f"{line}; {finding.repair}" if finding.repair else line


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else escape(c, "\\") for c in text)


def _to_json(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind.value,
        "wrong": finding.is_wrong,
        "path": finding.path,
        "offset": finding.offset,
        "bytes": finding.size_bytes,
        "what": finding.what,
        "repair": finding.repair,
    }


def _summary(totals: Totals, seconds: float, *, repair: bool) -> str:
    rate = totals.size_bytes / 1e6 / max(seconds, 1e-3)
    checked = (
        f"{number_of(totals.journals, 'journal')}, {number_of(totals.segments, 'segment')} "
        f"({totals.live} being written), {number_of(totals.extents, 'extent')}, "
        f"{totals.size_bytes / 1e6:.1f} MB in {seconds:.1f} s ({rate:.0f} MB/s)"
    )
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.kinds.items()))
    if not counts:
        return f"{checked}: all is well"
    verdict = f"{totals.wrong} wrong" if totals.wrong else "nothing is wrong"
    if repair:
        verdict += f"; {totals.repaired} repaired, {totals.wrong + totals.notes - totals.repaired} left"
    elif totals.wrong:
        verdict += "; --repair drops what is unusable"
    return f"{checked}: {verdict} ({counts})"
