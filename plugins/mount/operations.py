"""What the kernel asks of a mount, by libfuse: lookups, listings, opens and reads. It is mounted read-only: no more."""

import errno
import functools
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

import mfusepy

from jcache.activate.notice import say
from jcache.errors import OfflineMissError
from jcache.session import Session
from jcache_plugins.mount.failures import errno_of
from jcache_plugins.mount.tree import Attributes, Handle, Tree

__all__ = ["Operations"]

READ_AHEAD_BYTES = os.sysconf("SC_PAGESIZE")
"""What the kernel may read ahead. With none at all it would ask for single pages only."""
REQUESTS = 128
"""So many reads into the kernel's pages wait at once, for an origin that is slow or hangs, before others have to."""
_BLOCK_BYTES = 512  # of stat(2), whatever the file system's is
_COPY_BYTES = 128 << 10  # what programs read at a time that ask; the kernel asks for no more of what it keeps
_NAME_BYTES = 255
_KINDS = {True: stat.S_IFDIR, False: stat.S_IFREG, None: 0}


def answered(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Have what an operation raises end the kernel's call with an error number, and said where that is wanted."""

    @functools.wraps(operation)
    def answer(self: "Operations", *args: Any) -> Any:
        try:
            return operation(self, *args)
        except Exception as error:  # noqa: BLE001 - the program that asks gets a number for whatever it is
            number = errno_of(error)
            self.failed(operation.__name__, error, number)
        raise mfusepy.FuseOSError(number)

    return answer


class Operations(mfusepy.Operations):  # type: ignore[misc]  # untyped
    """Answers the kernel. libfuse calls it in threads of its own, many at once."""

    use_ns = True
    # What is open is known by its number: no path is made of it.
    flag_nopath = flag_nullpath_ok = True

    def __init__(self, tree: Tree, session: Session, started: Callable[[], None]) -> None:
        """Answer nothing yet.

        Args:
            tree: The names.
            session: Whose settings say what is said of failures.
            started: Called once the kernel asks.
        """
        self._tree = tree
        self._session = session
        self._started = started
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: dict[int, Handle] = {}
        self._has_missed = False
        self._directories: dict[int, str] = {}
        self._owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}

    def failed(self, what: str, error: Exception, number: int) -> None:
        """Say what was not answered: the first miss that nobody may fetch; all but absences with JCACHE_LOG=info."""
        is_talkative = self._session.config.log in {"debug", "info"}
        if isinstance(error, OfflineMissError) and (is_talkative or not self._has_missed):
            self._has_missed = True
            say(str(error))
        elif is_talkative and number != errno.ENOENT:
            say(f"{what}: {type(error).__name__}: {os.strerror(number)}")

    def init_with_config(self, conn: Any, _config: Any) -> None:
        """Have the kernel read ahead as little as it can, and have many reads wait at once; it is there by now."""
        if conn is not None:
            conn.max_readahead = min(conn.max_readahead, READ_AHEAD_BYTES)
            # Reads into its pages are among these: with its own bound, a dozen that hang would hold up all others.
            conn.max_background = conn.congestion_threshold = REQUESTS
        self._started()

    @answered
    def getattr(self, path: str | None, info: Any = None) -> dict[str, int]:
        """Return what is told of a name, or of what is open."""
        with self._lock:
            handle = None if info is None else self._open.get(info.fh)
        if handle is not None:
            return self._stat(handle.attributes)
        assert path is not None, "what is open is known"
        return self._stat(self._tree.attributes(path))

    def _stat(self, told: Attributes) -> dict[str, int]:
        size = told.size or 0
        return {
            "st_mode": stat.S_IFDIR | 0o555 if told.size is None else stat.S_IFREG | 0o444,
            "st_nlink": 1,  # of a directory: nobody knows how many are in it
            "st_size": size,
            "st_blocks": -(-size // _BLOCK_BYTES),
            "st_blksize": _COPY_BYTES,
            **dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), told.mtime_ns),
            **self._owner,
        }

    @answered
    def opendir(self, path: str) -> int:
        """Remember which directory is to be listed."""
        with self._lock:
            number = next(self._numbers)
            self._directories[number] = path
            return number

    @answered
    def readdir(self, _path: str | None, number: int) -> list[Any]:
        """List a directory."""
        with self._lock:
            directory = self._directories[number]
        return [".", "..", *self._rows(directory)]

    def _rows(self, directory: str) -> Iterator[tuple[str, int, int]]:
        for name, is_directory in self._tree.entries(directory):
            yield name, _KINDS[is_directory], 0

    @answered
    def releasedir(self, _path: str | None, number: int) -> int:
        """Forget which directory was listed."""
        with self._lock:
            self._directories.pop(number, None)
        return 0

    @answered
    def open(self, path: str, info: Any) -> int:
        """Open a file."""
        handle = self._tree.open(path)
        with self._lock:
            info.fh = number = next(self._numbers)
            self._open[number] = handle
        info.keep_cache = handle.keeps_pages
        info.direct_io = handle.node is None
        return 0

    @answered
    def read(self, _path: str | None, size: int, offset: int, info: Any) -> bytes:
        """Read of a file that is open."""
        with self._lock:
            handle = self._open[info.fh]
        return self._tree.read(handle, offset, size)

    @answered
    def release(self, _path: str | None, info: Any) -> int:
        """Close a file, which nobody has open or mapped any more."""
        with self._lock:
            handle = self._open.pop(info.fh, None)
        if handle is not None:
            self._tree.close(handle)
        return 0

    @answered
    def statfs(self, _path: str) -> dict[str, int]:
        """Tell how long names may be; how much there is, nobody knows."""
        return {"f_bsize": _COPY_BYTES, "f_frsize": _BLOCK_BYTES, "f_namemax": _NAME_BYTES}
