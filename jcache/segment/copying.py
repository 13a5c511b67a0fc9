"""Copying what is sound in some segments into one: each byte once, in the order in which the bytes were first read."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from jcache.segment.errors import JournalError
from jcache.segment.format import checksum
from jcache.segment.segment import read_all
from jcache.segment.table import is_disjoint, sort_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcache.ranges import Range
    from jcache.segment.format import Column, Columns
    from jcache.segment.segment import Segment
    from jcache.segment.writer import SegmentWriter
    from jcache.system.storage import Storage

__all__ = ["Copy", "TimeUp"]

_BLOCK_BYTES, _WORTH_SKIPPING_BYTES = 4 * 1024 * 1024, 64 * 1024
_BATCH_BYTES, _BATCH_EXTENTS = 8 * 1024 * 1024, 50_000


class TimeUp(Exception):  # noqa: N818  # what happened, not what failed
    """The time that the caller had is used up."""


class Copy:
    """The way of bytes from old segments into a new one.

    Attributes:
        damaged: Extents that were left out because they are not as they were recorded.
        unreadable: Segments that the file system did not give all bytes of, maybe only just now.
    """

    __slots__ = ("_deadline_s", "_storage", "_writer", "damaged", "unreadable")

    def __init__(self, storage: Storage, writer: SegmentWriter, deadline_s: float | None) -> None:
        """Name source and target.

        Args:
            storage: The cache's file system.
            writer: Takes the bytes.
            deadline_s: When to give up, by the monotonic clock.
        """
        self._storage = storage
        self._writer = writer
        self._deadline_s = deadline_s
        self.damaged = 0
        self.unreadable: list[Segment] = []

    def take(self, group: Sequence[Segment]) -> None:
        """Copy every sound byte of some segments once.

        Args:
            group: In the order in which they were begun; of the bytes that several have, the first one's are taken.

        Raises:
            TimeUp: It took too long.
            OSError: The new segment cannot be written.
        """
        tables = [segment.table.columns() for segment in group]
        contested = _contested(tables)
        covered = _Covered()
        batch: list[tuple[int, bytes]] = []
        size = first_row = 0
        for segment, table in zip(group, tables, strict=True):
            try:
                for row, start, data in self._sound(segment, table):
                    if contested is not None and contested[first_row + row]:
                        pieces = covered.add(start, start + len(data))
                    else:
                        pieces = [(start, start + len(data))]
                    for piece_start, piece_stop in pieces:
                        # A copy: a view would keep all of its block, for a few bytes that are new.
                        batch.append((piece_start, bytes(data[piece_start - start : piece_stop - start])))
                        size += piece_stop - piece_start
                    if size >= _BATCH_BYTES or len(batch) >= _BATCH_EXTENTS:
                        self._writer.append(batch)
                        batch, size = [], 0
            except JournalError:
                self.unreadable.append(segment)
            first_row += len(table.starts)
        if batch:
            self._writer.append(batch)

    def _sound(self, segment: Segment, table: Columns) -> Iterator[tuple[int, int, memoryview]]:
        """Yield row, start and bytes of each extent that is as it was recorded, by position.

        Raises:
            JournalError: The file system does not give the bytes.
        """
        assert segment.metadata is not None
        salt, size_bytes = segment.source.salt, segment.metadata.version.size_bytes
        starts, lengths, checksums, positions = table.starts, table.lengths, table.checksums, table.positions
        if sum(lengths) > segment.source.size_bytes:  # forged: the same bytes again and again
            self.damaged += len(starts)
            return
        for rows in _blocks(lengths, positions):
            if self._deadline_s is not None and time.monotonic() > self._deadline_s:
                raise TimeUp
            first = positions[rows[0]]
            # A longer one is forged, and no reason to read a hole of gigabytes.
            stop = min(positions[rows[-1]] + lengths[rows[-1]], segment.source.size_bytes, first + 2 * _BLOCK_BYTES)
            try:
                data = read_all(self._storage, segment.source.fd, max(stop - first, 0), first)
            except OSError as error:
                raise JournalError(f"cannot read {segment.name}", errno=error.errno) from error
            block = memoryview(data)
            for row in rows:
                start, length, offset = starts[row], lengths[row], positions[row] - first
                extent = block[offset : offset + length]
                is_whole = 0 < len(extent) == length and start + length <= size_bytes
                if is_whole and checksum(extent, salt) == checksums[row]:
                    yield row, start, extent
                else:
                    self.damaged += 1


class _Covered:
    """Disjoint ranges that grow; those that touch are one."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> list[Range]:
        """Add a range; return the parts of it that are new."""
        starts, stops = self._starts, self._stops
        first, last = bisect_left(stops, start), bisect_right(starts, stop)
        new: list[Range] = []
        at = start
        for index in range(first, last):
            if at < starts[index]:
                new.append((at, starts[index]))
            at = stops[index]
        if at < stop:
            new.append((at, stop))
        if first < last:
            start, stop = min(start, starts[first]), max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]
        return new


def _blocks(lengths: Column, positions: Column) -> Iterator[list[int]]:
    """Yield rows by position, in groups that one read serves."""
    rows: list[int] = []
    first = reach = 0
    for row in sort_rows(positions):
        position, length = positions[row], lengths[row]
        if rows and (position - reach > _WORTH_SKIPPING_BYTES or position + length - first > _BLOCK_BYTES):
            yield rows
            rows = []
        if not rows:
            first = position
        rows.append(row)
        reach = position + length
    if rows:
        yield rows


def _contested(tables: list[Columns]) -> bytearray | None:
    """Tell which extents, counted through all tables, share bytes with another one; None if none does."""
    starts, lengths = array("Q"), array("I")
    for table in tables:
        starts.extend(table.starts)
        lengths.extend(table.lengths)
    order = sort_rows(starts)
    if is_disjoint(array("Q", map(starts.__getitem__, order)), array("I", map(lengths.__getitem__, order))):
        return None
    contested = bytearray(len(starts))
    reach = furthest = 0
    for row in order:
        if starts[row] < reach:
            contested[row] = contested[furthest] = 1
        if starts[row] + lengths[row] > reach:
            reach, furthest = starts[row] + lengths[row], row
    return contested
