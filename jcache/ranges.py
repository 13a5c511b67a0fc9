"""Interval algebra on half-open byte ranges `[start, stop)`.

A *run* is a list of ranges in ascending order that are not empty, do not overlap and do not touch; every function that
returns a list returns a run. `normalise` makes one of any ranges; the others say which arguments must be one already.
"""

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def resolve(start: int | None, end: int | None, size: int) -> Range:
    """Return the bytes of a file that fsspec means by a start and an end, as Python slices do.

    Args:
        start: First byte; None for the file's begin; negative counts from the file's end.
        end: Byte behind the last one; None for the file's end; negative counts from the file's end.
        size: Size of the file in bytes.

    Returns:
        `(start, stop)` with `0 <= start <= stop <= size`; what lies past the end is cut off, and a range whose
        end is not behind its start is empty.
    """
    if start is None:
        start = 0
    elif start < 0:
        start = max(0, start + size)
    elif start > size:
        start = size
    if end is None or end > size:
        end = size
    elif end < 0:
        end += size
    return start, max(start, end)


def normalise(ranges: Iterable[Range]) -> list[Range]:
    """Return the run of the bytes that any of the ranges has.

    Args:
        ranges: In any order; they may be empty, overlap, touch and repeat.

    Returns:
        The run that covers exactly the same bytes.
    """
    run: list[Range] = []
    last_start = last_stop = -1
    for start, stop in sorted(ranges):
        if start >= stop:
            continue
        if start > last_stop or not run:
            run.append((start, stop))
            last_start, last_stop = start, stop
        elif stop > last_stop:
            last_stop = stop
            run[-1] = (last_start, last_stop)
    return run


def merge(first: Iterable[Range], second: Iterable[Range]) -> list[Range]:
    """Return the run of the bytes that are in either argument, which need not be runs."""
    return normalise([*first, *second])


def subtract(ranges: Sequence[Range], holes: Sequence[Range]) -> list[Range]:
    """Return the run of the bytes of one run that are not in another.

    Args:
        ranges: A run.
        holes: A run.

    Returns:
        What is left of `ranges`.
    """
    left: list[Range] = []
    first = 0
    for start, stop in ranges:
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        position, index = start, first
        while index < len(holes) and holes[index][0] < stop:
            hole_start, hole_stop = holes[index]
            if hole_start > position:
                left.append((position, hole_start))
            position = hole_stop
            index += 1
        if position < stop:
            left.append((position, stop))
    return left


def total(run: Iterable[Range]) -> int:
    """Return the number of bytes in a run."""
    return sum(stop - start for start, stop in run)
