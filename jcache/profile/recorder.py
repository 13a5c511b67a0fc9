"""What a process records of its requests: one file, appended to behind the application's back, in constant memory."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from jcache.profile.format import (
    END,
    FILES,
    HEAD,
    MOST_RANGES,
    Batch,
    pack_batch,
    pack_json,
    pack_start,
)
from jcache.report.places import create_inside, make_place, storage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jcache.counters import Counted
    from jcache.system.storage import Storage

__all__ = ["Recorder"]

FLUSH_S = 1.0
"""What is older is in the file: so much of a process that is killed is lost at most."""

FLUSH_RANGES = 1 << 15
"""So many ranges (a request without any counts as one) are written at once, without waiting for that time."""

MOST_WAITING = 1 << 18
"""Ranges that wait for a slow file system, but for one vector; of what comes on top, only the number is recorded."""

_FIELDS = 10  # of a request that waits

# The thread of the application in which a request began: what serves it may run on an event loop's.
_thread_of: contextvars.ContextVar[int | None] = contextvars.ContextVar("jcache_profile_thread", default=None)


class Recorder:
    """Records requests into a file, which it makes with the first one.

    Any thread may add; adding appends to a list and never waits for the file system. One thread of the recorder's own
    packs and writes, from the first request on, until `close`. A block is written by one call, so what was flushed is
    whole, whatever becomes of the process. Where writing fails, one line says so, and nothing more is recorded.

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
        storage: Storage | None = None,
        flush_s: float = FLUSH_S,
    ) -> None:
        """Record nothing yet.

        Args:
            path: Where the file is to be; its directory is made where it is missing.
            head: What the profile says of the process, as JSON has it.
            trouble: Told once, in one line, why nothing more is recorded.
            storage: The file system.
            flush_s: How long a request waits at most.
        """
        self.path = os.path.abspath(path)
        self._head = head
        self._trouble = trouble
        self._storage = storage or storage_of(os.path.dirname(self.path))
        self._flush_s = flush_s
        # Reentrant: a signal handler may read, and so record, while its own thread is inside.
        self._lock = threading.RLock()
        # Requests field by field, and their ranges: lists of what the garbage collector does not look at.
        self._waiting: list[Any] = []
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._ranges = 0
        self._lost = 0
        self._started = self._over = False
        # Both held until there is something to do, and until the end.
        self._full = _thread.allocate_lock()
        self._full.acquire()
        self._writing = _thread.allocate_lock()
        self._fd: int | None = None
        self._position = 0
        self._files: dict[str, int] = {}
        self._threads: dict[int, int] = {}

    def add(self, request: Counted, /) -> None:
        """Record a request that has ended."""
        kind, url, asked, hit, miss, bypass, ahead, end_s, seconds = request
        thread = _thread_of.get() or _thread.get_ident()
        count = 0 if asked is None else 1 if isinstance(asked, tuple) else len(asked.starts)
        with self._lock:
            before, after = self._ranges, self._ranges + (count or 1)
            if self._over or (before and after > MOST_WAITING) or count > MOST_RANGES // 2:
                self._lost += not self._over
                return
            self._waiting.extend((kind, url or "", thread, count, hit, miss, bypass, ahead, end_s, seconds))
            if isinstance(asked, tuple):
                self._starts.append(asked[0])
                self._stops.append(asked[1])
            elif asked is not None:
                self._starts.extend(asked.starts)
                self._stops.extend(asked.stops)
            self._ranges = after
            starts, self._started = not self._started, True
        if starts:
            self._start()
        if before < FLUSH_RANGES <= after:
            self._wake()

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
            self._over = True
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
            waiting, starts, stops = self._waiting, self._starts, self._stops
            self._waiting, self._starts, self._stops, self._ranges = [], [], [], 0
            lost = self._lost
        if not waiting and not last:
            return
        try:
            known = len(self._files)
            blocks = [pack_batch(self._batch(waiting, starts, stops))] if waiting else []
            if known < len(self._files):
                blocks.insert(0, pack_json(FILES, list(self._files)[known:]))
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
                self._over, self._waiting, self._starts, self._stops = True, [], [], []
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

    def _batch(self, waiting: list[Any], starts: list[int], stops: list[int]) -> Batch:
        """Return requests by column; files and threads by the numbers that they have in this file."""
        columns = (waiting[i::_FIELDS] for i in range(_FIELDS))
        kinds, urls, threads, counts, hits, misses, bypasses, aheads, ends, seconds = columns
        for found, numbers in ((urls, self._files), (threads, self._threads)):
            for one in dict.fromkeys(found):
                numbers.setdefault(one, len(numbers))
        return Batch(
            kinds,
            _microseconds(ends),
            _microseconds(seconds),
            list(map(self._threads.__getitem__, threads)),
            list(map(self._files.__getitem__, urls)),
            *(counts, starts, stops, hits, misses, bypasses, aheads),
        )


def _microseconds(seconds: list[float]) -> list[int]:
    return [int(one * 1e6) if one > 0 else 0 for one in seconds]
