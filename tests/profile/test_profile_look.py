"""What a profile says: numbers against a plain count over the ranges, the picture, and the commands."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from jcache.cli import main
from jcache.counters import LISTING, OPEN, READ, STAT, VECTOR
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start
from jcache.profile.picture import HIT, MISS, draw
from jcache.profile.reader import Profile, Recording
from jcache.profile.statistics import Union, look_at

if TYPE_CHECKING:
    from conftest import RunPython
    from servers import Nginx, XrootdServer

A, B = "root://host//a.root", "root://host//b.root"


def opening(file: int, size: int, end_us: int) -> Request:
    return Request(OPEN, end_us, 10, 0, file, [0], [size], 0, 0, 0, 0)


def read(file: int, end_us: int, *ranges: tuple[int, int], hit: bool = False, kind: int | None = None) -> Request:
    total = sum(stop - start for start, stop in ranges)
    served = (total, 0) if hit else (0, total)
    starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
    kind = (VECTOR if len(ranges) > 1 else READ) if kind is None else kind
    return Request(kind, end_us, 1000, 0, file, starts, stops, *served, 0, 0)


JOB = [
    opening(0, 10_000, 1_000),
    read(0, 2_000, (0, 100)),
    read(0, 3_000, (100, 200), (1_000, 1_100), (1_150, 1_250)),
    opening(1, 1_000, 4_000),
    read(1, 5_000, (0, 1_000), hit=True),
    read(0, 8_000, (0, 200), hit=True),
    Request(STAT, 8_500, 10, 0, 0, [], [], 1, 0, 0, 0),
    Request(LISTING, 9_000, 10, 0, 1, [], [], 0, 1, 0, 0),
]


def save(path: Path, requests: list[Request], *, ends: bool = True, **head: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = [pack_start(), pack_json(HEAD, {"run": "r1", "appname": "ttbar", "host": "h", **head})]
    blocks += [pack_json(FILES, [A, B]), pack_batch(Batch.of(requests))]
    path.write_bytes(b"".join(blocks + [pack_json(END, {"lost": 0})] * ends))
    return path


def profile_of(path: Path, requests: list[Request]) -> Profile:
    return Profile([Recording.open(save(path / "p.jcp", requests))])


def test_the_numbers_of_a_small_job(tmp_path: Path) -> None:
    look = look_at(profile_of(tmp_path, JOB), gaps=[0, 50, 1000])
    assert look.requests == {"open": 2, "read": 3, "vector": 1, "stat": 1, "listing": 1, "named": 0}
    assert (look.answered, look.real_s, look.states, look.lost) == (1, 0.009, {"complete": 1}, 0)
    first, second = look.files
    assert (first.url, first.size, first.opens, first.reads, first.ranges, first.bytes) == (A, 10_000, 1, 3, 5, 600)
    assert (first.hit_bytes, first.miss_bytes, first.distinct_bytes) == (200, 400, 400)
    assert (first.sequential, first.forward, first.backward) == (1, 2, 1)
    assert (second.url, second.bytes, second.distinct_bytes, second.waited_s) == (B, 1_000, 1_000, 0.00101)
    assert look.sizes == {128: (4, 400), 256: (1, 200), 1024: (1, 1_000)}
    assert look.distances == {-2048: 1, 0: 1, 64: 1, 1024: 1}
    assert [(one.gap, one.saved_ranges, one.extra_bytes) for one in look.coalescing] == [
        (0, 0, 0),
        (50, 1, 50),
        (1000, 2, 850),
    ]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30))
def test_a_union_is_what_a_set_is(pairs: list[tuple[int, int]]) -> None:
    union, plain = Union(), set()
    for start, size in pairs:
        union.add([(start, start + size)])
        plain |= set(range(start, start + size))
    assert union.size_bytes == len(plain)


@given(st.integers(0, 1 << 30))
def test_distinct_bytes_and_distances_are_what_a_plain_count_says(seed: int) -> None:
    chance = random.Random(seed)
    ranges = [[(start, start + chance.randrange(5)) for start in chance.sample(range(40), 3)] for _ in range(6)]
    requests = [read(0, 100 * i, *pairs, kind=VECTOR) for i, pairs in enumerate(ranges)]

    class Here(Profile):
        def batches(self) -> Any:
            self.files = [A]
            yield 0, Batch.of(requests)

    (use,) = look_at(Here([])).files
    assert use.distinct_bytes == len({byte for pairs in ranges for one in pairs for byte in range(*one)})
    flat = [one for pairs in ranges for one in pairs]
    steps = Counter((b[0] > a[1]) - (b[0] < a[1]) for a, b in itertools.pairwise(flat))
    assert (use.sequential, use.forward, use.backward) == (steps[0], steps[1], steps[-1])


def test_the_picture_has_each_range_in_its_place(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, JOB)
    files = look_at(profile).files
    picture = draw(profile, files, real_s=0.01, columns=10, rows=11)
    assert (picture.extent, list(picture.edges)) == (11_000, [0, 10_000])
    marked = {
        (10 - row, column): cell for row, cells in enumerate(picture.cells) for column, cell in enumerate(cells) if cell
    }
    assert marked == {(0, 2): MISS, (0, 3): MISS, (1, 3): MISS, (10, 5): HIT, (0, 8): HIT}
    assert draw(profile, [], real_s=0.01, columns=2, rows=2).cells == [b"\0\0"] * 2
    (only,) = [one for one in files if one.url == B]
    assert draw(profile, [only], real_s=0.01, columns=10, rows=1).cells == [bytes([0, 0, 0, 0, 0, HIT, 0, 0, 0, 0])]


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the profiles of two runs, one of them of two processes."""
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "cache" / ".reports"
    save(place / "a.jcp", JOB, start_time=100.0)
    save(place / "b.jcp", JOB[:3], start_time=100.5, pid=2, ends=False)
    save(place / "c.jcp", JOB[3:5], start_time=200.0, run="r2")
    return place


def jcache(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, args)], prog_name="jcache")


def told(*args: str | Path) -> Any:
    result = jcache(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_runs_are_listed_the_newest_first(reports: Path) -> None:
    newest, older = told("list")
    assert (newest["run"], newest["processes"], newest["requests"], newest["states"]) == ("r2", 1, 2, {"complete": 1})
    assert (older["run"], older["processes"], older["requests"]) == ("r1", 2, 11)
    assert older["states"] == {"complete": 1, "cut off": 1}
    assert told("list", reports) == told("list", reports.parent) == [newest, older]
    text = jcache("list").stdout
    assert "1 cut off" in text
    assert text.index("r2") < text.index("r1")


def test_a_run_is_shown_in_numbers_and_as_a_picture(reports: Path) -> None:
    shown = jcache("show", "ttbar~1")
    assert shown.exit_code == 0, shown.output
    for words in ("2 processes", A, B, "coalescing", "offset over time", "1 recording cut off"):
        assert words in shown.stdout
    assert "█" in shown.stdout
    assert "░" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120
    document = told("show", "r1", "--gap", "50", "--file", "*b.root")
    assert [one["url"] for one in document["files"]] == [B]
    assert document["coalescing"] == [{"gap": 50, "saved_ranges": 2, "extra_bytes": 100}]
    assert document["total"]["bytes"] == 1_600 + 400
    assert told("show")["processes"] == 1
    assert (
        told("show", reports / "a.jcp")["total"]
        == look_at(Profile([Recording.open(reports / "a.jcp")])).total().to_json()
    )


def test_the_picture_is_a_drawing_as_well(reports: Path, tmp_path: Path) -> None:
    import xml.etree.ElementTree as ET

    result = jcache("show", "r1", "--svg", tmp_path / "p.svg")
    assert (result.exit_code, result.stdout) == (0, "")
    root = ET.fromstring((tmp_path / "p.svg").read_text())
    drawn = {path.get("class") for path in root.iter("{http://www.w3.org/2000/svg}path")}
    assert {"jc-c", "jc-o"} <= drawn


def test_the_page_of_a_run_has_its_picture(
    run_python: RunPython, nginx_server: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nginx_server.directory / "f.root").write_bytes(bytes(100_000))
    code = "import sys, fsspec; fsspec.filesystem('http').cat_ranges(sys.argv[1:] * 2, [0, 5000], [10, 5010])"
    env = {"JCACHE_PROFILE": "1", "JCACHE_JSON": str(tmp_path / "reports")}
    run_python(code, nginx_server.url("f.root"), env=env)
    monkeypatch.setenv("JCACHE_JSON", str(tmp_path / "reports"))
    result = CliRunner().invoke(main, ["report", "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert "1 read of 2 ranges in 1 file" in page
    assert page.count("<figure>") == 2
    for path in (tmp_path / "reports").glob("*.jcp"):
        path.unlink()
    assert CliRunner().invoke(main, ["report", "--html", str(tmp_path / "page.html")]).exit_code == 0
    assert "Access profile" not in (tmp_path / "page.html").read_text()


def test_two_runs_stand_side_by_side(reports: Path) -> None:
    document = told("diff", "r1", "r2")
    measures = {one["label"]: (one["a"], one["b"]) for one in document["differences"]}
    assert measures["bytes"] == (2_000, 1_000)
    assert measures["requests: vector"] == (2, 0)
    assert [(one["url"], one["b"] is None) for one in document["files"]] == [(A, True)]
    assert A in jcache("diff", "r1", "r2").stdout
    assert "the same was read of all files" in jcache("diff", "r1", "r1").stdout


def test_requests_are_exported_as_csv_and_parquet(reports: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(jcache("export", "r1", "--csv", "-").stdout)))
    assert len(rows) == 11
    vectors = [row for row in rows if row["kind"] == "vector"]
    assert [(row["process"], row["offsets"], row["lengths"]) for row in vectors] == [
        ("0", "100;1000;1150", "100;100;100"),
        ("1", "100;1000;1150", "100;100;100"),
    ]
    assert [row["start_us"] for row in vectors] == ["2000", "502000"]
    pq = pytest.importorskip("pyarrow.parquet")
    assert jcache("export", "r1", "--parquet", tmp_path / "r.parquet").exit_code == 0
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [
        {**one, "offsets": ";".join(map(str, one["offsets"])), "lengths": ";".join(map(str, one["lengths"]))}
        for one in table
    ] == [
        {name: int(value) if name.endswith(("us", "bytes", "ss", "thread")) else value for name, value in row.items()}
        for row in rows
    ]


def test_a_program_is_told_what_was_exported_where(reports: Path, tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("csv", "xrootd")}
    told_of = told("export", "r1", *(word for name, path in files.items() for word in (f"--{name}", path)))
    assert [one["path"] for one in told_of["files"]] == list(files.values())
    written = [Path(path).read_text().splitlines() for path in files.values()]
    # A line of names is in front of the CSV's.
    assert [one["lines"] for one in told_of["files"]] == [len(written[0]) - 1, len(written[1])]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("args", "word"),
    [(("list",), "counting"), (("show", "r1"), "drawing"), (("export", "r1", "--csv", "/dev/null"), "exporting")],
)
def test_what_takes_long_shows_how_far_it_is(
    reports: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], word: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for patience_s, is_shown in ((0.0, True), (60.0, False)):
        monkeypatch.setattr("jcache.cli.progress.PATIENCE_S", patience_s)
        out, err = io.StringIO(), Terminal()
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", out)
            patched.setattr("sys.stderr", err)
            with pytest.raises(SystemExit) as ended:
                main(["profile", *args], prog_name="jcache")
        assert ended.value.code == 0
        assert (word in err.getvalue()) is is_shown
        assert word not in out.getvalue()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("show", "nothing"), "no such run: nothing"),
        (("show", "ttbar~7"), "there are only 2"),
        (("show", "/nowhere/x.jcp"), "no such file"),
        (("show", "--gap", "much"), "--gap"),
        (("show", "--file", "*zzz"), "no file of this run"),
        (("export",), "in which form"),
        (("export", "--csv", "-", "--json"), "cannot be both"),
        (("import", "--xrootd", "/nowhere.csv", "-o", "/nowhere/x"), "No such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(reports: Path, args: tuple[str, ...], words: str) -> None:
    result = jcache(*args)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e300", "-1e300"])
def test_a_time_that_is_none_is_shown_by_every_command(tmp_path: Path, number: str) -> None:
    save(tmp_path / "a.jcp", JOB, start_time=float(number))
    save(tmp_path / "b.jcp", JOB, start_time=1e9)
    for words in ("profile list", "profile show", "profile export --csv -", "whatif"):
        done = CliRunner().invoke(main, [*words.split(), str(tmp_path)])
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exc_info)


def test_a_damaged_profile_is_named_and_the_others_are_shown(reports: Path) -> None:
    (reports / "d.jcp").write_bytes(b"nothing of the kind")
    result = jcache("show", "r1")
    assert result.exit_code == 1
    assert "d.jcp is no profile" in result.stderr
    assert A in result.stdout


ALL = [("profile", "show"), ("profile", "columns", "--file", "-"), ("profile", "export", "--csv", "-")]
ALL += [("whatif",), ("warm", "--file", "-"), ("bundle", "create", "-o", "b.jcb"), ("profile", "list"), ("replay",)]


def of_all(args: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("JCACHE_DIR", str(place / "cache"))
    monkeypatch.chdir(place)
    return CliRunner().invoke(main, [*args, str(place)], prog_name="jcache")


@pytest.mark.parametrize("args", ALL[:-1], ids=" ".join)
def test_what_is_damaged_in_the_middle_is_named_by_each_command_and_what_is_before_is_used(
    reports: Path, tmp_path: Path, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "damaged"
    place.mkdir()
    whole = (reports / "a.jcp").read_bytes()
    (place / "a.jcp").write_bytes(whole + bytes(300) + whole[16:])
    result = of_all(args, place, monkeypatch)
    assert result.exit_code == (2 if "warm" in args else 1), result.output  # of warm nothing is selected here
    assert result.stderr.count("a.jcp is damaged: of its requests the first ") == 1


@pytest.mark.parametrize("args", ALL, ids=" ".join)
@pytest.mark.parametrize("data", [b"", b"garbage" * 9, pack_start() + pack_json(HEAD, {"run": "r"})[:20]])
def test_where_nothing_can_be_used_each_command_says_so_and_fails(
    tmp_path: Path, args: tuple[str, ...], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jcp").write_bytes(data)
    result = of_all(args, tmp_path, monkeypatch)
    assert result.exit_code == 1, result.output
    assert "a.jcp is " in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "b.jcb").exists()


# -- XRootD's recorder -----------------------------------------------------------------------------------------------


def test_what_is_exported_for_xrootd_is_imported_again(reports: Path, tmp_path: Path) -> None:
    assert jcache("export", "r1", "--xrootd", tmp_path / "x.csv").exit_code == 0
    done = told("import", "--xrootd", tmp_path / "x.csv")
    assert (done["requests"], done["failed"], done["writes"], done["odd"]) == (9, 0, 0, 0)
    before, after = (look_at(Profile([Recording.open(one)])) for one in (reports / "a.jcp", tmp_path / "x.jcp"))
    assert {one.url: (2 - (one.url == B)) * one.opens for one in before.files} == {
        one.url: one.opens for one in after.files
    }
    assert after.total().bytes == 2_000
    whole = Profile([Recording.open(tmp_path / "x.jcp")])
    found = [(one.kind, list(one.starts), list(one.stops)) for _, one in whole.requests() if one.kind != OPEN]
    both = [one for _, one in Profile([Recording.open(reports / name) for name in ("a.jcp", "b.jcp")]).requests()]
    assert found == [(one.kind, list(one.starts), list(one.stops)) for one in both if one.kind in (READ, VECTOR)]


def test_long_vectors_are_cut_as_servers_take_them(tmp_path: Path) -> None:
    from jcache.profile.xrootd import MOST_CHUNK_BYTES, to_xrootd

    ranges = [(10 * i, 10 * i + 1) for i in range(1500)] + [(1 << 20, (1 << 20) + 2 * MOST_CHUNK_BYTES + 5)]
    out = io.StringIO()
    to_xrootd(profile_of(tmp_path, [read(0, 10_000, *ranges)]), out)
    lines = list(csv.reader(out.getvalue().splitlines()))
    assert [line[1] for line in lines] == ["Open", "VectorRead", "VectorRead", "Close"]
    sizes = [[int(one) for one in line[3].split(";")[1:-1:2]] for line in lines[1:3]]
    assert [len(one) for one in sizes] == [1024, 479]
    assert sum(map(sum, sizes)) == sum(stop - start for start, stop in ranges)
    assert max(map(max, sizes)) <= MOST_CHUNK_BYTES


RECORDED = """
import sys
from XRootD import client
file = client.File()
assert file.open(sys.argv[1])[0].ok
assert file.stat()[0].ok
assert file.read(10, 90)[0].ok
assert file.vector_read([(0, 100), (5000, 10)])[0].ok
assert not client.File().open(sys.argv[2])[0].ok
assert file.close()[0].ok
"""


def test_what_xrootds_own_recorder_writes_is_imported(xrootd_server: XrootdServer, tmp_path: Path) -> None:
    pyxrootd = pytest.importorskip("pyxrootd")
    libraries = sorted(Path(pyxrootd.__file__).parent.glob("libXrdClRecorder-*.so"))
    if not libraries:
        pytest.skip("this XRootD client comes without its recorder")
    (Path(xrootd_server.directory) / "f.root").write_bytes(bytes(10_000))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "recorder.conf").write_text(f"url = *\nlib = {libraries[0]}\nenable = true\n")
    url = f"root://user@127.0.0.1:{xrootd_server.port}//f.root?authz=hidden-1"
    out = tmp_path / "recorded.csv"
    env = {**os.environ, "XRD_PLUGINCONFDIR": str(tmp_path / "conf"), "XRD_RECORDERPATH": str(out)}
    done = subprocess.run(
        [sys.executable, "-c", RECORDED, url, url.partition("?")[0] + ".missing"],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told_of = told("import", "--xrootd", out)
    assert (told_of["requests"], told_of["failed"], told_of["writes"], told_of["odd"]) == (4, 1, 0, 0), out.read_text()
    profile = Profile([Recording.open(tmp_path / "recorded.jcp")])
    requests = [one for _, one in profile.requests()]
    assert [one.kind for one in requests] == [OPEN, STAT, READ, VECTOR]
    assert [(list(one.starts), list(one.stops), one.miss) for one in requests[2:]] == [
        ([10], [100], 90),
        ([0, 5000], [100, 5010], 110),
    ]
    assert look_at(profile).files[0].size == 10_000
    assert [name.rpartition(":")[2] for name in profile.files] == [f"{xrootd_server.port}//f.root"]
    assert b"hidden" not in (tmp_path / "recorded.jcp").read_bytes()
    # And back: the lines that it wrote for these are what is exported, but for numbers of its objects and its times.
    exported = io.StringIO(jcache("export", tmp_path / "recorded.jcp", "--xrootd", "-").stdout)
    own = [line for line in out.read_text().splitlines() if '"Stat"' not in line and "[SUCCESS]" in line]
    assert [_plain(line) for line in exported.read().splitlines()] == [_plain(line) for line in own]


def _plain(line: str) -> list[str]:
    (cells,) = csv.reader([line])
    if cells[1] == "Open":
        return cells[1:2]
    return [cells[1], cells[3].rpartition(";")[0], *cells[5:]]
