"""The names in a journal's directory, read again only when they may have changed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from jcache.journal.format import host_label, parse_segment_name

if TYPE_CHECKING:
    from jcache.storage import Storage

__all__ = ["Listing", "writer_may_live"]

_SETTLED_S = 1.0  # no file system that is mounted today stamps directories more coarsely


class Listing:
    """What a directory holds, as last seen. Its methods are called under the journal's lock."""

    __slots__ = ("_directory", "_listed_s", "_mtime_ns", "_mtime_seen_s", "_storage")

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._mtime_ns: int | None = None
        self._mtime_seen_s = self._listed_s = 0.0

    def may_have_changed(self) -> bool:
        """Tell with one `stat` whether names may have come or gone since the last `read`.

        A directory that was changed less than a tick of its file system's clock ago may change again without a new
        time, so it counts as changed until a `read` came safely later. The waiting is timed by this machine's own
        clock, since the file system's may differ.
        """
        try:
            mtime_ns = self._storage.stat(self._directory).st_mtime_ns
        except OSError:
            # Missing, most likely: listing tells that from trouble.
            mtime_ns = -1
        if mtime_ns != self._mtime_ns:
            self._mtime_ns, self._mtime_seen_s = mtime_ns, time.monotonic()
            return True
        return self._listed_s < self._mtime_seen_s + _SETTLED_S

    def read(self) -> list[str]:
        """Return the names; a missing directory has none.

        Raises:
            OSError: The file system failed.
        """
        listed_s = time.monotonic()
        try:
            names = self._storage.listdir(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        self._listed_s = listed_s
        return names


def writer_may_live(name: str) -> bool:
    """Tell from a segment's name whether its writer may still run; of another machine's processes nothing is known."""
    parsed = parse_segment_name(name)
    if parsed is None or parsed[0] != host_label(os.uname().nodename):
        return True
    try:
        os.kill(parsed[1], 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It exists, and is somebody else's.
        return True
    return True
