"""The extents of one segment in memory: sorted runs of columns, 28 bytes an extent, no object per extent.

A sealed segment is one run over the buffer its index was read into. A segment that grows is a few runs, each at least
twice as long as the next (a log-structured merge), so appends in any order stay cheap. Nothing that a reader may hold
ever changes under it: a run's rows keep their numbers, it only grows at its end, and merging makes new runs. So lookups
need no lock.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from operator import add, itemgetter, le
from typing import TYPE_CHECKING

from jcache.segment.format import Columns
from jcache.system.descriptors import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jcache.segment.format import Column
    from jcache.system.storage import Storage

__all__ = ["Run", "Source", "Table", "is_disjoint", "open_source", "sort_rows"]

_PICKED_ROWS = 1 << 14


class Source:
    """A segment file, open while it is used and closed when others need its descriptor; a `Holder`.

    Its name has a random number in it, and so have its checksums: what is opened again is the same file, or of no use.

    Attributes:
        path: Where it is.
        file: Its descriptor; None while it is closed.
        seal: Set while this process writes to it: ends that, if it can be ended at once. Until then it stays open.
        salt: Seed of the extents' checksums.
        size_bytes: What the file was known to hold; nothing longer is ever read at once.
        used: See `Holder`.
        tier: 0 in the cache directory that is written; of those below it, their number, from 1.
    """

    __slots__ = ("__weakref__", "_storage", "file", "path", "salt", "seal", "size_bytes", "tier", "used")

    def __init__(self, storage: Storage, path: str, salt: int) -> None:
        self._storage = storage
        self.path = path
        self.file: Descriptor | None = None
        self.seal: Callable[[], None] | None = None
        self.salt = salt
        self.size_bytes = 0
        self.used = False
        self.tier = 0

    @property
    def is_writer(self) -> bool:
        """Whether this process writes to it."""
        return self.seal is not None

    def adopt(self, fd: int) -> Descriptor:
        """Take care of an open descriptor of the file."""
        self.file = file = Descriptor(fd, self._storage.close, self)
        return file

    @property
    def fd(self) -> Descriptor:
        """The descriptor, to be kept as what it is for as long as it is used.

        Raises:
            OSError: It was closed, and the file cannot be opened again.
        """
        file = self.file
        self.used = True
        return self.adopt(self._storage.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)) if file is None else file

    def status(self) -> os.stat_result:
        """Return what the file system knows of it, without opening it for that."""
        file = self.file
        return self._storage.lstat(self.path) if file is None else self._storage.fstat(file)

    def rest(self) -> None:
        """Close the file; seal it before, where this process writes to it."""
        if self.seal is not None:
            self.seal()
        if self.seal is None:
            self.file = None


class Run:
    """Extents of one segment: starts strictly ascend, and so do stops (no extent lies inside another).

    Attributes:
        source: The file.
        starts: Offsets in the remote file.
        lengths: Bytes of each extent; 0 marks one that was found damaged.
        checksums: Of each extent's bytes.
        positions: Offsets in the segment file.
    """

    __slots__ = ("checksums", "lengths", "positions", "source", "starts")

    def __init__(self, source: Source, columns: Columns) -> None:
        self.source = source
        self.starts: Column = columns.starts
        self.lengths: Column = columns.lengths
        self.checksums: Column = columns.checksums
        self.positions: Column = columns.positions

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def columns(self) -> Columns:
        """The run's rows."""
        return Columns(self.starts, self.lengths, self.checksums, self.positions)

    def follows(self, columns: Columns) -> bool:
        """Whether sorted rows can be appended to this run in place."""
        last = len(self.starts) - 1
        start, length = self.starts[last], self.lengths[last]
        first = columns.starts[0]
        return bool(first > start and first + columns.lengths[0] > start + length)

    def extend(self, columns: Columns) -> None:
        """Append rows that follow. Readers see a row only when it is complete: starts, where they search, grow last."""
        self.positions.extend(columns.positions)
        self.checksums.extend(columns.checksums)
        self.lengths.extend(columns.lengths)
        self.starts.extend(columns.starts)

    def forget(self, start: int, position: int) -> bool:
        """Take one extent out: lookups find a gap there from now on.

        Args:
            start: Its offset in the remote file.
            position: Its offset in the segment file.

        Returns:
            True if it was there and had not been taken out before.
        """
        row = bisect_left(self.starts, start)
        if row == len(self.starts) or self.starts[row] != start or self.positions[row] != position:
            return False
        return self.forget_row(row)

    def forget_row(self, row: int) -> bool:
        """Take out the extent in a row, wherever the rows of a forged table are; True if it was not out before."""
        if not self.lengths[row]:
            return False
        if not isinstance(self.lengths, array):
            self.lengths = array(
                "I", self.lengths
            )  # the index's buffer cannot be written; damage is rare enough to copy it
        self.lengths[row] = 0
        return True


class Table:
    """All extents known of one segment, searched without a lock.

    Changed under the journal's lock; one's own segment while it is written, by its writer alone. `forget` may come at
    any time: where a merge misses it, the extent is found damaged once more.

    Attributes:
        runs: The runs, longest first; replaced, never changed, when there are others.
    """

    __slots__ = ("_source", "runs")

    def __init__(self, source: Source) -> None:
        self._source = source
        self.runs: tuple[Run, ...] = ()

    def adopt(self, columns: Columns) -> None:
        """Take the columns of a sealed segment's index as the only run, without a look at its rows."""
        self.runs = (Run(self._source, columns),) if len(columns.starts) else ()

    def add(self, columns: Columns) -> bool:
        """Add extents in any order.

        Args:
            columns: `array` columns, at least one row, which the table may keep.

        Returns:
            True if `runs` was replaced, False if its last run grew in place.
        """
        columns = _ordered(columns)
        if not len(columns.starts):
            return False
        if self.runs and self.runs[-1].follows(columns):
            self.runs[-1].extend(columns)
            if len(self.runs) < 2 or 2 * len(self.runs[-1]) <= len(self.runs[-2]):
                return False
            runs = list(self.runs)
        else:
            runs = [*self.runs, Run(self._source, columns)]
        rows, merged = len(runs[-1]), len(runs) - 1
        while merged and 2 * rows > len(runs[merged - 1]):
            merged -= 1
            rows += len(runs[merged])
        if merged < len(runs) - 1:
            runs[merged:] = [Run(self._source, _merged(runs[merged:]))]
        self.runs = tuple(run for run in runs if len(run))
        return True

    def forget(self, start: int, position: int) -> bool:
        """Take one extent out of whichever run holds it now; see `Run.forget`."""
        # Every run, not the first that has it: a reader's run may have been merged into another since.
        return sum(run.forget(start, position) for run in self.runs) > 0

    def columns(self) -> Columns:
        """Return everything as sorted `array` columns, without what was found damaged: what an index holds."""
        return _merged(self.runs)


def _merged(runs: Sequence[Run]) -> Columns:
    joined = Columns(array("Q"), array("I"), array("Q"), array("Q"))
    for run in runs:
        rows = len(run)
        joined.starts.extend(array("Q", run.starts[:rows]))
        joined.lengths.extend(array("I", run.lengths[:rows]))
        joined.checksums.extend(array("Q", run.checksums[:rows]))
        joined.positions.extend(array("Q", run.positions[:rows]))
    return _ordered(joined)


def _ordered(columns: Columns) -> Columns:
    """Sort rows; drop those that are forgotten or lie inside another one."""
    starts, lengths = columns.starts, columns.lengths
    if 0 not in lengths:
        if is_disjoint(starts, lengths):
            return columns
        columns = _picked(columns, sort_rows(starts))
        if is_disjoint(columns.starts, columns.lengths):
            return columns
    return _picked(columns, _outermost(columns.starts, columns.lengths))


def is_disjoint(starts: Column, lengths: Column) -> bool:
    """Whether each extent ends before the next one begins."""
    # Loops in C: this runs over each row of a scanned segment.
    following = iter(starts)
    next(following, None)
    return all(map(le, map(add, starts, lengths), following))


def _outermost(starts: Column, lengths: Column) -> array[int]:
    kept = array("Q")
    for row in sort_rows(starts):
        stop = starts[row] + lengths[row]
        if not lengths[row]:
            continue
        if kept and starts[kept[-1]] == starts[row] and starts[row] + lengths[kept[-1]] < stop:
            kept.pop()
        if not kept or starts[kept[-1]] + lengths[kept[-1]] < stop:
            kept.append(row)
    return kept


def sort_rows(column: Column) -> array[int]:
    """Return the numbers of all rows, ordered by a column; rows of one value keep their order."""
    # An array, because the sorted integers lie all over the memory: to go through them four times takes longer than to
    # sort them (1,000,000 rows: 2.0 s against 0.4 s; from an array 0.3 s).
    # The keys are kept while they are sorted in any case; a list hands them out faster than an array makes them.
    return array("Q", sorted(range(len(column)), key=column.tolist().__getitem__))


def _picked(columns: Columns, order: Sequence[int]) -> Columns:
    picked = Columns(array("Q"), array("I"), array("Q"), array("Q"))
    pairs = (
        (columns.starts, picked.starts),
        (columns.lengths, picked.lengths),
        (columns.checksums, picked.checksums),
        (columns.positions, picked.positions),
    )
    # An `itemgetter` takes half the time that asking for each item takes. Not one for all rows: it keeps an integer
    # object for each.
    for first in range(0, len(order), _PICKED_ROWS):
        rows = order[first : first + _PICKED_ROWS]
        pick = itemgetter(*rows, rows[0])  # one more, to drop again, for a single row would not come as a tuple
        for source, target in pairs:
            target.extend(array(target.typecode, pick(memoryview(source))))
            target.pop()
    return picked


def open_source(storage: Storage, path: str, salt: int) -> tuple[Source, os.stat_result]:
    """Open a segment for reading.

    Args:
        storage: The cache's file system.
        path: The segment.
        salt: The salt of its name.

    Returns:
        The source and the file's attributes.

    Raises:
        OSError: It cannot be opened.
    """
    source = Source(storage, path, salt)
    status = storage.fstat(source.fd)
    source.size_bytes = status.st_size
    return source, status
