"""`jcache compact`: few segments out of many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from jcache.cache.booking import booked
from jcache.cache.meter import MeteredStorage
from jcache.cli.catalogue import existing_cache, find_journal, journals, prepared
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option
from jcache.journal import Journal, JournalError
from jcache.report.faces.units import human, number_of, visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jcache.cache.catalogue import Entry


@click.command()
@click.argument("url", required=False, metavar="[URL]")
@click.option("--all", "everything", is_flag=True, help="Every journal that has more than one segment.")
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def compact(ctx: click.Context, url: str | None, directory: Path | None, *, everything: bool, as_json: bool) -> None:
    """Merge the segments of journals, so that opening them takes less time, and remove superseded versions.

    URL is a remote file's address, or its name as `jcache ls` prints it. Jobs do the same by themselves for journals
    with many segments; they may go on meanwhile. What a living process is writing is left alone.

    It takes room for a second copy of one journal at a time.

    \b
    Exit codes:
      0  done, even if there was nothing to do
      1  some journal could not be compacted, or the cache holds nothing of URL
      2  the cache directory or a value is wrong
    """
    if (url is None) is not everything:
        raise WrongInputError("which journals? Give either a URL or --all")
    root, config = existing_cache(directory)
    cache, storage = prepared(root, config), MeteredStorage(root)
    chosen: Iterable[Entry]
    if url is None:
        chosen = (entry for entry in journals(root, storage=storage) if entry.segments > 1 or len(entry.versions) > 1)
    else:
        entry = find_journal(url, root, config, storage=storage)
        if entry is None:
            raise CommandError(f"the cache holds nothing of {url}")
        chosen = (entry,)
    results, failed = [], 0
    with booked(cache, storage) as tell:
        for entry in chosen:
            journal = Journal(storage, entry.directory, entry.name, dir_mode=cache.dir_mode, file_mode=cache.file_mode)
            try:
                removed = journal.compact(at_least=2)
                journal.attach()
                after = journal.size_bytes
            except JournalError as error:
                failed += 1
                click.echo(f"jcache: {visible(str(error))}", err=True)
                continue
            finally:
                journal.close()
            tell()
            results.append(
                {"url": entry.url, "removed": removed, "before_bytes": entry.disk_bytes, "after_bytes": after}
            )
            if not as_json and removed:
                sizes = f"{' '.join(human(entry.disk_bytes))} -> {' '.join(human(after))}"
                click.echo(f"{number_of(removed, 'segment'):>12} removed, {sizes}  {visible(entry.url)}")
    if as_json:
        click.echo(json.dumps({"journals": results, "failed": failed}, indent=1))
    elif not any(result["removed"] for result in results):
        click.echo("nothing to compact")
    ctx.exit(1 if failed else 0)
