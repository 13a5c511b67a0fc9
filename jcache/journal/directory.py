"""A journal's directory: its names, read again when they may have changed; made, and shared where that is asked for."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.storage import Storage

T = TypeVar("T")

__all__ = ["Directory", "create_file"]

# No file system that is mounted today stamps directories more coarsely; one whose stamps have fractions of a second
# has at least ten of them.
_SETTLED_S, _FINELY_SETTLED_S = 1.0, 0.1
_SHARED = 0o077
_MOST_ATTEMPTS = 10


class Directory:
    """One directory and what it was last seen to hold. Its methods are called under the journal's lock.

    Attributes:
        path: Where it is.
        file_mode: Permissions of files in it.
    """

    __slots__ = ("_dir_mode", "_listed_s", "_mtime_ns", "_mtime_seen_s", "_storage", "file_mode", "path")

    def __init__(self, storage: Storage, path: str, *, dir_mode: int, file_mode: int) -> None:
        self._storage = storage
        self._dir_mode = dir_mode
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
            self._storage.mkdir(path, self._dir_mode)
        except FileExistsError:
            return
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if parent == path:
                raise
            self._make(parent)
            try:
                self._storage.mkdir(path, self._dir_mode)
            except FileExistsError:  # another process was faster
                return
        if self._dir_mode & _SHARED:
            # The umask is meant for what nobody was asked about. Not for good where it fails: the file system has no
            # permissions, or another idea of them.
            with contextlib.suppress(OSError):
                inherited = self._storage.stat(path).st_mode & stat.S_ISGID
                self._storage.chmod(path, self._dir_mode & 0o7777 | inherited)


def create_file(storage: Storage, path: str, mode: int, *, exclusive: bool = True) -> int:
    """Create a file for reading and writing; where others are to share it, the umask does not narrow its permissions.

    Args:
        storage: The cache's file system.
        path: The file.
        mode: Its permissions. A private file costs no extra call.
        exclusive: Whether it must not exist.

    Returns:
        The descriptor.

    Raises:
        OSError: The file system failed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    fd = storage.open(path, flags | os.O_EXCL if exclusive else flags, mode)
    if mode & _SHARED:
        with contextlib.suppress(OSError):  # as above; or it is another user's
            storage.fchmod(fd, mode)
    return fd
