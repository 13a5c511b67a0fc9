"""Fetching ahead what the job's last run read next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from jcache.counters import READ, VECTOR
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start
from jcache.profile.reader import Profile, Recording
from jcache.ranges import total
from jcache_plugins.prefetch import columns
from jcache_plugins.prefetch.ahead import PIECE_BYTES, TOGETHER_BYTES, WINDOW_BYTES, Prefetcher
from jcache_plugins.prefetch.guide import Guide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Ran, RunPython
    from proxy import CountingProxy
    from servers import Nginx

FILES_COUNT, SIZE = 3, 3_000_000

# argv: URL's beginning, first byte of each step's ranges, pause.
JOB = """
import fsspec, hashlib, sys, time
fs, digest = fsspec.filesystem("http"), hashlib.sha1()
for number in range(3):
    url = sys.argv[1] + str(number)
    for step in range(8):
        starts = [int(sys.argv[2]) + step * 300_000 + k * 40_000 for k in range(4)]
        for data in fs.cat_ranges([url] * 4, starts, [start + 20_000 for start in starts]):
            digest.update(data)
        time.sleep(float(sys.argv[3]))
print(digest.hexdigest())
"""
READ_BYTES = FILES_COUNT * 8 * 4 * 20_000


def guide(tmp_path: Path, requests: list[Request]) -> Guide:
    path = tmp_path / "p.jcp"
    path.write_bytes(
        pack_start()
        + pack_json(HEAD, {"run": "r", "start_time": 1.0})
        + pack_json(FILES, ["https://host/a", "https://host/b"])
        + pack_batch(Batch.of(requests))
        + pack_json(END, {"end_time": 2.0, "lost": 0})
    )
    return Guide(Profile([Recording.open(path)]))


def vector(end_us: int, file: int, *ranges: tuple[int, int]) -> Request:
    starts, stops = (list(column) for column in zip(*ranges, strict=True))
    kind, size = VECTOR if len(ranges) > 1 else READ, sum(stops) - sum(starts)
    return Request(kind, end_us, 10, 0, file, starts, stops, 0, size, 0, 0)


def test_what_comes_next_is_what_came_next_and_nothing_twice(tmp_path: Path) -> None:
    found = guide(
        tmp_path,
        [
            vector(10, 0, (0, 10)),
            vector(20, 0, (100, 110), (50, 60)),
            vector(30, 0, (0, 10), (200, 210)),
            vector(40, 1, (5, 10)),
            vector(50, 0, (300, 310)),
        ],
    )
    a, b = "https://host/a", "https://host/b"
    everything = [(a, (0, 10)), (a, (50, 60)), (a, (100, 110)), (a, (200, 210)), (a, (300, 310)), (b, (5, 10))]
    assert list(found.behind(a, [])) == everything
    assert list(found.behind(a, [(0, 10)])) == everything[1:]
    assert list(found.behind(a, [(50, 60), (100, 110)])) == everything[3:]
    assert list(found.behind(b, [(5, 10)])) == []
    assert not found.knows("https://host/c")


def test_little_is_under_way_until_a_guess_was_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [vector(10 * n, 0, (n * 300_000, (n + 1) * 300_000)) for n in range(60)]
    batches: list[int] = []
    monkeypatch.setattr(Prefetcher, "_fetch", lambda _, __, pieces: batches.append(total(pieces)))
    for used, most in ((0, PIECE_BYTES), (1, TOGETHER_BYTES)):
        prefetcher = Prefetcher(None, guide(tmp_path, requests), None, places={})
        prefetcher._used = used
        prefetcher._go_on("https://host/a", [(0, 300_000)])
        assert 0 < max(batches) <= most + 300_000
        assert WINDOW_BYTES - 300_000 <= sum(batches) <= WINDOW_BYTES + 300_000
        batches.clear()


@pytest.fixture
def job(
    nginx_server: Nginx, counting_proxy: Callable[..., CountingProxy], run_python: RunPython, tmp_path: Path
) -> Callable[..., Ran]:
    for number in range(FILES_COUNT):
        (nginx_server.directory / f"f{number}").write_bytes(os.urandom(SIZE))
        os.utime(nginx_server.directory / f"f{number}", (1_600_000_000, 1_600_000_000))
    proxy = counting_proxy(nginx_server.port, delay_s=0.005)
    runs = 0

    def run(*, first: int = 0, pause_s: float = 0.03, program: str = JOB, **env: Any) -> Ran:
        nonlocal runs
        runs += 1
        nginx_server.reset()
        url = f"http://127.0.0.1:{proxy.port}/f"
        where = {"JCACHE_PROFILE": str(tmp_path / "profiles"), "JCACHE_APPNAME": "job"}
        return run_python(
            program, url, str(first), str(pause_s), cache=tmp_path / f"cache-{runs}", env={**where, **env}
        )

    return run


def test_a_second_run_finds_most_of_it_fetched_and_nothing_is_fetched_twice_or_in_vain(
    job: Callable[..., Ran], nginx_server: Nginx
) -> None:
    first = job()
    assert first.report["origin"]["prefetch_bytes"] == 0
    second = job(JCACHE_PREFETCH="profile")
    assert second.stdout == first.stdout
    origin, readv = second.report["origin"], second.report["readv"]
    assert nginx_server.body_bytes() == origin["bytes"] == READ_BYTES
    assert origin["prefetch_bytes"] > READ_BYTES / 2
    assert origin["prefetch_unused_bytes"] == 0
    assert (readv["hit_bytes"], readv["miss_bytes"]) == (0, READ_BYTES), "what is fetched ahead is no hit"
    assert second.report["cache"]["recorded_bytes"] == READ_BYTES


def test_a_forked_child_is_followed_as_well(job: Callable[..., Ran], nginx_server: Nginx) -> None:
    first = job()
    child = "import fsspec, os, sys\nif pid := os.fork():\n    sys.exit(os.waitpid(pid, 0)[1])\n"
    second = job(JCACHE_PREFETCH="profile", program=child + JOB)
    assert second.stdout == first.stdout
    (origin,) = (report["origin"] for report in second.reports)
    assert nginx_server.body_bytes() == origin["bytes"] == READ_BYTES
    assert origin["prefetch_bytes"] > READ_BYTES / 2


def test_without_a_run_before_it_or_switched_off_nothing_is_fetched_ahead(job: Callable[..., Ran]) -> None:
    alone = job(JCACHE_PREFETCH="profile")
    assert alone.report["origin"]["prefetch_bytes"] == 0
    assert alone.stderr.count("jcache:") == 0
    assert job(JCACHE_PREFETCH="off").report["origin"]["prefetch_bytes"] == 0


def test_a_run_that_reads_something_else_pays_within_a_bound_and_reads_right(
    job: Callable[..., Ran], nginx_server: Nginx
) -> None:
    job()
    (recorded,) = (nginx_server.directory.parent / "profiles").glob("*.jcp")
    plain = job(first=20_000)
    other = job(first=20_000, JCACHE_PREFETCH=str(recorded))
    assert other.stdout == plain.stdout
    origin = other.report["origin"]
    assert origin["prefetch_unused_bytes"] <= WINDOW_BYTES
    assert other.report["cache"]["recorded_bytes"] == READ_BYTES, "nothing that nobody asked for is kept"
    assert origin["bytes"] == READ_BYTES + origin["prefetch_unused_bytes"]


def test_a_profile_that_is_none_is_named(job: Callable[..., Ran]) -> None:
    ran = job(JCACHE_PREFETCH="/nowhere/x.jcp")
    assert ran.stderr.count("JCACHE_PREFETCH: no such file or directory: /nowhere/x.jcp") == 1


def test_a_profile_that_is_damaged_is_named(job: Callable[..., Ran], tmp_path: Path) -> None:
    damaged = tmp_path / "x.jcp"
    damaged.write_bytes(b"garbage")
    said = job(JCACHE_PREFETCH=str(damaged)).stderr
    assert said.count("JCACHE_PREFETCH: ") == 1
    assert str(damaged) in said


LOOP = """
import sys, time, uproot
total = 0
for number in range(3):
    with uproot.open(sys.argv[1] + str(number) + ".root") as file:
        tree = file["Events"]
        for begin in range(0, tree.num_entries, 2000):
            arrays = tree.arrays(["Jet_pt", "MET_pt"], entry_start=begin, entry_stop=begin + 2000)
            total += float(sum(arrays["MET_pt"]))
            time.sleep(0.05)
print(total)
"""


@pytest.mark.parametrize(
    "is_rntuple", [pytest.param(False, id="ttree", marks=pytest.mark.long), pytest.param(True, id="rntuple")]
)
def test_the_columns_that_a_loop_reads_are_fetched_ahead_in_files_that_nobody_has_read(
    nginx_server: Nginx,
    counting_proxy: Callable[..., CountingProxy],
    run_python: RunPython,
    tmp_path: Path,
    *,
    is_rntuple: bool,
) -> None:
    from analysis import write

    for number in range(3):
        write(nginx_server.directory / f"f{number}.root", rntuple=is_rntuple, seed=number)
    url = f"http://127.0.0.1:{counting_proxy(nginx_server.port, delay_s=0.005).port}/f"
    plain = run_python(LOOP, url, cache=None)
    off = run_python(LOOP, url, cache=tmp_path / "off")
    nginx_server.reset()
    ahead = run_python(LOOP, url, cache=tmp_path / "ahead", env={"JCACHE_PREFETCH": "columns"})
    assert ahead.stdout == off.stdout == plain.stdout
    origin = ahead.report["origin"]
    assert origin["bytes"] == nginx_server.body_bytes()
    assert origin["prefetch_bytes"] - origin["prefetch_unused_bytes"] > 0.4 * off.report["origin"]["bytes"]
    # The first bytes of each file say of which format it is; where they are not recorded soon, they are read once more.
    assert origin["prefetch_unused_bytes"] <= 3 * columns.PIECE_BYTES
    assert ahead.report["readv"]["hit_bytes"] <= off.report["readv"]["hit_bytes"] + 1000
