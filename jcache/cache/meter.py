"""A storage that counts what a process adds to a cache's journals and removes from them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from jcache.segment.format import parse_segment_name
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence  # type: ignore[attr-defined]  # Python 3.12's name; only in annotations

__all__ = ["MeteredStorage"]


class MeteredStorage(Storage):
    """The operating system's file system, and a count of the bytes that went into segments, and of those removed.

    Reading costs nothing more; removing or cutting a file costs one `lstat`. What is there more is never counted too
    low. Files that are no segments, finished or not, do not count.
    """

    __slots__ = ("_lock", "_others", "added_bytes", "removed_bytes")

    def __init__(self, *roots: str) -> None:
        """Make a storage; `roots` as for `Storage`."""
        super().__init__(*roots)
        self._lock = threading.Lock()
        self._others: set[int] = set()  # descriptors of files that do not count
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

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file, and keep in mind whether writing to it counts."""
        fd = super().open(path, flags, mode)
        if flags & (os.O_WRONLY | os.O_RDWR) and not _counts(path):
            self._others.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        self._others.discard(fd)
        super().close(fd)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write, and count."""
        written = super().pwritev(fd, buffers, position)
        if fd not in self._others:
            with self._lock:
                self.added_bytes += written
        return written

    def unlink(self, path: str) -> None:
        """Remove a file, and count its bytes off."""
        if not _counts(path):
            super().unlink(path)
            return
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


def _counts(path: str) -> bool:
    return parse_segment_name(os.path.basename(path).removesuffix(".tmp")) is not None
