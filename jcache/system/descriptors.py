"""How many files this process keeps open for its caches: one budget over all journals, and who closes for it.

A quarter of the process's limit of descriptors is JCache's at most; the rest is the application's. Whoever keeps a file
open for later is a `Holder`, and can do without: when there are too many, those that were not used for longest close
theirs. A descriptor is never closed under a call that uses it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Protocol, Self

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Descriptor", "Holder", "relieve"]

_UNLIMITED = 1 << 20
_FULL = frozenset({errno.EMFILE, errno.ENFILE})
# The application may change the limit: it is asked for again with each so many files that are opened.
_ASK_EVERY = 16


class Holder(Protocol):
    """Whoever keeps a file open that is not needed just now.

    Attributes:
        used: Set whenever the file is used; reset by the budget.
    """

    used: bool

    @property
    def is_writer(self) -> bool:
        """Whether others see by the lock on the file that it is being written: then it is closed last."""
        ...

    def rest(self) -> None:
        """Let go of the file if that is possible at once; any thread calls this, with any lock held."""
        ...


class Descriptor(int):
    """The number of an open file, which is closed when the last reference to this object goes.

    A call that is given the number holds a reference, so the number is not another file's before the call returns.
    """

    _close: Callable[[int], None]

    def __new__(cls, fd: int, close: Callable[[int], None], holder: Holder) -> Self:
        """Keep a file open for a holder, and have others close theirs where there are too many.

        Args:
            fd: An open file, which belongs to this object from now on.
            close: Closes it.
            holder: Who keeps it.
        """
        self = super().__new__(cls, fd)
        self._close = close
        holder.used = True
        _kept[fd] = _Kept(holder)
        limit = _known[0] if next(_opened) % _ASK_EVERY else _ask()
        # The system gives the lowest free number: where that is high, the application has most of the others.
        is_scarce = fd >= limit - limit // 4
        if is_scarce or len(_kept) > limit // 4:
            _close_idle(0 if is_scarce else limit * 3 // 16, limit // 8)
        return self

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the system closes it, and does not hold up the interpreter's end where the file system hangs
        _kept.pop(int(self), None)
        # NFS reports failed writes of the past here. What did not reach the disk is found out by its checksum.
        with contextlib.suppress(OSError):
            self._close(int(self))


class _Kept:
    """What is known of one open file: who holds it, and which round last found it used."""

    __slots__ = ("holder", "round")

    def __init__(self, holder: Holder) -> None:
        self.holder = weakref.ref(holder)
        self.round = 0


_kept: dict[int, _Kept] = {}  # by number, in the order of their opening
_rounds = 0


def relieve(error: OSError) -> bool:
    """Close what is idle where a call failed for want of descriptors; return whether to try it again."""
    if error.errno not in _FULL:
        return False
    _ask()
    before = len(_kept)
    _close_idle(0, before)
    if len(_kept) == before:
        _close_idle(0, before // 2)
    return len(_kept) < before


def _ask() -> int:
    """Find out the limit of descriptors."""
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        _known[0] = _UNLIMITED if soft == resource.RLIM_INFINITY else soft
    return _known[0]


_known = [_UNLIMITED]
_opened = itertools.count(1)
_ask()


def _close_idle(keep: int, writers: int) -> None:
    """Close until so many are left, the least recently used first; of those that are being written keep `writers`.

    Several threads may do so at once: then a few more are closed.
    """
    global _rounds  # noqa: PLW0603 - one budget per process is the point
    _rounds += 1
    found: list[tuple[int, bool, Holder]] = []
    for kept in list(_kept.values()):
        holder = kept.holder()
        if holder is not None:
            if holder.used:
                holder.used, kept.round = False, _rounds
            found.append((kept.round, holder.is_writer, holder))
    found.sort(key=lambda item: item[0])
    written = [holder for _, is_writer, holder in found if is_writer]
    # Never the last one: somebody is about to write to it.
    for holder in written[: max(min(len(written) - writers, len(written) - 1), 0)]:
        holder.rest()
    for _, is_writer, holder in found:
        if len(_kept) <= keep:
            break
        if not is_writer:
            holder.rest()
