"""The bytes of a segment, as `docs/format.md` describes them: packing and parsing, no I/O, no state.

Parsers return None for bytes that are not what they were asked to be, whatever the bytes; they never raise on damage,
and never believe a length before the checksum over it was verified.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from array import array
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_64_intdigest

from jcache.segment.proof import Moment
from jcache.segment.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ENTRY",
    "FRAME",
    "FRAME_MAGIC",
    "HEADER",
    "HEAD_PATTERN",
    "INDEX_MAGIC",
    "MAX_METADATA_BYTES",
    "MOST_BYTES",
    "MOST_EXTENTS",
    "MOST_SEARCHED_BYTES",
    "PIECE_BYTES",
    "TRAILER",
    "Columns",
    "FrameHead",
    "Metadata",
    "Trailer",
    "checksum",
    "host_label",
    "pack_frame",
    "pack_header",
    "pack_seal",
    "parse_frame_head",
    "parse_header",
    "parse_index",
    "parse_metadata",
    "parse_only",
    "parse_segment_name",
    "parse_table",
    "parse_trailer",
    "segment_name",
]

FORMAT_VERSION = 1
PIECE_BYTES = 256 * 1024
MAX_METADATA_BYTES = 32 * 1024

HEADER_MAGIC = b"\x89JCSEG\r\n"
TRAILER_MAGIC = b"\x89JCEND\r\n"
FRAME_MAGIC = b"JCFR"
INDEX_MAGIC = b"JCIX"

HEADER = Struct("<8sHHIQQ")  # magic, format version, reserved, metadata bytes, salt, checksum
FRAME = Struct("<4sIQQQ")  # magic, count, data bytes, table checksum, header checksum; the index's header too
ENTRY = Struct("<QIIQ")  # start, length, flags, checksum
TRAILER = Struct("<8sHHIQQQQ")  # magic, format version, reserved, metadata bytes, salt, index position, count, checksum
assert (HEADER.size, FRAME.size, ENTRY.size, TRAILER.size) == (32, 32, 24, 48)

_ONLY = Struct("<QQQI")  # an index of one extent: start, position, checksum, length

MOST_BYTES = 1 << 62
"""Sizes, offsets and times from here on are nobody's."""

MOST_EXTENTS = 1 << 24
"""What a segment has more of is read as if it had none: a file that is one hole could else fill the memory."""

MOST_SEARCHED_BYTES = 1 << 28
"""What is searched for sound frames behind damaged ones: a file of holes would else be searched for hours."""

COLUMN_BYTES = 28  # an extent's share of the index: start, position, checksum, length

HEAD_PATTERN = re.compile(b"%b|%b" % (FRAME_MAGIC, INDEX_MAGIC))
"""Where the header of a frame or index might begin."""

_NAME = re.compile(r"@(?P<host>[A-Za-z0-9_.-]*)\.(?P<pid>[0-9]{1,10})\.(?P<salt>[0-9a-f]{16})\.seg")
_MOST_PID = 2**31 - 1  # more is no process's number, and no call takes it
_SWAP = sys.byteorder == "big"

checksum = xxh3_64_intdigest
"""XXH3-64 of a buffer with a seed: the format's only checksum."""

Column = Any
"""A sequence of unsigned integers that `bisect` can search: `array` or `memoryview`, in the machine's byte order."""


class Columns(NamedTuple):
    """A table of extents by column, one row per extent."""

    starts: Column
    lengths: Column
    checksums: Column
    positions: Column


class Metadata(NamedTuple):
    """What a segment says of itself.

    Attributes:
        identity: Canonical name of the remote file.
        version: The state of the file that the bytes belong to.
        info: What the origin said of the file.
        host: Machine of the writer.
        pid: Process of the writer.
        created_ns: When the segment was created, nanoseconds since the epoch, by its writer's clock.
        generation: Above that of every version that the origin was found to have left behind.
        proved: When the version was known to be the origin's, where that is known.
    """

    identity: str
    version: Version
    info: Mapping[str, Any]
    host: str
    pid: int
    created_ns: int
    generation: int = 0
    proved: Moment | None = None

    @property
    def order(self) -> tuple[int, int]:
        """What tells which version is the newest: the generation. Clocks decide only where that does not."""
        return self.generation, self.created_ns

    def pack(self) -> bytes:
        """Return the JSON that header and trailer carry.

        Raises:
            ValueError: It is longer than `MAX_METADATA_BYTES`, or `info` is not JSON.
        """
        fields = {
            "identity": self.identity,
            "version": self.version.to_json(),
            "info": dict(self.info),
            "host": self.host,
            "pid": self.pid,
            "created_ns": self.created_ns,
        }
        if self.generation:
            fields["generation"] = self.generation
        if self.proved is not None:
            fields["proved"] = self.proved.to_json()
        try:
            # ASCII, because lone surrogates (names that are not UTF-8) have no UTF-8 form.
            packed = json.dumps(fields, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
        except (TypeError, RecursionError) as error:
            raise ValueError(f"the origin's info is not JSON: {error}") from error
        if len(packed) > MAX_METADATA_BYTES:
            raise ValueError(f"{len(packed)} bytes of metadata, more than {MAX_METADATA_BYTES}")
        return packed


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The verified header of a frame or of the index."""

    is_index: bool
    count: int
    data_bytes: int
    table_checksum: int


@dataclass(frozen=True, slots=True)
class Trailer:
    """The verified end of a sealed segment."""

    metadata: Metadata
    index_position: int
    count: int


def segment_name(host: str, pid: int, salt: int) -> str:
    """Return the file name of a segment."""
    return f"@{host_label(host)}.{pid}.{salt:016x}.seg"


def host_label(host: str) -> str:
    """Return a machine's name as segment names have it: cut to what every file system takes, and without dots."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", host)[:64]


def parse_segment_name(name: str) -> tuple[str, int, int] | None:
    """Return host, pid and salt of a segment's file name, or None for any other name."""
    match = _NAME.fullmatch(name)
    if match is None or int(match["pid"]) > _MOST_PID:
        return None
    return match["host"], int(match["pid"]), int(match["salt"], 16)


def parse_metadata(packed: bytes | memoryview) -> Metadata | None:
    """Return the metadata in a verified piece of JSON, or None if it lacks what this version needs."""
    try:
        fields = json.loads(str(packed, "ascii"))
        metadata = Metadata(
            identity=fields["identity"],
            version=Version.from_json(fields["version"]),
            info=fields["info"],
            host=fields["host"],
            pid=fields["pid"],
            created_ns=fields["created_ns"],
            generation=fields.get("generation", 0),
            proved=Moment.from_json(fields.get("proved")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts, numbers = (metadata.identity, metadata.host), (metadata.pid, metadata.created_ns, metadata.generation)
    if not all(type(text) is str for text in texts) or not isinstance(metadata.info, dict):
        return None
    return metadata if all(type(number) is int and 0 <= number < MOST_BYTES * 2 for number in numbers) else None


def pack_header(salt: int, metadata: bytes) -> bytes:
    """Return the start of a segment."""
    head = HEADER.pack(HEADER_MAGIC, FORMAT_VERSION, 0, len(metadata), salt, 0)[:-8]
    return head + checksum(head + metadata, salt).to_bytes(8, "little") + metadata


def parse_header(start: bytes, salt: int) -> tuple[Metadata, int] | str | None:
    """Read the start of a segment.

    Args:
        start: The file's first bytes; what lies beyond `HEADER.size + MAX_METADATA_BYTES` is not looked at.
        salt: The salt of the file's name.

    Returns:
        The metadata and the position of the first frame; None if the header is not all there yet; or what is wrong.
    """
    if len(start) < HEADER.size or not any(start[: len(HEADER_MAGIC)]):
        return None  # zeros are what a write on its way looks like to other clients of some file systems
    magic, version, _reserved, length, found, expected = HEADER.unpack_from(start)
    if magic != HEADER_MAGIC:
        return "no segment: its magic is another"
    if version != FORMAT_VERSION:
        return f"format version {version}, this program reads {FORMAT_VERSION}"
    end = HEADER.size + length
    if found != salt:
        return "salt differs from the file name's"
    if length > MAX_METADATA_BYTES:
        return "header damaged: metadata longer than allowed"
    if end > len(start):
        return None
    body = memoryview(start)[HEADER.size : end]
    if checksum(start[: HEADER.size - 8] + body, salt) != expected:
        return "header damaged: wrong checksum"
    metadata = parse_metadata(body)
    return (metadata, end) if metadata is not None else "metadata incomplete"


def pack_frame(salt: int, position: int, starts: Sequence[int], lengths: Sequence[int], sums: Sequence[int]) -> bytes:
    """Return header and table of a frame that is written at a position; the extents' bytes follow it."""
    # Column by column, with no step of Python per extent. A length and its flags, which are 0, are one word.
    words = array("Q", bytes(ENTRY.size * len(starts)))
    words[0::3] = array("Q", starts)
    words[1::3] = array("Q", lengths)
    words[2::3] = array("Q", sums)
    table: bytes = _swapped(words).tobytes()
    return _pack_frame_head(FRAME_MAGIC, salt ^ position, len(starts), sum(lengths), table) + table


def _pack_frame_head(magic: bytes, seed: int, count: int, data_bytes: int, table: bytes) -> bytes:
    head = FRAME.pack(magic, count, data_bytes, checksum(table, seed), 0)[:-8]
    return head + checksum(head, seed).to_bytes(8, "little")


def parse_frame_head(head: bytes | memoryview, seed: int) -> FrameHead | None:
    """Verify the header of a frame or of the index.

    Args:
        head: `FRAME.size` bytes.
        seed: Salt XOR position.

    Returns:
        The header, or None if these bytes are none.
    """
    magic, count, data_bytes, table_checksum, expected = FRAME.unpack(head)
    if magic not in (FRAME_MAGIC, INDEX_MAGIC) or checksum(head[:-8], seed) != expected:
        return None
    return FrameHead(magic == INDEX_MAGIC, count, data_bytes, table_checksum)


def parse_table(table: memoryview, head: FrameHead, seed: int, data_position: int) -> Columns | None:
    """Verify a frame's table and turn it into columns, in the frame's order, without a step of Python per extent.

    Args:
        table: `head.count * ENTRY.size` bytes.
        head: The frame's verified header.
        seed: Salt XOR position of the frame.
        data_position: Where the frame's data begins.

    Returns:
        The extents, or None if the table is damaged.
    """
    if checksum(table, seed) != head.table_checksum:
        return None
    words, halves = table.cast("Q"), table.cast("I")
    starts, lengths, checksums = array("Q"), array("I"), array("Q")
    starts.frombytes(words[0::3].tobytes())
    lengths.frombytes(halves[2::6].tobytes())
    checksums.frombytes(words[2::3].tobytes())
    flags = halves[3::6].tobytes()
    if _SWAP:
        for column in (starts, lengths, checksums):
            column.byteswap()
    positions = array("Q", itertools.accumulate(lengths, initial=data_position))
    if positions.pop() != data_position + head.data_bytes:
        return None
    if any(flags):
        known = [not any(flags[4 * i : 4 * i + 4]) for i in range(head.count)]
        starts, lengths, checksums, positions = (
            array(column.typecode, itertools.compress(column, known))
            for column in (starts, lengths, checksums, positions)
        )
    return Columns(starts, lengths, checksums, positions)


def pack_seal(salt: int, position: int, columns: Columns, metadata: bytes) -> bytes:
    """Return what sealing appends at a position: index, metadata and trailer.

    Args:
        salt: The segment's.
        position: Where the index goes: the end of the last frame.
        columns: All extents, starts and stops ascending; `array` columns.
        metadata: As in the header.
    """
    order = (columns.starts, columns.positions, columns.checksums, columns.lengths)
    index = b"".join(_swapped(column).tobytes() for column in order)
    count = len(columns.starts)
    rest = len(index) + len(metadata) + TRAILER.size
    trailer = TRAILER.pack(TRAILER_MAGIC, FORMAT_VERSION, 0, len(metadata), salt, position, count, 0)[:-8]
    end = checksum(metadata + trailer, salt).to_bytes(8, "little")
    head = _pack_frame_head(INDEX_MAGIC, salt ^ position, count, rest, index)
    return b"".join((head, index, metadata, trailer, end))


def parse_trailer(tail: bytes, size_bytes: int, salt: int) -> Trailer | None:
    """Find the end of a sealed segment in the last bytes of a file.

    Args:
        tail: The file's last bytes: all of it, or enough for trailer and longest metadata.
        size_bytes: The file's size.
        salt: The salt of the file's name.

    Returns:
        The trailer, or None if the segment is not sealed, or no longer soundly.
    """
    if len(tail) < TRAILER.size:
        return None
    magic, version, _reserved, length, found, position, count, expected = TRAILER.unpack_from(tail, len(tail) - 48)
    end = TRAILER.size + length
    if magic != TRAILER_MAGIC or version != FORMAT_VERSION or found != salt or end > len(tail):
        return None
    # Each extent has a byte, and an entry in a frame, in front of the index.
    if count > MOST_EXTENTS or (ENTRY.size + 1) * count > position:
        return None
    if position + FRAME.size + COLUMN_BYTES * count + end != size_bytes:
        return None
    if checksum(memoryview(tail)[-end:-8], salt) != expected:
        return None
    metadata = parse_metadata(memoryview(tail)[-end : -TRAILER.size])
    return Trailer(metadata, position, count) if metadata is not None else None


def parse_index(block: memoryview, trailer: Trailer, salt: int) -> Columns | None:
    """Verify the index and view its columns where they are.

    Args:
        block: The file's bytes from the index's position on: its header and columns at least.
        trailer: The segment's verified trailer.
        salt: The segment's.

    Returns:
        Columns that share the block's memory, or None if the index is damaged.
    """
    count, seed = trailer.count, salt ^ trailer.index_position
    end = FRAME.size + COLUMN_BYTES * count
    if len(block) < end:
        return None
    head = parse_frame_head(block[: FRAME.size], seed)
    if head is None or not head.is_index or head.count != count:
        return None
    columns = block[FRAME.size : end]
    if checksum(columns, seed) != head.table_checksum:
        return None
    eight = 8 * count
    starts, positions, sums = (_native(columns[i * eight : (i + 1) * eight], "Q") for i in range(3))
    return Columns(starts, _native(columns[3 * eight :], "I"), sums, positions)


def parse_only(data: bytes, trailer: Trailer, salt: int) -> tuple[int, int, int, int] | None:
    """Read an index that has one extent.

    Args:
        data: The whole file.
        trailer: Its verified trailer, which counts one extent.
        salt: The segment's.

    Returns:
        Start, position, checksum and length; None if the index is damaged.
    """
    at = trailer.index_position
    head = parse_frame_head(data[at : at + FRAME.size], salt ^ at)
    at += FRAME.size
    if head is None or not head.is_index or head.count != 1:
        return None
    if checksum(data[at : at + COLUMN_BYTES], salt ^ trailer.index_position) != head.table_checksum:
        return None
    return _ONLY.unpack_from(data, at)


def _native(column: memoryview, typecode: str) -> Column:
    if not _SWAP:
        return column.cast(typecode)  # type: ignore[call-overload]
    swapped = array(typecode, column.tobytes())
    swapped.byteswap()
    return swapped


def _swapped(column: Column) -> Column:
    if not _SWAP:
        return column
    swapped = array(column.typecode, column)
    swapped.byteswap()
    return swapped
