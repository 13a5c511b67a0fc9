"""What is to stay in a cache whatever its size: remote files by address, or by a pattern for addresses.

Each pin is a file of its own, named by the hash of what it says, so that pinning and unpinning need no lock.
"""

from __future__ import annotations

import contextlib
import os
import re
from fnmatch import translate
from typing import TYPE_CHECKING

from jcache.cache.usage import directory_of
from jcache.naming.layout import digest
from jcache.segment.directory import create_file, make_directory
from jcache.segment.segment import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.system.storage import Storage

__all__ = ["Pins", "add_pin", "read_pins", "remove_pin"]

PINS_NAME = "pins"
_SUFFIX = ".pin"
_MOST_BYTES = 64 * 1024


class Pins:
    """Patterns, ready to be held against names."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact = frozenset(patterns)
        self._patterns = [re.compile(translate(pattern)) for pattern in sorted(self._exact)]

    def __bool__(self) -> bool:
        return bool(self._exact)

    def match(self, *names: str) -> bool:
        """Whether one of the names of a journal is pinned; `*` matches any text, slashes too."""
        return any(name in self._exact or any(p.match(name) for p in self._patterns) for name in names)


def read_pins(storage: Storage, root: str) -> list[str]:
    """Return what is pinned in a cache, sorted.

    Raises:
        OSError: The file system failed.
    """
    directory = os.path.join(directory_of(root), PINS_NAME)
    try:
        names = storage.listdir(directory)
    except FileNotFoundError:
        return []
    found = set()
    for name in names:
        if not name.endswith(_SUFFIX):
            continue
        try:
            fd = storage.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            text = os.fsdecode(read_all(storage, fd, _MOST_BYTES, 0))
        finally:
            storage.close(fd)
        if text.endswith("\n"):  # else it is being written
            found.add(text[:-1])
    return sorted(found)


def add_pin(storage: Storage, root: str, pattern: str, *, dir_mode: int, file_mode: int) -> bool:
    """Pin what a pattern matches, now and later; False where that is pinned already.

    Raises:
        OSError: The file system failed.
    """
    path = _path(root, pattern)
    for directory in (directory_of(root), os.path.dirname(path)):
        with contextlib.suppress(FileExistsError):
            make_directory(storage, directory, dir_mode)
    try:
        fd = create_file(storage, path, file_mode)
    except FileExistsError:
        return False
    try:
        storage.pwritev(fd, [os.fsencode(pattern + "\n")], 0)
    finally:
        storage.close(fd)
    return True


def remove_pin(storage: Storage, root: str, pattern: str) -> bool:
    """Take back a pin; False where there is none.

    Raises:
        OSError: The file system failed.
    """
    try:
        storage.unlink(_path(root, pattern))
    except FileNotFoundError:
        return False
    return True


def _path(root: str, pattern: str) -> str:
    return os.path.join(directory_of(root), PINS_NAME, digest(pattern, 32) + _SUFFIX)
