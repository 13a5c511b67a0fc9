"""The report as data: the JSON schema, its validation, the file, and sums."""

import copy
import json
import os
import stat

import pytest
from report_samples import Clock, empty_report, ttbar_report

from jcache.activate.job import Job
from jcache.counters import Counters
from jcache.report.counted import from_counters
from jcache.report.job import JobTitle
from jcache.report.merge import merge
from jcache.report.model import Profile, Report, ReportError
from jcache.report.redact import MAX_LENGTH, redact
from jcache.report.retention import tidy
from jcache.system.storage import Storage

SCHEMA_1 = {
    "": "schema appname host pid command start_time end_time complete real_s user_s sys_s run "
    "read readv requests files origin cache profile urls",
    "read": "ops bytes hit_bytes miss_bytes bypass_bytes",
    "readv": "ops ranges bytes hit_bytes miss_bytes bypass_bytes",
    "requests": "full_hits partial_hits misses",
    "files": "opened unique unique_bytes open_s",
    "origin": "requests bytes errors retries prefetch_bytes prefetch_unused_bytes busy_s",
    "cache": "recorded_bytes damaged_extents failures bypassed",
    "profile": "bin_s hit_bytes miss_bytes",
}


def test_numbers_of_other_libraries_do_not_lose_the_report():
    numpy = pytest.importorskip("numpy")
    counters = Counters()
    counters.file_opened("http://h/f", numpy.int32(1000), 0.1)
    counters.readv(2, numpy.int64(10), numpy.int16(6), numpy.uint64(4), 0, url="http://h/f", seconds=numpy.float32(0.5))
    report = from_counters(counters, appname="a", host="h", pid=1, command="c", user_s=numpy.float64(1), sys_s=0.0)
    again = Report.loads(report.dumps())
    assert again == report
    assert (again.readv.bytes, again.urls[0].size, again.urls[0].read_s) == (10, 1000, 0.5)


def test_the_json_has_exactly_the_keys_of_schema_1():
    document = json.loads(ttbar_report().dumps())
    assert document["schema"] == 1
    for section, keys in SCHEMA_1.items():
        assert sorted(document[section] if section else document) == sorted(keys.split())
    assert sorted(document["urls"][0]) == ["bytes", "hit_bytes", "open_s", "opens", "read_s", "size", "url"]


def test_numbers_add_up():
    report = ttbar_report(warm=2.0)
    for part in (report.read, report.readv):
        assert part.bytes == part.hit_bytes + part.miss_bytes + part.bypass_bytes > 0
    assert sum(report.profile.hit_bytes) == report.hit_bytes > 0
    assert sum(report.profile.hit_bytes) + sum(report.profile.miss_bytes) == report.requested_bytes
    assert sum(use.bytes for use in report.urls) == report.requested_bytes
    assert sum(use.hit_bytes for use in report.urls) == report.hit_bytes
    assert sum(use.opens for use in report.urls) == report.files.opened
    assert sum(use.size or 0 for use in report.urls) == report.files.unique_bytes
    assert len(report.urls) == report.files.unique
    assert sum((report.requests.full_hits, report.requests.partial_hits, report.requests.misses)) == 4000
    assert report.end_time - report.start_time == pytest.approx(report.real_s)


@pytest.mark.parametrize(
    "report",
    [
        ttbar_report(),
        empty_report(),
        ttbar_report(real_s=0.2, complete=False, run="a1", interval_s=2.0),
        merge([ttbar_report(), empty_report(host="other", complete=False)]),
    ],
)
def test_json_gives_the_same_report_back(report):
    assert Report.loads(report.dumps()) == report
    assert Report.loads(json.dumps(report.to_json())) == report


def test_a_reader_takes_what_the_schema_leaves_out_and_what_is_new():
    document = json.loads(ttbar_report().dumps())
    del document["run"], document["origin"]["busy_s"]
    for use in document["urls"]:
        del use["hit_bytes"], use["opens"], use["open_s"], use["read_s"]
        use["future"] = 1
    document["future"] = {"x": 1}
    report = Report.from_json(document)
    assert report.run == ""
    assert report.urls[0].opens == 0


def _damage(document, path, value):
    document = copy.deepcopy(document)
    *way, last = path.split(".")
    part = document
    for key in way:
        part = part[int(key)] if key.isdigit() else part[key]
    if value is KeyError:
        del part[last]
    else:
        part[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("schema", 2, "schema"),
        ("schema", KeyError, "schema"),
        ("pid", "4", "pid"),
        ("pid", True, "pid"),
        ("complete", 1, "complete"),
        ("command", ["a"], "command"),
        ("real_s", float("nan"), "real_s"),
        ("real_s", None, "real_s"),
        ("user_s", -1, "user_s"),
        ("read", 3, "read"),
        ("read.ops", -1, "read.ops"),
        ("read.hit_bytes", KeyError, "read.hit_bytes"),
        ("read.bytes", 1, "read.bytes"),
        ("readv.bytes", 1, "readv.bytes"),
        ("readv.ranges", 1.5, "readv.ranges"),
        ("cache.bypassed", 3, "cache.bypassed"),
        ("profile.bin_s", 0, "profile.bin_s"),
        ("profile.hit_bytes", [1], "profile"),
        ("profile.hit_bytes", {"0": 1}, "profile.hit_bytes"),
        ("profile.miss_bytes", ["1"], "profile.miss_bytes"),
        ("urls", None, "urls"),
        ("urls.3.url", 3, "urls[3].url"),
        ("urls.0.bytes", KeyError, "urls[0].bytes"),
    ],
)
def test_damage_is_named_with_file_and_field(tmp_path, path, value, field):
    file = tmp_path / "jcache.x.json"
    file.write_text(json.dumps(_damage(json.loads(ttbar_report().dumps()), path, value)))
    with pytest.raises(ReportError) as caught:
        Report.load(file)
    assert caught.value.field == field
    assert caught.value.source == str(file)
    assert str(caught.value).startswith(f"{file}: {field}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\x00\xff", "[" * 100_000])
def test_what_is_no_report_is_said_to_be_none(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ReportError, match=r"x\.json"):
        Report.load(file)
    with pytest.raises(ReportError, match="No such file"):
        Report.load(tmp_path / "nothing.json")


def test_saved_whole_private_and_under_its_name(tmp_path):
    directory = tmp_path / "a" / "b"
    report = ttbar_report(appname="my app/../../x", host="node-1.cern.ch")
    path = report.save(directory)
    assert os.path.dirname(path) == str(directory)
    assert os.listdir(directory) == ["jcache.my_app_.._.._x.node-1.cern.ch.4242.1729505520.125.json"]
    assert Report.load(path) == report
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert report.save(directory) == path
    assert len(os.listdir(directory)) == 1


def test_a_shared_directory_shares_its_reports(tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o2770)
    reports = directory / ".reports"  # of a cache that many share, made by whose umask forbids that
    before = os.umask(0o077)
    try:
        path = ttbar_report().save(directory)
        JobTitle("0" * 16, "job", "h", 1, "job").save(str(directory))
        Job("1" * 16, root_pid=0, program="job").mark(ttbar_report().save(reports))
        tidy(str(reports))
        ttbar_report().save(directory / "private")
    finally:
        os.umask(before)
    modes = {place.name: stat.S_IMODE(place.stat().st_mode) for place in directory.rglob("*")}
    assert {name: modes[name] for name in (".jobs", ".reports", ".runs", "1" * 16)} == {
        ".jobs": 0o2770,
        ".reports": 0o2770,
        ".runs": 0o2770,
        "1" * 16: 0o2770,
    }
    assert stat.S_IMODE(os.stat(path).st_mode) == modes["0" * 16 + ".json"] == 0o640
    assert modes[".cleaned"] == 0o660
    assert modes["private"] == 0o2700


@pytest.mark.parametrize("operation", ["mkdir", "stat", "open", "pwritev", "rename", "short", "nothing"])
def test_a_failing_disk_leaves_nothing_behind(tmp_path, operation):
    class Failing(Storage):
        def pwritev(self, fd, buffers, position):
            if operation == "short":
                return super().pwritev(fd, [bytes(buffers[0][:100])], position)
            return 0 if operation == "nothing" else super().pwritev(fd, buffers, position)

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    storage = Failing() if operation in ("short", "nothing") else type("Full", (Storage,), {operation: fail})()
    report = ttbar_report()
    if operation == "short":
        assert Report.load(report.save(tmp_path, storage=storage)) == report
        return
    with pytest.raises(OSError, match=r"No space|nothing written"):
        report.save(tmp_path / "new" if operation == "mkdir" else tmp_path, storage=storage)
    assert os.listdir(tmp_path) == []


def test_a_plain_file_in_the_way_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        ttbar_report().save(tmp_path / "file")
    with pytest.raises(OSError, match="Not a directory"):
        ttbar_report().save(tmp_path / "file" / "below")


def test_peak_is_the_best_second():
    report = empty_report()
    clock = Clock()
    counters = Counters(clock=clock)
    for at, nbytes in ((0.1, 10), (0.9, 20), (1.05, 100), (1.6, 200), (2.04, 50), (7.0, 300)):
        clock.now = at
        counters.read(nbytes, nbytes // 2, nbytes - nbytes // 2, 0)
    clock.now = 8.0
    report = from_counters(counters, appname="a", host="h", pid=1, command="c", user_s=0, sys_s=0)
    assert report.peak() == (100 + 200 + 50, 1.0)
    assert Report.loads(report.dumps()).peak() == report.peak()


def test_peak_of_short_and_of_long_runs():
    clock = Clock()
    counters = Counters(clock=clock)
    clock.now = 0.25
    counters.read(1000, 1000, 0, 0)
    names = {"appname": "a", "host": "h", "pid": 1, "command": "c", "user_s": 0.0, "sys_s": 0.0}
    assert from_counters(counters, **names).peak() == (4000, 1.0)  # over the quarter of a second that it ran
    clock.now = 5000.0
    counters.read(8000, 8000, 0, 0)
    clock.now = 6000.0
    report = from_counters(counters, **names)
    assert report.profile.bin_s == 8.0
    assert report.peak() == (1000.0, 8.0)
    assert empty_report().peak() == (0.0, 1.0)
    assert Profile().bin_s == 1 / 64


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["python", "a b.py"], "python 'a b.py'"),
        (["x", "https://u:p@h:8/x?sig=abc#f"], "x https://h:8/x"),
        (["x", "root://me@h//p?authz=zzz"], "x root://h//p"),
        (["x", "--in=s3://bucket/key"], "x --in=s3://bucket/key"),
        (["x", "--token", "abc def", "--verbose"], "x --token *** --verbose"),
        (["x", "--db-password=abc", "API_KEY=def"], "x --db-password=*** API_KEY=***"),
        (["x", "make_tokens.py", "data"], "x make_tokens.py data"),
        (["curl", "-H", "Authorization: Bearer abc.def"], "curl -H 'Authorization: ***'"),
        ("x 'https://h/p?sig=1'", "x 'https://h/p'"),
    ],
)
def test_a_command_is_stored_without_secrets(command, shown):
    assert redact(command) == shown


def test_a_long_command_costs_little():
    assert len(redact(["x", "a" * 1_000_000])) == MAX_LENGTH
    assert redact("https://u:" + "p" * 100 + "@h/x").endswith("https://h/x")
