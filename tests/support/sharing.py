"""Processes that begin together on one file, each with a cache directory of its client, and say what they got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# argv: file with vectors of [start, stop], seed (0: in the order of the file), how much to read in each round, URLs.
# Before each round it waits for a line. Bytes that are not those of the round before are an error.
JOB = """
import hashlib, json, random, sys
import fsspec
import jcache.session

vectors = json.load(open(sys.argv[1]))
seed, rounds, urls = int(sys.argv[2]), map(float, sys.argv[3].split(",")), sys.argv[4:]
fs = fsspec.core.url_to_fs(urls[0])[0]
order = [(url, i) for url in urls for i in range(len(vectors))]
if seed:
    random.Random(seed).shuffle(order)
print("ready", flush=True)
digests = {}
for share in rounds:
    sys.stdin.readline()
    for url, i in order[: round(share * len(order))]:
        starts, stops = zip(*vectors[i])
        path = fs._strip_protocol(url)
        data = b"".join(fs.cat_ranges([path] * len(starts), list(starts), list(stops)))
        digest = hashlib.sha256(data).hexdigest()
        assert digests.setdefault((url, i), digest) == digest, f"vector {i} of {url}"
        print(i, flush=True)
session = jcache.session.current()
session.close()
counts = session.counters.snapshot()
print(json.dumps({
    "digests": [digests[url, i] for url in urls for i in range(len(vectors))],
    "hit": counts.read_hit + counts.readv_hit,
    "miss": counts.read_miss + counts.readv_miss,
    "bypass": counts.read_bypass + counts.readv_bypass,
}), flush=True)
"""
LIMIT_S = 180


@dataclass(frozen=True, slots=True)
class Result:
    """What one process got."""

    digests: tuple[str, ...]
    hit: int
    miss: int
    bypass: int
    stderr: str


class Crew:
    """Processes that read one pattern, held back until `go`."""

    def __init__(
        self,
        work: Path,
        urls: str | Sequence[str],
        vectors: Sequence[Sequence[Sequence[int]]],
        caches: Sequence[Path],
        *,
        seeds: Sequence[int] | None = None,
        env: dict[str, str] | None = None,
        preamble: str = "",
        rounds: Sequence[float] = (1,),
    ) -> None:
        """Start one process for each cache directory, which may be the same one, and wait until all are ready."""
        pattern, script = work / "pattern.json", work / "job.py"
        pattern.write_text(json.dumps(vectors))
        script.write_text(preamble + JOB)
        urls = [urls] if isinstance(urls, str) else urls
        shares = ",".join(map(str, rounds))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
        clean |= {"JCACHE_SUMMARY": "0", "JCACHE_JSON": os.fspath(work / "json")} | (env or {})
        command = [sys.executable, os.fspath(script), os.fspath(pattern)]
        self.processes = [
            subprocess.Popen(
                [*command, str(seed), shares, *urls],
                env=clean | {"JCACHE_DIR": os.fspath(cache)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for cache, seed in zip(caches, seeds or [0] * len(caches), strict=True)
        ]
        for process in self.processes:
            self.line(process)

    def line(self, process: subprocess.Popen[str]) -> str:
        """The next line that a process prints."""
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, process.communicate()[1]
        return line

    def go(self, *chosen: subprocess.Popen[str]) -> None:
        """Let the chosen processes read, all by default."""
        for process in chosen or self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def after(self, process: subprocess.Popen[str], vectors: int) -> None:
        """Wait until a process has read so many vectors more."""
        for _ in range(vectors):
            self.line(process)

    def end(self, process: subprocess.Popen[str]) -> Result:
        """Wait for a process's end."""
        assert process.stdout is not None
        guard = threading.Timer(LIMIT_S, process.kill)
        guard.start()
        # Through the same buffer as the lines before.
        out = process.stdout.read()
        _, err = process.communicate(timeout=LIMIT_S)
        guard.cancel()
        assert process.returncode == 0, err
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return Result(tuple(told["digests"]), told["hit"], told["miss"], told["bypass"], err)

    def results(self) -> list[Result]:
        """Wait for all that are left."""
        return [self.end(process) for process in self.processes if process.returncode is None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def digests_of(path: Path, vectors: Sequence[Sequence[Sequence[int]]]) -> tuple[str, ...]:
    """The digests that a process prints which gets the right bytes."""
    import hashlib

    with path.open("rb") as file:

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return tuple(
            hashlib.sha256(b"".join(read(start, stop) for start, stop in vector)).hexdigest() for vector in vectors
        )


def once(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait for another process to get to where something holds."""
    import time

    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.002)
