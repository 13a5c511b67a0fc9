"""`jcache ls`: which remote files the cache holds bytes of."""

import json
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import click

from jcache.cli.catalogue import cache_config, journals
from jcache.report.units import percent
from jcache.storage import Storage


@click.command()
@click.argument("pattern", required=False, metavar="[GLOB]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The cache directory, instead of JCACHE_DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def ls(pattern: str | None, directory: Path | None, *, as_json: bool) -> None:
    """List the remote files that the cache holds bytes of: bytes cached, share of the file, name.

    GLOB chooses by name, such as '*/nano_*.root'; quote it, or the shell takes it for local files.
    """
    root, _ = cache_config(directory)
    for entry in journals(root, storage=Storage()):
        if pattern is not None and not fnmatchcase(entry.name, pattern):
            continue
        if as_json:
            click.echo(json.dumps(asdict(entry)))
        else:
            size = entry.versions[0].size_bytes if entry.versions else 0
            cached = entry.versions[0].cached_bytes if entry.versions else 0
            click.echo(f"{cached:>15} {percent(cached, size):>6} %  {entry.name}")
