"""Which other processes may be writing to a journal: asked of the segments' locks, and remembered for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from jcache.segment.format import host_label, parse_segment_name
from jcache.system import locks
from jcache.system.processes import here, is_alive

if TYPE_CHECKING:
    from jcache.segment.segment import Segment
    from jcache.system.storage import Storage

__all__ = ["Presence", "writer_exists"]

_LIVE_S = 3.0  # so long the living are not asked again
_DEAD_S = 60.0  # and so long the dead
_YOUNG_S, _SETTLING_S = 60.0, 0.5  # between creating a segment and locking it, its writer seems dead


class _Answer(NamedTuple):
    live: bool
    exists: bool | None
    until_s: float


class Presence:
    """What is known of the writers of other processes' segments.

    It decides only whether it is worth coordinating with them. A mistake (locks that lie) costs a second fetch of the
    same bytes, or a lease that nobody needed. Any thread may ask.
    """

    __slots__ = ("_known", "_storage")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, _Answer] = {}

    def may_live(self, segment: Segment) -> bool:
        """Tell whether the writer of another process's unsealed segment may still write.

        Costs one `flock` if the writer lives, and two if not; nothing while the last answer holds, which is 3 s for
        the living and 60 s for the dead. A process of this machine that has come to an end is noticed at once.

        Args:
            segment: An unsealed segment that another process created, or another journal of this process.
        """
        name, now_s = segment.name, time.monotonic()
        exists = writer_exists(name)
        known = self._known.get(name)
        if known is not None and known.exists is exists and now_s < known.until_s:
            return known.live
        holder = locks.is_held(segment.source.fd, storage=self._storage)
        keep_s = _LIVE_S
        if holder is locks.Holder.UNKNOWN:
            live = exists is not False
        elif holder is locks.Holder.HELD:
            # Whatever its number says: in a container it means another process.
            live = True
        else:
            live = known is None and exists is not False and time.time() - segment.mtime_ns / 1e9 < _YOUNG_S
            keep_s = _SETTLING_S if live else _DEAD_S
        self._known[name] = _Answer(live, exists, now_s + keep_s)
        return live


def writer_exists(name: str) -> bool | None:
    """Tell from a segment's name whether its process exists; None of another place's, of which nothing is known."""
    parsed = parse_segment_name(name)
    if parsed is None or parsed[0] != host_label(here()):
        return None
    return is_alive(parsed[1])
