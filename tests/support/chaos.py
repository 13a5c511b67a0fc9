"""Real processes that read, record and are killed with SIGKILL at random moments, until the journals are whole.

    python tests/support/chaos.py --seed 1 --kills 300

Each file's ranges are read by one process after the other, a few at once at times, in another order and in another
grouping each time: as vectors, as single reads, cut into smaller ranges, joined with their neighbours. The processes
are killed while they record. Each byte that they get is held against the file. After a file's last kill two processes
read all of it in peace, and the second must find every byte in the journal. Every other file's journal lies on a tmpfs
that is nearly full (where this user may mount one) until the last kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
from servers import Nginx, find_nginx

from jcache.activate import activate, deactivate
from jcache.report.faces import text  # noqa: F401 - so that the processes that are forked here need not
from jcache.settings.config import Config

FILE_BYTES, RANGES, LONGEST_BYTES = 6_000_000, 100, 40_000
KILLS_PER_FILE = 10
TMPFS_BYTES = 48 << 20
PATIENCE_S = 60
WRONG = 77


@dataclass(slots=True)
class Tally:
    """What a run came to."""

    kills: int = 0
    processes: int = 0
    files: int = 0
    wrong: int = 0
    checked_bytes: int = 0
    recorded_when_killed: list[float] = field(default_factory=list)
    """Of each file's bytes, the share that the journal had after its last kill."""
    last_hit_rates: list[float] = field(default_factory=list)
    on_tmpfs: int = 0
    full: int = 0
    """Processes that found no space."""


def pattern(rng: random.Random) -> list[tuple[int, int]]:
    """Disjoint ranges, some of which touch."""
    step = FILE_BYTES // RANGES
    spans = []
    for i in range(RANGES):
        start = i * step + (0 if rng.random() < 0.3 else rng.randrange(step - LONGEST_BYTES))
        spans.append((start, start + (step if rng.random() < 0.1 else rng.randint(1, LONGEST_BYTES))))
    return spans


def regroup(spans: list[tuple[int, int]], rng: random.Random) -> list[list[tuple[int, int]]]:
    """The same bytes as another program asks for them."""
    pieces: list[tuple[int, int]] = []
    for start, stop in spans:
        if pieces and pieces[-1][1] == start and rng.random() < 0.7:
            pieces[-1] = pieces[-1][0], stop
        elif stop - start > 10 and rng.random() < 0.4:
            cut = rng.randint(start + 1, stop - 1)
            pieces += [(start, cut), (cut, stop)]
        else:
            pieces.append((start, stop))
    style = rng.choice(["forwards", "shuffled", "backwards"])
    if style == "shuffled":
        rng.shuffle(pieces)
    elif style == "backwards":
        pieces.reverse()
    vectors = []
    while pieces:
        count = rng.choice([1, 1, 3, 8, 20])
        vectors.append(pieces[:count])
        del pieces[:count]
    return vectors


def read_all(url: str, path: Path, cache: Path, spans: list[tuple[int, int]], seed: int, told: int) -> int:
    """Read and check everything, in a process of its own; tell after each vector, and at the end what was hit."""
    rng = random.Random(seed)
    active = activate(Config(dir=os.fspath(cache), json=os.fspath(cache.parent / "reports"), summary=False))
    fs = fsspec.filesystem("http")
    local = os.open(path, os.O_RDONLY)
    for vector in regroup(spans, rng):
        if len(vector) > 1:
            data = fs.cat_ranges([url] * len(vector), [a for a, _ in vector], [b for _, b in vector])
        elif rng.random() < 0.5:
            data = [fs.cat_file(url, *vector[0])]
        else:
            with fs.open(url) as file:
                file.seek(vector[0][0])
                data = [file.read(vector[0][1] - vector[0][0])]
        for (start, stop), got in zip(vector, data, strict=True):
            if got != os.pread(local, stop - start, start):
                os.write(2, f"wrong bytes at [{start}, {stop}) of {url}\n".encode())
                return WRONG
        os.write(told, b".")
    active.close()
    counts = active.counters.snapshot()
    answer = {"hit": counts.read_hit + counts.readv_hit, "miss": counts.read_miss + counts.readv_miss,
              "failures": counts.failures}  # fmt: skip
    os.write(told, b"\n" + json.dumps(answer).encode())
    return 0


class Reader:
    """One forked process."""

    def __init__(self, *args: object) -> None:
        self._told, told = os.pipe()
        self.text = b""
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._told)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                status = read_all(*args, told)  # type: ignore[arg-type]
            except BaseException:
                traceback.print_exc()
            if status == 0:
                # What it had to tell and to record it has; nothing of the parent's is to be ended twice.
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(status)
        os.close(told)

    def wait_for(self, vectors: int) -> None:
        """Wait until it has read so many, or has ended."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.text.count(b".") < vectors and b"\n" not in self.text:
            if not select.select([self._told], [], [], max(0, deadline_s - time.monotonic()))[0]:
                raise TimeoutError("a reader is stuck")
            data = os.read(self._told, 65536)
            if not data:
                return
            self.text += data

    def end(self, *, kill: bool) -> dict[str, int] | None:
        """Kill it, or wait for its end; return what it told at its end."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.wait_for(1 << 60)
        while data := os.read(self._told, 65536):
            self.text += data
        os.close(self._told)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status == WRONG:
            return {"wrong": 1}
        if status != -signal.SIGKILL:
            raise RuntimeError(f"a reader ended with {status}")
        answer = self.text.partition(b"\n")[2]
        return json.loads(answer) if answer.endswith(b"}") else None


@contextlib.contextmanager
def tmpfs(path: Path):
    """A small file system in memory, or None where this user may not mount one."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", path], check=False, capture_output=True
    )
    try:
        yield path if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", path], check=True)


def fill(path: Path, leave_bytes: int) -> Path:
    """Leave so much space and no more."""
    ballast = path / "ballast"
    with ballast.open("wb") as file:
        status = os.statvfs(path)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave_bytes)
    return ballast


def run(seed: int, kills: int, work: Path) -> Tally:
    """Kill so many processes, and return what came of it."""
    rng, tally = random.Random(seed), Tally()
    (work / "files").mkdir()
    (work / "nginx").mkdir()
    server = Nginx(work / "files", work / "nginx")
    try:
        with tmpfs(work / "small") as small:
            while tally.kills < kills:
                one_file(rng, tally, kills, work, server, small if tally.files % 2 else None)
    finally:
        server.stop()
    return tally


def one_file(rng: random.Random, tally: Tally, kills: int, work: Path, server: Nginx, small: Path | None) -> None:
    """Record one file with processes that are killed, then twice in peace."""
    path = work / "files" / f"{tally.files}.bin"
    path.write_bytes(rng.randbytes(FILE_BYTES))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    spans = pattern(rng)
    size = sum(stop - start for start, stop in spans)
    root = small or work
    cache, url = root / "cache", server.url(path.name)
    ballast = None if small is None else fill(small, rng.randint(10_000, size))
    last = min(tally.kills + KILLS_PER_FILE, kills)
    tally.files += 1
    tally.on_tmpfs += small is not None

    def start() -> Reader:
        tally.processes += 1
        tally.checked_bytes += size
        return Reader(url, path, cache, spans, rng.randrange(1 << 30))

    while tally.kills < last:
        readers = [start() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        # Two are killed at the same time, or one goes on with what the other leaves.
        doomed = readers[: rng.randint(1, len(readers))][: last - tally.kills]
        for reader in doomed:
            reader.wait_for(rng.randint(0, 6))
        time.sleep(rng.choice([0, 0, rng.random() * 0.005]))  # whatever the recorder is at by then
        for reader in readers:
            answer = reader.end(kill=reader in doomed)
            tally.kills += reader in doomed and answer is None
            tally.wrong += answer is not None and answer.get("wrong", 0)
            tally.full += answer is not None and answer.get("failures", 0) > 0
    if ballast is not None:
        ballast.unlink()
    rates = []
    for _ in range(2):
        answer = start().end(kill=False)
        assert answer is not None
        tally.wrong += answer.get("wrong", 0)
        rates.append(answer["hit"] / (answer["hit"] + answer["miss"]))
    tally.recorded_when_killed.append(rates[0])
    tally.last_hit_rates.append(rates[1])
    path.unlink()
    shutil.rmtree(cache)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=300)
    options = parser.parse_args()
    if find_nginx() is None:
        print("nginx is not installed")
        return 2
    deactivate()
    began_s = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="jcache-chaos-"))
    try:
        tally = run(options.seed, options.kills, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    lowest = min(tally.last_hit_rates)
    partial = sum(0 < rate < 1 for rate in tally.recorded_when_killed)
    print(
        f"seed {options.seed}: {tally.kills} processes killed of {tally.processes}, {tally.files} files "
        f"({tally.on_tmpfs} on a nearly full tmpfs, {tally.full} processes met it full), "
        f"{partial} journals incomplete after the last kill\n"
        f"wrong bytes: {tally.wrong} reads; hit rate two runs after the last kill: {100 * lowest:.2f} % "
        f"at worst; {time.monotonic() - began_s:.0f} s"
    )
    return int(tally.wrong > 0 or lowest < 1 or tally.kills < options.kills)


if __name__ == "__main__":
    sys.exit(main())
