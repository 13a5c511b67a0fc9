"""Where reports lie: directories and files that are for whoever the directory that they are in is for.

The umask does not narrow that: it is meant for what nobody was asked about.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jcache.config import REPORTS_NAME

if TYPE_CHECKING:
    from jcache.storage import Storage

__all__ = ["create_inside", "make_inside", "make_place"]

_OTHERS = 0o077
_STICKY = 0o1000


def make_place(storage: Storage, directory: str) -> None:
    """Create a directory of reports where it is missing, with all above it: private, but the one in a shared cache.

    Raises:
        OSError: It cannot be made.
    """
    try:
        _make(storage, directory)
    except FileNotFoundError:
        parent = os.path.dirname(directory)
        if parent in ("", directory):
            raise
        make_place(storage, parent)
        _make(storage, directory)


def make_inside(storage: Storage, path: str) -> None:
    """Create a directory, where it is missing, with the permissions of the one that it is in.

    Raises:
        OSError: It cannot be made.
    """
    try:
        storage.mkdir(path, 0o700)
    except FileExistsError:
        return  # the usual case; or another process was faster
    mode = storage.stat(os.path.dirname(path)).st_mode & (_OTHERS | _STICKY)
    if mode & _OTHERS:
        with contextlib.suppress(OSError):  # a file system with an idea of its own
            storage.chmod(path, storage.stat(path).st_mode & 0o7777 | mode)


def create_inside(storage: Storage, path: str, flags: int, *, others_write: bool = False) -> int:
    """Create a file that whoever may read its directory may read; return its descriptor.

    Args:
        storage: The file system.
        path: The file.
        flags: Those of `open`, without `O_CREAT`.
        others_write: Whether those who may write to the directory may write to the file.

    Raises:
        OSError: It cannot be made.
    """
    mode = storage.stat(os.path.dirname(path)).st_mode & (0o066 if others_write else 0o044)
    fd = storage.open(path, flags | os.O_CREAT, 0o600)
    if mode:
        with contextlib.suppress(OSError):  # as above, or the file was there and is another user's
            storage.fchmod(fd, 0o600 | mode)
    return fd


def _make(storage: Storage, directory: str) -> None:
    if os.path.basename(directory) == REPORTS_NAME:
        make_inside(storage, directory)
    else:
        with contextlib.suppress(FileExistsError):
            storage.mkdir(directory, 0o700)
