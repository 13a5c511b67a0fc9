"""What is to be removed of a cache because it was written: gathered until the recorder comes round to it."""

import threading
from collections.abc import Sequence

from jcache.cache import Cache
from jcache.naming import Identity
from jcache.naming.identity import is_below
from jcache.reader.remote import RemoteFile

__all__ = ["Clearing"]


class Clearing:
    """The paths of one cache directory that were written to and are not removed yet. Any thread may use it."""

    def __init__(self, cache: Cache) -> None:
        """Begin with nothing to remove."""
        self._cache = cache
        self._lock = threading.Lock()
        self._waiting: list[tuple[Identity, Sequence[RemoteFile]]] = []
        self._under_way: list[tuple[Identity, Sequence[RemoteFile]]] = []
        self._has_below = False

    def add(self, identity: Identity, files: Sequence[RemoteFile], *, below: bool) -> bool:
        """Note a path, and which files have journals there open; whether somebody must have `carry_out` called."""
        with self._lock:
            self._has_below |= below
            self._waiting.append((identity, files))
            return len(self._waiting) == 1

    def covers(self, url: str) -> bool:
        """Whether what is there of a file now is about to be removed."""
        with self._lock:
            chosen = (*self._waiting, *self._under_way)
            return any(is_below(url, identity.address.rstrip("/")) for identity, _ in chosen)

    def carry_out(self) -> None:
        """Remove all that was noted; it touches the cache directory. On one thread only.

        Raises:
            OSError: Something could not be removed.
        """
        with self._lock:
            chosen, self._waiting = self._waiting, []
            self._under_way = chosen
            below, self._has_below = self._has_below, False
        try:
            self._cache.remove(*(identity for identity, _ in chosen), below=below)
        finally:
            with self._lock:
                self._under_way = []
        for file in dict.fromkeys(file for _, files in chosen for file in files):
            file.attach_again()

    def give_up(self) -> None:
        """Forget what was noted: nobody will remove it."""
        with self._lock:
            self._waiting = []
