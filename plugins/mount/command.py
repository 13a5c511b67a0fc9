"""`jcache mount`: a remote tree as a directory, through the journals of a cache."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.activate.notice import say
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, paths, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.settings.config import Config
    from jcache_plugins.mount.operations import Operations

__all__ = ["mount"]


@click.command("mount")
@click.argument("url", metavar="URL")
@click.argument("where", metavar="DIR", shell_complete=paths("dir"))
@directory_option
@click.option("--validate", metavar="open|never|SECONDS", help="How long a remote file is trusted to be unchanged.")
@click.option("--allow-other", is_flag=True, help="Let other users of this machine read, too.")
def mount(*, url: str, where: str, directory: Path | None, validate: str | None, allow_other: bool) -> None:
    """Mount the remote directory URL at DIR, read-only: any program reads it, from the cache where it has the bytes.

    DIR has to be empty. What is recorded are the ranges that the kernel asks for: what programs read, in whole pages.

    It ends with SIGTERM or Ctrl-C, or when DIR is unmounted, and prints the report of what was read. If it is killed,
    DIR is unmounted, too.

    \b
    Examples:
      jcache mount --dir /shared/jcache root://eos.example.org//store /data/store
      jcache mount https://data.example.org/open ./open &
      fusermount3 -u ./open

    \b
    Exit codes:
      0  it was unmounted
      1  it cannot be mounted
      2  the URL, DIR, an option or a setting is wrong
    """
    config = settings_of(directory, validate, appname="jcache-mount")
    where = os.path.abspath(where)
    try:
        from jcache_plugins.mount.life import MountError, check, unmounter
        from jcache_plugins.mount.life import mount as mounted
    except ImportError:
        raise CommandError("'jcache mount' needs the Python package 'mfusepy': install jcache[fuse]") from None
    except (AttributeError, OSError) as error:  # of libfuse, which it looks for as it is imported
        raise CommandError(f"'jcache mount' needs libfuse: install your system's package fuse3 ({error})") from None
    try:
        unmounter()
    except MountError as error:
        raise CommandError(str(error)) from None
    caches = map(os.path.realpath, os.environ["JCACHE_DIR"].split(os.pathsep))
    if any(f"{cache}/".startswith(f"{os.path.realpath(where)}/") for cache in caches):
        raise WrongInputError(f"{where}: the cache directory would lie in what is mounted there")
    try:
        check(where)
    except MountError as error:
        raise WrongInputError(str(error)) from None
    try:
        mounted(
            where,
            lambda answering: prepared(config, url, where, answering),
            allow_other=allow_other,
            started=lambda name: say(f"mounted {name} at {where}"),
        )
    except MountError as error:
        raise CommandError(str(error)) from None


def prepared(config: "Config", url: str, where: str, answering: "Callable[[], None]") -> "tuple[Operations, str]":
    """Return what answers the kernel, and the URL without secrets.

    Raises:
        CommandError: There is nothing at the URL.
        WrongInputError: There is no such file system, or the URL is a file's.
    """
    from jcache.activate import activate

    session = activate(config)
    import fsspec  # noqa: F401 - it is hooked as it is imported, by what is imported below as well

    from jcache_plugins.mount.names import Names
    from jcache_plugins.mount.objects import Objects
    from jcache_plugins.mount.operations import Operations
    from jcache_plugins.mount.tree import Tree
    from jcache_plugins.places import PlaceError

    try:
        names = Names(url)
    except PlaceError as error:
        raise WrongInputError(str(error)) from None
    objects = Objects(session, names)
    try:
        is_file = objects.is_file()
    except FileNotFoundError:
        raise CommandError(f"{names.url}: there is nothing of that name") from None
    if is_file:
        raise WrongInputError(f"{names.url} is a file; mount the directory that it lies in")
    return Operations(Tree(objects, where), session, answering), names.url
