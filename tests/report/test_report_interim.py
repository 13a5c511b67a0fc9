"""Interim reports: of a process that goes on, that was killed, that was forked; and none after the final one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from activation import LIMIT_S, Site

from jcache.activate import interim
from jcache.activate.job import Job
from jcache.counters import Counters
from jcache.report.model import Report
from jcache.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = ("-c", "from jcache.cli.run import run; run()")
LAST = ("-c", "from jcache.cli.report import report; report()")
OFTEN = "0.05"


def wait_for(site: Site, process: subprocess.Popen[str], enough: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait until the reports are as they should become; no interval is guessed."""
    limit = time.monotonic() + LIMIT_S
    while not enough(site.reports()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def read_bytes(reports: list[dict[str, Any]]) -> list[int]:
    return sorted(report["read"]["bytes"] for report in reports)


def test_a_killed_process_has_its_report_up_to_then(site: Site) -> None:
    program = site.script("import faraway, sys\nfaraway.read(10)\nfor line in sys.stdin: faraway.read(int(line))\n")
    process = subprocess.Popen(
        [sys.executable, program],
        env=site.environ(JCACHE_STATS=OFTEN),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(site, process, lambda reports: read_bytes(reports) == [10])
    assert process.stdin is not None
    process.stdin.write("7\n")
    process.stdin.flush()
    wait_for(site, process, lambda reports: read_bytes(reports) == [17])
    process.send_signal(signal.SIGKILL)
    ended = site.end(process)
    (report,) = ended.reports
    assert ended.panels == 0
    assert report["complete"] is False
    assert report["interval_s"] == float(OFTEN)
    assert Report.from_json(report).read.bytes == 17
    shown = site.run(*LAST, JCACHE_STATS=None)
    assert "interim report" in shown.out
    assert shown.out.count("cache combined hit rate") == 1


def test_whoever_is_killed_by_its_parent_counts_without_any_setting(site: Site) -> None:
    """As Ray ends its workers: by SIGKILL from another program, in sessions of their own, when the job is over."""
    worker = site.script("import faraway, time\nfaraway.read(100)\ntime.sleep(60)\n", "worker.py")
    program = site.script(
        "import glob, os, signal, subprocess, sys, time\n"
        f"workers = [subprocess.Popen([sys.executable, {worker!r}], start_new_session=True) for _ in range(2)]\n"
        "reports = os.environ['JCACHE_DIR'] + '/.reports/jcache.*.json'\n"
        "while len(glob.glob(reports)) < 2: time.sleep(0.05)\n"
        "for worker in workers: worker.kill(); worker.wait()\n"
    )
    ended = site.run(*RUN, "--", sys.executable, program)
    assert ended.code == 0, ended.err
    assert [(report["read"]["bytes"], report["complete"]) for report in ended.reports] == [(100, False)] * 2
    assert "sum of 2 processes, 2 of them incomplete" in ended.err
    assert site.run(*LAST).out == ended.err


def test_intervals_grow_and_nothing_is_written_where_nothing_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, saved = [], []
    counters = Counters()

    class Ends:
        def acquire(self, *, timeout: float) -> bool:
            waits.append(timeout)
            if len(waits) in (1, 3, 4):
                counters.read(10, 10, 0, 0)
            return len(waits) >= 9

    def save(report: Report, _config: object, _job: object, *, mark: bool) -> None:
        saved.append((report.read.bytes, report.interval_s, mark))

    monkeypatch.setattr(interim, "save_own", save)
    session = SimpleNamespace(config=Config(), counters=counters)
    writer = interim.Interim(session, Job("r", root_pid=0, program="p"), times_before=(0.0, 0.0))
    counters.at_first_read(lambda: None)  # no thread beside this one
    monkeypatch.setattr(writer, "_ended", Ends())
    writer._run()
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert saved == [(10, 2, True), (20, 8, False), (30, 16, False)]


def test_an_interim_report_that_cannot_be_made_is_one_line(site: Site) -> None:
    program = site.script(
        "import faraway\nimport jcache.activate.interim as interim\n"
        "import threading\ncalled = threading.Event()\n"
        "def fails(*args, **names):\n    called.set()\n    raise ValueError('odd number')\n"
        "interim.make_own = fails\nfaraway.read(10)\nassert called.wait(60)\n"
    )
    ended = site.run(program, JCACHE_STATS=OFTEN)
    assert ended.err.count("jcache: no interim reports: ValueError: odd number\n") == 1
    assert [report["complete"] for report in ended.reports] == [True]


def test_the_final_report_replaces_the_interim_ones(site: Site) -> None:
    program = site.script(
        "import faraway, glob, os, time\n"
        "faraway.read(10)\n"
        "while not glob.glob(os.environ['JCACHE_DIR'] + '/.reports/jcache.*.json'): time.sleep(0.01)\n"
        "faraway.read(5)\n"
    )
    ended = site.run(program, JCACHE_STATS=OFTEN)
    (report,) = ended.reports
    assert (ended.code, ended.panels) == (0, 1)
    assert "interim" not in ended.err
    assert report["complete"] is True
    assert "interval_s" not in report
    assert report["read"]["bytes"] == 15
    assert [path.name for path in site.cache.joinpath(".reports").iterdir() if path.name.startswith(".jcache")] == []


def test_a_killed_child_counts_in_its_jobs_report(site: Site) -> None:
    """The root's text says how many parts are not final; `jcache report --last` says the same."""
    program = site.script(
        "import faraway, glob, json, os, signal, time\n"
        "faraway.read(1)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    faraway.read(100)\n"
        "    time.sleep(60)\n"
        "def seen():\n"
        "    paths = glob.glob(f\"{os.environ['JCACHE_DIR']}/.reports/.runs/*/jcache.*.{child}.*.json\")\n"
        "    return bool(paths)\n"
        "while not seen(): time.sleep(0.01)\n"
        "os.kill(child, signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
    )
    ended = site.run(*RUN, "--", sys.executable, program, JCACHE_STATS=OFTEN)
    assert ended.code == 0, ended.err
    assert read_bytes(ended.reports) == [1, 100]
    assert [report["complete"] for report in sorted(ended.reports, key=lambda report: report["pid"])].count(False) == 1
    assert "sum of 2 processes, 1 of them incomplete" in ended.err
    assert "total bytes read          :             101" in ended.err
    assert site.run(*LAST, JCACHE_STATS=None).out == ended.err


def test_what_jcache_run_printed_is_printed_again(site: Site) -> None:
    program = site.script("import faraway; faraway.read(10)")
    shell = f"{sys.executable} {program}; {sys.executable} {program} --token=abc"
    for command in (shell, shell.partition(";")[0] + "; true"):
        ended = site.run(*RUN, "--", "sh", "-c", command)
        assert ended.panels == 1
        assert f"sh on {os.uname().nodename}" in ended.err
        assert site.run(*LAST).out == ended.err
    (title, *_) = site.cache.joinpath(".reports", ".jobs").iterdir()
    assert "abc" not in title.read_text()
    assert json.loads(title.read_text())["appname"] == "sh"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
@pytest.mark.parametrize(("stats", "threads"), [("1000", 1), (None, 1), ("0", 0)])
def test_one_thread_starts_with_the_first_read_unless_it_was_asked_not_to(site: Site, stats: str, threads: int) -> None:
    program = site.script(
        "import faraway, os\ncount = lambda: len(os.listdir('/proc/self/task'))\nbefore = count()\n"
        "faraway.read(1)\nfaraway.read(1)\nprint(count() - before)\n"
    )
    ended = site.run(program, JCACHE_STATS=stats)
    assert ended.out == f"{threads}\n"
    assert read_bytes(ended.reports) == [2]
