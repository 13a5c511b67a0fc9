"""Which requests of a recorded run were made when, and which of them one after the other."""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from jcache.profile.reader import Profile
from jcache.vectors import Vector

__all__ = ["Call", "calls"]

# Profiles are in the order of the requests' ends. So many are looked at for the one that began first.
AHEAD = 4096

_Entry = tuple[int, int, int, int, int, int, Vector]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to be made.

    Attributes:
        start_us: When it was made, in microseconds since the run began.
        lane: Requests of one lane were made one after the other; those of several lanes side by side.
        process: Which process made it.
        file: The number of its address in the profile.
        ranges: What was asked for, half-open; none of a question.
    """

    start_us: int
    lane: int
    process: int
    kind: int
    file: int
    ranges: Vector


def calls(profile: Profile) -> Iterator[Call]:
    """Yield the requests of a run in the order in which they were made, nearly so where some took very long.

    Raises:
        ProfileError: The profile cannot be read.
    """
    lanes = _Lanes()
    waiting: list[_Entry] = []
    for number, (process, one) in enumerate(profile.requests()):
        start = one.end_us - one.duration_us
        ranges = Vector.of(zip(one.starts, one.stops, strict=True))
        entry = (start, number, one.end_us, process, one.thread, one.kind * _FILES + one.file, ranges)
        if len(waiting) < AHEAD:
            heapq.heappush(waiting, entry)
        else:
            yield lanes.call(heapq.heappushpop(waiting, entry))
    while waiting:
        yield lanes.call(heapq.heappop(waiting))


_FILES = 1 << 40


class _Lanes:
    """Deals the requests of each thread to as few lanes as there were requests of it at a time."""

    def __init__(self) -> None:
        self._of: defaultdict[tuple[int, int], list[list[int]]] = defaultdict(list)
        self._count = 0

    def call(self, entry: _Entry) -> Call:
        """Return a request with the lane that was free as it began."""
        start, _, end, process, thread, what, ranges = entry
        lanes = self._of[process, thread]
        lane = next((lane for lane in lanes if lane[1] <= start), None)
        if lane is None:
            lane = [self._count, 0]
            self._count += 1
            lanes.append(lane)
        lane[1] = max(end, lane[1])
        return Call(start, lane[0], process, what // _FILES, what % _FILES, ranges)
