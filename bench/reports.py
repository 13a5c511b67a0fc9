"""How long `jcache report` takes over many reports: makes them, and times the command.

python bench/reports.py [--reports 10000] [--files 20] [--bins 300] [--keep DIR]
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jcache.report.model import Files, OriginTraffic, Profile, Read, Report, Requests, UrlUse

START = 1_790_000_000.0
HOSTS = 200
COMMANDS = (
    ("--json",),
    (),
    ("--by", "host", "--by", "url"),
    ("--html", "report.html"),
)


def make(directory: Path, *, reports: int, files: int, bins: int, seed: int = 1) -> int:
    """Write the reports of one job of many processes; return the bytes that they say were requested."""
    rng = random.Random(seed)
    total = 0
    for number in range(reports):
        hit = tuple(rng.randrange(2_000_000) for _ in range(bins))
        miss = tuple(rng.randrange(1_000_000) for _ in range(bins))
        whole, cached = sum(hit) + sum(miss), sum(hit)
        shares = [whole // files] * (files - 1)
        shares.append(whole - sum(shares))
        urls = tuple(
            UrlUse(
                url=f"root://eospublic.example.org//eos/data/run{rng.randrange(400):04}/nano_{rng.randrange(50):03}.root",
                size=2_000_000_000,
                bytes=share,
                hit_bytes=share * cached // whole,
                opens=1,
                read_s=share / 2e8,
            )
            for share in shares
        )
        start = START + number * 0.01
        Report(
            appname="ttbar",
            host=f"node{number % HOSTS:03}.example.org",
            pid=1000 + number,
            command="python ttbar.py --year 2018",
            start_time=start,
            end_time=start + bins * 0.25,
            complete=True,
            real_s=bins * 0.25,
            user_s=bins * 0.2,
            sys_s=1.0,
            run="0123456789abcdef",
            read=Read(ops=1000, bytes=whole, hit_bytes=cached, miss_bytes=whole - cached),
            requests=Requests(full_hits=600, misses=400),
            files=Files(opened=files, unique=files, unique_bytes=files * 2_000_000_000, open_s=0.1),
            origin=OriginTraffic(requests=400, bytes=whole - cached, busy_s=(whole - cached) / 3e8),
            profile=Profile(bin_s=0.25, hit_bytes=hit, miss_bytes=miss),
            urls=urls,
        ).save(directory)
        total += whole
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--bins", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="where to leave the reports; they are used if they are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        directory = options.keep or Path(place) / "reports"
        if not directory.is_dir():
            make(directory, reports=options.reports, files=options.files, bins=options.bins)
        count = len(list(directory.glob("jcache.*.json")))
        print(f"{count} reports of {options.files} files and {options.bins} time bins")
        script = (
            "import resource, sys; from jcache.cli import main; code = main(standalone_mode=False); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
        )
        for options_given in COMMANDS:
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", script, "report", str(directory), *options_given],
                cwd=place,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=True,
                text=True,
            )
            took = time.perf_counter() - begin
            peak = (done.stderr.split() or ["?"])[-1]
            print(f"jcache report DIR {' '.join(options_given):24} {took:6.2f} s, {peak} MiB")


if __name__ == "__main__":
    main()
