"""Bytes that were read ahead, in the hands of one reader in small steps."""

import os

from jcache.planning.held import Held
from jcache.planning.snapshot import Snapshot

__all__ = ["LENT_BYTES", "Lent"]

# So much is taken in small steps before it is recorded.
LENT_BYTES = 256 << 10


class Lent:
    """A piece that was read ahead, taken step by step, and recorded once for many steps.

    What was taken is noted with the piece itself, so that it is recorded also where the reader never comes back. It
    belongs to one thread at a time.
    """

    __slots__ = ("_pid", "_stop", "held", "snapshot")

    def __init__(self, snapshot: Snapshot, held: Held) -> None:
        """Lend a piece.

        Args:
            snapshot: Holds the piece, and notes what is taken.
            held: The piece.
        """
        self.snapshot = snapshot
        self.held = held
        self._stop = min(held.start + LENT_BYTES, held.start + len(held.data))
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether it was lent in this process: a forked child must not touch its parent's, whose lock may be taken."""
        return os.getpid() == self._pid

    def take(self, start: int, stop: int) -> bytes | None:
        """Return the next bytes, [start, stop); None where these are not the next or not all lent."""
        held = self.held
        if stop > self._stop or not self.is_ours or not self.snapshot.take(held, start, stop):
            return None
        return held.bytes_of(start, stop)
