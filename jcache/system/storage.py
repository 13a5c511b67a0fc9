"""All that JCache asks of the cache directory's file system: the one place that calls `os` on it.

Everything above takes a `Storage`, so that tests can put one in its place that fails, tears and delays.

Whoever shares a cache directory may put anything into it. So a storage that knows a cache's root follows no symbolic
link below it. What removes or renames walks down from the root through open directories, so that nobody can put a link
in the way meanwhile. What makes or reads looks at each directory on the way once: who replaces one later can have files
made elsewhere, and read from elsewhere, where they fail their checksums.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from typing import TYPE_CHECKING, TypeVar

from jcache.system.descriptors import relieve

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence  # type: ignore[attr-defined]  # Python 3.12's name; only in annotations

__all__ = ["IOV_MAX", "Storage"]

T = TypeVar("T")
R = TypeVar("R")

# Linux and macOS take this many buffers in one call. sysconf would say so too, but costs a call for a number that has
# not changed.
IOV_MAX = 1024

_MOST_KNOWN = 2000
_NO_NAMES = frozenset({"", ".", ".."})
_ENTER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class Storage:
    """The file system that holds the cache, call by call, errors as `OSError`.

    Methods are thin on purpose: no policy, and no retries, except where a descriptor is wanted and there is none: then
    idle ones are closed first. Any thread may call them, also after a fork.
    """

    _roots: tuple[str, ...] = ()
    _known: set[str]

    def __init__(self, *roots: str) -> None:
        """Make a storage.

        Args:
            roots: Directories below which no symbolic link is followed, normal absolute paths; see `keep_inside`.
        """
        for root in roots:
            self.keep_inside(root)

    def keep_inside(self, root: str) -> None:
        """Follow no symbolic link below a directory from now on. It may be one itself."""
        root = root.rstrip("/") + "/"
        if root not in self._roots:
            self._roots = (*self._roots, root)
            self._known = set()  # directories that were found to be real ones, all the way from the root

    def _inside(self, path: str) -> bool:
        """Whether a path is below a root; raises `OSError` where a directory on the way to it is a symbolic link."""
        for root in self._roots:
            if path.startswith(root):
                break
        else:
            return False
        above, known = path.rpartition("/")[0], self._known
        if above in known or len(above) < len(root):
            return True
        if len(known) > _MOST_KNOWN:
            known.clear()
        at = root[:-1]
        for name in above[len(root) :].split("/"):
            at = f"{at}/{name}"
            if at not in known:
                if name in _NO_NAMES or not stat.S_ISDIR(os.lstat(at).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory of the cache", at)
                known.add(at)
        return True

    def _enter(self, path: str) -> tuple[str, int | None]:
        """Return the name that an operation is to be given, and the open directory that it is in, to be closed.

        Nothing on the way from the root is a symbolic link, and nothing can become one meanwhile. The last name may be
        one: no operation that this is for follows it.
        """
        for root in self._roots:
            if path.startswith(root):
                break
        else:
            return path, None
        *above, name = path[len(root) :].split("/")
        if not _NO_NAMES.isdisjoint([*above, name]):
            raise OSError(errno.EINVAL, "not a path in the cache", path)
        if not above:
            return path, None
        fd = os.open(root + above[0], _ENTER)
        for part in above[1:]:
            try:
                inner = os.open(part, _ENTER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return name, fd

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file that is never inherited by a program this process starts.

        Args:
            path: What to open.
            flags: As for `os.open`; `O_CLOEXEC` is added, and `O_NONBLOCK`, so that a FIFO that somebody left in the
                cache directory cannot hang the process.
            mode: Permissions of a file that is created, before the umask.

        Returns:
            The descriptor.
        """
        flags |= os.O_CLOEXEC | os.O_NONBLOCK
        if self._roots and self._inside(path):
            flags |= os.O_NOFOLLOW
        return _again(os.open, path, flags, mode)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    # The hot path of the product: a plain alias spares the Python frame that a method would cost on each read.
    pread = staticmethod(os.pread)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write at most `IOV_MAX` buffers at a position.

        Returns:
            Bytes written, which may be fewer than asked for.
        """
        return os.pwritev(fd, buffers, position)

    def fstat(self, fd: int) -> os.stat_result:
        """Return what the file system knows of an open file."""
        return os.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        """Return what the file system knows of a path; symbolic links are followed where that is not below a root."""
        return self._look(path) if self._roots and self._inside(path) else os.stat(path)

    def is_there(self, path: str) -> bool:
        """Whether there may be anything of this name: False only where the file system says that there is not."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        return self._list(os.listdir, path)

    def entries(self, path: str) -> list[tuple[str, bool]]:
        """Return the names in a directory, and whether each is a directory itself (a symbolic link to one is not).

        On most file systems this takes no call for each name.
        """
        return self._list(_kinds, path)

    def _list(self, read: Callable[[str], list[T]], path: str) -> list[T]:
        if self._roots:
            self._inside(path + "/")  # by its path it takes five calls, by a descriptor that follows no link ten
        return _again(read, path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        """Create one directory, or raise `FileExistsError`."""
        inside = self._roots and self._inside(path)
        os.mkdir(path, mode)
        if inside:
            self._known.add(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        name, above = _again(self._enter, path)
        try:
            os.rmdir(name, dir_fd=above)
        finally:
            _leave(above)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        name, above = _again(self._enter, path)
        try:
            os.unlink(name, dir_fd=above)
        finally:
            _leave(above)

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, replacing what had it."""
        self._move(os.rename, source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, or raise `FileExistsError`: the publication that NFS does atomically."""
        self._move(functools.partial(os.link, follow_symlinks=False), source, target)

    def _move(self, move: Callable[..., None], source: str, target: str) -> None:
        old, above = _again(self._enter, source)
        try:
            directory, new = os.path.split(target)
            if above is not None and directory == os.path.dirname(source) and new not in _NO_NAMES:
                return move(old, new, src_dir_fd=above, dst_dir_fd=above)
            new, target_above = _again(self._enter, target)
            try:
                move(old, new, src_dir_fd=above, dst_dir_fd=target_above)
            finally:
                _leave(target_above)
        finally:
            _leave(above)

    def ftruncate(self, fd: int, size_bytes: int) -> None:
        """Cut or extend an open file."""
        os.ftruncate(fd, size_bytes)

    def fsync(self, fd: int) -> None:
        """Wait until an open file is on its medium."""
        os.fsync(fd)

    def utime(self, target: str | int, times_ns: tuple[int, int] | None = None) -> None:
        """Set access and modification time of a path or descriptor, to now by default."""
        follows = isinstance(target, int) or not (self._roots and self._inside(target))
        if times_ns is None:
            os.utime(target, follow_symlinks=follows)
        else:
            os.utime(target, ns=times_ns, follow_symlinks=follows)

    def fchmod(self, fd: int, mode: int) -> None:
        """Set the permissions of an open file, whatever the umask."""
        os.fchmod(fd, mode)

    def lstat(self, path: str) -> os.stat_result:
        """Return what the file system knows of a path itself, symbolic links not followed."""
        return self._look(path) if self._roots and self._inside(path) else os.lstat(path)

    def _look(self, path: str) -> os.stat_result:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            self._known.add(path)
        return status

    def statvfs(self, path: str) -> os.statvfs_result:
        """Return space and inodes of the file system that a path is on."""
        return os.statvfs(path)

    def lock(self, fd: int, *, shared: bool = False) -> None:
        """Take the `flock` of an open file without waiting, or raise `OSError`; `jcache.system.locks` knows why.

        It goes with the last descriptor of the open file, so also with the process. A forked child shares it; unlocking
        there releases the parent's.

        Raises:
            OSError: Somebody else holds it, or the file system has no locks.
        """
        import portalocker  # costs asyncio's import where nothing else has paid it yet

        kind = portalocker.LockFlags.SHARED if shared else portalocker.LockFlags.EXCLUSIVE
        try:
            portalocker.lock(fd, kind | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            cause = error.args[0] if error.args else None
            raise cause if isinstance(cause, OSError) else OSError(str(error)) from error

    def unlock(self, fd: int) -> None:
        """Release the `flock` of an open file, for every process that shares the open file."""
        import portalocker

        try:
            portalocker.unlock(fd)
        except portalocker.LockException as error:
            cause = error.args[0] if error.args else None
            raise cause if isinstance(cause, OSError) else OSError(str(error)) from error

    def fcntl(self, fd: int, command: int, argument: bytes) -> bytes:
        """Call `fcntl` on an open file, with a structure that comes back as the system left it."""
        import fcntl

        return fcntl.fcntl(fd, command, argument)


def _kinds(directory: str) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def _again(call: Callable[..., R], *args: object) -> R:
    """Call what needs a descriptor; once more where there was none, and idle ones could be closed."""
    try:
        return call(*args)
    except OSError as error:
        if not relieve(error):
            raise
        return call(*args)


def _leave(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
