"""`jcache ls`: which remote files the cache holds bytes of."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.cli.catalogue import journals, matcher, readable_cache
from jcache.cli.options import directory_option, paths
from jcache.report.faces.units import human, number_of, percent, visible
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.cache.catalogue import Entry

_KEYS = {
    "size": lambda entry: -entry.disk_bytes,
    "used": lambda entry: -entry.used_s,
    "hits": lambda entry: (-entry.hits, -entry.hit_bytes),
}


@click.command()
@click.argument("pattern", required=False, metavar="[GLOB|DIR]", shell_complete=paths("dir"))
@click.option("-l", "--long", is_flag=True, help="Also space on disk, segments, hits, and when it was last used.")
@click.option("--sort", type=click.Choice(list(_KEYS)), help="Largest, last used, or most hit first, not by name.")
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def ls(pattern: str | None, sort: str | None, directory: Path | None, *, long: bool, as_json: bool) -> None:
    """List the remote files that the cache holds bytes of: bytes cached, share of the file, address.

    Listings are what was said of the names in remote directories.

    GLOB chooses by address, such as '*/nano_*.root': * stands for any text, slashes too. Quote it, or the shell takes
    it for local files. DIR is a cache directory, or one below it: all that lies there.

    Hits are reads that were served without the origin; processes note them every half a minute, and at their end.

    \b
    Exit codes:
      0  listed; also if there is nothing to list, which is said on stderr
      2  the cache directory or a value is wrong
    """
    if pattern is not None and directory is None and os.path.isdir(pattern):
        directory, pattern = Path(pattern), None
    root, _ = readable_cache(directory)
    # Nothing here is garbage before the end, and looking for it again and again takes a third of the time.
    if gc.isenabled():
        gc.disable()
        click.get_current_context().call_on_close(gc.enable)
    chosen: Iterable[Entry] = journals(root, storage=Storage(root))
    if pattern is not None:
        wanted = matcher(pattern)
        chosen = (entry for entry in chosen if any(map(wanted.match, entry.names)))
    if sort is not None:
        chosen = sorted(chosen, key=_KEYS[sort])
    number = listings = disk_bytes = cached_bytes = 0
    if long and not as_json:
        click.echo(f"{'cached':>15} {'share':>8}  {'on disk':>9} {'segs':>4} {'hits':>7}  {'last used':<16}  address")
    for entry in chosen:
        number, disk_bytes = number + 1, disk_bytes + entry.disk_bytes
        if as_json:
            sys.stdout.write(json.dumps(entry.to_json()) + "\n")
            continue
        cached_bytes += entry.cached_bytes
        listings += entry.kind == "listing"
        share = "-" if entry.kind == "listing" else f"{percent(entry.cached_bytes, entry.size_bytes)} %"
        line = f"{entry.cached_bytes:>15} {share:>8}  "
        if long:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_s))
            disk = " ".join(human(entry.disk_bytes))
            line += f"{disk:>9} {entry.segments:>4} {entry.hits:>7}  {used:<16}  "
        # Not `click.echo`, which is a write for each line: a third of the time, where this goes into a pipe.
        sys.stdout.write(f"{line}{visible(entry.url)}\n")
    sys.stdout.flush()
    if long and not as_json:
        disk = " ".join(human(disk_bytes))
        of = number_of(number - listings, "file") + (f", {number_of(listings, 'listing')}" if listings else "")
        click.echo(f"{cached_bytes:>15} {'':>8}  {disk:>9}  {of}")
    if not number:
        click.echo(f"jcache: {_nothing(root, pattern)}", err=True)


def _nothing(root: str, pattern: str | None) -> str:
    if pattern is None:
        return f"nothing is cached in {root}"
    hint = "" if "*" in pattern else f"; * stands for any text, so perhaps '*{pattern}*'"
    return f"nothing that is cached in {root} matches '{pattern}'{hint}"
