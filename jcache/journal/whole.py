"""A small file that was read whole: a segment that is sealed from birth, written by one call, and read by one.

It differs from other segments only in how it comes about. Nobody else can be waiting for what is in it, for it is there
all at once, so its writer neither announces itself nor locks it; a writer that is killed on the way leaves an unsealed
segment of a process that is gone, as always.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from array import array
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jcache.segment.directory import Directory, create_file
from jcache.segment.errors import JournalError
from jcache.segment.format import (
    MAX_METADATA_BYTES,
    PIECE_BYTES,
    Columns,
    checksum,
    pack_frame,
    pack_header,
    pack_seal,
    parse_only,
    parse_segment_name,
    parse_trailer,
    segment_name,
)
from jcache.segment.segment import read_all
from jcache.segment.writer import describe, new_salt, noted
from jcache.system.processes import here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcache.segment.format import Metadata
    from jcache.segment.proof import Moment
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["WHOLE_BYTES", "Whole", "read_whole", "write_whole"]

WHOLE_BYTES = PIECE_BYTES
"""Largest file that is taken as a whole: one extent."""

_LARGEST_SEGMENT = WHOLE_BYTES + 2 * MAX_METADATA_BYTES + 1024
# A segment's time says when its version was proved. It need not be set where it is this near.
_NEAR_NS = 1_000_000_000


class Whole(NamedTuple):
    """A file that was recorded whole: verified bytes, and the version that they are of."""

    version: Version
    info: Mapping[str, Any]
    data: bytes


def write_whole(
    storage: Storage,
    directory: str,
    identity: str,
    whole: Whole,
    *,
    dir_mode: int,
    file_mode: int,
    proved_ns: int,
    proved: Moment | None = None,
    generation: int = 0,
) -> int:
    """Record a file whole, in a sealed segment of its own.

    Args:
        storage: The cache's file system.
        directory: The journal's.
        identity: Canonical name of the remote file.
        whole: Its version, which proves something, and its bytes, at most `WHOLE_BYTES`; none of an empty file, whose
            segment has no extent.
        dir_mode: As for `Journal`.
        file_mode: As for `Journal`.
        proved_ns: When the bytes were proved to be of that version, nanoseconds since the epoch.
        proved: The same, by the clock that counts.
        generation: See `Metadata`.

    Returns:
        Bytes written to the cache directory.

    Raises:
        JournalError: Nothing was recorded.
    """
    data, version = whole.data, whole.version
    if not version.is_provable or not len(data) == version.size_bytes <= WHOLE_BYTES:
        raise JournalError(f"{len(data)} bytes of {version} are not a small file and its version")
    salt, now_ns = new_salt(), time.time_ns()
    metadata = describe(identity, version, whole.info, created_ns=now_ns, proved=proved, generation=generation)
    path = f"{directory}/{segment_name(here(), metadata.pid, salt)}"
    try:
        # It is most likely missing, or this file would not have been fetched.
        place = Directory(storage, directory, dir_mode=dir_mode, file_mode=file_mode)
        fd = place.made_for(lambda: create_file(storage, path, file_mode), expect=False)
        try:
            if proved is not None:
                metadata = metadata._replace(proved=noted(storage, fd, proved))
            segment = _pack(metadata, data, salt)
            if storage.pwritev(fd, [segment], 0) != len(segment):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if now_ns - proved_ns > _NEAR_NS:
                with contextlib.suppress(OSError):
                    storage.utime(fd, (proved_ns, proved_ns))
        except BaseException:
            with contextlib.suppress(OSError):
                storage.unlink(path)
            raise
        finally:
            with contextlib.suppress(OSError):  # what did not reach the disk is found out by its checksum
                storage.close(fd)
    except OSError as error:
        raise JournalError(f"cannot record in {directory}: {error.strerror or error}", errno=error.errno) from error
    return len(segment)


def _pack(metadata: Metadata, data: bytes, salt: int) -> bytes:
    packed = metadata.pack()
    header = pack_header(salt, packed)
    extents = [data] if data else []
    starts, lengths = array("Q", [0] * len(extents)), array("I", map(len, extents))
    sums = array("Q", [checksum(data, salt) for data in extents])
    frame = pack_frame(salt, len(header), starts, lengths, sums) if extents else b""
    position = len(header) + len(frame)
    positions = array("Q", [position] * len(extents))
    seal = pack_seal(salt, position + len(data), Columns(starts, lengths, sums, positions), packed)
    return b"".join((header, frame, data, seal))


def read_whole(storage: Storage, directory: str, identity: str) -> Whole | Literal["nothing", "unclear"]:
    """Read what is recorded of a file, where that is one sealed segment that has all of it.

    Costs a listing, an open, a stat, a read and a close; nothing stays open.

    Args:
        storage: The cache's file system.
        directory: The journal's.
        identity: Canonical name of the remote file.

    Returns:
        The file; "nothing" where nothing is recorded of it; "unclear" where only a `Journal` can tell: several
        segments, one that is being written or is damaged, a part of the file, trouble with the file system.
    """
    try:
        names = [name for name in storage.listdir(directory) if name.startswith("@")]
    except FileNotFoundError:
        return "nothing"
    except OSError:
        return "unclear"
    parsed = parse_segment_name(names[0]) if len(names) == 1 else None
    if parsed is None:
        return "unclear" if names else "nothing"
    try:
        data = _read(storage, f"{directory}/{names[0]}")
    except OSError:
        return "unclear"
    salt = parsed[2]
    trailer = parse_trailer(data, len(data), salt)
    if trailer is None or trailer.count > 1 or trailer.metadata.identity != identity:
        return "unclear"
    if not trailer.count and not trailer.metadata.version.size_bytes:
        return Whole(trailer.metadata.version, trailer.metadata.info, b"")
    only = parse_only(data, trailer, salt)
    if only is None:
        return "unclear"
    start, position, expected, length = only
    version = trailer.metadata.version
    body = data[position : position + length]
    if start or length != version.size_bytes or len(body) != length or checksum(body, salt) != expected:
        return "unclear"
    return Whole(version, trailer.metadata.info, body)


def _read(storage: Storage, path: str) -> bytes:
    """Return a small regular file, nothing of any other."""
    fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        status = storage.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_SEGMENT:
            return b""
        return read_all(storage, fd, status.st_size, 0)
    finally:
        storage.close(fd)
