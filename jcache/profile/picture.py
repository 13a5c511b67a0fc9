"""The picture of a profile: time to the right, offset upwards, files laid end to end; what the cache served apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcache.counters import READ, VECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcache.profile.reader import Profile
    from jcache.profile.statistics import FileUse

__all__ = ["HIT", "MISS", "Picture", "draw"]

HIT, MISS = 1, 2
"""What a cell has, added up: bytes that the cache had, and others."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A grid of cells.

    Attributes:
        cells: Rows from the top down, that is from the highest offset on.
        real_s: The time of the right edge, in seconds.
        extent: The offset of the upper edge, in bytes.
        edges: Where each file begins, in bytes, in the order of `files`.
        files: Their addresses.
    """

    cells: Sequence[bytes]
    real_s: float
    extent: int
    edges: Sequence[int]
    files: Sequence[str]


def draw(profile: Profile, files: Sequence[FileUse], *, real_s: float, columns: int, rows: int) -> Picture:
    """Return the picture of some of a profile's files.

    Args:
        profile: The profile.
        files: Those that are drawn, from the bottom up.
        real_s: How long it is, in seconds.
        columns: How many cells it is wide.
        rows: How many it is high.

    Raises:
        ProfileError: A file cannot be read, or is no profile.
    """
    edges = [0]
    for one in files:
        edges.append(edges[-1] + one.extent)
    extent = edges.pop()
    places = {one.url: edge for one, edge in zip(files, edges, strict=True)}
    cells = [bytearray(columns) for _ in range(rows)]
    height, width_us = max(extent, 1), max(real_s * 1e6, 1.0)
    for _, batch in profile.batches():
        marks = _marks(batch.hits, batch.misses, batch.bypasses)
        at = 0
        requests = zip(batch.kinds, batch.files, batch.ends_us, batch.counts, marks, strict=True)
        for kind, file, end_us, count, mark in requests:
            ranges = slice(at, at + count)
            at += count
            edge = places.get(profile.files[file]) if kind in (READ, VECTOR) else None
            if edge is None:
                continue
            column = min(int(end_us * columns / width_us), columns - 1)
            for start, stop in zip(batch.starts[ranges], batch.stops[ranges], strict=True):
                if start < stop:
                    first, last = (edge + start) * rows // height, (edge + stop - 1) * rows // height
                    for row in range(min(first, rows - 1), min(last, rows - 1) + 1):
                        cells[rows - 1 - row][column] |= mark
    return Picture([bytes(row) for row in cells], real_s, extent, edges, [one.url for one in files])


def _marks(hits: Sequence[int], misses: Sequence[int], bypasses: Sequence[int]) -> Iterator[int]:
    for hit, miss, bypass in zip(hits, misses, bypasses, strict=True):
        yield HIT * (hit > 0) | MISS * (miss + bypass > 0)
