"""The report as HTML and SVG: whole, of one piece, true to the numbers, and safe whatever a report says."""

import itertools
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_samples import empty_report, ttbar_report

from jcache.report.faces import plot, svg
from jcache.report.faces.html import LONGEST, comparison, fragment, page
from jcache.report.faces.rows import groups
from jcache.report.faces.tables import table
from jcache.report.merge import merge
from jcache.report.model import TierUse, Uncached

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br"}
EVIL = "<script>alert(1)</script>\"'&\x1b[2J\udcff"


class Page(HTMLParser):
    """Elements, attributes and text of a page; every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def job(count=4, **names):
    return [
        ttbar_report(seed=n, events=200, real_s=40.0 + n, warm=1.3, pid=n, host=f"node{n % 2}", **names)
        for n in range(count)
    ]


def pages():
    reports = job()
    total = merge(reports)
    empty = empty_report()
    return {
        "job": page(total, reports),
        "one": page(reports[0], reports[:1]),
        "empty": page(empty, [empty]),
        "comparison": comparison(total, empty, ("cold", "warm")),
        "fragment": fragment(total),
    }


@pytest.mark.parametrize("name", list(pages()))
def test_a_page_is_whole_and_needs_nothing_else(name):
    text = pages()[name]
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not {"src", "href", "srcset", "onload", "onclick"} & {key for key, _ in found.attributes}
    assert "url(" not in text
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= {"http://www.w3.org/2000/svg"}
    if name != "fragment":
        assert text.startswith("<!doctype html>")
        assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text


def test_a_page_has_every_number_of_the_report():
    reports = job()
    total = merge(reports)
    words = Page(page(total, reports)).words
    for group in groups(total):
        for label, number, unit, _ in group:
            assert label in words
            assert f"{number} {unit}" in words
    assert "sum of 4 processes on 2 hosts" in words
    for by in ("host", "process", "url"):
        for line in table(reports, by):
            assert line.name in words


def test_long_tables_say_how_much_is_left_out():
    one = ttbar_report(events=50)
    reports = [replace(one, pid=pid) for pid in range(LONGEST + 20)]
    text = page(merge(reports), reports)
    assert f"The first {LONGEST} of {LONGEST + 20}" in text
    assert len(text) < 400_000


def test_nothing_that_a_report_says_becomes_markup():
    report = replace(
        ttbar_report(events=20, appname=EVIL, host=EVIL),
        command=EVIL,
        cache=replace(ttbar_report(events=5).cache, bypassed=EVIL),
    )
    report = replace(
        report,
        urls=tuple(replace(use, url=f"root://{EVIL}") for use in report.urls[:1]),
        uncached=(Uncached(EVIL, 1, 1),),
        tiers=(TierUse(EVIL, 1, 1),),
    )
    for text in (
        page(report, [report]),
        fragment(report),
        comparison(report, report, (EVIL, EVIL)),
        svg.document(report),
    ):
        assert "<script" not in text
        assert "\x1b" not in text
        text.encode()
        assert text.count("&lt;script&gt;") >= 1
    Page(page(report, [report]))
    ET.fromstring(svg.document(report).encode())


def heights(root, name):
    """Return the heights of the bars of one colour, first in the upper plot, then in the lower one."""
    paths = [path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == name]
    return [[float(bar) for bar in re.findall(r"v([\d.]+)h-", path)] for path in paths]


def test_the_drawing_is_true_to_the_profile():
    report = ttbar_report(warm=1.3)
    root = ET.fromstring(svg.document(report).encode())
    scale = svg.scale_of(report)
    column_s = report.real_s / svg.COLUMNS
    per_byte = svg._HIGH / column_s / scale.top
    cache, rates = heights(root, "jc-c")
    origin = heights(root, "jc-o")[0]
    assert sum(cache) == pytest.approx(report.hit_bytes * per_byte, rel=0.01)
    assert sum(origin) == pytest.approx((report.requested_bytes - report.hit_bytes) * per_byte, rel=0.01)
    assert max(rates) == pytest.approx(svg._LOW)
    hit = plot.columns(report.profile.hit_bytes, report.profile.bin_s, report.real_s, svg.COLUMNS)
    assert len(cache) == sum(1 for nbytes in hit if nbytes)


def test_the_drawing_says_in_words_what_it_shows():
    report = ttbar_report(warm=1.3)
    root = ET.fromstring(svg.document(report).encode())
    assert root.get("role") == "img"
    title, text = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("aria-labelledby").split() == [title.get("id"), text.get("id")]
    assert "72.48 s" in text.text
    assert "In the second half of the time the hit rate was" in text.text
    tips = [tip.text for tip in root.iter(f"{SVG}title")][1:]
    assert all("from cache" in tip and "hit rate" in tip for tip in tips)


def test_two_drawings_in_one_page_share_their_axes_and_no_ids():
    cold, warm = merge(job()), merge(job(2, run="b"))
    text = comparison(cold, warm, ("cold", "warm"))
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) == 8  # title and description of two drawings, each wide and narrow
    scale = svg.scale_of(cold, warm)
    assert scale.real_s == max(cold.real_s, warm.real_s)
    assert scale.top >= svg.scale_of(warm).top


@pytest.mark.parametrize("real_s", [0.02, 0.9, 59.0, 700.0, 20000.0, 400000.0])
def test_any_length_of_run_has_a_readable_time_axis(real_s):
    report = ttbar_report(events=300, real_s=real_s)
    root = ET.fromstring(svg.document(report).encode())
    labels = [(float(text.get("x")), text.text) for text in root.iter(f"{SVG}text") if text.get("y") == "279"]
    assert 4 <= len(labels) <= 9
    assert labels == sorted(labels, key=lambda label: label[0])
    assert all(b[0] - a[0] > 45 for a, b in itertools.pairwise(labels))
    assert labels[-1][1].split()[1] in ("ms", "s", "min", "h")


def test_a_run_without_reads_has_no_drawing():
    assert not svg.has_profile(empty_report())
    assert "no reads" in svg.document(empty_report())
    ET.fromstring(svg.document(empty_report()).encode())
    assert "<svg" not in page(empty_report(), [empty_report()])


def test_a_drawing_is_as_wide_as_there_is_room_and_numbers_fold():
    reports = job()
    for text, opened in ((page(merge(reports), reports), True), (fragment(merge(reports), reports), False)):
        drawings = re.findall(r'<svg [^>]*width="100%" viewBox="0 0 (\d+) \d+"', text)
        assert drawings == [str(svg.WIDTH), str(svg.NARROW_WIDTH)]
        assert text.count("<svg ") == 2
        assert "min-width:640px" not in text
        assert ("<details open><summary>All numbers" in text, "<details><summary>All numbers" in text) == (
            opened,
            not opened,
        )


def test_the_theme_of_a_notebook_goes_before_that_of_the_operating_system():
    system = svg.STYLE.index("@media (prefers-color-scheme:dark)")
    for rule, ink in (("[data-jp-theme-light] .jc{", "#1c2430"), ("[data-jp-theme-light=false] .jc{", "#e8edf3")):
        start = svg.STYLE.index(rule)
        assert start > system
        assert f"--jc-ink:var(--jp-content-font-color1,{ink});" in svg.STYLE[start : svg.STYLE.index("}", start)]
