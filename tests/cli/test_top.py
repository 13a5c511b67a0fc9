"""`jcache top`: jobs that run, and those that only seem to, told apart by their processes."""

from __future__ import annotations

import json
import os
import pty
import pwd
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from report_samples import ttbar_report
from rich.console import Console

from jcache.cache.books import USAGE_NAME, Book, Use
from jcache.cli import main
from jcache.cli.top import drawn
from jcache.report.faces.units import human, percent
from jcache.report.model import Report
from jcache.report.running import LOST_S, SILENT_S, Watch, bandwidth, state_of
from jcache.system.processes import here
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

HERE = os.uname().nodename
TOP = [sys.executable, "-c", "from jcache.cli.top import top; top()"]


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def interim(**names) -> Report:
    values = {"complete": False, "interval_s": 5.0, "host": HERE, "pid": os.getpid(), "run": "r1"}
    values["start_time"] = time.time() - 30
    return ttbar_report(events=200, real_s=30.0, **{**values, **names})


def call(*arguments: object, **environ: str | None):
    environ = {"JCACHE_DIR": None, "JCACHE_JSON": None, **environ}
    return CliRunner().invoke(main, ["top", *map(str, arguments)], env=environ, prog_name="jcache")


def test_processes_are_told_apart(gone: int) -> None:
    now = time.time()
    assert state_of(interim(), now=now, modified_s=now - 9999) == "running"
    assert state_of(interim(pid=gone), now=now, modified_s=now) == "killed"
    assert state_of(interim(complete=True), now=now, modified_s=now) == "ended"
    # This process had not started when that report was written: its number was given again.
    assert state_of(replace(interim(), end_time=now - 86400 * 365), now=now, modified_s=now) == "killed"
    far = interim(host="another.host", pid=gone)
    assert state_of(far, now=now, modified_s=now - 15) == "running"
    assert state_of(far, now=now, modified_s=now - 15 - SILENT_S - 1) == "silent"
    # Of the same name, but its numbers are others': a container's, or another boot's.
    contained = interim(pid=gone, place=f"{HERE}__00000000")
    assert state_of(contained, now=now, modified_s=now - 15) == "running"
    assert state_of(replace(contained, pid=os.getpid()), now=now, modified_s=now - 9999) == "silent"
    assert state_of(interim(pid=gone, place=here()), now=now, modified_s=now) == "killed"


def test_a_zombie_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    report = interim(pid=process.pid)
    assert state_of(report, now=time.time(), modified_s=time.time()) == "killed"
    process.wait()


def test_a_job_is_all_of_its_processes(tmp_path: Path, gone: int) -> None:
    parts = [interim(), interim(pid=gone, seed=2), interim(pid=gone + 1, complete=True, interval_s=0.0, seed=3)]
    for report in parts:
        report.save(tmp_path)
    interim(run="r2", complete=True, interval_s=0.0, pid=1).save(tmp_path)
    (tmp_path / "jcache.torn.x.1.1.000.json").write_text('"complete": fal')
    (job,) = json.loads(call("--json", tmp_path).stdout)
    assert job["processes"] == {"running": 1, "killed": 1, "ended": 1}
    assert job["bytes"] == sum(report.requested_bytes for report in parts)
    assert job["hit_bytes"] == sum(report.hit_bytes for report in parts)
    assert (job["hit_bytes_per_s"], job["miss_bytes_per_s"]) == bandwidth(parts[0])
    assert job["run"] == "r1"
    result = call(tmp_path, "--once")
    assert result.exit_code == 0
    assert "ttbar" in result.stdout
    assert "1 running" in result.stdout


def test_users_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    interim().save(tmp_path)
    assert "user" not in call(tmp_path).stdout
    other = interim(run="r2", start_time=time.time() - 20).save(tmp_path)
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(other, 64321, -1)
    assert "64321" in call(tmp_path).stdout
    assert {job["user"] for job in json.loads(call("--json", tmp_path).stdout)} == {
        "64321",
        pwd.getpwuid(os.geteuid()).pw_name,
    }


def test_what_is_over_is_not_shown_for_long(tmp_path: Path, gone: int) -> None:
    path = interim(pid=gone).save(tmp_path)
    watch = Watch(str(tmp_path), clock=lambda: now)
    now = os.stat(path).st_mtime + LOST_S - 1
    assert [job.states for job in watch.look()] == [{"killed": 1}]
    now += 2
    assert watch.look() == []


def test_a_watch_sees_progress_and_the_end(tmp_path: Path) -> None:
    first = interim()
    first.save(tmp_path / ".reports")
    watch = Watch(str(tmp_path))
    assert watch.look()[0].report.requested_bytes == first.requested_bytes
    more = replace(first, read=replace(first.read, bytes=first.read.bytes + 5, miss_bytes=first.read.miss_bytes + 5))
    more.save(tmp_path / ".reports")
    assert watch.look()[0].report.requested_bytes == first.requested_bytes + 5
    replace(more, complete=True).save(tmp_path / ".reports")
    assert watch.look() == []


def test_a_watch_reads_what_changed_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = Report.load
    monkeypatch.setattr(Report, "load", lambda path: loaded.append(os.path.basename(path)) or load(path))
    first, second = interim(), interim(pid=os.getppid(), seed=2)
    for report in (first, second):
        report.save(tmp_path)
    watch = Watch(str(tmp_path))
    watch.look()
    assert sorted(loaded) == sorted([first.filename, second.filename])
    assert watch.look()[0].report.requested_bytes == first.requested_bytes + second.requested_bytes
    assert len(loaded) == 2
    replace(second, end_time=second.end_time + 1, real_s=second.real_s + 1).save(tmp_path)
    watch.look()
    assert loaded[2:] == [second.filename]


def test_present_bandwidth_is_that_of_the_last_seconds() -> None:
    report = interim()
    hit, miss = bandwidth(report)
    assert 0 < hit + miss < report.requested_bytes
    last = int((report.real_s - 10) / report.profile.bin_s)
    assert (hit + miss) * 10 == pytest.approx(
        sum(report.profile.hit_bytes[last:]) + sum(report.profile.miss_bytes[last:])
    )


def test_processes_that_have_not_reported_yet_are_mentioned(tmp_path: Path, gone: int) -> None:
    books = tmp_path / USAGE_NAME
    book = Book(Storage(), str(books))
    book.add([Use("x", time.time())])
    try:
        assert call(tmp_path).stdout == "1 process uses the cache and has not reported yet.\n"
        interim(place=here()).save(tmp_path / ".reports")
        assert "not reported yet" not in call(tmp_path).stdout
        interim(pid=gone, run="r2").save(tmp_path / ".reports")
        for path in books.iterdir():
            path.rename(
                path.with_name(path.name.replace(f".{os.getpid()}.", ".1."))
            )  # init: it lives, and reports nothing
        assert call("--dir", tmp_path).stdout.endswith("\n1 process uses the cache and has not reported yet.\n")
    finally:
        book.close()
    assert "not reported yet" not in call(tmp_path).stdout


def test_in_a_terminal_it_waits_for_the_directory(tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [*TOP, "--dir", str(tmp_path / "later"), "--every", "0.1"],
        stdout=inner,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "240", "LINES": "20"},
    ) as process:
        os.close(inner)
        limit = threading.Timer(120, process.kill)
        limit.start()
        try:
            seen = b""
            while b"later, which is not there yet" not in seen:
                seen += os.read(outer, 4096)
            interim(appname="first").save(tmp_path / "later" / ".reports")
            while b"first" not in seen:
                seen += os.read(outer, 4096)
        finally:
            process.kill()
            limit.cancel()
            os.close(outer)


def test_in_a_terminal_it_refreshes_until_it_is_interrupted(tmp_path: Path) -> None:
    interim(appname="first").save(tmp_path)
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [*TOP, str(tmp_path), "--every", "0.1"],
        stdout=inner,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "20"},
    )
    os.close(inner)
    seen = b""
    try:
        while b"first" not in seen:
            seen += os.read(outer, 4096)
        interim(appname="second", run="r2", start_time=time.time() - 20).save(tmp_path)
        while b"second" not in seen:
            seen += os.read(outer, 4096)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                os.read(outer, 4096)
            except OSError:
                break  # the other end is closed
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        os.close(outer)


def test_a_terminal_that_cannot_be_redrawn_is_told_once(tmp_path: Path) -> None:
    interim(appname="first").save(tmp_path)
    outer, inner = pty.openpty()
    with subprocess.Popen([*TOP, str(tmp_path)], stdout=inner, env={**os.environ, "TERM": "dumb"}) as process:
        os.close(inner)
        limit = threading.Timer(120, process.kill)
        limit.start()
        seen = b""
        while chunk := read_from(outer):
            seen += chunk
        limit.cancel()
        assert process.wait(120) == 0
    os.close(outer)
    assert b"1 running" in seen
    assert b"\x1b" not in seen


def read_from(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_nothing_to_see_and_wrong_places(tmp_path: Path) -> None:
    result = call(tmp_path)
    assert (result.exit_code, "JCACHE_STATS" in result.stdout) == (0, True)
    assert call(JCACHE_DIR=str(tmp_path)).exit_code == 0
    assert json.loads(call("--json", tmp_path).stdout) == []
    for result in (call(tmp_path / "nothing"), call(), call(JCACHE_DIR=str(tmp_path / "nothing"))):
        assert result.exit_code == 2
        assert result.stderr.startswith("jcache: ")
        assert result.stderr.count("\n") == 1
    assert call("--every", "0", tmp_path).exit_code == 2


@pytest.mark.parametrize("width", [140, 100, 80, 72])
def test_a_narrow_terminal_shows_less_and_cuts_no_number(tmp_path: Path, gone: int, width: int) -> None:
    name = "ttbar_with_a_name_of_some_length"
    for report in (interim(appname=name), interim(appname=name, pid=gone, seed=2)):
        report.save(tmp_path)
    (job,) = Watch(str(tmp_path)).look()
    console = Console(file=StringIO(), width=width)
    console.print(drawn([job]))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "1 running, 1 killed" in text
    for nbytes in (job.hit_bytes_per_s, job.miss_bytes_per_s):
        assert f"{' '.join(human(nbytes))}/s" in text
    assert f"{percent(job.report.hit_bytes, job.report.requested_bytes)} %" in text
    heads = text.splitlines()[0]
    assert ("host" in heads) == (width == 140)
    assert name[-8:] in text
    assert ("read" in heads) == (width >= 80)
    assert text.splitlines()[2].startswith(name if width == 140 else name[:4])
