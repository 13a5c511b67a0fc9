"""File objects whose reads go through the journal, opened at the server or not; and those whose reads are counted."""

import contextlib
import io
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

from fsspec.caching import AllBytes
from fsspec.spec import AbstractBufferedFile

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.session import current
from jcache_plugins.fsspec.access import run
from jcache_plugins.fsspec.journal_cache import JournalCache, JournalReader
from jcache_plugins.fsspec.kinds import ANY
from jcache_plugins.fsspec.reads import asks_origin, may_ask, measured, one_range
from jcache_plugins.origins.base import reaching

__all__ = ["JournaledFile", "MeasuredFile", "UnopenedFile"]

# What is read at a time to find the end of a line.
LINES_BYTES = 64 << 10

# What file objects of the interpreter's own have besides, and by which of ours it is done: there is one position.
OURS = {"peek": "_peek", "read1": "read", "readall": "read"}
# The names of what file objects have, by the class of their file system.
_names_of: dict[type, frozenset[str]] = {}


class JournaledFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """What a class of file objects does otherwise where a file's reads go through the journal.

    Like any file object it belongs to one thread at a time. It holds no descriptor of its own: closing it releases
    memory, and what it read stays with the process's session.
    """

    journal: JournalReader
    own_cache: JournalCache
    loc: int
    size: int
    # What `readuntil` has read and not handed out.
    _block = b""
    _block_start = 0

    def read(self, length: Any = -1) -> bytes:
        """Read up to `length` bytes, to the end of the file where it is negative."""
        journal = self.journal
        try:
            length = operator.index(length)
        except TypeError:
            return super().read(length)  # type: ignore[no-any-return]
        if self.closed:
            msg = "I/O operation on closed file."
            raise ValueError(msg)
        if self.cache is not self.own_cache:  # another one was put there, which what reads a whole file would pass by
            return super().read(self.size - self.loc if length < 0 else length)  # type: ignore[no-any-return]
        start: int = self.loc
        if length < 0 and not start and hasattr(self, "_fetch_all"):
            return self._read_all()
        stop = self.size if length < 0 else min(start + length, self.size)
        if stop <= start:
            return b""
        data: bytes = journal.read(start, stop)
        if stop == self.size and hasattr(self, "_fetch_all") and journal.ends_as_said():
            rest = self._whole()[start : start + length if length >= 0 else None]
            data = rest if rest.startswith(data) else data
        self.loc = start + len(data)
        return data

    def _read_all(self) -> bytes:
        """Read all of a file, however long it turns out to be, also where the server refuses a part of it."""
        data: Any = None
        try:
            data = self.journal.read(0, self.size)
        except (OfflineMissError, OriginChangedError):
            raise
        except Exception:
            if not may_ask() or self.journal.has_delivered:
                raise  # what is there by now may be of another version than what was delivered
        if data is None or len(data) != self.size or not self.journal.is_as_long():
            data = self._whole()
        self.loc = self.size
        return data  # type: ignore[no-any-return]  # bytes

    def _whole(self) -> bytes:
        """Read the file by one request for all of it, and have it for whatever is read next."""
        way = self.journal.access
        try:
            data: Any = run(self.fs, one_range(way, (None, None)))
        except FileNotFoundError as error:
            raise way.origin.of_open_file(error) from None
        if isinstance(data, bytes):
            self.cache = AllBytes(size=len(data), data=data)
        else:
            started_s = time.monotonic()
            with reaching():
                self._fetch_all()
                data = measured(self.fs, self.path, self.cache.data, seconds=time.monotonic() - started_s)
        self.size = len(data)
        return data  # type: ignore[no-any-return]  # bytes

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.journal.fetch_exactly(start, end)

    def readuntil(self, char: bytes = b"\n", blocks: int | None = None) -> bytes:
        """Return the bytes up to and with the next `char`, or to the end of the file.

        Args:
            char: What to look for, one byte or more.
            blocks: How much to read at a time, in bytes.
        """
        if self.cache is not self.own_cache:
            return super().readuntil(char, blocks)  # type: ignore[no-any-return]
        line = b""
        while True:
            at = self.loc - self._block_start
            if not 0 <= at < len(self._block):
                self._block, self._block_start, at = self.read(blocks or LINES_BYTES), self.loc, 0
                self._block_start -= len(self._block)
            if not self._block:
                return line
            found = -1 if line else self._block.find(char, at)
            if found >= 0:
                self.loc = self._block_start + found + len(char)
                return self._block[at : found + len(char)]
            searched = max(len(line) - len(char) + 1, 0)
            line += self._block[at:]
            found = line.find(char, searched)
            if found >= 0:
                self.loc = self._block_start + len(self._block) - (len(line) - found - len(char))
                return line[: found + len(char)]
            self.loc = self._block_start + len(self._block)

    def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        super().close()
        if self.closed:
            self._block = b""
            self.journal.close()

    def __del__(self) -> None:
        """Close a file that was never closed, without waiting for a lock."""
        journal = self.__dict__.get("journal")
        if journal is not None:  # else it was never made
            journal.close_soon()
            super().__del__()


class UnopenedFile(JournaledFile):
    """A file object that was made without opening the file at the server, which it does once somebody needs that."""

    opened: Callable[[], Any]
    kind = ANY

    def __getattr__(self, name: str) -> Any:
        kind = type(self).kind
        if name not in (self._names(name) if kind.lazy is None else kind.lazy) or is_offline():
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        if kind.lazy is None and name in OURS:
            return getattr(self, OURS[name])
        plain = self.at_the_server()
        if kind.is_copied:  # what it has not, it has not without JCache either
            self.__dict__.update({own: vars(plain)[own] for own in kind.lazy or () if own in vars(plain)})
        return getattr(plain, name)

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, or so much of it: file objects that are none of fsspec's take a size."""
        start, line = self.loc, super().readline()
        if size is not None and 0 <= size < len(line):
            self.loc, line = start + size, line[:size]
        return line  # type: ignore[no-any-return]  # bytes

    def readlines(self, *hint: Any) -> list[bytes]:
        """Read lines, all or as many as have so many bytes."""
        return io.IOBase.readlines(self, *hint) if hint else super().readlines()

    def _peek(self, size: int = 0) -> bytes:
        at = self.loc
        data = self.read(max(size, 1))
        self.loc = at
        return data

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(type(self).kind.lazy or ())]

    def _names(self, name: str) -> frozenset[str]:
        """Return the names that file objects of this file system have, if one must be opened to know of this one."""
        kind = type(vars(self).get("fs"))
        if kind not in _names_of and not name.startswith("_") and asks_origin():
            with contextlib.suppress(Exception):  # then it is as if there were none
                _names_of[kind] = frozenset(dir(self.at_the_server()))
        return _names_of.get(kind, frozenset())

    def at_the_server(self) -> Any:
        """Return the file object that the file system itself makes.

        Raises:
            OfflineMissError: The origin must not be asked.
        """
        if "_plain" not in vars(self):
            if is_offline():
                msg = f"{self.path}: this is only at the server, and JCACHE_OFFLINE is set"
                raise OfflineMissError(msg)
            self._plain = self.__dict__["opened"]()
        return self._plain

    def close(self) -> None:
        """Close the file, at the server too if it was opened there."""
        plain = vars(self).get("_plain")
        if plain is not None and type(self).kind.is_copied:
            super().close()
        elif not self.closed:
            AbstractBufferedFile.close(self)
            self.journal.close()
            if plain is not None:
                plain.close()

    def __del__(self) -> None:
        """Close a file that was never closed; what the file system itself made ends as it does without JCache."""
        if not type(self).kind.is_copied:
            self.__dict__.pop("_plain", None)
        super().__del__()


def is_offline() -> bool:
    """Whether the settings have the origin never asked."""
    session = current()
    return session is not None and session.offline


class MeasuredFile:
    """What a class of file objects does otherwise where a file's reads go past the cache: they are counted."""

    # File system, path, and the options that it was opened with.
    measured_as: tuple[Any, Any, Mapping[str, Any] | None]

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read as the file object does."""
        return self._measured(super().read, args, kwargs)  # type: ignore[misc]  # the class that it is mixed into

    def readline(self, *args: Any, **kwargs: Any) -> Any:
        """Read a line as the file object does: fsspec's do it by `read`."""
        line = super().readline  # type: ignore[misc]  # as above
        return line(*args, **kwargs) if isinstance(self, AbstractBufferedFile) else self._measured(line, args, kwargs)

    def _measured(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        started_s = time.monotonic()
        with reaching():
            data = call(*args, **kwargs)
        if not isinstance(data, bytes):
            return data
        fs, path, options = self.measured_as
        stop = getattr(self, "loc", None)  # as fsspec's file objects have it
        spans = [(stop - len(data), stop)] if isinstance(stop, int) else []
        return measured(fs, path, data, options=options, spans=spans, seconds=time.monotonic() - started_s)
