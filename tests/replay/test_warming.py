"""A cache that is filled before the job: with exactly what the profile says, from real servers."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from analysis import CLIENT, COLUMNS, JOB, write
from commands import jcache

from jcache_plugins.replay.pace import MOST_BYTES, Pace

if TYPE_CHECKING:
    from pathlib import Path

    from analysis import Served
    from conftest import RunPython
    from servers import Nginx, ScriptedOrigin

pytestmark = pytest.mark.turns("served")

READS = """
import sys, fsspec
fs = fsspec.filesystem("http")
for url in sys.argv[1:]:
    fs.cat_ranges([url] * 3, [0, 50, 90_000], [100, 200, 90_010])
    fs.cat_file(url, 400_000, 499_000)
"""
DISTINCT = 200 + 10 + 99_000


def warmed(*args: str | Path, **how: Any) -> dict[str, Any]:
    return json.loads(jcache("warm", *args, "--json", **how).stdout)


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}


def served_table(origin: ScriptedOrigin, name: str) -> str:
    data = io.BytesIO(b"a,b\n1,2\n")
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").table({"a": [1], "b": [2]}), data
        )
    origin.put(name, data.getvalue())
    return origin.url(name)


@pytest.fixture
def files(nginx_server: Nginx) -> list[str]:
    for number in range(4):
        path = nginx_server.directory / f"f{number}"
        path.write_bytes(os.urandom(500_000))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    nginx_server.reset()
    return [nginx_server.url(f"f{number}") for number in range(4)]


@pytest.fixture
def profiles(run_python: RunPython, files: list[str], tmp_path: Path) -> Path:
    where = tmp_path / "profiles"
    run_python(READS, *files, cache=tmp_path / "recorded", env={"JCACHE_PROFILE": str(where)})
    return where


def test_an_analysis_reads_all_from_a_cache_that_was_filled_by_its_profile(
    served: Served, run_python: RunPython, tmp_path: Path, cache_dir: Path
) -> None:
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))
    where, args = tmp_path / "profiles", (",".join(COLUMNS), *urls)
    cold = run_python(JOB, *args, cache=tmp_path / "recorded", env={**CLIENT, "JCACHE_PROFILE": str(where)})
    distinct = json.loads(jcache("profile", "show", where, "--json").stdout)["total"]["distinct_bytes"]
    served.reset()
    told = warmed("--dir", cache_dir, where)
    assert (told["files"], told["failed"], told["missing_bytes"]) == (2, {}, 0)
    assert told["wanted_bytes"] == told["fetched_bytes"] == served.data_bytes() == distinct
    warm = run_python(JOB, *args, env=CLIENT)
    assert warm.stdout == cold.stdout
    assert served.data_bytes() == distinct, "the job takes none from the origin"
    assert warm.report["read"]["miss_bytes"] == warm.report["readv"]["miss_bytes"] == 0


def test_what_is_there_is_not_fetched_again(
    nginx_server: Nginx, profiles: Path, run_python: RunPython, files: list[str], cache_dir: Path
) -> None:
    run_python(READS, files[0])
    nginx_server.reset()
    told = warmed("--dir", cache_dir, profiles)
    assert (told["held_bytes"], told["fetched_bytes"]) == (DISTINCT, 3 * DISTINCT)
    assert nginx_server.body_bytes() == 3 * DISTINCT
    nginx_server.reset()
    told = warmed("--dir", cache_dir, profiles)
    assert (told["held_bytes"], told["fetched_bytes"]) == (4 * DISTINCT, 0)
    assert nginx_server.body_bytes() == 0


def test_one_that_is_killed_goes_on_where_it_was(
    nginx_server: Nginx, profiles: Path, files: list[str], cache_dir: Path, run_python: RunPython
) -> None:
    command = [sys.executable, "-m", "jcache", "warm", "--dir", cache_dir, "--rate", "300kB", "--parallel", "4"]
    for _ in range(2):
        nginx_server.reset()
        process = subprocess.Popen([*command, "--whole", profiles], env=clean(), stderr=subprocess.DEVNULL)
        while nginx_server.body_bytes() < 200_000 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    told = warmed("--dir", cache_dir, profiles)
    assert told["held_bytes"] > 0
    assert (told["held_bytes"] + told["fetched_bytes"], told["missing_bytes"]) == (4 * DISTINCT, 0)
    nginx_server.reset()
    ran = run_python(READS, *files)
    assert nginx_server.body_bytes() == 0
    assert ran.report["read"]["hit_bytes"] + ran.report["readv"]["hit_bytes"] == 4 * (DISTINCT + 50)


def test_whole_files_by_their_addresses_by_a_glob_and_of_a_run(
    nginx_server: Nginx, profiles: Path, files: list[str], tmp_path: Path
) -> None:
    listed = nginx_server.directory / "listed"
    listed.mkdir()
    for name in ("a.bin", "b.bin", "c.txt"):
        (listed / name).write_bytes(bytes(30_000))
    assert warmed("--dir", tmp_path / "a", files[0], files[1])["fetched_bytes"] == 1_000_000
    assert warmed("--dir", tmp_path / "b", nginx_server.url("listed/") + "*.bin")["fetched_bytes"] == 60_000
    assert warmed("--dir", tmp_path / "c", profiles, "--whole", "--file", "*/f2")["fetched_bytes"] == 500_000


def test_a_file_that_is_gone_is_named_and_the_others_are_fetched(
    nginx_server: Nginx, profiles: Path, files: list[str], cache_dir: Path
) -> None:
    (nginx_server.directory / "f1").unlink()
    done = jcache("warm", "--dir", cache_dir, profiles, code=1)
    assert f"jcache: {files[1]}: FileNotFoundError" in done.stderr
    assert done.stdout.startswith("4 files, ")
    assert warmed("--dir", cache_dir, profiles, "--file", "*[!1]")["held_bytes"] == 3 * DISTINCT


def test_what_the_cache_does_not_take_is_said(profiles: Path, cache_dir: Path, files: list[str]) -> None:
    done = jcache("warm", "--dir", cache_dir, profiles, env={"JCACHE_SIZE": "1k"}, code=1)
    assert "the cache did not take" in done.stderr


def test_what_the_cache_did_not_take_is_fetched_again_of_each_file(
    http_origin: ScriptedOrigin, run_python: RunPython
) -> None:
    files = [http_origin.put(name, os.urandom(size)) for name, size in (("a", 1000), ("b", 2000), ("c", 3000))]
    code = """
import sys, jcache
from jcache.recording.recorder import Recorder
submit, refused = Recorder.submit, set()
def once(self, recording, **how):
    size = recording.size_bytes
    if size != 3000 and size not in refused and not how["timeout_s"]:
        return False
    if size != 3000 and size not in refused:
        refused.add(size)
        return False
    return submit(self, recording, **how)
Recorder.submit = once
done = jcache.warm(sys.argv[1:], parallel=1)
print(done.missing_bytes, done.fetched_bytes, done.failed)
"""
    ran = run_python(code, *(http_origin.url(name) for name in "abc"), env={"JCACHE_SUMMARY": "0"})
    assert ran.stdout.splitlines()[-1] == "0 9000 {}"
    assert [file.body_bytes for file in files] == [2000, 4000, 3000]


@pytest.mark.parametrize("why", ["a file", "no directory can be made", "past the cache"])
def test_where_nothing_can_be_cached_nothing_is_fetched(
    why: str, http_origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path
) -> None:
    http_origin.put("f", bytes(1000))
    (tmp_path / "file").touch()
    where = {"a file": tmp_path / "file", "no directory can be made": tmp_path / "file" / "x"}.get(why, cache_dir)
    env = {"JCACHE_BYPASS": "1"} if why == "past the cache" else {}
    done = jcache("warm", "--dir", where, http_origin.url("f"), env=env, code=2)
    assert ("cannot be used" in done.stderr) == (not env)
    assert (done.stderr.count("\n"), done.stdout, http_origin.requests) == (1, "", 0)


def test_of_a_cache_that_can_only_be_read_what_is_there_counts_and_nothing_is_fetched(
    http_origin: ScriptedOrigin, cache_dir: Path, run_python: RunPython
) -> None:
    files = [http_origin.put(name, bytes(1000)) for name in "ab"]
    warmed("--dir", cache_dir, http_origin.url("a"))
    code = """
import sys, jcache
from jcache.cache import Cache
def probe(self, *, mark):
    raise PermissionError(13, "Permission denied")
Cache._probe = probe
done = jcache.warm(sys.argv[1:])
print(done.held_bytes, done.fetched_bytes, done.failed)
"""
    told = run_python(code, http_origin.url("a"), http_origin.url("b"), env={"JCACHE_SUMMARY": "0"}).stdout
    assert told.startswith("1000 0 {'" + http_origin.url("b"))
    assert "nothing can be written to" in told
    assert [file.gets for file in files] == [1, 0]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("f.csv", ("--columns", "a,b")),
        ("f.csv", ("--file", "*nomatch")),
        ("f.parquet", ("--columns", "nosuch")),
    ],
)
def test_what_selects_nothing_is_an_error(
    name: str, args: tuple[str, ...], http_origin: ScriptedOrigin, cache_dir: Path
) -> None:
    url = served_table(http_origin, name)
    done = jcache("warm", "--dir", cache_dir, url, *args, code=2)
    assert ("there is nothing to fetch" in done.stderr, done.stderr.count("\n"), done.stdout) == (True, 1, "")


def test_one_column_of_several_that_no_file_has_is_named(http_origin: ScriptedOrigin, cache_dir: Path) -> None:
    url = served_table(http_origin, "f.parquet")
    done = jcache("warm", "--dir", cache_dir, url, "--columns", "a,nosuch", "--json", code=1)
    assert "jcache: no column matches nosuch" in done.stderr
    assert json.loads(done.stdout)["columns"] == {"a": 1, "nosuch": 0}
    assert warmed("--dir", cache_dir, url, "--columns", "a")["fetched_bytes"] == 0, "that all is there is no error"


def test_another_site_serves_what_was_recorded(
    nginx_server: Nginx, profiles: Path, files: list[str], cache_dir: Path, run_python: RunPython
) -> None:
    there = nginx_server.directory / "elsewhere"
    there.mkdir()
    for number in range(4):
        (nginx_server.directory / f"f{number}").rename(there / f"f{number}")
    assert (
        warmed("--dir", cache_dir, profiles, "--map", f"{nginx_server.url()}={nginx_server.url('elsewhere/')}")[
            "fetched_bytes"
        ]
        == 4 * DISTINCT
    )
    nginx_server.reset()
    run_python(READS, *(nginx_server.url(f"elsewhere/f{number}") for number in range(4)))
    assert nginx_server.body_bytes() == 0


def test_one_file_is_fetched_by_several_requests_at_a_time(http_origin: ScriptedOrigin, cache_dir: Path) -> None:
    data, came_s = os.urandom(1 << 20), []
    file = http_origin.put(
        "f",
        data,
        at=dict.fromkeys(range(1, 5), lambda _: came_s.append(time.monotonic())),
        once={number: {"delay_s": 3.0} for number in range(1, 5)},
    )
    told = warmed("--dir", cache_dir, http_origin.url("f"), "--parallel", "4")
    assert told["fetched_bytes"] == file.body_bytes == len(data)
    assert came_s[-1] - came_s[0] < 9.0, "each was asked for when the one before it was there"


@pytest.mark.parametrize(
    ("latency_s", "speed", "least_s", "most_s"),
    [
        (0.02, 1e9, 0.0, 0.1),
        (3.0, 1e9, 0.0, 3.1),
        (0.02, 4e5, 0.5, 1.5),
        (0.02, 5e4, 1.0, 3.0),
    ],
)
def test_pieces_grow_to_what_a_second_brings(latency_s: float, speed: float, least_s: float, most_s: float) -> None:
    pace = Pace(None, 8)
    for _ in range(10):
        pace.took(pace.piece_bytes, latency_s + pace.piece_bytes / speed)
    assert (pace.piece_bytes == MOST_BYTES) == (speed == 1e9)
    assert least_s <= latency_s + pace.piece_bytes / speed <= most_s


def test_a_rate_is_exceeded_at_no_time(http_origin: ScriptedOrigin, cache_dir: Path) -> None:
    came_s: list[float] = []
    at = dict.fromkeys(range(1, 100), lambda _: came_s.append(time.monotonic()))
    file = http_origin.put("f", os.urandom(1_500_000), at=at)
    began_s = time.monotonic()
    assert warmed("--dir", cache_dir, http_origin.url("f"), "--rate", "1MB")["fetched_bytes"] == 1_500_000
    bounds = [map(int, (asked or "bytes=0-1499999")[6:].split("-")) for asked in file.asked]
    asked_bytes = list(itertools.accumulate(last + 1 - first for first, last in bounds))
    assert asked_bytes[-1] == 1_500_000
    for then_s, nbytes in zip(came_s, asked_bytes, strict=True):
        assert nbytes <= 1_000_000 * (then_s - began_s)


@pytest.mark.parametrize("times", [1, 20])
def test_an_interrupt_ends_it_also_where_the_origin_does_not_answer(
    http_origin: ScriptedOrigin, cache_dir: Path, times: int
) -> None:
    asked = threading.Event()
    http_origin.put("first", os.urandom(100_000))
    http_origin.put("stalled", os.urandom(100_000), at={1: lambda _: asked.set()}, once={1: {"delay_s": 300.0}})
    command = [sys.executable, "-m", "jcache", "warm", "--dir", cache_dir, "--parallel", "1"]
    urls = [http_origin.url("first"), http_origin.url("stalled")]
    process = subprocess.Popen([*command, *urls], env=clean(), stderr=subprocess.PIPE, text=True)
    assert asked.wait(60)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)  # signals that come together are one
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (said.count("\n"), said.startswith("jcache: stopped")) == (1, True)
    assert warmed("--dir", cache_dir, urls[0])["held_bytes"] == 100_000


@pytest.mark.slow
def test_the_workers_of_a_cluster_fill_one_cache(
    nginx_server: Nginx, profiles: Path, files: list[str], cache_dir: Path, run_python: RunPython
) -> None:
    pytest.importorskip("distributed")
    code = """
import sys
from distributed import Client, LocalCluster
import jcache
from jcache.profile.select import in_directory, runs
from jcache_plugins.dask import JCachePlugin

if __name__ == "__main__":
    (run,) = runs(in_directory(sys.argv[1]), [])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.register_plugin(JCachePlugin(cache_dir=sys.argv[2]))
        done = jcache.warm(run.profile, client=client)
        print(done.files, done.fetched_bytes, done.missing_bytes, done.failed)
"""
    ran = run_python(code, str(profiles), str(cache_dir), cache=None, env={"JCACHE_SUMMARY": "0"})
    assert ran.stdout.splitlines()[-1] == f"4 {4 * DISTINCT} 0 {{}}"
    nginx_server.reset()
    run_python(READS, *files)
    assert nginx_server.body_bytes() == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nothing",), "no such run"),
        (("https://host/f", "--rate", "much"), "--rate"),
        (("https://host/f", "--map", "x"), "OLD=NEW"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(args: tuple[str, ...], words: str, profiles: Path, tmp_path: Path) -> None:
    env = {"JCACHE_PROFILE": str(profiles), "JCACHE_DIR": str(tmp_path / "recorded")}
    done = jcache("warm", *args, code=2, env=env)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
