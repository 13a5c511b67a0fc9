"""Byte ranges, and bytes at offsets, by column: thousands of them cost an object each only once one is looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from operator import le, lt, sub
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Extents", "Vector"]

T = TypeVar("T")


class _Pairs(Sequence[tuple[int, T]], ABC, Generic[T]):
    """Offsets, and what belongs to each of them; reads like a list of pairs."""

    __slots__ = ("starts",)
    starts: list[int]

    @property
    @abstractmethod
    def _seconds(self) -> list[T]: ...

    @classmethod
    @abstractmethod
    def _made(cls, starts: list[int], seconds: list[T]) -> Self: ...

    @classmethod
    def of(cls, pairs: Iterable[tuple[Any, Any]]) -> Self:
        """Return pairs by column; themselves if they are so already."""
        if isinstance(pairs, cls):
            return pairs
        pairs = list(pairs)
        if not pairs:
            return cls._made([], [])
        starts, seconds = zip(*pairs, strict=True)
        return cls._made(list(starts), list(seconds))

    def append(self, start: int, second: T) -> None:
        """Add one more."""
        self.starts.append(start)
        self._seconds.append(second)

    def extend(self, others: _Pairs[T]) -> None:
        """Add others behind them."""
        self.starts.extend(others.starts)
        self._seconds.extend(others._seconds)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return zip(self.starts, self._seconds, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[int, T]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> tuple[int, T] | Self:
        if isinstance(index, slice):
            return self._made(self.starts[index], self._seconds[index])
        return self.starts[index], self._seconds[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # they may grow

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"


class Vector(_Pairs[int]):
    """Half-open byte ranges, in the order in which they were asked for.

    Before they are resolved, bounds may be None or negative, as fsspec's callers give them.

    Attributes:
        starts: First byte of each.
        stops: One past the last byte of each.
    """

    __slots__ = ("stops",)

    def __init__(self, starts: list[Any], stops: list[Any]) -> None:
        """Take two columns, which are as long as one another.

        Args:
            starts: First byte of each.
            stops: One past the last byte of each.
        """
        self.starts = starts
        self.stops: list[int] = stops

    @property
    def _seconds(self) -> list[int]:
        return self.stops

    @classmethod
    def _made(cls, starts: list[int], seconds: list[int]) -> Self:
        return cls(starts, seconds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.stops, strict=True)

    @property
    def is_ascending(self) -> bool:
        """Whether they are resolved, in ascending order, disjoint, and none is empty; False where there are none."""
        starts, stops = self.starts, self.stops
        try:
            # Loops in C: a vector may have thousands of ranges of a few bytes.
            return (
                bool(starts)
                and starts[0] >= 0
                and all(map(lt, starts, stops))
                and all(map(le, stops, islice(starts, 1, None)))
            )
        except TypeError:
            return False  # a bound is None

    def lengths(self) -> list[int]:
        """Return how many bytes each has."""
        return list(map(sub, self.stops, self.starts))


class Extents(_Pairs["bytes | memoryview"]):
    """Bytes and where in a remote file they begin.

    Attributes:
        starts: Offset of each.
        data: The bytes.
    """

    __slots__ = ("data",)

    def __init__(self, starts: list[int] | None = None, data: list[bytes | memoryview] | None = None) -> None:
        """Take two columns, which are as long as one another; none for nothing.

        Args:
            starts: Offset of each.
            data: The bytes.
        """
        self.starts = [] if starts is None else starts
        self.data: list[bytes | memoryview] = [] if data is None else data

    @property
    def _seconds(self) -> list[bytes | memoryview]:
        return self.data

    @classmethod
    def _made(cls, starts: list[int], seconds: list[bytes | memoryview]) -> Self:
        return cls(starts, seconds)

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return sum(map(len, self.data))
