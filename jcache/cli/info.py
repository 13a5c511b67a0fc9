"""`jcache info`: what the cache holds of one remote file."""

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from jcache.cache.directory import Cache
from jcache.cache.identity import Unidentifiable
from jcache.cli.catalogue import Entry, cache_config, entry_of, journals
from jcache.cli.errors import CommandError, WrongInputError
from jcache.config import Config
from jcache.journal.format import parse_segment_name
from jcache.report.units import percent
from jcache.storage import Storage


@click.command()
@click.argument("url")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The cache directory, instead of JCACHE_DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(url: str, directory: Path | None, *, as_json: bool) -> None:
    """Tell what the cache holds of one remote file: its states, how much of each, where.

    URL is the file's address, or its name as `jcache ls` prints it.

    \b
    Exit codes:
      0  the cache holds something of it
      1  it holds nothing of it
      2  the URL or the cache directory is wrong
    """
    entry = _find(url, *cache_config(directory))
    if entry is None:
        raise CommandError(f"the cache holds nothing of {url}")
    if as_json:
        click.echo(json.dumps(asdict(entry), indent=1))
        return
    click.echo(f"name         {entry.name}\njournal      {entry.directory}")
    click.echo(f"on disk      {entry.disk_bytes} bytes in {entry.segments} segments")
    for number, stored in enumerate(entry.versions):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored.validated_s))
        share = f"{percent(stored.cached_bytes, stored.size_bytes)} %"
        click.echo(f"{'superseded' if number else 'version'}".ljust(13) + json.dumps(stored.version))
        click.echo(f"  cached     {stored.cached_bytes} of {stored.size_bytes} bytes, {share}; validated {when}")


def _find(url: str, directory: str, config: Config) -> Entry | None:
    """Look where a file of this address and no options lies; and, since options decide too, at all names."""
    storage = Storage()
    cache = Cache(directory, storage=storage, flat=config.flat, basepath=config.basepath)
    protocol, is_url, _ = url.partition("://")
    if is_url:
        with contextlib.suppress(OSError, Unidentifiable):
            path = cache.path(cache.identify(protocol, url, {}))
            segments = sorted(name for name in storage.listdir(path) if parse_segment_name(name) is not None)
            if segments and (entry := entry_of(path, segments, storage=storage)) is not None:
                return entry
    for entry in journals(directory, storage=storage):
        if entry.name == url:
            return entry
    if not is_url:
        raise WrongInputError(f"neither a URL nor a name that 'jcache ls' prints: {url}")
    return None
