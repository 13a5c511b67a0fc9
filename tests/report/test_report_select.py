"""Which reports are meant: paths, globs, names, ages; on the command line, and as a job's one truth."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from places import SUPPORT
from report_samples import ttbar_report

from jcache.cli import main
from jcache.report.job import JobTitle
from jcache.report.merge import merge
from jcache.report.model import Report, ReportError
from jcache.report.select import SelectionError, expand, in_directory, load, read_head, runs

NOW = time.time()


def call(*arguments, **environ):
    environ = {"JCACHE_DIR": None, "JCACHE_JSON": None, **environ}
    return CliRunner().invoke(main, ["report", *map(str, arguments)], env=environ, prog_name="jcache")


@pytest.fixture
def cache(tmp_path):
    """A cache with three runs: two of ttbar, one of higgs between them, of two processes each; the oldest first."""
    jobs = [("ttbar", "a" * 16, 72), ("higgs", "b" * 16, 48), ("ttbar", "c" * 16, 1)]
    for name, run, age_h in jobs:
        for pid in (1, 2):
            report = ttbar_report(
                seed=pid + age_h, events=40, real_s=9.0, appname=name, run=run, pid=pid, start_time=NOW - age_h * 3600
            )
            path = report.save(tmp_path / ".reports")
            os.utime(path, (report.end_time, report.end_time))
    return tmp_path


def chosen(*arguments, cache, code=0):
    result = call(*arguments, "--json", JCACHE_DIR=str(cache))
    assert result.exit_code == code, result.output
    return Report.loads(result.stdout)


def of(cache, *runs):
    return merge([report for report in load(in_directory(str(cache)), []) if report.run[0] in runs])


def test_jobs_are_chosen_by_name_age_and_both(cache):
    assert chosen(cache=cache) == of(cache, "c")
    assert chosen("--job", "ttbar", cache=cache) == of(cache, "a", "c")
    assert chosen("--job", "ttbar", "--last", cache=cache) == of(cache, "c")
    assert chosen("--job", "h*", cache=cache) == of(cache, "b")
    assert chosen("--job", "a" * 16, cache=cache) == of(cache, "a")
    assert chosen("--since", "50h", cache=cache) == of(cache, "b", "c")
    assert chosen("--since", "50h", "--job", "ttbar", cache=cache) == of(cache, "c")
    day = time.strftime("%Y-%m-%dT%H:%M", time.localtime(NOW - 60 * 3600))
    assert chosen("--since", day, cache=cache) == of(cache, "b", "c")


def test_last_is_ones_own_in_a_directory_that_many_share(cache):
    paths = sorted(map(str, (cache / ".reports").glob("jcache.*.json")))
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    newest = [path for path in paths if json.loads(Path(path).read_text())["run"] == "c" * 16]
    for path in newest:
        os.chown(path, 65534, -1)
    assert chosen(cache=cache) == of(cache, "b")
    both = json.loads(call("--compare", "last", "ttbar", "--json", JCACHE_DIR=str(cache)).stdout)
    assert (both["a"]["run"], both["b"]["run"]) == ("b" * 16, "c" * 16)
    assert chosen(cache, "--last", cache=cache) == of(cache, "c")  # of those that were named
    assert chosen("--job", "ttbar", "--last", cache=cache) == of(cache, "c")
    for path in paths:
        os.chown(path, 65534, -1)
    assert chosen(cache=cache) == of(cache, "c")


def test_files_globs_and_directories(cache):
    everything = of(cache, "a", "b", "c")
    directory = cache / ".reports"
    for arguments in ([directory], [cache], [directory / "*.json"], [directory, directory / "*higgs*", cache]):
        assert chosen(*arguments, cache=cache) == everything
    assert chosen(directory / "jcache.higgs.*", cache=cache) == of(cache, "b")
    assert chosen(directory, "--job", "higgs", cache=cache) == of(cache, "b")
    assert chosen(cache, "--last", cache=cache) == of(cache, "c")
    assert chosen(directory / "*.json", "--last", "--job", "higgs", cache=cache) == of(cache, "b")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--job", "nothing"], "none of 6 reports is of a job called nothing"),
        (["--job", "nothing", "--last"], "no such job: nothing"),
        (["--since", "1s"], "none of 6 reports is since then"),
        (["--since", "soon"], "'soon' is no time"),
        (["/no/*.json"], "no such file or directory: /no/*.json"),
        (["--compare", "ttbar", "ttbar~2"], "no such job: ttbar~2, there are only 2"),
        (["--compare", "ttbar", "/no/such"], "no such file or directory: /no/such"),
        (["--compare", "a", "b", "--last"], "--compare takes"),
        (["--html", "/no/such/place.html"], "cannot write /no/such/place.html"),
    ],
)
def test_what_is_wrong_is_one_clear_line(cache, arguments, words):
    result = call(*arguments, JCACHE_DIR=str(cache))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.startswith("jcache: ")
    assert result.stderr.count("\n") == 1


def test_two_runs_are_compared_by_name_or_place(cache):
    result = call("--compare", "ttbar~1", "ttbar", "--json", JCACHE_DIR=str(cache))
    found = json.loads(result.stdout)
    assert Report.from_json(found["a"]) == of(cache, "a")
    assert Report.from_json(found["b"]) == of(cache, "c")
    lines = {line["label"]: line for line in found["differences"]}
    assert lines["bytes requested"]["change"] == lines["bytes requested"]["b"] - lines["bytes requested"]["a"]
    assert json.loads(call("--compare", "last~2", "last", "--json", JCACHE_DIR=str(cache)).stdout) == found
    result = call("--compare", cache / ".reports", cache / ".reports" / "*higgs*")
    assert result.exit_code == 0
    assert re.search(r"^processes +6 +2 +-4 +x0\.33$", result.stdout, re.MULTILINE)


def test_tables_are_added_to_text_and_json(cache):
    result = call("--by", "host", "--by", "url", JCACHE_DIR=str(cache))
    for words in ("by host", "by file", "slowest files", "coldest files"):
        assert result.stdout.count(f"\n{words} ") == 1
    plain = call(JCACHE_DIR=str(cache)).stdout
    assert result.stdout.startswith(plain)
    found = json.loads(call("--by", "url", "--by", "process", "--json", JCACHE_DIR=str(cache)).stdout)
    total = of(cache, "c")
    assert Report.from_json(found) == total
    for by in ("url", "process"):
        assert sum(line["bytes"] for line in found["by"][by]) == total.requested_bytes
    assert found["savings"]["bytes"] == total.hit_bytes
    assert len(found["slowest"]) == len(found["coldest"]) == 5


def test_pages_are_written_and_no_text_with_them(cache, tmp_path):
    html, svg = tmp_path / "a.html", tmp_path / "a.svg"
    result = call("--html", html, "--svg", svg, JCACHE_DIR=str(cache))
    assert (result.exit_code, result.output) == (0, "")
    assert html.read_text().startswith("<!doctype html>")
    assert svg.read_text().startswith("<?xml")
    result = call("--compare", "last~1", "last", "--html", html, JCACHE_DIR=str(cache))
    assert (result.exit_code, result.output) == (0, "")
    assert "last~1 and last" in html.read_text()


def test_unreadable_reports_are_named_and_kept(cache):
    torn = cache / ".reports" / "jcache.torn.h.1.2.000.json"
    torn.write_text('{"schema": 1,\n"appname": "ttb')
    for arguments in ([], ["--job", "ttbar"], ["--since", "90h"], [cache]):
        result = call(*arguments, JCACHE_DIR=str(cache))
        assert result.exit_code == 1
        assert result.stderr.startswith(f"jcache: cannot read {torn}: ")
        assert "cache combined hit rate" in result.stdout
    assert torn.exists()


def test_a_process_counts_once_however_often_it_was_copied(cache, tmp_path):
    (path, *_) = sorted((cache / ".reports").glob("*ttbar*"))
    report = Report.load(path)
    copy = tmp_path / "copies"
    copy.mkdir()
    early = report.to_json() | {"complete": False, "end_time": report.end_time - 5}
    (copy / "early.json").write_text(json.dumps(early))
    for paths in ([path, copy / "early.json"], [copy / "early.json", path]):
        assert load([str(name) for name in paths], []) == [report]


def test_a_job_that_jcache_run_named_has_that_name(cache):
    JobTitle("c" * 16, "analysis.sh", "submit-host", 77, "sh analysis.sh").save(str(cache / ".reports"))
    assert "analysis.sh on submit-host (pid 77)" in call(JCACHE_DIR=str(cache)).stdout
    assert chosen("--job", "analysis.sh", cache=cache).command == "sh analysis.sh"
    assert chosen("--job", "ttbar", cache=cache).appname == "ttbar"  # two runs, of which one has the name
    (path, *_) = sorted((cache / ".reports").glob("*ttbar*1.*"), key=lambda path: path.stat().st_mtime)[-1:]
    assert "analysis.sh" not in call(path).stdout


def test_several_runs_are_headed_by_the_command_of_the_first(cache):
    for run in "ac":
        JobTitle(run * 16, "analysis.sh", "submit-host", 77, f"sh analysis.sh {run}").save(str(cache / ".reports"))
    result = call("--job", "ttbar", JCACHE_DIR=str(cache))
    assert "sh analysis.sh a" in result.stdout
    assert "sum of 4 processes" in result.stdout


def test_heads_of_other_layouts_are_found(tmp_path):
    report = ttbar_report(events=5, run="r")
    tight, large = tmp_path / "jcache.tight.json", tmp_path / "jcache.large.json"
    tight.write_text(json.dumps(report.to_json()))
    large.write_text(json.dumps(report.to_json(), indent=1))
    saved = read_head(report.save(tmp_path))
    for path in (tight, large):
        head = read_head(str(path))
        assert (head.run, head.host, head.pid, head.complete) == ("r", report.host, report.pid, True)
        assert (head.start_time, head.end_time) == (saved.start_time, saved.end_time)
    assert read_head(str(tmp_path / "gone")) is None
    wrong = tmp_path / "jcache.wrong.json"
    wrong.write_text(re.sub('"start_time": .*', '"start_time": "now",', report.dumps()))
    with pytest.raises(ReportError, match="start_time"):
        read_head(str(wrong))
    (run,) = runs([saved, read_head(str(tight))])
    assert (run.run, len(run.heads)) == ("r", 2)
    with pytest.raises(SelectionError, match="no reports"):
        expand([str(SUPPORT)])


JOB = """
import fsspec, os, random, sys
base, processes = sys.argv[1], int(sys.argv[2])
children = []
for number in range(processes):
    pid = os.fork()
    if pid == 0:
        rng = random.Random(number)
        fs = fsspec.filesystem("http")
        for _ in range(4):
            url = f"{base}{rng.randrange(3)}"
            starts = sorted(rng.sample(range(0, 50_000, 100), 5))
            fs.cat_ranges([url] * 5, starts, [start + 60 for start in starts])
            fs.cat_file(url, start=60_000, end=60_000 + rng.randrange(1, 500))
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * processes
"""


def test_a_job_of_sixteen_processes_is_its_parts_and_what_the_server_sent(http_origin, run_python, cache_dir, tmp_path):
    """The server counts what left it, and no process says anything that the merged report does not have."""
    for number in range(3):
        http_origin.put(f"f{number}", os.urandom(80_000))
    for processes in (8, 16):  # the second job finds half of it in the cache
        http_origin.reset()
        ran = run_python(JOB, http_origin.url("f"), str(processes))
        (directory,) = tmp_path.glob(f"run-{1 if processes == 8 else 2}/reports")
        result = call("--json", JCACHE_JSON=str(directory))
        total = Report.loads(result.stdout)
        parts = [Report.from_json(report) for report in ran.reports]
        assert len(parts) == total.processes == processes
        assert total.origin.bytes == http_origin.body_bytes > 0
        assert total.requested_bytes == sum(part.requested_bytes for part in parts)
        assert total.hit_bytes == sum(part.hit_bytes for part in parts)
        assert total.hit_bytes > 0 or processes == 8
        assert total.readv.ops == processes * 4
        assert total.readv.bytes == processes * 4 * 5 * 60
        assert total.readv.ranges == processes * 4 * 5
        assert total.files.unique == 3
        for name in ("hit_bytes", "miss_bytes"):
            assert sum(getattr(total.profile, name)) == sum(sum(getattr(part.profile, name)) for part in parts)
        assert sum(total.profile.hit_bytes) == total.hit_bytes
        text = call(JCACHE_JSON=str(directory)).stdout
        assert text == ran.stderr
