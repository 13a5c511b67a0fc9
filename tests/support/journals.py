"""What the journal's tests share: a remote file with known bytes, and reading it through a view."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from jcache.journal import DamagedExtent, Journal, JournalError, Version, View
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = "https://example.org/f"
REMOTE = random.Random(7).randbytes(1 << 20)
VERSION = Version(len(REMOTE), etag='"1"')
INFO = {"name": "f", "size": len(REMOTE)}


def journal(directory: object, storage: Storage | None = None, *, identity: str = IDENTITY) -> Journal:
    return Journal(storage or Storage(), os.fspath(directory), identity)


def attached(directory: object, storage: Storage | None = None, *, identity: str = IDENTITY) -> Journal:
    result = journal(directory, storage, identity=identity)
    result.attach()
    return result


def record(target: Journal, *ranges: tuple[int, int], version: Version = VERSION) -> int:
    return target.append(version, INFO, [(start, REMOTE[start:stop]) for start, stop in ranges])


def hits(view: View, start: int, stop: int) -> list[tuple[int, int]]:
    """Return what `find` calls hits, having checked that its parts cover the range in order."""
    at, found, previous_gap = start, [], False
    for part in view.find(start, stop):
        assert part[0] == at < part[1], "parts are in order, and none is empty"
        at = part[1]
        is_gap = part[2] is None
        assert not (is_gap and previous_gap), "no two gaps are neighbours"
        previous_gap = is_gap
        if not is_gap:
            found.append(part[:2])
    assert at == max(start, stop)
    return found


def read(view: View, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Read the hits of a range as a caller would: damage is a miss, and afterwards a gap."""
    for part in view.find(start, stop):
        if part[2] is None:
            continue
        try:
            yield part[0], view.read(part)
        except JournalError as problem:
            if isinstance(problem, DamagedExtent):
                again = [p for p in view.find(part[0], part[1]) if p[2] is not None]
                assert part not in again, "what was found damaged is forgotten"


def readable(view: View, start: int = 0, stop: int = len(REMOTE), remote: bytes = REMOTE) -> int:
    """Read all hits of a range, check each byte, and return how many there were."""
    total = 0
    for at, data in read(view, start, stop):
        assert data == remote[at : at + len(data)], f"wrong bytes at {at}"
        total += len(data)
    return total
