"""Which version of a remote file is the newest: numbered when the origin is found to have another than is recorded.

Whoever asks the origin knows by then which versions the journal has. If the origin has another one than the newest of
these, it has left them all behind, and the new one's generation is above theirs, whatever anybody's clock says. The
segments carry the generation of their version. Where the origin came back to a version of which there is all that is
wanted, or where the time of the answer is to be kept, a segment without extents says so.

Of two versions whose writers did not see each other's segments neither is known to be the newer one. Then their clocks
decide, which is a guess.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING

from jcache.segment.directory import create_file
from jcache.segment.format import Columns, pack_header, pack_seal, segment_name
from jcache.segment.proof import Moment
from jcache.segment.writer import new_salt, noted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.segment.format import Metadata
    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["Generations", "write_note"]

_HIGHEST = 1 << 53


class Generations:
    """What this process found the origin to have, and when. Its methods are called under the journal's lock."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Version, tuple[int, Moment | None]] = {}

    def found(self, version: Version, known: Iterable[Metadata]) -> tuple[int, Moment | None]:
        """Note that the origin has a version now; return its generation, and when that was.

        Args:
            version: The version.
            known: What was recorded before the origin was asked.
        """
        newest = max(known, key=lambda about: about.order, default=None)
        generation = 0 if newest is None else newest.generation
        if newest is not None and not newest.version.same_as(version):
            generation = min(generation + 1, _HIGHEST)
        self._found[version] = generation, Moment.now()
        return self._found[version]

    def of(self, version: Version, known: Iterable[Metadata]) -> tuple[int, Moment | None]:
        """Return what was noted of a version: what others have recorded since proves nothing about it."""
        return self._found.get(version) or self.found(version, known)

    def forget(self) -> None:
        """Be as if the origin had never been asked."""
        self._found.clear()


def write_note(storage: Storage, directory: str, metadata: Metadata, *, file_mode: int) -> str:
    """Write a segment without extents, sealed from birth; return its name.

    Raises:
        OSError: The file system failed; what is left of it says nothing.
    """
    salt = new_salt()
    nothing = Columns(array("Q"), array("I"), array("Q"), array("Q"))
    name = segment_name(metadata.host, metadata.pid, salt)
    fd = create_file(storage, f"{directory}/{name}", file_mode)
    try:
        proved = None if metadata.proved is None else noted(storage, fd, metadata.proved)
        packed = metadata._replace(proved=proved).pack()
        header = pack_header(salt, packed)
        note = header + pack_seal(salt, len(header), nothing, packed)
        if storage.pwritev(fd, [note], 0) != len(note):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        storage.unlink(f"{directory}/{name}")
        raise
    finally:
        storage.close(fd)
    return name
