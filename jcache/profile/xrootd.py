"""The CSV of XRootD's own recorder, the client's plug-in XrdClRecorder: written for `xrdreplay`, and read.

A line for each operation: file object, name, start, arguments and timeout separated by semicolons, stop, status,
response; times are Unix times in seconds. Version 6 puts each into quotes, as is done here; version 5 has none.
"""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TextIO

from jcache.counters import LISTING, NAMED, OPEN, READ, STAT, VECTOR
from jcache.naming.address import split_scheme
from jcache.naming.identity import Unidentifiable, identify
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start
from jcache.segment.format import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from jcache.profile.reader import Profile

__all__ = ["Imported", "from_xrootd", "to_xrootd"]

MOST_CHUNKS, MOST_CHUNK_BYTES = 1024, 2097136
"""What servers take in one vector read, and of each of its ranges."""

_READ_ONLY = 16  # kXR_open_read
_WRITABLE = 0x2 | 0x8 | 0x20 | 0x200 | 0x8000  # delete, new, update, append, write
_SUCCESS = "[SUCCESS]"
_WRITES = frozenset({"Write", "PgWrite", "VectorWrite", "Sync", "Truncate", "Fcntl"})
_BLOCK = 1 << 15


def to_xrootd(profile: Profile, file: TextIO) -> int:
    """Write what was read as that recorder would have; return how many lines.

    Each opening is a file object of its own, to which the reads that follow it belong. Vectors are cut as servers take
    them. Questions about names are left out, of which the recorder knows none.

    Raises:
        ProfileError: A profile cannot be read.
        OSError: The file does not take it.
    """
    lines = 0
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    objects: dict[tuple[int, int], int] = {}
    ready_s: dict[int, float] = {}
    end_s = profile.start_time

    def write(number: int, name: str, times_s: tuple[float, float], args: str, said: str = "") -> None:
        nonlocal lines, end_s
        start_s, stop_s = times_s
        lines, end_s = lines + 1, max(end_s, stop_s)
        arguments = f"{args};0" if args else "0"
        writer.writerow([number, name, f"{start_s:.9f}", arguments, f"{stop_s:.9f}", _SUCCESS, said])

    for process, one in profile.requests():
        if one.kind in (STAT, LISTING, NAMED):
            continue
        key = process, one.file
        stop_s = profile.start_time + one.end_us / 1e6
        start_s = stop_s - one.duration_us / 1e6
        if one.kind == OPEN or key not in objects:
            number = objects[key] = len(ready_s) + 1
            ready_s[number] = stop_s if one.kind == OPEN else start_s
            url = profile.files[one.file].replace(";", "%3B")
            write(number, "Open", (start_s, ready_s[number]), f"{url};{_READ_ONLY};0")
            if one.kind == OPEN:
                continue
        number = objects[key]
        # A file that was opened by its first read is open when that begins, for who replays it.
        start_s = max(start_s, ready_s[number])
        stop_s = max(start_s, stop_s)
        for chunks in _requests(one):
            sizes = [f"{start};{size}" for start, size in chunks]
            total = sum(size for _, size in chunks)
            if one.kind == VECTOR:
                write(number, "VectorRead", (start_s, stop_s), ";".join(sizes), ";".join([str(total), *sizes]))
            else:
                write(number, "Read", (start_s, stop_s), sizes[0], str(total))
    for number in ready_s:
        write(number, "Close", (end_s, end_s), "")
    return lines


def _requests(one: Request) -> Iterator[list[tuple[int, int]]]:
    """Yield the requests that a read is for an XRootD server: offsets and sizes."""
    pairs = zip(one.starts, one.stops, strict=True)
    if one.kind == READ:
        yield from ([(start, stop - start)] for start, stop in pairs)
        return
    chunks: list[tuple[int, int]] = []
    for start, stop in pairs:
        for at in range(start, stop, MOST_CHUNK_BYTES):
            chunks.append((at, min(stop - at, MOST_CHUNK_BYTES)))
            if len(chunks) == MOST_CHUNKS:
                yield chunks
                chunks = []
    if chunks:
        yield chunks


@dataclass(slots=True)
class Imported:
    """What became of the lines of a recorder's file."""

    requests: int = 0
    failed: int = 0
    writes: int = 0
    odd: int = 0


def from_xrootd(path: str, out: BinaryIO) -> Imported:
    """Write the profile of what XRootD's recorder has recorded, all of it as read from the origin.

    Args:
        path: Its file. It is read twice.
        out: Gets the profile.

    Raises:
        OSError: A file cannot be read or written.
    """
    begin_s = min(map(_start_s, _lines(path)), default=0.0)
    begin_s = begin_s if math.isfinite(begin_s) else 0.0
    name = os.path.splitext(os.path.basename(path))[0]
    out.write(pack_start() + pack_json(HEAD, {"appname": name, "start_time": begin_s}))
    done = Imported()
    urls: dict[str, int] = {}
    objects: dict[str, int] = {}
    batch = Batch()
    known = 0
    for line in _lines(path):
        if line is None:
            done.odd += 1
            continue
        name = line.name
        if not line.status.startswith(_SUCCESS):
            done.failed += 1
        elif name in _WRITES:
            done.writes += 1
        elif name != "Close":
            request = _request(line, begin_s, urls, objects)
            if request is None:
                done.odd += 1
            else:
                done.requests += 1
                batch.append(request)
        if len(batch) >= _BLOCK:
            known = _write(out, urls, known, batch)
            batch = Batch()
    _write(out, urls, known, batch)
    out.write(pack_json(END, {"lost": 0}))
    return done


def _write(out: BinaryIO, urls: dict[str, int], known: int, batch: Batch) -> int:
    if len(urls) > known:
        out.write(pack_json(FILES, list(urls)[known:]))
    if len(batch):
        out.write(pack_batch(batch))
    return len(urls)


class _Line(NamedTuple):
    """One operation."""

    file: str
    name: str
    start: str
    args: str
    stop: str
    status: str
    said: str


def _lines(path: str) -> Iterator[_Line | None]:
    """Yield the operations in a file; None for what is none."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        while True:
            try:
                row = next(rows, None)
            except csv.Error:
                yield None
                continue
            if row is None:
                return
            yield _Line(*row) if len(row) == len(_Line._fields) else None


def _start_s(line: _Line | None) -> float:
    try:
        return math.inf if line is None else float(line.start)
    except ValueError:
        return math.inf


def _request(line: _Line, begin_s: float, urls: dict[str, int], objects: dict[str, int]) -> Request | None:
    """Return what a line says; None where it is not understood."""
    args = line.args.split(";")[:-1]
    hit = bypass = ahead = thread = 0
    try:
        end_us = max(round((float(line.stop) - begin_s) * 1e6), 0)
        duration_us = max(round((float(line.stop) - float(line.start)) * 1e6), 0)
        starts, stops, got = [], [], 0
        if line.name == "Open":
            kind, url = OPEN, _without_secrets(";".join(args[:-2]))
            if int(args[-2]) & _WRITABLE:
                objects.pop(line.file, None)
                return None
            objects[line.file] = urls.setdefault(url, len(urls))
        elif line.name == "Stat":
            kind, starts, stops, got = STAT, [0], [int(line.said.split(";")[0])], 1
        else:
            kind = {"Read": READ, "PgRead": READ, "VectorRead": VECTOR}[line.name]
            numbers = list(map(int, args))
            starts, sizes = numbers[::2], numbers[1::2]
            stops = [start + size for start, size in zip(starts, sizes, strict=True)]
            got = int(line.said.split(";")[0] or 0)
        file = objects[line.file]
        if not 0 <= min(end_us, got, *starts) <= max(end_us, got, *stops, *starts) < MOST_BYTES:
            return None
    except (ValueError, OverflowError, KeyError, IndexError):
        return None
    return Request(kind, end_us, duration_us, thread, file, starts, stops, hit, got, bypass, ahead)


def _without_secrets(url: str) -> str:
    """Return an address as all of JCache shows it; what cannot be told safely loses its user and its query."""
    try:
        return identify(split_scheme(url)[0], url, {}, environ={}).url
    except Unidentifiable:
        return re.sub(r"://[^/@]*@", "://", re.split(r"[?#]", url)[0])
