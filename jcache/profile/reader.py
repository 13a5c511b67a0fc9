"""Profiles as they are read: of one process, and of all processes of a run."""

from __future__ import annotations

import heapq
import itertools
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jcache.profile.format import (
    BLOCK,
    END,
    FILES,
    FORMAT_VERSION,
    HEAD,
    REQUESTS,
    START,
    TOLD,
    Batch,
    BlockHead,
    Request,
    parse_batch,
    parse_block_head,
    parse_json,
    parse_payload,
    parse_start,
)
from jcache.report.places import open_file
from jcache.segment.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

__all__ = ["Profile", "ProfileError", "Recording", "State"]

State = Literal["complete", "cut off", "damaged"]
"""How a recording ends: as its process did; with the last flush of one that was killed, or still runs; or in bytes that
are not what was written, from which on nothing is read."""


class ProfileError(Exception):
    """A file is no profile, or cannot be read; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Head:
    """Who recorded a profile. The times are Unix times in seconds."""

    run: str = ""
    appname: str = ""
    host: str = ""
    pid: int = 0
    command: str = ""
    start_time: float = 0.0


class Told(NamedTuple):
    """What a profile says of a file beside its address."""

    query: str
    """Without which its URL is another file's; empty where it has none, or one that may be secret."""

    version: Version | None
    """As it was read first."""


@dataclass(slots=True)
class Recording:
    """The profile of one process, read from its file block by block: never all of it at once.

    Attributes:
        path: The file.
        head: Who recorded it.
        files: Addresses by number, as far as the file was read.
        told: What else is told of files, by number; likewise.
        state: How it ends; known once it was read to its end.
        lost: Requests that happened and were not recorded; likewise.
        on_read: Is told how many bytes of the file were read, block by block.
    """

    path: str
    head: Head
    files: list[str] = field(default_factory=list)
    told: dict[int, Told] = field(default_factory=dict)
    state: State = "cut off"
    lost: int = 0
    end_time: float | None = None
    on_read: Callable[[int], None] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """Return a recording of which the head was read.

        Raises:
            ProfileError: The file cannot be read, or is no profile.
        """
        nobody = Head()
        recording = cls(os.fspath(path), nobody)
        next(recording.batches(), None)
        if recording.head is nobody:
            raise ProfileError(f"{recording.path} is damaged: it does not say who recorded it")
        return recording

    def batches(self) -> Iterator[Batch]:
        """Yield the requests, block by block, from the first one on.

        Raises:
            ProfileError: The file cannot be read, or is no profile.
        """
        self.files, self.told, self.state = [], {}, "cut off"
        for head, payload in self._blocks():
            if head.kind == REQUESTS:
                batch = parse_batch(head, payload)
                if batch is None or max(batch.files, default=-1) >= len(self.files):
                    self.state = "damaged"
                    return
                yield batch
            elif not self._take(head.kind, parse_json(payload)):
                self.state = "damaged"
                return

    def count(self) -> tuple[int, int]:
        """Return how many requests and ranges there are, without unpacking them; the file is read to its end."""
        self.files, self.told, self.state = [], {}, "cut off"
        requests = ranges = 0
        for head, payload in self._blocks():
            if head.kind != REQUESTS and not self._take(head.kind, parse_json(payload)):
                self.state = "damaged"
                break
            requests, ranges = requests + head.requests, ranges + head.ranges
        return requests, ranges

    def _blocks(self) -> Iterator[tuple[BlockHead, bytes]]:
        try:
            with open_file(self.path) as file:
                version = parse_start(file.read(START.size))
                if version is None:
                    raise ProfileError(f"{self.path} is no profile")
                if version != FORMAT_VERSION:
                    raise ProfileError(f"{self.path} is of version {version} of the format, which is not known here")
                yield from self._blocks_of(file)
        except OSError as error:
            raise ProfileError(f"cannot read {self.path}: {error.strerror or error}") from None

    def _blocks_of(self, file: BinaryIO) -> Iterator[tuple[BlockHead, bytes]]:
        while data := file.read(BLOCK.size):
            head = parse_block_head(data)
            if head is None:
                self.state = "damaged" if len(data) == BLOCK.size else "cut off"
                return
            stored = file.read(head.stored_bytes)
            if len(stored) < head.stored_bytes:
                return
            payload = parse_payload(head, stored)
            if payload is None:
                self.state = "damaged"
                return
            if self.on_read is not None:
                self.on_read(len(data) + len(stored))
            yield head, payload

    def _take(self, kind: int, value: Any) -> bool:
        """Take note of what a block says that has no requests; False where it is not what it should be."""
        if kind == HEAD and isinstance(value, dict):
            known = {name: type(default) for name, default in _DEFAULTS.items()}
            said = {name: value[name] for name, kind in known.items() if isinstance(value.get(name), kind)}
            if not 0 <= said.get("start_time", 0.0) <= _LATEST_S:
                del said["start_time"]
            self.head = Head(**said)
        elif kind == FILES and isinstance(value, list) and all(isinstance(one, str) for one in value):
            self.files += value
        elif kind == TOLD and isinstance(value, dict):
            numbers = [number for number in value if len(number) < 12 and number.isdecimal()]
            self.told |= {int(number): _told(value[number]) for number in numbers}
        elif kind == END and isinstance(value, dict):
            self.state = "complete"
            lost, end_time = value.get("lost"), value.get("end_time")
            self.lost = lost if isinstance(lost, int) else 0
            self.end_time = end_time if isinstance(end_time, float) and 0 <= end_time <= _LATEST_S else None
        else:
            # Kinds of later versions are passed over, as long as this one can be read without them.
            return kind not in (HEAD, FILES, TOLD, END)
        return True


def _told(said: Any) -> Told:
    """Return what a profile says of a file, as far as it can be understood."""
    fields = said if isinstance(said, dict) else {}
    query, version = fields.get("query"), fields.get("version")
    try:
        known = Version.from_json(version) if isinstance(version, dict) else None
    except ValueError:
        known = None
    return Told(query if isinstance(query, str) else "", known)


_LATEST_S = 1e11  # no calendar goes much further
_DEFAULTS = {"run": "", "appname": "", "host": "", "pid": 0, "command": "", "start_time": 0.0}


@dataclass(slots=True)
class Profile:
    """The profile of a run: the recordings of its processes, with one numbering of files, one clock, one of threads.

    Attributes:
        recordings: Of each process, in the order in which they began.
        files: Addresses by number, as far as the recordings were read.
        queries: By address, the query without which the URL is another file's; once the recordings were read.
        versions: By address, those that the processes read, as far as they are known; likewise.
    """

    recordings: Sequence[Recording]
    files: list[str] = field(default_factory=list)
    queries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    @property
    def start_time(self) -> float:
        """Unix time of the beginning, in seconds: where its clock begins."""
        return min((one.head.start_time for one in self.recordings), default=0.0)

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the number of a process, and requests of it: those of one process after those of another.

        Raises:
            ProfileError: A file cannot be read, or is no profile.
        """
        for process, recording in enumerate(self.recordings):
            later_us = round((recording.head.start_time - self.start_time) * 1e6)
            for batch in recording.batches():
                numbers = [self._number(url) for url in recording.files]
                batch.files = [numbers[file] for file in batch.files]
                batch.ends_us = [end + later_us for end in batch.ends_us]
                yield process, batch
            self._learn(recording)

    def requests(self) -> Iterator[tuple[int, Request]]:
        """Yield the number of a process, and a request of it, of all of them together in the order of their ends.

        Raises:
            ProfileError: As above.
        """
        yield from heapq.merge(*map(self._of, range(len(self.recordings))), key=lambda one: one[1].end_us)

    def _of(self, process: int) -> Iterator[tuple[int, Request]]:
        recording = self.recordings[process]
        later_us = round((recording.head.start_time - self.start_time) * 1e6)
        for batch in recording.batches():
            numbers = [self._number(url) for url in recording.files]
            for one in sorted(batch, key=lambda one: one.end_us):
                yield process, replace(one, file=numbers[one.file], end_us=one.end_us + later_us)
        self._learn(recording)

    def look_ahead(self) -> dict[str, str]:
        """Read the recordings to their ends without the requests in them; return the queries.

        Raises:
            ProfileError: A file cannot be read, or is no profile.
        """
        for recording in self.recordings:
            recording.count()
            self._learn(recording)
        return self.queries

    def _learn(self, recording: Recording) -> None:
        for number, told in recording.told.items():
            url = recording.files[number] if number < len(recording.files) else ""
            if told.query:
                self.queries[url] = told.query
            versions = self.versions.setdefault(url, [])
            if told.version is not None and told.version not in versions:
                versions.append(told.version)

    def _number(self, url: str) -> int:
        number = self._numbers.get(url)
        if number is None:
            number = self._numbers[url] = len(self.files)
            self.files.append(url)
        return number

    @property
    def lost(self) -> int:
        """Requests that happened and were not recorded, as far as the recordings were read."""
        return sum(one.lost for one in self.recordings)

    @property
    def states(self) -> dict[State, int]:
        """How many recordings end how; known once they were read."""
        found = sorted(one.state for one in self.recordings)
        return {state: len(list(group)) for state, group in itertools.groupby(found)}
