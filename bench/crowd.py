"""A cache directory with very many journals: what start-up, a warm read, and the commands cost in it.

    python bench/crowd.py [NUMBER [DIRECTORY]]

Makes NUMBER small journals (100,000) in a new directory below DIRECTORY, measures, and removes them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jcache.cache import usage
from jcache.cache.books import Book, Use
from jcache.cache.directory import Cache
from jcache.cache.eviction import Cleaner, Wish
from jcache.journal import Version
from jcache.segment.directory import Directory
from jcache.segment.writer import SegmentWriter
from jcache.system.storage import Storage

ROUNDS = 7
A_DIRECTORY = 1000

JOB = """
import asyncio, json, sys, time
began_s = time.perf_counter()
sys.path.insert(0, sys.argv[3])
import size_job
from jcache import session
from jcache.settings.config import Config
imported_s = time.perf_counter()
running = session.start(Config(dir=sys.argv[1], size=int(sys.argv[2]) or None, validate="never"))
asyncio.run(size_job.read_file(7, 1_000_000, 10_000))
first_s = time.perf_counter()
remote = running.files.acquire(size_job.identity_of(7))
spans, times = [(5000, 15000)], []
for _ in range(2000):
    t = time.perf_counter()
    assert remote.try_read(spans, vector=False)
    times.append(time.perf_counter() - t)
remote.release()
read_s = time.perf_counter()
session.stop()
print(json.dumps({"open and read": first_s - imported_s, "one warm read": sorted(times)[len(times) // 2],
                  "end": time.perf_counter() - read_s}))
"""


def fill(root: Path, number: int) -> None:
    """Make journals of one extent of 100 bytes, in directories of a thousand each."""
    cache, storage = Cache(root), Storage()
    cache.prepare()
    version, data = Version(1000, etag='"1"'), b"x" * 100
    book = Book(storage, usage.directory_of(str(root)))
    uses = []
    for index in range(number):
        identity = cache.identify("https", f"https://host/run{index // A_DIRECTORY}/file{index}.root", {})
        path = cache.path(identity)
        Directory(storage, path, dir_mode=0o700, file_mode=0o600).make()
        writer = SegmentWriter.create(storage, path, identity.key, version, {}, file_mode=0o600)
        writer.append([(0, data)])
        writer.seal()
        uses.append(Use(os.path.relpath(path, root), time.time() - number + index, 1, 100))
    book.add(uses)
    book.close()


def job(root: Path, limit: int) -> dict[str, float]:
    tests = Path(__file__).parent.parent / "tests" / "support"
    command = [sys.executable, "-c", JOB, str(root), str(limit), str(tests)]
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return {**times, "whole process": time.perf_counter() - began_s}


def compare(label: str, empty: Path, full: Path, limit: int) -> None:
    """Measure by turns, so that what else the machine does hits both."""
    runs: dict[Path, list[dict[str, float]]] = {empty: [], full: []}
    job(empty, limit), job(full, limit)  # records, and warms up
    for _ in range(ROUNDS):
        for root, found in runs.items():
            found.append(job(root, limit))
    for name in runs[empty][0]:
        a, b = (statistics.median(run[name] for run in runs[root]) for root in (empty, full))
        print(f"{label:<14} {name:<15} empty {a * 1e3:10.4f} ms   full {b * 1e3:10.4f} ms   {b / a:5.2f}x")


def timed(label: str, *arguments: str, root: Path) -> None:
    command = [sys.executable, "-m", "jcache", *arguments]
    began_s = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "JCACHE_DIR": str(root)}
    )
    lines = done.stdout.splitlines()
    print(f"{label:<40} {time.perf_counter() - began_s:7.2f} s   {len(lines)} lines, the last: {lines[-1][:70]}")


def main(number: int = 100_000, base: str | None = None) -> None:
    work = Path(tempfile.mkdtemp(prefix="jcache-crowd-", dir=base))
    try:
        empty, full = work / "empty", work / "full"
        began_s = time.perf_counter()
        fill(full, number)
        fill(empty, 1)
        print(f"{number} journals made in {time.perf_counter() - began_s:.1f} s")
        compare("no limit", empty, full, 0)
        began_s = time.perf_counter()
        Cleaner(Storage(), str(full)).run(Wish(to_bytes=1 << 60))
        Cleaner(Storage(), str(empty)).run(Wish(to_bytes=1 << 60))
        print(f"measured for the first time in {time.perf_counter() - began_s:.1f} s of work, without pauses")
        compare("JCACHE_SIZE", empty, full, 1 << 40)
        timed("jcache ls, first", "ls", root=full)
        timed("jcache ls, again", "ls", root=full)
        timed("jcache ls -l --sort hits", "ls", "-l", "--sort", "hits", root=full)
        timed("jcache ls '*/run1/*'", "ls", "*/run1/*", root=full)
        timed("jcache info URL", "info", "https://host/run0/file7.root", root=full)
        timed("jcache clean --older-than 10w --dry-run", "clean", "--older-than", "10w", "--dry-run", root=full)
        timed("jcache compact --all", "compact", "--all", root=full)
        size = usage.total_bytes(Storage(), str(full))
        assert size is not None
        timed("jcache clean --to 90 %", "clean", "--to", str(size * 9 // 10), root=full)
        timed("jcache clean --all", "clean", "--all", root=full)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main(*(int(a) if a.isdigit() else a for a in sys.argv[1:]))  # type: ignore[arg-type]
