"""Reading ahead of a file object: how far, in which pieces, and what becomes of them.

Reads that follow one another are a stream, and a file has several: who reads HDF5 goes from its chunks to its tables
and comes back. What is read ahead and never asked for is bounded by a share of what was asked for.
"""

import asyncio
import os
import threading
from collections.abc import Callable

from jcache_plugins.fsspec.access import Access

__all__ = ["ReadAhead", "Window"]

# The window of reading ahead: none at first, then so many times what was read in sequence, within these bounds. Who
# reads from the beginning mostly goes on to the end; who begins elsewhere, not far.
GROWTH_FROM_START = 8
GROWTH = 1
FIRST_WINDOW_BYTES = 64 << 10
# So many reads after the first follow one another in sequential reading; one small one may be a body behind its header.
STREAK = 3
STREAK_OF_LARGE = 1
LAST_WINDOW_BYTES = 16 << 20
# Once so many reads have missed, they are taken for scattered.
SCATTERED = 2
# Then one that is smaller than this brings so much from where it begins.
BLOCK_BYTES = 16 << 10
# So many blocks, and two more for each read that one of them served, before none brings more than was asked for.
BLOCKS = 8
# How much may be read ahead in vain, and of how much that was asked for a tenth part more. A stream that begins where
# the file does is trusted, until that is spent.
SPARE_BYTES = 1 << 20
SPARE_SHARE = 10
# How many streams are remembered beside the one that is being read.
STREAMS = 3
# It is fetched in so many requests or more: the first lands soon, and the wire is busy while the reader uses it.
PIECES = 2


class Window:
    """How far to read ahead: grows while reads follow one another, collapses at a jump."""

    __slots__ = ("ahead_until", "begin", "next", "step", "streak", "unproved_bytes")

    def __init__(self) -> None:
        # Where the reads that follow one another begin and end, and how many they are.
        self.begin = 0
        self.next = 0
        self.streak = 0
        # How much the last one read.
        self.step = 0
        # Where what was read ahead ends.
        self.ahead_until = 0
        # What has come of it, and waits for the proof that it is of the right version.
        self.unproved_bytes = 0

    def is_next(self, start: int) -> bool:
        """Whether a read that begins there follows the last one, or goes on within what was read ahead."""
        return start == self.next or self.next < start < self.ahead_until

    def follow(self, start: int, stop: int) -> bool:
        """Take note of a read; return False where it was a jump."""
        sequential = self.is_next(start)
        self.next, self.step = stop, stop - start
        if not sequential:
            self.begin = start
            self.streak = self.ahead_until = self.unproved_bytes = 0
            return False
        self.streak += 1
        return True

    @property
    def is_inside(self) -> bool:
        """Whether these are large reads that do not begin where the file does."""
        return self.begin > 0 and self.step >= FIRST_WINDOW_BYTES

    @property
    def size_bytes(self) -> int:
        """How far ahead of the last read to be; none until enough have followed one another."""
        if self.streak < (STREAK_OF_LARGE if self.is_inside else STREAK):
            return 0
        growth = GROWTH if self.begin else GROWTH_FROM_START
        return min(max(growth * (self.next - self.begin), FIRST_WINDOW_BYTES), LAST_WINDOW_BYTES)

    def grow(self, size_bytes: int, window_bytes: int | None = None) -> list[tuple[int, int]]:
        """Return the pieces to be fetched now, of a file of so many bytes, having taken note of them.

        What waits for its proof is not counted, up to another window: it is not on the wire, and cannot be used. But
        where a window is given, it is the most that may be ahead.
        """
        unproved_bytes = self.unproved_bytes if window_bytes is None else 0
        window_bytes = self.size_bytes if window_bytes is None else window_bytes
        piece_bytes = max(window_bytes // PIECES, FIRST_WINDOW_BYTES, min(self.step, window_bytes))
        pieces: list[tuple[int, int]] = []
        begin = max(self.ahead_until, self.next)
        until = self.next + window_bytes + min(unproved_bytes, window_bytes)
        while begin < size_bytes and begin + piece_bytes <= until:
            self.ahead_until = min(begin + piece_bytes, size_bytes)
            pieces.append((begin, self.ahead_until))
            begin = self.ahead_until
        return pieces


class Piece:
    """A piece that is read ahead."""

    __slots__ = ("_access", "_future", "_left", "_owner", "has_come", "start", "stop", "window")

    def __init__(self, owner: "ReadAhead", access: Access, window: Window, start: int, stop: int) -> None:
        self._owner = owner
        self.window = window
        self._access = access
        self._left = False
        self.start = start
        self.stop = stop
        # Whether its bytes are here, proved or not.
        self.has_come = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have it fetched."""
        self._future = asyncio.run_coroutine_threadsafe(self._fetch(), loop)

    @property
    def done(self) -> bool:
        """Whether nothing is under way any more."""
        return self._future.done()

    async def _fetch(self) -> None:
        try:
            if not self._left:
                await self._access.prefetch(self.start, self.stop, arrived=self._arrived)
        finally:
            if self._left:  # what has landed since, nobody else would drop
                self._access.drop_ahead(self.start, self.stop)
            elif self.has_come:
                self._owner.proved(self)

    def _arrived(self) -> None:
        if not self._left and not self.has_come:
            self.has_come = True
            self._owner.arrived(self)

    def leave(self) -> None:
        """Have it drop what it brings from now on."""
        self._left = True
        self._future.cancel()


class ReadAhead:
    """What one file object reads ahead.

    It belongs to the file's thread; `arrived` and `proved` are called by the event loop that fetches.
    """

    def __init__(
        self, access: Access, loop_of: Callable[[], asyncio.AbstractEventLoop], size_bytes: int, *, whole_bytes: int
    ) -> None:
        """Read nothing yet.

        Args:
            access: The file's way to the journal and the origin.
            loop_of: Returns the event loop to fetch on.
            size_bytes: Of the file.
            whole_bytes: How large a file may be that is fetched whole.
        """
        self.window = Window()
        self.loop_of = loop_of
        # Where the pieces are fetched; None before the first one.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._access = access
        self._size_bytes = size_bytes
        # Streams that were left and may be gone on with, the last one last; of each something was read ahead.
        self._others: list[Window] = []
        self._pieces: list[Piece] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._asked_bytes = self._vain_bytes = 0
        # How long the last stream of large reads was that began inside of the file.
        self._run_bytes = 0
        # Reads of the origin, and blocks that there may yet be.
        self._misses, self._blocks = 0, BLOCKS
        # How large the file may be to be fetched whole; negative once it was.
        self._whole_bytes = 0 if access.origin.one_at_a_time else whole_bytes
        # Where all lies that was read ahead.
        self._ranges: list[tuple[int, int]] = []

    @property
    def is_any(self) -> bool:
        """Whether anything was read ahead."""
        return bool(self._ranges)

    def follow(self, start: int, stop: int) -> tuple[bool, tuple[int, int]]:
        """Take note of a read; return whether it follows one before, and what is not read ahead any more."""
        with self._locked():
            window, left = self.window, (0, 0)
            self._asked_bytes += stop - start
            if not window.is_next(start):
                if window.is_inside:
                    self._run_bytes = window.next - window.begin
                other = next((one for one in reversed(self._others) if one.is_next(start)), None)
                if other is not None:
                    self._others.remove(other)
                if window.ahead_until:
                    self._others.append(window)
                    self.window = other or Window()
                elif other is not None:
                    self.window = other
                if len(self._others) > STREAMS:
                    left = self._leave(self._others.pop(0))
            return self.window.follow(start, stop), left

    def end(self) -> list[tuple[int, int]]:
        """Read nothing ahead any more; return where it was."""
        with self._locked():
            left, self._ranges = self._ranges, []
            self.window, self._others = Window(), []
            self._leave(None)
        return left

    def _leave(self, window: Window | None) -> tuple[int, int]:
        """Have no piece of a stream come any more, of all of them where it is None; return where those are."""
        for piece in self._pieces:
            if window in (None, piece.window):
                piece.leave()
        self._pieces = [piece for piece in self._pieces if window not in (None, piece.window)]
        return (0, 0) if window is None else (window.next, window.ahead_until)

    def dropped(self, nbytes: int) -> None:
        """Take note that so many bytes were read ahead in vain."""
        self._vain_bytes += nbytes

    def served(self) -> None:
        """Take note that a small read that begins a stream was here already."""
        self._blocks += 2

    @property
    def _spare_bytes(self) -> int:
        """How much may yet be read ahead in vain."""
        ahead_bytes = sum(other.ahead_until - other.next for other in self._others)
        return SPARE_BYTES + self._asked_bytes // SPARE_SHARE - self._vain_bytes - ahead_bytes

    def _reaches(self, start: int, stop: int) -> None:
        if self._ranges and self._ranges[-1][1] == start:
            start, _ = self._ranges.pop()
        self._ranges.append((start, stop))

    def skip(self, stop: int) -> None:
        """Do not read ahead what is just being read, up to here."""
        with self._locked():
            self.window.ahead_until = stop

    def keep(self) -> None:
        """Once a sequential read has missed, have so much on its way as the window is large."""
        if self.window.ahead_until and not self._access.origin.one_at_a_time:
            with self._locked():
                self._grow(self.window)

    def goes_ahead(self) -> bool:
        """Whether to read ahead of the last read."""
        return self._window_bytes(self.window) != 0

    def with_read(self, stop: int) -> int:
        """Return how much is read ahead in the read itself, which ends there: all, where nothing else may be asked."""
        if not self._access.origin.one_at_a_time:
            return 0
        most = self._window_bytes(self.window)
        return min(self.window.size_bytes if most is None else most, self._size_bytes - stop)

    def _window_bytes(self, window: Window) -> int | None:
        """Return how far ahead of a stream to be; None where it is trusted.

        What was read ahead in vain leaves less to spare. A stream of large reads is taken to be as long as the last one
        was: the datasets of a file are alike, and one that is shorter makes up for it by the next.
        """
        spare_bytes = self._spare_bytes
        left_bytes = self._run_bytes - (window.next - window.begin)
        if window.is_inside and self._run_bytes and left_bytes >= 0:
            return min(left_bytes, LAST_WINDOW_BYTES) if spare_bytes > -SPARE_BYTES else 0
        if not window.begin and spare_bytes > 0:
            return None if window.size_bytes else 0
        return min(window.size_bytes, max(spare_bytes, 0))

    def _grow(self, window: Window) -> None:
        for start, stop in window.grow(self._size_bytes, self._window_bytes(window)):
            self._begin(window, start, stop)

    def _begin(self, window: Window, start: int, stop: int) -> None:
        loop = self.loop = self.loop_of()
        self._pieces = [piece for piece in self._pieces if not piece.done]
        piece = Piece(self, self._access, window, start, stop)
        piece.begin(loop)
        self._pieces.append(piece)
        self._reaches(start, stop)

    def missed(self, start: int, stop: int) -> int:
        """Take note of a read of the origin; return how many bytes more it should bring, behind its end.

        Once some have missed, a small file is fetched whole; of a larger one each brings a block. Where others read the
        file at the same time, each of them fetches what it asks for: what one reads ahead, another may just be needing.
        """
        self._misses += 1
        if self._misses <= SCATTERED or not self._access.is_alone():
            return 0
        if self._size_bytes <= self._whole_bytes:
            self._whole_bytes = -1
            gaps = self._access.gaps(BLOCK_BYTES)
            with self._locked():
                whole = Window()  # a stream of its own, which no read follows
                for first, last in gaps:  # without what is read here, which need not wait for the rest
                    for begin, end in ((first, min(last, start)), (max(first, stop), last)):
                        if begin < end:
                            self._begin(whole, begin, end)
        more = min(BLOCK_BYTES - (stop - start), self._size_bytes - stop)
        if self._whole_bytes < 0 or more <= 0 or not self._blocks or self._spare_bytes < more:
            return 0
        with self._locked():
            self._blocks -= 1
            self._reaches(stop, stop + more)
        return more

    def arrived(self, piece: Piece) -> None:
        """Have more on its way: the bytes of a piece have come, and only their proof is awaited."""
        with self._lock:
            if piece in self._pieces:
                piece.window.unproved_bytes += piece.stop - piece.start
                self._grow(piece.window)

    def proved(self, piece: Piece) -> None:
        """Nothing more is awaited for a piece, or nothing more comes."""
        with self._lock:
            if piece in self._pieces:
                self._pieces.remove(piece)
                piece.window.unproved_bytes -= piece.stop - piece.start

    def _locked(self) -> threading.Lock:
        """Return the lock, a new one in a forked child: the parent's event loop may have had it."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._pieces = []
        return self._lock
