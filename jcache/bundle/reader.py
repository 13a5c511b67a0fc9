"""Bundles as they are read: opened once, and the last tier of the journals whose files they have."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from jcache.bundle.format import END, START, Entry, Tail, keys_of, parse_end, parse_index, parse_start
from jcache.cache.directory import CacheUnusable
from jcache.cache.owners import keyed, owner_of
from jcache.journal.segments import Segments
from jcache.naming.identity import address_of
from jcache.segment.directory import Directory
from jcache.segment.format import Columns, Metadata, checksum
from jcache.segment.segment import Segment, read_all
from jcache.segment.table import Source
from jcache.system.mounts import find_mount
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jcache.journal.journal import Below
    from jcache.naming.identity import Identity
    from jcache.segment.table import Run

__all__ = ["Bundle", "BundleError"]

_PIECE_BYTES = 8 << 20


class BundleError(CacheUnusable):
    """A file is no bundle, cannot be read, or is damaged; the message is one line that names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.args = (f"{path} {reason}",)


class Bundle:
    """One bundle, of which the index is verified and kept in memory; its extents are read where they lie.

    Attributes:
        directory: Absolute path of the file: it takes the place of a cache directory below others.
        is_local: Whether it is on this machine's own disks or in its memory.
        entries: What it has of each file, by identity; once it was looked at.
        about: Of the run: `run`, `appname`, `report`; and `missing` and `keys`, see `docs/bundle.md`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        storage: Storage | None = None,
        *,
        trouble: Callable[[str], None] = lambda what: None,  # noqa: ARG005
    ) -> None:
        """Name a bundle; nothing is touched before `look_at`.

        Args:
            path: The file.
            storage: How it is read.
            trouble: Is told, once, of each file in it of which bytes are found damaged.
        """
        self.directory = os.path.realpath(path)
        self.is_local = False
        self.storage = Storage() if storage is None else storage
        self.size_bytes = 0
        self.tail = Tail(0, 0, 0, b"")
        self.entries: dict[str, Entry] = {}
        self.about: dict[str, Any] = {}
        self._trouble = trouble
        self._named: set[str] = set()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Return a bundle whose index was verified.

        Raises:
            BundleError: It is none, or cannot be used.
        """
        bundle = cls(path)
        bundle.look_at()
        return bundle

    def look_at(self) -> None:
        """Read and verify its index.

        Raises:
            BundleError: It is none, or cannot be used.
        """
        mount = find_mount(os.path.dirname(self.directory))
        self.is_local = mount is not None and mount.is_local
        try:
            fd = self.storage.open(self.directory, os.O_RDONLY)
            try:
                self.size_bytes, self.tail = self._load(fd)
            finally:
                self.storage.close(fd)
        except OSError as error:
            raise BundleError(self.directory, f"cannot be read: {error.strerror or error}") from None

    def _load(self, fd: int) -> tuple[int, Tail]:
        size = self.storage.fstat(fd).st_size
        version = parse_start(read_all(self.storage, fd, START.size, 0))
        if version is None:
            raise BundleError(self.directory, "is no bundle")
        if version != 1:
            raise BundleError(self.directory, f"is of version {version} of the format, which is not known here")
        end = read_all(self.storage, fd, END.size, max(size - END.size, 0))
        tail = parse_end(end, size)
        if tail is None:
            raise BundleError(self.directory, "is cut off or damaged: its end is not there")
        index = read_all(self.storage, fd, size - END.size - tail.position, tail.position)
        found = parse_index(index, tail, end)
        if found is None:
            raise BundleError(self.directory, "is damaged: its index is not what it was")
        entries, self.about = found
        self.entries = {entry.identity: entry for entry in entries}
        return size, tail

    def segments_of(self, identity: Identity, *, asker: bool) -> Below:
        """Return what gives the segments of an object, which may be one of the asker's own, for its journal above."""
        return lambda _name, tier: _Segments(self, self._stored(identity, asker=asker), tier)

    def is_owned(self, identity: Identity) -> bool:
        """Whether it has anything of an object for who asks alone."""
        return self._stored(identity, asker=True) in self.entries

    def may_have(self, identity: Identity) -> bool:  # noqa: ARG002 - as `Tier` has it
        """Whether it may have anything of a path; see `Tier`."""
        return True

    def _stored(self, identity: Identity, *, asker: bool) -> str:
        """Return the name that an object has here: of one asker's own, under the key of the cache it comes from."""
        owner = owner_of(identity, asker=asker)
        if not owner:
            return identity.key
        named = [identity.of(keyed(owner, key)).key for key in keys_of(self.about)]
        return next((name for name in named if name in self.entries), "")

    def damaged(self, identity: str) -> None:
        """Tell that bytes of a file are not what they were."""
        if identity not in self._named:
            self._named.add(identity)
            self._trouble(f"{self.directory} is damaged: some bytes of {address_of(identity)} in it are not used")

    def extents(self, entry: Entry) -> Iterator[tuple[int, bytes, bool]]:
        """Yield first byte, bytes, and whether they are what they were, of each extent of a file.

        Raises:
            OSError: It cannot be read.
        """
        fd = self.storage.open(self.directory, os.O_RDONLY)
        try:
            rows = zip(entry.starts, entry.lengths, entry.checksums, entry.positions, strict=True)
            for start, length, expected, position in rows:
                data = read_all(self.storage, fd, length, position)
                yield start, data, len(data) == length and checksum(data, 0) == expected
        finally:
            self.storage.close(fd)

    def digest(self, progress: Callable[[int, int], None] = lambda _done, _of: None) -> str:
        """Return the SHA-256 of all that lies before its end, as it is now.

        Args:
            progress: Is told how many bytes were read, and of how many.

        Raises:
            OSError: It cannot be read.
        """
        digest, at, stop = hashlib.sha256(), 0, self.size_bytes - END.size
        fd = self.storage.open(self.directory, os.O_RDONLY)
        try:
            while at < stop:
                data = read_all(self.storage, fd, min(_PIECE_BYTES, stop - at), at)
                if not data:
                    break
                digest.update(data)
                at += len(data)
                progress(at, stop)
        finally:
            self.storage.close(fd)
        return digest.hexdigest()


class _Segments(Segments):
    """What a bundle has of one file, as one segment that is read by a descriptor of the bundle."""

    __slots__ = ("_bundle",)

    def __init__(self, bundle: Bundle, identity: str, tier: int) -> None:
        directory = Directory(bundle.storage, bundle.directory, dir_mode=0, file_mode=0)
        super().__init__(bundle.storage, directory, identity, tier=tier)
        self._bundle = bundle

    def forget_rows(self, run: Run, rows: Sequence[int], what: str) -> int:
        """See `Segments`."""
        if not what.startswith("cannot be read"):  # by a mount that fails, say
            self._bundle.damaged(self._identity)
        return super().forget_rows(run, rows, what)

    def look(self) -> bool:
        """Take what there is; True if it was not there."""
        entry = self._bundle.entries.get(self._identity)
        if self.known or entry is None:
            return False
        source = Source(self._storage, self._bundle.directory, 0)
        source.size_bytes, source.tier = self._bundle.size_bytes, self._tier
        segment = Segment(os.path.basename(self._bundle.directory), source, 0)
        segment.metadata = Metadata(entry.identity, entry.version, entry.info, "", 0, 0)
        segment.table.adopt(Columns(entry.starts, entry.lengths, entry.checksums, entry.positions))
        segment.sealed = True
        self.known[segment.name] = segment
        return True
