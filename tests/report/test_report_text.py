"""The report as text: every label, the JSON's numbers, and readable wherever it goes."""

import io
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from places import SUPPORT
from report_samples import Clock, empty_report, ttbar_report

from jcache.counters import Counters
from jcache.report.counted import from_counters
from jcache.report.faces import plot
from jcache.report.faces.text import render
from jcache.report.faces.units import human, percent
from jcache.report.model import Report, TierUse, Uncached

GOLDEN = Path(__file__).parent / "golden" / "report.txt"

LABELS = """
cache combined hit rate, cache read hit rate, cache readv hit rate
total bytes read, total bytes readv
total iops read, total iops readv, total iops readvread
avg. bytes read, avg. bytes readv
open files read, open unique f. read, time to open files (s)
total unique files bytes, total unique files size, percentage dataset read
app user time, app real time, app sys time, app acceleration, app readrate
"""


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text_of(report: Report, **options) -> str:
    file = io.StringIO()
    render(report, file, **options)
    return file.getvalue()


def rows_of(text: str) -> dict[str, str]:
    """Return label -> value, as somebody would who greps the report."""
    rows = {}
    for line in text.splitlines():
        label, found, value = line.strip("│|").partition(" : ")
        if found:
            assert label.strip() not in rows
            rows[label.strip()] = value.strip()
    return rows


def test_every_label_is_there_once_and_in_order():
    wanted = [label.strip() for label in LABELS.replace("\n", ",").split(",") if label.strip()]
    for report in (ttbar_report(), empty_report()):
        assert list(rows_of(text_of(report)))[: len(wanted)] == wanted


def test_text_and_json_have_the_same_numbers():
    report = ttbar_report(warm=1.5)
    rows, json = rows_of(text_of(report)), report.to_json()
    read, readv, files = json["read"], json["readv"], json["files"]
    both = read["bytes"] + readv["bytes"]
    assert rows["cache combined hit rate"] == f"{100 * (read['hit_bytes'] + readv['hit_bytes']) / both:.2f} %"
    assert rows["cache read hit rate"] == f"{100 * read['hit_bytes'] / read['bytes']:.2f} %"
    assert rows["cache readv hit rate"] == f"{100 * readv['hit_bytes'] / readv['bytes']:.2f} %"
    assert rows["total bytes read"] == str(read["bytes"])
    assert rows["total bytes readv"] == str(readv["bytes"])
    assert rows["total iops read"] == str(read["ops"])
    assert rows["total iops readv"] == str(readv["ops"])
    assert rows["total iops readvread"] == str(readv["ranges"])
    assert rows["avg. bytes read"] == f"{read['bytes'] / read['ops']:.2f}"
    assert rows["avg. bytes readv"] == f"{readv['bytes'] / readv['ops']:.2f}"
    assert rows["open files read"] == str(files["opened"])
    assert rows["open unique f. read"] == str(files["unique"])
    assert rows["time to open files (s)"] == f"{files['open_s']:.3f}"
    assert rows["total unique files bytes"] == str(files["unique_bytes"])
    assert rows["total unique files size"] == f"{files['unique_bytes'] / 1e9:.2f} GB"
    assert rows["percentage dataset read"] == f"{100 * both / files['unique_bytes']:.2f} %"
    assert rows["app user time"] == "3329.07 s"
    assert rows["app real time"] == f"{json['real_s']:.2f} s"
    assert rows["app sys time"] == "41.17 s"
    assert rows["app acceleration"] == f"{json['user_s'] / json['real_s']:.2f}x"
    rate = f"{both / json['real_s'] / 1e6:.2f} MB/s [peak (1s) {report.peak()[0] / 1e6:.2f} MB/s]"
    assert rows["app readrate"] == rate
    assert rows["origin bytes"] == str(json["origin"]["bytes"])
    assert rows["requests misses"] == str(json["requests"]["misses"])
    assert rows["cache recorded bytes"] == str(json["cache"]["recorded_bytes"])


def test_printed_from_json_it_is_the_same_text():
    for report in (ttbar_report(), empty_report(), ttbar_report(real_s=0.1, complete=False)):
        assert text_of(Report.loads(report.dumps())) == text_of(report)


def test_golden():
    text = text_of(ttbar_report(warm=1.3), note="sum of 16 processes on 2 hosts")
    if os.environ.get("JCACHE_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_rates_without_operations_are_dashes():
    rows = rows_of(text_of(empty_report()))
    for label in ("cache combined hit rate", "cache read hit rate", "cache readv hit rate", "percentage dataset read"):
        assert rows[label] == "-"
    for label in ("avg. bytes read", "avg. bytes readv", "app readrate"):
        assert rows[label] == "-"
    assert rows["total unique files size"] == "0 B"
    assert "bandwidth" not in text_of(empty_report())


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 10**15, "0.00"),
        (1, 10**15, "0.01"),
        (10**15 - 1, 10**15, "99.99"),
        (10**15, 10**15, "100.00"),
        (644, 10_000, "6.44"),
        (3, 2, "150.00"),
    ],
)
def test_percentages_are_all_or_nothing_only_if_they_are(part, whole, text):
    assert percent(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_994, "999.99 kB"), (999_995, "1.00 MB"),
     (976614396598, "976.61 GB"), (1.5e21, "1500.00 EB")],
)  # fmt: skip
def test_sizes(value, text):
    assert " ".join(human(value)) == text


def test_a_file_of_unknown_size_does_not_distort_the_dataset():
    counters = Counters(clock=Clock())
    counters.file_opened("https://a/1", 1000, 0.0)
    counters.file_opened("https://a/2", None, 0.0)
    counters.read(100, 0, 100, 0, url="https://a/1")
    counters.read(900, 0, 900, 0, url="https://a/2")
    report = from_counters(counters, appname="a", host="h", pid=1, command="c", user_s=0, sys_s=0, real_s=1.0)
    assert rows_of(text_of(report))["percentage dataset read"] == "10.00 %"


def test_trouble_is_shown_and_its_absence_is_not():
    report = ttbar_report()
    quiet = rows_of(text_of(report))
    assert not {"cache failures", "cache damaged extents", "origin errors", "cache bypassed bytes"} & set(quiet)
    cache = replace(report.cache, failures=3, damaged_extents=2, bypassed="no space left on device")
    loud = text_of(
        replace(report, cache=cache, complete=False, interval_s=5.0, origin=replace(report.origin, errors=1, retries=4))
    )
    rows = rows_of(loud)
    assert (rows["cache failures"], rows["cache damaged extents"], rows["origin errors"]) == ("3", "2", "1")
    assert rows["origin retries"] == "4"
    assert "cache not used: no space left on device" in loud
    assert "interim report" in loud
    assert "up to now: the process goes on" in text_of(replace(report, complete=False))


@pytest.mark.parametrize("width", [20, 40, 48, 60, 64, 80, 132, 250])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_it_fits_any_width_and_encoding(width, encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    report = ttbar_report(appname="ünï", host="node", command="x " * 300)
    render(report, file, width=width)
    file.flush()
    text = file.buffer.getvalue().decode(encoding)
    assert {len(line) for line in text.splitlines()} == {max(width, 40)}
    assert len(rows_of(text)) >= 21
    if encoding != "utf-8":
        assert text.isascii() or encoding == "latin-1"
    else:
        assert "█" in text


def test_without_colour_cache_and_origin_differ(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = text_of(ttbar_report())
    assert "\x1b" not in text
    plotted = text[text.index("bandwidth") : text.rindex("hit rate   ")]
    assert plotted.count("█") > 20
    assert plotted.count("░") > 20
    assert "\x1b[" in text_of(ttbar_report(), color=True)


def test_plots_have_axes_with_units():
    text = text_of(ttbar_report())
    assert re.search(r"\d MB/s ┤", text)
    assert "0 B/s └" in text
    assert "100 % ┤" in text
    assert re.search(r" 0 +18\.1 +36\.2 +54\.4 +72\.5 s", text)


def test_control_characters_and_markup_stay_what_they_are():
    report = ttbar_report(appname="[red]x[/]", command="a\x1b[31mb\nc\udcff [bold]")
    evil = "a\x1b]0;x\x07\nb\N{SNOWMAN}"
    report = replace(report, uncached=(Uncached(evil, 1, 1),), tiers=(TierUse(evil, 1, 1),))
    text = text_of(report)
    assert not {"\x1b", "\x07"} & set(text)
    assert text.count(r"a\x1b]0;x\x07\nb") == 2
    render(report, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "[red]x[/]" in text
    assert r"a\x1b[31mb\nc\udcff [bold]" in text


def test_a_real_file_and_a_real_terminal(tmp_path):
    script = (
        "import sys; from report_samples import ttbar_report; from jcache.report.faces.text import render;"
        "render(ttbar_report(), sys.stderr)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), "TERM": "xterm"}
    command = [sys.executable, "-c", script]
    with open(tmp_path / "err", "wb") as file:
        subprocess.run(command, stderr=file, env={**environ, "COLUMNS": "200"}, check=True)
    text = (tmp_path / "err").read_text()
    assert text == text_of(ttbar_report())

    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environ) as process:
        os.close(follower)
        seen = b""
        try:
            while chunk := os.read(leader, 65536):
                seen += chunk
        except OSError:
            pass  # Linux ends a terminal's stream with EIO
        assert process.wait() == 0
    os.close(leader)
    assert b"\x1b[" in seen
    assert b"cache combined hit rate" in seen


def test_columns_keep_every_byte():
    for bins, bin_s, real_s, count in (
        ((5, 0, 7), 1 / 64, 10.0, 60),
        (tuple(range(1000)), 0.1, 99.0, 64),
        ((9,), 8.0, 0.5, 7),
    ):
        assert sum(plot.columns(bins, bin_s, real_s, count)) == pytest.approx(sum(bins))


def test_small_things_are_drawn_and_only_all_is_a_full_column():
    marks = plot.BLOCKS
    rows = plot.stacked([1e9, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], 1e9, 8, marks)
    lowest = "".join(text for text, _ in rows[-1])
    assert lowest == "█▁. "
    rows = plot.shares([100.0, 99.9999, 1e-6, 0.0, 0.0], [100.0, 100.0, 100.0, 100.0, 0.0], 4, marks)
    drawn = ["".join(text for text, _ in row) for row in rows]
    assert drawn[0] == "█▇   "
    assert drawn[-1] == "██▁· "


@pytest.mark.parametrize("value", [0.001, 1.0, 1.01, 7.9e8, 8.1e8, 9.99e14])
def test_axes_end_at_round_numbers(value):
    top = plot.nice_ceiling(value)
    assert value <= top <= 1.6 * value


def test_printing_costs_less_than_a_tenth_of_a_second():
    script = (
        "import time, io; from report_samples import ttbar_report; report = ttbar_report(); a = time.process_time()\n"
        "from jcache.report.faces.text import render; render(report, io.StringIO()); print(time.process_time() - a)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    runs = [
        float(subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(runs) < 0.1  # measured: 0.04 s
