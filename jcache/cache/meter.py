"""A storage that counts what a process adds to a cache directory and removes from it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jcache.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence  # type: ignore[attr-defined]  # Python 3.12's name; only in annotations

__all__ = ["MeteredStorage"]


class MeteredStorage(Storage):
    """The operating system's file system, and a count of the bytes that went into files, less those of removed files.

    Reading costs nothing more; removing or cutting a file costs one `lstat`. The count is never too low.
    """

    __slots__ = ("_lock", "added_bytes", "removed_bytes")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.added_bytes = 0
        self.removed_bytes = 0

    def tally(self) -> tuple[int, int]:
        """Return what was added and what was removed, as of one moment."""
        with self._lock:
            return self.added_bytes, self.removed_bytes

    @property
    def net_bytes(self) -> int:
        """What is there more than before; negative where more was removed than added."""
        added, removed = self.tally()
        return added - removed

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write, and count."""
        written = super().pwritev(fd, buffers, position)
        with self._lock:
            self.added_bytes += written
        return written

    def unlink(self, path: str) -> None:
        """Remove a file, and count its bytes off."""
        size = self.lstat(path).st_size
        super().unlink(path)
        with self._lock:
            self.removed_bytes += size

    def ftruncate(self, fd: int, size_bytes: int) -> None:
        """Cut a file, such as behind a write that failed in the middle, and count off what is gone."""
        size = self.fstat(fd).st_size
        super().ftruncate(fd, size_bytes)
        with self._lock:
            self.removed_bytes += max(size - size_bytes, 0)
