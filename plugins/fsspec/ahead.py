"""Reading ahead of a file object: how far, in which pieces, and what becomes of them."""

import asyncio
import os
import threading
from collections.abc import Callable

from jcache_plugins.fsspec.access import Access

__all__ = ["ReadAhead", "Window"]

# The window of reading ahead: none at first, then so many times what was read in sequence, within these bounds.
GROWTH = 8
FIRST_WINDOW_BYTES = 64 << 10
# So many reads that follow one another are taken for sequential reading; two may be a header and its body.
STREAK = 3
LAST_WINDOW_BYTES = 16 << 20
# It is fetched in so many requests or more: the first lands soon, and the wire is busy while the reader uses it.
PIECES = 4


class Window:
    """How far to read ahead: grows while reads follow one another, collapses at a jump."""

    __slots__ = ("ahead_until", "begin", "next", "streak", "unproved_bytes")

    def __init__(self) -> None:
        # Where the reads that follow one another begin and end, and how many they are.
        self.begin = 0
        self.next = 0
        self.streak = 0
        # Where what was read ahead ends.
        self.ahead_until = 0
        # What has come of it, and waits for the proof that it is of the right version.
        self.unproved_bytes = 0

    def follow(self, start: int, stop: int) -> bool:
        """Take note of a read; return False where it was a jump."""
        sequential = start == self.next
        self.next = stop
        if not sequential:
            self.begin = start
            self.streak = self.ahead_until = self.unproved_bytes = 0
            return False
        self.streak += 1
        return True

    @property
    def size_bytes(self) -> int:
        """How far ahead of the last read to be; none until enough have followed one another."""
        if self.streak < STREAK:
            return 0
        return min(max(GROWTH * (self.next - self.begin), FIRST_WINDOW_BYTES), LAST_WINDOW_BYTES)

    def grow(self, size_bytes: int) -> list[tuple[int, int]]:
        """Return the pieces to be fetched now, of a file of so many bytes, having taken note of them.

        What waits for its proof is not counted, up to another window: it is not on the wire, and cannot be used.
        """
        window_bytes = self.size_bytes
        piece_bytes = max(window_bytes // PIECES, FIRST_WINDOW_BYTES)
        pieces: list[tuple[int, int]] = []
        begin = max(self.ahead_until, self.next)
        until = self.next + window_bytes + min(self.unproved_bytes, window_bytes)
        while begin < size_bytes and begin + piece_bytes <= until:
            self.ahead_until = min(begin + piece_bytes, size_bytes)
            pieces.append((begin, self.ahead_until))
            begin = self.ahead_until
        return pieces


class Piece:
    """A piece that is read ahead."""

    __slots__ = ("_access", "_future", "_left", "_owner", "has_come", "size_bytes", "start", "stop")

    def __init__(self, owner: "ReadAhead", access: Access, start: int, stop: int) -> None:
        self._owner = owner
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

    def __init__(self, access: Access, loop_of: Callable[[], asyncio.AbstractEventLoop]) -> None:
        """Read nothing yet.

        Args:
            access: The file's way to the journal and the origin.
            loop_of: Returns the event loop to fetch on.
        """
        self.window = Window()
        self.loop_of = loop_of
        # Where the pieces are fetched; None before the first one.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._access = access
        self._size_bytes = 0
        self._pieces: list[Piece] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def follow(self, start: int, stop: int) -> tuple[int, int] | None:
        """Take note of a read; return None where it follows the one before, else what is not read ahead any more."""
        with self._locked():
            left = self.window.next, self.window.ahead_until
            if self.window.follow(start, stop):
                return None
            self._leave()
        return left

    def end(self) -> tuple[int, int]:
        """Read nothing ahead any more; return what was."""
        with self._locked():
            left = self.window.next, self.window.ahead_until
            self.window.ahead_until = self.window.streak = 0
            self._leave()
        return left

    def _leave(self) -> None:
        for piece in self._pieces:
            piece.leave()
        self._pieces = []

    def skip(self, stop: int) -> None:
        """Do not read ahead what is just being read, up to here."""
        with self._locked():
            self.window.ahead_until = stop

    def keep(self, size_bytes: int) -> None:
        """Once a sequential read has missed, have so much on its way as the window is large, of so large a file."""
        if self.window.ahead_until and not self._access.origin.one_at_a_time:
            with self._locked():
                self._size_bytes = size_bytes
                self._grow()

    def _grow(self) -> None:
        pieces = self.window.grow(self._size_bytes)
        if pieces:
            loop = self.loop = self.loop_of()
            self._pieces = [piece for piece in self._pieces if not piece.done]
            for start, stop in pieces:
                piece = Piece(self, self._access, start, stop)
                piece.begin(loop)
                self._pieces.append(piece)

    def arrived(self, piece: Piece) -> None:
        """Have more on its way: the bytes of a piece have come, and only their proof is awaited."""
        with self._lock:
            if piece in self._pieces:
                self.window.unproved_bytes += piece.stop - piece.start
                self._grow()

    def proved(self, piece: Piece) -> None:
        """Nothing more is awaited for a piece, or nothing more comes."""
        with self._lock:
            if piece in self._pieces:
                self._pieces.remove(piece)
                self.window.unproved_bytes -= piece.stop - piece.start

    def _locked(self) -> threading.Lock:
        """Return the lock, a new one in a forked child: the parent's event loop may have had it."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._pieces = []
        return self._lock
