"""Whether a segment that is not sealed may still grow: asked before anybody but its writer removes or replaces it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jcache.journal.presence import writer_exists
from jcache.system import locks

if TYPE_CHECKING:
    from jcache.system.storage import Storage

__all__ = ["QUIET_S", "is_quiet", "may_live"]

QUIET_S = 3600.0
"""How long nothing must have been written where locks are the only sign, since there are locks that lie."""

_QUIET_WITHOUT_LOCKS = 24
_DAY_S = 86_400.0


def is_quiet(mtime_ns: int, quiet_s: float) -> bool:
    """Tell whether nothing was written for so long, as far as can be told: a time days ahead is no sign of life."""
    age_s = time.time() - mtime_ns / 1e9
    return age_s >= quiet_s or age_s < -_DAY_S


def may_live(storage: Storage, fd: int, name: str, mtime_ns: int, *, quiet_s: float = QUIET_S) -> bool:
    """Tell whether the writer of a segment may be alive; False only where that is as good as certain.

    Held locks are believed. A lock that is free proves little (some file systems keep locks on one node), so on this
    machine the process must be gone too, and for another machine's the segment must also have been quiet for a while.
    A mistake costs what the writer records from then on, never a wrong byte: it notices that its file is gone.

    Args:
        storage: The cache's file system.
        fd: The segment, opened for this question.
        name: Its file name.
        mtime_ns: When it was last written.
        quiet_s: See `QUIET_S`; where there are no locks at all it takes 24 times that.
    """
    holder = locks.is_held(fd, storage=storage)
    if holder is locks.Holder.HELD:
        return True
    if writer_exists(name) is False:
        return False
    if holder is locks.Holder.UNKNOWN:
        quiet_s *= _QUIET_WITHOUT_LOCKS
    return not is_quiet(mtime_ns, quiet_s)
