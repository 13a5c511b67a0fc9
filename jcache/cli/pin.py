"""`jcache pin`: what is to stay in the cache."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from jcache.cache.pins import Pins, add_pin, read_pins, remove_pin
from jcache.cli.catalogue import existing_cache, find_journal, journals, prepared
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option
from jcache.naming.identity import Unidentifiable, identify
from jcache.report.faces.units import human, number_of, visible
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

    from jcache.settings.config import Config

_NEITHER = "neither a URL, such as root://host//store/f.root, nor a pattern, such as '*/nano/*'"
_CREDENTIALS = re.compile(r"://[^/@]*@")


@click.command()
@click.argument("patterns", nargs=-1, metavar="[URL|GLOB]...")
@click.option("--remove", is_flag=True, help="Take pins back.")
@click.option("--list", "show", is_flag=True, help="List what is pinned.")
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def pin(
    ctx: click.Context, patterns: tuple[str, ...], directory: Path | None, *, remove: bool, show: bool, as_json: bool
) -> None:
    """Keep remote files in the cache, whatever its size: they are never removed to make room.

    URL is the address of one file, such as root://host//store/f.root; GLOB matches many, such as
    'root://eos*/nano/*': * stands for any text, slashes too. Quote it. Nothing of them need be cached yet; what is
    cached of each is said.

    \b
    Exit codes:
      0  done
      1  --remove: something was not pinned; or the pins could not be written
      2  the cache directory or a value is wrong
    """
    root, config = existing_cache(directory)
    storage = Storage(root)
    if not patterns and not show:
        raise WrongInputError("what is to stay? Give URLs or patterns, or --list; see --help")
    for pattern in patterns:
        if not pattern.strip() or "\n" in pattern:
            raise WrongInputError(f"{_NEITHER}: {pattern!r}")
    missing = []
    try:
        for pattern in patterns:
            if remove:
                wanted = {pattern, _address(pattern, config)}
                removed = [remove_pin(storage, root, known) for known in wanted]
                if not any(removed):
                    missing.append(pattern)
            else:
                wanted_one, found = _look_up(pattern, root, config, storage)
                cache = prepared(root, config)
                is_new = add_pin(storage, root, wanted_one, dir_mode=cache.dir_mode, file_mode=cache.file_mode)
                if not as_json:
                    click.echo(f"{'pinned' if is_new else 'pinned already'}: {visible(wanted_one)} ({found})")
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


def _look_up(word: str, root: str, config: Config, storage: Storage) -> tuple[str, str]:
    """Return what to pin for a word, and what the cache holds of that.

    Raises:
        WrongInputError: It is no URL, no pattern, and no name of anything cached.
    """
    if _is_pattern(word):
        wanted = _address(word, config)
        pins = Pins([wanted])
        count = sum(pins.match(*entry.names) for entry in journals(root, storage=storage))
        return wanted, f"{number_of(count, 'cached file')} now" if count else "nothing that is cached matches it yet"
    entry = find_journal(word, root, config, storage=storage)
    if entry is not None:
        return entry.url, f"{' '.join(human(entry.cached_bytes))} of it cached"
    protocol, is_url, _ = word.partition("://")
    if not is_url or not protocol:
        raise WrongInputError(f"{_NEITHER}: {word}")
    return _address(word, config), "nothing of it is cached yet"


def _address(word: str, config: Config) -> str:
    """Return the address that a journal of a URL has; a pattern stays what it is, but for credentials in it."""
    if _is_pattern(word):
        return _CREDENTIALS.sub("://", word)
    protocol, is_url, _ = word.removeprefix("jcache::").partition("://")
    if is_url:
        try:
            return identify(protocol, word.removeprefix("jcache::"), {}, basepath=config.basepath).url
        except Unidentifiable as error:
            raise WrongInputError(f"{error}; such files are not cached") from None
    return word


def _is_pattern(word: str) -> bool:
    """Tell a pattern from a URL, whose host may have brackets and whose query a question mark."""
    _, is_url, rest = word.partition("://")
    if not is_url:
        return any(character in word for character in "*?[")
    host, _, path = rest.partition("/")
    name, _, query = path.partition("?")
    return "*" in host + path or "?" in host or "[" in name or ("?" in path and "=" not in query)
