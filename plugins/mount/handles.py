"""What a program reads that has opened a file of a mount."""

import threading
from contextlib import AbstractContextManager
from typing import Any, Protocol

from jcache.errors import ShortReadError
from jcache.origin import Info
from jcache_plugins.fsspec.access import Access
from jcache_plugins.fsspec.journal_cache import JournalReader

__all__ = ["Bytes", "JournalBytes", "PlainBytes"]


class Bytes(Protocol):
    """The bytes of an open file, for any number of threads."""

    def read(self, start: int, size: int) -> bytes:
        """Return as many bytes from `start` on, fewer only at the end of the file."""

    def close(self) -> None:
        """Give up what was read ahead."""


class JournalBytes:
    """One version of a file, through its journal: exactly what is asked for is recorded.

    The kernel's requests of one reader come one after the other, and those that follow one another are read ahead, as
    any file object's are. One that comes while another one is being answered is another reader's.
    """

    def __init__(self, fs: Any, path: str, found: Access, info: Info) -> None:
        # The kernel may have pages of this version already.
        self._reader = JournalReader(fs, path, found, info, is_used=True)
        self._size = info.version.size_bytes
        self._turn = threading.Lock()

    def read(self, start: int, size: int) -> bytes:
        """Return as many bytes from `start` on, fewer only at the end of the file.

        Raises:
            OriginChangedError: The origin has another version by now.
            Exception: Whatever the origin raises.
        """
        stop = min(start + size, self._size)
        if start >= stop:
            return b""
        if self._turn.acquire(blocking=False):
            try:
                data = self._reader.read(start, stop)
            finally:
                self._turn.release()
        else:
            data = self._reader.fetch_exactly(start, stop)
        if len(data) != stop - start:  # the kernel would take the rest for zeros
            raise ShortReadError("the file ends before it should")
        return data

    def close(self) -> None:
        """Give up what was read ahead."""
        with self._turn:
            self._reader.close()


class PlainBytes:
    """A file that is read past the cache, by a file object of its file system's."""

    def __init__(self, fs: Any, path: str, turns: AbstractContextManager[Any]) -> None:
        self._turn, self._turns = threading.Lock(), turns
        with turns:
            self._file = fs.open(path, "rb")

    def read(self, start: int, size: int) -> bytes:
        """Return as many bytes from `start` on, fewer only at the end of the file."""
        with self._turn, self._turns:
            self._file.seek(start)
            data = b""
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
            return data

    def close(self) -> None:
        """Close the file."""
        with self._turn, self._turns:
            self._file.close()
