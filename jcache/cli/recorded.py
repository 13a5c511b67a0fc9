"""Which recorded run a word on a command line means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from jcache.cli.errors import WrongInputError
from jcache.profile.select import named
from jcache.report.select import SelectionError
from jcache.settings.config import Config, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from jcache.profile.reader import Profile, ProfileError

__all__ = ["given_above", "profiles_directory", "recorded"]


def profiles_directory(given: Path | None) -> str:
    """Return where profiles are: of the cache directory that is given, or as the environment says.

    Raises:
        WrongInputError: Nothing says where, or a setting is wrong.
    """
    environ = dict(os.environ)
    if given is not None:
        environ.pop("JCACHE_JSON", None)
        environ.pop("JCACHE_PROFILE", None)
        environ["JCACHE_DIR"] = os.path.abspath(given)
    try:
        config = Config.from_environ(environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    found = config.profile_directory or config.report_directory
    if found is None:
        raise WrongInputError("where are the profiles? Name them, give --dir DIR, or set JCACHE_DIR")
    return found


def recorded(word: str, directory: Path | None, errors: list[ProfileError]) -> Profile:
    """Return the profile that a word means: a run's name, or a file, a glob of files, a directory.

    Args:
        word: The word.
        directory: A cache directory, where it is not that of the environment.
        errors: Gets what cannot be read.

    Raises:
        WrongInputError: It means nothing.
    """
    try:
        where = None if os.sep in word or os.path.exists(word) else profiles_directory(directory)
        found = named(word, where, errors)
    except SelectionError as error:
        raise WrongInputError(str(error)) from None
    if not found.recordings:
        raise WrongInputError(str(errors[-1]) if errors else f"no profile: {word}")
    return found


def given_above(directory: Path | None) -> Path | None:
    """Return what this command was given as its directory, or the group that it is of."""
    above: Path | None = click.get_current_context().obj
    return above if directory is None else directory
