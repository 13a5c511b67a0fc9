"""The segments of one journal as its directory has them: found, opened, followed, let go of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jcache.journal.errors import UnusableSegment
from jcache.journal.format import parse_segment_name
from jcache.journal.liveness import may_live
from jcache.journal.segment import Segment
from jcache.journal.version import StoredVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jcache.journal.directory import Directory
    from jcache.journal.table import Run
    from jcache.journal.version import Version
    from jcache.journal.writer import SegmentWriter
    from jcache.storage import Storage

__all__ = ["Segments"]

_MOST_PROBLEMS = 1000
_MOST_LISTINGS = 4


class Segments:
    """What is known of a directory's segments. Its methods are called under the journal's lock.

    Attributes:
        known: The usable ones by name; the one that this process writes is among them.
        writer: The writer of that one, if there is one.
        damaged: Extents found damaged so far.
        problems: Path and description of every file that was ignored or found damaged, oldest first.
    """

    __slots__ = ("_directory", "_identity", "_ignored", "_storage", "damaged", "known", "problems", "writer")

    def __init__(self, storage: Storage, directory: Directory, identity: str) -> None:
        self._storage = storage
        self._directory = directory
        self._identity = identity
        self._ignored: set[str] = set()
        self.known: dict[str, Segment] = {}
        self.writer: SegmentWriter | None = None
        self.damaged = 0
        self.problems: list[tuple[str, str]] = []

    def look(self) -> bool:
        """List the directory, open what is new, let go of what is gone; True if there was either.

        A segment that is gone before it could be opened was merged into another one, which an older listing need not
        have: so the directory is listed again.
        """
        changed = False
        for _ in range(_MOST_LISTINGS):
            try:
                names = self._directory.read()
            except OSError as error:
                self._report(self._directory.path, f"cannot be listed: {error.strerror}")
                return changed
            found, vanished = set(names), False
            for name in names:
                if name not in self.known and name not in self._ignored and name.startswith("@"):
                    try:
                        changed |= self._open(name)
                    except FileNotFoundError:
                        vanished = True
            for name in self.known.keys() - found:
                changed |= self._lose(name)
            self._ignored &= found
            if not vanished:
                break
        return changed

    def follow(self) -> bool:
        """Take up what others have appended: one `fstat` of each segment that is not sealed; True if there was any."""
        changed = False
        for segment in list(self.known.values()):
            if not segment.sealed and not self.is_own(segment):
                changed |= self._follow(segment)
        return changed

    def is_own(self, segment: Segment) -> bool:
        """Whether this process is writing it."""
        return self.writer is not None and self.writer.segment is segment

    def forget_rows(self, run: Run, rows: Sequence[int], what: str) -> int:
        """Take out extents that were found damaged; return how many had not been taken out before."""
        forgotten = 0
        segment = next((s for s in self.known.values() if s.source is run.source), None)
        for row in rows:
            start, position = run.starts[row], run.positions[row]
            known = segment is not None and segment.table.forget(start, position)
            forgotten += run.forget(start, position) or known
        if forgotten:
            name = segment.name if segment else "a removed segment"
            self.damaged += forgotten
            self._report(self._directory.join(name), f"{forgotten} extents: {what}")
        return forgotten

    def lose(self, run: Run) -> None:
        """Let go of a segment that cannot be opened any more; it is found again when the directory has changed."""
        for name, segment in list(self.known.items()):
            if segment.source is run.source and not self.is_own(segment):
                del self.known[name]

    def versions(self) -> list[StoredVersion]:
        """Return the states of the file that the segments belong to, the most recently validated first.

        Where a file system's time stamps do not tell two apart, the one that was begun later is first.
        """
        newest: dict[Version, tuple[int, int, Mapping[str, Any]]] = {}
        # A copy at one moment, without the lock: whoever asks does not wait for what is being written.
        for segment in list(self.known.values()):
            about = segment.metadata
            if about is not None:
                times = (segment.mtime_ns, about.created_ns)
                if about.version not in newest or newest[about.version][:2] < times:
                    newest[about.version] = (*times, about.info)
        ordered = sorted(newest.items(), key=lambda item: item[1][:2], reverse=True)
        return [StoredVersion(version, info, validated_ns) for version, (validated_ns, _, info) in ordered]

    def touch(self, version: Version) -> None:
        """Set the modification time of a version's newest segment to now."""
        segments = [s for s in self.known.values() if s.metadata and s.metadata.version.same_as(version)]
        newest = max(segments, key=lambda segment: segment.mtime_ns, default=None)
        if newest is None:
            return
        now_ns = time.time_ns()
        try:
            self._storage.utime(newest.source.fd, (now_ns, now_ns))
        except OSError:
            # EPERM or EROFS: another user's segment, or a cache that is only read.
            return
        newest.mtime_ns = now_ns

    def remove(self) -> OSError | None:
        """Remove all files but those that other processes write; return the last failure, if there was one."""
        failure: OSError | None = None
        self.look()
        for name, segment in list(self.known.items()):
            is_own = self.is_own(segment)
            try:
                if not (segment.sealed or is_own) and self._may_grow(segment):
                    continue
                self._storage.unlink(self._directory.join(name))
            except FileNotFoundError:
                pass  # removed by another process
            except OSError as error:
                failure = error
                continue
            self.known.pop(name, None)
            if is_own:
                self._abandon(segment)
        return failure

    def _abandon(self, segment: Segment) -> None:
        """Write no more to this process's segment."""
        self.writer = segment.source.seal = None

    def _may_grow(self, segment: Segment) -> bool:
        return may_live(self._storage, segment.source.fd, segment.name, segment.mtime_ns)

    def _open(self, name: str) -> bool:
        parsed = parse_segment_name(name)
        if parsed is None:
            if name.endswith(".seg"):
                self._ignore(name, "not a segment's name")
            return False
        path = self._directory.join(name)
        try:
            segment = Segment.open(self._storage, path, name, parsed[2])
            self._check_identity(segment)
        except UnusableSegment as error:
            self._ignore(name, str(error))
            return False
        except MemoryError:
            self._ignore(name, "too large")
            return False
        except FileNotFoundError:
            raise
        except OSError as error:
            # Not for good: the next listing tries again (too many open files, a server that comes back).
            self._report(path, f"cannot be opened: {error.strerror}")
            return False
        self.known[name] = segment
        self._collect(segment)
        return True

    def _follow(self, segment: Segment) -> bool:
        try:
            changed = segment.refresh(self._storage)
            self._check_identity(segment)
        except (UnusableSegment, MemoryError) as error:
            del self.known[segment.name]
            self._ignore(segment.name, str(error) or "too large")
            return True
        except OSError as error:
            self._report(self._directory.join(segment.name), f"cannot be followed: {error.strerror}")
            return False
        self._collect(segment)
        return changed

    def _check_identity(self, segment: Segment) -> None:
        if segment.metadata is not None and segment.metadata.identity != self._identity:
            raise UnusableSegment(f"belongs to {segment.metadata.identity}")

    def _collect(self, segment: Segment) -> None:
        self.damaged += segment.damaged
        segment.damaged = 0
        for what in segment.problems:
            self._report(self._directory.join(segment.name), what)
        segment.problems.clear()

    def _lose(self, name: str) -> bool:
        segment = self.known[name]
        if self.is_own(segment):
            try:
                if segment.source.status().st_nlink:
                    return False  # a listing that lags behind
            except OSError:
                # ESTALE, where a server removed it: gone as well.
                pass
            self._abandon(segment)
        del self.known[name]
        return True

    def _ignore(self, name: str, what: str) -> None:
        self._ignored.add(name)
        self._report(self._directory.join(name), what)

    def _report(self, path: str, what: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS and (path, what) not in self.problems[-10:]:
            self.problems.append((path, what))
