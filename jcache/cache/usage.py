"""What all processes together have noted of a cache's use: how much it holds, and which journals were used when.

The books are the truth of what was used since they were begun; the index is what was taken over from books that are
finished, so that there are never many. Only who holds the cleaner's lock writes it, into a new file that then takes its
place. It may be lost at any time: a walk through the tree brings back all but the times of use.

The bytes that a cache holds are known without a walk:

    total = offset + folded + the claims of all books that are not in the index yet

`folded` sums up the claims of those that are, since the last walk. `offset` is what makes this true: what the walk
found, less what had been added as it began, and what had been removed as it ended is given back. So what was added
behind the walk's back may be counted twice, until the next one, and what was removed behind it is not counted off; what
is claimed ahead, and written later, is in the claims. What others removed by hand, and what killed processes claimed
and did not write, make the total too high until the next walk. The latter is known, and called doubt.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING

from jcache.cache.books import USAGE_NAME, Head, Use, count, is_book, is_over, lines_of, read_head, read_uses
from jcache.naming.layout import is_journal
from jcache.segment.directory import create_file, make_directory
from jcache.segment.segment import read_all
from jcache.system.locks import FileLock, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.system.storage import Storage

__all__ = ["REMEMBER_S", "Entry", "Index", "Walk", "cleaner_lock", "load", "total_bytes", "uses"]

INDEX_NAME = "index"
LOCK_NAME = "@cleaner"

MANY_BOOKS = 32
"""So many finished books, and one for every 64 KiB of the index, are worth taking over."""

REMEMBER_S = 3600.0
"""How long the use of a journal that is gone is remembered."""

DROP_S = 3600.0
"""So long a cleaner may go by an index that it has read, where there are no locks."""

CLOCKS_S = 10.0
"""By how much hosts may differ in what they call now."""

_FORMAT = 2
_HEAD_BYTES = 64 * 1024
_MOST_BYTES = 256 << 20
_LINES_A_STEP = 500


@dataclass(slots=True)
class Entry:
    """What is known of the use of one journal."""

    used_s: float
    hits: int = 0
    hit_bytes: int = 0
    check: bool = True
    """Whether it has been written to since it was last looked at for what is of no use in it."""
    size_bytes: int = 0
    """What it took up as it was last looked at."""
    looked_s: float = 0.0
    """When that was, Unix time; 0 where it never was."""

    @property
    def is_gone(self) -> bool:
        """Whether it was removed, and has not been used since, as far as is known."""
        return not self.size_bytes and self.looked_s > 0 and self.used_s < self.looked_s - CLOCKS_S

    def add(self, use: Use) -> None:
        """Take a line of a book into account."""
        self.used_s = max(self.used_s, use.used_s)
        self.hits += use.hits
        self.hit_bytes += use.hit_bytes
        self.check |= use.kind == "w" and use.used_s > self.looked_s - CLOCKS_S

    def look(self, size_bytes: int, *, check: bool = False) -> None:
        """Note what it takes up now, and whether to look at it again though nobody may have written to it by then."""
        self.size_bytes, self.check, self.looked_s = size_bytes, check, time.time()


@dataclass(slots=True)
class Walk:
    """How far a walk through the tree has come, so that another process can go on with it."""

    cursor: str = ""
    """The last directory that was counted."""
    found_bytes: int = 0
    before_bytes: int = 0
    """What had been added by then, by all whose books are in the sum."""


@dataclass(slots=True)
class Index:
    """What was taken over from finished books. Changed only by who holds the cleaner's lock."""

    offset_bytes: int | None = None
    """None where nobody has ever walked through the tree."""
    folded: Head = field(default_factory=Head)
    """What the books claimed that were taken over since the last walk; what is ahead there is doubt."""
    walked_s: float = 0.0
    """Unix time of the last walk's end."""
    walk: Walk | None = None
    dropped: dict[str, float] = field(default_factory=dict)
    """Books that were taken over last, which may still be there, and since when they are in the index, Unix time."""
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
    return index.offset_bytes + claimed(storage, root, index).claim_bytes


def claimed(storage: Storage, root: str, index: Index) -> Head:
    """Return what all books say together: those that were taken over since the last walk, and those that were not.

    Raises:
        OSError: The directory cannot be read.
    """
    total = index.folded
    for name in _books(storage, root, index):
        head = read_head(storage, os.path.join(directory_of(root), name))
        if head is not None:
            total += head
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
                together.entries[use.path] = replace(known)
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


def take_over(storage: Storage, root: str, index: Index, *, pace: Callable[[], object]) -> None:
    """Take finished books into the index, in memory: `save` writes it, and `drop` removes them.

    Raises:
        OSError: The directory cannot be read.
    """
    directory = directory_of(root)
    finished = [name for name in _books(storage, root, index) if is_over(storage, os.path.join(directory, name))]
    for name in finished:
        path = os.path.join(directory, name)
        head = read_head(storage, path) or Head()
        index.folded += head
        for number, use in enumerate(read_uses(storage, path)):
            index.note(use)
            if use.kind == "w" and not head.is_closed:
                index.entries[use.path].check = True  # it may have been killed in the middle of it
            if number % _LINES_A_STEP == 0:
                pace()
    _forget_gone(index)
    there = set(storage.listdir(directory))
    left = {name: since_s for name, since_s in index.dropped.items() if name in there}
    index.dropped = left | dict.fromkeys(finished, time.time())


def drop(storage: Storage, root: str, index: Index, *, is_alone: bool) -> None:
    """Remove books that are in the index as it was written: until they are gone, it names them, and nobody counts them.

    So a process that is killed at any moment has counted each book once. Where there are no locks, another cleaner may
    yet write an index that has not taken a book over: it stays until nobody has one in hand.
    """
    before_s = time.time() - DROP_S
    for name in [name for name, since_s in index.dropped.items() if is_alone or since_s < before_s]:
        with contextlib.suppress(OSError):  # gone, or another user's: then the index goes on naming it
            storage.unlink(os.path.join(directory_of(root), name))


def _forget_gone(index: Index) -> None:
    """Drop what was removed a while ago: until then, books that are still open may name it again and again."""
    before_s = time.time() - REMEMBER_S
    for path in [path for path, entry in index.entries.items() if entry.is_gone and entry.looked_s < before_s]:
        del index.entries[path]


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
        "folded": [index.folded.added_bytes, index.folded.removed_bytes, index.folded.ahead_bytes],
        "walked": index.walked_s,
        "walk": None if walk is None else [walk.cursor, walk.found_bytes, walk.before_bytes],
        "dropped": list(index.dropped),
        "since": [round(since_s) for since_s in index.dropped.values()],
    }
    lines = [json.dumps(head)]
    for number, (path, entry) in enumerate(index.entries.items()):
        if not is_journal(path):
            continue  # not made by JCache: its name could end a line
        lines.append(
            f"{entry.used_s:.3f} {entry.hits} {entry.hit_bytes} {entry.check:d} {entry.size_bytes}"
            f" {entry.looked_s:.0f} {path}"
        )
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
) -> Iterator[Outcome]:
    """Hold the lock of the one who cleans; give out what became of that.

    Where the file system has no locks, several may clean at once: they remove too much, and nothing worse, as long as
    books stay that one of them may not know to be in the index (see `drop`).

    Raises:
        OSError: The lock's file cannot be made.
    """
    directory = directory_of(root)
    with contextlib.suppress(FileExistsError):
        make_directory(storage, directory, dir_mode)
    fd = create_file(storage, os.path.join(directory, LOCK_NAME), file_mode, exclusive=False)
    try:
        lock = FileLock(fd, storage=storage)
        yield lock.lock(timeout_s).outcome
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
        size = min(storage.fstat(fd).st_size, _MOST_BYTES)
        data = read_all(storage, fd, size if with_entries else min(size, _HEAD_BYTES), 0)
        if not with_entries and b"\n" not in data:
            data = read_all(storage, fd, size, 0)
    finally:
        storage.close(fd)
    rest = lines_of(data)
    index = _parse_head(next(rest, b""))
    index.size_bytes = size
    if with_entries:
        now_s = time.time()
        for number, line in enumerate(rest):
            _parse_entry(os.fsdecode(line), index, now_s)
            if number % _LINES_A_STEP == 0:
                pace()
    return index


def _parse_head(line: bytes) -> Index:
    try:
        head = json.loads(line)
        if head["jcache-index"] != _FORMAT:
            return Index()
        offset, walk = head["offset"], head["walk"]
        now_s = time.time()
        since = chain((_past(told, now_s) for told in head.get("since", ())), repeat(0.0))
        return Index(
            offset_bytes=None if offset is None else count(offset),
            folded=Head(count(head["folded"][0]), count(head["folded"][1]), count(head["folded"][2])),
            walked_s=_past(head["walked"], now_s),
            walk=None if walk is None else Walk(str(walk[0]), *map(count, walk[1:])),
            dropped={
                name: since_s
                for name, since_s in zip(head["dropped"], since, strict=False)
                if isinstance(name, str) and is_book(name)
            },
        )
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return Index()


def _past(told: float | str, now_s: float) -> float:
    """Return a time that somebody has written down; 0 where it is none, or the clock was set back since."""
    moment_s = float(told)
    return moment_s if 0 <= moment_s <= now_s + CLOCKS_S else 0.0


def _parse_entry(line: str, index: Index, now_s: float) -> None:
    fields = line.split(" ", 6)
    if len(fields) != 7:
        return
    used, hits, hit_bytes, check, size, looked, path = fields
    try:
        entry = Entry(float(used), count(hits), count(hit_bytes), check == "1", count(size), _past(looked, now_s))
    except ValueError:
        return
    if 0 < entry.used_s < now_s + 86400 and is_journal(path):
        index.entries[path] = entry
