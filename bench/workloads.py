"""The workloads and the ways of reading, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daemons import LAN, STREAM, WAN, Link

Family = Literal["origin", "local", "jcache", "trusted", "blockcache", "filecache", "xcache", "whole"]
FAMILIES: tuple[Family, ...] = ("origin", "whole", "local", "jcache", "trusted", "blockcache", "filecache", "xcache")
CACHED = {"jcache", "trusted", "blockcache", "filecache", "xcache"}
MEANING = {
    "origin": "origin alone",
    "whole": "origin, one large read",
    "local": "local file through fsspec",
    "jcache-cold": "JCache, cold",
    "jcache-warm": "JCache, warm",
    "trusted-cold": "JCache, VALIDATE=never, cold",
    "trusted-warm": "JCache, VALIDATE=never, warm",
    "blockcache-cold": "fsspec blockcache, cold",
    "blockcache-warm": "fsspec blockcache, warm",
    "filecache-cold": "fsspec filecache, cold",
    "filecache-warm": "fsspec filecache, warm",
    "xcache-cold": "XCache, cold",
    "xcache-warm": "XCache, warm",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """What is read, and how.

    Attributes:
        name: As on the command line.
        kind: What the measured process does; see `reader.py`.
        data: Which files and pattern.
        protocol: How they are served.
        families: The ways in which it makes sense.
        link: The wire to the origin; None for the loopback interface.
        step: Bytes at a time, where it reads a stream.
        passes: How often one process reads everything: the first time shows what opening costs, the others what
            reading costs.
        help: One line.
    """

    name: str
    kind: str
    data: str
    protocol: str
    families: tuple[Family, ...]
    help: str
    link: Link | None = None
    step: int = 0
    passes: int = 3


ALL: tuple[Family, ...] = ("origin", "local", "jcache", "trusted", "blockcache", "filecache", "xcache")
AWAY: tuple[Family, ...] = ("origin", "jcache", "trusted", "blockcache", "xcache")
PLAIN: tuple[Family, ...] = ("origin", "local", "jcache")

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("seed", "vectors", "seed", "xrootd", ALL, "6.44 % of 1 GB, ranges of 0.58 MB, nine in a vector"),
        Workload("seed-lan", "vectors", "seed", "xrootd", AWAY, "the same, 1 ms away", LAN),
        Workload("seed-wan", "vectors", "seed", "xrootd", AWAY, "the same, 20 ms away at 1 Gb/s", WAN, passes=1),
        Workload("peers", "vectors", "peers", "xrootd", ALL, "63 MB in 124 ranges and 25 vectors"),
        Workload("agc-ranges", "vectors", "agc", "xrootd", ALL, "what uproot asks for, without uproot"),
        Workload("agc", "uproot", "ttree", "xrootd", ALL, "uproot, seven columns, TTree"),
        Workload("agc-wan", "uproot", "ttree", "xrootd", AWAY, "the same, 20 ms away at 1 Gb/s", WAN, passes=1),
        Workload("agc-rntuple", "uproot", "rntuple", "xrootd", PLAIN, "uproot, seven columns, RNTuple"),
        Workload("tiny", "vectors", "tiny", "xrootd", PLAIN, "ranges of 100 bytes, 1000 in a vector", passes=1),
        Workload(
            "stream-8k", "stream", "stream", "http", ("origin", "whole", "jcache"),
            "front to back in steps of 8 kB, HTTP, 10 ms away at 1 Gb/s", STREAM, step=8000, passes=1,
        ),
        Workload(
            "stream-256k", "stream", "stream", "http", ("origin", "whole", "jcache"),
            "the same in steps of 256 kB", STREAM, step=256_000, passes=1,
        ),
        Workload(
            "stream-8k-xrootd", "stream", "stream", "xrootd", ("origin", "whole", "jcache"),
            "front to back in steps of 8 kB, XRootD, 10 ms away at 1 Gb/s", STREAM, step=8000, passes=1,
        ),
        Workload("small-files", "many", "objects", "http", (*PLAIN, "trusted"),
                 "many files of 4 kB in one asynchronous call", passes=1),
        Workload("small-files-lan", "many", "objects", "http", ("origin", "jcache", "trusted"),
                 "the same, 1 ms away", LAN, passes=1),
    )
}  # fmt: skip
