"""Where the bytes of a vector come from."""

from collections.abc import Sequence

from jcache.planning.flight import Flight
from jcache.planning.held import Held
from jcache.segment.table import Run

__all__ = ["Part", "Plan"]

# start, stop, where the bytes are, and what that place wants to know: a run of the journal its first and last row,
# a flight the index of the range.
Part = tuple[int, int, Run | Held | Flight, int, int]


class Plan:
    """Where the bytes of each range come from.

    Attributes:
        own: The flight that the planner must now carry out; None where nothing is missing.
        others: Flights of other tasks that hold some of the bytes.
        has_hits: Whether any part lies in the journal.
        has_ahead: Whether any part was read ahead.
        is_plain: Whether each range is one gap, and so one range of `own`, in the same order.
    """

    __slots__ = ("_rows", "has_ahead", "has_hits", "is_plain", "others", "own")

    def __init__(self, own: Flight | None = None) -> None:
        """Begin a plan.

        Args:
            own: A flight that fetches each range as it is, so that nothing is left to plan.
        """
        self._rows: list[list[Part]] = []
        self.own = own
        self.others: set[Flight] = set()
        self.has_hits = False
        self.has_ahead = False
        self.is_plain = own is not None

    @property
    def result(self) -> Sequence[bytes | Exception] | None:
        """What each range's bytes are, where the flight has brought them just as they were asked for."""
        own = self.own
        return own.data if own is not None and self.is_plain and own.landed and not own.is_extended else None

    @property
    def parts(self) -> list[list[Part]]:
        """For each range its parts, in order."""
        if self.is_plain and not self._rows and self.own is not None:
            # Only made where somebody asks: what a plain flight brought is the result as it is.
            pairs = zip(self.own.ranges.starts, self.own.wanted, strict=True)
            self._rows = [[(start, stop, self.own, i, 0)] for i, (start, stop) in enumerate(pairs)]
        return self._rows
