"""A journal's directory: its names, read again when they may have changed; made, and shared where that is asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.system.storage import Storage

T = TypeVar("T")

__all__ = ["TEMPORARY", "Directory", "create_file", "make_directory"]

TEMPORARY = ".tmp"
"""How the names of files and directories end that are not what they will be yet."""

# No file system that is mounted today stamps directories more coarsely; one whose stamps have fractions of a second
# has at least ten of them.
_SETTLED_S, _FINELY_SETTLED_S = 1.0, 0.1
_SHARED = 0o077
_MOST_ATTEMPTS = 10
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class Directory:
    """One directory and what it was last seen to hold. Its methods are called under the journal's lock.

    Attributes:
        path: Where it is.
        file_mode: Permissions of files in it.
    """

    __slots__ = ("_listed_s", "_mtime_ns", "_mtime_seen_s", "_storage", "dir_mode", "file_mode", "path")

    def __init__(self, storage: Storage, path: str, *, dir_mode: int, file_mode: int) -> None:
        self._storage = storage
        self.dir_mode = dir_mode
        self.path = path
        self.file_mode = file_mode
        self.forget()

    def forget(self) -> None:
        """Be as if nothing had ever been looked at."""
        self._mtime_ns: int | None = None
        self._mtime_seen_s = self._listed_s = 0.0

    def join(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.path, name)

    def may_have_changed(self) -> bool:
        """Tell with one `stat` whether names may have come or gone since the last `read`.

        A directory that was changed less than a tick of its file system's clock ago may change again without a new
        time, so it counts as changed until a `read` came safely later. The waiting is timed by this machine's own
        clock, since the file system's may differ.
        """
        try:
            mtime_ns = self._storage.stat(self.path).st_mtime_ns
        except OSError:
            # Missing, most likely: listing tells that from trouble.
            mtime_ns = -1
        if mtime_ns != self._mtime_ns:
            self._mtime_ns, self._mtime_seen_s = mtime_ns, time.monotonic()
            return True
        settled_s = _FINELY_SETTLED_S if mtime_ns % 1_000_000_000 else _SETTLED_S
        return self._listed_s < self._mtime_seen_s + settled_s

    def read(self) -> list[str]:
        """Return the names; a missing directory has none.

        Raises:
            OSError: The file system failed.
        """
        listed_s = time.monotonic()
        try:
            names = self._storage.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        self._listed_s = listed_s
        return names

    def make(self) -> None:
        """Create it, and what is missing on the way to it.

        Raises:
            OSError: The file system failed.
        """
        self._make(self.path)

    def made_for(self, create: Callable[[], T], *, expect: bool = True) -> T:
        """Create something in it; make it for that where it is missing.

        A cleaner removes directories that are empty, such as one that was made a moment ago. So this is tried again.

        Args:
            create: Creates it, and may be called several times.
            expect: Whether the directory most likely exists.

        Raises:
            OSError: The file system failed.
        """
        for attempt in range(_MOST_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                if attempt or not expect:
                    self.make()
                return create()
        return create()

    def _make(self, path: str) -> None:
        try:
            make_directory(self._storage, path, self.dir_mode)
        except FileExistsError:
            return
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if parent == path:
                raise
            self._make(parent)
            with contextlib.suppress(FileExistsError):  # another process was faster
                make_directory(self._storage, path, self.dir_mode)


def make_directory(storage: Storage, path: str, mode: int) -> None:
    """Create one directory; where others are to share it, it has its permissions before it has its name.

    The umask is meant for what nobody was asked about, so it narrows only what is its owner's alone. The group is
    inherited: without set-group-id, what each user makes in it would be of that user's own group, closed to others.

    Args:
        storage: The cache's file system.
        path: The directory.
        mode: Its permissions. A private one costs no extra call.

    Raises:
        FileExistsError: It is there, or something else is.
        OSError: The file system failed.
    """
    if not mode & _SHARED:
        storage.mkdir(path, mode)
        return
    temporary = os.path.join(os.path.dirname(path), f"@{os.urandom(8).hex()}{TEMPORARY}")
    storage.mkdir(temporary)
    try:
        fd = storage.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with contextlib.suppress(OSError):  # a file system without permissions, or with another idea of them
                storage.fchmod(fd, mode | (storage.fstat(fd).st_mode & stat.S_ISGID))
        finally:
            storage.close(fd)
        # Takes the place of an empty directory, which whoever made it does not notice, and of nothing else.
        storage.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            storage.rmdir(temporary)
        if error.errno != errno.ENOENT and storage.is_there(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        raise


def create_file(storage: Storage, path: str, mode: int, *, exclusive: bool = True) -> int:
    """Create a file for reading and writing; where others are to share it, it has its permissions before its name.

    Args:
        storage: The cache's file system.
        path: The file. One whose name says that it is unfinished has its name at once: nobody else opens it.
        mode: Its permissions; the umask narrows only those of private files, which cost no extra call.
        exclusive: Whether it must not exist. Nothing is to be written to a file that may.

    Returns:
        The descriptor.

    Raises:
        OSError: The file system failed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    if not exclusive:
        if not mode & _SHARED:
            return storage.open(path, flags, mode)
        for _ in range(_MOST_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                return storage.open(path, flags & ~os.O_CREAT)
            with contextlib.suppress(FileExistsError):
                return create_file(storage, path, mode)
    if not mode & _SHARED:
        return storage.open(path, flags | os.O_EXCL, mode)
    temporary = path if path.endswith(TEMPORARY) else path + TEMPORARY
    fd = storage.open(temporary, flags | os.O_EXCL, mode)
    try:
        with contextlib.suppress(OSError):  # as above
            storage.fchmod(fd, mode)
        if temporary != path:
            _publish(storage, temporary, path)
    except OSError:
        storage.close(fd)
        with contextlib.suppress(OSError):
            storage.unlink(temporary)
        raise
    return fd


def _publish(storage: Storage, temporary: str, path: str) -> None:
    """Give a file its name, unless another one has it."""
    try:
        storage.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        storage.rename(temporary, path)
    else:
        storage.unlink(temporary)
