"""What a process records: all of it, behind its back, in bounded memory, whatever becomes of it."""

from __future__ import annotations

import errno
import json
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from activation import LIMIT_S, Site
from faults import FaultyStorage, error

from jcache.counters import NAMED, OPEN, READ, VECTOR, Counters
from jcache.profile.reader import ProfileError, Recording
from jcache.profile.recorder import MOST_WAITING, Recorder
from jcache.vectors import Vector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jcache.profile.format import Request

URL = "far://host/file"
NEVER_S = 1000.0


def recorder_in(path: Path, **options: Any) -> Recorder:
    return Recorder(str(path / "p.jcp"), {"run": "r"}, **{"trouble": print, "flush_s": NEVER_S, **options})


def add(recorder: Recorder, asked: Vector | None, kind: int = READ, end_s: float = 1.0) -> None:
    size = 0 if asked is None else sum(asked.lengths())
    recorder.add(kind, URL, asked, size, 0, 0, 0, end_s, 0.5)


def requests_of(path: Path) -> list[Request]:
    return [one for batch in Recording.open(path).batches() for one in batch]


def test_what_is_counted_is_recorded(tmp_path: Path) -> None:
    now = 100.0
    counters = Counters(clock=lambda: now)
    recorder = counters.profile = recorder_in(tmp_path)
    now += 1
    counters.file_opened(URL, 5000, 0.25)
    counters.read(70, 50, 20, 0, url=URL, seconds=0.5, asked=Vector([100], [170]), ahead=10)
    now += 1
    counters.readv(2, 30, 0, 0, 30, url="far://host/b", asked=Vector([0, 100], [10, 120]))
    counters.file_read("far://host/c", 7, 7, 0.125, fetched=False)
    counters.read(9, 0, 0, 9)
    assert not (tmp_path / "p.jcp").exists()
    recorder.close()
    opened, read, vector, small_open, small, unknown = requests_of(tmp_path / "p.jcp")
    assert (opened.kind, opened.end_us, opened.duration_us, list(opened.stops)) == (OPEN, 1_000_000, 250_000, [5000])
    assert (read.kind, list(read.starts), list(read.stops), read.duration_us) == (READ, [100], [170], 500_000)
    assert (read.hit, read.miss, read.bypass, read.ahead) == (50, 20, 0, 10)
    assert (vector.kind, list(vector.starts), list(vector.stops), vector.bypass) == (VECTOR, [0, 100], [10, 120], 30)
    assert (small_open.kind, small.kind, list(small.stops), small.hit) == (NAMED, READ, [7], 7)
    assert (small_open.end_us, small.end_us, small.duration_us) == (1_875_000, 2_000_000, 125_000)
    assert (list(unknown.starts), unknown.bypass) == ([], 9)
    recording = Recording.open(tmp_path / "p.jcp")
    assert recording.count() == (6, 6)
    assert recording.files == [URL, "far://host/b", "far://host/c", ""]
    assert (recording.state, recording.lost) == ("complete", 0)


def test_threads_are_told_apart_and_a_request_is_of_the_thread_in_which_it_began(tmp_path: Path) -> None:
    import asyncio

    recorder = recorder_in(tmp_path)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def serve() -> None:
        add(recorder, Vector([0], [1]))

    def ask() -> None:
        recorder.from_here()
        asyncio.run_coroutine_threadsafe(serve(), loop).result(LIMIT_S)
        add(recorder, Vector([1], [2]))

    ask()
    other = threading.Thread(target=ask, daemon=True)
    other.start()
    other.join(LIMIT_S)
    loop.call_soon_threadsafe(loop.stop)
    recorder.close()
    assert [one.thread for one in requests_of(tmp_path / "p.jcp")] == [0, 0, 1, 1]


def test_what_threads_add_at_once_is_all_there_and_not_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jcache.profile.recorder.FLUSH_RANGES", 64)
    recorder, count = recorder_in(tmp_path, flush_s=0.0005), 5000

    def ranges(thread: int, i: int) -> list[tuple[int, int]]:
        return [
            (1_000_000 * thread + 10 * i + k, 1_000_000 * thread + 10 * i + 5 * k)
            for k in range(i % 4 if i % 50 < 5 else 1)
        ]

    def ask(thread: int) -> None:
        for i in range(count):
            one = ranges(thread, i)
            asked = Vector.of(one) if len(one) != 1 or i % 8 == 1 else one[0]
            recorder.add(VECTOR, f"far://host/{thread}", asked if one else None, i, thread, 0, 0, float(i), 0.25)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for one in threads:
            one.start()
        for one in threads:
            one.join(LIMIT_S)
    finally:
        sys.setswitchinterval(before)
    recorder.close()
    recording = Recording.open(tmp_path / "p.jcp")
    found = [one for batch in recording.batches() for one in batch]
    assert recording.lost == 0
    for number in range(4):
        own = [one for one in found if recording.files[one.file] == f"far://host/{number}"]
        assert len({one.thread for one in own}) == 1
        assert [(one.kind, one.hit, one.miss, one.end_us, one.duration_us) for one in own] == [
            (VECTOR, i, number, i * 1_000_000, 250_000) for i in range(count)
        ]
        assert [list(zip(one.starts, one.stops, strict=True)) for one in own] == [
            ranges(number, i) for i in range(count)
        ]


def test_what_is_added_while_the_others_are_taken_waits_for_the_next_time(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    later = list(range(1, 6))

    class Busy(list[Any]):
        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            if later and isinstance(key, slice):
                start = later.pop(0)
                recorder.add(READ, URL, (start, start + 1), 1, 0, 0, 0, 1.0, 0.0)
            return found

    recorder._waiting = Busy()
    recorder.add(READ, URL, (0, 1), 1, 0, 0, 0, 1.0, 0.0)
    recorder._flush()
    assert [list(one.starts) for one in requests_of(tmp_path / "p.jcp")] == [[0]]
    recorder.close()
    assert [list(one.starts) for one in requests_of(tmp_path / "p.jcp")] == [[start] for start in range(6)]


def test_bounds_that_are_no_range_spoil_nothing(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    for asked in (Vector([7], [0]), Vector([0, 100, 50], [5, 7, 60]), Vector([-5], [-1]), Vector([], []), (9, 3)):
        recorder.add(READ, URL, asked, 0, 0, 0, 0, 1.0, 0.5)
    recorder.close()
    found = [list(zip(one.starts, one.stops, strict=True)) for one in requests_of(tmp_path / "p.jcp")]
    assert found == [[(7, 7)], [(0, 5), (100, 100), (50, 60)], [(0, 0)], [], [(9, 9)]]
    assert Recording.open(tmp_path / "p.jcp").count() == (5, 6)


def test_the_file_is_for_whoever_its_directory_is_for(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path / "new" / "directory")
    add(recorder, None)
    recorder.close()
    path = tmp_path / "new" / "directory" / "p.jcp"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_many_at_once_are_written_before_the_second_is_over(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    starts = list(range(0, 1 << 17, 2))
    add(recorder, Vector(starts, [start + 1 for start in starts]), VECTOR)
    add(recorder, Vector(starts, [start + 1 for start in starts]), VECTOR)
    path = tmp_path / "p.jcp"
    limit = time.monotonic() + LIMIT_S
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert len(requests_of(path)) in (1, 2)
    assert Recording.open(path).state == "cut off"
    recorder.close()
    assert len(requests_of(path)) == 2


def test_what_waits_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(name: str, _: int) -> None:
        if name == "open":
            entered.set()
            leave.wait(LIMIT_S)

    recorder = recorder_in(tmp_path, storage=FaultyStorage(hang), flush_s=0.001)
    add(recorder, None)
    assert entered.wait(LIMIT_S)
    half = list(range(MOST_WAITING // 2))
    for _ in range(4):
        add(recorder, Vector(half, half), VECTOR)
    leave.set()
    recorder.close(LIMIT_S)
    recording = Recording.open(tmp_path / "p.jcp")
    assert recording.count()[0] == 3
    assert (recording.state, recording.lost) == ("complete", 2)
    add(recorder, None)  # after the end, nothing


def test_a_full_disk_ends_it_with_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    storage = FaultyStorage(lambda name, _: (20, error(errno.ENOSPC)) if name == "pwritev" else None)
    recorder = recorder_in(tmp_path, storage=storage, trouble=said.append)
    add(recorder, None)
    recorder.close()
    add(recorder, None)
    recorder.close()
    assert len(said) == 1
    assert "No space left" in said[0]
    assert storage.open_fds == set()
    with pytest.raises(ProfileError, match="does not say who"):
        Recording.open(tmp_path / "p.jcp")


# -- real processes -----------------------------------------------------------------------------------------------


def profiles(site: Site) -> list[Path]:
    return sorted((site.cache / ".reports").glob("*.jcp"))


def wait_for(process: subprocess.Popen[str], enough: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not enough():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def has_requests(site: Site, count: int) -> bool:
    try:
        return [Recording.open(path).count()[0] for path in profiles(site)] == [count]
    except ProfileError:
        return False


def test_a_process_records_beside_its_report(site: Site) -> None:
    program = site.script("import faraway\nfaraway.read(10)\nfaraway.read(20, 'far://host/other')\n")
    ended = site.run(program, JCACHE_PROFILE="1")
    assert (ended.code, ended.panels) == (0, 1)
    (path,) = profiles(site)
    assert path.with_suffix(".json").exists()
    found = requests_of(path)
    assert [one.hit for one in found] == [10, 20]
    recording = Recording.open(path)
    assert recording.count() == (2, 0)
    assert recording.state == "complete"
    (report,) = ended.reports
    assert (recording.head.run, recording.head.pid) == (report["run"], report["pid"])
    assert (recording.head.appname, recording.head.host) == (report["appname"], report["host"])
    assert recording.head.start_time == report["start_time"]


def test_nothing_is_recorded_unless_it_is_asked_for(site: Site) -> None:
    program = site.script("import faraway, sys\nfaraway.read(10)\nprint('jcache.profile' in sys.modules)\n")
    for setting in (None, "0"):
        ended = site.run(program, JCACHE_PROFILE=setting)
        assert ended.out == "False\n"
    assert profiles(site) == []


def test_a_directory_may_be_named_relative_to_where_the_user_is(site: Site) -> None:
    program = site.script("import os\nos.chdir('/')\nimport faraway\nfaraway.read(10)\n")
    assert site.run(program, JCACHE_PROFILE="profiles").code == 0
    assert profiles(site) == []
    (path,) = (site.path / "profiles").glob("*.jcp")
    assert len(requests_of(path)) == 1


def test_what_was_flushed_survives_sigkill(site: Site) -> None:
    program = site.script("import faraway, sys\nfaraway.read(10)\nfor line in sys.stdin: faraway.read(int(line))\n")
    process = subprocess.Popen(
        [sys.executable, program],
        env=site.environ(JCACHE_PROFILE="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    wait_for(process, lambda: has_requests(site, 1))
    process.stdin.write("7\n" * 3)
    process.stdin.flush()
    wait_for(process, lambda: has_requests(site, 4))
    process.send_signal(signal.SIGKILL)
    site.end(process)
    (path,) = profiles(site)
    assert [one.hit for one in requests_of(path)] == [10, 7, 7, 7]
    assert Recording.open(path).state == "cut off"


def test_each_process_of_a_job_has_its_own(site: Site) -> None:
    program = site.script(
        "import faraway, os\n"
        "faraway.read(1)\n"
        "if os.fork() == 0:\n"
        "    faraway.read(20)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "faraway.read(3)\n"
    )
    ended = site.run(program, JCACHE_PROFILE="1")
    assert ended.code == 0
    assert sorted([one.hit for one in requests_of(path)] for path in profiles(site)) == [[1, 3], [20]]
    assert {Recording.open(path).head.run for path in profiles(site)} == {ended.reports[0]["run"]}


def test_sigterm_and_exec_end_it_as_they_end_the_report(site: Site) -> None:
    stopped = site.script("import faraway, os, signal\nfaraway.read(5)\nos.kill(os.getpid(), signal.SIGTERM)\n", "a.py")
    assert site.run(stopped, JCACHE_PROFILE="1").code == -signal.SIGTERM
    replaced = site.script("import faraway, os\nfaraway.read(6)\nos.execv('/bin/true', ['true'])\n", "b.py")
    assert site.run(replaced, JCACHE_PROFILE="1").code == 0
    found = {}
    for path in profiles(site):
        recording = Recording.open(path)
        found[recording.head.appname] = [one.hit for batch in recording.batches() for one in batch], recording.state
    assert found == {"a": ([5], "complete"), "b": ([6], "complete")}


def test_a_command_records_when_it_is_run_so(site: Site) -> None:
    program = site.script("import faraway\nfaraway.read(10)\n")
    command = "from jcache.cli.run import run; run()"
    assert site.run("-c", command, "--profile", "--", sys.executable, program).code == 0
    (path,) = profiles(site)
    (report,) = [json.loads(one.read_text()) for one in path.parent.glob("*.json")]
    assert Recording.open(path).head.run == report["run"]
