"""What lies in a cache directory, as the commands that look into it need it."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jcache.cli.errors import WrongInputError
from jcache.config import REPORTS_NAME, Config, ConfigError
from jcache.journal import Journal
from jcache.journal.format import HEADER, MAX_METADATA_BYTES, parse_header, parse_segment_name
from jcache.storage import Storage


@dataclass(frozen=True, slots=True)
class Stored:
    """What the cache holds of one state of a remote file.

    Attributes:
        size_bytes: The remote file's size.
        cached_bytes: Distinct bytes of it that are in the journal.
        validated_s: When the state was last known to be the origin's, unix seconds.
        version: What the origin named it by, as JSON.
    """

    size_bytes: int
    cached_bytes: int
    validated_s: float
    version: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal: the remote file's canonical name, its directory, its segments, its states from new to old."""

    name: str
    directory: str
    segments: int
    disk_bytes: int
    versions: tuple[Stored, ...]


def cache_config(given: Path | None, *, remedy: str = "give --dir DIR, or set JCACHE_DIR") -> tuple[str, Config]:
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
    if config.dir is None:
        raise WrongInputError(f"there is no cache directory: {remedy}")
    if not os.path.isdir(config.dir):
        raise WrongInputError(f"no such directory: {config.dir}")
    return config.dir, config


def journals(directory: str, *, storage: Storage) -> Iterator[Entry]:
    """Yield the journals below a directory, in the order of their paths; what cannot be read is left out."""
    try:
        names = sorted(storage.listdir(directory))
    except OSError:
        return  # a file, or a directory that is not ours to read
    segments = [name for name in names if parse_segment_name(name) is not None]
    if segments:
        entry = entry_of(directory, segments, storage=storage)
        if entry is not None:
            yield entry
    for name in names:
        path = os.path.join(directory, name)
        if not name.startswith("@") and name != REPORTS_NAME and _is_directory(path, storage):
            yield from journals(path, storage=storage)


def entry_of(directory: str, segments: list[str], *, storage: Storage) -> Entry | None:
    """Return what a journal's directory holds, or `None` where no segment says whose it is."""
    identity = next(filter(None, (_identity(os.path.join(directory, name), storage) for name in segments)), None)
    if identity is None:
        return None
    journal = Journal(storage, directory, identity)
    journal.attach()
    try:
        versions = tuple(
            Stored(
                size_bytes=stored.version.size_bytes,
                cached_bytes=journal.view(stored.version).covered(),
                validated_s=stored.validated_ns / 1e9,
                version=dict(stored.version.to_json()),
            )
            for stored in journal.versions()
        )
    finally:
        journal.close()
    return Entry(
        name=identity,
        directory=directory,
        segments=len(segments),
        disk_bytes=sum(_size(os.path.join(directory, name), storage) for name in segments),
        versions=versions,
    )


def _identity(path: str, storage: Storage) -> str | None:
    parsed = parse_segment_name(os.path.basename(path))
    if parsed is None:
        return None
    try:
        fd = storage.open(path, os.O_RDONLY)
        try:
            header = parse_header(storage.pread(fd, HEADER.size + MAX_METADATA_BYTES, 0), parsed[2])
        finally:
            storage.close(fd)
    except OSError:
        return None  # removed since it was listed, or not ours to read
    return header[0].identity if isinstance(header, tuple) else None


def _is_directory(path: str, storage: Storage) -> bool:
    try:
        return stat.S_ISDIR(storage.stat(path).st_mode)
    except OSError:
        return False


def _size(path: str, storage: Storage) -> int:
    try:
        return storage.stat(path).st_size
    except OSError:
        return 0
