"""Bytes in memory, between their fetch and the journal."""

from collections.abc import Callable

__all__ = ["Held", "Room", "Share"]


class Room:
    """How much memory all files of a process together may have for what was read ahead and nobody has asked for.

    Any thread may use it.
    """

    def __init__(self, limit_bytes: int, *, make: Callable[[], None]) -> None:
        """Prepare the room.

        Args:
            limit_bytes: How much there is.
            make: Called where there is too little: drops what those have who are idle.
        """
        self._limit_bytes = limit_bytes
        self._make = make
        self._shares: dict[int, int] = {}  # each change is one step, since a share may end anywhere

    def take(self, size_bytes: int) -> "Share | None":
        """Take a share of the room; None where there is too little."""
        for attempt in range(2):
            if sum(list(self._shares.values())) + size_bytes <= self._limit_bytes:
                share = Share(self._shares)
                self._shares[id(share)] = size_bytes
                return share
            if not attempt:
                self._make()
        return None


class Share:
    """A share of the room, for as long as there is a reference to it: as bytes are kept by any piece of them."""

    __slots__ = ("_shares",)

    def __init__(self, shares: dict[int, int]) -> None:
        self._shares = shares

    def __del__(self) -> None:
        self._shares.pop(id(self), None)


class Held:
    """Bytes in memory: on their way into the journal, or read ahead of the application and not yet asked for.

    Attributes:
        start: Where they begin.
        data: The bytes.
        ahead: Whether they were read ahead.
        record: Whether they may enter the journal.
        taken: Of what was read ahead, where the part ends that was taken in small steps and is still to be recorded.
        share: Of the room for what is read ahead.
    """

    __slots__ = ("ahead", "data", "record", "share", "start", "taken")

    def __init__(
        self, start: int, data: bytes | memoryview, *, ahead: bool, record: bool = True, share: Share | None = None
    ) -> None:
        self.start = start
        self.data = data
        self.ahead = ahead
        self.record = record
        self.taken = start
        self.share = share

    def bytes_of(self, start: int, stop: int, _: int = 0) -> bytes:
        """Return [start, stop), which lies inside."""
        if isinstance(self.data, bytes) and start == self.start and stop - start == len(self.data):
            return self.data
        return bytes(self.data[start - self.start : stop - self.start])
