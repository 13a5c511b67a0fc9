"""The segments of one journal as its directory has them: found, opened, followed, let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcache.journal.generations import Generations, write_note
from jcache.journal.liveness import may_live
from jcache.segment.errors import UnusableSegment
from jcache.segment.format import MOST_EXTENTS, parse_segment_name
from jcache.segment.proof import latest
from jcache.segment.segment import Segment
from jcache.segment.version import StoredVersion
from jcache.segment.writer import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.segment.directory import Directory
    from jcache.segment.format import Metadata
    from jcache.segment.table import Run
    from jcache.segment.version import Version
    from jcache.segment.writer import SegmentWriter
    from jcache.system.storage import Storage

__all__ = ["Segments"]

_MOST_PROBLEMS = 1000
_MOST_LISTINGS = 4


class Segments:
    """What is known of a directory's segments. Its methods are called under the journal's lock.

    Attributes:
        known: The usable ones by name; the one that this process writes is among them.
        writer: The writer of that one, if there is one.
        generations: Which version is the newest.
        damaged: Extents found damaged so far.
        problems: Path and description of every file that was ignored or found damaged, oldest first.
    """

    __slots__ = (
        "_directory", "_identity", "_ignored", "_rows", "_storage", "_tier", "damaged", "generations", "known",
        "problems", "writer",
    )  # fmt: skip

    def __init__(self, storage: Storage, directory: Directory, identity: str, *, tier: int = 0) -> None:
        self._tier = tier
        self._storage = storage
        self._directory = directory
        self._identity = identity
        self._ignored: set[str] = set()
        self._rows = 0  # of all that are known, as they are opened
        self.known: dict[str, Segment] = {}
        self.writer: SegmentWriter | None = None
        self.generations = Generations()
        self.damaged = 0
        self.problems: list[tuple[str, str]] = []

    def look(self) -> bool:
        """List the directory, open what is new, let go of what is gone; True if there was either.

        A segment that is gone before it could be opened was merged into another one, which an older listing need not
        have: so the directory is listed again.
        """
        changed = False
        self._rows = sum(segment.rows for segment in self.known.values())
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
            forgotten += run.forget_row(row) or known
        if forgotten:
            name = segment.name if segment else "a removed segment"
            self.damaged += forgotten
            self._report(self._directory.join(name), f"{forgotten} extents: {what}")
        return forgotten

    def has(self, run: Run) -> bool:
        """Whether a run is of one of these segments."""
        return any(segment.source is run.source for segment in self.known.values())

    def lose(self, run: Run) -> None:
        """Let go of a segment that cannot be opened any more; the next look finds it where it is there still."""
        self._directory.forget()
        for name, segment in list(self.known.items()):
            if segment.source is run.source and not self.is_own(segment):
                del self.known[name]

    def versions(self) -> list[StoredVersion]:
        """Return the states of the file that the segments belong to, the newest first; see `Generations`."""
        states: dict[Version, list[Segment]] = {}
        # A copy at one moment, without the lock: whoever asks does not wait for what is being written.
        for segment in list(self.known.values()):
            if segment.metadata is not None:
                states.setdefault(segment.metadata.version, []).append(segment)
        stored = []
        for version, segments in states.items():
            about = [segment.metadata for segment in segments if segment.metadata is not None]
            newest, proved = max(about, key=lambda each: each.order), latest(segment.proved for segment in segments)
            validated_ns = max(segment.mtime_ns for segment in segments)
            age_s = None if proved is None else proved.age_s
            stored.append((newest.order, StoredVersion(version, newest.info, validated_ns, age_s)))
        return [version for _, version in sorted(stored, key=lambda item: item[0], reverse=True)]

    def described(self) -> list[Metadata]:
        """Return what the segments say of themselves."""
        return [segment.metadata for segment in self.known.values() if segment.metadata is not None]

    def touch(self, version: Version, *, keep_time: bool) -> None:
        """Take a version for the newest, and have others do so where what is recorded says otherwise.

        Args:
            version: The origin's, just now.
            keep_time: Whether others are to know when that was.
        """
        generation, proved = self.generations.found(version, self.described())
        about = [each for each in self.described() if each.version.same_as(version)]
        newest = max(about, key=lambda each: each.order, default=None)
        if newest is None or (newest.generation == generation and not keep_time):
            return  # what is going to be recorded says it
        notes = [name for name, segment in self.known.items() if self._is_note(segment, version)]
        metadata = describe(self._identity, newest.version, newest.info, generation=generation, proved=proved)
        try:
            name = write_note(self._storage, self._directory.path, metadata, file_mode=self._directory.file_mode)
            self._open(name)
            for old in notes:
                self._storage.unlink(self._directory.join(old))
                del self.known[old]
        except OSError:
            return  # others ask the origin themselves

    def _is_note(self, segment: Segment, version: Version) -> bool:
        """Whether a segment says nothing that a note of this version does not say. Of an empty file it says all."""
        about = segment.metadata
        if about is None or not segment.sealed or segment.table.runs or self.is_own(segment):
            return False
        return about.version.size_bytes > 0 or about.version == version

    def remove(self) -> OSError | None:
        """Remove all files but those that other processes write; return the last failure, if there was one."""
        failure: OSError | None = None
        self.generations.forget()
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
            self._check_rows(self._rows + segment.rows)
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
        segment.source.tier = self._tier
        self.known[name] = segment
        self._rows += segment.rows
        self._collect(segment)
        return True

    def _follow(self, segment: Segment) -> bool:
        try:
            changed = segment.refresh(self._storage)
            self._check_identity(segment)
            if changed:
                self._check_rows(sum(each.rows for each in self.known.values()))
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

    def _check_rows(self, rows: int) -> None:
        if rows > MOST_EXTENTS:
            raise UnusableSegment("the journal has more extents than are read")

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
