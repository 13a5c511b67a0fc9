"""What access profiles are good for: making a run again, filling a cache, fetching ahead, telling hit rates."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from typing import TYPE_CHECKING, Any

from costs import python
from daemons import WAN
from data import COLUMNS
from stage import environment
from workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

# A loop over files that computes between its steps.
LOOP = """
import sys, time
import awkward as ak, uproot
pause_s, columns, *urls = sys.argv[1:]
total, columns = 0.0, columns.split(",")
for url in urls:
    with uproot.open({url: None}, handler=uproot.source.fsspec.FSSpecSource) as file:
        events = file["Events"]
        step = -(-events.num_entries // 8)
        for begin in range(0, events.num_entries, step):
            part = events.arrays(columns, entry_start=begin, entry_stop=begin + step)
            total += sum(float(ak.sum(part[name])) for name in columns)
            time.sleep(float(pause_s))
print(total)
"""
AHEAD_PAUSE_S = 0.05
WIDE = [f"c{column}" for column in range(8)]

# Some files are read more often than others; sizes of the cache are shares of what is read in all.
CHANCE = """
import random, sys, time, fsspec
fs, chance = fsspec.filesystem("http"), random.Random(int(sys.argv[2]))
for _ in range(60):
    url = sys.argv[1] + str(min(int(chance.expovariate(0.08)), 39))
    starts = sorted(chance.randrange(0, 99) * 10_000 for _ in range(8))
    fs.cat_ranges([url] * 8, starts, [start + 10_000 for start in starts])
    time.sleep(float(sys.argv[3]))
"""
# Six real runs with 5 MB differ from six others by more than a point.
CHANCE_FILES, CHANCE_BYTES, CHANCE_RUNS = 40, 1_000_000, 20
CHANCE_SIZES = ("5MB", "8MB", "12MB")


def jcache(*args: object, env: dict[str, str]) -> Any:
    """Run a command and return what it printed as JSON."""
    return json.loads(python("-m", "jcache", *map(str, args), "--json", env=env))


def replay(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """How long a replay takes, and the run that was recorded: the analysis, cold, 20 ms away."""
    seconds: dict[str, list[float]] = {"recorded": [], "replayed": [], "max": []}
    for turn in range(rounds):
        tell(f"replay: {turn + 1} of {rounds}")
        spec = stage.spec(WORKLOADS["agc-wan"], "origin", cache=None, counted=False)
        cache, plain = stage.new_cache(), environment(None)
        try:
            stage.run(spec, jcache=cache, env={"JCACHE_PROFILE": "1"})
            told = jcache("profile", "show", "last", "--dir", cache, env=plain)
            again = {
                speed: jcache(
                    "replay", "last", "--dir", cache, "--cache", stage.new_cache(), "--speed", speed, env=plain
                )
                for speed in ("recorded", "max")
            }
        finally:
            shutil.rmtree(stage.work / "caches", ignore_errors=True)
        for one in again.values():
            if one["failed"] or one["read_bytes"] != told["total"]["bytes"]:
                raise RuntimeError(f"the replay read other bytes: {one}, {told['total']}")
        seconds["recorded"].append(told["real_s"])
        seconds["replayed"].append(again["recorded"]["wall_s"])
        seconds["max"].append(again["max"]["wall_s"])
    return seconds


def warm(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """What share of a wire of 1 Gb/s and 20 ms a cache is filled at; what a command takes anyway is taken off."""
    (name,), _ = stage.data.vectors("seed")
    shares: dict[str, list[float]] = {}
    for protocol, root in (("http", "http://127.0.0.1:{}/"), ("xrootd", "root://127.0.0.1:{}//")):
        url = root.format(stage.port(protocol, WAN, counted=False)) + name
        for turn in range(rounds):
            tell(f"warm: {protocol}, {turn + 1} of {rounds}")
            cache, taken = stage.new_cache(), []
            try:
                for _ in ("fetched", "there"):
                    began = time.perf_counter()
                    done = jcache("warm", url, "--dir", cache, env=environment(None))
                    taken.append(time.perf_counter() - began)
            finally:
                shutil.rmtree(cache, ignore_errors=True)
            if done["held_bytes"] != done["wanted_bytes"]:
                raise RuntimeError(f"the cache was not filled: {done}")
            rate = done["wanted_bytes"] * 8 / (taken[0] - taken[1])
            shares.setdefault(protocol, []).append(rate / (WAN.gbit_s * 1e9))
    return shares


def ahead(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """A cold loop over files, 20 ms away at 1 Gb/s, with `columns` and without."""
    out: dict[str, Any] = {}
    loops = [("wide ", fmt, stage.data.wide, WIDE[:6]) for fmt in ("ttree", "rntuple")]
    loops += [("AGC ", fmt, stage.data.agc, COLUMNS) for fmt in ("ttree", "rntuple")]
    for what, fmt, files, columns in loops:
        names = files(fmt)
        root = f"http://127.0.0.1:{stage.port('http', WAN, counted=False)}/"
        args = [str(AHEAD_PAUSE_S), ",".join(columns), *(root + name for name in names)]
        ways: dict[str, list[float]] = {"off": [], "columns": []}
        unused, results = [], set()
        for turn in range(rounds):
            for way in list(ways)[:: 1 - 2 * (turn % 2)]:
                tell(f"ahead: {what}{fmt}, {way}, {turn + 1} of {rounds}")
                cache = stage.new_cache()
                env = environment(cache) | {"JCACHE_PREFETCH": way, "JCACHE_JSON": str(cache / "reports")}
                began = time.perf_counter()
                results.add(python("-c", LOOP, *args, env=env))
                ways[way].append(time.perf_counter() - began)
                (report,) = (json.loads(path.read_text()) for path in (cache / "reports").glob("*.json"))
                if way == "columns":
                    unused.append(report["origin"]["prefetch_unused_bytes"] / report["origin"]["bytes"])
                shutil.rmtree(cache, ignore_errors=True)
        if len(results) != 1:
            raise RuntimeError(f"other results with prefetch: {results}")
        out[what + fmt] = {"seconds": ways, "unused": unused}
    return out


def whatif(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Hit rates of real runs with real caches, and those that are told from their profiles, in per cent."""
    directory = stage.data.directory / "chance"
    directory.mkdir(exist_ok=True)
    for number in range(CHANCE_FILES):
        path = directory / f"f{number}"
        path.write_bytes(random.Random(number).randbytes(CHANCE_BYTES))
        os.utime(path, (1.6e9, 1.6e9))
    url = f"http://127.0.0.1:{stage.nginx.port}/chance/f"
    pause_s, runs = (0.1, CHANCE_RUNS) if rounds > 1 else (0.0, 2)  # a single round is to show that it runs
    out: dict[str, Any] = {}
    for size in CHANCE_SIZES[: 3 if rounds > 1 else 1]:
        place = stage.new_cache()
        read = hit = 0
        for seed in range(runs):
            tell(f"whatif: {size}, run {seed + 1} of {runs}")
            env = environment(place) | {
                "JCACHE_SIZE": size, "JCACHE_PROFILE": str(place / "profiles"), "JCACHE_JSON": str(place / f"r{seed}"),
            }  # fmt: skip
            python("-c", CHANCE, url, str(seed), str(pause_s), env=env)
            (report,) = (json.loads(path.read_text()) for path in (place / f"r{seed}").glob("*.json"))
            read, hit = read + report["readv"]["bytes"], hit + report["readv"]["hit_bytes"]
        (told,) = jcache("whatif", f"{place}/profiles/*.jcp", "--size", size, env=environment(None))
        shutil.rmtree(place, ignore_errors=True)
        out[size] = {"real": 100 * hit / read, "told": 100 * told["hit_rate"]}
    return out
