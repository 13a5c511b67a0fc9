"""From a recorded run and the cache that has its bytes to a bundle, and from a bundle into a cache."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from jcache.bundle.format import keys_of
from jcache.bundle.writer import BundleWriter
from jcache.cache.below import segments_at
from jcache.cache.catalogue import journals
from jcache.cache.directory import Cache, CacheUnusable
from jcache.counters import LISTING, STAT
from jcache.journal import Journal, JournalError
from jcache.naming.identity import is_answers, is_below, is_owned, names_of
from jcache.naming.layout import is_journal
from jcache.profile.statistics import look_at
from jcache.ranges import normalise, subtract, total
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jcache.bundle.format import Entry as BundleEntry
    from jcache.bundle.reader import Bundle
    from jcache.cache.catalogue import Entry
    from jcache.profile.reader import Profile
    from jcache.ranges import Range
    from jcache.segment.version import Version

__all__ = ["Bundled", "Extracted", "extract", "write_bundle"]

_COPY_BYTES = 4 << 20


@dataclass(slots=True)
class Bundled:
    """What came of it. Sizes are in bytes.

    Attributes:
        missing: Bytes that the run read and the cache has not, by address.
        replaced: Addresses of files of which the cache has another version than the run has read; they are left out.
    """

    files: int = 0
    listings: int = 0
    bytes: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Extracted:
    """What came of it: files, bytes recorded, and what could not be extracted, and why, by identity."""

    files: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def write_bundle(
    profile: Profile,
    roots: Sequence[str],
    file: BinaryIO,
    *,
    about: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Bundled:
    """Write what a run read, as a cache and its tiers have it, into a bundle.

    Args:
        profile: Of the run.
        roots: The cache's directory, and those of further tiers.
        file: Where to; it is open, and empty.
        about: Of the run; see `docs/bundle.md`.
        progress: Is told how many bytes are written, and of how many.

    Raises:
        ProfileError: The profile cannot be read.
        OSError: The bundle cannot be written.
    """
    caches, done = [Cache(root) for root in roots], Bundled()
    files = look_at(profile, gaps=()).files
    wanted = {one.url: one.union.pieces for one in files}
    sizes = {one.url: one.size or 0 for one in files}  # as it was then, as far as the run asked
    asked = {
        profile.files[file]
        for _, batch in profile.batches()
        for kind, file in zip(batch.kinds, batch.files, strict=True)
        if kind in (STAT, LISTING)
    }
    missing: dict[str, list[Range]] = {}
    of, written = sum(map(total, wanted.values())), 0
    left, writer, keys, refused = dict(wanted), BundleWriter(file), set[str](), set[str]()
    for entry, tiers in _entries(caches):
        names = names_of(entry.name)
        url = next((name for name in names if name in wanted), None)
        if is_answers(entry.name):
            if not _is_asked(names, wanted.keys() | asked):
                continue
        elif url is None:
            continue
        ranges = None if is_answers(entry.name) else wanted[url or ""]
        versions, size_bytes = profile.versions.get(url or "", ()), sizes.get(url or "", 0)
        added = _add(writer, entry, tiers, ranges, versions=versions, size_bytes=size_bytes)
        if added is None:
            continue
        size, gaps = added
        if gaps is None:
            refused.add(url or "")
            continue
        if is_owned(entry.name):
            keys.add(tiers[0].key.hex())
        if is_answers(entry.name):
            done.listings += 1
            continue
        left.pop(url or "", None)
        done.files += 1
        if gaps:
            done.missing[url or ""] = total(gaps)
            missing[entry.name] = gaps
        written += size
        progress(written, of)
    # Another journal of the same address may have had it: one that is somebody's own, say.
    done.replaced = sorted(refused & left.keys())
    done.missing.update({url: total(ranges) for url, ranges in left.items() if ranges and url not in refused})
    writer.end({**about, "missing": missing, **({"keys": sorted(keys)} if keys else {})})
    done.bytes = written
    return done


def _entries(caches: Sequence[Cache]) -> list[tuple[Entry, Sequence[Cache]]]:
    """Return what is recorded of each object, by name, with the caches from the first one on that has any of it."""
    found: dict[str, tuple[Entry, Sequence[Cache]]] = {}
    for number, cache in enumerate(caches):
        for entry in journals(cache.storage, cache.directory, keep=False):
            found.setdefault(entry.name, (entry, caches[number:]))
    return [found[name] for name in sorted(found)]


def _is_asked(names: Sequence[str], addresses: set[str]) -> bool:
    places = [name.removesuffix(" (listing)").rstrip("/") for name in names]
    return any(is_below(address, place) for place in places for address in addresses)


def _add(
    writer: BundleWriter,
    entry: Entry,
    tiers: Sequence[Cache],
    ranges: Sequence[Range] | None,
    *,
    versions: Sequence[Version],
    size_bytes: int,
) -> tuple[int, list[Range] | None] | None:
    """Add what a journal has of some ranges, or all that it has; return how much, and what it lacks.

    It lacks None where it has none of the versions that are meant: of none, the newest one is. What the run read beyond
    its end, up to the size that the file had then, is lacking, and so is what turns out to be damaged or gone. None is
    returned of a journal that has been removed.
    """
    cache, *below = tiers
    place = os.path.relpath(entry.directory, cache.directory)
    parts = tuple(map(os.fsencode, place.split(os.sep)))
    below_it = [segments_at(one, parts) for one in below]
    journal = Journal(cache.storage, entry.directory, entry.name, below=below_it)
    journal.attach()
    try:
        found = journal.versions()
        stored = next((one for one in found if _is_one_of(one.version, versions)), None)
        if stored is None:
            return (0, None) if found else None
        view = journal.view(stored.version)
        held = normalise(view.extents())
        wanted = held if ranges is None else _before(ranges, max(view.size, size_bytes))
        lacking = subtract(wanted, held)

        def read(start: int, stop: int) -> bytes | None:
            for _ in tiers:  # what is damaged in one is not found there any more
                parts = view.find(start, stop)
                if any(part[2] is None for part in parts):
                    break
                with contextlib.suppress(JournalError):
                    return b"".join(map(view.read, parts))
            lacking.append((start, stop))
            return None

        size = writer.add(entry.name, place, stored.version, stored.info, ranges=subtract(wanted, lacking), read=read)
    finally:
        journal.close()
    return size, normalise(lacking)


def _before(ranges: Sequence[Range], stop: int) -> list[Range]:
    return [(start, min(end, stop)) for start, end in ranges if start < stop]


def _is_one_of(version: Version, versions: Sequence[Version]) -> bool:
    return not versions or not all(known.tells_from(version) for known in versions)


def extract(bundle: Bundle, root: str, *, progress: Callable[[int, int], None] = lambda _done, _of: None) -> Extracted:
    """Record what a bundle has in a cache directory, as if it had been read there.

    Args:
        bundle: The bundle.
        root: The cache's directory, which may not exist yet.
        progress: Is told how many bytes are recorded, and of how many.

    Raises:
        OSError: The bundle cannot be read.
    """
    storage, done = Storage(root), Extracted()
    takes_owned = _takes_owned(root, bundle)
    of, at = sum(sum(entry.lengths) for entry in bundle.entries.values()), 0
    for entry in bundle.entries.values():
        if not is_journal(entry.place):
            done.failed[entry.identity] = "its place in a cache is none"
            continue
        if is_owned(entry.identity) and not takes_owned:
            done.failed[entry.identity] = "it is one asker's own, and the directory has another key for such files"
            continue
        journal = Journal(storage, os.path.join(root, entry.place), entry.identity)
        journal.attach()
        piece: list[tuple[int, bytes]] = []
        held = journal.view(entry.version)
        try:
            for start, data, is_sound in bundle.extents(entry):
                at += len(data)
                if not is_sound:
                    done.failed[entry.identity] = f"{len(data)} bytes from {start} on are damaged"
                elif any(part[2] is None for part in held.find(start, start + len(data))):
                    piece.append((start, data))
                if sum(len(data) for _, data in piece) >= _COPY_BYTES:
                    done.bytes += _record(journal, entry, piece)
                    piece = []
                progress(at, of)
            done.bytes += _record(journal, entry, piece)
            journal.seal()
        except JournalError as error:
            done.failed[entry.identity] = str(error)
        finally:
            journal.close()
        done.files += 1
    return done


def _record(journal: Journal, entry: BundleEntry, piece: Sequence[tuple[int, bytes]]) -> int:
    journal.append(entry.version, entry.info, piece)
    return sum(len(data) for _, data in piece)


def _takes_owned(root: str, bundle: Bundle) -> bool:
    """Whether files that are one asker's own are found in a directory under the names that they have in a bundle."""
    keys = keys_of(bundle.about)
    if len(keys) != 1:
        return False
    cache = Cache(root)
    try:
        cache.prepare()
    except CacheUnusable as error:
        raise OSError(str(error)) from None
    return cache.adopt(keys[0])
