"""The bytes of a profile, as `docs/profile.md` describes them: packing and parsing, no I/O, no state.

Parsers return None for bytes that are not what they were asked to be, whatever the bytes; they never raise on damage,
and never allocate by a length that is not bounded.
"""

from __future__ import annotations

import itertools
import json
import sys
import zlib
from array import array
from dataclasses import dataclass, field
from operator import add, sub
from struct import Struct
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_intdigest

from jcache.counters import LISTING, NAMED, OPEN, READ, STAT, VECTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "BLOCK",
    "END",
    "FILES",
    "HEAD",
    "KINDS",
    "REQUESTS",
    "START",
    "SUFFIX",
    "TOLD",
    "Batch",
    "BlockHead",
    "Request",
    "pack_batch",
    "pack_block",
    "pack_json",
    "pack_start",
    "parse_batch",
    "parse_block_head",
    "parse_json",
    "parse_payload",
    "parse_start",
]

FORMAT_VERSION = 1
SUFFIX = ".jcp"
"""Of the files' names."""

START = Struct("<8sHHI")  # magic, format version, reserved, reserved
BLOCK = Struct("<4sBBHIIIIQ")  # magic, kind, packing, reserved, stored bytes, bytes, requests, ranges, checksum
_BASE = Struct("<Q")
assert (START.size, BLOCK.size, _BASE.size) == (16, 32, 8)

MAGIC, BLOCK_MAGIC = b"\x89JCPRF\r\n", b"JCPB"
HEAD, FILES, TOLD, REQUESTS, END = b"HFVRZ"
"""Kinds of blocks: who recorded; addresses of files; what else is told of files; requests; that the process came to its
end."""

KINDS = ("open", "read", "vector", "stat", "listing", "named")
"""Names of the kinds of requests, by number."""
assert tuple(KINDS[kind] for kind in (OPEN, READ, VECTOR, STAT, LISTING, NAMED)) == KINDS

MOST_BYTES = 256 << 20
"""No block holds more, packed or not."""

MOST_RANGES = 1 << 24
"""Nor has one more requests, or more ranges: zeros take no bytes."""

_PLAIN_BYTES = 256  # what is shorter is not worth packing
_LEVEL = 1
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the application. Times are in microseconds since the recording began; ranges are half-open.

    `hit + miss + bypass` are the bytes that were delivered; `ahead` of the missed ones had been read ahead.
    """

    kind: int
    end_us: int
    duration_us: int
    thread: int
    file: int
    starts: Sequence[int]
    stops: Sequence[int]
    hit: int
    miss: int
    bypass: int
    ahead: int


@dataclass(slots=True)
class Batch:
    """Requests by column, in the order in which they ended; the ranges of all of them one behind the other."""

    kinds: list[int] = field(default_factory=list)
    ends_us: list[int] = field(default_factory=list)
    durations_us: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    misses: list[int] = field(default_factory=list)
    bypasses: list[int] = field(default_factory=list)
    aheads: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Batch:
        """Return requests by column."""
        batch = cls()
        for one in requests:
            batch.append(one)
        return batch

    def append(self, one: Request) -> None:
        """Add a request."""
        self.kinds.append(one.kind)
        self.ends_us.append(one.end_us)
        self.durations_us.append(one.duration_us)
        self.threads.append(one.thread)
        self.files.append(one.file)
        self.counts.append(len(one.starts))
        self.starts.extend(one.starts)
        self.stops.extend(one.stops)
        self.hits.append(one.hit)
        self.misses.append(one.miss)
        self.bypasses.append(one.bypass)
        self.aheads.append(one.ahead)

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Request]:
        at = 0
        heads = zip(self.kinds, self.ends_us, self.durations_us, self.threads, self.files, strict=True)
        served = zip(self.hits, self.misses, self.bypasses, self.aheads, strict=True)
        for head, count, bytes_ in zip(heads, self.counts, served, strict=True):
            yield Request(*head, self.starts[at : at + count], self.stops[at : at + count], *bytes_)
            at += count


@dataclass(frozen=True, slots=True)
class BlockHead:
    """What a block says of itself."""

    kind: int
    packed: bool
    stored_bytes: int
    size_bytes: int
    requests: int
    ranges: int
    checked: bytes
    checksum: int


def pack_start() -> bytes:
    """Return what a profile begins with."""
    return START.pack(MAGIC, FORMAT_VERSION, 0, 0)


def parse_start(data: bytes) -> int | None:
    """Return the format version of a profile; None where it is none."""
    if len(data) != START.size:
        return None
    magic, version, _, _ = START.unpack(data)
    return version if magic == MAGIC else None


def pack_block(kind: int, payload: bytes, *, requests: int = 0, ranges: int = 0) -> bytes:
    """Return a block.

    Raises:
        ValueError: It is larger than blocks may be.
    """
    if len(payload) > MOST_BYTES or max(requests, ranges) > MOST_RANGES:
        raise ValueError(f"a block of {len(payload)} bytes, {requests} requests and {ranges} ranges")
    packed = zlib.compress(payload, _LEVEL) if len(payload) >= _PLAIN_BYTES else payload
    is_packed = len(packed) < len(payload)
    stored = packed if is_packed else payload
    sizes = len(stored), len(payload), requests, ranges
    checked = BLOCK.pack(BLOCK_MAGIC, kind, is_packed, 0, *sizes, 0)[:-8]
    return BLOCK.pack(BLOCK_MAGIC, kind, is_packed, 0, *sizes, xxh3_64_intdigest(checked + stored)) + stored


def parse_block_head(data: bytes) -> BlockHead | None:
    """Return a block's head, of which the checksum is yet to be verified; None where it is none."""
    if len(data) != BLOCK.size:
        return None
    magic, kind, packing, _, stored, size, requests, ranges, checksum = BLOCK.unpack(data)
    if magic != BLOCK_MAGIC or packing > 1 or stored > size or size > MOST_BYTES or (not packing and stored != size):
        return None
    if requests > MOST_RANGES or ranges > MOST_RANGES:
        return None
    return BlockHead(kind, bool(packing), stored, size, requests, ranges, data[:-8], checksum)


def parse_payload(head: BlockHead, stored: bytes) -> bytes | None:
    """Return what a block holds; None where it is damaged."""
    if len(stored) != head.stored_bytes or xxh3_64_intdigest(head.checked + stored) != head.checksum:
        return None
    if not head.packed:
        return stored
    unpacking = zlib.decompressobj()
    try:
        payload = unpacking.decompress(stored, head.size_bytes)
    except zlib.error:
        return None
    # Whoever writes a right checksum may still write anything.
    return payload if len(payload) == head.size_bytes and not unpacking.unconsumed_tail else None


def pack_json(kind: int, value: Any) -> bytes:
    """Return a block of JSON: a head, addresses, or an end."""
    return pack_block(kind, json.dumps(value, separators=(",", ":")).encode())


def parse_json(payload: bytes) -> Any:
    """Return the value in a block of JSON; None where it is none."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


# -- requests ---------------------------------------------------------------------------------------------------


def pack_batch(batch: Batch) -> bytes:
    """Return a block of requests, one or more.

    Raises:
        ValueError: It is larger than blocks may be.
        OverflowError: A number has more than 63 bits.
    """
    starts, stops, counts = batch.starts, batch.stops, batch.counts
    lengths = list(map(sub, stops, starts))
    shorts = _asked(counts, lengths)
    for served in (batch.hits, batch.misses, batch.bypasses):
        shorts = _less(shorts, served)
    base_us = batch.ends_us[0]
    columns = (
        batch.kinds,
        list(map(sub, batch.ends_us, [base_us, *batch.ends_us])),
        batch.durations_us,
        batch.threads,
        batch.files,
        counts,
        list(map(sub, starts, [0, *stops])),
        lengths,
        batch.misses,
        batch.bypasses,
        batch.aheads,
        shorts,
    )
    payload = b"".join([_BASE.pack(base_us), *map(_packed, columns)])
    return pack_block(REQUESTS, payload, requests=len(counts), ranges=len(starts))


def parse_batch(head: BlockHead, payload: bytes) -> Batch | None:
    """Return the requests of a block; None where it is damaged."""
    columns = _Columns(payload)
    count = head.requests
    kinds, ends, durations, threads, files, counts = (columns.take(count) for _ in range(6))
    if min(counts, default=0) < 0 or sum(counts) != head.ranges:
        return None
    gaps, lengths = columns.take(head.ranges), columns.take(head.ranges)
    misses, bypasses, aheads, shorts = (columns.take(count) for _ in range(4))
    if not columns.is_whole:
        return None
    # A range begins so far behind the end of the one before.
    bounds = list(itertools.accumulate(itertools.chain.from_iterable(zip(gaps, lengths, strict=True))))
    ends_us = list(itertools.accumulate(ends, initial=columns.base_us))[1:]
    hits = list(map(sub, _asked(counts, lengths), map(add, shorts, map(add, misses, bypasses))))
    places = threads, files, counts, bounds[::2], bounds[1::2]
    batch = Batch(kinds, ends_us, durations, *places, hits, misses, bypasses, aheads)
    return batch if _is_sane(batch) else None


def _less(numbers: Sequence[int], others: Sequence[int]) -> Sequence[int]:
    """Return differences."""
    if others.count(0) == len(others):
        return numbers
    return [0] * len(numbers) if numbers == others else list(map(sub, numbers, others))


def _asked(counts: Sequence[int], lengths: Sequence[int]) -> Sequence[int]:
    """Return how many bytes each request has asked for."""
    if counts.count(1) == len(counts):
        return lengths
    stops = itertools.accumulate(counts)
    return [sum(lengths[stop - count : stop]) for stop, count in zip(stops, counts, strict=True)]


def _is_sane(batch: Batch) -> bool:
    """Whether no number is out of its range: whoever can write the file can write any."""
    not_negative = (batch.kinds, batch.ends_us, batch.durations_us, batch.threads, batch.files, batch.starts)
    served = (batch.hits, batch.misses, batch.bypasses, batch.aheads)
    return (
        all(min(column, default=0) >= 0 for column in (*not_negative, *served))
        and all(map(int.__le__, batch.starts, batch.stops))
        and max(batch.kinds, default=0) < len(KINDS)
    )


def _packed(values: Sequence[int]) -> bytes:
    """Return a column: its width, and its numbers byte by byte, first the lowest byte of all of them.

    That is done by loops in C: varints would take 0.3 us each in Python, and as much again on the way back.
    """
    if not values:
        return b"\0"
    if values[0] == values[-1] and values.count(values[0]) == len(values):
        if not values[0]:
            return b"\0"
        numbers = _narrowest(values[:1])
        return bytes([numbers.itemsize]) + b"".join([bytes([one]) * len(values) for one in numbers.tobytes()])
    numbers = _narrowest(values)
    raw, width = numbers.tobytes(), numbers.itemsize
    return bytes([width]) + b"".join([raw[i::width] for i in range(width)])


def _narrowest(values: Sequence[int]) -> array[int]:
    """Return little-endian numbers of as few bytes as all of them fit in.

    Raises:
        OverflowError: They fit in none.
    """
    for code in "bhi":
        try:
            numbers = array(code, values)
            break
        except OverflowError:
            continue
    else:
        numbers = array("q", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class _Columns:
    """The columns of a payload, one after the other; empty ones once there is anything wrong with it."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = _BASE.size
        self._is_good = len(payload) >= _BASE.size
        self.base_us = _BASE.unpack_from(payload)[0] if self._is_good else 0

    @property
    def is_whole(self) -> bool:
        """Whether all were there, and nothing is left."""
        return self._is_good and self._at == len(self._payload)

    def take(self, count: int) -> list[int]:
        """Return the next column, which has so many numbers."""
        if not self._is_good:
            return []
        width = self._payload[self._at] if self._at < len(self._payload) else -1
        self._at += 1
        if not width:
            return [0] * count
        raw = self._payload[self._at : self._at + width * count]
        if width not in _CODES or len(raw) != width * count:
            self._is_good = False
            return []
        self._at += len(raw)
        planes = bytearray(len(raw))
        for i in range(width):
            planes[i::width] = raw[i * count : (i + 1) * count]
        numbers = array(_CODES[width])
        numbers.frombytes(planes)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tolist()
