"""What the tiers below the first one served of a file, and what of that is worth a copy in the first."""

import threading
from collections.abc import Iterable

from jcache.journal import View
from jcache.origin import Info
from jcache.planning.plan import Part
from jcache.ranges import Range, normalise, subtract
from jcache.reader.host import Host
from jcache.reader.store import Store
from jcache.segment.table import Run

__all__ = ["Tiers"]

# Of one file, so many pieces that were read once are remembered.
MOST_PIECES = 1 << 16


class Tiers:
    """Counts, and has copied, what one file's journal found below. Any thread may use it."""

    def __init__(self, host: Host, store: Store) -> None:
        """Begin with nothing read."""
        self._host = host
        self._store = store
        self._lock = threading.Lock()
        # What was read so often, and once more, and so on; the last is what is copied, or on its way.
        self._read: list[list[Range]] = [[] for _ in range(max(host.copy_up, 1))]

    def served(self, info: Info, view: View | None, parts: Iterable[Part]) -> None:
        """Take note of parts that were read.

        Args:
            info: Of the version that they are of.
            view: Of that version.
            parts: What was read; those that do not lie below are passed over.
        """
        below = [part for part in parts if type(part[2]) is Run and part[2].source.tier]
        if not below:
            return
        places, counters = self._store.below, self._host.counters
        if not places:
            return  # another journal is used by now
        for part in below:
            counters.tier(places[part[2].source.tier - 1], part[1] - part[0])  # type: ignore[union-attr]  # a run
        wanted = self._again(normalise((part[0], part[1]) for part in below))
        if not wanted or view is None:
            return
        chosen = [part for part in below if not subtract([(part[0], part[1])], wanted)]
        place = places[chosen[0][2].source.tier - 1] if chosen else ""  # type: ignore[union-attr]
        if chosen:
            self._store.copy_up(info, view, chosen, lambda copied: counters.tier(place, 0, copied))

    def _again(self, read: list[Range]) -> list[Range]:
        """Return what has been read often enough by now to be copied, and is not on its way yet."""
        if not self._host.copy_up:
            return []
        left = new = read
        with self._lock:
            for known in self._read:
                new = subtract(left, known)
                if new and len(known) < MOST_PIECES:
                    known[:] = normalise([*known, *new])
                left = subtract(left, new)
        return new
