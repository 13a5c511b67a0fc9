"""What each process notes of its use of a cache directory: one small file with one writer, the process's book.

A book says how many bytes its process has claimed of the cache's size, and which journals it used when. Nobody has to
look at the journals themselves to know either, no access time is relied on, and no read of a journal writes anything:
uses are gathered in memory, and appended now and then and at the process's end.

    96 bytes    `jcache-use 2 <added> <removed> <ahead> <o or c>`, padded: what the process has added to the cache, what
                it has removed, what it may be about to add; open, or closed for good. Overwritten in place
    lines       `<kind> <unix seconds> <hits> <hit bytes> <path>`, where kind is `u` for used and `w` for written to

Paths are relative to the cache's root, and contain neither control characters nor line ends, since the layout escapes
them. A last line that is cut short does not count. Whoever holds the cleaner's lock takes the books of processes that
are gone into the index, and removes them; see `jcache.cache.usage`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from jcache.journal.liveness import may_live
from jcache.naming.layout import is_journal
from jcache.segment.directory import create_file, make_directory
from jcache.segment.format import parse_segment_name, segment_name
from jcache.segment.segment import read_all
from jcache.system.locks import hold
from jcache.system.processes import here

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jcache.system.storage import Storage

__all__ = [
    "USAGE_NAME",
    "Book",
    "Head",
    "Use",
    "count",
    "is_book",
    "is_over",
    "lines_of",
    "make_directory",
    "read_head",
    "read_uses",
]

USAGE_NAME = ".usage"
"""The directory, below the cache's root, of all that is noted of its use."""

HEAD_BYTES = 96
_SUFFIX = ".use"
_MOST_BYTES = 64 << 20  # a keeper begins another book long before
_SHORTEST_LINE, _LONGEST_LINE = 8, 4 << 20  # others are nobody's, and cost memory and time
_MAGIC = b"jcache-use"
_FORMAT = 2


class Use(NamedTuple):
    """That a journal was used, as a line of a book has it."""

    path: str
    """The journal's directory, relative to the cache's root."""
    used_s: float
    """Unix time in seconds."""
    hits: int = 0
    """Reads that it served entirely."""
    hit_bytes: int = 0
    kind: Literal["u", "w"] = "u"
    """`w` where the process began to write to it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a book."""

    added_bytes: int = 0
    """What the process had added to the cache as this was written."""
    removed_bytes: int = 0
    """What it had removed."""
    ahead_bytes: int = 0
    """What it may add until it says so."""
    is_closed: bool = False

    @property
    def claim_bytes(self) -> int:
        """What the process may have added to the cache, less what it has removed."""
        return self.added_bytes - self.removed_bytes + self.ahead_bytes

    def __add__(self, other: Head) -> Head:
        """Return what two say together."""
        return Head(
            self.added_bytes + other.added_bytes,
            self.removed_bytes + other.removed_bytes,
            self.ahead_bytes + other.ahead_bytes,
        )


class Book:
    """The book of this process for one cache directory. Its methods are called by one thread at a time.

    The file is created when there is first something to note.
    """

    def __init__(
        self, storage: Storage, directory: str, *, dir_mode: int = 0o700, file_mode: int = 0o600, sync: bool = False
    ) -> None:
        """Name a book.

        Args:
            storage: The cache's file system.
            directory: Where books are, below the cache's root.
            dir_mode: Permissions of that directory if it is missing.
            file_mode: Permissions of the book.
            sync: Whether to wait until a claim is on the medium: on network file systems others see it only then.
        """
        self._storage = storage
        self._directory = directory
        self._modes = dir_mode, file_mode
        self._sync = sync
        self._fd: int | None = None
        self._end = HEAD_BYTES
        self._pid = os.getpid()
        self.head = Head()
        """What was claimed last."""
        self.written_s = 0.0
        """When, by the monotonic clock, anything was last written."""

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._end

    @property
    def exists(self) -> bool:
        """Whether there was anything to note."""
        return self._fd is not None

    def claim(self, head: Head) -> None:
        """Say how many bytes this process has added and removed, and may be about to add.

        Raises:
            OSError: The file system failed.
        """
        fd = self._open()
        self._storage.pwritev(fd, [_pack_head(head)], 0)
        self.head, self.written_s = head, time.monotonic()
        if self._sync:
            self._storage.fsync(fd)

    def add(self, uses: Iterable[Use]) -> None:
        """Append lines.

        Raises:
            OSError: The file system failed; nothing counts as noted.
        """
        lines = b"".join(map(_pack_use, uses))
        if not lines:
            return
        # Of a new book the first lines go out with its head.
        begun, fd = self._fd is not None, self._open()
        data, at = (lines, self._end) if begun else (_pack_head(self.head) + lines, 0)
        if self._storage.pwritev(fd, [data], at) == len(data):
            self._end = at + len(data)
        self.written_s = time.monotonic()

    def close(self, *, added_bytes: int = 0, removed_bytes: int = 0) -> None:
        """Say what was added and removed in the end, and that there is no more to come.

        Args:
            added_bytes: To the cache, by this process.
            removed_bytes: From it.

        Raises:
            OSError: The file system failed.
        """
        fd, self._fd = self._fd, None
        if fd is None or self._pid != os.getpid():
            return
        try:
            self._storage.pwritev(fd, [_pack_head(Head(added_bytes, removed_bytes, is_closed=True))], 0)
        finally:
            self._storage.close(fd)
        self._end, self.head = HEAD_BYTES, Head()

    def forget(self) -> None:
        """Let go of the file in a forked child, without a word in it."""
        fd, self._fd = self._fd, None
        self._end, self.head = HEAD_BYTES, Head()
        if fd is not None:
            with contextlib.suppress(OSError):  # nothing was written through it here
                self._storage.close(fd)

    def _open(self) -> int:
        if self._fd is None:
            salt = int.from_bytes(os.urandom(8), "little")
            name = segment_name(here(), os.getpid(), salt).removesuffix(".seg") + _SUFFIX
            path = os.path.join(self._directory, name)
            dir_mode, file_mode = self._modes
            try:
                fd = create_file(self._storage, path, file_mode)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):  # another process was faster
                    make_directory(self._storage, self._directory, dir_mode)
                fd = create_file(self._storage, path, file_mode)
            hold(fd, storage=self._storage)
            self._fd, self._end = fd, HEAD_BYTES
        return self._fd


def is_book(name: str) -> bool:
    """Whether a file name is that of a book."""
    return name.endswith(_SUFFIX) and parse_segment_name(_as_segment(name)) is not None


def read_head(storage: Storage, path: str) -> Head | None:
    """Return what a book has claimed; None where it is gone, or nothing can be made of it.

    Args:
        storage: The cache's file system.
        path: The book.
    """
    try:
        fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None  # taken into the index meanwhile
    try:
        return _parse_head(storage.pread(fd, HEAD_BYTES, 0))
    except OSError:
        return None
    finally:
        storage.close(fd)


def is_over(storage: Storage, path: str) -> bool:
    """Whether no more is to come in a book: closed, or its process is gone, as far as anybody can tell."""
    try:
        fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        head = _parse_head(storage.pread(fd, HEAD_BYTES, 0))
        if head is not None and head.is_closed:
            return True
        name = _as_segment(os.path.basename(path))
        return not may_live(storage, fd, name, storage.fstat(fd).st_mtime_ns)
    except OSError:
        return False
    finally:
        storage.close(fd)


def read_uses(storage: Storage, path: str) -> list[Use]:
    """Return what a book notes, in order; nothing where it is gone or cannot be read."""
    try:
        fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        size = min(storage.fstat(fd).st_size, _MOST_BYTES)
        data = read_all(storage, fd, max(size - HEAD_BYTES, 0), HEAD_BYTES)
    except OSError:
        return []
    finally:
        storage.close(fd)
    return [use for line in lines_of(data[: data.rfind(b"\n") + 1]) if (use := _parse_use(line)) is not None]


def lines_of(data: bytes) -> Iterator[bytes]:
    """Yield the lines of what somebody has noted, one at a time: all at once may be fifty times as large as objects."""
    found = itertools.islice(io.BytesIO(data), len(data) // _SHORTEST_LINE + 1)
    return (line.removesuffix(b"\n") for line in found if _SHORTEST_LINE <= len(line) <= _LONGEST_LINE)


def writer_of(name: str) -> tuple[str, int]:
    """Return of whom a book is, by its name: where the process is, as `here` has it, and its number."""
    parsed = parse_segment_name(_as_segment(name))
    assert parsed is not None, "is_book was asked before"
    return parsed[:2]


def _as_segment(name: str) -> str:
    return name.removesuffix(_SUFFIX) + ".seg"


def _pack_head(head: Head) -> bytes:
    numbers = b"%+021d %+021d %+021d" % (head.added_bytes, head.removed_bytes, head.ahead_bytes)
    text = b"%b %d %b %b" % (_MAGIC, _FORMAT, numbers, b"c" if head.is_closed else b"o")
    return text.ljust(HEAD_BYTES - 1) + b"\n"


def _parse_head(data: bytes) -> Head | None:
    fields = data.split()
    if len(data) != HEAD_BYTES or len(fields) != 6 or fields[:2] != [_MAGIC, b"%d" % _FORMAT]:
        return None
    try:
        added, removed, ahead = map(count, fields[2:5])
        return Head(added, removed, ahead, is_closed=fields[5] == b"c")
    except ValueError:
        return None


def _pack_use(use: Use) -> bytes:
    if "\n" in use.path:
        return b""  # not of our layout
    text = f"{use.kind} {use.used_s:.3f} {use.hits} {use.hit_bytes} {use.path}\n"
    return os.fsencode(text)


def _parse_use(line: bytes) -> Use | None:
    fields = os.fsdecode(line).split(" ", 4)
    if len(fields) != 5:
        return None
    kind, used, hits, hit_bytes, path = fields
    try:
        used_s = float(used)
        if not 0 < used_s < time.time() + 86400 or not is_journal(path) or kind not in {"u", "w"}:
            return None
        return Use(path, used_s, count(hits), count(hit_bytes), "u" if kind == "u" else "w")
    except ValueError:
        return None


def count(text: str | bytes) -> int:
    """Return a number of bytes, or of anything else, that somebody has written down.

    Raises:
        ValueError: It is none, or one that nothing in a cache can have.
    """
    number = int(text)
    if abs(number) >= 1 << 62:
        raise ValueError("larger than any cache")
    return number
