"""A map from disjoint half-open intervals of bytes to values, for the intervals in motion at one time."""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from jcache.vectors import Vector

__all__ = ["Comb", "IntervalMap"]

Value = TypeVar("Value")


class Comb(Generic[Value]):
    """The intervals of one vector, which are added and removed as one, without an object for each.

    Attributes:
        starts: Where each begins, ascending.
        stops: Where each ends.
        owner: Whose they are.
    """

    __slots__ = ("_value_of", "owner", "starts", "stops")

    def __init__(self, vector: Vector, owner: object, value_of: Callable[[int], Value]) -> None:
        """Take the ranges of a vector, which are ascending, disjoint and not empty.

        Args:
            vector: The ranges.
            owner: Whose they are.
            value_of: Gives the value of an interval by its number, when somebody asks for it.
        """
        self.starts = vector.starts
        self.stops = vector.stops
        self.owner = owner
        self._value_of = value_of

    def __iter__(self) -> Iterator[tuple[int, int, Value]]:
        for i, (start, stop) in enumerate(zip(self.starts, self.stops, strict=True)):
            yield start, stop, self._value_of(i)

    def is_clear(self, start: int, stop: int) -> bool:
        """Whether no interval has a byte of [start, stop)."""
        i = bisect_right(self.stops, start)
        return i == len(self.stops) or self.starts[i] >= stop

    def find(self, start: int, stop: int) -> Iterator[tuple[int, int, Value | None]]:
        """Cover [start, stop), which ends within the last interval, as the map's `find` does."""
        i = bisect_right(self.stops, start)
        at = start
        while at < stop:
            begin, end = self.starts[i], min(self.stops[i], stop)
            if at < begin:
                yield at, min(begin, stop), None
            if begin < stop:
                yield max(at, begin), end, self._value_of(i)
            at = end
            i += 1


class IntervalMap(Generic[Value]):
    """Disjoint intervals [start, stop), each with a value. Not thread-safe: the owner holds its lock.

    A comb is one entry, from its first byte to its last, as long as nothing else lies between its intervals; else each
    of them is an entry of its own.
    """

    __slots__ = ("_entries", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._entries: dict[int, tuple[int, Value | Comb[Value]]] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, start: int, stop: int, value: Value) -> None:
        """Add an interval that overlaps none that is there."""
        if start < stop:
            self._split(start)
            self._put(start, stop, value)

    def _put(self, start: int, stop: int, value: Value | Comb[Value]) -> None:
        if not self._starts or start > self._starts[-1]:
            self._starts.append(start)
        else:
            insort(self._starts, start)
        self._entries[start] = (stop, value)

    def _split(self, at: int) -> None:
        """Make entries of the intervals of a comb, where one reaches over this place."""
        i = bisect_right(self._starts, at) - 1
        if i < 0:
            return
        stop, comb = self._entries[self._starts[i]]
        if stop > at and isinstance(comb, Comb):
            self._starts[i : i + 1] = comb.starts
            self._entries.update({start: (stop, value) for start, stop, value in comb})

    def add_comb(self, comb: Comb[Value]) -> None:
        """Add intervals that overlap none that is there."""
        start, stop = comb.starts[0], comb.stops[-1]
        i = bisect_right(self._starts, start)
        if (i == len(self._starts) or self._starts[i] >= stop) and (
            not i or self._entries[self._starts[i - 1]][0] <= start
        ):
            self._put(start, stop, comb)
        else:
            for begin, end, value in comb:
                self.add(begin, end, value)

    def remove(self, start: int) -> None:
        """Remove the interval that begins at `start`; none there is no error."""
        self._split(start)
        if self._entries.pop(start, None) is not None:
            del self._starts[bisect_right(self._starts, start) - 1]

    def remove_comb(self, start: int, owner: object) -> bool:
        """Remove all of an owner's comb that begins at `start`; False where it is not one entry (any more)."""
        entry = self._entries.get(start)
        if entry is None or not isinstance(entry[1], Comb) or entry[1].owner is not owner:
            return False
        del self._entries[start]
        del self._starts[bisect_right(self._starts, start) - 1]
        return True

    def get(self, start: int) -> Value | None:
        """Return the value of the interval that begins at `start` and is no comb's, if there is one."""
        entry = self._entries.get(start)
        return None if entry is None or isinstance(entry[1], Comb) else entry[1]

    def remove_all(self, begins: Sequence[int]) -> None:
        """Remove the intervals that begin at these places."""
        for begin in begins:
            self.remove(begin)

    def is_clear(self, start: int, stop: int) -> bool:
        """Whether no interval has a byte of [start, stop), which is not empty."""
        starts = self._starts
        if not starts:
            return True
        i = max(bisect_right(starts, start) - 1, 0)
        while i < len(starts) and starts[i] < stop:
            end, value = self._entries[starts[i]]
            if end > start and not (isinstance(value, Comb) and value.is_clear(start, stop)):
                return False
            i += 1
        return True

    def clear(self) -> None:
        """Remove all."""
        self._starts.clear()
        self._entries.clear()

    def __iter__(self) -> Iterator[tuple[int, int, Value]]:
        for start in list(self._starts):
            stop, value = self._entries[start]
            if isinstance(value, Comb):
                yield from value
            else:
                yield start, stop, value

    def singles(self, start: int, stop: int) -> list[tuple[int, int, Value]]:
        """Return the intervals that are no comb's and have a byte of [start, stop)."""
        found: list[tuple[int, int, Value]] = []
        for i in range(max(bisect_right(self._starts, start) - 1, 0), len(self._starts)):
            begin = self._starts[i]
            if begin >= stop:
                break
            end, value = self._entries[begin]
            if end > start and not isinstance(value, Comb):
                found.append((begin, end, value))
        return found

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
            if isinstance(value, Comb):
                pieces.extend(value.find(at, end))
            else:
                pieces.append((at, end, value))
            at = end
        if at < stop:
            pieces.append((at, stop, None))
        return pieces
