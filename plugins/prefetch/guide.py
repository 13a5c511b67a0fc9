"""What an earlier run read after what: the order in which bytes are fetched ahead."""

from bisect import bisect_right
from collections.abc import Iterator

from jcache.counters import READ, VECTOR
from jcache.profile.reader import Profile
from jcache.ranges import Range, normalise, subtract

__all__ = ["Guide"]

Step = list[Range]
"""What one request read of a file that nothing had read before; a run."""


class Guide:
    """The requests of a recorded run, file by file: what each read anew, in their order.

    Attributes:
        files: Addresses, in the order in which the run came to them.
    """

    def __init__(self, profile: Profile) -> None:
        """Read a profile.

        Raises:
            ProfileError: It cannot be read.
        """
        self.files: list[str] = []
        self._steps: dict[str, list[Step]] = {}
        self._numbers: dict[str, int] = {}
        # Where each step of a file begins that reads a place for the first time: to find it again by what was read.
        self._places: dict[str, tuple[list[int], list[int]]] = {}
        seen: dict[str, list[Range]] = {}
        for _, one in profile.requests():
            if one.kind not in (READ, VECTOR) or not one.starts:
                continue
            url = profile.files[one.file]
            if url not in self._steps:
                self._numbers[url] = len(self.files)
                self.files.append(url)
                self._steps[url], seen[url] = [], []
            step = subtract(normalise(zip(one.starts, one.stops, strict=True)), seen[url])
            if step:
                self._steps[url].append(step)
                seen[url] = normalise([*seen[url], *step])
        for url, steps in self._steps.items():
            rows = sorted((start, number) for number, step in enumerate(steps) for start, _ in step)
            self._places[url] = [start for start, _ in rows], [number for _, number in rows]

    def knows(self, url: str) -> bool:
        """Whether the run read a file."""
        return url in self._steps

    def behind(self, url: str, read: Step) -> Iterator[tuple[str, Range]]:
        """Yield what the run read after a request: of this file, and then of those that it came to next.

        Args:
            url: The file.
            read: What was read of it just now, a run; nothing where it was only opened.
        """
        steps, number = self._steps[url], 0
        if read:
            starts, numbers = self._places[url]
            row = bisect_right(starts, read[0][0]) - 1
            number = numbers[row] + 1 if row >= 0 else 0
        for step in steps[number:]:
            for part in step:
                yield url, part
        for other in self.files[self._numbers[url] + 1 :]:
            for step in self._steps[other]:
                for part in step:
                    yield other, part
