"""What is not a ratio of two ways of reading: attaching, system calls, start and end of a process, two at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare import spread_of
from daemons import ROOT
from stage import READER, environment
from workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

ATTACH = os.fspath(ROOT / "bench" / "attach.py")
PASSED = os.fspath(ROOT / "bench" / "passed.py")
RECORDED = os.fspath(ROOT / "bench" / "recorded.py")
LOCKS = re.compile(r"\b(flock|fcntl\([^,]*, F_(?:OFD_)?SETLKW?)")
CALL = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)$")
# An application that has what any user of fsspec has, and reads nothing.
START = "import fsspec, sys; fsspec.core.url_to_fs(sys.argv[1])"


def python(*args: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> str:
    """Run Python and return what it printed."""
    command = [*prefix, sys.executable, *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{command}:\n{done.stderr[-2000:]}")
    return done.stdout


def attach(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Attach to journals of many extents, sealed and unsealed."""
    count, out = stage.data.size.extents, {}
    env = environment(None)
    for how in ("sealed", "unsealed"):
        tell(f"attach: {count:,} extents, {how}")
        directory = stage.work / f"attach-{how}"
        try:
            python(ATTACH, "fill", str(directory), str(count), how, env=env)
            seconds = [
                json.loads(python(ATTACH, "time", str(directory), str(count), env=env))["seconds"]
                for _ in range(rounds)
            ]
            memory = json.loads(python(ATTACH, "memory", str(directory), str(count), env=env))["bytes_per_extent"]
            calls = None
            if how == "sealed" and shutil.which("strace"):
                trace = stage.work / "attach.strace"
                strace = ("strace", "-f", "-y", "-o", str(trace))
                python(ATTACH, "calls", str(directory), str(count), env=env, prefix=strace)
                calls = Counter(name for name, rest in calls_in(trace) if ".seg" in rest)
            disk = sum(path.stat().st_size for path in directory.iterdir())
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        out[how] = {
            "extents": count, "seconds": seconds, "bytes_per_extent": memory, "disk_bytes": disk,
            "calls": None if calls is None else dict(calls),
        }  # fmt: skip
    return out


def calls_in(trace: Path) -> list[tuple[str, str]]:
    """Return name and arguments of each system call that a trace holds."""
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if match and "resumed>" not in line[:40]:
            found.append((match[1], match[2]))
    return found


def calls(stage: Stage, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Count what a warm process asks of the cache directory."""
    if not shutil.which("strace"):
        return None
    tell("system calls of a warm process")
    workload = WORKLOADS["peers"]
    cache = stage.new_cache()
    cache.mkdir(parents=True)
    try:
        spec = stage.spec(workload, "origin", cache=None, counted=False) | {"passes": 1}
        stage.run(spec, jcache=cache)
        trace = stage.work / "warm.strace"
        command = ["strace", "-f", "-y", "-e", "trace=%file,%desc", "-o", str(trace), sys.executable, str(READER), "-"]
        subprocess.run(
            command, input=json.dumps(spec) + "\n", env=environment(cache), cwd=stage.work, capture_output=True,
            text=True, check=True, timeout=600,
        )  # fmt: skip
        journal = next(path.parent for path in cache.rglob("*.seg") if "peers.bin" in str(path))
        ours = [(name, rest) for name, rest in calls_in(trace) if str(cache) in rest]
        of_file = [(name, rest) for name, rest in ours if str(journal) in rest]
        of_process = [(name, rest) for name, rest in ours if str(cache / "root") not in rest]
        closes = sum(name == "close" for name, rest in of_file if ".seg" in rest)
        pieces = sum(len(v) for vs in json.loads(Path(spec["file"]).read_text())["vectors"] for v in vs)
        preads = sum(name == "pread64" for name, _ in of_file)
        return {
            "pieces": pieces,
            "preads": preads,
            "open": len(of_file) - pieces - closes,
            "open_calls": dict(Counter(name for name, _ in of_file) - Counter({"pread64": pieces, "close": closes})),
            "close": closes,
            "process_calls": dict(Counter(name for name, _ in of_process)),
            "locks": [f"{name}({rest}" for name, rest in of_file if LOCKS.search(f"{name}({rest}")],
        }
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def passed(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Count what a vector of two ranges passes, cold and warm, and time the first reads of a file."""
    tell("what a vector passes")
    (name,), _ = stage.data.vectors("peers")
    url = f"root://127.0.0.1:{stage.plain.port}//{name}"
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "jcache": []}
    for _ in range(rounds):
        cache = stage.new_cache()
        cache.mkdir(parents=True)
        try:
            for way, env in (("plain", environment(None)), ("jcache", environment(cache))):
                runs[way].append(json.loads(python(PASSED, url, env=env)))
        finally:
            shutil.rmtree(cache, ignore_errors=True)
    # Once in a while something else, such as a look around, falls into the counted vector.
    counts = min((run for run in runs["jcache"]), key=lambda run: run["cold"]["calls"])
    second = [[run["seconds"][1] for run in runs[way]] for way in ("jcache", "plain")]
    switches = [[run["switches"] for run in runs[way]] for way in ("jcache", "plain")]
    return {"cold": counts["cold"], "warm": counts["warm"], "second": second, "switches": switches}


RECORDED_S = 4.0  # so long the seed's pattern is read by each process


def profile(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """What recording an access profile adds to warm reads: the seed's, and of 100 bytes, in vectors and singly."""
    tell("recording")
    (name,), pattern = stage.data.vectors("tiny")
    url = f"root://127.0.0.1:{stage.plain.port}//{name}"
    cache = stage.new_cache()
    cache.mkdir(parents=True)
    seconds: dict[str, dict[str, list[float]]] = {what: {"off": [], "on": []} for what in ("seed", "vectors", "steps")}
    seed = stage.spec(WORKLOADS["seed"], "origin", cache=None, counted=False)
    try:
        once = stage.run(seed | {"passes": 5}, jcache=cache)
        seed["passes"] = max(30, min(400, round(RECORDED_S / max(once.steady, 1e-4))))
        for turn in range(rounds + 1):
            for way, more in (("off", {}), ("on", {"JCACHE_PROFILE": "1"}))[:: 1 - 2 * (turn % 2)]:
                told = json.loads(python(RECORDED, url, str(pattern), env=environment(cache) | more))
                told["seed"] = stage.run(seed, jcache=cache, env=more).steady
                for what in seconds if turn else ():  # the first one fills the cache
                    seconds[what][way].append(told[what])
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return seconds


def start(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """What activation adds to a process that uses fsspec and reads nothing."""
    tell("activation")
    cache = stage.new_cache()
    cache.mkdir(parents=True)
    url = f"http://127.0.0.1:{stage.nginx.port}/{stage.data.warm_up()}"
    seconds: dict[str, list[float]] = {"plain": [], "jcache": []}
    try:
        for turn in range(rounds + 1):
            for way, env in (("plain", environment(None)), ("jcache", environment(cache)))[:: 1 - 2 * (turn % 2)]:
                began = time.perf_counter()
                python("-c", START, url, env=env)
                if turn:
                    seconds[way].append(time.perf_counter() - began)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    added = spread_of([a - b for a, b in zip(seconds["jcache"], seconds["plain"], strict=True)])
    return {**seconds, "added": [added.median, added.low, added.high]}


def two(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Throughput of two processes that read the same files warm at the same time, over that of one alone."""
    tell("two processes at once")
    workload = WORKLOADS["seed"]
    cache = stage.new_cache()
    cache.mkdir(parents=True)
    rates: dict[str, list[list[float]]] = {"jcache": [[], []], "local": [[], []]}
    try:
        specs = {
            "jcache": stage.spec(workload, "origin", cache=None, counted=False),
            "local": stage.spec(workload, "local", cache=None, counted=False),
        }
        stage.run(specs["jcache"] | {"passes": 1}, jcache=cache)
        once = stage.run(specs["local"] | {"passes": 3})
        passes = max(3, min(200, round(0.6 / max(once.steady, 1e-4))))
        for _ in range(rounds):
            for number in (1, 2):
                for way, spec in specs.items():
                    rate = together(stage, spec | {"passes": passes, "barrier": True}, number, cache, way)
                    rates[way][number - 1].append(rate)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    out: dict[str, Any] = {"passes": passes}
    for way, (one, both) in rates.items():
        gain = spread_of([b / a for a, b in zip(one, both, strict=True)])
        out[way] = {"one": one, "two": both, "gain": [gain.median, gain.low, gain.high]}
    return out


def together(stage: Stage, spec: dict[str, Any], number: int, cache: Path, way: str) -> float:
    """Return bytes a second of some processes that begin together."""
    env = environment(cache if way == "jcache" else None)
    processes = [
        subprocess.Popen(
            [sys.executable, str(READER), "-"], env=env, cwd=stage.work, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for _ in range(number)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(spec) + "\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in processes]
    elapsed = max(r["ended"] for r in results) - min(r["began"] for r in results)
    return sum(float(r["nbytes"]) * len(r["seconds"]) for r in results) / elapsed
