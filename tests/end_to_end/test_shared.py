"""One journal, many processes at once: each byte from the origin once, and the right bytes whatever others do to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from analysis import OLD_S
from patterns import SEED_BYTES, SEED_FILE_BYTES, seed_pattern, total, write_sparse
from sharing import Crew, digests_of, once

from jcache.planning.waiting import Patience

pytestmark = pytest.mark.turns("served")

PROCESSES = 8


@pytest.mark.parametrize("seeds", [[0] * PROCESSES, list(range(1, PROCESSES + 1))], ids=["one order", "eight orders"])
def test_eight_processes_start_cold_together(served, seeds, cache_dir, tmp_path):
    vectors = seed_pattern()
    assert total(vectors) == SEED_BYTES
    write_sparse(served.directory / "seed.bin", SEED_FILE_BYTES, vectors, seed=1)
    url = served.url("seed.bin")
    expected = digests_of(served.directory / "seed.bin", vectors)
    with Crew(tmp_path, url, vectors, [cache_dir] * PROCESSES, seeds=seeds) as crew:
        served.reset()
        began_s = time.monotonic()
        crew.go()
        results = crew.results()
    took_s = time.monotonic() - began_s
    sent = served.data_bytes()
    print(f"{PROCESSES} processes, {took_s:.1f} s: {sent / SEED_BYTES:.4f} x the distinct bytes from the origin")
    for result in results:
        assert result.digests == expected
        assert result.hit + result.miss == SEED_BYTES
        assert not result.bypass
        assert "jcache: " not in result.stderr
    assert sent == sum(result.miss for result in results)
    assert SEED_BYTES <= sent <= 1.02 * SEED_BYTES
    served.reset()
    with Crew(tmp_path, url, vectors, [cache_dir]) as crew:
        crew.go()
        assert [(result.digests, result.miss) for result in crew.results()] == [(expected, 0)]
    assert served.data_bytes() == 0


@pytest.mark.parametrize("size", [1000, 100_000, 2_000_000])
def test_the_very_first_vector_of_eight_processes_is_fetched_once(served, size, cache_dir, tmp_path):
    """Of each of six files, one after the other: whoever is first has nothing there that tells of the others."""
    names = [f"f{i}.bin" for i in range(6)]
    vectors = [[[100_000 * i, 100_000 * i + size // 20] for i in range(20)]]
    for number, name in enumerate(names):
        write_sparse(served.directory / name, 3_000_000, vectors, seed=number)
    urls = [served.url(name) for name in names]
    with Crew(tmp_path, urls, vectors, [cache_dir] * PROCESSES) as crew:
        served.reset()
        crew.go()
        results = crew.results()
    sent, distinct = served.data_bytes(), len(names) * total(vectors)
    print(f"{sent / distinct:.4f} x the distinct bytes from the origin")
    expected = tuple(d for name in names for d in digests_of(served.directory / name, vectors))
    for result in results:
        assert result.digests == expected
        assert "jcache: " not in result.stderr
    assert distinct <= sent <= 1.02 * distinct


SIZE = 2_000_000
DATA = random.Random(7).randbytes(SIZE)
VECTORS = [[[start + 20_000 * i, start + 20_000 * i + 9_000] for i in range(5)] for start in range(0, SIZE, 200_000)]
DISTINCT = total(VECTORS)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(DATA)
    return path


def segments(cache_dir):
    return sorted(cache_dir.rglob("@*.seg"))


def damage_sequence(rng):
    """What others do to a journal's files, one after the other; each takes the path of a segment and its bytes."""

    def replace(path, data):
        beside = path.with_name(".beside")
        beside.write_bytes(data)
        beside.rename(path)

    def in_place(path, data):
        with path.open("r+b") as file:
            file.write(data)

    def another(path):
        """A segment of another journal, whole and sealed."""
        return (path.parent.parent / "other.bin" / "@keep").read_bytes()

    return {
        "removed": lambda path, data: path.unlink(),
        "cut to nothing": lambda path, data: os.truncate(path, 0),
        "cut in the header": lambda path, data: os.truncate(path, 20),
        "cut in the middle": lambda path, data: os.truncate(path, len(data) // 2),
        "cut by a byte": lambda path, data: os.truncate(path, max(len(data) - 1, 0)),
        "noise in place": lambda path, data: in_place(path, rng.randbytes(len(data))),
        "zeros in place": lambda path, data: in_place(path, bytes(len(data))),
        "noise in the middle": lambda path, data: in_place(
            path, data[: len(data) // 3] + rng.randbytes(len(data) // 3)
        ),
        "another's in place": lambda path, data: in_place(path, another(path)),
        "replaced by noise": lambda path, data: replace(path, rng.randbytes(len(data))),
        "replaced by another's": lambda path, data: replace(path, another(path)),
        "longer": lambda path, data: path.write_bytes(data + rng.randbytes(5000)),
        "no permission": lambda path, data: path.chmod(0),
        "directory removed": lambda path, data: shutil.rmtree(path.parent, ignore_errors=True),
    }


def test_journal_files_that_others_remove_replace_and_cut_while_they_are_open(nginx_server, cache_dir, tmp_path):
    """Two processes keep journals open and go on recording, while a third party does its worst to one after another."""
    damages = damage_sequence(rng := random.Random(3))
    names = [f"f{i}.bin" for i in range(len(damages))] + ["other.bin"]
    for name in names:
        path = nginx_server.directory / name
        path.write_bytes(rng.randbytes(SIZE))
        os.utime(path, (OLD_S, OLD_S))
    urls = [nginx_server.url(name) for name in names[:-1]]
    expected = tuple(d for name in names[:-1] for d in digests_of(nginx_server.directory / name, VECTORS))
    with Crew(tmp_path, nginx_server.url("other.bin"), VECTORS, [cache_dir]) as crew:
        crew.go()
        crew.results()
    (other,) = segments(cache_dir)
    shutil.copy(other, other.with_name("@keep"))
    count = len(urls) * len(VECTORS)
    with Crew(tmp_path, urls, VECTORS, [cache_dir] * 2, seeds=[1, 2], rounds=[0.5, 1, 1]) as crew:
        crew.go()
        for process in crew.processes:
            crew.after(process, count // 2)
        for name, damage in zip(names, damages.values(), strict=False):
            once(lambda name=name: bool(segments(other.parent.parent / name)))
            for path in segments(other.parent.parent / name):
                if path.exists():
                    damage(path, path.read_bytes())
        for _ in range(2):
            crew.go()
            for process in crew.processes:
                crew.after(process, count)
        results = crew.results()
    for result in results:
        assert result.digests == expected
        assert result.hit + result.miss == DISTINCT * len(urls) * 5 // 2
        assert result.hit > result.miss
    for _ in range(3):
        with Crew(tmp_path, urls, VECTORS, [cache_dir]) as crew:
            crew.go()
            (last,) = crew.results()
        assert last.digests == expected
    assert last.miss == 0


LOCKS = """
import errno, os, threading
from jcache.system.storage import Storage

def broken(number):
    def call(self, fd, *args, **options):
        raise OSError(number, os.strerror(number))
    return call

def blind(self, fd, command=None, argument=None, *, shared=False):
    return argument

def endless(self, fd, *args, **options):
    threading.Event().wait()

Storage.lock = Storage.unlock = Storage.fcntl = {}

# Longer than what else these processes do, however busy the machine is.
import jcache.session
from jcache.planning.waiting import Patience
jcache.session.LEASE_LIMIT_S = 15.0
if (running := jcache.session.current()) is not None:
    running.patience = Patience(15.0)
"""


@pytest.mark.parametrize(
    ("how", "limit_s"),
    [
        *((f"broken(errno.{name})", 0.0) for name in ("ENOSYS", "ENOLCK", "EIO", "ESTALE", "EBADF")),
        ("blind", 0.0),  # each lock is granted to everybody
        ("endless", 1.0),  # no lock call ever returns
        # Somebody who does not exist has them all.
        pytest.param("broken(errno.EAGAIN)", 15.0, marks=pytest.mark.long),
    ],
)
def test_locks_that_lie_fail_or_never_come(nginx_server, cache_dir, tmp_path, file, how, limit_s):
    path = nginx_server.directory / "f.bin"
    path.write_bytes(DATA)
    os.utime(path, (OLD_S, OLD_S))
    expected = digests_of(path, VECTORS)
    env = {"JCACHE_TIMEOUT": "1"}
    options = {"env": env, "preamble": LOCKS.format(how)}
    with Crew(tmp_path, nginx_server.url("f.bin"), VECTORS, [cache_dir] * 2, **options) as crew:
        began_s = time.monotonic()
        crew.go()
        results = crew.results()
        took_s = time.monotonic() - began_s
    print(f"{how}: {took_s:.2f} s, {sum(result.miss for result in results) / DISTINCT:.2f} x from the origin")
    assert [result.digests for result in results] == [expected] * 2
    assert took_s < limit_s + 14  # to wait for the leases' limit once more would take 15 s
    with Crew(tmp_path, nginx_server.url("f.bin"), VECTORS, [cache_dir]) as crew:
        crew.go()
        (after,) = crew.results()
    assert after.digests == expected
    assert how == "endless" or after.miss == 0, "recording needs no locks"


HOLD = """
import os, signal, sys, threading
import fsspec

urls = sys.argv[1:]
fs = fsspec.filesystem("http")
for url in urls:  # somebody else writes to these journals, so what follows is leased
    fs.cat_file(url, 0, 10)
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=fs.cat_file, args=(url, 1000, 200_000), daemon=True) for url in urls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

READ = """
import sys, time
import fsspec

urls = sys.argv[1:]
fs = fsspec.filesystem("http")
for url in urls:
    fs.cat_file(url, 10, 20)
print("ready", flush=True)
sys.stdin.readline()
for part in ((2000, 3000), (150_000, 160_000), (300_000, 310_000), (1000, 200_000)):
    for url in urls:
        began = time.monotonic()
        data = fs.cat_file(url, *part)
        print(time.monotonic() - began, data.hex()[:32], len(data), flush=True)
"""


@pytest.fixture
def start(cache_dir, tmp_path):
    """Start a script and wait until it is ready."""
    processes = []

    def begin(code, *args):
        script = tmp_path / f"script-{len(processes)}.py"
        script.write_text(code)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
        processes.append(
            subprocess.Popen(
                [sys.executable, os.fspath(script), *args],
                env=clean | {"JCACHE_DIR": os.fspath(cache_dir), "JCACHE_SUMMARY": "0"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert processes[-1].stdout.readline() == "ready\n"
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_stopped_lease_holder_delays_a_reader_once(http_origin, start):
    """Once altogether, whatever it holds: here a range in each of three files."""
    resources = [http_origin.put(f"f{i}", DATA) for i in range(3)]
    urls = [http_origin.url(f"f{i}") for i in range(3)]
    reader = start(READ, *urls)
    holder = start(HOLD, *urls)
    for resource in resources:
        resource.delay_s = 30
    before = [resource.gets for resource in resources]
    go(holder)
    once(lambda: all(resource.gets > gets for resource, gets in zip(resources, before, strict=True)))
    holder.send_signal(signal.SIGSTOP)
    for resource in resources:
        resource.delay_s = 0
    go(reader)
    out, _ = reader.communicate(timeout=60)
    took_s = []
    lines = out.splitlines()
    parts = [(2000, 3000), (150_000, 160_000), (300_000, 310_000), (1000, 200_000)]
    for line, part in zip(lines, [part for part in parts for _ in urls], strict=True):
        seconds, head, size = line.split()
        took_s.append(float(seconds))
        assert (head, int(size)) == (DATA[part[0] : part[1]].hex()[:32], part[1] - part[0])
    print([round(seconds, 2) for seconds in took_s])
    # The limit is 5 s: to wait twice, for the same range or for another, would take 10.
    assert 4.5 < took_s[0] < 9.5
    assert sum(took_s[1:]) < 4.5


def test_a_child_forked_with_a_lease_held_holds_up_nobody(http_origin, start):
    """Its parent is killed in the middle of a fetch, and what it had inherited it does not keep."""
    resource = http_origin.put("f", DATA)
    url = http_origin.url("f")
    reader = start(READ, url)
    parent = start(
        HOLD.replace("for thread in threads:\n    thread.join()", "sys.stdin.readline()\nif os.fork() == 0:\n"
        "    print('child', os.getpid(), flush=True)\n    signal.pause()\nsignal.pause()"), url)  # fmt: skip
    resource.delay_s = 30
    before = resource.gets
    go(parent)
    once(lambda: resource.gets > before)
    go(parent)
    word, child = parent.stdout.readline().split()
    assert word == "child"
    try:
        parent.kill()
        parent.wait()
        resource.delay_s = 0
        go(reader)
        lines = reader.stdout.read().splitlines()
        assert len(lines) == 4
        assert sum(float(line.split()[0]) for line in lines) < 4.5, lines  # the limit is 5 s
    finally:
        os.kill(int(child), signal.SIGKILL)


def traced(tmp_path, cache, *command, after=None, **variables):
    """Run a Python program; return the names of its system calls on a cache directory, behind one on another path."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
    log = tmp_path / "strace"
    subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=%file,%desc", "-o", log, sys.executable, *command],
        env=clean | {"JCACHE_DIR": str(cache), "JCACHE_SUMMARY": "0"} | variables,
        check=True,
    )
    text = log.read_text()
    lines = (text if after is None else text.partition(f'"{after}"')[2]).splitlines()
    calls = [line.split(None, 1)[1] for line in lines if str(cache) in line]
    return [call.partition("(")[0] for call in calls if not call.startswith("<")]


def test_the_cost_in_operations_of_an_end(nginx_server, cache_dir, tmp_path):
    """Of a process that has read one file: what it used is noted, its report is written, others' are looked for."""
    path = nginx_server.directory / "f.bin"
    path.write_bytes(DATA)
    os.utime(path, (OLD_S, OLD_S))
    script = tmp_path / "ends.py"
    script.write_text(
        "import os, sys, fsspec\nfsspec.filesystem('http').cat_file(sys.argv[1], 0, 1000)\nos.path.exists('/ends')\n"
    )
    arguments = [script, nginx_server.url("f.bin")]
    first, *others = [
        traced(tmp_path, cache_dir, *arguments, after="/ends", JCACHE_VALIDATE=validate, JCACHE_STATS="0")
        for validate in ("open", "open", "never")
    ]
    assert len(first) <= 60, "much is recorded, and made for the first time"
    assert max(map(len, others)) <= 25, others


def test_the_cost_in_operations_of_a_missing_vector_while_alone(nginx_server, cache_dir, tmp_path):
    """One look at the directory, one write; what a process's first vector costs besides is left out."""
    path = nginx_server.directory / "f.bin"
    path.write_bytes(DATA)
    os.utime(path, (OLD_S, OLD_S))
    script = tmp_path / "misses.py"
    script.write_text("""
import sys, time
import fsspec

fs = fsspec.filesystem("http")
for i in range(4):  # until the directory's time is told from that of a change to come
    fs.cat_file(sys.argv[1], 1_900_000 + 100 * i, 1_900_000 + 100 * i + 10)
    time.sleep(0.2)
for i in range(int(sys.argv[2])):
    fs.cat_ranges([sys.argv[1]] * 5, *zip(*[(20_000 * i + j, 20_000 * i + j + 500) for j in range(100, 10_000, 2000)]))
    time.sleep(0.02)  # so that each is recorded for itself
""")
    counts = []
    for vectors in (10, 40):
        cache = cache_dir / str(vectors)
        cache.mkdir(parents=True)
        arguments = [script, nginx_server.url("f.bin"), str(vectors)]
        counts.append(Counter(traced(tmp_path, cache, *arguments, JCACHE_JSON=str(tmp_path / "json"))))
    each = {name: (counts[1][name] - counts[0][name]) / 30 for name in counts[1]}
    print({name: round(number, 2) for name, number in each.items() if number})
    # Whose turn it is, is locked and unlocked behind a pause of 50 ms, which a busy machine makes.
    assert each.pop("fcntl", 0) < 2.2, each
    assert sum(each.values()) < 2.2, each


def test_patience_is_spent_once_and_comes_back_slowly_or_with_success(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("jcache.planning.waiting.time.monotonic", lambda: clock[0])
    patience = Patience(5.0)
    patience.waited(2.0, in_vain=True)
    assert patience.left_s == pytest.approx(3.0)
    patience.waited(2.0, in_vain=False)
    assert patience.left_s == 5.0, "what bore fruit is free"
    patience.waited(5.0, in_vain=True)
    assert patience.left_s == pytest.approx(0.0)
    clock[0] += 100
    assert patience.left_s == pytest.approx(1.0), "one percent of the time"
    clock[0] += 10_000
    assert patience.left_s == 5.0
