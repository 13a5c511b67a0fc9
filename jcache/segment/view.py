"""What a journal holds of one version of the file: lookup and reading, without a lock."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NoReturn

from jcache.segment.errors import DamagedExtent, JournalError, LostSegment
from jcache.segment.format import checksum
from jcache.segment.segment import read_all
from jcache.segment.table import is_disjoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jcache.segment.table import Run
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["Part", "View"]

# No writer makes an extent longer than a quarter of this: for a few bytes no more is read at either end.
_MOST_EXTENT = 1 << 20
_SLACK_BYTES = 2 * _MOST_EXTENT

Part = tuple[int, int, "Run | None", int, int]
"""Start and stop in the remote file; the run that holds these bytes (None: a gap); first and last row there.

The rows of a hit are adjacent in the remote file and in the segment, so one `pread` serves it. Only the first three
members mean anything outside this package.
"""


class View:
    """One version's bytes, over all segments that the journal knows; it follows what the journal learns.

    `find` and `read` may be called from any thread, also while others append or refresh. After a fork, or after the
    journal was closed, everything is a gap; parts found before can still be read.
    """

    __slots__ = ("_forget", "_lose", "_pread", "_storage", "runs", "version")

    def __init__(
        self,
        storage: Storage,
        version: Version,
        forget: Callable[[Run, Sequence[int], str], int],
        lose: Callable[[Run], None],
    ) -> None:
        self._storage = storage
        self._pread = storage.pread
        self._forget = forget
        self._lose = lose
        self.version = version
        self.runs: tuple[Run, ...] = ()

    @property
    def size(self) -> int:
        """Size of the remote file in bytes."""
        return self.version.size_bytes

    def find(self, start: int, stop: int) -> list[Part]:
        """Cut a range into hits and gaps.

        Args:
            start: First byte.
            stop: One past the last byte; the range is empty if it is not larger than `start`.

        Returns:
            Parts in ascending order that cover exactly the range; no two gaps are neighbours.
        """
        is_gap = start < stop
        for run in self.runs:
            starts = run.starts
            row = bisect_right(starts, start) - 1
            # The table of a forged segment need not be in order.
            if row >= 0 and (first := starts[row]) <= start:
                end = first + run.lengths[row]
                if stop <= end and start < stop:
                    return [(start, stop, run, row, row)]
                is_gap = is_gap and end <= start
            is_gap = is_gap and (row + 1 == len(starts) or starts[row + 1] >= stop)
        return [(start, stop, None, 0, 0)] if is_gap else self._find_parts(start, stop)

    def is_clear(self, start: int, stop: int) -> bool:
        """Whether the journal has no byte of a range, which is not empty."""
        for run in self.runs:
            starts = run.starts
            row = bisect_right(starts, start) - 1
            if row >= 0 and starts[row] + run.lengths[row] > start:
                return False
            if row + 1 < len(starts) and starts[row + 1] < stop:
                return False
        return True

    def _find_parts(self, start: int, stop: int) -> list[Part]:
        parts: list[Part] = []
        runs = self.runs
        while start < stop:
            best: Run | None = None
            best_row, reach, gap_stop = 0, start, stop
            for run in runs:
                row = bisect_right(run.starts, start) - 1
                if row >= 0 and run.starts[row] <= start and (end := run.starts[row] + run.lengths[row]) > reach:
                    best, best_row, reach = run, row, end
                if best is None and row + 1 < len(run.starts) and run.starts[row + 1] > start:
                    gap_stop = min(gap_stop, run.starts[row + 1])
            if best is None:
                gap_start = start
                if parts and parts[-1][2] is None:
                    gap_start = parts.pop()[0]  # a forgotten extent, of no length, began here
                parts.append((gap_start, gap_stop, None, 0, 0))
                start = gap_stop
                continue
            last = best_row
            starts, lengths, positions = best.starts, best.lengths, best.positions
            rows = len(starts)
            position = positions[last] + lengths[last]
            while reach < stop and last + 1 < rows and starts[last + 1] == reach and positions[last + 1] == position:
                if not lengths[last + 1]:
                    break
                last += 1
                reach += lengths[last]
                position += lengths[last]
            reach = min(reach, stop)
            parts.append((start, reach, best, best_row, last))
            start = reach
        return parts

    def read(self, part: Part) -> bytes:
        """Read a hit with one `pread`, and verify every byte of every extent that it touches.

        Args:
            part: A hit that `find` returned, of this view.

        Returns:
            Exactly the bytes from its start to its stop.

        Raises:
            DamagedExtent: They are not on disk as they were recorded; `find` reports what is damaged as a gap from now
                on.
            LostSegment: The segment is gone, and with it all that was found there.
            JournalError: The file system failed; the same holds.
        """
        start, stop, run, first, last = part
        assert run is not None, "a gap has no bytes"
        source = run.source
        position = run.positions[first]
        size = run.lengths[first] if first == last else run.positions[last] + run.lengths[last] - position
        try:
            file = source.file or source.fd
            source.used = True
            # The bounds keep a damaged, replaced or forged segment from making this allocate what it does not hold.
            if 0 < size <= stop - start + _SLACK_BYTES and position + size <= source.size_bytes:
                data = self._pread(file, size, position)
            else:
                data = b""
        except OSError as error:
            self._fail(run, range(first, last + 1), error)
        if first == last:
            if checksum(data, source.salt) != run.checksums[first]:
                data = self._read_again(run, first, last)
        elif not _is_sound(data, run, first, last):
            data = self._read_again(run, first, last)
        lead = start - run.starts[first]
        if lead or stop - start != len(data):
            if not 0 <= lead <= len(data) - (stop - start):  # only where rows are not in order
                self._forget(run, range(first, last + 1), "not where the table says")
                raise DamagedExtent(f"{last - first + 1} extents from {run.starts[first]} on are not in order")
            return data[lead : lead + stop - start]
        return data

    def _read_again(self, run: Run, first: int, last: int) -> bytes:
        """Read bytes that failed once more before they are called damaged: a short read is no damage."""
        source, rows = run.source, range(first, last + 1)
        position = run.positions[first]
        size = run.positions[last] + run.lengths[last] - position
        fits = 0 < size <= (last - first + 1) * _MOST_EXTENT and position + size <= source.size_bytes
        try:
            data = read_all(self._storage, source.fd, size, position) if fits else b""
        except OSError as error:
            self._fail(run, rows, error)
        damaged, forgotten = [], 0
        view = memoryview(data)
        for row in rows:
            offset, length = run.positions[row] - position, run.lengths[row]
            if not length:
                forgotten += 1  # by another thread, or since this part was found
            elif checksum(view[offset : offset + length], source.salt) != run.checksums[row]:
                damaged.append(row)
        if not damaged and not forgotten:
            return data
        self._forget(run, damaged, "wrong checksum")
        raise DamagedExtent(
            f"{len(damaged) + forgotten} of {len(rows)} extents from {run.starts[first]} on are damaged"
        )

    def _fail(self, run: Run, rows: range, error: OSError) -> NoReturn:
        # Forgotten, lest each later read of these bytes fails first.
        if run.source.file is None:
            self._lose(run)
            if any(known.source is run.source for known in self.runs):  # whoever plans anew would come back for ever
                self._forget(run, range(len(run.starts)), "cannot be opened again")
            raise LostSegment(f"cannot open a segment again: {error}", errno=error.errno) from error
        self._forget(run, rows, f"cannot be read: {error.strerror}")
        raise JournalError(f"cannot read a segment: {error}", errno=error.errno) from error

    def extents(self) -> list[tuple[int, int]]:
        """Return start and stop of all that the journal holds, in ascending order; overlaps are left as they are."""
        return sorted(
            (start, start + length)
            for run in self.runs
            for start, length in zip(run.starts, run.lengths, strict=False)
            if length
        )

    def covered(self) -> int:
        """Return how many distinct bytes of the file the journal holds."""
        runs = [(run.starts, run.lengths, len(run.starts)) for run in self.runs]
        if len(runs) == 1 and is_disjoint(*runs[0][:2]):
            return sum(runs[0][1])
        total = reach = 0
        for start, length in sorted(
            row for starts, lengths, n in runs for row in zip(starts[:n], lengths[:n], strict=True)
        ):
            stop = start + length
            if stop > reach:
                total += stop - max(start, reach)
                reach = stop
        return total


def _is_sound(data: bytes, run: Run, first: int, last: int) -> bool:
    view, salt, offset = memoryview(data), run.source.salt, 0
    lengths, checksums = run.lengths, run.checksums
    for row in range(first, last + 1):
        length = lengths[row]
        if checksum(view[offset : offset + length], salt) != checksums[row]:
            return False
        offset += length
    return offset == len(data)
