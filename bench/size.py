"""What JCACHE_SIZE promises, at full size: many read more than fits, again and again, one the same few files all along.

    python bench/size.py

By default eight processes read 1 GB between them through a cache of 200 MB, each byte of it checked, and that three
times, in new processes each time. Meanwhile one more process reads a hot set of 20 MB every two seconds; it too begins
anew with each round, twice before the others do, and a last one at the end. Exits with 1 if the cache was ever larger
than it may be, or if a byte of the hot set had to be fetched more than once.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import click

TESTS = Path(__file__).resolve().parent.parent / "tests" / "support"
MB = 1_000_000
HOT = 1_000_000  # the number of the first hot file


@dataclass(frozen=True, slots=True)
class Load:
    """What is read, by whom."""

    limit_bytes: int
    processes: int
    rounds: int
    read_bytes: int
    """By all of them together, in each round."""
    file_bytes: int
    hot_files: int
    hot_file_bytes: int
    every_s: float

    @property
    def files(self) -> int:
        """How many the crowd reads in each round."""
        return self.read_bytes // self.file_bytes


@dataclass(slots=True)
class Seen:
    """What came of it."""

    most_bytes: int = 0
    """On disk, at any time."""
    looks: int = 0
    checked_bytes: int = 0
    origin_bytes: int = 0
    unrecorded: int = 0
    """Processes that left something unrecorded."""
    warnings: list[str] = field(default_factory=list)
    recorded_bytes: int = 0
    hot_passes: int = 0
    hot_origin_bytes: list[int] = field(default_factory=list)
    """By round, and by the last process."""
    hot_fewest: int = 0
    """Hot files of which anything was on disk, at any time after the first round had begun."""
    booked_bytes: int = 0
    """What the books say at the end."""
    left_bytes: int = 0
    """What is there at the end."""
    seconds: float = 0.0


class Watch:
    """Looks at the disk all the while."""

    def __init__(self, directory: Path, seen: Seen, hot: set[str]) -> None:
        self.is_primed = False
        self._directory, self._seen, self._hot = directory, seen, hot
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        seen = self._seen
        while not self._ended.wait(0.02):
            is_primed = self.is_primed
            sizes = segments(self._directory)
            # The moment is that of the second look: what went between the two is not held against anybody.
            there = {path: size for path, size in sizes.items() if os.path.lexists(path)}
            seen.most_bytes = max(seen.most_bytes, sum(there.values()))
            seen.looks += 1
            if is_primed:
                names = {os.path.basename(os.path.dirname(path)) for path in there}
                seen.hot_fewest = min(seen.hot_fewest, len(self._hot & names))


def segments(directory: Path) -> dict[str, int]:
    """Return the sizes of all segments, finished or not."""
    sizes = {}
    for place, _, names in os.walk(directory):
        for name in names:
            if ".seg" in name:
                path = os.path.join(place, name)
                with contextlib.suppress(FileNotFoundError):
                    sizes[path] = os.lstat(path).st_size
    return sizes


def start(directory: Path, load: Load, numbers: list[int], hot: list[int], every_s: str) -> subprocess.Popen[str]:
    arguments = [load.limit_bytes, json.dumps(numbers), load.file_bytes, json.dumps(hot), load.hot_file_bytes, every_s]
    return subprocess.Popen(
        [sys.executable, TESTS / "size_job.py", directory, *map(str, arguments)],
        stdin=subprocess.PIPE if every_s else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seen: Seen) -> dict[str, int]:
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"a process failed:\n{errors}")
    done: dict[str, int] = json.loads(out)
    seen.checked_bytes += done["checked"]
    seen.origin_bytes += done["hot"] + done["cold"]
    seen.unrecorded += done["failures"] > 0
    seen.warnings += sorted({*errors.splitlines()} - {*seen.warnings})
    seen.recorded_bytes += done["recorded"]
    return done


def wait_until_noted(directory: Path, load: Load) -> None:
    """Wait until the record of use says that the hot set was read again: who does not know cannot spare it."""
    from jcache.cache import usage
    from jcache.system.storage import Storage

    storage, root = Storage(), str(directory)
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        entries = usage.uses(storage, root, usage.load(storage, root))
        if sum(entry.hit_bytes >= load.hot_file_bytes for entry in entries.values()) >= load.hot_files:
            return
        time.sleep(0.02)
    raise SystemExit("nobody noted that the hot set was read again")


def run(directory: Path, load: Load) -> Seen:
    """Let the processes read, and watch."""
    from jcache.cache import usage
    from jcache.system.storage import Storage

    hot = list(range(HOT, HOT + load.hot_files))
    seen = Seen(hot_fewest=load.hot_files)
    began_s = time.perf_counter()
    with Watch(directory, seen, {f"f{number}.root" for number in hot}) as watch:
        for round_ in range(load.rounds + 1):
            reader = start(directory, load, [], hot, str(load.every_s))
            assert reader.stdout is not None
            reader.stdout.readline()
            wait_until_noted(directory, load)
            if round_ < load.rounds:
                shares = [list(range(k, load.files, load.processes)) for k in range(load.processes)]
                crowd = [start(directory, load, share, [], "") for share in shares]
                for process in crowd:
                    finish(process, seen)
            done = finish(reader, seen)
            watch.is_primed = True
            seen.hot_passes += done["passes"]
            seen.hot_origin_bytes.append(done["hot"])
    seen.seconds = time.perf_counter() - began_s
    seen.booked_bytes = usage.total_bytes(Storage(), str(directory)) or 0
    seen.left_bytes = sum(segments(directory).values())
    return seen


def verdict(load: Load, seen: Seen) -> dict[str, bool]:
    """Say what was asked for, and whether it was so."""
    hot_bytes = load.hot_files * load.hot_file_bytes
    return {
        "never above the limit": seen.most_bytes <= load.limit_bytes,
        "every byte right": True,  # a process that finds a wrong one fails
        "the hot set survives": seen.hot_origin_bytes[0] == hot_bytes and not any(seen.hot_origin_bytes[1:]),
        "the books are not below what is there": seen.left_bytes <= seen.booked_bytes <= load.limit_bytes,
    }


def show(load: Load, seen: Seen) -> None:
    def mb(nbytes: float) -> str:
        return f"{nbytes / MB:.1f} MB"

    from jcache.cache.keeper import credit_bytes

    late = f"{mb(credit_bytes(load.limit_bytes))} for each process where clients see writes late"
    rows = [
        ("limit", f"{mb(load.limit_bytes)}, slack 0 on a local disk; {late}"),
        ("most on disk", f"{mb(seen.most_bytes)} in {seen.looks} looks"),
        ("bytes checked", f"{mb(seen.checked_bytes)}, {mb(seen.origin_bytes)} of them from the origin"),
        ("evicted", f"{mb(seen.recorded_bytes - seen.left_bytes)} of {mb(seen.recorded_bytes)} recorded"),
        ("hot set", f"{mb(load.hot_files * load.hot_file_bytes)} in {load.hot_files} files, {seen.hot_passes} times"),
        ("its origin bytes", "by round, and at the end: " + ", ".join(map(mb, seen.hot_origin_bytes))),
        ("its files on disk", f"never fewer than {seen.hot_fewest} between the first round and the end"),
        ("processes", f"{seen.unrecorded} of {load.processes * load.rounds} left something unrecorded"),
        *(("", warning) for warning in seen.warnings[:5]),
        ("at the end", f"{mb(seen.left_bytes)} there, {mb(seen.booked_bytes)} booked"),
        ("time", f"{seen.seconds:.0f} s"),
    ]  # fmt: skip
    for name, text in rows:
        click.echo(f"{name:<18} {text}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--scale", default=1.0, show_default=True, help="Of the limit and all that is read.")
@click.option("--processes", default=8, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--hot", "hot_share", default=0.1, show_default=True, help="The hot set, as a share of the limit.")
@click.option("--every", "every_s", default=2.0, show_default=True, help="How often it is read, in seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--work", type=click.Path(file_okay=False, exists=True), help="Where the cache is.")
def main(
    scale: float, processes: int, rounds: int, hot_share: float, every_s: float, work: str | None, *, as_json: bool
) -> None:
    """Fill a cache with a size by many processes, over and over, and watch it."""
    limit = int(200 * MB * scale)
    size = min(2 * MB, limit // 50)
    hot = max(int(limit * hot_share) // size, 1)
    load = Load(limit, processes, rounds, int(1000 * MB * scale), size, hot, size, every_s)
    with tempfile.TemporaryDirectory(prefix="jcache-size-", dir=work) as directory:
        seen = run(Path(directory, "cache"), load)
    found = verdict(load, seen)
    if as_json:
        document: dict[str, Any] = {"load": asdict(load), "seen": asdict(seen), "held": found}
        click.echo(json.dumps(document, indent=1))
    else:
        show(load, seen)
        for what, held in found.items():
            click.echo(f"{'held' if held else 'FAILED':<18} {what}")
    sys.exit(not all(found.values()))


if __name__ == "__main__":
    main()
