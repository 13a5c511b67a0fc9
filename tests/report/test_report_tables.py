"""Parts of a job: tables that add up to it, savings, two runs compared, and how long reports are kept."""

import math
import os
import random
import time
from dataclasses import replace

import pytest
from report_samples import empty_report, ttbar_report

from jcache.report.faces.columns import NAME_WIDTH, differences, layout, parts
from jcache.report.faces.compare import compare, ratio_shown, shown
from jcache.report.faces.savings import savings, throughput
from jcache.report.faces.tables import KINDS, coldest, slowest, table
from jcache.report.faces.units import duration, parse_age, parse_moment, visible
from jcache.report.job import JobTitle, title_of
from jcache.report.merge import merge
from jcache.report.retention import clean_reports, tidy
from jcache.system.storage import Storage


def job(processes=6, warm=1.3):
    rng = random.Random(processes)
    return [
        ttbar_report(
            seed=number, events=150, real_s=rng.uniform(5, 60), warm=warm, pid=number, host=f"n{number % 3}", run="r"
        )
        for number in range(processes)
    ]


@pytest.mark.parametrize("by", KINDS)
def test_the_lines_of_a_table_add_up_to_the_whole(by):
    reports = job()
    total, lines = merge(reports), table(reports, by)
    assert sum(line.bytes for line in lines) == total.requested_bytes
    assert sum(line.hit_bytes for line in lines) == total.hit_bytes
    assert sum(line.opens for line in lines) == total.files.opened
    assert math.fsum(line.waited_s for line in lines) == pytest.approx(total.waited_s)
    assert len(lines) == {"host": 3, "url": len(total.urls), "process": 6}[by]
    assert [line.bytes for line in lines] == sorted((line.bytes for line in lines), reverse=True)
    if by != "url":
        assert sum(line.processes for line in lines) == 6


def test_a_table_does_not_depend_on_the_order():
    reports = job()
    for by in KINDS:
        assert {line.name: (line.bytes, line.size) for line in table(reports, by)} == {
            line.name: (line.bytes, line.size) for line in table(reports[::-1], by)
        }


def test_the_slowest_and_the_coldest_files():
    lines = table(job(), "url")
    slow, cold = slowest(lines, 3), coldest(lines, 3)
    assert [line.waited_s for line in slow] == sorted((line.waited_s for line in lines), reverse=True)[:3]
    assert [line.missed_bytes for line in cold] == sorted((line.missed_bytes for line in lines), reverse=True)[:3]
    warm = [replace(line, hit_bytes=line.bytes, waited_s=None) for line in lines]
    assert (slowest(warm), coldest(warm)) == ([], [])


def test_savings_are_estimated_from_what_was_measured():
    cold, warm = ttbar_report(warm=0.2), ttbar_report(warm=2.0)
    rate = throughput([cold])
    assert rate == pytest.approx(cold.origin.bytes / cold.origin.busy_s)
    saved = savings(warm)
    assert saved.bytes == warm.hit_bytes
    assert saved.seconds == pytest.approx(warm.hit_bytes / throughput([warm]))
    unmeasured = replace(warm, origin=replace(warm.origin, busy_s=0.0, prefetch_unused_bytes=100))
    assert savings(unmeasured).seconds is None
    assert savings(unmeasured).bytes == warm.hit_bytes - 100
    assert savings(unmeasured, bytes_per_s=1e9).seconds == pytest.approx((warm.hit_bytes - 100) / 1e9)
    assert throughput([unmeasured, cold]) == pytest.approx(rate)
    assert throughput([empty_report()]) is None


def test_two_runs_side_by_side():
    cold, warm = merge(job(warm=0.2)), merge(job(warm=5))
    warm = replace(warm, origin=replace(warm.origin, busy_s=0.0))
    lines = {line.label: line for line in compare(cold, warm)}
    assert lines["bytes requested"].change == warm.requested_bytes - cold.requested_bytes
    assert lines["bytes from the cache"].ratio == warm.hit_bytes / cold.hit_bytes
    assert lines["cache combined hit rate"].ratio is None
    assert lines["origin throughput"].b is None
    assert lines["origin throughput"].change is None
    # What one of them measured is good for both.
    assert lines["saved time (estimate)"].b == pytest.approx(warm.hit_bytes / throughput([cold]))
    same = compare(cold, cold)
    assert {line.change for line in same if line.change is not None} == {0}
    assert {line.ratio for line in same if line.ratio is not None} == {1}
    assert {line.b for line in compare(cold, empty_report()) if line.label.endswith("hit rate")} == {None}


@pytest.mark.parametrize(
    ("value", "unit", "sign", "text"),
    [
        (None, "s", False, "-"),
        (12.345, "%", False, "12.35 %"),
        (-1.5, "%", True, "-1.50 points"),
        (0.001, "s", True, "0.00 s"),
        (2_500_000, "bytes", True, "+2.50 MB"),
        (2_500_000, "bytes/s", False, "2.50 MB/s"),
        (-3, "", True, "-3"),
        (7, "", False, "7"),
    ],
)
def test_values_as_people_read_them(value, unit, sign, text):
    assert shown(value, unit, sign=sign) == text


def test_ratios_and_times_as_people_read_them():
    assert [ratio_shown(value) for value in (None, 0.5, 12, 1234.5)] == ["-", "x0.50", "x12.00", "x1234"]
    assert [duration(s) for s in (None, 0, 59.94, 599, 600, 14400, 86400 * 4)] == [
        *("-", "0.00 s", "59.94 s", "599.0 s", "10.00 min", "4.00 h", "4.0 d"),
    ]


def test_tables_fit_their_width_and_keep_both_ends_of_a_name():
    url = "root://eospublic.cern.ch//eos/" + "very/long/" * 20 + "nano_7.root"
    rows = layout(["file", "bytes"], [[url, "12 B"], ["x\x1b[31m", "1"]], 60)
    assert {len(row) for row in rows[:2]} == {60}
    assert rows[1].startswith("root://eos")
    assert rows[1].endswith("nano_7.root   12 B")
    assert "\x1b" not in "".join(rows)
    assert len(layout(["file", "bytes"], [[url, "1"]], 10)[1]) >= NAME_WIDTH
    lines = table(job(), "url")
    assert len(parts("by file", lines, 100, of_files=True)) == len(lines) + 1
    a = merge(job())
    assert len(differences(compare(a, a), ("a", "b" * 100), 100)) == len(compare(a, a)) + 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("30d", 2592000), ("2 w", 1209600)]
)
def test_ages(text, seconds):
    assert parse_age(text) == seconds
    assert parse_moment(text, 1e9) == 1e9 - seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1y", "soon", "2024-13-01"])
def test_what_is_no_age_and_no_time(text):
    with pytest.raises(ValueError, match="is no age"):
        parse_age(text)
    with pytest.raises(ValueError, match="is no time"):
        parse_moment(text, 0)


def test_dates_are_times():
    assert parse_moment("2024-10-21T12:00:00+02:00", 0) == 1729504800
    assert parse_moment("2024-10-22", 0) - parse_moment("2024-10-21 12:00", 0) == 12 * 3600


def test_visible_text_is_one_line():
    assert visible("a\nb\x1b\udcff") == "a\\nb\\x1b\\udcff"


def test_old_reports_go_and_nothing_else(tmp_path):
    now = 1_800_000_000.0
    old, new = ttbar_report(events=5, pid=1), ttbar_report(events=5, pid=2)
    paths = {name: report.save(tmp_path) for name, report in (("old", old), ("new", new))}
    title = JobTitle("0123456789abcdef", "sh", "h", 1, "sh -c x")
    title.save(str(tmp_path))
    assert title_of(str(tmp_path), title.run) == title
    (tmp_path / "jcache.notes.json").write_text("{}")
    (tmp_path / "jcache.a.h.1.2.345.jcp").write_text("an access profile")
    (tmp_path / ".jcache.a.h.1.2.345.json.0123abcd.tmp").write_text("torn")
    (tmp_path / "jcache.d.h.1.2.345.json").mkdir()
    for path in tmp_path.rglob("*"):
        os.utime(path, (now, now - 3 * 86400))
    os.utime(paths["new"], (now, now - 86400))
    sizes = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file() and p.name != "jcache.notes.json")
    trial = clean_reports(str(tmp_path), older_than_s=2 * 86400, now=now, dry_run=True)
    assert os.path.exists(paths["old"])
    done = clean_reports(str(tmp_path), older_than_s=2 * 86400, now=now)
    assert done == trial
    assert (len(done.removed), done.failed) == (4, ())
    assert done.removed_bytes == sizes - os.path.getsize(paths["new"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [".jobs", "jcache.notes.json", "jcache.d.h.1.2.345.json", os.path.basename(paths["new"])]
    )
    assert clean_reports(str(tmp_path), now=now).removed == ()
    assert clean_reports(str(tmp_path / "nothing")).removed == ()


def test_old_reports_are_looked_for_once_a_day(tmp_path):
    day_s, now = 86400.0, time.time()
    counted = CountingStorage()

    def save(days):
        path = ttbar_report(events=5, start_time=now - days * day_s, pid=days).save(tmp_path)
        os.utime(path, (now, now - days * day_s))
        return path

    def after(seconds):
        counted.calls.clear()
        tidy(str(tmp_path), now=now + seconds, storage=counted)
        return {int(name.split(".")[3]) for name in os.listdir(tmp_path) if name.endswith(".json")}

    save(28)
    save(31)
    assert after(0) == {28}
    assert len(counted.calls) == 3  # the stamp, the directory for its mode, the old report and no new one
    save(40)
    assert after(day_s - 60) == {28, 40}
    assert counted.calls == [str(tmp_path / ".cleaned")]
    assert after(day_s + 60) == {28}
    assert after(2 * day_s + 120) == set()
    save(40)
    os.utime(tmp_path / ".cleaned", (4e9, 4e9))  # no clock is so far ahead
    assert after(2 * day_s + 180) == set()
    tidy(str(tmp_path / "nothing"), now=now)
    assert not (tmp_path / "nothing").exists()


class CountingStorage(Storage):
    def __init__(self):
        self.calls = []

    def stat(self, path):
        self.calls.append(path)
        return super().stat(path)


def test_a_title_that_is_none_is_none(tmp_path):
    (tmp_path / ".jobs").mkdir()
    (tmp_path / ".jobs" / "bad.json").write_text('{"run": 1}')
    for run in ("bad", "none", "", "../x", ".."):
        assert title_of(str(tmp_path), run) is None
