"""In which order journals go: by what is known of their use, and of their size.

A job that reads each of very many files once would push out what others read every day, if what was not used for
longest always went first. So journals that were *read again* go last: those of which at least half was served from the
cache, all reads together. What they were served from what they were recorded for tells the two apart, by bytes, not by
reads or times: whoever opens a file again and again reads its header and its metadata again and again.

They go last for two weeks from their last use. Where they are more than half of the cache, those of them that were not
used for longest take their chance with the others, so that what is new has a place, too. What is being read again all
the time is noted once a minute only; so among them, each reading up to the tenth counts as a use a minute later.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcache.cache.usage import Entry

__all__ = ["AGAIN_S", "eviction_order", "times_read_again"]

AGAIN_S = 60.0
"""How often a journal that is used all the time is noted again."""

KEPT_FOR_S = 14 * 86400.0
"""How long a journal that was read again goes last, from its last use on."""

KEPT_SHARE = 0.5
"""How much of a cache may be filled with such journals, where others want the room."""

_MOST_TIMES = 10


def times_read_again(entry: Entry) -> int:
    """Return how many times as much as a journal holds was served from it; half of it counts as once.

    Where nobody has looked yet how much that is, it is 0.
    """
    return (2 * entry.hit_bytes // entry.size_bytes + 1) // 2 if entry.size_bytes else 0


def eviction_order(
    entries: Mapping[str, Entry], room_bytes: int, *, now_s: float | None = None
) -> tuple[list[str], list[str]]:
    """Return the journals that may be there, in the order in which they are to go, and which of them to go last.

    Args:
        entries: What is known of them, by path.
        room_bytes: What the cache is to hold.
        now_s: The Unix time, where it is not the present one.
    """
    since_s = (time.time() if now_s is None else now_s) - KEPT_FOR_S
    order: list[tuple[float, str]] = []
    again: list[tuple[float, str]] = []
    for path, entry in entries.items():
        if entry.is_gone:
            continue
        order.append((entry.used_s, path))
        times = times_read_again(entry)
        if times and entry.used_s >= since_s:
            again.append((entry.used_s + AGAIN_S * min(times, _MOST_TIMES), path))
    order.sort()
    left_bytes = KEPT_SHARE * room_bytes
    kept: list[str] = []
    for _, path in sorted(again, reverse=True):
        left_bytes -= entries[path].size_bytes
        if left_bytes < 0:
            break
        kept.append(path)
    last = set(kept)
    return [path for _, path in order if path not in last], kept[::-1]
