"""All that JCache asks of the cache directory's file system: the one place that calls `os` on it.

Everything above takes a `Storage`, so that tests can put one in its place that fails, tears and delays.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jcache.descriptors import relieve

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence  # type: ignore[attr-defined]  # Python 3.12's name; only in annotations

__all__ = ["IOV_MAX", "Storage"]

# Linux and macOS take this many buffers in one call. sysconf would say so too, but costs a call for a number that has
# not changed.
IOV_MAX = 1024


class Storage:
    """The file system that holds the cache, call by call, errors as `OSError`.

    Methods are thin on purpose: no policy, no state, and no retries, except where a descriptor is wanted and there is
    none: then idle ones are closed first. Any thread may call them, also after a fork.
    """

    __slots__ = ()

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file that is never inherited by a program this process starts.

        Args:
            path: What to open.
            flags: As for `os.open`; `O_CLOEXEC` is added. Files that are only read are opened with `O_NONBLOCK`, so
                that a FIFO that somebody left in the cache directory cannot hang the process.
            mode: Permissions of a file that is created, before the umask.

        Returns:
            The descriptor.
        """
        flags |= os.O_CLOEXEC
        if not flags & (os.O_WRONLY | os.O_RDWR):
            flags |= os.O_NONBLOCK
        try:
            return os.open(path, flags, mode)
        except OSError as error:
            if not relieve(error):
                raise
            return os.open(path, flags, mode)

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
        """Return what the file system knows of a path, symbolic links followed."""
        return os.stat(path)

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
        try:
            return os.listdir(path)
        except OSError as error:
            if not relieve(error):
                raise
            return os.listdir(path)

    def entries(self, path: str) -> list[tuple[str, bool]]:
        """Return the names in a directory, and whether each is a directory itself (a symbolic link to one is not).

        On most file systems this takes no call for each name.
        """
        try:
            found = os.scandir(path)
        except OSError as error:
            if not relieve(error):
                raise
            found = os.scandir(path)
        with found:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        """Create one directory, or raise `FileExistsError`."""
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, replacing what had it."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, or raise `FileExistsError`: the publication that NFS does atomically."""
        os.link(source, target)

    def ftruncate(self, fd: int, size_bytes: int) -> None:
        """Cut or extend an open file."""
        os.ftruncate(fd, size_bytes)

    def fsync(self, fd: int) -> None:
        """Wait until an open file is on its medium."""
        os.fsync(fd)

    def utime(self, target: str | int, times_ns: tuple[int, int] | None = None) -> None:
        """Set access and modification time of a path or descriptor, to now by default."""
        os.utime(target, ns=times_ns) if times_ns is not None else os.utime(target)

    def chmod(self, path: str, mode: int) -> None:
        """Set the permissions of a path, whatever the umask."""
        os.chmod(path, mode)

    def fchmod(self, fd: int, mode: int) -> None:
        """Set the permissions of an open file, whatever the umask."""
        os.fchmod(fd, mode)

    def lstat(self, path: str) -> os.stat_result:
        """Return what the file system knows of a path itself, symbolic links not followed."""
        return os.lstat(path)

    def statvfs(self, path: str) -> os.statvfs_result:
        """Return space and inodes of the file system that a path is on."""
        return os.statvfs(path)

    def lock(self, fd: int, *, shared: bool = False) -> None:
        """Take the `flock` of an open file without waiting, or raise `OSError`; `jcache.locks` makes sense of that.

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
