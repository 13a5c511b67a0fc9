"""Bytes in memory, between their fetch and the journal."""

__all__ = ["Held"]


class Held:
    """Bytes in memory: on their way into the journal, or read ahead of the application and not yet asked for.

    Attributes:
        start: Where they begin.
        data: The bytes.
        ahead: Whether they were read ahead.
        record: Whether they may enter the journal.
        taken: Of what was read ahead, where the part ends that was taken in small steps and is still to be recorded.
    """

    __slots__ = ("ahead", "data", "record", "start", "taken")

    def __init__(self, start: int, data: bytes | memoryview, *, ahead: bool, record: bool = True) -> None:
        self.start = start
        self.data = data
        self.ahead = ahead
        self.record = record
        self.taken = start

    def bytes_of(self, start: int, stop: int) -> bytes:
        """Return [start, stop), which lies inside."""
        if isinstance(self.data, bytes) and start == self.start and stop - start == len(self.data):
            return self.data
        return bytes(self.data[start - self.start : stop - self.start])
