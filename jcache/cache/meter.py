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

    Reading costs nothing more; removing a file costs one `lstat`. What a failed write left is counted though it is cut
    off: the count is never too low.
    """

    __slots__ = ("_lock", "net_bytes")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.net_bytes = 0
        """Negative where more was removed than added."""

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write, and count."""
        written = super().pwritev(fd, buffers, position)
        with self._lock:
            self.net_bytes += written
        return written

    def unlink(self, path: str) -> None:
        """Remove a file, and count its bytes off."""
        size = self.lstat(path).st_size
        super().unlink(path)
        with self._lock:
            self.net_bytes -= size
