"""The thread that writes what was fetched into the journals, behind the application's back."""

import contextlib
import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from jcache.journal import Journal, JournalError
from jcache.origin import Info
from jcache.recording.small import SmallFile
from jcache.system.stopwatch import Stopwatch
from jcache.vectors import Extents

__all__ = ["FRAME_BYTES", "Recorder", "Recording"]

# One frame holds what one vector brought; several small vectors that wait for the same journal share one.
FRAME_BYTES = 8 << 20
# Reads that follow one another become one extent up to this: 52 bytes of book-keeping each, for steps of 8 kB 0.6 %.
# Reading one of them again verifies the whole extent, so it must not be long.
JOINED_BYTES = 64 << 10
# Writing competes with reading for processors and memory: it waits for a pause of so long in the fetching, but not
# longer than a second, nor while more than this waits.
PAUSE_S = 0.005
LONGEST_S = 1.0
EAGER_BYTES = 64 << 20
# To record a small file costs as much as a megabyte. So they wait longer, but not more of them than this.
SMALL_LONGEST_S = 10.0
SMALL_FILES = 16384
# So many are written before somebody else is let in.
SMALL_BATCH = 64
SIZE = attrgetter("size_bytes")
# A directory that takes less than this is of no use, but it is not hung.
SLOWEST_BYTES_PER_S = 4 << 20


@dataclass(frozen=True, slots=True)
class Recording:
    """Bytes of one version of one file, to be written in this order.

    Attributes:
        journal: Where they go.
        info: The version that they are proved to be of.
        extents: Origin offset and bytes of each, disjoint.
        settled: Called once they are in the journal, or are given up.
        wanted: Asked just before they are written: whether they still are to be.
        admit: Asked after that, with how many bytes are about to be written to the journal: whether there is room. May
            wait for it.
        size_bytes: How many bytes wait in memory.
    """

    journal: Journal
    info: Info
    extents: Extents
    settled: Callable[[Extents], None]
    wanted: Callable[[], bool] = lambda: True
    admit: Callable[[int], bool] = lambda size_bytes: True  # noqa: ARG005

    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_bytes", self.extents.size_bytes)


class Recorder:
    """A queue of recordings with a bound in bytes and one writing thread.

    The thread is a daemon and starts with the first recording; `close` writes what is left. Safe to use from
    any thread. After a fork the child makes a new one.

    Attributes:
        leisure_until_s: Until when, by the monotonic clock, there is time for what nobody misses if it is left undone.
    """

    def __init__(
        self,
        *,
        limit_bytes: int,
        recorded: Callable[[int], None],
        failed: Callable[[JournalError], None],
        pause_s: float = 5.0,
        frame_bytes: int = FRAME_BYTES,
        small_recorded: Callable[[Sequence[SmallFile]], None] = lambda files: None,  # noqa: ARG005
    ) -> None:
        """Prepare the queue.

        Args:
            limit_bytes: How many bytes may wait.
            recorded: Told how many bytes were written.
            failed: Told of every write that failed.
            pause_s: How long a journal directory that refused bytes is left alone.
            frame_bytes: Up to how many bytes are written at once, where more than one recording waits.
            small_recorded: Told of small files whose bytes are in the journal, or given up.
        """
        self.limit_bytes = limit_bytes
        self.leisure_until_s = math.inf
        self._recorded = recorded
        self._failed = failed
        self._small_recorded = small_recorded
        self._rest_s = pause_s
        self._frame_bytes = frame_bytes
        self._paused_until = 0.0
        self._queue: deque[Recording | SmallFile | Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting_bytes = 0
        self._busy = False
        # How many fetch just now, and when the last one ended; whether somebody waits for what is queued; since when
        # anything is queued, and anything but small files.
        self._fetching = 0
        self._fetched_s = 0.0
        self._urgent = False
        self._since_s = 0.0
        self._large_since_s: float | None = None
        # Whether the thread waits for a pause in the fetching, so that nobody need wake it.
        self._is_waiting = False
        # How many steps were begun, and how long this one may take besides what the caller allows for a stall.
        self._step = 0
        self._due_s = 0.0
        # What is to be done when, in that order.
        self._later: dict[Callable[[], None], float] = {}
        self._closed = False
        self._abandoned = False
        self._thread: threading.Thread | None = None

    def fetching(self, more: int) -> None:
        """Note that a fetch has begun (1) or ended (-1): recording waits for a pause."""
        with self._lock:
            self._fetching += more
            self._fetched_s = time.monotonic()

    def submit(self, recording: Recording | SmallFile, *, timeout_s: float, urgent: bool = False) -> bool:
        """Queue a recording, waiting for room at most `timeout_s` seconds.

        Args:
            recording: What to write.
            timeout_s: How long to wait for room.
            urgent: Whether others wait for these bytes, so that it is written without waiting for a pause.

        Returns:
            False where it was not taken: the queue stayed full, the recorder is closed, no thread can be had, or it is
            more than may wait. The caller then releases the bytes itself.
        """
        size_bytes = recording.size_bytes
        with self._lock:
            if self._waiting_bytes + size_bytes > self.limit_bytes and timeout_s > 0:
                self._changed.wait_for(
                    lambda: self._closed or self._waiting_bytes + size_bytes <= self.limit_bytes, timeout_s
                )
            if self._closed or self._waiting_bytes + size_bytes > self.limit_bytes:
                return False
            self._waiting_bytes += size_bytes
            if not self._put(recording, urgent=urgent):
                self._waiting_bytes -= size_bytes
                return False
        return True

    def call(self, task: Callable[[], None], *, urgent: bool = True) -> bool:
        """Have the thread run a task (a journal's sealing, say) behind what is queued; False once closed.

        Args:
            task: What to do.
            urgent: Whether it is done without waiting for a pause in the fetching, and with it all that is queued.
        """
        with self._changed:
            if self._closed:
                return False
            return self._put(task, urgent=urgent)

    def later(self, task: Callable[[], None], after_s: float) -> None:
        """Have the thread run a task once it was not asked for again for so long.

        It is not woken for that: call it where the thread has something to do. Nothing waits for the task, and what is
        left when the recorder is closed is not run.
        """
        self._later.pop(task, None)
        self._later[task] = time.monotonic() + after_s

    def give_up(self) -> None:
        """Take nothing more and wait for nothing: the cache directory hangs, and the thread with it."""
        with self._changed:
            self._closed = self._abandoned = True
            waiting = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        self._small_recorded([item for item in waiting if isinstance(item, SmallFile)])
        for item in waiting:
            if isinstance(item, Recording):
                item.settled(item.extents)

    def flush(self, timeout_s: float, *, stall_s: float = math.inf) -> bool:
        """Wait until nothing is queued or being written; return whether that was reached in time.

        Args:
            timeout_s: How long to wait.
            stall_s: How long one write may take, besides a time in proportion to its bytes.
        """
        watch, stalled = Stopwatch(), Stopwatch()
        with self._changed:
            self.leisure_until_s = time.monotonic() + timeout_s / 4
            self._urgent = True
            self._changed.notify_all()
            while not self._abandoned and (self._queue or self._busy):
                most_s = stall_s + self._due_s
                self._changed.wait(min(watch.slice_s(timeout_s), stalled.slice_s(most_s)))
                stalled_s = stalled.lap((self._step, self._busy))
                if watch.lap() >= timeout_s or (self._busy and stalled_s >= most_s):
                    break
            self.leisure_until_s = math.inf
            return not self._queue and not self._busy

    def close(self, timeout_s: float, *, stall_s: float = math.inf) -> bool:
        """Write what is queued and stop the thread, as `flush` waits; return whether all was written in time."""
        done = self.flush(timeout_s, stall_s=stall_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and done and thread is not threading.current_thread():
            thread.join(timeout_s)
        return done

    def _put(self, item: Recording | SmallFile | Callable[[], None], *, urgent: bool) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="jcache-recorder", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False  # the process has all the threads it may have, or is about to end
            self._thread = thread
        if not self._queue:
            self._since_s = time.monotonic()
            self._large_since_s = None
        if self._large_since_s is None and not isinstance(item, SmallFile):
            self._large_since_s = time.monotonic()
        self._urgent = self._urgent or urgent
        self._queue.append(item)
        # Woken for each small file, the thread would take as long as the reading.
        if not self._is_waiting or self._is_due():
            self._changed.notify_all()
        return True

    def _is_due(self) -> bool:
        """Whether what is queued is written without waiting for a pause in the fetching."""
        if self._urgent or self._closed or self._waiting_bytes >= EAGER_BYTES or len(self._queue) >= SMALL_FILES:
            return True
        now_s = time.monotonic()
        if self._large_since_s is not None and now_s - self._large_since_s >= LONGEST_S:
            return True
        return now_s - self._since_s >= SMALL_LONGEST_S

    def _pause_s(self) -> float:
        """Return how long to wait before writing what is queued, in seconds."""
        if self._is_due():
            return 0.0
        return PAUSE_S if self._fetching else max(self._fetched_s + PAUSE_S - time.monotonic(), 0.0)

    def _run(self) -> None:
        while True:
            late_s = self._run_late()
            with self._changed:
                if not self._queue and not self._closed:
                    self._changed.wait(late_s)
                if self._queue and (pause_s := self._pause_s()):
                    self._is_waiting = True
                    self._changed.wait(pause_s if late_s is None else min(pause_s, late_s))
                    self._is_waiting = False
                    continue
                if not self._queue:
                    self._urgent = False
                    if self._closed:
                        return
                    continue
                first = self._queue.popleft()
                batch: list[Recording] = self._batch(first) if isinstance(first, Recording) else []
                small: list[SmallFile] = self._small(first) if isinstance(first, SmallFile) else []
                self._busy = True
                size_bytes = sum(map(SIZE, batch or small))
                self._step += 1
                self._due_s = size_bytes / SLOWEST_BYTES_PER_S
            try:
                if isinstance(first, SmallFile):
                    self._write_small(small)
                elif isinstance(first, Recording):
                    self._write(batch)
                else:
                    self._attempt(first)
            finally:
                with self._changed:
                    self._busy = False
                    self._urgent = self._urgent and bool(self._queue)
                    self._waiting_bytes -= size_bytes
                    self._changed.notify_all()

    def _run_late(self) -> float | None:
        """Do what is due by now; return how long until the next of what is to be done later, in seconds."""
        # A copy, made in one step: other threads may add to it.
        while later := self._later.copy():
            task, due_s = next(iter(later.items()))
            left_s = due_s - time.monotonic()
            if left_s > 0 or self._closed:
                return max(left_s, 0.0)
            self._later.pop(task, None)
            self._attempt(task)
        return None

    def _small(self, first: SmallFile) -> list[SmallFile]:
        """Return the small files that are next in the queue."""
        files, queue = [first], self._queue
        while queue and len(files) < SMALL_BATCH and isinstance(queue[0], SmallFile):
            files.append(queue.popleft())  # type: ignore[arg-type]  # just looked at
        return files

    def _write_small(self, files: Sequence[SmallFile]) -> None:
        for file in files:
            # Each is a call that may take its time.
            self._step += 1
            self._due_s = 0.0
            if time.monotonic() >= self._paused_until and not self._attempt(functools.partial(self._write_one, file)):
                self._paused_until = time.monotonic() + self._rest_s
        self._attempt(functools.partial(self._small_recorded, files))

    def _write_one(self, file: SmallFile) -> None:
        nbytes = file.write()
        if nbytes:
            self._recorded(nbytes)

    def _attempt(self, task: Callable[[], None]) -> bool:
        """Run a task; tell of its failure. This thread must outlive any of them: nobody would start another."""
        try:
            task()
        except JournalError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - see above
            problem = JournalError(f"recording failed: {error!r}")
        else:
            return True
        # To tell may fail as well, where stderr is closed.
        with contextlib.suppress(Exception):
            self._failed(problem)
        return False

    def _batch(self, first: Recording) -> list[Recording]:
        batch, size_bytes = [first], first.size_bytes
        while self._queue:
            following = self._queue[0]
            if not isinstance(following, Recording) or following.journal is not first.journal:
                break
            size_bytes += following.size_bytes
            if following.info.version != first.info.version or size_bytes > self._frame_bytes:
                break
            batch.append(following)
            self._queue.popleft()
        return batch

    def _write(self, batch: list[Recording]) -> None:
        first = batch[0]
        extents = _joined([recording.extents for recording in batch if recording.wanted()])

        def append() -> None:
            size_bytes = extents.size_bytes
            if not first.admit(size_bytes):
                return
            first.journal.append(first.info.version, first.info.details, extents)
            self._recorded(size_bytes)

        if extents and time.monotonic() >= self._paused_until and not self._attempt(append):
            self._paused_until = time.monotonic() + self._rest_s
        # Only now: until here a second reader finds the bytes in memory, from here on in the journal.
        for recording in batch:
            self._attempt(functools.partial(recording.settled, recording.extents))


def _joined(recordings: Sequence[Extents]) -> Extents:
    """Return all extents in order, small single reads that follow one another as one.

    The ranges of a vector stay apart: they are read again one by one, by who asks for the same vector.
    """
    if len(recordings) == 1:
        return recordings[0]
    out = Extents()
    pieces: list[bytes | memoryview] = []
    end, size_bytes = -1, 0

    def close() -> None:
        if len(pieces) > 1:
            out.data[-1] = b"".join(pieces)
        pieces.clear()

    for extents in recordings:
        start, data = extents[0]
        if len(extents) == 1 and start == end and size_bytes + len(data) <= JOINED_BYTES:
            pieces.append(data)
            size_bytes += len(data)
        else:
            close()
            out.extend(extents)
            size_bytes = JOINED_BYTES
            if len(extents) == 1:
                pieces.append(data)
                size_bytes = len(data)
        end = start + len(data)
    close()
    return out
