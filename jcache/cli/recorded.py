"""Which recorded run a word on a command line means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.progress import reading
from jcache.profile.reader import ProfileError
from jcache.profile.select import named
from jcache.report.select import LAST, SelectionError
from jcache.settings.config import Config, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from jcache.profile.reader import Profile, Recording

__all__ = ["counted", "given_above", "profiles_directory", "recorded"]


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
        errors: Gets what cannot be read, and what is damaged, of which the sound part is used.

    Raises:
        WrongInputError: It means nothing.
        CommandError: Nothing of what it means can be used.
    """
    try:
        where = None if os.sep in word or os.path.exists(word) else profiles_directory(directory)
        found = named(word, where, errors)
    except SelectionError as error:
        is_any = word == LAST or os.path.exists(word)
        raise _nothing(word, errors) if errors and is_any else WrongInputError(str(error)) from None
    with reading("checking", found.recordings):
        requests = sum(counted(one, errors)[0] for one in found.recordings)
    if errors and not requests:
        raise _nothing(word, errors)
    return found


def counted(recording: Recording, errors: list[ProfileError]) -> tuple[int, int]:
    """Return how many requests and ranges of a recording can be used; why that is not all of them goes into errors."""
    try:
        requests, ranges = recording.count()
    except ProfileError as error:
        errors.append(error)
        return 0, 0
    if recording.state == "damaged":
        sound = f": of its requests the first {requests} can be used" if requests else ""
        errors.append(ProfileError(f"{recording.path} is damaged{sound}"))
    return requests, ranges


def _nothing(word: str, errors: list[ProfileError]) -> CommandError:
    more = f", and {len(errors) - 1} more are like it" if len(errors) > 1 else ""
    return CommandError(f"nothing of {word} can be used: {errors[0]}{more}")


def given_above(directory: Path | None) -> Path | None:
    """Return what this command was given as its directory, or the group that it is of."""
    above: Path | None = click.get_current_context().obj
    return above if directory is None else directory
