"""File locks: they coordinate processes, they protect nothing. The one place that takes, tests and releases them.

Two kinds, both of which go with the open file that took them, and so die with its process:

- `flock`, over a whole file: "this file's writer lives", "I am the one who compacts here";
- open-file-description (OFD) locks, over byte ranges: "I am fetching these bytes". POSIX's own byte-range locks would
  vanish when *any* descriptor of the file is closed in the process. Only Linux has OFD locks.

File systems lie about locks. Some have none (ENOSYS, ENOLCK), some keep them on one node (NFS `nolock`, Lustre
`localflock`), some have granted one lock to everybody. So nothing here raises for what the file system says or does, a
lock that was taken proves nothing, and nothing waits longer than it was told: an attempt asks once, and waiting is
asking again after a pause. (What can still hang is the one call, where the whole mount hangs.)

A forked child shares its parent's open files, and so their locks; an unlock in the child would release them for both.
The objects here remember the process that took a lock, and release nothing anywhere else.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import struct
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Attempt", "Claim", "FileLock", "Holder", "Outcome", "RangeLock", "hold", "is_held", "pauses"]

Range = tuple[int, int]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.1
# Whoever looks whether a file is locked holds the lock itself for that moment. Its writer has to outlast that.
_PROBE_S = 0.05
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})

# struct flock of 64-bit Linux and of 32-bit Linux with large files: type, whence, (padding), start, length, pid, which
# must be 0 here.
_FLOCK = struct.Struct("@hhqqi4x") if struct.calcsize("P") == 8 else struct.Struct("=hhqqi")
_READ, _WRITE, _UNLOCK = 0, 1, 2  # F_RDLCK ... as Linux has them
_MOST = (1 << 63) - 1


def _constant(name: str, value: int) -> int | None:
    """Return a command of `fcntl`; a Python built on an old system lacks names that the running kernel knows."""
    if not sys.platform.startswith("linux"):
        return None
    import fcntl

    return int(getattr(fcntl, name, value))


class Outcome(enum.Enum):
    """What became of an attempt to take a lock."""

    TAKEN = "taken"
    HELD = "held"
    """Somebody else has it."""
    UNSUPPORTED = "not supported"
    """The file system cannot tell, or this platform has no such locks: go on as if there were none."""


class Holder(enum.Enum):
    """Whether somebody holds a lock."""

    HELD = "held"
    FREE = "free"
    UNKNOWN = "unknown"


class Attempt(NamedTuple):
    """What became of an attempt; true where the lock was taken."""

    outcome: Outcome
    errno: int | None = None
    """The file system's, where it has no locks to give."""

    def __bool__(self) -> bool:
        return self.outcome is Outcome.TAKEN


class Claim(NamedTuple):
    """What became of an attempt to lock ranges; true where there is nothing left to wait for."""

    taken: tuple[Range, ...]
    held: tuple[Range, ...]
    """Ranges, as they were asked for, of which somebody else holds at least a byte."""
    errno: int | None = None
    """Set where the file system, or the platform, has no locks to give: then nothing is taken, and nothing held."""
    is_supported: bool = True

    @property
    def outcome(self) -> Outcome:
        """Of all ranges together: held if one of them is."""
        if not self.is_supported:
            return Outcome.UNSUPPORTED
        return Outcome.HELD if self.held else Outcome.TAKEN

    def __bool__(self) -> bool:
        return self.outcome is Outcome.TAKEN


def pauses(timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """Yield the pauses, in seconds, between attempts: growing from 2 to 100 ms, until the time is up.

    The caller sleeps, as its kind of code does, and tries again after each. The last pause ends at the limit, so there
    is always one attempt then.

    Args:
        timeout_s: How long all pauses, and what the caller does between them, may take.
        clock: For tests.
    """
    deadline_s, pause_s = clock() + timeout_s, _FIRST_PAUSE_S
    while (left_s := deadline_s - clock()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class FileLock:
    """The `flock` of one open file. Not for use by several threads at once."""

    __slots__ = ("_fd", "_pid", "_storage")

    def __init__(self, fd: int, *, storage: Storage | None = None) -> None:
        """Name a lock.

        Args:
            fd: Open for writing, which some network file systems demand. It stays the caller's, who must not close it
                before `unlock`.
            storage: The file system that it is on.
        """
        self._fd = fd
        self._storage = Storage() if storage is None else storage
        self._pid: int | None = None

    def try_lock(self) -> Attempt:
        """Ask for the lock once."""
        try:
            self._storage.lock(self._fd)
        except OSError as error:
            return _refused(error)
        self._pid = os.getpid()
        return Attempt(Outcome.TAKEN)

    def lock(self, timeout_s: float) -> Attempt:
        """Ask for the lock until it is taken, cannot be had at all, or the time is up."""
        attempt = self.try_lock()
        for pause_s in pauses(timeout_s):
            if attempt.outcome is not Outcome.HELD:
                break
            time.sleep(pause_s)
            attempt = self.try_lock()
        return attempt

    def unlock(self) -> None:
        """Release the lock if this object took it in this process; otherwise nothing happens."""
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):  # it goes with the descriptor at the latest
                self._storage.unlock(self._fd)
        self._pid = None


def hold(fd: int, *, storage: Storage | None = None) -> bool:
    """Lock a file that this process has created until its descriptor is closed, to tell others that its writer lives.

    Args:
        fd: Open for writing.
        storage: The file system that it is on.

    Returns:
        Whether others can tell. It makes no difference to what the writer may do.
    """
    return bool(FileLock(fd, storage=storage).lock(_PROBE_S))


def is_held(target: str | int, *, storage: Storage | None = None) -> Holder:
    """Tell whether somebody holds the `flock` of a file, this process included.

    The question is asked by taking a shared lock for a moment: several who ask do not take one another for the holder,
    and `hold` outlasts them.

    Args:
        target: Path; or a descriptor that was opened for this question, and not by who might hold the lock: asking with
            the holder's own would release its lock.
        storage: The file system that it is on.
    """
    storage = Storage() if storage is None else storage
    if isinstance(target, int):
        return _probe(target, storage)
    try:
        fd = storage.open(target, os.O_RDONLY)
    except OSError:
        return Holder.UNKNOWN
    try:
        return _probe(fd, storage)
    finally:
        with contextlib.suppress(OSError):  # nothing was written through it
            storage.close(fd)


def _probe(fd: int, storage: Storage) -> Holder:
    try:
        storage.lock(fd, shared=True)
    except OSError as error:
        return Holder.HELD if error.errno in _HELD else Holder.UNKNOWN
    with contextlib.suppress(OSError):  # it goes with the descriptor
        storage.unlock(fd)
    return Holder.FREE


class RangeLock:
    """OFD locks over byte ranges of one open file, which need not have those bytes; exclusive ones by default.

    The locks belong to the open file: whoever uses this object, threads and tasks of this process included, owns them
    together and does not exclude one another. Ranges that were taken join: what is unlocked is free, whichever call
    took it.
    """

    __slots__ = ("_fd", "_pid", "_storage")

    def __init__(self, fd: int, *, storage: Storage | None = None) -> None:
        """Name the locks of an open file.

        Args:
            fd: Open for writing. It stays the caller's; closing it releases everything.
            storage: The file system that it is on.
        """
        self._fd = fd
        self._storage = Storage() if storage is None else storage
        self._pid = os.getpid()

    def try_lock(self, ranges: Sequence[Range], *, shared: bool = False) -> Claim:
        """Ask once for each range, and keep those that nobody else holds a byte of.

        Args:
            ranges: Half-open; empty ones are left out. One call of the operating system each, and on a network file
                system one round trip.
            shared: Whether others may share them; what this object has of another kind becomes this one.

        Returns:
            Which were taken and which are held. Where the file system fails, what was taken is released again.
        """
        taken: list[Range] = []
        held: list[Range] = []
        command = _constant("F_OFD_SETLK", 37)
        for start, stop in ranges:
            if start >= stop:
                continue
            number = errno.ENOSYS if command is None else self._call(command, _READ if shared else _WRITE, start, stop)
            if number == 0:
                taken.append((start, stop))
            elif number in _HELD:
                held.append((start, stop))
            else:
                self.unlock(taken)
                return Claim((), (), number, is_supported=False)
        return Claim(tuple(taken), tuple(held))

    def lock(self, ranges: Sequence[Range], timeout_s: float) -> Claim:
        """Ask for ranges until all are taken, they cannot be had at all, or the time is up.

        What was taken by then is kept. Two who wait for ranges that the other has taken both wait until their time is
        up, unless they ask for ranges in ascending order only.
        """
        claim = self.try_lock(ranges)
        taken = claim.taken
        for pause_s in pauses(timeout_s):
            if not claim.held:
                break
            time.sleep(pause_s)
            claim = self.try_lock(claim.held)
            if not claim.is_supported:
                self.unlock(taken)
                return claim
            taken += claim.taken
        return Claim(taken, claim.held, claim.errno, is_supported=claim.is_supported)

    def conflict(self, start: int, stop: int, *, shared: bool = False) -> Range | Outcome:
        """Tell what stands in the way of locking a range, without locking it.

        Returns:
            A range that somebody else holds, which need not be the only one; or `Outcome.TAKEN` where nothing does, or
            `Outcome.UNSUPPORTED`.
        """
        command = _constant("F_OFD_GETLK", 36)
        if command is None or self._pid != os.getpid() or not 0 <= start < stop <= _MOST:
            return Outcome.UNSUPPORTED
        try:
            wanted = _FLOCK.pack(_READ if shared else _WRITE, os.SEEK_SET, start, stop - start, 0)
            answer = self._storage.fcntl(self._fd, command, wanted)
            kind, _, first, length, _ = _FLOCK.unpack(answer)
        except (OSError, struct.error):
            return Outcome.UNSUPPORTED
        if kind == _UNLOCK:
            return Outcome.TAKEN
        return first, first + length if length else _MOST

    def unlock(self, ranges: Sequence[Range]) -> None:
        """Release ranges; does nothing in a forked child, whose parent still holds them."""
        command = _constant("F_OFD_SETLK", 37)
        if command is None:
            return
        for start, stop in ranges:
            if start < stop:
                self._call(command, _UNLOCK, start, stop)

    def _call(self, command: int, kind: int, start: int, stop: int) -> int:
        """Return 0 or an error number."""
        if self._pid != os.getpid():
            return errno.ECHILD
        if not 0 <= start < stop <= _MOST:
            return errno.EINVAL
        try:
            self._storage.fcntl(self._fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, stop - start, 0))
        except OSError as error:
            return error.errno or errno.EIO
        return 0


def _refused(error: OSError) -> Attempt:
    if error.errno in _HELD:
        return Attempt(Outcome.HELD, error.errno)
    return Attempt(Outcome.UNSUPPORTED, error.errno)
