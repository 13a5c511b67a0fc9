"""Ranges of a file as `Range` asks for them, and a body of many of them (RFC 9110, 14).

Offsets are in bytes, ranges half-open.
"""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jcache.ranges import Range

__all__ = ["Cutter", "Part", "Unsatisfiable", "multipart", "parse"]

# More ranges than these are not answered, nor those of which more than two have a byte in common (RFC 9110, 14.2).
MAX_RANGES = 1024
MAX_OVERLAP = 2

# What stands around it is cut off before: two runs of blanks side by side would be tried in all the ways to share them.
_SPEC = re.compile(r"([0-9]{1,19})[ \t]*-[ \t]*([0-9]{1,19})?|-[ \t]*([0-9]{1,19})")


class Unsatisfiable(Exception):  # noqa: N818 - what HTTP calls it
    """None of the ranges has a byte in the file, or they are more than are answered."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a body, and what stands before it there."""

    prefix: bytes
    start: int
    stop: int


def parse(said: str | None, size_bytes: int) -> list[Range] | None:
    """Return the ranges that a `Range` field asks for, in its order, cut at the end of the file.

    Returns:
        None where the file is to be sent: there is no such field, it has another unit, or it cannot be understood.

    Raises:
        Unsatisfiable: See there.
    """
    if said is None:
        return None
    unit, equals, specs = said.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    texts = [text for spec in specs.split(",") if (text := spec.strip(" \t"))]
    if len(texts) > MAX_RANGES:
        raise Unsatisfiable
    found = []
    for text in texts:
        match = _SPEC.fullmatch(text)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            start, stop = max(0, size_bytes - int(suffix)), size_bytes
        else:
            start, stop = int(first), size_bytes if last is None else min(int(last) + 1, size_bytes)
            if last is not None and int(last) < start:
                return None
        if start < stop:
            found.append((start, stop))
    if not texts:
        return None
    if not found or overlap(found) > MAX_OVERLAP:
        raise Unsatisfiable
    return found


def begin(said: str | None, most_bytes: int) -> Range | None:
    """Return with which bytes an answer begins, as far as a `Range` field says that of a file of any size."""
    if said is None:
        return 0, most_bytes
    match = re.fullmatch(r"(?i:bytes)=([0-9]{1,15})-([0-9]{1,15})?", said.strip())
    if match is None:
        return None
    start = int(match[1])
    stop = start + most_bytes if match[2] is None else min(int(match[2]) + 1, start + most_bytes)
    return (start, stop) if start < stop else None


def overlap(ranges: Sequence[Range]) -> int:
    """Return how many ranges have a byte in common, at most."""
    edges = sorted([(start, 1) for start, _ in ranges] + [(stop, -1) for _, stop in ranges])
    depth = most = 0
    for _, step in edges:
        depth += step
        most = max(most, depth)
    return most


def multipart(ranges: Sequence[Range], size_bytes: int, content_type: str) -> tuple[str, list[Part], int]:
    """Return a body of many ranges (RFC 9110, 14.6): its content type, its parts, and its length in bytes.

    The last part is what ends it, and has no byte of the file.
    """
    boundary = secrets.token_hex(16)
    parts = []
    for i, (start, stop) in enumerate(ranges):
        head = (
            f"{'' if i == 0 else chr(13) + chr(10)}--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: bytes {start}-{stop - 1}/{size_bytes}\r\n\r\n"
        )
        parts.append(Part(head.encode("ascii"), start, stop))
    parts.append(Part(f"\r\n--{boundary}--\r\n".encode("ascii"), 0, 0))
    length = sum(len(part.prefix) + part.stop - part.start for part in parts)
    return f"multipart/byteranges; boundary={boundary}", parts, length


class Cutter:
    """Cuts a body into pieces, each of parts that are read by one vector."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._rest: Part | None = None

    def next(self, room: int) -> list[Part]:
        """Return the next piece, of so many bytes of the file at most; nothing at the end."""
        piece: list[Part] = []
        while room > 0 or not piece:
            part, self._rest = self._rest or next(self._parts, None), None
            if part is None:
                break
            stop = min(part.stop, part.start + room)
            piece.append(Part(part.prefix, part.start, stop))
            room -= stop - part.start
            if stop < part.stop:
                self._rest = Part(b"", stop, part.stop)
        return piece
