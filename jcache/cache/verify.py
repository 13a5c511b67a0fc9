"""A cache directory, or a part of it, looked through for everything that is wrong or of no use; repaired on request.

Repair drops what is unusable, and nothing else: sound bytes of a damaged segment go into a new one first, what a live
writer has is never touched, and neither is what JCache did not make. Readers are not disturbed: what they have open
stays readable.
"""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from jcache.cache.books import USAGE_NAME
from jcache.cache.directory import KEY_NAME, TAG
from jcache.journal.check import Check, FlawKind, State, check
from jcache.journal.liveness import QUIET_S, is_quiet
from jcache.journal.salvage import salvage
from jcache.naming.layout import TAG_NAME
from jcache.segment.errors import JournalError
from jcache.segment.format import parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.segment.version import Version
    from jcache.system.storage import Storage

__all__ = ["Finding", "Kind", "Progress", "Totals", "measure", "verify"]

_OWN_ROOT_NAMES = frozenset({TAG_NAME, KEY_NAME, "jcache.toml", ".reports", ".doctor", USAGE_NAME})
_REPORTS = ".reports"
_NFS_HIDDEN = ".nfs"  # a removed file that somebody still has open, as NFS clients keep it


class Kind(enum.Enum):
    """Kinds of findings."""

    DAMAGED = "damaged"
    TORN = "torn"
    UNREADABLE = "unreadable"
    ORPHAN = "orphan"
    SUPERSEDED = "superseded"
    LEFTOVER = "leftover"
    EMPTY = "empty"
    FOREIGN = "foreign"


_WRONG = frozenset({Kind.DAMAGED, Kind.TORN, Kind.UNREADABLE, Kind.ORPHAN})
_FLAWS = {
    FlawKind.DAMAGED: Kind.DAMAGED,
    FlawKind.TORN: Kind.TORN,
    FlawKind.UNREADABLE: Kind.UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a directory would be better without."""

    kind: Kind
    path: str
    offset: int
    """Where it begins in the file."""
    size_bytes: int
    what: str
    repair: str | None = None
    """What was done about it; None if nothing."""

    @property
    def is_wrong(self) -> bool:
        """Whether something went wrong; otherwise it is only of no use."""
        return self.kind in _WRONG


@dataclass(slots=True)
class Totals:
    """What was looked at."""

    journals: int = 0
    segments: int = 0
    sealed: int = 0
    live: int = 0
    files: int = 0
    size_bytes: int = 0
    """Of all segments."""
    extents: int = 0
    sound_bytes: int = 0
    wrong: int = 0
    notes: int = 0
    repaired: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def advance(self, nbytes: int) -> object:
        """So many more bytes were read."""


class _Nobody:
    def advance(self, nbytes: int) -> None:
        """Take no note."""


def measure(storage: Storage, directory: str) -> int:
    """Return how many bytes the segments below a directory have; what cannot be read counts nothing."""
    total = 0
    for entry in _walk(storage, directory, lambda path, error: None):  # noqa: ARG005
        total += sum(status.st_size for name, status in entry.files if parse_segment_name(name))
    return total


def verify(
    storage: Storage,
    directory: str,
    *,
    identity: str | None = None,
    repair: bool = False,
    quiet_s: float = QUIET_S,
    progress: Progress | None = None,
) -> Iterator[Finding | Totals]:
    """Look through a directory and all below it, and verify every checksum of every segment.

    No error of the file system is raised: each is a finding. Memory does not grow with the directory.

    Args:
        storage: The cache's file system.
        directory: A cache's root, or any directory below one.
        identity: Whose segments the directory should have, if it is one journal's; then nothing below it is looked at.
        repair: Drop what is unusable.
        quiet_s: How old things must be that somebody may be about to use.
        progress: Is told of bytes as they are read.

    Yields:
        Findings as they are made, and at the end the totals.
    """
    work = _Work(storage, directory, identity, repair=repair, quiet_s=quiet_s, progress=progress or _Nobody())
    for finding in work.run():
        work.count(finding)
        yield finding
    yield work.totals


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    files: list[tuple[str, os.stat_result]]
    """What is no directory."""
    directories: list[str]
    mtime_ns: int


def _walk(storage: Storage, top: str, failed: Callable[[str, OSError], object]) -> Iterator[_Entry]:
    """Yield each directory from the top down, symbolic links not followed."""
    left = [top]
    while left:
        path = left.pop()
        try:
            mtime_ns = storage.stat(path).st_mtime_ns
            names = sorted(storage.listdir(path))
        except FileNotFoundError:
            if path == top:
                failed(path, FileNotFoundError(2, os.strerror(2)))
            continue  # removed meanwhile
        except OSError as error:
            failed(path, error)
            continue
        entry = _Entry(path, [], [], mtime_ns)
        for name in names:
            try:
                status = storage.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                failed(os.path.join(path, name), error)
                continue
            if stat.S_ISDIR(status.st_mode):
                entry.directories.append(name)
            else:
                entry.files.append((name, status))
        yield entry
        left.extend(os.path.join(path, name) for name in reversed(entry.directories))


class _Work:
    def __init__(
        self,
        storage: Storage,
        directory: str,
        identity: str | None,
        *,
        repair: bool,
        quiet_s: float,
        progress: Progress,
    ) -> None:
        self._storage, self._top, self._identity = storage, os.path.abspath(directory), identity
        storage.keep_inside(self._top)
        self._repair, self._quiet_s, self._progress = repair, quiet_s, progress
        self._failures: list[Finding] = []
        self._is_marked = self._has_tag()
        self.totals = Totals()

    def count(self, finding: Finding) -> None:
        totals = self.totals
        totals.kinds[finding.kind.value] = totals.kinds.get(finding.kind.value, 0) + 1
        totals.wrong += finding.is_wrong
        totals.notes += not finding.is_wrong
        totals.repaired += finding.repair is not None

    def run(self) -> Iterator[Finding]:
        for entry in _walk(self._storage, self._top, self._failed):
            relative = os.path.relpath(entry.path, self._top)
            if relative.partition(os.sep)[0] in {".doctor", USAGE_NAME}:
                continue
            if relative == _REPORTS or relative.startswith(_REPORTS + os.sep):
                yield from self._reports(entry)
            else:
                yield from self._directory(entry)
            yield from self._failures
            self._failures.clear()
            if self._identity is not None:
                break
        yield from self._failures

    def _failed(self, path: str, error: OSError) -> None:
        self._failures.append(Finding(Kind.UNREADABLE, path, 0, 0, f"cannot be read: {error.strerror or error}"))

    def _reports(self, entry: _Entry) -> Iterator[Finding]:
        for name, status in entry.files:
            self.totals.files += 1
            if name.endswith(".tmp"):
                yield from self._leftover(os.path.join(entry.path, name), status)

    def _directory(self, entry: _Entry) -> Iterator[Finding]:
        segments: list[str] = []
        is_root = entry.path == self._top
        for name, status in entry.files:
            path = os.path.join(entry.path, name)
            self.totals.files += 1
            if stat.S_ISREG(status.st_mode) and parse_segment_name(name) is not None:
                segments.append(name)
            elif (is_root and name.startswith(".probe-")) or (name.startswith("@") and name.endswith(".tmp")):
                yield from self._leftover(path, status)
            elif not stat.S_ISREG(status.st_mode):
                yield Finding(Kind.FOREIGN, path, 0, 0, f"{_what_kind(status.st_mode)}, not made by JCache")
            elif name.startswith("@") and not name.endswith(".seg"):
                continue  # lease and lock files, which hold no bytes
            elif not (is_root and name in _OWN_ROOT_NAMES) and not name.startswith(_NFS_HIDDEN):
                yield Finding(Kind.FOREIGN, path, 0, status.st_size, "not made by JCache")
        if segments:
            self.totals.journals += 1
            yield from self._journal(entry.path, segments)
        elif not entry.files and not entry.directories and not is_root:
            yield from self._empty(entry)

    def _journal(self, directory: str, names: list[str]) -> Iterator[Finding]:
        checks = []
        for name in names:
            found = check(self._storage, directory, name, quiet_s=self._quiet_s, progress=self._progress.advance)
            self._add(found)
            checks.append(found)
        newest = self._newest(checks)
        for found in checks:
            if found.state is State.FOREIGN:
                if found.reason.startswith("format version"):
                    yield Finding(Kind.FOREIGN, found.path, 0, found.size_bytes, found.reason)
                continue
            metadata = found.metadata
            if metadata is not None and self._identity not in {None, metadata.identity}:
                what = f"belongs to another remote file: {metadata.identity}"
                yield Finding(Kind.FOREIGN, found.path, 0, found.size_bytes, what)
            is_old = metadata is not None and _is_superseded(metadata.version, newest[metadata.identity])
            yield from self._segment(found, is_old=is_old)

    def _newest(self, checks: list[Check]) -> dict[str, Version]:
        """Return the newest version by identity."""
        about = [found.metadata for found in checks if found.metadata is not None]
        return {each.identity: each.version for each in sorted(about, key=lambda each: each.order)}

    def _segment(self, found: Check, *, is_old: bool) -> Iterator[Finding]:
        wrong = [
            Finding(_FLAWS[flaw.kind], found.path, flaw.position, flaw.size_bytes, flaw.what) for flaw in found.flaws
        ]
        unreadable = any(flaw.kind is FlawKind.UNREADABLE for flaw in found.flaws)
        if found.state is State.ORPHAN and not unreadable:
            what = "never sealed, and its writer is gone"
            wrong.insert(0, Finding(Kind.ORPHAN, found.path, 0, found.size_bytes, what))
        if is_old:
            what = "of an older version of the remote file"
            if found.state is State.LIVE:
                what += "; its writer may be at work"
            wrong.append(Finding(Kind.SUPERSEDED, found.path, 0, found.size_bytes, what))
        if found.more_flaws:
            what = f"{found.more_flaws} more flaws like these"
            wrong.append(Finding(Kind.DAMAGED, found.path, 0, found.size_bytes, what))
        done: str | None = None
        if wrong and self._repair and found.state is not State.LIVE:
            done = self._mend(found, is_old=is_old, unreadable=unreadable)
        for finding in wrong:
            yield Finding(finding.kind, finding.path, finding.offset, finding.size_bytes, finding.what, done)

    def _mend(self, found: Check, *, is_old: bool, unreadable: bool) -> str | None:
        if unreadable:
            return None  # the file system may give the bytes another time
        try:
            if is_old or not found.sound_extents:
                if is_old:
                    found.sound_extents = 0
                salvage(self._storage, found)
                return "removed"
            copied = salvage(self._storage, found)
        except OSError as error:
            self._failures.append(
                Finding(Kind.UNREADABLE, found.path, 0, 0, f"cannot be repaired: {error.strerror or error}")
            )
            return None
        except JournalError as error:
            self._failures.append(Finding(Kind.UNREADABLE, found.path, 0, 0, f"not repaired: {error}"))
            return None
        return f"rewritten with the {copied} bytes that are sound"

    def _leftover(self, path: str, status: os.stat_result) -> Iterator[Finding]:
        if not self._is_quiet(status.st_mtime_ns):
            return  # somebody may be about to rename it
        done = self._remove(path, self._storage.unlink)
        yield Finding(Kind.LEFTOVER, path, 0, status.st_size, "temporary file of a process that is gone", done)

    def _empty(self, entry: _Entry) -> Iterator[Finding]:
        if not self._is_quiet(entry.mtime_ns):
            return  # a journal may be about to begin there
        # In a directory that held other things before it became a cache, an empty one may be somebody's.
        done = self._remove(entry.path, self._storage.rmdir) if self._is_marked else None
        yield Finding(Kind.EMPTY, entry.path, 0, 0, "empty directory", done)

    def _remove(self, path: str, remove: Callable[[str], None]) -> str | None:
        if not self._repair:
            return None
        try:
            remove(path)
        except OSError as error:
            self._failures.append(Finding(Kind.UNREADABLE, path, 0, 0, f"cannot be removed: {error.strerror}"))
            return None
        return "removed"

    def _is_quiet(self, mtime_ns: int) -> bool:
        return is_quiet(mtime_ns, self._quiet_s)

    def _has_tag(self) -> bool:
        """Tell whether the top, or a directory above it, is marked as a cache of JCache's."""
        path = self._top
        while True:
            try:
                fd = self._storage.open(os.path.join(path, TAG_NAME), os.O_RDONLY)
            except OSError:  # most likely there is none
                parent = os.path.dirname(path)
                if parent == path:
                    return False
                path = parent
                continue
            try:
                return self._storage.pread(fd, len(TAG), 0) == TAG
            except OSError:
                return False
            finally:
                self._storage.close(fd)

    def _add(self, found: Check) -> None:
        totals = self.totals
        totals.segments += 1
        totals.sealed += found.state is State.SEALED
        totals.live += found.state is State.LIVE
        totals.size_bytes += found.size_bytes
        totals.extents += found.extents
        totals.sound_bytes += found.sound_bytes


def _is_superseded(version: Version, newest: Version) -> bool:
    """Tell whether a version is certainly another than the newest; two that have nothing in common may be the same."""
    if version.same_as(newest):
        return False
    pairs = (
        (version.checksum, newest.checksum),
        (version.etag, newest.etag),
        (version.mtime_ns, newest.mtime_ns),
    )
    return version.size_bytes != newest.size_bytes or any(a is not None and b is not None for a, b in pairs)


def _what_kind(mode: int) -> str:
    return "a symbolic link (not followed)" if stat.S_ISLNK(mode) else "neither file nor directory"
