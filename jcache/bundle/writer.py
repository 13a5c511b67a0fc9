"""Writing a bundle, as a stream: whatever its size, no more than an extent is in memory, and the index."""

from __future__ import annotations

import errno
import hashlib
import os
from array import array
from typing import TYPE_CHECKING, Any, BinaryIO

from jcache.bundle.format import EXTENT_BYTES, Entry, Tail, pack_about, pack_end, pack_entry, pack_start
from jcache.segment.format import checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jcache.ranges import Range
    from jcache.segment.version import Version

__all__ = ["BundleWriter"]


class BundleWriter:
    """Writes one bundle into a file that is open. Files are to come in the order of their identities."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin a bundle at the file's beginning."""
        self._file = file
        self._digest = hashlib.sha256()
        self._at = 0
        self._index: list[bytes] = []
        self._last = ""
        self._write(pack_start())

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._at += len(data)

    def add(
        self,
        identity: str,
        place: str,
        version: Version,
        info: Mapping[str, Any],
        *,
        ranges: Iterable[Range],
        read: Callable[[int, int], bytes | None],
    ) -> int:
        """Add bytes of a file; return how many.

        Args:
            identity: Of the file.
            place: Of its journal, below a cache's root.
            version: Which of its versions they are of.
            info: What the origin said of it.
            ranges: A run of what is wanted.
            read: Gives the bytes from the first position to the second, all of them; None leaves them out.
        """
        assert identity > self._last, "in the order of their identities"
        self._last, position = identity, self._at
        starts, lengths, checksums = array("Q"), array("I"), array("Q")
        for start, stop in ranges:
            for at in range(start, stop, EXTENT_BYTES):
                data = read(at, min(at + EXTENT_BYTES, stop))
                if data is None:
                    continue
                starts.append(at)
                lengths.append(len(data))
                checksums.append(checksum(data, 0))
                self._write(data)
        self._index.append(pack_entry(Entry(identity, place, version, info, position, starts, lengths, checksums)))
        return self._at - position

    def end(self, about: Mapping[str, Any]) -> None:
        """Write what is behind the files, and have all of it on the disk.

        Args:
            about: Of the run; see `docs/bundle.md`.
        """
        entries, said = b"".join(self._index), pack_about({**about, "files": len(self._index)})
        position = self._at
        self._write(entries)
        self._write(said)
        tail = Tail(position, len(entries), len(said), self._digest.digest())
        self._file.write(pack_end(tail, entries + said))
        self._file.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # which a pipe says, and a device that keeps nothing
                raise
