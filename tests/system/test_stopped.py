"""A process that is stopped for longer than JCACHE_TIMEOUT while it waits for its cache goes on as before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from places import SUPPORT

from jcache.system.stopwatch import SLICE_S, Stopwatch

DATA = random.Random(4).randbytes(600_000)
LIMIT_S = 2.0

# argv: URL, which operation on the cache directory takes 0.4 s, once, and says so as it begins.
JOB = f"""
import os, sys, time
sys.path.insert(0, {str(SUPPORT)!r})
import hanging, fsspec
from jcache.cache.meter import MeteredStorage
from jcache.session import current

hanging.be_far()
url, slow = sys.argv[1:]
slept = []

def slowly(name):
    original = getattr(MeteredStorage, name)
    def operation(*args):
        if not slept and (name != "pread" or args[1] > 50_000):
            slept.append(name)
            print("now", flush=True)
            for _ in range(8):
                time.sleep(0.05)
        return original(*args)
    setattr(MeteredStorage, name, staticmethod(operation) if name == "pread" else operation)

fs = fsspec.filesystem("http")
fs.cat_file(url, 0, 10)
slowly(slow)
data = fs.cat_file(url + "2", 0, 400_000)
assert fs.cat_file(url + "2", 100_000, 200_000) == data[100_000:200_000]
print(len(data), current().workers.hung, flush=True)
"""

READ = "import sys, fsspec; fsspec.filesystem('http').cat_file(sys.argv[1], 0, 400_000)"


@pytest.mark.parametrize("slow", ["listdir", "pread", "pwritev"], ids=["attaching", "reading", "recording at the end"])
def test_a_process_that_was_stopped_does_not_take_its_cache_for_hung(
    slow, http_origin, cache_dir, tmp_path, run_python
):
    for name in ("f", "f2"):
        http_origin.put(name, DATA)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
    clean |= {"JCACHE_DIR": os.fspath(cache_dir), "JCACHE_TIMEOUT": str(LIMIT_S), "JCACHE_SUMMARY": "0"}
    if slow == "pread":
        run_python(
            "import sys, fsspec; fsspec.filesystem('http').cat_file(sys.argv[1], 0, 400_000)", http_origin.url("f2")
        )
    process = subprocess.Popen(
        [sys.executable, script, http_origin.url("f"), slow],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [process.stdout.readline()]
    while said[-1] != "now\n":
        said.append(process.stdout.readline())
        assert said[-1], process.communicate()[1]
    for _ in range(2):  # continued in the middle, and stopped again
        time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * LIMIT_S)
        process.send_signal(signal.SIGCONT)
    # `communicate` would not have what came with the last line and is in the buffer.
    out, err = process.stdout.read(), process.stderr.read()
    assert "400000 False" in "".join(said) + out, (process.wait(60), err)
    assert process.wait(60) == 0
    assert not err
    before = http_origin.body_bytes
    ran = run_python(
        "import sys, fsspec; fsspec.filesystem('http').cat_file(sys.argv[1], 0, 400_000)", http_origin.url("f2")
    )
    assert http_origin.body_bytes == before, "all was recorded"
    assert ran.report["read"]["hit_bytes"] == 400_000


def test_a_slice_counts_for_at_most_twice_its_length(monkeypatch):
    clock = [10.0]
    monkeypatch.setattr("jcache.system.stopwatch.time.monotonic", lambda: clock[0])
    watch = Stopwatch()
    clock[0] += 1000
    assert watch.lap("first") == 2 * SLICE_S
    for _ in range(4):
        clock[0] += watch.slice_s(100)
        watch.lap("first")
    assert watch.waited_s == pytest.approx(6 * SLICE_S)
    clock[0] += SLICE_S / 2
    assert watch.lap("progress") == pytest.approx(SLICE_S / 2)
    assert watch.slice_s(SLICE_S) == pytest.approx(SLICE_S / 20)
