"""What lies in a cache directory, journal by journal: from the disk, quickly where little has changed since last time.

What takes long is to open each segment for what it holds. So that is kept in a file beside the record of use, and used
again for journals whose segments have the same number, sizes and times. The file may be lost, or wrong in any way that
JSON allows, at the cost of time alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jcache.cache import usage
from jcache.cache.books import count, lines_of
from jcache.cache.tree import Found, walk
from jcache.journal import Journal, Version
from jcache.naming.identity import address_of, is_answers, names_of
from jcache.segment.directory import create_file
from jcache.segment.format import HEADER, MAX_METADATA_BYTES, parse_header, parse_segment_name
from jcache.segment.segment import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jcache.system.storage import Storage

__all__ = ["Entry", "Stored", "entry_of", "journals", "key_of"]

FACTS_NAME = "facts"
_WORTH_KEEPING = 64
_MOST_BYTES = 256 << 20
_LATEST_S = 1e11  # no calendar goes much further
_Stamp = tuple[int, int, int]


class Stored(NamedTuple):
    """What the cache holds of one state of a remote file."""

    size_bytes: int
    """The remote file's."""
    cached_bytes: int
    """Distinct bytes of it that are in the journal."""
    validated_s: float
    """When the state was last known to be the origin's, unix seconds."""
    version: dict[str, Any]
    """What the origin named it by, as JSON."""


class Entry(NamedTuple):
    """One journal."""

    name: str
    """The remote file's canonical name."""
    url: str
    """Its address, or nearly so."""
    directory: str
    segments: int
    disk_bytes: int
    versions: tuple[Stored, ...]
    """States, from new to old."""
    used_s: float
    """When it was last used, unix seconds."""
    hits: int
    """Reads that it served entirely, as far as processes have noted them."""
    hit_bytes: int
    kind: Literal["file", "listing"] = "file"
    """A listing is what the origin said of the names in a directory. It is all there, and as large as it is."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return self._asdict() | {"versions": [stored._asdict() for stored in self.versions]}

    @property
    def names(self) -> tuple[str, ...]:
        """All by which a person may call it."""
        return (*names_of(self.name), self.name)

    @property
    def cached_bytes(self) -> int:
        """Of the newest state."""
        return self.versions[0].cached_bytes if self.versions else 0

    @property
    def size_bytes(self) -> int:
        """The remote file's, in its newest state."""
        return self.versions[0].size_bytes if self.versions else 0


def journals(storage: Storage, root: str, *, keep: bool = True) -> Iterator[Entry]:
    """Yield the journals of a cache, in the order of their paths; what cannot be read is left out.

    Costs a listing for each directory and an `lstat` for each segment; what has changed since the last time costs what
    attaching to it costs.

    Args:
        storage: The cache's file system.
        root: The cache's root, or a directory below it.
        keep: Whether to keep what was found, for the next time.
    """
    known = _read_facts(storage, root)
    used = _uses(storage, root)
    facts: dict[str, tuple[_Stamp, _Fact]] = {}
    fresh = 0
    for found in walk(storage, root):
        segments = [name for name in found.files if parse_segment_name(name) is not None]
        if not segments:
            continue
        stamp = _stamp(found)
        stamped = known.get(found.path)
        if stamped is not None and stamped[0] == stamp:
            fact = stamped[1]
        else:
            looked = _look(storage, os.path.join(root, found.path), segments)
            if looked is None:
                continue
            fact, fresh = looked, fresh + 1
        facts[found.path] = stamp, fact
        yield _entry(root, found, fact, segments, used.get(found.path))
    if keep and fresh > max(_WORTH_KEEPING, len(facts) // 100):
        with contextlib.suppress(OSError):  # not ours to write to
            _write_facts(storage, root, facts)


def entry_of(storage: Storage, root: str, path: str) -> Entry | None:
    """Return what one journal's directory holds, None where there is no segment that says whose it is.

    Args:
        storage: The cache's file system.
        root: The cache's root.
        path: The journal's directory, relative to the root.
    """
    directory = os.path.join(root, path)
    files = {}
    try:
        names = storage.listdir(directory)
    except OSError:
        return None
    for name in sorted(names):
        if parse_segment_name(name) is not None:
            with contextlib.suppress(OSError):  # removed meanwhile
                files[name] = storage.lstat(os.path.join(directory, name))
    if not files or (fact := _look(storage, directory, list(files))) is None:
        return None
    return _entry(root, Found(path, files), fact, list(files), _uses(storage, root).get(path))


class _Fact(NamedTuple):
    name: str
    versions: tuple[Stored, ...]


def _entry(root: str, found: Found, fact: _Fact, segments: list[str], use: usage.Entry | None) -> Entry:
    is_listing, versions = is_answers(fact.name), fact.versions
    if is_listing:  # its journal's size and version are ours, not the origin's
        versions = tuple(stored._replace(size_bytes=stored.cached_bytes, version={}) for stored in versions)
    return Entry(
        name=fact.name,
        kind="listing" if is_listing else "file",
        url=address_of(fact.name),
        directory=os.path.join(root, found.path),
        segments=len(segments),
        disk_bytes=found.size_bytes,
        versions=versions,
        used_s=found.used_s if use is None else max(use.used_s, found.used_s),
        hits=0 if use is None else use.hits,
        hit_bytes=0 if use is None else use.hit_bytes,
    )


def _uses(storage: Storage, root: str) -> dict[str, usage.Entry]:
    try:
        return usage.uses(storage, root, usage.load(storage, root))
    except OSError:
        return {}


def _look(storage: Storage, directory: str, segments: list[str]) -> _Fact | None:
    identity = key_of(storage, directory, segments)
    if identity is None:
        return None
    journal = Journal(storage, directory, identity)
    journal.attach()
    try:
        versions = tuple(
            Stored(
                size_bytes=stored.version.size_bytes,
                cached_bytes=journal.view(stored.version).covered(),
                validated_s=stored.validated_ns / 1e9,
                version=dict(stored.version.to_json()),
            )
            for stored in journal.versions()
        )
    finally:
        journal.close()
    return _Fact(identity, versions)


def key_of(storage: Storage, directory: str, names: Iterable[str] | None = None) -> str | None:
    """Return the key of the journal in a directory, None where there is none that can be read.

    Args:
        storage: The cache's file system.
        directory: The journal's.
        names: What is in it, where that is known.
    """
    if names is None:
        try:
            names = storage.listdir(directory)
        except OSError:
            return None
    return next(filter(None, (_identity(storage, os.path.join(directory, name)) for name in names)), None)


def _identity(storage: Storage, path: str) -> str | None:
    parsed = parse_segment_name(os.path.basename(path))
    if parsed is None:
        return None
    try:
        fd = storage.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            header = parse_header(storage.pread(fd, HEADER.size + MAX_METADATA_BYTES, 0), parsed[2])
        finally:
            storage.close(fd)
    except OSError:
        return None  # removed since it was listed, or not ours to read
    return header[0].identity if isinstance(header, tuple) else None


def _stamp(found: Found) -> _Stamp:
    return len(found.files), found.size_bytes, sum(status.st_mtime_ns for status in found.files.values())


def _read_facts(storage: Storage, root: str) -> dict[str, tuple[_Stamp, _Fact]]:
    try:
        fd = storage.open(os.path.join(usage.directory_of(root), FACTS_NAME), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return {}  # not kept yet
    try:
        data = read_all(storage, fd, min(storage.fstat(fd).st_size, _MOST_BYTES), 0)
    except OSError:
        return {}
    finally:
        storage.close(fd)
    found = {}
    for line in lines_of(data):
        try:
            path, files, size, time_ns, name, versions = json.loads(line)
            stored = tuple(
                # The order has what is no number become 0.
                Stored(
                    count(v[0]), count(v[1]), min(max(0.0, float(v[2])), _LATEST_S), Version.from_json(v[3]).to_json()
                )
                for v in versions
            )
            if isinstance(path, str) and isinstance(name, str):
                found[path] = (int(files), int(size), int(time_ns)), _Fact(name, stored)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
    return found


def _write_facts(storage: Storage, root: str, facts: dict[str, tuple[_Stamp, _Fact]]) -> None:
    directory = usage.directory_of(root)
    temporary = os.path.join(directory, f"@facts.{os.urandom(8).hex()}.tmp")
    # Whoever may write here trusts its users; still it is a file of the one who made it.
    fd = create_file(storage, temporary, 0o600 | storage.stat(root).st_mode & 0o066)
    try:
        try:
            position = 0
            for block in _blocks(facts):
                position += storage.pwritev(fd, [block], position)
        finally:
            storage.close(fd)
        storage.rename(temporary, os.path.join(directory, FACTS_NAME))
    except OSError:
        with contextlib.suppress(OSError):
            storage.unlink(temporary)
        raise


def _blocks(facts: dict[str, tuple[_Stamp, _Fact]]) -> Iterable[bytes]:
    lines: list[str] = []
    for path, (stamp, fact) in facts.items():
        versions = [[v.size_bytes, v.cached_bytes, v.validated_s, v.version] for v in fact.versions]
        lines.append(json.dumps([path, *stamp, fact.name, versions]))
        if len(lines) >= 5000:
            yield "\n".join([*lines, ""]).encode()
            lines.clear()
    yield "\n".join([*lines, ""]).encode()
