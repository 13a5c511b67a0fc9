"""Real jobs over a real server: their profiles are what the server's log and the reports say, and hold no secret."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jcache.counters import LISTING, NAMED, OPEN, READ, STAT, VECTOR
from jcache.profile.reader import Profile, Recording
from jcache.profile.xrootd import from_xrootd

if TYPE_CHECKING:
    from conftest import Ran, RunPython
    from servers import LoggedRequest, Nginx, XrootdServer

    from jcache.profile.format import Request

JOB = """
import sys, threading, fsspec
url, listed = sys.argv[1:3]
fs = fsspec.filesystem("http", client_kwargs={"headers": {"X-Api-Key": "hidden-1"}})
fs.info(url)
fs.cat_ranges([url] * 3, [0, 5000, 90000], [100, 5200, 90010])
fs.cat_file(url, 5100, 5300)
thread = threading.Thread(target=lambda: fs.cat_file(url, 200_000, 200_010))
thread.start()
thread.join()
print(fs.ls(listed))
with fs.open(url) as file:
    file.seek(50)
    print(file.read(20))
"""


def profiled(ran: Ran, path: Path) -> tuple[list[Request], Profile]:
    """What one run has recorded; the next one finds the directory empty."""
    profile = Profile([Recording.open(one) for one in sorted(path.glob("*.jcp"))])
    requests = [one for _, one in profile.requests()]
    assert profile.states == {"complete": 1}
    for one in path.glob("*.jcp"):
        one.unlink()
    return requests, profile


def logged(requests: list[LoggedRequest]) -> set[int]:
    found: set[int] = set()
    for one in requests:
        for first, last in re.findall(r"(\d+)-(\d+)", one.range):
            found |= set(range(int(first), int(last) + 1))
    return found


def bytes_of(requests: list[Request]) -> set[int]:
    found: set[int] = set()
    for one in requests:
        for start, stop in zip(one.starts, one.stops, strict=True):
            found |= set(range(start, stop))
    return found


def test_a_profile_is_what_the_servers_log_says(nginx_server: Nginx, run_python: RunPython, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (nginx_server.directory / "listed").mkdir()
    (nginx_server.directory / "listed" / "f.root").write_bytes(data)
    os.utime(nginx_server.directory / "listed" / "f.root", (1_700_000_000, 1_700_000_000))
    where = tmp_path / "profiles"
    url = nginx_server.url("listed/f.root")
    nginx_server.reset()
    args = url, nginx_server.url("listed/")
    cold = run_python(JOB, *args, env={"JCACHE_PROFILE": str(where)})
    log = [one for one in nginx_server.requests() if one.method == "GET" and one.range]
    requests, profile = profiled(cold, where)
    reads = [one for one in requests if one.kind in (READ, VECTOR)]
    asked = [list(zip(one.starts, one.stops, strict=True)) for one in reads]
    assert asked == [
        [(0, 100), (5000, 5200), (90000, 90010)],
        [(5100, 5300)],
        [(200_000, 200_010)],
        [(50, 70)],
    ]
    assert [one.kind for one in requests] == [STAT, NAMED, VECTOR, READ, READ, LISTING, OPEN, READ]
    assert [profile.files[one.file] for one in requests if one.kind != LISTING] == [url] * 7
    first, second, other, last = (one.thread for one in reads)
    assert first == second == last != other
    assert [(one.hit, one.miss) for one in reads] == [(0, 310), (100, 100), (0, 10), (20, 0)]
    assert logged(log) == bytes_of(reads)
    assert sum(one.miss for one in reads) == sum(one.body_bytes for one in log) == 420
    opened = [list(one.stops) for one in requests if one.kind == OPEN]
    assert opened[-1] == [len(data)]
    spans = [edge for one in reads for edge in (one.end_us - one.duration_us, one.end_us)]
    assert spans == sorted(spans)
    assert spans[-1] < 1e6 * cold.report["real_s"]
    report = cold.report
    assert sum(one.hit for one in reads) == report["read"]["hit_bytes"] + report["readv"]["hit_bytes"]
    assert sum(one.miss for one in reads) == report["read"]["miss_bytes"] + report["readv"]["miss_bytes"]
    assert len([one for one in requests if one.kind in (OPEN, NAMED)]) == report["files"]["opened"]

    warm = run_python(JOB, *args, env={"JCACHE_PROFILE": str(where)})
    again, _ = profiled(warm, where)
    assert warm.stdout == cold.stdout
    assert [(one.kind, one.starts, one.stops) for one in again if one.kind in (READ, VECTOR)] == [
        (one.kind, one.starts, one.stops) for one in reads
    ]
    assert {(one.miss, one.bypass) for one in again if one.kind in (READ, VECTOR)} == {(0, 0)}


def test_what_is_read_past_the_cache_is_recorded_as_that(
    nginx_server: Nginx, run_python: RunPython, tmp_path: Path
) -> None:
    (nginx_server.directory / "listed").mkdir()
    (nginx_server.directory / "listed" / "f.root").write_bytes(bytes(300_000))
    where = tmp_path / "profiles"
    args = nginx_server.url("listed/f.root"), nginx_server.url("listed/")
    ran = run_python(JOB, *args, env={"JCACHE_PROFILE": str(where), "JCACHE_BYPASS": "1"})
    requests, _ = profiled(ran, where)
    reads = [one for one in requests if one.kind in (READ, VECTOR)]
    assert bytes_of(reads) == {
        *range(100),
        *range(5000, 5300),
        *range(90000, 90010),
        *range(200_000, 200_010),
        *range(50, 70),
    }
    assert {(one.hit, one.miss) for one in reads} == {(0, 0)}
    assert len({one.thread for one in reads}) == 2
    assert sum(one.bypass for one in reads) == ran.report["read"]["bypass_bytes"] + ran.report["readv"]["bypass_bytes"]


ANALYSIS = """
import sys, uproot
tree = uproot.open({sys.argv[1]: "t"})
for arrays in tree.iterate(["pt", "eta"], step_size=5000):
    print(len(arrays))
"""


def test_the_profile_of_an_analysis_is_what_the_servers_log_says(
    nginx_server: Nginx, run_python: RunPython, tmp_path: Path
) -> None:
    uproot, numpy = pytest.importorskip("uproot"), pytest.importorskip("numpy")
    path = nginx_server.directory / "f.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("t", dict.fromkeys(("pt", "eta", "phi"), "float64"))
        for seed in range(4):
            chance = numpy.random.default_rng(seed)
            tree.extend({name: chance.random(5000) for name in ("pt", "eta", "phi")})
    os.utime(path, (1_700_000_000, 1_700_000_000))
    where = tmp_path / "profiles"
    nginx_server.reset()
    cold = run_python(ANALYSIS, nginx_server.url("f.root"), env={"JCACHE_PROFILE": str(where)})
    log = [one for one in nginx_server.requests() if one.method == "GET"]
    requests, _ = profiled(cold, where)
    reads = [one for one in requests if one.kind in (READ, VECTOR)]
    assert cold.stdout.split() == ["5000"] * 4
    assert bytes_of(reads) == logged(log)
    assert sum(one.miss for one in reads) == sum(one.body_bytes for one in log) == cold.report["origin"]["bytes"]
    nginx_server.reset()
    warm = run_python(ANALYSIS, nginx_server.url("f.root"), env={"JCACHE_PROFILE": str(where)})
    again, _ = profiled(warm, where)
    repeated = [one for one in again if one.kind in (READ, VECTOR)]
    assert sorted((one.starts, one.stops) for one in repeated) == sorted((one.starts, one.stops) for one in reads)
    assert sum(one.miss for one in again) == 0


MANY = """
import sys, fsspec
fs = fsspec.filesystem("http")
fs.cat(sys.argv[1:])
with fs.open(sys.argv[1]) as file:
    while file.read(1000):
        pass
"""


def test_small_files_and_small_steps_are_recorded_each(
    nginx_server: Nginx, run_python: RunPython, tmp_path: Path
) -> None:
    for name, size in (("a", 10_000), ("b", 20_000)):
        (nginx_server.directory / name).write_bytes(bytes(size))
        os.utime(nginx_server.directory / name, (1_700_000_000, 1_700_000_000))
    where = tmp_path / "profiles"
    for _ in range(2):
        ran = run_python(MANY, *map(nginx_server.url, "ab"), env={"JCACHE_PROFILE": str(where)})
        requests, profile = profiled(ran, where)
        whole = [
            one for one in requests if one.kind == READ and one.stops[0] in (10_000, 20_000) and one.starts[0] == 0
        ]
        assert {profile.files[one.file][-2:]: list(one.stops) for one in whole} == {"/a": [10_000], "/b": [20_000]}
        steps = [(one.starts[0], one.stops[0]) for one in requests if one.kind == READ and one not in whole]
        assert steps == [(start, start + 1000) for start in range(0, 10_000, 1000)]
        assert sum(one.hit + one.miss for one in requests) == ran.report["read"]["bytes"]


AHEAD = """
import sys, fsspec
fs = fsspec.filesystem("http")
with fs.open(sys.argv[1]) as file:
    while file.read(100_000):
        pass
"""


def test_what_was_read_ahead_is_told(nginx_server: Nginx, run_python: RunPython, tmp_path: Path) -> None:
    (nginx_server.directory / "f.root").write_bytes(bytes(30_000_000))
    os.utime(nginx_server.directory / "f.root", (1_700_000_000, 1_700_000_000))
    where = tmp_path / "profiles"
    ran = run_python(AHEAD, nginx_server.url("f.root"), env={"JCACHE_PROFILE": str(where)})
    requests, _ = profiled(ran, where)
    steps = [one for one in requests if one.kind == READ]
    assert [one.starts[0] for one in steps] == list(range(0, 30_000_000, 100_000))
    assert {one.miss for one in steps} == {100_000}
    assert 0 < sum(one.ahead for one in steps) <= ran.report["origin"]["prefetch_bytes"]
    assert steps[0].ahead == 0


MISSED = """
import sys, fsspec
fs = fsspec.filesystem("http")
for bounds in ((), (10, 20), (30, None)):
    try:
        fs.cat_file(sys.argv[1] + ".gone", *bounds)
    except FileNotFoundError:
        print("gone")
print(len(fs.cat_file(sys.argv[1], -7)), len(fs.cat_file(sys.argv[1], 990)))
"""


def test_reads_that_fail_or_count_from_the_end_are_recorded_as_what_they_are(
    nginx_server: Nginx, run_python: RunPython, tmp_path: Path
) -> None:
    (nginx_server.directory / "f.root").write_bytes(bytes(1000))
    where = tmp_path / "profiles"
    ran = run_python(MISSED, nginx_server.url("f.root"), env={"JCACHE_PROFILE": str(where)})
    assert ran.stdout.split() == ["gone"] * 3 + ["7", "10"]
    requests, _ = profiled(ran, where)
    reads = [(one.starts[0], one.stops[0], one.hit + one.miss + one.bypass) for one in requests if one.kind == READ]
    assert reads == [(0, 0, 0), (10, 20, 0), (30, 30, 0), (993, 1000, 7), (990, 1000, 10)]


OVER_XROOTD = """
import sys, fsspec
url = sys.argv[1]
fs, path = fsspec.core.url_to_fs(url)
fs.cat_ranges([path] * 3, [0, 5000, 90000], [100, 5200, 90010])
fs.cat_file(path, 200_000, 200_100)
fs.cat_ranges([path] * 2, [5100, 7000], [5300, 7001])
"""


def test_xrootds_own_recorder_saw_what_the_profile_says_was_missed(
    xrootd_server: XrootdServer, run_python: RunPython, tmp_path: Path
) -> None:
    pyxrootd = pytest.importorskip("pyxrootd")
    libraries = sorted(Path(pyxrootd.__file__).parent.glob("libXrdClRecorder-*.so"))
    if not libraries:
        pytest.skip("this XRootD client comes without its recorder")
    data = Path(xrootd_server.directory) / "f.root"
    data.write_bytes(os.urandom(300_000))
    os.utime(data, (1_700_000_000, 1_700_000_000))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "recorder.conf").write_text(f"url = *\nlib = {libraries[0]}\nenable = true\n")
    where, out = tmp_path / "profiles", tmp_path / "recorded.csv"
    env = {"XRD_PLUGINCONFDIR": str(tmp_path / "conf"), "XRD_RECORDERPATH": str(out), "JCACHE_PROFILE": str(where)}
    url = f"root://127.0.0.1:{xrootd_server.port}//f.root"
    requests, _ = profiled(run_python(OVER_XROOTD, url, env=env), where)
    with (tmp_path / "imported.jcp").open("wb") as file:
        done = from_xrootd(str(out), file)
    assert (done.failed, done.odd) == (0, 0)
    imported = Profile([Recording.open(tmp_path / "imported.jcp")])
    theirs = [one for _, one in imported.requests() if one.kind in (READ, VECTOR)]
    reads = [one for one in requests if one.kind in (READ, VECTOR)]
    assert bytes_of(theirs) == bytes_of(reads)
    assert sum(one.miss for one in theirs) == sum(one.miss for one in reads) == 511
    assert sum(one.hit for one in reads) == 100


SECRETS = """
import sys, fsspec
url = sys.argv[1]
query = "?X-Amz-Algorithm=a&X-Amz-Credential=hidden-2&X-Amz-Date=d&X-Amz-Signature=hidden-3"
fs = fsspec.filesystem("http", client_kwargs={"headers": {"X-Api-Key": "hidden-1"}})
fs.cat_file(url + query, 0, 10)
fs.cat_file(url.replace("://", "://user:hidden-4@") + query, 0, 10)
fs.cat_file(url + "?token=hidden-5", 0, 10)
fs.exists(url + "?token=hidden-6")
fs.info(url + query)
"""


@pytest.mark.parametrize("bypass", ["0", "1"])
def test_no_secret_is_in_the_file(nginx_server: Nginx, run_python: RunPython, tmp_path: Path, bypass: str) -> None:
    (nginx_server.directory / "f.root").write_bytes(bytes(300_000))
    where = tmp_path / "profiles"
    env = {"JCACHE_PROFILE": str(where), "JCACHE_BYPASS": bypass}
    run_python(SECRETS, nginx_server.url("f.root"), "--password", "hidden-7", env=env)
    (path,) = where.glob("*.jcp")
    recording = Recording.open(path)
    assert recording.count()[0] >= 5
    text = repr((recording.head, recording.files))
    assert "/f.root" in text
    assert re.findall("hidden.?.?", text) == []
