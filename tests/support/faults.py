"""A storage that fails, tears and delays on demand, over a real directory."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

# What an operation is told to do: nothing; raise this; or, if it writes, write so many bytes and then raise or return
# short.
Fault = BaseException | tuple[int, BaseException | None] | None


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Crashed(BaseException):
    """The process died here: nothing above may catch this, and nothing more reaches the disk."""


class FaultyStorage(Storage):
    """Counts every operation and asks a plan what to do with it.

    Attributes:
        plan: Takes the operation's name and its number among all operations, counted from 0.
        calls: Names of the operations so far.
        largest_read_bytes: The most that one `pread` asked for.
        open_fds: Descriptors handed out and not closed.
    """

    def __init__(self, plan: Callable[[str, int], Fault] = lambda name, number: None) -> None:
        self.plan = plan
        self.calls: list[str] = []
        self.largest_read_bytes = 0
        self.open_fds: set[int] = set()
        self.crashed = False

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.calls)

    def _step(self, name: str) -> Fault:
        if self.crashed:
            raise Crashed
        self.calls.append(name)
        fault = self.plan(name, len(self.calls) - 1)
        if isinstance(fault, BaseException):
            try:
                self._raise(fault)
            finally:
                del fault
        return fault

    def _raise(self, fault: BaseException) -> None:
        self.crashed = isinstance(fault, Crashed)
        try:
            raise fault
        finally:
            del fault  # or frame and traceback keep each other, and the descriptors that the frames above have

    def open(self, path, flags, mode=0o600):
        self._step("open")
        fd = super().open(path, flags, mode)
        self.open_fds.add(fd)
        return fd

    def close(self, fd):
        # A dead process's descriptors are closed too.
        self.open_fds.discard(fd)
        super().close(fd)
        if not self.crashed:
            self._step("close")

    def pread(self, fd, size, position):
        self._step("pread")
        self.largest_read_bytes = max(self.largest_read_bytes, size)
        return os.pread(fd, size, position)

    def pwritev(self, fd, buffers, position):
        fault = self._step("pwritev")
        if fault is None:
            return super().pwritev(fd, buffers, position)
        size, after = fault
        written = os.pwrite(fd, b"".join(buffers)[:size], position)
        del fault
        if after is not None:
            try:
                self._raise(after)
            finally:
                del after
        return written

    def fstat(self, fd):
        self._step("fstat")
        return super().fstat(fd)

    def stat(self, path):
        self._step("stat")
        return super().stat(path)

    def listdir(self, path):
        self._step("listdir")
        return super().listdir(path)

    def mkdir(self, path, mode=0o700):
        self._step("mkdir")
        super().mkdir(path, mode)

    def rmdir(self, path):
        self._step("rmdir")
        super().rmdir(path)

    def unlink(self, path):
        self._step("unlink")
        super().unlink(path)

    def rename(self, source, target):
        self._step("rename")
        super().rename(source, target)

    def link(self, source, target):
        self._step("link")
        super().link(source, target)

    def ftruncate(self, fd, size_bytes):
        self._step("ftruncate")
        super().ftruncate(fd, size_bytes)

    def fsync(self, fd):
        self._step("fsync")
        super().fsync(fd)

    def utime(self, target, times_ns=None):
        self._step("utime")
        super().utime(target, times_ns)

    def lstat(self, path):
        self._step("lstat")
        return super().lstat(path)

    def fchmod(self, fd, mode):
        self._step("fchmod")
        super().fchmod(fd, mode)

    def lock(self, fd, *, shared=False):
        self._step("lock")
        super().lock(fd, shared=shared)

    def unlock(self, fd):
        self._step("unlock")
        super().unlock(fd)

    def fcntl(self, fd, command, argument):
        self._step("fcntl")
        return super().fcntl(fd, command, argument)


def fail_from(first: int, number: int, *, count: int = 1 << 60) -> Callable[[str, int], Fault]:
    """Fail `count` operations, counted from the operation of this number."""
    return lambda name, at: error(number) if first <= at < first + count else None
