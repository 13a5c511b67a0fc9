"""`jcache info`: what the cache holds of one remote file."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from jcache.cache import usage
from jcache.cache.books import writer_of
from jcache.cache.pins import Pins, read_pins
from jcache.cache.tree import State, look_into
from jcache.cli.catalogue import directory_option, find_journals, nearest, readable_cache
from jcache.cli.errors import CommandError, WrongInputError
from jcache.journal import Journal
from jcache.report.faces.units import duration, human, number_of, percent, visible
from jcache.segment.format import parse_segment_name
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jcache.cache.catalogue import Entry

_BAR = 60
_LEVELS = " ▏▎▍▌▋▊▉█"
_PLAIN = " ....oooo#"


@click.command()
@click.argument("url")
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(url: str, directory: Path | None, *, as_json: bool) -> None:
    """Tell what the cache holds of one remote file: its states, how much of each, where in the file, who uses it.

    URL is the file's address, as your program has it or as `jcache ls` prints it, or its name. Where several are called
    so (an object of two S3 services, or one for each who asks), all are told of.

    The bar shows the file from its first byte to its last: full where everything is cached, empty where nothing is.

    \b
    Exit codes:
      0  the cache holds something of it
      1  it holds nothing of it
      2  the URL or the cache directory is wrong
    """
    root, config = readable_cache(directory)
    storage = Storage(root)
    entries = list(find_journals(url, root, config, storage=storage))
    if not entries:
        if "://" not in url and ":" not in url and not url.startswith("/"):
            raise WrongInputError(f"neither a URL nor a name that 'jcache ls' prints: {url}; try jcache ls '*{url}*'")
        near = nearest(url, root, storage=storage)
        hint = f"; it holds {', '.join(map(visible, near))}" if near else ""
        raise CommandError(f"the cache holds nothing of {url}{hint}")
    if as_json:
        document = _document(entries[0], root, storage)
        document["others"] = [entry.name for entry in entries[1:]]
        click.echo(json.dumps(document, indent=1))
        return
    for number, entry in enumerate(entries):
        click.echo("\n" * bool(number), nl=False)
        _print(entry, _document(entry, root, storage))


def _document(entry: Entry, root: str, storage: Storage) -> dict[str, Any]:
    document = entry.to_json()
    journal = Journal(storage, entry.directory, entry.name)
    journal.attach()
    try:
        held = {json.dumps(known.version.to_json()): known.version for known in journal.versions()}
        for stored in document["versions"]:
            version = held.get(json.dumps(stored["version"]))
            if version is not None:
                stored["coverage"] = coverage(journal.view(version).extents(), version.size_bytes, _BAR)
    finally:
        journal.close()
    document["parts"] = [
        {
            "file": os.path.basename(part.path),
            "state": part.state.value,
            "bytes": part.size_bytes,
            "host": parsed[0].partition("__")[0],
            "pid": parsed[1],
            "version": part.metadata.version.to_json() if part.metadata and entry.kind == "file" else None,
        }
        for part in look_into(storage, entry.directory)
        if (parsed := parse_segment_name(os.path.basename(part.path))) is not None
    ]
    path = os.path.relpath(entry.directory, root)
    try:
        readers = [(writer_of(name), used_s) for name, used_s in usage.readers(storage, root, path)]
        document["pinned"] = Pins(read_pins(storage, root)).match(*entry.names)
    except OSError:
        readers, document["pinned"] = [], False
    document["readers"] = [{"host": at.partition("__")[0], "pid": pid, "used_s": s} for (at, pid), s in readers]
    return document


def _print(entry: Entry, document: dict[str, Any]) -> None:
    now_s = time.time()
    disk = " ".join(human(entry.disk_bytes))
    for what, text in (("address", entry.url), ("name", entry.name), ("journal", entry.directory)):
        click.echo(f"{what:<12} {visible(text)}")
    click.echo(f"on disk      {entry.disk_bytes} bytes ({disk}) in {number_of(entry.segments, 'segment')}")
    hits = f"{number_of(entry.hits, 'read')}, {' '.join(human(entry.hit_bytes))}, served without the origin"
    click.echo(f"last used    {_moment(entry.used_s)}, {duration(max(now_s - entry.used_s, 0.0))} ago; {hits}")
    if document["pinned"]:
        click.echo("pinned       stays whatever the cache's size")
    for number, (stored, detail) in enumerate(zip(entry.versions, document["versions"], strict=True)):
        if entry.kind == "listing":
            click.echo(
                f"answers      {stored.cached_bytes} bytes of them, the last one of {_moment(stored.validated_s)}"
            )
            continue
        share = f"{percent(stored.cached_bytes, stored.size_bytes)} %"
        click.echo(f"{'superseded' if number else 'version'}".ljust(13) + json.dumps(stored.version))
        cached = f"{stored.cached_bytes} of {stored.size_bytes} bytes, {share}"
        click.echo(f"  cached     {cached}; validated {_moment(stored.validated_s)}")
        if "coverage" in detail:
            click.echo(f"  where      [{drawn(detail['coverage'])}]")
    for part in document["parts"]:
        who = f"by process {part['pid']} on {part['host']}"
        state = part["state"] if part["state"] != State.ORPHAN.value else "never sealed, its writer is gone"
        click.echo(f"segment      {part['file']}  {part['bytes']} bytes, {state}, {who}")
    for reader in document["readers"]:
        ago = duration(max(now_s - reader["used_s"], 0.0))
        click.echo(f"in use       by process {reader['pid']} on {reader['host']}, noted {ago} ago")


def coverage(extents: Sequence[tuple[int, int]], size_bytes: int, cells: int) -> list[float]:
    """Return for equal parts of a file which share of each is covered.

    Args:
        extents: Start and stop of what is there, in ascending order, overlapping or not.
        size_bytes: The file's size.
        cells: How many parts.
    """
    if not size_bytes:
        return []
    covered = [0] * cells
    reach = 0
    for start, stop in extents:
        at = max(start, reach)
        reach = max(reach, stop)
        while at < stop:
            cell = at * cells // size_bytes
            end = min(stop, -(-(cell + 1) * size_bytes // cells))
            covered[cell] += end - at
            at = end
    ends = [-(-cell * size_bytes // cells) for cell in range(cells + 1)]
    return [
        n / (stop - start) if stop > start else 0.0 for n, start, stop in zip(covered, ends[:-1], ends[1:], strict=True)
    ]


def drawn(shares: Sequence[float]) -> str:
    """Return shares as a bar: an empty cell for nothing, a full one for everything, something between for the rest."""
    levels = _LEVELS
    try:
        levels.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        levels = _PLAIN
    last = len(levels) - 1
    return "".join(levels[_level(share, last)] for share in shares)


def _level(share: float, last: int) -> int:
    if share in {0, 1}:
        return round(share) * last
    return min(max(round(share * last), 1), last - 1)


def _moment(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
