"""A range's bytes out of its parts, and where they came from."""

from collections.abc import Iterable, Sequence

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import JournalError, View
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.held import Held
from jcache.planning.plan import Part
from jcache.ranges import Range, normalise, subtract
from jcache.ranges import total as size_of
from jcache.segment.table import Run

__all__ = ["GapError", "assemble", "missed", "part_bytes", "row_bytes"]


class GapError(ShortReadError):
    """What the origin sent for the parts of a range does not join; nobody knows where the file ends."""


def row_bytes(row: Sequence[Part], view: View | None) -> bytes:
    """Return the bytes of one range whose parts all lie in journal or memory."""
    if len(row) == 1:
        return part_bytes(row[0], view)
    return b"".join([part_bytes(part, view) for part in row])


def part_bytes(part: Part, view: View | None) -> bytes:
    """Return the bytes of a part that lies in journal or memory."""
    place = part[2]
    if isinstance(place, Held):
        return place.bytes_of(part[0], part[1])
    if view is None:
        msg = "the journal is not used any more"
        raise JournalError(msg)
    return view.read(part)  # type: ignore[arg-type]  # its place is a run


def assemble(row: Sequence[Part], served: dict[Part, bytes]) -> bytes | Exception | None:
    """Return a range's bytes from its parts; its exception; or None where it must be planned again."""
    if len(row) == 1:
        start, stop, place, index, _ = row[0]
        if isinstance(place, Flight) and place.landed:
            whole = place.data[index]
            if isinstance(whole, Exception) or (start == place.ranges.starts[index] and stop - start >= len(whole)):
                return whole
    pieces: list[bytes] = []
    for part in row:
        start, stop, place, index, _ = part
        if isinstance(place, Held):
            pieces.append(place.bytes_of(start, stop))
        elif isinstance(place, Flight):
            error = place.error
            if isinstance(error, FlightAbortedError):
                return None
            if isinstance(error, OriginChangedError):
                raise error
            if isinstance(error, Exception):
                return error
            data = place.data[index]
            if isinstance(data, Exception):
                return data
            pieces.append(place.bytes_of(start, stop, index))
        else:
            hit = served.get(part)
            if hit is None:
                return None
            pieces.append(hit)
    if len(pieces) == 1:
        return pieces[0]
    ends = [len(piece) for piece in pieces]
    if any(
        size < stop - start and any(ends[i + 1 :])
        for i, (size, (start, stop, *_)) in enumerate(zip(ends, row, strict=True))
    ):
        return GapError("the origin sent too few bytes in the middle of a range")
    return b"".join(pieces)


def missed(row: Sequence[Part], size_bytes: int, before: Iterable[Range] = ()) -> int:
    """Return how many of a range's bytes this process fetched from the origin, ahead or not.

    Args:
        row: Where its bytes were in the end.
        size_bytes: How many there are.
        before: Parts of it that were fetched already when it had to be planned anew.
    """
    if not before and len(row) == 1 and isinstance(row[0][2], Flight):
        return size_bytes
    hits = [part[:2] for part in row if isinstance(part[2], Run) or (isinstance(part[2], Held) and not part[2].ahead)]
    fetched = normalise(before)
    hit = size_of(subtract(normalise(hits), fetched) if fetched else hits)
    # A range that was planned before the size was known may end behind the file.
    return size_bytes - hit
