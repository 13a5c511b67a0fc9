"""A small analysis, plain uproot, with its data set, and the real servers that serve it and count what they send."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import awkward as ak
import numpy as np
import uproot

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Nginx, XrootdServer

EVENTS, CLUSTERS = 2000, 4
JAGGED = ("Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass", "Muon_pt", "Muon_eta", "Electron_pt")
FLAT = ("MET_pt", "MET_phi", "run", "unused_1", "unused_2")
COLUMNS = ("Jet_pt", "Jet_mass", "Muon_pt", "MET_pt")
MORE_COLUMNS = (*COLUMNS, "Jet_eta", "Electron_pt", "MET_phi")

# argv: columns with commas between them, then URLs. One line for each column of each file.
JOB = """
import hashlib, sys
import awkward as ak, uproot

columns = sys.argv[1].split(",")
for url in sys.argv[2:]:
    with uproot.open(url) as file:
        events = file["Events"].arrays(columns)
    for name in columns:
        digest = hashlib.sha256(ak.to_numpy(ak.flatten(events[name], axis=None)).tobytes())
        if events[name].ndim > 1:
            digest.update(ak.to_numpy(ak.num(events[name])).tobytes())
        print(name, len(events), digest.hexdigest())
"""

# A stopped server: the XRootD client would otherwise try it for minutes.
CLIENT = {"XRD_CONNECTIONWINDOW": "2", "XRD_CONNECTIONRETRY": "1", "XRD_REQUESTTIMEOUT": "20"}

OLD_S = 1_600_000_000


def write(path: Path, *, rntuple: bool, seed: int = 1) -> None:
    """Write the data set; other seeds give other values in a file of the same size, with the mtime `OLD_S`."""
    shape, values = np.random.default_rng(0), np.random.default_rng(seed)
    counts = [{name: shape.poisson(3, EVENTS) for name in JAGGED} for _ in range(CLUSTERS)]
    with uproot.recreate(path, compression=None) as file:
        target = None
        for cluster in counts:
            columns = {
                name: ak.unflatten(values.random(int(count.sum()), dtype=np.float32), count)
                for name, count in cluster.items()
            }
            columns |= {name: values.random(EVENTS, dtype=np.float32) for name in FLAT}
            if rntuple and target is None:
                target = file.mkrntuple("Events", columns)
                continue
            if target is None:
                types = {
                    name: column.dtype if isinstance(column, np.ndarray) else column.type
                    for name, column in columns.items()
                }
                target = file.mktree("Events", types)
            target.extend(columns)
    path.chmod(0o644)
    os.utime(path, (OLD_S, OLD_S))


class Span(NamedTuple):
    """Bytes that a server was asked for."""

    start: int
    length: int


class Served:
    """Files on a real server, and what the server says that it sent; the same for XRootD and nginx."""

    def __init__(self, server: XrootdServer | Nginx) -> None:
        self.server = server
        self.directory = server.directory
        self.is_xrootd = hasattr(server, "restart")
        self._mark = 0

    def url(self, name: str, port: int | None = None) -> str:
        return self.server.url(name).replace(f":{self.server.port}/", f":{port or self.server.port}/")

    def reset(self) -> None:
        if self.is_xrootd:
            self._mark = len(self.server.reads())
        else:
            self.server.reset()

    def spans(self) -> list[Span]:
        """Every range of bytes that the server was asked for, and sent, since `reset`."""
        if self.is_xrootd:
            return [Span(read.offset, read.length) for read in self.server.reads()[self._mark :]]
        spans = []
        for request in self.server.requests():
            if request.method != "GET" or request.status not in {200, 206}:
                continue
            first, _, last = request.range.removeprefix("bytes=").partition("-")
            span = Span(int(first or 0), request.body_bytes)
            assert not last or span.length <= int(last) + 1 - span.start, request
            spans.append(span)
        return spans

    def data_bytes(self) -> int:
        """Bytes of files that the server sent since `reset`."""
        return sum(span.length for span in self.spans())

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        if self.is_xrootd:
            self.server.restart()
        else:
            self.server.start()


def covered(spans: list[Span], size_bytes: int) -> bytearray:
    """A map with a 1 for each byte of a file that lies in any of the spans."""
    found = bytearray(size_bytes)
    for start, length in spans:
        stop = min(start + length, size_bytes)
        found[start:stop] = b"\1" * (stop - start)
    return found


def journal_bytes(cache: Path) -> int:
    """Length of the journals of a cache directory, without reports and without the record of use."""
    return sum(path.stat().st_size for path in cache.rglob("*.seg"))


def disk_bytes(cache: Path, *, reports: bool = False) -> int:
    """Length of all files below a cache directory, with or without the reports of the runs."""
    return sum(
        path.stat().st_size
        for path in cache.rglob("*")
        if path.is_file() and (reports or ".reports" not in path.relative_to(cache).parts)
    )
