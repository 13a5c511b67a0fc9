"""`jcache pin`: what is to stay in the cache."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.cache.identity import Unidentifiable, identify
from jcache.cache.pins import add_pin, read_pins, remove_pin
from jcache.cli.catalogue import existing_cache, prepared
from jcache.cli.errors import CommandError, WrongInputError
from jcache.report.units import visible
from jcache.storage import Storage

if TYPE_CHECKING:
    from jcache.config import Config


@click.command()
@click.argument("patterns", nargs=-1, metavar="[URL|GLOB]...")
@click.option("--remove", is_flag=True, help="Take pins back.")
@click.option("--list", "show", is_flag=True, help="List what is pinned.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The cache directory, instead of JCACHE_DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def pin(
    ctx: click.Context, patterns: tuple[str, ...], directory: Path | None, *, remove: bool, show: bool, as_json: bool
) -> None:
    """Keep remote files in the cache, whatever its size: they are never removed to make room.

    URL is the address of one file, which need not be cached yet; GLOB matches many, such as 'root://eos*/nano/*': *
    stands for any text, slashes too. Quote it.

    \b
    Exit codes:
      0  done
      1  --remove: something was not pinned
      2  the cache directory or a value is wrong
    """
    root, config = existing_cache(directory)
    storage = Storage()
    if not patterns and not show:
        raise WrongInputError("what is to stay? Give URLs or patterns, or --list; see --help")
    missing = []
    try:
        for pattern in patterns:
            wanted = _canonical(pattern, config)
            if remove:
                if not remove_pin(storage, root, wanted):
                    missing.append(pattern)
            else:
                cache = prepared(root, config)
                add_pin(storage, root, wanted, dir_mode=cache.dir_mode, file_mode=cache.file_mode)
        pinned = read_pins(storage, root) if show else []
    except OSError as error:
        raise CommandError(f"the pins of {root} cannot be kept: {error.strerror or error}") from None
    if as_json and show:
        click.echo(json.dumps(pinned, indent=1))
    else:
        for pattern in pinned:
            click.echo(visible(pattern))
    for pattern in missing:
        click.echo(f"jcache: not pinned: {pattern}", err=True)
    ctx.exit(1 if missing else 0)


def _canonical(pattern: str, config: Config) -> str:
    """Return the address that a journal of this URL has; a pattern stays what it is."""
    if not pattern.strip() or "\n" in pattern:
        raise WrongInputError(f"neither a URL nor a pattern: {pattern!r}")
    protocol, is_url, _ = pattern.partition("://")
    if is_url and not any(character in pattern for character in "*?["):
        with contextlib.suppress(Unidentifiable):
            return identify(protocol, pattern, {}, basepath=config.basepath).url
    return pattern
