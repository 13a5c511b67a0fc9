"""`JCACHE_METRICS`: what is written is OpenMetrics by its grammar, and says what the reports say."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from openmetrics import READ, RUN, Sample, parsed, value
from report_samples import empty_report, ttbar_report

from jcache.report.merge import merge
from jcache.report.metrics import openmetrics
from jcache.report.model import CacheState, TierUse, Uncached

if TYPE_CHECKING:
    from pathlib import Path

    from activation import Site

    from jcache.report.model import Report


def odd_report() -> Report:
    return replace(
        ttbar_report(events=50),
        appname='a "b" \\ c\nd é\x00\udcff',
        run="0123",
        cache=CacheState(recorded_bytes=1, damaged_extents=2, failures=3),
        uncached=(Uncached("nothing proves\nits version", 2, 30), Uncached("a rule says so", 1, 5)),
        tiers=(TierUse("/shared/jcache", 7, 1), TierUse("/other\\place", 8, 0)),
    )


REPORTS = {
    "warm": ttbar_report(events=300),
    "merged": merge([ttbar_report(events=300), ttbar_report(events=200, seed=2, pid=9, start_time=1729505521.0)]),
    "empty": empty_report(),
    "odd": odd_report(),
    "interim": ttbar_report(events=10, complete=False, interval_s=2.0),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_numbers_are_the_reports(name: str) -> None:
    report = REPORTS[name]
    text = openmetrics(report)
    expected = {
        ("jcache_read_bytes_total", "source", "hit"): report.hit_bytes,
        ("jcache_read_bytes_total", "source", "miss"): report.read.miss_bytes + report.readv.miss_bytes,
        ("jcache_read_bytes_total", "kind", "vector"): report.readv.bytes,
        ("jcache_reads_total", "kind", "read"): report.read.ops,
        ("jcache_requests_total", "result", "miss"): report.requests.misses,
        ("jcache_origin_bytes_total", "", ""): report.origin.bytes,
        ("jcache_files_opened_total", "", ""): report.files.opened,
        ("jcache_processes", "", ""): report.processes,
        ("jcache_run_complete", "", ""): int(report.complete),
        ("jcache_start_time_seconds", "", ""): report.start_time,
        ("jcache_elapsed_seconds", "", ""): report.real_s,
        ("jcache_cache_failures_total", "", ""): report.cache.failures,
        ("jcache_uncached_bytes_total", "", ""): sum(item.bytes for item in report.uncached),
        ("jcache_tier_hit_bytes_total", "", ""): sum(item.hit_bytes for item in report.tiers),
    }
    for (metric, label, told), number in expected.items():
        assert value(text, metric, **({label: told} if label else {})) == pytest.approx(number, rel=1e-12), metric
    apps = {dict(sample.labels)["app"] for sample in parsed(text)}
    assert len(apps) == 1
    assert name != "odd" or apps == {'a "b" \\ c\nd é\N{REPLACEMENT CHARACTER}?'}


@pytest.mark.parametrize("name", REPORTS)
def test_prometheus_reads_it_as_it_is(name: str) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus_client is not installed")
    text = openmetrics(REPORTS[name])
    read = {
        Sample(sample.name, tuple(sorted(sample.labels.items())), 0.0): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert read == parsed(text)
    # The older format, which node_exporter's collector reads, and refuses timestamps in.
    from prometheus_client.parser import text_string_to_metric_families

    older = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {(sample.name, sample.value) for sample in older} == {(one.name, number) for one, number in read.items()}
    assert all(sample.timestamp is None for sample in older)


def test_a_process_writes_them_at_its_end(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    ran = site.run(site.script(READ), JCACHE_METRICS=str(path), JCACHE_SUMMARY="0")
    assert (ran.code, ran.err) == (0, "")
    text = path.read_text()
    assert value(text, "jcache_read_bytes_total", source="hit", app="job") == 10
    assert value(text, "jcache_run_complete") == 1
    assert [one.name for one in tmp_path.iterdir() if "prom" in one.name] == ["job.prom"]
    os.umask(umask := os.umask(0o022))
    assert path.stat().st_mode & 0o777 == 0o644 & ~umask
    plain = site.run(site.script(READ))
    assert plain.code == 0
    assert path.read_text() == text


def test_one_file_for_all_processes_of_a_job(site: Site, tmp_path: Path) -> None:
    program, path = site.script(READ), tmp_path / "job.prom"
    shell = f"{sys.executable} {program}; cd /; {sys.executable} {program}"
    ran = site.run(*RUN, "--no-summary", "--", "sh", "-c", shell, JCACHE_METRICS=os.path.relpath(path, site.path))
    assert (ran.code, ran.err) == (0, "")
    text = path.read_text()
    assert value(text, "jcache_read_bytes_total", app="sh") == 20
    assert value(text, "jcache_processes") == 2
    # A parent that reads nothing has its children's.
    parent = f"import subprocess, sys\nfor _ in range(3): subprocess.run([sys.executable, {program!r}], check=True)"
    ran = site.run(site.script(parent, "parent.py"), JCACHE_METRICS=str(path))
    assert ran.code == 0
    assert value(path.read_text(), "jcache_read_bytes_total", app="parent") == 30


@pytest.mark.parametrize("is_run", [False, True])
def test_it_has_them_while_it_runs(site: Site, tmp_path: Path, is_run: bool) -> None:
    """Each look at the file is at a whole one; it is there before the job's end, and final after it."""
    path = tmp_path / "job.prom"
    job = f"""
import os, sys, time
import faraway
faraway.read(10)
while not os.path.exists({str(path)!r}):
    time.sleep(0.05)
print(open({str(path)!r}).read())
faraway.read(5)
"""
    words = [site.script(job)]
    command = [*RUN, "--", sys.executable, *words] if is_run else words
    ran = site.run(*command, JCACHE_METRICS=str(path), JCACHE_STATS="0.2")
    assert ran.code == 0, ran.err
    text = ran.out.removesuffix("\n")
    assert value(text, "jcache_read_bytes_total", app="job") == 10
    assert value(text, "jcache_run_complete") == 0
    assert value(path.read_text(), "jcache_read_bytes_total", app="job") == 15
    assert value(path.read_text(), "jcache_run_complete") == 1


def test_a_file_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    wrong = tmp_path / "nowhere" / "job.prom"
    ran = site.run(site.script(READ), JCACHE_METRICS=str(wrong), JCACHE_SUMMARY="0")
    assert ran.code == 0
    assert ran.err == f"jcache: no metrics in {wrong}: No such file or directory\n"
    assert len(ran.reports) == 1


def test_a_device_stays_what_it_is(site: Site) -> None:
    ran = site.run(site.script(READ), JCACHE_METRICS="/dev/stdout", JCACHE_SUMMARY="0")
    assert value(ran.out, "jcache_read_bytes_total", source="hit") == 10
    ran = site.run(site.script(READ), JCACHE_METRICS="/dev/null", JCACHE_SUMMARY="0")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert not os.path.isfile("/dev/null")


def test_a_pipe_that_nobody_reads_holds_no_job_up(site: Site, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ran = site.run(site.script(READ), JCACHE_METRICS=str(pipe), JCACHE_SUMMARY="0")
    assert (ran.code, ran.err) == (0, f"jcache: no metrics in {pipe}: No such device or address\n")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert site.run(site.script(READ), JCACHE_METRICS=str(pipe), JCACHE_SUMMARY="0").err == ""
        assert value(os.read(reader, 64 << 10).decode(), "jcache_read_bytes_total", source="hit") == 10
    finally:
        os.close(reader)


def test_a_file_of_settings_may_say_where(site: Site, tmp_path: Path) -> None:
    site.cache.mkdir()
    (site.cache / "jcache.toml").write_text(f"metrics = {json.dumps(str(tmp_path / 'a.prom'))}\n")
    assert site.run(site.script(READ)).code == 0
    assert value((tmp_path / "a.prom").read_text(), "jcache_read_bytes_total") == 10
