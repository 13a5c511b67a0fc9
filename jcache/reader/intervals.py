"""A map from disjoint half-open intervals of bytes to values, for the few intervals in motion at one time."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["IntervalMap"]

Value = TypeVar("Value")


class IntervalMap(Generic[Value]):
    """Disjoint intervals [start, stop), each with a value. Not thread-safe: the owner holds its lock."""

    __slots__ = ("_entries", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._entries: dict[int, tuple[int, Value]] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, stop: int, value: Value) -> None:
        """Add an interval that overlaps none that is there."""
        if start < stop:
            if not self._starts or start > self._starts[-1]:
                self._starts.append(start)
            else:
                insort(self._starts, start)
            self._entries[start] = (stop, value)

    def add_all(self, entries: Sequence[tuple[int, int, Value]]) -> None:
        """Add ascending, not empty intervals that overlap none that is there; quick where none lies between them."""
        if not entries:
            return
        begins = [start for start, _, _ in entries]
        first = bisect_left(self._starts, begins[0])
        if first == bisect_left(self._starts, begins[-1], first):
            self._starts[first:first] = begins
            self._entries.update({start: (stop, value) for start, stop, value in entries})
        else:
            for start, stop, value in entries:
                self.add(start, stop, value)

    def remove(self, start: int) -> None:
        """Remove the interval that begins at `start`; none there is no error."""
        if self._entries.pop(start, None) is not None:
            del self._starts[bisect_right(self._starts, start) - 1]

    def get(self, start: int) -> Value | None:
        """Return the value of the interval that begins at `start`, if there is one."""
        entry = self._entries.get(start)
        return None if entry is None else entry[1]

    def remove_all(self, begins: Sequence[int]) -> None:
        """Remove the intervals that begin at these places; quick where they lie side by side in ascending order."""
        if not begins:
            return
        starts, entries = self._starts, self._entries
        first = bisect_left(starts, begins[0])
        if starts[first : first + len(begins)] == begins:
            del starts[first : first + len(begins)]
            for begin in begins:
                del entries[begin]
        else:
            for begin in begins:
                self.remove(begin)

    def is_clear(self, start: int, stop: int) -> bool:
        """Whether no interval has a byte of [start, stop), which is not empty."""
        starts = self._starts
        if not starts:
            return True
        i = bisect_right(starts, start)
        if i and self._entries[starts[i - 1]][0] > start:
            return False
        return i == len(starts) or starts[i] >= stop

    def clear(self) -> None:
        """Remove all."""
        self._starts.clear()
        self._entries.clear()

    def __iter__(self) -> Iterator[tuple[int, int, Value]]:
        for start in list(self._starts):
            stop, value = self._entries[start]
            yield start, stop, value

    def find(self, start: int, stop: int) -> list[tuple[int, int, Value | None]]:
        """Cover [start, stop), in order, with pieces that lie in one interval or (value None) in none."""
        starts, entries = self._starts, self._entries
        pieces: list[tuple[int, int, Value | None]] = []
        at = start
        i = max(bisect_right(starts, start) - 1, 0)
        while at < stop and i < len(starts):
            entry_start = starts[i]
            if entry_start >= stop:
                break
            entry_stop, value = entries[entry_start]
            i += 1
            if entry_stop <= at:
                continue
            if entry_start > at:
                pieces.append((at, entry_start, None))
                at = entry_start
            end = min(entry_stop, stop)
            pieces.append((at, end, value))
            at = end
        if at < stop:
            pieces.append((at, stop, None))
        return pieces
