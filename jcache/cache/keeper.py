"""What a process does for the size of a cache, behind its readers' back: notes uses, claims bytes, cleans.

Before bytes are recorded they are claimed in the process's book, and only then are all books' claims added up; so of
two processes that claim at the same time, at least one sees both, and the sum of what is on disk never passes the limit
as long as the file system shows everybody what was written. Claims are made ahead, a 128th of the limit at a time, so
that recording costs no more than a look at the others' books for each such piece. What cannot be claimed waits for the
cleaner for a while, and then goes unrecorded.

One thread per process notes uses, and cleans when the claims come near the limit and nobody else is at it. It works a
fifth of the time at most. What others must know soon (that a journal is in use, and that it was read again) is noted
within a second, else a scan by others would have pushed it out meanwhile; further uses are noted once a minute.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from jcache.cache import usage
from jcache.cache.books import Book, Head, Use
from jcache.cache.policy import AGAIN_S
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jcache.cache.directory import Cache
    from jcache.cache.eviction import Cleaner
    from jcache.cache.meter import MeteredStorage

__all__ = ["DENIED_S", "IDLE_S", "LOW_SHARE", "WAIT_S", "Keeper", "credit_bytes", "most_at_once"]

LOW_SHARE = 0.9
"""The low mark, as a share of the limit: what a cleaning goes down to."""

IDLE_S = 0.5
"""How long a file must not have been used until its segment is sealed, where the cache is nearly full, and what was
read ahead in it dropped, where others have no room for that."""

WAIT_S = 5.0
"""How long what cannot be claimed waits for the cleaner."""

DENIED_S = 2.0
"""How long nothing is claimed once that was in vain."""

NEWS_S = 1.0
"""How soon it is noted that this process uses a journal, and that it has read twice as much of it again as before."""

TICK_S = 30.0
"""How often it is noted what was added, where there is no limit; and where there is one, how full the cache is."""

_POLL_S = 0.05
_STUCK_S = 30.0
_LEAST_CREDIT, _MOST_CREDIT = 64 << 10, 256 << 20
_ROLL_BYTES = 4 << 20
_SIGN_OF_LIFE_S = 600.0
_MOST_NOTED = 100_000
_PAUSE_S = 0.004
_LOOK_S = 0.5  # whoever waits for room waits for this too


def credit_bytes(limit_bytes: int) -> int:
    """Return how many bytes a process claims ahead."""
    return min(max(limit_bytes // 128, _LEAST_CREDIT), _MOST_CREDIT)


def most_at_once(limit_bytes: int) -> int:
    """Return how many bytes may be recorded at a time: for more, too much else would have to go."""
    return limit_bytes // 2


class Keeper:
    """Keeps one cache directory for one process.

    `admit` is called by the recorder's thread alone; other methods by any. A forked child calls `forget` and makes its
    own.
    """

    def __init__(
        self,
        cache: Cache,
        storage: MeteredStorage,
        *,
        limit_bytes: int | None,
        collect: Callable[[], Iterable[Use]],
        seal_idle: Callable[[], None],
        trouble: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is touched, and no thread started.

        Args:
            cache: The directory, prepared.
            storage: The one that the cache's journals write through.
            limit_bytes: What the cache may hold; None for no limit. Then what was recorded is only noted, for others.
            collect: Returns what was used since it was last called, each journal once.
            seal_idle: Seals journals that were written to and are not in use just now: what is being written cannot be
                removed.
            trouble: Told what the user should know.
        """
        self._root = cache.directory
        self._metered = storage
        self._own = Storage(cache.directory)  # what is noted and what is removed is counted apart
        self._limit_bytes = limit_bytes
        self._credit = credit_bytes(limit_bytes or 0)
        self._collect = collect
        self._seal_idle = seal_idle
        self._trouble = trouble
        self._dir_mode, self._file_mode = cache.dir_mode, cache.file_mode
        self._sync = not cache.is_local
        self._book = self._new_book()
        self._lock = threading.Lock()  # of the book
        self._pending_lock = threading.Lock()  # of memory only: readers do not wait for the directory
        self._granted = 0  # what the journals of this process may add up to
        self._asked = 0  # what the book says of that, until it is known whether there is room
        self._booked = 0, 0  # added and removed, in books of this process that are finished
        self._evicted = self._evicted_before = 0
        self._needed, self._since_s = 0, 0.0  # what waits for room, and since when
        self._is_stuck = False  # a cleaner has just found nothing that may go, now or when its writer is done
        self._denied_until = 0.0
        self._full_said = False
        self._why_full = "room is made more slowly than it is filled"
        self._ends_s = math.inf  # until when there is time to wait for room
        self._noted: dict[str, tuple[float, int]] = {}  # when, and how many bytes of hits in all
        self._pending: dict[str, Use] = {}
        self._writing: dict[str, float] = {}  # when that was noted last
        self._ticked_s = time.monotonic()
        self._sealed_s = 0.0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._cleaned = threading.Condition(threading.Lock())
        self._wants_cleaning = self._is_cleaning = self._is_tight = False
        self._thread: threading.Thread | None = None

    def _new_book(self) -> Book:
        return Book(
            self._own,
            usage.directory_of(self._root),
            dir_mode=self._dir_mode,
            file_mode=self._file_mode,
            sync=self._sync,
        )

    def start(self) -> None:
        """Start the thread, if it does not run; without one, uses are noted at the end only."""
        if self._thread is None and not self._closing.is_set():
            thread = threading.Thread(target=self._run, name="jcache-keeper", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:
                return  # the process has all the threads it may have

    def admit(self, path: str, size_bytes: int, *, copy: bool = False) -> bool:
        """Whether so many bytes may be recorded now; waits for the cleaner for some seconds, where there is no room.

        Args:
            path: The journal's directory.
            size_bytes: How many bytes are about to be added.
            copy: Whether they are there already, and others will go: nothing is removed for that, and nobody waits.
        """
        if self._limit_bytes is None:
            return True
        now_s = time.monotonic()
        if now_s - self._writing.get(path, -math.inf) >= usage.CLOCKS_S:
            # Before the first byte: if this process is killed, the cleaner knows where it has left something unsealed.
            # And again: what the cleaner has removed meanwhile is for him not there.
            self._writing[path] = now_s
            with contextlib.suppress(OSError), self._lock:
                self._book.add([Use(self._relative(path), time.time(), kind="w")])
        margin = self._credit // 2  # for the indexes with which segments are sealed
        if self._metered.net_bytes + size_bytes + margin <= self._granted:
            return True
        if size_bytes > most_at_once(self._limit_bytes):
            if copy:
                return False
            self._say_full(f"a read of {size_bytes} bytes is more than half of what the cache may hold")
            return False
        if time.monotonic() < self._denied_until:
            return False
        try:
            admitted = self._claim(size_bytes + margin, self._limit_bytes, waits=not copy)
        except OSError as error:
            self._trouble(f"the size of {self._root} cannot be kept: {error.strerror or error}; nothing is recorded")
            admitted = False
        if not admitted and not copy:
            self._denied_until = time.monotonic() + (_STUCK_S if self._is_stuck else DENIED_S)
            self._is_stuck = False
        return admitted

    def note(self, uses: Iterable[Use]) -> None:
        """Keep in mind that journals were used, until it is written down."""
        with self._pending_lock:
            self._keep(uses)

    def _keep(self, uses: Iterable[Use]) -> None:
        for use in uses:
            path = self._relative(use.path)
            before = self._pending.get(path)
            hits, hit_bytes = (0, 0) if before is None else (before.hits, before.hit_bytes)
            self._pending[path] = Use(path, use.used_s, hits + use.hits, hit_bytes + use.hit_bytes)

    def _relative(self, path: str) -> str:
        # Both are normal: nothing of what makes `os.path.relpath` take longer than a read can be in them.
        root = self._root.rstrip("/") + "/"
        return path[len(root) :] if path.startswith(root) else os.path.relpath(path, self._root)

    def hurry(self) -> None:
        """Wait for room no longer than once more, all in all: the process is about to end."""
        self._ends_s = time.monotonic() + WAIT_S

    def close(self) -> None:
        """Note the last uses, and say what was really added. Nothing raises; call it behind the last recording."""
        self._closing.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(WAIT_S)
            if thread.is_alive():
                return  # the directory hangs
        with contextlib.suppress(Exception):  # the job's report is yet to come
            self._flush(everything=True)
            with self._lock:
                added, removed = self._metered.tally()
                last = Head(added - self._booked[0], removed + self._evicted - self._booked[1])
                if last != self._book.head and (self._sync or not self._book.exists):
                    self._book.claim(last)  # else the last word says it
                existed = self._book.exists
                self._book.close(added_bytes=last.added_bytes, removed_bytes=last.removed_bytes)
            if existed and usage.wants_folding(self._own, self._root):
                from jcache.cache.eviction import Cleaner  # few processes fold, and none that is about to fork

                Cleaner(self._own, self._root, dir_mode=self._dir_mode, file_mode=self._file_mode).fold()

    def forget(self) -> None:
        """In a forked child: let go of the parent's book."""
        self._closing = threading.Event()  # the parent's thread may have held the lock of the old one
        self._closing.set()
        self._book.forget()

    # -- claims ---------------------------------------------------------------------------------------------

    def _claim(self, need_bytes: int, limit_bytes: int, *, waits: bool) -> bool:
        metered = self._metered
        self._since_s = time.monotonic()
        before, deadline_s = self._granted, min(self._since_s + WAIT_S, self._ends_s)
        while True:
            wanted = metered.net_bytes + need_bytes + self._credit
            self._set_claim(wanted)
            total = usage.total_bytes(self._own, self._root)
            if total is not None and total <= limit_bytes:
                self._granted, self._needed = wanted, 0
                if total > LOW_SHARE * limit_bytes and time.monotonic() - self._sealed_s > NEWS_S:
                    self._is_tight = True
                    self._wake.set()
                if total > limit_bytes - 2 * self._credit:
                    self._ask_for_cleaning()
                return True
            # Withdrawn, lest those who wait keep one another from room that there is.
            self._granted = max(before, metered.net_bytes)
            self._set_claim(self._granted)
            if self._closing.is_set() or not waits:
                return False
            if time.monotonic() >= deadline_s or self._is_stuck:
                self._say_full(f"{self._root} is full: {self._why_full}")
                return False
            self._needed = need_bytes + self._credit
            self._ask_for_cleaning()
            with self._cleaned:
                # Not before the cleaning is over: it would take what is claimed meanwhile for more to make room for.
                left_s = max(deadline_s - time.monotonic(), _POLL_S)
                self._cleaned.wait_for(lambda: not self._wants_cleaning and not self._is_cleaning, left_s)
            # Unlike pauses, lest those who wait claim at the same moments, and withdraw.
            self._closing.wait(_POLL_S * random.random())

    def _say_full(self, why: str) -> None:
        if not self._full_said:
            self._full_said = True
            self._trouble(f"{why}; what does not fit goes unrecorded")

    def _set_claim(self, asked: int) -> None:
        with self._lock:
            self._asked = asked
            self._claim_asked()

    def _claim_asked(self) -> None:
        """Write down what is asked for, and what is true by now; the lock of the book is held."""
        added, removed = self._metered.tally()
        ahead = max(self._asked - (added - removed), 0)
        self._book.claim(Head(added - self._booked[0], removed + self._evicted - self._booked[1], ahead))

    def _ask_for_cleaning(self) -> None:
        self._wants_cleaning = self._is_tight = True
        self._wake.set()
        self.start()

    # -- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._end_cleaning()

    def _end_cleaning(self) -> None:
        with self._cleaned:
            self._is_cleaning = False
            if self._closing.is_set():
                self._wants_cleaning = False
            self._cleaned.notify_all()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(NEWS_S)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                is_due = time.monotonic() - self._ticked_s >= TICK_S
                if is_due:
                    self._ticked_s = time.monotonic()
                self._flush(everything=False)
                self._tell(is_due=is_due)
                if self._is_tight or (is_due and self._is_nearly_full()):
                    self._is_tight, self._sealed_s = False, time.monotonic()
                    self._seal_idle()
                if self._wants_cleaning:
                    self._is_cleaning = True
                    self._wants_cleaning = False
                    try:
                        self._clean()
                    finally:
                        self._end_cleaning()
            except OSError as error:
                self._trouble(f"{self._root} cannot be kept in order: {error.strerror or error}")
                self._closing.wait(WAIT_S)
            except Exception as error:  # noqa: BLE001 - a thread of ours ends no job, and leaves no traceback in it
                self._trouble(f"{self._root} cannot be kept in order: {error!r}")
                return

    def _flush(self, *, everything: bool) -> None:
        """Write down what was used."""
        found = list(self._collect())
        now_s = time.monotonic()
        with self._pending_lock:
            self._keep(found)
            due = [use for use in self._pending.values() if everything or self._is_news(use, now_s)]
            if len(self._noted) > _MOST_NOTED:
                self._noted.clear()
            for use in due:
                self._noted[use.path] = now_s, use.hit_bytes + self._noted.get(use.path, (0.0, 0))[1]
                del self._pending[use.path]
        with self._lock:
            self._book.add(due)

    def _is_news(self, use: Use, now_s: float) -> bool:
        noted_s, hit_bytes = self._noted.get(use.path, (-AGAIN_S, 0))
        return now_s - noted_s >= AGAIN_S or use.hit_bytes > hit_bytes

    def _tell(self, *, is_due: bool) -> None:
        """Write down what was added and removed, where others should know; and that this process lives."""
        added, removed = self._metered.tally()
        with self._lock:
            # Somebody may be measuring: what is found removed there must not be counted off again later.
            has_removed = removed + self._evicted - self._booked[1] != self._book.head.removed_bytes
            has_added = self._limit_bytes is None and is_due and added - self._booked[0] != self._book.head.added_bytes
            if has_added:
                self._asked = added - removed
            # A book that is not written to for long is taken for that of a process which is gone.
            is_quiet = self._book.exists and time.monotonic() - self._book.written_s > _SIGN_OF_LIFE_S
            if has_removed or has_added or is_quiet:
                self._claim_asked()
            if len(self._writing) > _MOST_NOTED:
                self._writing = {}
            if self._book.size_bytes > _ROLL_BYTES:
                # A finished book is taken into the index, and the next one goes on from there. For a moment what is
                # claimed ahead is in both: too much, not too little.
                full, self._book = self._book, self._new_book()
                self._writing = {}
                self._book.claim(Head(ahead_bytes=full.head.ahead_bytes))
                self._booked = self._booked[0] + full.head.added_bytes, self._booked[1] + full.head.removed_bytes
                full.close(added_bytes=full.head.added_bytes, removed_bytes=full.head.removed_bytes)

    def _is_nearly_full(self) -> bool:
        """Whether what this process keeps open, though it records nothing at present, may be in the cleaner's way."""
        if self._limit_bytes is None or not self._writing:
            return False
        total = usage.total_bytes(self._own, self._root)
        return total is not None and total > LOW_SHARE * self._limit_bytes

    def _clean(self) -> None:
        if self._limit_bytes is None:
            return
        # Where there is a limit, it was imported as the session began: see `jcache.activate.exits`.
        from jcache.cache.eviction import Cleaner, Pace, StoppedError, Wish

        # Who waits for room is better served by an end than by a processor to himself.
        pace = Pace(pause_s=_PAUSE_S, stopped=lambda s: self._closing.wait(s / 4 if self._needed else s))
        cleaner = Cleaner(
            self._own,
            self._root,
            dir_mode=self._dir_mode,
            file_mode=self._file_mode,
            look_s=_LOOK_S,
            pace=pace,
            freed=lambda: self._let_know(cleaner),
        )
        self._evicted_before = self._evicted
        # What waits may be more than what is between the low mark and the limit.
        low_bytes = min(int(LOW_SHARE * self._limit_bytes), self._limit_bytes - self._needed)
        try:
            # Those who are done with what they write seal it as soon as they see how full the cache is.
            has_time = time.monotonic() < self._since_s + WAIT_S / 2
            done = cleaner.run(Wish(to_bytes=max(low_bytes, 0), spares=has_time or not self._needed))
        except StoppedError:
            return
        if done is None:
            self._closing.wait(_POLL_S)  # somebody else is at it
        else:
            self._why_full = f"{done.pinned} journals are pinned, {done.live} are being written"
            if done.failed:
                self._why_full = f"cannot be removed: {done.failed[0]}"
            # Where some are being written, or others have claimed what was free, waiting helps.
            may_not = done.pinned or done.failed
            self._is_stuck = bool(may_not) and not done.live and not done.freed_bytes and done.left_bytes > low_bytes

    def _let_know(self, cleaner: Cleaner) -> None:
        with self._lock:
            self._evicted = self._evicted_before + cleaner.done.freed_bytes
            self._claim_asked()
