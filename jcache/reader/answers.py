"""What origins said of names: listings, infos, absences; one small journal for each remote directory.

The journal of a directory's answers is one as any other, of a file that never changes: each write adds an extent at a
place of its own, a batch of answers as JSON, and of two answers to one question the later one holds.
"""

import contextlib
import json
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from jcache.journal import JournalError, Version
from jcache.naming import Identity
from jcache.naming.identity import upwards
from jcache.reader.store import Home
from jcache.recording.exact import InexactError, encode
from jcache.recording.recorder import Recorder
from jcache.recording.workers import CacheHungError, Workers
from jcache.segment.proof import Moment

__all__ = ["ANSWERS", "Answers"]

# The file that such a journal is of. Its bytes stand where chance puts them.
ANSWERS = Version(1 << 62, checksum="answers:1")
# How many directories' answers are held, and how large one answer and all of one batch may be.
BOOKS = 256
ANSWER_BYTES = 16 << 20
BATCH_BYTES = 8 << 20
SLACK_BYTES = 1 << 20
# So much is read of one directory's answers: parsing more takes longer than anybody waits.
ALL_BYTES = 256 << 20
ENTRIES = 100_000
# Answers are written at most so often, unless as many wait.
EVERY_S = 1.0
WAITING = 1000
# The value as it was returned, and when.
Said = tuple[Any, float, Moment | None]
_DAMAGED = (ValueError, TypeError, KeyError, RecursionError, OverflowError)


class Host(Protocol):
    """What answers need of the session."""

    recorder: Recorder
    workers: Workers


class Answer(NamedTuple):
    """What was said once: encoded, and when, for the order of answers by the clock of who wrote it."""

    value: Any
    said_s: float
    moment: Moment | None

    def is_younger_than(self, seconds: float) -> bool:
        """Whether it was given less than so many seconds ago, on this machine since it was started."""
        age_s = None if self.moment is None else self.moment.age_s
        return age_s is not None and age_s < seconds


@dataclass(slots=True)
class Book:
    """The answers about the names in one directory, as this process knows them. Loaded and written by one at a time."""

    directory: Identity
    # Whether what lies in the cache is of before a change, and is not to be looked at.
    outdated: bool = False
    loaded: bool = False
    home: Home | None = None
    known: dict[str, Answer] = field(default_factory=dict)
    # Said since the last write, by question: the value as it was returned.
    waiting: dict[str, Said] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def load(self, make_home: Callable[[Identity], Home | None]) -> None:
        """Read what there is; damage is as if it were not there."""
        with self.lock:
            if self.loaded:
                return
            self.home = self.home or make_home(self.directory)
            if self.home is not None and not self.outdated:
                journal = self.home.journal
                with contextlib.suppress(JournalError, OSError):
                    journal.attach()
                    view = journal.view(ANSWERS)
                    left = ALL_BYTES
                    for start, stop in joined(view.extents()):
                        # More is forged, of extents that may all be the same bytes.
                        if stop - start > ANSWER_BYTES + SLACK_BYTES or stop - start > left:
                            continue
                        left -= stop - start
                        with contextlib.suppress(JournalError, *_DAMAGED):
                            parts = [view.read(part) for part in view.find(start, stop)]
                            self._take(json.loads(b"".join(parts)))
            self.loaded = True

    def _take(self, batch: Any) -> None:
        for question, told_s, moment, value in batch:
            said_s = float(told_s)
            if not math.isfinite(said_s):
                said_s = 0.0  # no later answer would hold
            before = self.known.get(question)
            if before is None or before.said_s < said_s:
                self.known[str(question)] = Answer(value, said_s, Moment.from_json(moment))

    def write(self, waiting: dict[str, Said], *, renew: bool) -> None:
        """Write what was said and is news, or all of it to `renew` its age.

        Raises:
            JournalError: It was not written.
        """
        with self.lock:
            rows: list[str] = []
            for question, (said, said_s, moment) in waiting.items():
                try:
                    value = encode(said)
                    row = json.dumps([question, said_s, moment and moment.to_json(), value], separators=(",", ":"))
                except (InexactError, ValueError):
                    self.known.pop(question, None)
                    continue
                before = self.known.get(question)
                is_news = before is None or not adds_nothing(value, before.value)
                if len(row) <= ANSWER_BYTES and (renew or is_news):
                    rows.append(row)
                    self.known[question] = Answer(value, said_s, moment)
            while rows and self.home is not None:
                size = 0
                batch: list[str] = []
                while rows and (not batch or size + len(rows[-1]) <= BATCH_BYTES):
                    batch.append(rows.pop())
                    size += len(batch[-1])
                data = f"[{','.join(batch)}]".encode()
                if self.home.admit(len(data)):
                    self.home.journal.append(ANSWERS, {}, [(secrets.randbelow(ANSWERS.size_bytes >> 1), data)])

    def close(self) -> None:
        """Seal and close the journal."""
        with self.lock:
            home, self.home, self.loaded = self.home, None, False
            if home is not None:
                with contextlib.suppress(JournalError):
                    if home.journal.wants_compaction() and home.admit(home.journal.size_bytes, copy=True):
                        home.journal.seal()
                        home.journal.compact(timeout_s=1.0)
                home.journal.close()


def joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return extents with those made one that follow each other: a long one is recorded in pieces."""
    found: list[tuple[int, int]] = []
    for start, stop in extents:
        if found and found[-1][1] == start:
            start, _ = found.pop()  # noqa: PLW2901 - it begins there
        found.append((start, stop))
    return found


class Answers:
    """All that this process knows of names at origins, by directory. Any thread may use it."""

    def __init__(self, host: Host, home: Callable[[Identity], Home | None]) -> None:
        """Begin with nothing.

        Args:
            host: The session.
            home: Returns the journal of a directory's answers; it may touch the cache directory.
        """
        self._host = host
        self._home = home
        self._lock = threading.Lock()
        self._books: OrderedDict[tuple[str, str], Book] = OrderedDict()
        self._due: dict[int, Book] = {}
        self._flushed_s = -EVERY_S
        self._said = 0
        # The addresses that were written to, and those above them.
        self._changed: set[str] = set()
        self._above: set[str] = set()
        # Counts the changes: what was asked before one of them is not held behind it.
        self.epoch = 0

    def _book(self, directory: Identity) -> Book:
        key = (directory.key, directory.asker)
        with self._lock:
            book = self._books.get(key)
            if book is None:
                book = self._books[key] = Book(directory, outdated=self._is_changed(directory.address))
                if len(self._books) > BOOKS:
                    _, old = self._books.popitem(last=False)
                    self._host.recorder.call(lambda: self._finish(old), urgent=False)
            else:
                self._books.move_to_end(key)
            return book

    def _is_changed(self, address: str) -> bool:
        return address in self._above or any(one in self._changed for one in upwards(address))

    def is_overtaken(self, address: str, epoch: int) -> bool:
        """Whether an address, or what is above or below it, was written to behind what was asked in an epoch."""
        with self._lock:
            return epoch != self.epoch and self._is_changed(address.rstrip("/"))

    async def find(self, directory: Identity, question: str) -> Answer | None:
        """Return the last answer to a question, None where there is none."""
        book = self._book(directory)
        if not book.loaded:
            with contextlib.suppress(CacheHungError):
                await self._host.workers.run(lambda: book.load(self._home))
        return self._last(book, question)

    def _last(self, book: Book, question: str) -> Answer | None:
        waiting = book.waiting.get(question)
        if waiting is not None:
            with contextlib.suppress(InexactError):
                return Answer(encode(waiting[0]), *waiting[1:])
            return None
        return book.known.get(question)

    def note(self, directory: Identity, question: str, value: Any, *, epoch: int, renew: bool = False) -> None:
        """Have an answer recorded, behind the caller's back.

        Args:
            directory: Of the name, or what was listed.
            question: What was asked.
            value: What was returned; the caller may change its lists and dictionaries from now on.
            epoch: What `epoch` was when the origin was asked.
            renew: Whether its age counts, so that it is written though it says nothing new.
        """
        if epoch != self.epoch or (isinstance(value, list | dict) and len(value) > ENTRIES):
            return
        book = self._book(directory)
        now_s, moment_s = time.time(), time.monotonic()
        with self._lock:
            before = book.waiting.get(question)
            if before is None or not adds_nothing(value, before[0]):
                book.waiting[question] = (copied(value), now_s, Moment.now())
            self._due[id(book)] = book
            self._said += 1
            is_due = moment_s - self._flushed_s >= EVERY_S or self._said >= WAITING
            if is_due:
                self._flushed_s, self._said = moment_s, 0
        if is_due:
            self._host.recorder.call(lambda: self.flush(renew=renew), urgent=False)

    def flush(self, *, renew: bool = False) -> None:
        """Write what waits; it touches the cache directory."""
        with self._lock:
            due, self._due = list(self._due.values()), {}
        for book in due:
            self._write(book, renew=renew)

    def _write(self, book: Book, *, renew: bool) -> None:
        with self._lock:
            waiting, book.waiting = book.waiting, {}
        if waiting:
            book.load(self._home)
            book.write(waiting, renew=renew)

    def _finish(self, book: Book) -> None:
        self._write(book, renew=False)
        book.close()

    def changed(self, address: str) -> None:
        """Forget what was said of a path, of those below it, and of the directories above: it is being written.

        What is on disk is removed by who removes what is recorded of the path.
        """
        with self._lock:
            self.epoch += 1
            self._changed.add(address)
            self._above.update(upwards(address))
            gone = [(key, book) for key, book in self._books.items() if self._is_changed(book.directory.address)]
            for key, book in gone:
                del self._books[key]  # who comes back finds a new one, which is outdated
                book.waiting = {}
                self._due.pop(id(book), None)
        for _, book in gone:
            self._host.recorder.call(book.close, urgent=False)

    def close(self) -> None:
        """Write what waits, and close all; it touches the cache directory."""
        with self._lock:
            books, self._books = list(self._books.values()), OrderedDict()
        for book in books:
            self._finish(book)

    def forget(self) -> None:
        """In a forked child: drop everything without writing what is the parent's."""
        for book in self._books.values():
            if book.home is not None:
                book.home.journal.forget()


def adds_nothing(value: Any, before: Any) -> bool:
    """Whether an answer says no more than the one before: file systems say less where they have a listing."""
    if type(value) is not dict or type(before) is not dict:
        return bool(value == before)
    return "type" in value and value.items() <= before.items() if len(value) < len(before) else bool(value == before)


def copied(value: Any) -> Any:
    """Return a value whose lists and dictionaries nobody else changes."""
    if type(value) is list:
        return [dict(item) if type(item) is dict else item for item in value]
    if type(value) is dict:
        return {name: dict(item) if type(item) is dict else item for name, item in value.items()}
    return value
