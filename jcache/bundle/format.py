"""The bytes of a bundle, as `docs/bundle.md` describes them: packing and parsing, no I/O, no state.

Parsers return None for bytes that are not what they were asked to be; they never raise on damage, and never allocate by
a length that is not bounded by what there is.
"""

from __future__ import annotations

import itertools
import json
import sys
from array import array
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_64_intdigest

from jcache.segment.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "END",
    "EXTENT_BYTES",
    "START",
    "SUFFIX",
    "Entry",
    "Tail",
    "pack_about",
    "pack_end",
    "pack_entry",
    "pack_start",
    "parse_end",
    "parse_index",
    "parse_start",
]

FORMAT_VERSION = 1
SUFFIX = ".jcb"
"""Of the files' names."""

START = Struct("<8sHHI")  # magic, format version, reserved, reserved
END = Struct("<8sQQQ32sQ8s")  # magic, index, bytes of entries, bytes of JSON, SHA-256, checksum, magic
_HEAD = Struct("<IIQ")  # bytes of the head, extents, position of the first
assert (START.size, END.size, _HEAD.size) == (16, 80, 16)

MAGIC, END_MAGIC = b"\x89JCBUN\r\n", b"JCBUNEND"

EXTENT_BYTES = 1 << 16
"""No extent is longer: whoever reads a byte reads and verifies all of it."""

_MOST_EXTENTS = 1 << 28
_ROW_BYTES = 8 + 4 + 8


class Entry(NamedTuple):
    """What a bundle has of one file, whose journal has its place in a cache; its extents lie one behind the other."""

    identity: str
    place: str
    version: Version
    info: Mapping[str, Any]
    position: int
    starts: array[int]
    lengths: array[int]
    checksums: array[int]

    @property
    def positions(self) -> array[int]:
        """Where the extents lie in the bundle."""
        return array("Q", itertools.accumulate(self.lengths[:-1], initial=self.position) if self.lengths else ())


class Tail(NamedTuple):
    """What the end of a bundle says: where the index lies, and the SHA-256 of all before the end."""

    position: int
    entries_bytes: int
    about_bytes: int
    sha256: bytes


def pack_start() -> bytes:
    """Return what a bundle begins with."""
    return START.pack(MAGIC, FORMAT_VERSION, 0, 0)


def parse_start(data: bytes) -> int | None:
    """Return the format version of a bundle; None where it is none."""
    if len(data) != START.size:
        return None
    magic, version, _, _ = START.unpack(data)
    return version if magic == MAGIC else None


def pack_entry(entry: Entry) -> bytes:
    """Return the index's entry for a file."""
    said = {"identity": entry.identity, "place": entry.place, "version": entry.version.to_json()}
    head = json.dumps({**said, "info": dict(entry.info)}, separators=(",", ":"), sort_keys=True).encode()
    columns = (entry.starts, entry.lengths, entry.checksums)
    return _HEAD.pack(len(head), len(entry.starts), entry.position) + head + b"".join(map(_bytes, columns))


def pack_about(about: Mapping[str, Any]) -> bytes:
    """Return the JSON behind the entries."""
    return json.dumps(about, separators=(",", ":"), sort_keys=True).encode()


def pack_end(tail: Tail, index: bytes) -> bytes:
    """Return the end of a bundle with an index."""
    packed = END.pack(END_MAGIC, *tail, 0, END_MAGIC)[:64]
    return packed + xxh3_64_intdigest(index + packed).to_bytes(8, "little") + END_MAGIC


def parse_end(data: bytes, size_bytes: int) -> Tail | None:
    """Return what the end of a bundle of a size says; None where it is none."""
    if len(data) != END.size:
        return None
    magic, index, entries_bytes, about_bytes, sha256, _, again = END.unpack(data)
    fits = START.size <= index and index + entries_bytes + about_bytes + END.size == size_bytes
    return Tail(index, entries_bytes, about_bytes, sha256) if magic == again == END_MAGIC and fits else None


def parse_index(index: bytes, tail: Tail, end: bytes) -> tuple[list[Entry], dict[str, Any]] | None:
    """Return the entries and the JSON behind them; None where any bit of them, or of the end, is not as it was.

    Args:
        index: The bytes between the extents and the end.
        tail: What the end says.
        end: The end itself.
    """
    if xxh3_64_intdigest(index + end[:64]) != int.from_bytes(end[64:72], "little"):
        return None
    entries, at = [], 0
    while at < tail.entries_bytes:
        found = _parse_entry(index, at, tail)
        if found is None:
            return None
        entry, at = found
        entries.append(entry)
    try:
        about = json.loads(index[tail.entries_bytes :])
    except (ValueError, RecursionError):
        return None
    return (entries, about) if isinstance(about, dict) and at == tail.entries_bytes else None


def keys_of(about: Mapping[str, Any]) -> list[bytes]:
    """Return the keys under which objects that are one asker's own are named in a bundle."""
    said = about.get("keys")
    texts = [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
    return [bytes.fromhex(text) for text in texts if set(text) <= set("0123456789abcdef") and len(text) % 2 == 0]


def _parse_entry(index: bytes, at: int, tail: Tail) -> tuple[Entry, int] | None:
    if at + _HEAD.size > tail.entries_bytes:
        return None
    head_bytes, count, position = _HEAD.unpack_from(index, at)
    at += _HEAD.size
    stop = at + head_bytes + _ROW_BYTES * count
    if count > _MOST_EXTENTS or stop > tail.entries_bytes:
        return None
    try:
        head = json.loads(index[at : at + head_bytes])
        identity, place = head["identity"], head["place"]
        version, info = Version.from_json(head["version"]), head["info"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    at += head_bytes
    columns = [
        _column(index, at, "Q", count), _column(index, at + 8 * count, "I", count),
        _column(index, at + 12 * count, "Q", count),
    ]  # fmt: skip
    entry = Entry(identity, place, version, info, position, *columns)
    # Of no length that is believed before this: extents lie in the bundle, are not too long, and in order.
    sizes = entry.lengths
    if not isinstance(identity, str) or not isinstance(info, dict) or not isinstance(place, str):
        return None
    if position < START.size or position + sum(sizes) > tail.position or max(sizes, default=1) > EXTENT_BYTES:
        return None
    stops = list(map(sum, zip(entry.starts, sizes, strict=True)))
    ordered = all(stop <= start for stop, start in zip(stops, entry.starts[1:], strict=False))
    if min(sizes, default=1) < 1 or not ordered or (stops and stops[-1] > version.size_bytes):
        return None
    return entry, stop


def _bytes(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _column(data: bytes, at: int, code: str, count: int) -> array[int]:
    column = array(code)
    column.frombytes(data[at : at + column.itemsize * count])
    if sys.byteorder == "big":
        column.byteswap()
    return column
