"""A cache directory that stops answering: reads go to the origin within the limit, with one warning, and the end comes.

Everywhere where it can begin: in `tests/support/hanging.py` no operation on the directory returns any more. The same
with a real mount is at the end of this file, and in `tests/end_to_end/test_cephfs.py`.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from places import SUPPORT

if TYPE_CHECKING:
    from pathlib import Path

    from servers import ScriptedOrigin

DATA = random.Random(9).randbytes(3_000_000)
LIMIT_S = 2.0
# What a process may take besides: the interpreter's start, on a busy machine.
SPARE_S = 8.0

# argv: URL, what hangs when. Reads in tasks on one event loop, whose longest pause it prints, then in synchronous
# code; then how long all that took. The time of its end is for the test to tell.
JOB = f"""
import asyncio, hashlib, os, sys, time
sys.path.insert(0, {str(SUPPORT)!r})
import hanging
from fsspec.implementations.http import HTTPFileSystem

url, when = sys.argv[1:3]
if when != "a dead mount":
    hanging.be_far()
if when == "first use":
    hanging.begin()
elif when == "attaching":
    hanging.begin_when(lambda name, args: name == "listdir")
elif when == "announcing":
    hanging.begin_when(lambda name, args: name == "lock")
elif when == "looking around":
    hanging.begin_when(lambda name, args: name == "pwritev" and ".seg" in hanging.path_of(args[0]))
    # and not before the first recording is under way, so that the second miss meets it
elif when == "reading":
    hanging.begin_when(lambda name, args: name == "pread" and args[1] > 60_000 and ".seg" in hanging.path_of(args[0]))
elif when == "leasing":
    hanging.begin_when(lambda name, args: name == "fcntl")
elif when == "the report":
    hanging.begin_when(lambda name, args: ".reports" in hanging.path_of(args[0]))

async def heart():
    longest, before = 0.0, time.perf_counter()
    while True:
        try:
            await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            return longest
        now = time.perf_counter()
        longest, before = max(longest, now - before), now

def spans(i):
    return [(start, start + 70_000) for start in range(i * 300_000, i * 300_000 + 210_000, 100_000)]

async def main():
    fs = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
    client = await fs.set_session()
    beating = asyncio.ensure_future(heart())
    digest = hashlib.sha256()
    for i in range(0, 8, 2):
        both = await asyncio.gather(*(
            fs._cat_ranges([url] * 3, *map(list, zip(*spans(i + j)))) for j in range(2)
        ))
        for data in both:
            digest.update(b"".join(data))
    beating.cancel()
    pause = await beating
    await client.close()
    return digest, pause

began = time.monotonic()
digest, pause = asyncio.run(main())
if when == "after the last read":
    hanging.begin()
fs = HTTPFileSystem()
for i in (8, 0):
    for start, stop in spans(i) if when != "after the last read" else ():
        digest.update(fs.cat_file(url, start, stop))
print(digest.hexdigest(), pause, time.monotonic() - began, time.time())
"""


def expected(*, synchronous: bool = True) -> str:
    import hashlib

    order = [*range(8), *((8, 0) if synchronous else ())]
    pieces = [DATA[a : a + 70_000] for i in order for a in range(i * 300_000, i * 300_000 + 210_000, 100_000)]
    return hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.fixture
def url(http_origin: ScriptedOrigin) -> str:
    http_origin.put("f", DATA)
    return http_origin.url("f")


def run_hung(run_python, url: str, when: str, **options) -> None:
    env = {"JCACHE_TIMEOUT": str(LIMIT_S), "JCACHE_JSON": None}
    ran = run_python(JOB, url, when, env=env, **options)
    ended = time.time()
    digest, pause, took_s, done = ran.stdout.split()
    assert digest == expected(synchronous=when != "after the last read")
    assert float(pause) < LIMIT_S / 2, "the event loop was blocked"
    print(f"{when}: {float(took_s):.2f} s, exit {ended - float(done):.2f} s, longest pause {float(pause) * 1e3:.0f} ms")
    assert float(took_s) < LIMIT_S + SPARE_S
    assert ended - float(done) < (2 * LIMIT_S if when in AT_EXIT else LIMIT_S) + SPARE_S / 2
    lines = [line for line in ran.stderr.splitlines() if line.startswith("jcache: ")]
    assert len(lines) == 1, ran.stderr
    assert f"did not answer within {LIMIT_S:g} s" in lines[0]
    assert ran.stderr.count("cache combined hit rate") == 1, "the report's text needs no cache directory"


AT_EXIT = ("after the last read", "the report")


@pytest.mark.parametrize(
    "when", ["first use", "attaching", "announcing", "looking around", "reading", "after the last read", "the report"]
)
def test_a_directory_that_hangs_costs_its_limit_once(run_python, url: str, when: str) -> None:
    if when == "reading":
        run_python(JOB, url, "never")
    run_hung(run_python, url, when)


def test_a_mount_that_is_dead_from_the_start(run_python, url: str, dead_mount: Path) -> None:
    """Where even the settings in the directory cannot be read: one line, and the job runs uncached."""
    env = {"JCACHE_TIMEOUT": str(LIMIT_S), "JCACHE_JSON": None}
    began_s = time.monotonic()
    ran = run_python(JOB, url, "a dead mount", env=env, cache=dead_mount / "cache", timeout_s=60)
    took_s = time.monotonic() - began_s
    print(f"{took_s:.2f} s")
    assert ran.stdout.split()[0] == expected()
    assert took_s < LIMIT_S + SPARE_S
    lines = [line for line in ran.stderr.splitlines() if line.startswith("jcache: ")]
    assert len(lines) == 1, ran.stderr
    assert f"no answer within {LIMIT_S:g} s" in lines[0]
