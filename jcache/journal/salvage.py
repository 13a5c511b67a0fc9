"""What is sound in a segment that nobody writes to any more, copied into a new one that takes its place."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jcache.journal.check import Check, State, open_walk, take_status
from jcache.segment.errors import JournalError
from jcache.segment.writer import SegmentWriter

if TYPE_CHECKING:
    from jcache.system.storage import Storage

__all__ = ["salvage"]

_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_EXTENTS = 10_000
_CHANGED = "changed while it was being repaired; left alone"


def salvage(storage: Storage, found: Check) -> int:
    """Replace a segment by a new, sealed one with what is sound in it; remove it where nothing is.

    The new one says the same of itself, and takes over the modification time. It is on
    the disk before the old one is removed; whoever reads the old one keeps it.

    Args:
        storage: The cache's file system.
        found: What `check` said of a segment that nobody writes to any more.

    Returns:
        Bytes of extents that were copied.

    Raises:
        JournalError: The segment has changed since, or there is no room for a new one: everything is as it was.
        OSError: The file system failed: everything is as it was.
    """
    assert found.state in {State.SEALED, State.ORPHAN, State.UNUSABLE}, "a live segment is its writer's alone"
    copied = 0
    if found.sound_extents:
        copied = _copy(storage, found)
    now = Check(found.directory, found.name)
    take_status(storage.lstat(found.path), now)
    if now.stamp != found.stamp:
        raise JournalError(_CHANGED)
    storage.unlink(found.path)
    return copied


def _copy(storage: Storage, found: Check) -> int:
    metadata = found.metadata
    assert metadata is not None, "extents are known only where metadata is"
    again = Check(found.directory, found.name)
    writer: SegmentWriter | None = None
    copied = 0
    try:
        with open_walk(storage, again, 0.0) as walk:
            if walk is None or again.state is not found.state or again.stamp != found.stamp:
                raise JournalError(_CHANGED)
            writer = SegmentWriter.create(
                storage,
                found.directory,
                metadata.identity,
                metadata.version,
                metadata.info,
                file_mode=found.mode,
                generation=metadata.generation,
            )
            batch: list[tuple[int, bytes]] = []
            size = 0
            for start, data in walk.sound():
                batch.append((start, bytes(data)))  # a view would keep all of its block
                size += len(data)
                if size >= _BATCH_BYTES or len(batch) == _BATCH_EXTENTS:
                    writer.append(batch)
                    copied += size
                    batch, size = [], 0
            if batch:
                writer.append(batch)
                copied += size
        writer.seal()
        fd = writer.segment.source.fd
        storage.fsync(fd)
        storage.utime(fd, (found.mtime_ns, found.mtime_ns))
    except (OSError, JournalError):
        if writer is not None:
            with contextlib.suppress(OSError):  # then it stays as an orphan, whose bytes are right
                storage.unlink(os.path.join(found.directory, writer.segment.name))
        raise
    return copied
