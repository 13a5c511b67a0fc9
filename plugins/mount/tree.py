"""What the kernel is told of the names of a mount, and which version of a file a program has open.

The kernel has one inode, one size and one set of pages for each name, whichever version they are of, and answers reads
out of those pages without asking. So that no program gets bytes of two versions:

- While a program has a file open, the name stays what it was as that was opened: size, time and version. What is read
  then is of that version or fails (ESTALE), as a read of any file object does.
- A program that opens the file while the origin has another version by then waits until it is closed, for a
  moment, since the kernel tells of that with a delay; then it gets EBUSY. Two versions side by side would share pages.
- With each open, the origin is asked for the version, as often as the settings have it asked. If the kernel was
  told of another one before, the open fails with ESTALE, which makes the kernel look the name up again and open it
  once more: no program sees that.
- Answers to lookups that go on at the same time may reach the kernel in any order, and it drops one that another
  one has overtaken. So where a name has changed, the open looks by itself, from outside as any program does, what size
  and time the kernel has by now, and tells it again until it is right. Answers to lookups that began before are
  dropped from then on (the kernel's `attr_version`), and later ones tell the same as long as the file is open.
- Pages are kept from one open to the next one of the same version, and dropped with the first one of another.
- A file whose version nothing proves is read past the kernel's pages, too (`direct_io`).

Direct reads of all files would need less of this, and have no pages to be mixed. But the kernel does not map such a
file to be shared, as Python's `mmap` and numpy's `memmap` want it.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcache.origin import Info
from jcache.planning.snapshot import agrees
from jcache.segment.proof import clock_s
from jcache_plugins.fsspec.files import usable
from jcache_plugins.mount.handles import Bytes, JournalBytes, PlainBytes
from jcache_plugins.mount.objects import File, Objects

if TYPE_CHECKING:
    from jcache.journal import Version

__all__ = ["Attributes", "Handle", "Tree"]

RELEASE_S = 10.0
"""So long an open waits for others to close another version of the file."""
# What the origin said a moment ago, as the kernel looked the name up, goes for the open that follows.
LOOKUP_S = 1.0
# So often the kernel is told what it does not have right.
TELLINGS = 32
# Of so many names it is known what the kernel was told.
NODES = 65536


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the kernel is told of a name.

    Attributes:
        size: In bytes; None of a directory.
        mtime_ns: When it was modified.
    """

    size: int | None
    mtime_ns: int


class Node:
    """One name, as the kernel knows it."""

    __slots__ = ("attributes", "file", "handles", "is_changed", "looked_s", "pages", "version")

    def __init__(self, *, is_changed: bool) -> None:
        # What the kernel was told last; whether it may have been told anything else before, and have that yet.
        self.attributes: Attributes | None = None
        self.is_changed = is_changed
        # What the origin said to that, if it was asked, and when; for one open.
        self.file: File | None = None
        self.looked_s = 0.0
        # How many programs have it open, and which version.
        self.handles = 0
        self.version: Version | None = None
        # The version of the pages that the kernel may have.
        self.pages: Version | None = None


@dataclass(frozen=True, slots=True)
class Handle:
    """A file that a program has open.

    Attributes:
        data: Its bytes.
        attributes: What the kernel is told of it as long as it is open.
        node: Its name; None where other versions of it may be opened beside it, past the kernel's pages.
        keeps_pages: Whether the pages that the kernel has are of this version.
    """

    data: Bytes
    attributes: Attributes
    node: Node | None
    keeps_pages: bool = False


class Tree:
    """The names of a mount. Any number of threads may use it; one that waits for the origin holds up no other."""

    def __init__(self, objects: Objects, directory: str) -> None:
        """Tell nothing yet.

        Args:
            objects: What lies at the origin.
            directory: Where it is mounted.
        """
        self._objects = objects
        self._directory = directory
        self._has_forgotten = False
        # Of what nobody knows when it was modified.
        self._began_ns = time.time_ns()
        self._changed = threading.Condition()
        self._nodes: dict[str, Node] = {}

    def attributes(self, path: str) -> Attributes:
        """Return what the kernel is told of a name that it looks up.

        Raises:
            Exception: There is none, or whatever the origin raises.
        """
        with self._changed:
            node = self._nodes.get(path)
            if node is not None and node.handles and node.attributes is not None:
                node.file = None
                return node.attributes
        file = self._objects.at(path)
        attributes = self._told(file)
        if file is None:
            return attributes
        with self._changed:
            node = self._node(path)
            if node.attributes is not None and (node.handles or file.at_s < node.looked_s):
                return node.attributes  # it was opened meanwhile, or more is known by now
            node.is_changed |= node.attributes not in {None, attributes}
            node.attributes, node.looked_s = attributes, file.at_s
            node.file = None if file.info is None else file
            return attributes

    def entries(self, path: str) -> Iterator[tuple[str, bool | None]]:
        """Yield the names in a directory, and whether each is a directory's, where that is known.

        Raises:
            Exception: Whatever the origin raises.
        """
        for name, entry in self._objects.listed(path).items():
            yield name, entry.is_directory

    def open(self, path: str) -> Handle:
        """Open a file for a program.

        Raises:
            OSError: ESTALE where the kernel has to look the name up again; EBUSY where another program has another
                version of the file open.
            Exception: There is none, or whatever the origin raises.
        """
        file = self._looked_up(path) or self._objects.asked(path)
        if file is None:
            raise IsADirectoryError(path)
        names = self._objects.names
        found, info = file.found, None if file.info is None else readable(file.info, is_http=names.is_http)
        where = names.at(path)
        if found is None or info is None:
            return Handle(PlainBytes(names.asked, where, names.turns), self._told(file), None)
        keeps_pages, node = self._take(path, file, info)
        try:
            if node.is_changed and not self._is_told(path, node):
                raise again()
            found.open_here()  # it counts
            data = JournalBytes(names.fs, where, found, info)
            return Handle(data, node.attributes or self._told(file), node, keeps_pages)
        except BaseException:
            self._leave(node)
            raise

    def read(self, handle: Handle, start: int, size: int) -> bytes:
        """Return as many bytes of an open file, fewer only at its end.

        Raises:
            Exception: Whatever reading raises.
        """
        data = handle.data.read(start, size)
        if handle.node is not None:
            # It asks, so it has learnt that the file is open, and has dropped pages of any other version.
            handle.node.pages = handle.node.version
        return data

    def close(self, handle: Handle) -> None:
        """Take note that a program has closed a file, and all that it had mapped of it."""
        node = handle.node
        if node is not None:
            self._leave(node)
        handle.data.close()

    def _leave(self, node: Node) -> None:
        with self._changed:
            node.handles -= 1
            self._changed.notify_all()

    def _looked_up(self, path: str) -> File | None:
        """Return what the origin said as the kernel looked a name up for this open; None where it was not asked."""
        with self._changed:
            node = self._nodes.get(path)
            if node is None:
                return None
            file, node.file = node.file, None
            return file if clock_s() - node.looked_s < LOOKUP_S else None

    def _take(self, path: str, file: File, info: Info) -> tuple[bool, Node]:
        """Have one more program read a version; return whether the kernel's pages are of it, and the name."""
        version, attributes = info.version, self._told(file)
        with self._changed:
            node = self._node(path)

            def is_free() -> bool:
                return not node.handles or (node.version is not None and agrees(node.version, version))

            if not self._changed.wait_for(is_free, RELEASE_S):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if not node.handles and node.attributes != attributes:
                self._objects.forget(path)
                raise again()
            keeps_pages = node.pages is not None and agrees(node.pages, version)
            if not keeps_pages:
                node.pages = None  # until it has dropped them
            node.version = version
            node.handles += 1
            return keeps_pages, node

    def _is_told(self, path: str, node: Node) -> bool:
        """Whether the kernel has the size and time of the version that is being opened; if it can be told, it is."""
        for _ in range(TELLINGS):
            try:
                seen = os.stat(self._directory + path)
            except OSError:
                return False  # it has been unmounted
            if node.attributes == Attributes(seen.st_size, seen.st_mtime_ns):
                node.is_changed = False
                return True
        return False

    def _told(self, file: File | None) -> Attributes:
        if file is None:
            return Attributes(None, self._began_ns)
        return Attributes(file.size, self._began_ns if file.mtime_ns is None else file.mtime_ns)

    def _node(self, path: str) -> Node:
        """Return what is known of a name; the lock is held."""
        node = self._nodes.get(path)
        if node is None:
            if len(self._nodes) >= NODES:
                self._nodes = {path: node for path, node in self._nodes.items() if node.handles}
                self._has_forgotten = True
            node = self._nodes[path] = Node(is_changed=self._has_forgotten)
        return node


def readable(info: Info, *, is_http: bool) -> Info | None:
    """Return a version that is read by the journal; an HTTP server calls files empty which are not."""
    return usable(info) if is_http or info.version.size_bytes else info if info.version.is_provable else None


def again() -> OSError:
    """Return what has the kernel look a name up again, and open it once more; it does so once."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
