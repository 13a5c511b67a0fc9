"""The report of one process, or of many merged, as data: version 1 of the JSON schema.

Field names are the schema's. Every number is a count since the run's start; sizes are in bytes, times in seconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from jcache.report.places import create_inside, make_place, read_file, storage_of
from jcache.report.schema import ReportError, build

if TYPE_CHECKING:
    from jcache.system.storage import Storage

__all__ = [
    "SCHEMA", "CacheState", "Files", "OriginTraffic", "Parts", "Profile", "Read", "ReadV", "Report", "ReportError",
    "Requests", "TierUse", "Uncached", "UrlUse",
]  # fmt: skip

SCHEMA = 1
_LEAST_BIN_S = 1e-6

# Keys beyond the schema's first publication: other writers may leave them out.
_OPTIONAL = {
    "Report": frozenset({"run", "place", "interval_s", "parts", "uncached", "tiers"}),
    "OriginTraffic": frozenset({"busy_s"}),
    "UrlUse": frozenset({"hit_bytes", "opens", "open_s", "read_s"}),
}


@dataclass(frozen=True, slots=True)
class Read:
    """Plain reads; `bytes` is the sum of the three kinds that follow it."""

    ops: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    miss_bytes: int = 0
    bypass_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReadV:
    """Vector reads and the ranges inside them; `bytes` is the sum of the three kinds that follow it."""

    ops: int = 0
    ranges: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    miss_bytes: int = 0
    bypass_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """Reads and vectors by what the journal held of them; bypassed and empty ones are in none of the three."""

    full_hits: int = 0
    partial_hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Files:
    """Openings, distinct URLs, the sum of those URLs' known sizes, and the time that opening took."""

    opened: int = 0
    unique: int = 0
    unique_bytes: int = 0
    open_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OriginTraffic:
    """What went to and came from the origins; `bytes` has the prefetched ones in it.

    `busy_s` is the time in which at least one request was under way, summed over processes; 0 where nobody measured.
    """

    requests: int = 0
    bytes: int = 0
    errors: int = 0
    retries: int = 0
    prefetch_bytes: int = 0
    prefetch_unused_bytes: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CacheState:
    """What was recorded, what went wrong in the cache, and why it was not used (`None`: it was)."""

    recorded_bytes: int = 0
    damaged_extents: int = 0
    failures: int = 0
    bypassed: str | None = None


@dataclass(frozen=True, slots=True)
class Uncached:
    """What was read and is not kept, for one reason: how many reads, and their bytes."""

    reason: str
    ops: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """Bytes over time since the start in bins of `bin_s`, no empty ones at the end. Bypassed bytes are misses here."""

    bin_s: float = 1 / 64
    hit_bytes: tuple[int, ...] = ()
    miss_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class UrlUse:
    """One file: its size (`None`: unknown), bytes requested of it, those of them that were hits, and its openings.

    `open_s` and `read_s` are the times that opening and reading it took; 0 where nobody measured.
    """

    url: str
    size: int | None = None
    bytes: int = 0
    hit_bytes: int = 0
    opens: int = 0
    open_s: float = 0.0
    read_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a merged report was made of: processes, how many of them had not ended, and the hosts, sorted."""

    processes: int
    incomplete: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TierUse:
    """What a tier of the cache below the first served, as part of the hits; `copied_bytes` is in the first one now."""

    place: str
    hit_bytes: int = 0
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `run` is one for all processes of a job; `complete` is false in a report of a run that goes on.

    `place` is where `pid` means this process: a host, its boot and its PID namespace. `interval_s` is, in an interim
    report, the time until the next is due; `parts` is in merged ones only.
    """

    appname: str
    host: str
    pid: int
    command: str
    start_time: float
    end_time: float
    complete: bool
    real_s: float
    user_s: float
    sys_s: float
    run: str = ""
    place: str = ""
    interval_s: float = 0.0
    parts: Parts | None = None
    read: Read = Read()
    readv: ReadV = ReadV()
    requests: Requests = Requests()
    files: Files = Files()
    origin: OriginTraffic = OriginTraffic()
    cache: CacheState = CacheState()
    profile: Profile = Profile()
    urls: tuple[UrlUse, ...] = ()
    uncached: tuple[Uncached, ...] = ()
    tiers: tuple[TierUse, ...] = ()

    @property
    def requested_bytes(self) -> int:
        """Bytes asked for, in plain and in vector reads."""
        return self.read.bytes + self.readv.bytes

    @property
    def hit_bytes(self) -> int:
        """Bytes asked for that came from the journal."""
        return self.read.hit_bytes + self.readv.hit_bytes

    @property
    def known_size_bytes(self) -> int:
        """Bytes asked for of the files whose size is in `files.unique_bytes`."""
        return self.requested_bytes - sum(use.bytes for use in self.urls if use.size is None)

    @property
    def processes(self) -> int:
        """How many processes the report is about."""
        return 1 if self.parts is None else self.parts.processes

    @property
    def incomplete(self) -> int:
        """How many of them had not ended when they wrote their part."""
        return int(not self.complete) if self.parts is None else self.parts.incomplete

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that they ran on."""
        return (self.host,) if self.parts is None else self.parts.hosts

    @property
    def waited_s(self) -> float:
        """Time that opening and reading files took, summed over threads and processes; 0 where nobody measured."""
        return math.fsum(use.open_s + use.read_s for use in self.urls)

    def peak(self, window_s: float = 1.0) -> tuple[float, float]:
        """Return the highest bandwidth that the profile shows.

        Args:
            window_s: Time to average over.

        Returns:
            Bytes per second, and the window it is the average of: `window_s` or, where the run was long, one bin.
            A run that was shorter than the window is averaged over its own length.
        """
        bins = [hit + miss for hit, miss in zip(self.profile.hit_bytes, self.profile.miss_bytes, strict=True)]
        count = max(1, round(window_s / self.profile.bin_s))
        window_s = count * self.profile.bin_s
        in_window = most = sum(bins[:count])
        for number in range(count, len(bins)):
            in_window += bins[number] - bins[number - count]
            most = max(most, in_window)
        length_s = min(window_s, self.real_s) or window_s
        return most / length_s, window_s

    @property
    def filename(self) -> str:
        """`jcache.<appname>.<host>.<pid>.<start>.json`; start in unix seconds, odd characters of names replaced."""
        return file_stem(self.appname, self.host, self.pid, self.start_time) + ".json"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document, schema 1, as plain Python values."""
        document: dict[str, Any] = {"schema": SCHEMA, **_plain(self)}
        if self.parts is None:
            del document["parts"]
        for name in ("place", "interval_s", "uncached", "tiers"):
            if not document[name]:
                del document[name]
        for name, value in document.items():
            if is_dataclass(value):
                document[name] = _plain(value)
        document["urls"] = [_plain(use) for use in self.urls]
        if self.uncached:
            document["uncached"] = [_plain(item) for item in self.uncached]
        if self.tiers:
            document["tiers"] = [_plain(item) for item in self.tiers]
        return document

    def dumps(self) -> str:
        """Return the JSON text: one line for each key of the document, so that people can read and grep it."""
        document = self.to_json().items()
        lines = (f"{json.dumps(key)}: {json.dumps(value, default=_number)}" for key, value in document)
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, document: object, *, source: str = "report") -> Report:
        """Check a JSON document and return the report in it.

        Args:
            document: The parsed JSON.
            source: Where it came from, for messages.

        Returns:
            The report; keys that schema 1 does not have are ignored.

        Raises:
            ReportError: A field is missing, has the wrong type, or the bytes do not add up.
        """
        if not isinstance(document, dict):
            raise ReportError(source, "", "not a JCache report: no JSON object")
        schema = document.get("schema")
        if schema != SCHEMA:
            raise ReportError(
                source, "schema", f"expected {SCHEMA}, found {schema!r}; not a JCache report, or a newer one"
            )
        report = build(cls, document, optional=_OPTIONAL, source=source)
        for name, part in (("read", report.read), ("readv", report.readv)):
            parts = part.hit_bytes + part.miss_bytes + part.bypass_bytes
            if part.bytes != parts:
                raise ReportError(source, f"{name}.bytes", f"{part.bytes} is not hit + miss + bypass, {parts}")
        if report.profile.bin_s < _LEAST_BIN_S:
            raise ReportError(source, "profile.bin_s", "not above 0")
        if len(report.profile.hit_bytes) != len(report.profile.miss_bytes):
            raise ReportError(source, "profile", "hit_bytes and miss_bytes are not of one length")
        return report

    @classmethod
    def loads(cls, text: str | bytes, *, source: str = "report") -> Report:
        """Return the report in a JSON text; raises `ReportError` where there is none."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReportError(source, "", f"not JSON: {error}") from None
        return cls.from_json(document, source=source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Return the report in a file; raises `ReportError` where it cannot be read."""
        try:
            text, _ = read_file(path)
        except OSError as error:
            raise ReportError(os.fspath(path), "", error.strerror or str(error)) from error
        return cls.loads(text, source=os.fspath(path))

    def save(self, directory: str | os.PathLike[str], *, storage: Storage | None = None) -> str:
        """Write the report into a directory, which is made (private, but in a shared cache) where it does not exist.

        The file appears whole under its final name or not at all, and replaces an earlier one of the same process. Who
        can read the directory can read the file; only its owner can write it.

        Returns:
            The file's path.

        Raises:
            OSError: It cannot be written; nothing is left behind.
        """
        directory = os.path.abspath(os.fspath(directory))
        storage = storage or storage_of(directory)
        path = os.path.join(directory, self.filename)
        temporary = os.path.join(directory, f".{self.filename}.{secrets.token_hex(4)}.tmp")
        try:
            fd = create_inside(storage, temporary, os.O_WRONLY | os.O_EXCL)
        except FileNotFoundError:
            make_place(storage, directory)
            fd = create_inside(storage, temporary, os.O_WRONLY | os.O_EXCL)
        try:
            try:
                data = memoryview(self.dumps().encode())
                position = 0
                while position < len(data):
                    written = storage.pwritev(fd, [data[position:]], position)
                    if written <= 0:
                        raise OSError(errno.EIO, "nothing written", temporary)
                    position += written
            finally:
                storage.close(fd)
            storage.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell; the name shows what the file is
                storage.unlink(temporary)
            raise
        return path


def _plain(value: Any) -> dict[str, Any]:
    """Return a dataclass's fields as a dictionary; unlike `asdict`, without copying every bin and every URL's entry."""
    return {member.name: getattr(value, member.name) for member in fields(value)}


def _number(value: object) -> int | float | str:
    """Return a number of another library's, numpy's say, as Python's; of anything else, lest all be lost, the text."""
    if isinstance(value, SupportsIndex):
        return value.__index__()
    return float(value) if isinstance(value, SupportsFloat) else str(value)


def file_stem(appname: str, host: str, pid: int, start_time: float) -> str:
    """Return what the names of all files begin with that are about one process."""
    return f"jcache.{_for_filename(appname)}.{_for_filename(host)}.{pid}.{start_time:.3f}"


def _for_filename(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:64] or "unnamed"
