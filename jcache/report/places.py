"""Where reports lie: directories and files that are for whoever the directory that they are in is for.

The umask does not narrow that: it is meant for what nobody was asked about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from jcache.segment.directory import make_directory
from jcache.settings.config import REPORTS_NAME

if TYPE_CHECKING:
    from typing import BinaryIO

    from jcache.system.storage import Storage

__all__ = ["create_inside", "make_inside", "make_place", "open_file", "read_file", "storage_of"]

_OTHERS = 0o077
_STICKY = 0o1000
_MOST_BYTES = 256 << 20


def storage_of(directory: str) -> Storage:
    """Return the file system of a directory of reports; the one in a cache, and what is in it, may be no link."""
    from jcache.system.storage import Storage

    directory = os.path.abspath(directory)
    return Storage(os.path.dirname(directory) if os.path.basename(directory) == REPORTS_NAME else directory)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to be read, unless it is something else.

    Whoever shares a cache may have left a FIFO or a link among its reports.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    path = os.path.abspath(os.fspath(path))
    above = os.path.dirname(path)
    is_shared = REPORTS_NAME in (os.path.basename(above), os.path.basename(os.path.dirname(above)))
    flags = os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if is_shared else 0)
    file = open(os.open(path, os.O_RDONLY | flags), "rb")  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


def read_file(path: str | os.PathLike[str], *, most_bytes: int | None = None) -> tuple[bytes, os.stat_result]:
    """Return what a file has, or its first bytes, and its attributes.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger than any report: a hole of a terabyte, say.
    """
    with open_file(path) as file:
        status = os.fstat(file.fileno())
        if most_bytes is None and status.st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, "larger than any report", os.fspath(path))
        return file.read(-1 if most_bytes is None else most_bytes), status


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
    if not storage.is_there(path):
        mode = storage.stat(os.path.dirname(path)).st_mode & (_OTHERS | _STICKY)
        with contextlib.suppress(FileExistsError):  # another process was faster
            make_directory(storage, path, 0o700 | mode)


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
    fd = storage.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
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
