"""What a modelled cache has of one file: the ranges that were asked for, blocks, or all of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Protocol

from jcache.ranges import subtract, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jcache.ranges import Range

__all__ = ["Blocks", "Held", "Ranges", "Whole", "not_in", "take"]


class Held(Protocol):
    """What a cache has of one file."""

    disk_bytes: int

    def has(self, start: int, stop: int) -> int:
        """Return how many bytes of a range are there."""
        ...

    def take(self, start: int, stop: int) -> int:
        """Have a range in it from now on; return how many bytes are fetched for that."""
        ...


class Ranges:
    """The very ranges that were asked for."""

    __slots__ = ("_starts", "_stops", "disk_bytes")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.disk_bytes = 0

    def gaps(self, start: int, stop: int) -> list[Range]:
        """Return what of a range is not there."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        return subtract([(start, stop)], list(zip(self._starts[first:last], self._stops[first:last], strict=True)))

    def has(self, start: int, stop: int) -> int:
        """See `Held`."""
        return stop - start - total(self.gaps(start, stop))

    def take(self, start: int, stop: int) -> int:
        """See `Held`; what it takes on disk is told by who records it."""
        gaps = self.gaps(start, stop)
        if gaps:
            first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
            begin, end = min([start, *self._starts[first:last]]), max([stop, *self._stops[first:last]])
            self._starts[first:last], self._stops[first:last] = [begin], [end]
        return total(gaps)

    def ranges(self) -> list[Range]:
        """Return all that is there, in order."""
        return list(zip(self._starts, self._stops, strict=True))

    def drop(self, start: int, stop: int) -> None:
        """Have a range in it no more."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        left = subtract(list(zip(self._starts[first:last], self._stops[first:last], strict=True)), [(start, stop)])
        self._starts[first:last], self._stops[first:last] = [one[0] for one in left], [one[1] for one in left]


class Blocks:
    """Blocks of a file, each of them whole."""

    __slots__ = ("_block", "_blocks", "_size", "disk_bytes")

    def __init__(self, block_bytes: int, size_bytes: int | None) -> None:
        self._block = block_bytes
        self._blocks: set[int] = set()
        self._size = size_bytes
        self.disk_bytes = 0

    def _numbers(self, start: int, stop: int) -> range:
        return range(start // self._block, -(-stop // self._block))

    def has(self, start: int, stop: int) -> int:
        """See `Held`."""
        block = self._block
        there = (number * block for number in self._numbers(start, stop) if number in self._blocks)
        return sum(min(begin + block, stop) - max(begin, start) for begin in there)

    def take(self, start: int, stop: int) -> int:
        """See `Held`."""
        block, fetched = self._block, 0
        for number in self._numbers(start, stop):
            if number not in self._blocks:
                self._blocks.add(number)
                end = (number + 1) * block if self._size is None else min((number + 1) * block, self._size)
                fetched += max(end - number * block, 0)
        self.disk_bytes += fetched
        return fetched


class Whole:
    """A file, all of it; of one whose size nobody has told, as far as it was read."""

    __slots__ = ("_size", "disk_bytes")

    def __init__(self, size_bytes: int | None) -> None:
        self._size = size_bytes
        self.disk_bytes = 0

    def has(self, start: int, stop: int) -> int:
        """See `Held`."""
        return max(min(stop, self.disk_bytes) - start, 0)

    def take(self, start: int, stop: int) -> int:  # noqa: ARG002 - all of it
        """See `Held`."""
        before = self.disk_bytes
        self.disk_bytes = max(stop if self._size is None else self._size, before)
        return self.disk_bytes - before


def take(held: Ranges, ranges: Iterable[Range]) -> None:
    """Have ranges of a file from now on."""
    for start, stop in ranges:
        held.take(start, stop)


def not_in(held: Sequence[Ranges], start: int, stop: int) -> list[Range]:
    """Return what of a range none of several has."""
    left = [(start, stop)]
    for one in held:
        left = [gap for begin, end in left for gap in one.gaps(begin, end)]
    return left
