"""What all processes together have noted of a cache's use: how much it holds, and which journals were used when.

The books are the truth of what was used since they were begun; the index is what was taken over from books that are
finished, so that there are never many. Only who holds the cleaner's lock writes it, into a new file that then takes its
place. It may be lost at any time: a walk through the tree brings back all but the times of use.

The bytes that a cache holds are known without a walk:

    total = offset + folded + the claims of all books that are not in the index yet

`folded` sums up the claims of those that are. `offset` is what makes this true, as of the last walk: what the walk
found, less what was added while it went on. What others removed by hand, and claims of killed processes, make the total
too high until the next walk, never too low.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcache.cache.books import USAGE_NAME, Use, is_book, is_over, make_directory, read_head, read_uses
from jcache.journal.directory import create_file
from jcache.journal.segment import read_all
from jcache.locks import FileLock, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.storage import Storage

__all__ = ["Entry", "Index", "Walk", "cleaner_lock", "load", "total_bytes", "uses"]

INDEX_NAME = "index"
LOCK_NAME = "@cleaner"

MANY_BOOKS = 32
"""So many finished books, and one for every 64 KiB of the index, are worth taking over."""

_FORMAT = 1
_HEAD_BYTES = 64 * 1024
_LINES_A_STEP = 500


@dataclass(slots=True)
class Entry:
    """What is known of the use of one journal."""

    used_s: float
    hits: int = 0
    hit_bytes: int = 0
    check: bool = True
    """Whether it has been written to since it was last looked at for what is of no use in it."""

    def add(self, use: Use) -> None:
        """Take a line of a book into account."""
        self.used_s = max(self.used_s, use.used_s)
        self.hits += use.hits
        self.hit_bytes += use.hit_bytes
        self.check |= use.kind == "w"


@dataclass(slots=True)
class Walk:
    """How far a walk through the tree has come, so that another process can go on with it."""

    cursor: str = ""
    """The last directory that was counted."""
    found_bytes: int = 0
    before_bytes: int = 0
    """Folded and claimed as it began."""


@dataclass(slots=True)
class Index:
    """What was taken over from finished books. Changed only by who holds the cleaner's lock."""

    offset_bytes: int | None = None
    """None where nobody has ever walked through the tree."""
    folded_bytes: int = 0
    walked_s: float = 0.0
    """Unix time of the last walk's end."""
    walk: Walk | None = None
    dropped: list[str] = field(default_factory=list)
    """Books that were taken over last; they may still be there."""
    entries: dict[str, Entry] = field(default_factory=dict)
    size_bytes: int = 0

    def note(self, use: Use) -> None:
        """Take a line of a book into account."""
        entry = self.entries.get(use.path)
        if entry is None:
            entry = self.entries[use.path] = Entry(use.used_s, check=False)
        entry.add(use)


def directory_of(root: str) -> str:
    """Return where a cache keeps what is noted of its use."""
    return os.path.join(root, USAGE_NAME)


def total_bytes(storage: Storage, root: str) -> int | None:
    """Return how many bytes a cache holds or may be about to hold; None where nobody has measured it yet.

    Costs a listing, and one open and one read for each process that uses the cache just now and for the index.

    Raises:
        OSError: The cache directory cannot be read.
    """
    index = _load(storage, root, with_entries=False)
    if index.offset_bytes is None:
        return None
    return index.offset_bytes + index.folded_bytes + claimed_bytes(storage, root, index)


def claimed_bytes(storage: Storage, root: str, index: Index) -> int:
    """Return the sum of what the books claim that are not in the index.

    Raises:
        OSError: The directory cannot be read.
    """
    total = 0
    for name in _books(storage, root, index):
        head = read_head(storage, os.path.join(directory_of(root), name))
        if head is not None:
            total += head.claim_bytes
    return total


def load(storage: Storage, root: str, *, pace: Callable[[], object] = lambda: None) -> Index:
    """Return the index; an empty one where there is none, or it is damaged.

    Args:
        storage: The cache's file system.
        root: The cache's root.
        pace: Called now and then, to leave the processor to others.

    Raises:
        OSError: The file system failed.
    """
    return _load(storage, root, with_entries=True, pace=pace)


def uses(storage: Storage, root: str, index: Index, *, pace: Callable[[], object] = lambda: None) -> dict[str, Entry]:
    """Return by path what is known of the use of every journal: the index, and the books that are not in it.

    The index itself stays as it is.

    Raises:
        OSError: The directory cannot be read.
    """
    together = Index(entries=dict(index.entries))
    for name in _books(storage, root, index):
        for number, use in enumerate(read_uses(storage, os.path.join(directory_of(root), name))):
            known = index.entries.get(use.path)
            if known is not None and together.entries[use.path] is known:
                together.entries[use.path] = Entry(known.used_s, known.hits, known.hit_bytes, known.check)
            together.note(use)
            if number % _LINES_A_STEP == 0:
                pace()
    return together.entries


def readers(storage: Storage, root: str, path: str) -> list[tuple[str, float]]:
    """Return the books of living processes that have used a journal, and when they last did so.

    Raises:
        OSError: The directory cannot be read.
    """
    found = []
    for name in _books(storage, root, _load(storage, root, with_entries=False)):
        book = os.path.join(directory_of(root), name)
        used_s = max((use.used_s for use in read_uses(storage, book) if use.path == path), default=None)
        if used_s is not None and not is_over(storage, book):
            found.append((name, used_s))
    return found


def fold(storage: Storage, root: str, index: Index, *, file_mode: int, pace: Callable[[], object]) -> None:
    """Take finished books into the index, write it, and remove them.

    Killed at any moment, it has either not happened, or left books that the index names and nobody reads any more.

    Raises:
        OSError: The file system failed.
    """
    directory = directory_of(root)
    finished = [name for name in _books(storage, root, index) if is_over(storage, os.path.join(directory, name))]
    for name in finished:
        path = os.path.join(directory, name)
        head = read_head(storage, path)
        index.folded_bytes += head.claim_bytes if head is not None else 0
        for number, use in enumerate(read_uses(storage, path)):
            index.note(use)
            if number % _LINES_A_STEP == 0:
                pace()
    left = set(index.dropped) & set(storage.listdir(directory))
    index.dropped = [*left, *finished]
    save(storage, root, index, file_mode=file_mode, pace=pace)
    for name in index.dropped:
        with contextlib.suppress(OSError):  # gone, or another user's: then the index goes on naming it
            storage.unlink(os.path.join(directory, name))


def wants_folding(storage: Storage, root: str) -> bool:
    """Whether so many books lie around that taking them over is worth its cost.

    Raises:
        OSError: The directory cannot be read.
    """
    directory = directory_of(root)
    books = sum(map(is_book, storage.listdir(directory)))
    if books < MANY_BOOKS:
        return False
    try:
        size = storage.stat(os.path.join(directory, INDEX_NAME)).st_size
    except FileNotFoundError:
        size = 0
    return books >= MANY_BOOKS + size // 65536


def save(storage: Storage, root: str, index: Index, *, file_mode: int, pace: Callable[[], object]) -> None:
    """Write the index beside the old one, and put it in its place.

    Raises:
        OSError: The file system failed; the old one is still there.
    """
    directory = directory_of(root)
    temporary = os.path.join(directory, f"@index.{os.urandom(8).hex()}.tmp")
    walk = index.walk
    head = {
        "jcache-index": _FORMAT,
        "offset": index.offset_bytes,
        "folded": index.folded_bytes,
        "walked": index.walked_s,
        "walk": None if walk is None else [walk.cursor, walk.found_bytes, walk.before_bytes],
        "dropped": index.dropped,
    }
    lines = [json.dumps(head)]
    for number, (path, entry) in enumerate(index.entries.items()):
        lines.append(f"{entry.used_s:.3f} {entry.hits} {entry.hit_bytes} {entry.check:d} {path}")
        if number % _LINES_A_STEP == 0:
            pace()
    data = memoryview(os.fsencode("\n".join(lines) + "\n"))
    fd = create_file(storage, temporary, file_mode)
    try:
        try:
            position = 0
            while position < len(data):
                position += storage.pwritev(fd, [data[position : position + (1 << 20)]], position)
                pace()
        finally:
            storage.close(fd)
        storage.rename(temporary, os.path.join(directory, INDEX_NAME))
    except OSError:
        with contextlib.suppress(OSError):
            storage.unlink(temporary)
        raise


@contextlib.contextmanager
def cleaner_lock(
    storage: Storage, root: str, *, dir_mode: int, file_mode: int, timeout_s: float = 0.0
) -> Iterator[bool]:
    """Hold the lock of the one who cleans; give out whether it was had.

    Where the file system has no locks, everybody has it: two who clean at once remove too much, and nothing worse.

    Raises:
        OSError: The lock's file cannot be made.
    """
    directory = directory_of(root)
    make_directory(storage, directory, dir_mode)
    fd = create_file(storage, os.path.join(directory, LOCK_NAME), file_mode, exclusive=False)
    try:
        lock = FileLock(fd, storage=storage)
        yield lock.lock(timeout_s).outcome is not Outcome.HELD
    finally:
        storage.close(fd)  # and the lock goes with it


def _books(storage: Storage, root: str, index: Index) -> list[str]:
    try:
        names = storage.listdir(directory_of(root))
    except FileNotFoundError:
        return []
    dropped = set(index.dropped)
    return [name for name in names if is_book(name) and name not in dropped]


def _load(storage: Storage, root: str, *, with_entries: bool, pace: Callable[[], object] = lambda: None) -> Index:
    try:
        fd = storage.open(os.path.join(directory_of(root), INDEX_NAME), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Index()
    try:
        size = storage.fstat(fd).st_size
        data = read_all(storage, fd, size if with_entries else min(size, _HEAD_BYTES), 0)
        if not with_entries and b"\n" not in data:
            data = read_all(storage, fd, size, 0)
    finally:
        storage.close(fd)
    head, _, rest = data.partition(b"\n")
    index = _parse_head(head)
    index.size_bytes = size
    if with_entries:
        for number, line in enumerate(os.fsdecode(rest).split("\n")):
            _parse_entry(line, index)
            if number % _LINES_A_STEP == 0:
                pace()
    return index


def _parse_head(line: bytes) -> Index:
    try:
        head = json.loads(line)
        if head["jcache-index"] != _FORMAT:
            return Index()
        offset, walk = head["offset"], head["walk"]
        return Index(
            offset_bytes=None if offset is None else int(offset),
            folded_bytes=int(head["folded"]),
            walked_s=float(head["walked"]),
            walk=None if walk is None else Walk(str(walk[0]), *map(int, walk[1:])),
            dropped=[str(name) for name in head["dropped"]],
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return Index()


def _parse_entry(line: str, index: Index) -> None:
    fields = line.split(" ", 4)
    if len(fields) != 5:
        return
    try:
        used_s, hits, hit_bytes = float(fields[0]), int(fields[1]), int(fields[2])
    except ValueError:
        return
    if 0 < used_s < time.time() + 86400:
        index.entries[fields[4]] = Entry(used_s, hits, hit_bytes, fields[3] == "1")
