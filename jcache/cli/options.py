"""What several commands take: the cache directory, as an option or, where it is their subject, as an argument."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from jcache.cli.errors import WrongInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.settings.config import Config

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

__all__ = [
    "DirectoryType",
    "directory_argument",
    "directory_option",
    "map_option",
    "one_directory",
    "pairs_of",
    "paths",
    "settings_of",
]


def paths(kind: str) -> Complete:
    """Return what makes a shell complete a value as a path: of a `file`, or of a `dir`."""

    def complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=kind)]

    return complete


class DirectoryType(click.Path):
    """A directory's name: an empty one, of a shell's variable that is not set, is not the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path."""
        if value == "":
            self.fail("an empty name is none of a directory", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


directory_option = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=DirectoryType(),
    shell_complete=paths("dir"),
    help="The cache directory, instead of JCACHE_DIR.",
)
"""Of all commands."""

map_option = click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="OLD=NEW",
    help="Addresses that begin with OLD begin with NEW now: another site, protocol, or directory. Repeatable.",
)
"""Of those that open what was recorded; see `pairs_of`."""

directory_argument = click.argument("place", required=False, metavar="[DIR]", shell_complete=paths("dir"))
"""Of those whose subject is a directory; see `one_directory`."""


def one_directory(place: str | None, directory: Path | None) -> str | None:
    """Return the directory that was given as an argument or as an option; None where there is none.

    Raises:
        WrongInputError: Both were given, and they are not the same.
    """
    if place is None or directory is None:
        return place if directory is None else os.fspath(directory)
    if os.path.abspath(place) != os.path.abspath(directory):
        raise WrongInputError(f"which directory? {place} was given, and --dir {directory}")
    return place


def pairs_of(maps: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return what `map_option` was given, by twos.

    Raises:
        WrongInputError: One of them is not OLD=NEW.
    """
    pairs = []
    for word in maps:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise WrongInputError(f"--map: {word} is not OLD=NEW, the beginnings of two addresses")
        pairs.append((old, new))
    return pairs


def settings_of(directory: Path | None, validate: str | None, *, appname: str) -> Config:
    """Return the settings of a command that caches itself; they are the environment's from now on.

    What reads them later, another process too, reads the same.

    Args:
        directory: The cache directory that was given as an option.
        validate: How long a remote file is trusted, likewise.
        appname: What reports call it, unless the environment says it.

    Raises:
        WrongInputError: One of them is wrong, or there is no cache directory.
    """
    from jcache.settings.config import Config, ConfigError, absolute

    given = {"JCACHE_DIR": None if directory is None else str(directory), "JCACHE_VALIDATE": validate}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    os.environ.setdefault("JCACHE_APPNAME", appname)
    if not os.environ.get("JCACHE_DIR"):
        raise WrongInputError("there is no cache directory: give --dir DIR, or set JCACHE_DIR")
    os.environ["JCACHE_DIR"] = absolute(os.environ["JCACHE_DIR"])
    try:
        return Config.from_environ(os.environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
