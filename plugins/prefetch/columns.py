"""What comes next, by the columns that a job has read so far: also in files that nobody has read before."""

import io
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from jcache.planning.snapshot import END
from jcache.ranges import Range, normalise
from jcache.session import current
from jcache_plugins.columns.layout import Layout, layout_in
from jcache_plugins.fsspec.access import Access, run
from jcache_plugins.prefetch.seen import Seen

__all__ = ["ColumnsGuide"]

# The layouts of so many files are kept.
MOST_LAYOUTS = 64
# What is read of a file to find its columns is read in pieces of at least so much. The application reads it, too: so
# before it is fetched once more, its bytes are waited for in the journal.
PIECE_BYTES = 4 << 10
WAITS, WAIT_S = 12, 0.01


class ColumnsGuide:
    """Columns that were read, and where they lie in each file; used by one thread."""

    def __init__(self, find: Callable[[str], Access | None], seen: Seen) -> None:
        """Begin without any.

        Args:
            find: Gives the way to a file.
            seen: What the application's own uproot has read.
        """
        self._find = find
        self._seen = seen
        self._used: set[str] = set()
        self._awaited: set[str] = set()
        self._files: OrderedDict[str, _File | None] = OrderedDict()

    def knows(self, url: str) -> bool:  # noqa: ARG002 - of each it may be found out
        """Whether anything may be known of a file."""
        return True

    def behind(self, url: str, read: list[Range]) -> Iterator[tuple[str, Range]]:
        """Yield what else there is of the columns that were read: behind what was read just now, then before it.

        Args:
            url: The file.
            read: What was read of it just now, a run.
        """
        file = self._file(url)
        if file is None:
            return
        self._used |= file.names_at(read)
        at = read[0][0] if read else 0
        plan = [part for name in self._used for part in file.layout.columns.get(name, ())]
        ordered = normalise(plan)
        for part in [*(part for part in ordered if part[0] >= at), *(part for part in ordered if part[0] < at)]:
            yield url, part

    def _file(self, url: str) -> "_File | None":
        if url in self._files:
            self._files.move_to_end(url)
            return self._files[url]
        found = self._find(url)
        layout = None
        if found is not None and not found.excluded:
            layout = self._seen.layout(found.origin.path)
            if layout is None and url in self._awaited:
                return None
            if layout is None:
                info = run(found.origin.fs, found.stat())
                file = io.BufferedReader(_Quiet(found, info), PIECE_BYTES)
                if self._seen.is_watching and file.peek(4)[:4] == b"root":
                    self._awaited.add(url)  # the application is about to find its trees
                    return None
                layout = layout_in(file, url)
        known = _File(layout) if layout is not None and layout.columns else None
        self._files[url] = known
        if len(self._files) > MOST_LAYOUTS:
            self._files.popitem(last=False)
        return known


class _File:
    """A layout, and which column lies where."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        rows = sorted((start, stop, name) for name, ranges in layout.columns.items() for start, stop in ranges)
        self._starts = [start for start, _, _ in rows]
        self._rows = rows

    def names_at(self, read: list[Range]) -> set[str]:
        """Return the columns of which a piece was read whole."""
        names = set()
        for start, stop in read:
            row = max(bisect_right(self._starts, start) - 1, 0)
            while row < len(self._rows) and self._rows[row][0] < stop:
                begin, end, name = self._rows[row]
                if start <= begin and end <= stop:
                    names.add(name)
                row += 1
        return names


class _Quiet(io.RawIOBase):
    """A remote file as nobody reads it: from the journal where that has it, else from the origin, as what is ahead."""

    def __init__(self, found: Access, info: Any) -> None:
        super().__init__()
        self._access = found
        self._info = info
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.version.size_bytes}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._info.version.size_bytes, END)
        if stop <= self._at:
            return 0
        data = b""
        for wait in range(WAITS):
            data = self._access.peek(self._at, stop, version=self._info.version)
            if data:
                break
            if wait < WAITS - 1:
                time.sleep(WAIT_S)
        data = data or self._fetch(self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, start: int, stop: int) -> bytes:
        origin = self._access.origin
        (row,) = run(origin.fs, origin.fetch([(start, stop)], known=self._info)).data
        if isinstance(row, Exception):
            raise row
        session = current()
        if session is not None:
            session.counters.origin(requests=1, nbytes=len(row), prefetch=len(row), prefetch_unused=len(row))
        return bytes(row)
