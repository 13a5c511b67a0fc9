"""Which cache directory, and which journal in it, a command is about."""

from __future__ import annotations

import contextlib
import os
import re
from fnmatch import translate
from typing import TYPE_CHECKING

import click

from jcache.cache.books import USAGE_NAME
from jcache.cache.catalogue import Entry, entry_of
from jcache.cache.catalogue import journals as every_journal
from jcache.cache.directory import TAG, Cache
from jcache.cache.tree import walk
from jcache.cli.errors import WrongInputError
from jcache.cli.options import directory_option
from jcache.naming.identity import Unidentifiable, names_of
from jcache.naming.layout import TAG_NAME
from jcache.report.faces.units import visible
from jcache.settings.config import FILE_NAME, REPORTS_NAME, Config, ConfigError
from jcache.settings.rules import naming
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = [
    "cache_config", "cache_of", "directory_option", "existing_cache", "find_journal", "find_journals", "journals",
    "matcher", "may_be_cache", "must_hold_something", "nearest", "prepared", "readable_cache", "root_of",
    "usable",
]  # fmt: skip

# From which likeness on, between 0 and 1, an address is worth mentioning for another one.
_LIKE = 0.8
_NO_CACHE = f"{{}} is not a cache directory of JCache's: it has neither its {TAG_NAME} nor {USAGE_NAME}"


def cache_config(given: Path | str | None, *, remedy: str = "give --dir DIR, or set JCACHE_DIR") -> tuple[str, Config]:
    """Return the cache directory that the user named, or else the configured one, and its settings.

    Args:
        given: What the user named.
        remedy: How the user can name one to this command.

    Raises:
        WrongInputError: There is none, or a setting is wrong.
    """
    environ = dict(os.environ)
    if given is not None:
        environ["JCACHE_DIR"] = os.path.abspath(given)
    try:
        config = Config.from_environ(environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    if config.ignored:
        click.echo(f"jcache: {visible(config.ignored)}", err=True)
    if config.dir is None:
        raise WrongInputError(f"there is no cache directory: {remedy}")
    if not os.path.isdir(config.dir):
        what = "not a directory" if os.path.exists(config.dir) else "no such directory"
        raise WrongInputError(f"{what}: {config.dir}")
    return config.dir, config


def existing_cache(
    given: Path | str | None, *, remedy: str = "give --dir DIR, or set JCACHE_DIR"
) -> tuple[str, Config]:
    """Do as `cache_config` does, for a command that removes or adds: the directory must be a cache already.

    Raises:
        WrongInputError: It is none.
    """
    directory, config = cache_config(given, remedy=remedy)
    if not _is_cache(directory):
        raise WrongInputError(_NO_CACHE.format(directory))
    return directory, config


def readable_cache(
    given: Path | str | None, *, remedy: str = "give --dir DIR, or set JCACHE_DIR"
) -> tuple[str, Config]:
    """Do as `cache_config` does, for a command that shows: a cache, a part of one, or a directory for one to come.

    Raises:
        WrongInputError: It is none of these.
    """
    directory, config = cache_config(given, remedy=remedy)
    if not may_be_cache(directory):
        raise WrongInputError(_NO_CACHE.format(directory))
    return directory, config


def may_be_cache(directory: str) -> bool:
    """Tell whether a directory is a cache, a part of one, or as good as empty, so that it may become one."""
    return root_of(directory) is not None or _may_become_cache(directory)


def must_hold_something(directory: str, *, storage: Storage) -> None:
    """Raise where a directory is no cache, no part of one, and holds no journal either, as a copy of one would.

    Raises:
        WrongInputError: It is nothing of JCache's.
    """
    if not may_be_cache(directory) and next(walk(storage, directory), None) is None:
        raise WrongInputError(f"{_NO_CACHE.format(directory)}, and there is no journal in it")


def root_of(directory: str) -> str | None:
    """Return the cache that a directory is or lies in, None where it does not."""
    above = os.path.abspath(directory)
    while not _is_cache(above):
        if above == os.path.dirname(above):
            return None
        above = os.path.dirname(above)
    return above


def cache_of(directory: str, config: Config, *, storage: Storage | None = None) -> Cache:
    """Return a cache directory that goes by the settings; nothing is touched."""
    return Cache(directory, storage=storage, **naming(config.rules, flat=config.flat, basepath=config.basepath))


def usable(directory: str, config: Config) -> Cache:
    """Return a cache that is made, where there is none, and checked in time; it may be one that can only be read.

    Raises:
        WrongInputError: It cannot be used.
    """
    from jcache.cache.directory import CacheUnusable
    from jcache.recording.workers import CacheHungError, Workers

    cache = cache_of(directory, config)
    try:
        Workers(threads=1, limit_s=config.timeout, on_hung=lambda _: None).call(cache.prepare)
    except (CacheUnusable, CacheHungError) as error:
        raise WrongInputError(str(error)) from None
    return cache


def prepared(directory: str, config: Config) -> Cache:
    """Return a cache that can be written to.

    Raises:
        WrongInputError: It cannot.
    """
    cache = usable(directory, config)
    if not cache.writable:
        raise WrongInputError(str(cache.reason))
    return cache


def journals(directory: str, *, storage: Storage) -> Iterator[Entry]:
    """Yield the journals below a directory, in the order of their paths; what cannot be read is left out."""
    return every_journal(storage, directory)


def find_journal(url: str, directory: str, config: Config, *, storage: Storage) -> Entry | None:
    """Return the journal of a remote file: where one of this address and no options lies; or else look at all names.

    Args:
        url: Address, as a program has it or as `jcache ls` prints it, or name.
        directory: The cache's root.
        config: Its settings.
        storage: Its file system.
    """
    return next(find_journals(url, directory, config, storage=storage), None)


def find_journals(url: str, directory: str, config: Config, *, storage: Storage) -> Iterator[Entry]:
    """Yield the journals of a remote file: several, where it is another for other options or for who asks.

    Where there is one of just this address, that is all.
    """
    cache = cache_of(directory, config, storage=storage)
    url = url.removeprefix("jcache::")
    protocol, is_url, _ = url.partition("://")
    names = {url}
    if is_url:
        with contextlib.suppress(OSError, Unidentifiable):
            identity = cache.identify(protocol, url, {})
            names.add(identity.url)
            entry = entry_of(storage, directory, "/".join(map(os.fsdecode, identity.parts)))
            if entry is not None and entry.name == identity.key:
                yield entry
                return
    for entry in journals(directory, storage=storage):
        if not names.isdisjoint(entry.names):
            yield entry


def nearest(url: str, directory: str, *, storage: Storage, most: int = 3) -> list[str]:
    """Return the addresses of what the cache holds that are most like one of which it holds nothing."""
    from difflib import SequenceMatcher

    wanted = url.removeprefix("jcache::")
    last = wanted.rpartition("/")[2]
    found: dict[str, float] = {}
    for entry in journals(directory, storage=storage):
        for name in names_of(entry.name):
            likeness = SequenceMatcher(None, wanted, name, autojunk=False)
            same = bool(last) and name.endswith("/" + last)
            # The cheap bounds first: most are like nothing.
            if same or (likeness.real_quick_ratio() >= _LIKE and likeness.quick_ratio() >= _LIKE):
                found[entry.url] = max(found.get(entry.url, 0.0), likeness.ratio() + same)
    near = [name for name in sorted(found, key=lambda name: (-found[name], name)) if found[name] >= _LIKE]
    return near[:most]


def matcher(pattern: str) -> re.Pattern[str]:
    """Return a pattern of the shell's kind, ready to be matched; `*` stands for any text, slashes too."""
    return re.compile(translate(pattern))


def _may_become_cache(directory: str) -> bool:
    try:
        return set(os.listdir(directory)) <= {FILE_NAME}
    except OSError:
        return True  # one may be allowed to enter and not to list it


def _is_cache(directory: str) -> bool:
    storage = Storage()
    with contextlib.suppress(OSError):  # most likely there is none
        fd = storage.open(os.path.join(directory, TAG_NAME), os.O_RDONLY)
        try:
            if storage.pread(fd, len(TAG), 0) == TAG:
                return True
        finally:
            storage.close(fd)
    return any(os.path.isdir(os.path.join(directory, name)) for name in (USAGE_NAME, REPORTS_NAME))
