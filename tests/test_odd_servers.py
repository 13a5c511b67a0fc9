"""Odd HTTP servers: whatever plain fsspec makes of one, JCache does, cold and warm. The oracle is another process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from odd_servers import OddServer, attempts, right

# JCACHE_ODD_SERVERS=1000:3000 tries these seeds instead.
FIRST, LAST = map(int, os.environ.get("JCACHE_ODD_SERVERS", "0:100").split(":"))
BATCH = 100


@pytest.fixture(scope="module")
def server():
    server = OddServer()
    yield server
    server.shutdown()
    server.server_close()


def client(server: OddServer, seeds: range, cache: Path | None = None) -> dict[str, list]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE", "_JCACHE"))}
    env |= {"JCACHE_SUMMARY": "0"} if cache is None else {"JCACHE_SUMMARY": "0", "JCACHE_DIR": str(cache)}
    program = [sys.executable, str(Path(__file__).with_name("odd_servers.py")), server.base, *map(str, seeds)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def accepted(got: Any, plain: Any, truth: Any) -> bool:
    """Whether this is what plain fsspec gives, or the right bytes where it gives others or none."""
    if got in (plain, truth):
        return True
    if isinstance(truth, list) and not is_bytes(truth) and isinstance(got, list) and isinstance(plain, list):
        # Steps of a file: plain stops at its first error, which may come later here.
        errors = [row for row in plain if isinstance(row, str)]
        steps = itertools.zip_longest(got, plain[: len(got)], truth[: len(got)])
        return (len(got) == len(truth) or isinstance(got[-1], str)) and all(
            mine in errors or accepted(mine, theirs, right) for mine, theirs, right in steps
        )
    # It raises where plain gives wrong bytes in silence.
    return isinstance(got, str) and is_bytes(plain) and is_bytes(truth)


def is_cut(got: Any, plain: Any) -> bool:
    """Whether both end with an error, whichever it is, or this with one that says that bytes are missing."""
    ends = [value[-1] if isinstance(value, list) and value else value for value in (got, plain)]
    return ends[0] == "ShortReadError" or all(isinstance(end, str) for end in ends)


def is_bytes(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str)


@pytest.mark.parametrize("first", range(FIRST, LAST, BATCH))
def test_as_plain_fsspec_reads_it_cold_and_warm(server: OddServer, tmp_path: Path, first: int) -> None:
    seeds = range(first, min(first + BATCH, LAST))
    plain = client(server, seeds)
    wrong = []
    for run in ("cold", "warm"):
        got = client(server, seeds, tmp_path / "cache")
        for seed in seeds:
            origin = server.origin(seed)
            if plain[str(seed)] == "hangs":
                continue
            for (name, what), mine, theirs in zip(attempts(seed), got[str(seed)], plain[str(seed)], strict=True):
                truth = right(origin.data, name, what)
                if not (accepted(mine, theirs, truth) or (origin.drop_after and is_cut(mine, theirs))):
                    wrong.append(f"{run} {seed}: {name}{what} gave {mine}, plain {theirs}, right {truth}; {origin}")
    assert not wrong, "\n".join([f"{len(wrong)} differ", *wrong[:40]])
