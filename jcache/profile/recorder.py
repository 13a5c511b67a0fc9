"""What a process records of its requests: one file, appended to behind the application's back, in constant memory."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import errno
import os
import threading
import time
from itertools import repeat
from operator import gt, mul
from typing import TYPE_CHECKING, Any

from jcache.profile.format import (
    END,
    FILES,
    HEAD,
    MOST_RANGES,
    TOLD,
    Batch,
    pack_batch,
    pack_json,
    pack_start,
)
from jcache.report.places import create_inside, make_place, storage_of
from jcache.vectors import Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from jcache.counters import Asked
    from jcache.system.storage import Storage

__all__ = ["Recorder"]

FLUSH_S = 1.0
"""What is older is in the file: so much of a process that is killed is lost at most."""

FLUSH_RANGES = 1 << 13
"""So many ranges (a request without any counts as one) are written at once, without waiting for that time."""

MOST_WAITING = 1 << 18
"""Ranges that wait for a slow file system, but for one vector; of what comes on top, only the number is recorded."""

_FIELDS = 11  # of a request that waits

_MORE = 8
"""Added to the kind of a request that has other than one range: they wait in the place of the first one's start."""

# The thread of the application in which a request began: what serves it may run on an event loop's.
_thread_of: contextvars.ContextVar[int | None] = contextvars.ContextVar("jcache_profile_thread", default=None)
_begun_in, _this_thread = _thread_of.get, _thread.get_ident  # here, for they are called on every read


class Recorder:
    """Records requests into a file, which it makes with the first one.

    Any thread may add, also in a signal handler: a request is put behind a list by one call, which nothing comes
    between, and nobody waits for the file system. One thread of the recorder's own packs and writes, from the first
    request on, until `close`. A block is written by one call, so what was flushed is whole, whatever becomes of the
    process. Where writing fails, one line says so, and nothing more is recorded.

    A forked child makes its own recorder, and calls `forget` of the one that it inherited.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        path: str,
        head: Mapping[str, Any],
        *,
        trouble: Callable[[str], None],
        told: Callable[[Container[str]], Mapping[str, Any]] = lambda _: {},
        storage: Storage | None = None,
        flush_s: float = FLUSH_S,
    ) -> None:
        """Record nothing yet.

        Args:
            path: Where the file is to be; its directory is made where it is missing.
            head: What the profile says of the process, as JSON has it.
            trouble: Told once, in one line, why nothing more is recorded.
            told: Says what is known beside their addresses of those of some files of which it is known.
            storage: The file system.
            flush_s: How long a request waits at most.
        """
        self.path = os.path.abspath(path)
        self._head = head
        self._trouble = trouble
        self._told = told
        self._storage = storage or storage_of(os.path.dirname(self.path))
        self._flush_s = flush_s
        # Reentrant: a signal handler may read, and so record, while its own thread is inside.
        self._lock = threading.RLock()
        # Requests, field by field. It is always the same list: whoever has it at hand may put something behind it.
        self._waiting: list[Any] = []
        # How long that list becomes before there is something to do; at first it is to be started.
        self._bound = 0
        # Ranges that wait, but for one a request.
        self._more = 0
        self._lost = 0
        self._started = self._over = False
        # Both held until there is something to do, and until the end.
        self._full = _thread.allocate_lock()
        self._full.acquire()
        self._writing = _thread.allocate_lock()
        self._fd: int | None = None
        self._position = 0
        self._files: dict[str, int] = {}
        # Those of which nothing is told yet.
        self._untold: dict[str, int] = {}
        self._threads: dict[int, int] = {}

    def add(  # noqa: PLR0917 - keywords would be a tenth of what it costs
        self,
        kind: int,
        url: str | None,
        asked: Asked,
        hit: int,
        miss: int,
        bypass: int,
        ahead: int,
        end_s: float,
        seconds: float,
        /,
    ) -> None:
        """See `jcache.counters.Profile`."""
        start: Any
        waiting = self._waiting
        if isinstance(asked, tuple):
            start, stop = asked
        elif asked is not None and len(asked.starts) == 1:
            start, stop = asked.starts[0], asked.stops[0]
        else:
            count = 0 if asked is None else len(asked.starts)
            if len(waiting) + _FIELDS * (self._more + count) >= self._bound:
                if not self._has_room(count):
                    return
            elif count:
                self._more += count - 1  # threads may lose some
            kind, start, stop = kind + _MORE, asked, 0
        if len(waiting) >= self._bound and kind < _MORE and not self._has_room(1):
            return
        thread = _begun_in() or _this_thread()
        waiting.extend((kind, url, thread, start, stop, hit, miss, bypass, ahead, end_s, seconds))

    def _has_room(self, count: int) -> bool:
        """Whether a request of so many ranges is to wait; have it written where it is time for that."""
        with self._lock:
            if self._over:
                return False
            before = len(self._waiting) // _FIELDS + self._more
            if (before and before + count > MOST_WAITING) or count > MOST_RANGES // 2:
                self._lost += 1
                return False
            self._more += max(count - 1, 0)
            starts, self._started = not self._started, True
            bound = _FIELDS * (FLUSH_RANGES if before + count < FLUSH_RANGES else MOST_WAITING)
            fills, self._bound = bound > max(self._bound, _FIELDS * FLUSH_RANGES), bound
        if starts:
            self._start()
        if fills:
            self._wake()
        return True

    def from_here(self) -> None:
        """See `jcache.counters.Profile`."""
        if _thread_of.get() is None:
            _thread_of.set(_thread.get_ident())

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is left and that this is the end; nothing is recorded any more. A second call does nothing.

        Args:
            timeout_s: How long to wait for a block that is just being written, in the recorder's thread.
        """
        with self._lock:
            if self._over:
                return
            self._over, self._bound = True, 0
        self._wake()
        if self._started and self._writing.acquire(timeout=timeout_s):
            try:
                self._flush(last=True)
            finally:
                self._writing.release()

    def forget(self) -> None:
        """Let go of the file: in a forked child it is the parent's."""
        fd, self._fd, self._over = self._fd, None, True
        if fd is not None:
            with contextlib.suppress(OSError):
                self._storage.close(fd)

    # -- behind the application's back ----------------------------------------------------------------------------

    def _start(self) -> None:
        # There is none at the interpreter's end, or at a limit: then `close` writes what there was room for.
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(self._run, ())

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake
            self._full.release()

    def _run(self) -> None:
        while True:
            self._full.acquire(timeout=self._flush_s)
            with self._writing:
                if self._over:
                    return
                self._flush()

    def _flush(self, *, last: bool = False) -> None:
        with self._lock:
            waiting = self._waiting
            count = len(waiting)  # something may be put behind that meanwhile
            columns = [waiting[i:count:_FIELDS] for i in range(_FIELDS)]
            del waiting[:count]
            self._more, self._bound = 0, 0 if self._over else _FIELDS * FLUSH_RANGES
            lost = self._lost
        if not count and not last:
            return
        try:
            known = len(self._files)
            blocks = [pack_batch(self._batch(*columns))] if count else []
            if known < len(self._files):
                new = list(self._files)[known:]
                blocks.insert(0, pack_json(FILES, new))
                self._untold |= {url: self._files[url] for url in new}
            if self._untold and (told := self._told(self._untold)):
                blocks.append(pack_json(TOLD, {str(self._untold.pop(url)): said for url, said in told.items()}))
            if self._fd is None:
                self._fd = self._create()
                blocks[:0] = [pack_start(), pack_json(HEAD, self._head)]
            if last:
                blocks.append(pack_json(END, {"end_time": time.time(), "lost": lost}))
            self._write(b"".join(blocks))
            if last:
                fd, self._fd = self._fd, None
                self._storage.close(fd)
        except (OSError, ValueError, OverflowError) as error:
            with self._lock:
                self._over, self._bound = True, 0
                self._waiting.clear()
            self.forget()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._trouble(f"the access profile ends here: {self.path}: {reason}")

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_EXCL
        try:
            return create_inside(self._storage, self.path, flags)
        except FileNotFoundError:
            make_place(self._storage, os.path.dirname(self.path))
            return create_inside(self._storage, self.path, flags)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        assert self._fd is not None
        while view:
            written = self._storage.pwritev(self._fd, [view], self._position)
            if written <= 0:
                raise OSError(errno.EIO, "nothing written", self.path)
            self._position += written
            view = view[written:]

    def _batch(
        self,
        kinds: list[int],
        urls: list[str | None],
        threads: list[int],
        starts: list[Any],
        stops: list[int],
        *served: list[Any],
    ) -> Batch:
        """Return requests by column; files and threads by the numbers that they have in this file."""
        hits, misses, bypasses, aheads, ends, seconds = served
        counts = [1] * len(kinds)
        if kinds.count(kinds[0]) < len(kinds) or kinds[0] >= _MORE:
            kinds, counts, starts, stops = _spread(kinds, starts, stops)
        if min(starts, default=0) < 0 or any(map(gt, starts, stops)):
            # What is asked for backwards has no bytes.
            starts = [max(start, 0) for start in starts]
            stops = list(map(max, starts, stops))
        return Batch(
            kinds,
            _microseconds(ends),
            _microseconds(seconds),
            _numbered(threads, self._threads),
            _numbered(urls, self._files),
            *(counts, starts, stops, hits, misses, bypasses, aheads),
        )


def _spread(kinds: list[int], starts: list[Any], stops: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kinds, numbers of ranges, and all ranges, where some requests have other than one."""
    counts, firsts, lasts = [1] * len(kinds), [], []
    at = 0
    for i in [i for i, kind in enumerate(kinds) if kind >= _MORE]:
        firsts += starts[at:i]
        lasts += stops[at:i]
        kinds[i] -= _MORE
        ranges: Vector = starts[i] or Vector([], [])
        counts[i] = len(ranges)
        firsts += ranges.starts
        lasts += ranges.stops
        at = i + 1
    return kinds, counts, firsts + starts[at:], lasts + stops[at:]


def _numbered(found: list[Any], numbers: dict[Any, int]) -> list[int]:
    """Return the numbers of what was found, in the order of their first appearance; None has that of no name."""
    if found.count(found[0]) == len(found):
        return [numbers.setdefault(found[0] or "", len(numbers))] * len(found)
    known = {one: numbers.setdefault(one or "", len(numbers)) for one in dict.fromkeys(found)}
    return list(map(known.__getitem__, found))


def _microseconds(seconds: list[float]) -> list[int]:
    if seconds.count(0.0) == len(seconds):
        return [0] * len(seconds)
    found = list(map(float.__trunc__, map(mul, seconds, repeat(1e6))))  # in C, and in half the time that `int` takes
    return found if min(found) >= 0 else [max(one, 0) for one in found]
