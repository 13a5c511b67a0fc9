"""What `jcache serve` adds to a request: held against the nginx that is its origin, asked by the same clients."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemons import WAN
from gateways import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stage import Stage

# A whole file is asked for so often on one connection that the client's own start is of no account.
TIMES = 16
CONNECTIONS, SMALL_CONNECTIONS = 8, 64
WORKERS = "2"
RANGES_BYTES = {"64 kB": 64 << 10, "1 MB": 1 << 20}
SCRIPT = """
local path, last, step = "{path}", {last}, {step}
request = function()
  local start = math.random(0, last) * step
  wrk.headers["Range"] = string.format("bytes=%d-%d", start, start + step - 1)
  return wrk.format("GET", path)
end
"""
RATE, WRONG = re.compile(r"Requests/sec:\s+([0-9.]+)"), re.compile(r"(Socket errors|Non-2xx).*")


def serving(stage: Stage, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure by turns, in each round the origin and the gateway.

    Returns:
        Seconds of `whole` and `cold` files, on loopback and 20 ms away at 1 Gb/s; requests a second of ranges and of
        small files; each with `origin` and `gateway`.
    """
    name, (folder, objects) = stage.data.stream(), stage.data.objects()
    origin, out = stage.nginx.url().rstrip("/"), _Taken()
    far = f"http://127.0.0.1:{stage.port('http', WAN, counted=False)}"
    cache = stage.new_cache()
    cache.mkdir(parents=True)
    try:
        with (
            GatewayProcess(cache, "--origin", origin, "--workers", WORKERS) as gateway,
            GatewayProcess(cache, "--origin", far, "--workers", WORKERS) as gateway_of_far,
        ):
            places = {"origin": origin, "gateway": gateway.url}
            places_far = {"origin": far, "gateway": gateway_of_far.url}
            for turn in range(rounds):
                tell(f"serving: {turn + 1} of {rounds}")
                # By names that it has never heard of.
                with renamed(stage, name, turn) as other:
                    for what, ends in (("cold", places), ("cold, 20 ms", places_far)):
                        for way in in_turn(ends, turn):
                            out.take(what, way, curl(ends[way], other))
                for way in in_turn(places, turn):
                    curl(places[way], name)
                    out.take("whole", way, curl(places[way], *[name] * TIMES))
                if shutil.which("wrk") is None:
                    continue
                for label, step in RANGES_BYTES.items():
                    script = SCRIPT.format(path=f"/{name}", last=stage.data.size.stream_bytes // step - 1, step=step)
                    for way in in_turn(places, turn):
                        out.take(label, way, wrk(stage, f"{places[way]}/{name}", CONNECTIONS, script))
                for way in in_turn(places, turn):
                    out.take("4 kB", way, wrk(stage, f"{places[way]}/{folder}/{objects[0]}", SMALL_CONNECTIONS))
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return out


class _Taken(dict[str, dict[str, list[float]]]):
    def take(self, what: str, way: str, value: float) -> None:
        self.setdefault(what, {}).setdefault(way, []).append(value)


@contextmanager
def renamed(stage: Stage, name: str, turn: int) -> Iterator[str]:
    """Have a file under another name, for a while."""
    other = stage.data.directory / f"cold-{os.getpid()}-{turn}.bin"
    os.link(stage.data.directory / name, other)
    try:
        yield other.name
    finally:
        other.unlink()


def in_turn(places: dict[str, str], turn: int) -> list[str]:
    """Return the ways, another one first each time."""
    return sorted(places, reverse=bool(turn % 2))


def curl(base: str, *names: str) -> float:
    """Read files over one connection; return how many seconds that takes."""
    urls = [f"{base}/{name}" for name in names]
    started_s = time.perf_counter()
    subprocess.run(["curl", "--silent", "--show-error", "--fail", *urls], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started_s


def wrk(stage: Stage, url: str, connections: int, script: str = "") -> float:
    """Ask for as long as it takes; return how many requests are answered in a second.

    Raises:
        RuntimeError: One was not answered, or not with a file's bytes.
    """
    path = Path(stage.work) / "wrk.lua"
    path.write_text(script)
    seconds = 1 if stage.data.size.objects < 100 else 4
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    told = subprocess.run([*command, "--script", path, url], capture_output=True, text=True, check=True).stdout
    found, wrong = RATE.search(told), WRONG.search(told)
    if found is None or wrong is not None:
        raise RuntimeError(f"wrk {url}: {told}")
    return float(found[1])
