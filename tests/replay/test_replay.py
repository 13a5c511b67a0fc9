"""A recorded run, made again: the same requests, at their times, against real servers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from analysis import CLIENT, COLUMNS, JOB, write
from commands import jcache

from jcache_plugins.replay import processes
from jcache_plugins.replay.player import Played

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from analysis import Served
    from conftest import RunPython
    from servers import Nginx, ScriptedOrigin

pytestmark = pytest.mark.turns("served")

STEPS = """
import os, sys, threading, time, fsspec
fs = fsspec.filesystem("http")
url, other = sys.argv[1:3]

def steps(number):
    with fs.open(url, block_size=50_000) as file:
        for step in range(4):
            file.seek(number * 100_000 + step * 20_000)
            file.read(3000)
            time.sleep(0.05)

threads = [threading.Thread(target=steps, args=(number,)) for number in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
fs.info(other)
fs.cat_ranges([other] * 3, [0, 5000, 90_000], [100, 5200, 90_010])
fs.cat_file(other, 300_000, 300_100)
"""


def replayed(*args: str | Path, **how: Any) -> dict[str, Any]:
    return json.loads(jcache("replay", *args, "--json", **how).stdout)


def ranges(server: Nginx) -> list[tuple[str, str]]:
    return sorted((one.uri, one.range) for one in server.requests() if one.method == "GET")


@pytest.fixture
def files(nginx_server: Nginx) -> list[str]:
    for name in "ab":
        (nginx_server.directory / name).write_bytes(os.urandom(500_000))
        os.utime(nginx_server.directory / name, (1_600_000_000, 1_600_000_000))
    nginx_server.reset()
    return [nginx_server.url(name) for name in "ab"]


@pytest.fixture
def profiles(run_python: RunPython, files: list[str], tmp_path: Path) -> Path:
    where = tmp_path / "profiles"
    run_python(STEPS, *files, cache=tmp_path / "recorded", env={"JCACHE_PROFILE": str(where)})
    return where


def test_an_analysis_is_made_again_to_the_byte(served: Served, run_python: RunPython, tmp_path: Path) -> None:
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))
    where, args = tmp_path / "profiles", (",".join(COLUMNS), *urls)
    served.reset()
    run_python(JOB, *args, cache=tmp_path / "recorded", env={**CLIENT, "JCACHE_PROFILE": str(where)})
    recorded = sorted(served.spans())
    served.reset()
    told = replayed(where, "--cache", tmp_path / "empty")
    assert sorted(served.spans()) == recorded
    assert (told["failed"], told["skipped"], told["short_bytes"]) == ({}, 0, 0)
    served.reset()
    told = replayed(where, "--cache", tmp_path / "empty", "--speed", "max")
    assert served.data_bytes() == 0, "it is warm now"
    assert told["failed"] == {}


def test_it_takes_its_time_or_none(profiles: Path, tmp_path: Path) -> None:
    took_s = json.loads(jcache("profile", "show", profiles, "--json").stdout)["real_s"]
    as_recorded, at_once, twice = (
        replayed(profiles, "--cache", tmp_path / speed, "--speed", speed) for speed in ("recorded", "max", "0.5")
    )
    assert as_recorded["requests"] == at_once["requests"] == twice["requests"]
    for attempt in range(4):  # a busy machine holds up what waits for nothing, too
        if at_once["wall_s"] >= as_recorded["wall_s"]:
            at_once = replayed(profiles, "--cache", tmp_path / f"max {attempt}", "--speed", "max")
    assert 0 < at_once["wall_s"] < as_recorded["wall_s"]
    assert as_recorded["wall_s"] > 0.15, "there are pauses of 0.15 s in it"
    assert twice["wall_s"] > 1.3 * min(as_recorded["wall_s"], took_s)


def test_past_the_cache_each_request_is_the_origins(
    nginx_server: Nginx, files: list[str], run_python: RunPython, tmp_path: Path
) -> None:
    where = tmp_path / "profiles"
    env = {"JCACHE_PROFILE": str(where), "JCACHE_BYPASS": "1"}
    nginx_server.reset()
    run_python(STEPS, *files, env=env)
    nginx_server.reset()
    told = replayed(where, "--no-cache")
    assert told["failed"] == {}
    steps = [(number * 100_000 + step * 20_000) for number in range(3) for step in range(4)]
    others = [(0, 99), (5000, 5199), (90_000, 90_009), (300_000, 300_099)]
    assert ranges(nginx_server) == sorted(
        [("/a", f"bytes={start}-{start + 2999}") for start in steps]
        + [("/b", f"bytes={first}-{last}") for first, last in others]
    )
    assert not list(tmp_path.glob("jcache-replay-*"))


def test_another_site_is_asked_and_what_fails_is_counted(
    nginx_server: Nginx, profiles: Path, files: list[str], tmp_path: Path
) -> None:
    there = nginx_server.directory / "elsewhere"
    there.mkdir()
    (nginx_server.directory / "a").rename(there / "a")
    nginx_server.reset()
    mapped = "--map", f"{nginx_server.url()}={nginx_server.url('elsewhere/')}"
    done = jcache("replay", profiles, "--cache", tmp_path / "c", "--speed", "max", *mapped, code=1)
    assert {one.uri for one in nginx_server.requests()} == {"/elsewhere/a", "/elsewhere/b"}
    assert "3 failed: FileNotFoundError" in done.stderr


def test_it_reports_as_a_job_does_and_stands_beside_the_recording(profiles: Path, tmp_path: Path) -> None:
    done = jcache("replay", profiles, "--cache", tmp_path / "c", "--compare")

    found = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines() if "x1.00" in line}
    assert {"requests: open", "requests: read", "requests: vector", "ranges", "bytes", "distinct bytes"} <= set(found)
    assert "cache combined hit rate" in done.stderr
    told = replayed(profiles, "--cache", tmp_path / "c", "--compare", "--speed", "max")
    assert told["read_bytes"] == {line["label"]: line["b"] for line in told["differences"]}["bytes"]
    assert [path.suffix for path in (tmp_path / "c" / ".reports").iterdir()].count(".json") >= 1


def insist(group: int, number: int) -> None:
    """Send a signal to all processes of a group, and again and again."""
    for _ in range(20):
        os.killpg(group, number)


@pytest.mark.parametrize(("count", "send"), [(1, os.kill), (2, os.killpg), (1, insist), (2, insist)])
def test_an_interrupt_ends_all_of_it_with_one_line(
    count: int,
    send: Callable[[int, int], None],
    nginx_server: Nginx,
    http_origin: ScriptedOrigin,
    profiles: Path,
    tmp_path: Path,
) -> None:
    (recorded,) = profiles.glob("*.jcp")
    for number in range(1, count):
        shutil.copy(recorded, profiles / f"{number}.jcp")
    asked = threading.Event()
    stalled = {number: {"delay_s": 300.0} for number in range(1, 100)}
    for name in "ab":
        http_origin.put(name, bytes(500_000), at={1: lambda _: asked.set()}, once=stalled)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
    options = "--cache", tmp_path / "c", "--speed", "max", "--map", f"{nginx_server.url()}={http_origin.url('')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "jcache", "replay", profiles, *options],
        env={**env, "JCACHE_SUMMARY": "0"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert asked.wait(60)
    try:
        send(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (1, "jcache: stopped\n")


def test_a_process_whose_parent_is_gone_says_nothing(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("JCACHE_SUMMARY", "0")
    what = {"maps": [], "speed": None, "workers": None, "plain": False, "start_time": 0.0}
    process, child = processes._begun(what, [str(path) for path in profiles.glob("*.jcp")])
    assert child.recv() is None, "it is ready"
    child.close()
    process.join(60)
    assert (process.exitcode, capfd.readouterr().err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionResetError])
def test_a_process_that_died_is_one_failure_and_the_others_go_on(error: type[Exception]) -> None:
    def dead(*_: object) -> None:
        raise error

    process = SimpleNamespace(join=lambda: None, exitcode=-9)
    played, said = Played(), []
    played.failed["of another one"] += 1
    answers = iter([None, played])
    children = [
        (process, SimpleNamespace(recv=dead, send=dead)),
        (process, SimpleNamespace(recv=lambda: next(answers), send=said.append)),
    ]
    done = processes._played(children)
    assert (done.failed, said) == ({"a process ended with -9": 1, "of another one": 1}, [None])


def test_processes_of_a_job_are_processes_again(
    nginx_server: Nginx, run_python: RunPython, files: list[str], tmp_path: Path
) -> None:
    where = tmp_path / "profiles"
    code = f"""
import subprocess, sys
script = {STEPS!r}
jobs = [subprocess.Popen([sys.executable, "-c", script, *sys.argv[1:]]) for _ in range(3)]
assert [job.wait() for job in jobs] == [0, 0, 0]
import fsspec
"""
    run_python(code, *files, cache=tmp_path / "recorded", env={"JCACHE_PROFILE": str(where)})
    assert len(list(where.glob("*.jcp"))) == 3
    nginx_server.reset()
    told = replayed(where, "--cache", tmp_path / "c")
    assert (told["failed"], told["requests"]) == ({}, 3 * 18)
    assert len(list((tmp_path / "c" / ".reports").glob("*.json"))) == 3
    fewer = replayed(where, "--cache", tmp_path / "d", "--workers", "2", "--speed", "max")
    assert (fewer["failed"], fewer["requests"]) == ({}, 3 * 18)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--speed", "fast"), "--speed"),
        (("--map", "=x"), "OLD=NEW"),
        (("--cache", "x", "--no-cache"), "not both"),
        ((), "through which cache"),
        (("--cache", __file__), "cannot be used: it is a file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(args: tuple[str, ...], words: str, profiles: Path) -> None:
    done = jcache("replay", profiles, *args, code=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
