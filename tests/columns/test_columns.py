"""Where the columns of files lie: against what their own libraries read when they read a column."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from analysis import CLIENT, COLUMNS, FLAT, JAGGED, JOB, write
from click.testing import CliRunner

from jcache.cli.group import main
from jcache.ranges import normalise, subtract, total
from jcache_plugins.columns.layout import ColumnError, Layout, Use, layout_of

if TYPE_CHECKING:
    from pathlib import Path

    from analysis import Served
    from conftest import RunPython
    from servers import Nginx


class Spy:
    """A local file that notes which bytes are read of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.read_ranges: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        data = self._file.read(size)
        self.read_ranges.append((at, at + len(data)))
        return data


def layout(path: Path) -> Any:
    return layout_of(fsspec.filesystem("file"), str(path)).columns


@pytest.mark.parametrize("is_rntuple", [False, True])
def test_branches_and_fields_are_where_uproot_reads_them(tmp_path: Path, *, is_rntuple: bool) -> None:
    import uproot

    path = tmp_path / "f.root"
    write(path, rntuple=is_rntuple)
    found = layout(path)
    assert set(found) >= {*JAGGED, *FLAT}
    for name in ("Jet_pt", "MET_pt"):
        spy = Spy(path)
        with uproot.open(spy) as file:
            tree = file["Events"]
            before = normalise(spy.read_ranges)
            spy.read_ranges.clear()
            tree.arrays([name])
        read = subtract(normalise(spy.read_ranges), before)
        assert total(read) > 0
        of_others = [part for other, ranges in found.items() if name not in other for part in ranges]
        assert subtract(normalise(found[name]), normalise(spy.read_ranges)) == []
        common = subtract(normalise(of_others), subtract(normalise(of_others), read))
        assert common == []


def test_columns_of_parquet_are_where_pyarrow_reads_them(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "f.parquet"
    table = pyarrow.table({"a": range(50_000), "b": [str(n) for n in range(50_000)], "c": [[1.5, 2.5]] * 50_000})
    parquet.write_table(table, path, row_group_size=20_000)
    found = layout(path)
    assert set(found) == {"a", "b", "c.list.element"}
    spy = Spy(path)
    file = parquet.ParquetFile(spy, pre_buffer=False)
    spy.read_ranges.clear()
    file.read(columns=["b"])
    assert normalise(spy.read_ranges) == found["b"]


def test_data_sets_of_hdf5_are_where_h5py_reads_them(tmp_path: Path) -> None:
    h5py, numpy = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["g/flat"] = numpy.arange(10_000)
        file.create_dataset("chunked", data=numpy.random.default_rng(1).random((50, 1000)), chunks=(10, 1000))
        file.create_dataset("empty", shape=(0,), chunks=(10,), maxshape=(None,), dtype="f4")
    found = layout(path)
    assert {name: total(ranges) for name, ranges in found.items()} == {"g/flat": 80_000, "chunked": 400_000, "empty": 0}
    raw = path.read_bytes()
    (at, end), *_ = found["g/flat"]
    assert numpy.frombuffer(raw[at:end], "<i8").tolist() == list(range(10_000))


def test_a_file_of_another_format_has_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert layout(tmp_path / "a.txt") == {}
    pytest.importorskip("pyarrow")
    (tmp_path / "b").write_bytes(b"PAR1" + bytes(1000))
    with pytest.raises(ColumnError, match="/b: ArrowInvalid"):
        layout(tmp_path / "b")


def test_what_was_read_is_dealt_to_columns() -> None:
    found = Layout({"a": [(100, 200), (500, 600)], "x/b": [(200, 300)], "c": [(900, 950)]})
    assert found.used([(50, 120), (150, 260), (590, 700)]) == {
        "a": Use(20 + 50 + 10, 200, 3),
        "x/b": Use(60, 100, 1),
        "": Use(50 + 100, 150, 2),
    }
    assert found.matching(["b", "c"]) == [(200, 300), (900, 950)]
    assert found.matching(["x/*"]) == [(200, 300)]
    assert found.matching(["?"]) == [(100, 300), (500, 600), (900, 950)]
    assert Layout(found.columns, gap_bytes=250).matching(["?"]) == [(100, 600), (900, 950)]


def test_the_columns_that_an_analysis_read_are_those_that_it_asked_for(
    served: Served, run_python: RunPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CLIENT.items():
        monkeypatch.setenv(name, value)
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))
    where = tmp_path / "profiles"
    run_python(JOB, ",".join(COLUMNS), *urls, env={**CLIENT, "JCACHE_PROFILE": str(where)})
    done = CliRunner().invoke(main, ["profile", "columns", str(where), "--json"], prog_name="jcache")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["files"], told["failed"]) == (2, {})
    whole = {one["name"] for one in told["columns"] if one["read_bytes"] == one["size_bytes"]}
    assert {*COLUMNS, ""} <= whole
    # What lies between two columns is read with them now and then, never a whole one.
    assert not whole & ({*JAGGED, *FLAT} - {*COLUMNS})
    shown = CliRunner().invoke(main, ["profile", "columns", str(where), "--file", "*f0*"], prog_name="jcache")
    rows = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert "100.00 %" in rows["Jet_pt"]
    assert "(no" in rows


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_of_zarr_are_named_by_their_array(
    nginx_server: Nginx, run_python: RunPython, tmp_path: Path, version: int
) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(nginx_server.directory / "z"), mode="w", zarr_format=version)
    for name in ("t2m", "tp"):
        array = group.create_array(name, shape=(40, 30), chunks=(10, 30), dtype="f8", compressors=None)
        array[:] = 1.5
    zarr.consolidate_metadata(group.store)
    code = """
import sys, zarr
group = zarr.open_group(sys.argv[1] + "z", mode="r")
print(float(group["t2m"][5:25].sum()))
"""
    where = tmp_path / "profiles"
    ran = run_python(code, nginx_server.url(), env={"JCACHE_PROFILE": str(where)})
    assert float(ran.stdout) == 20 * 30 * 1.5
    done = CliRunner().invoke(main, ["profile", "columns", str(where), "--json"], prog_name="jcache")
    columns = {one["name"]: one for one in json.loads(done.stdout)["columns"]}
    chunk = 10 * 30 * 8
    assert (columns["t2m"]["read_bytes"], columns["t2m"]["files"]) == (3 * chunk, 3)
    assert "tp" not in columns


def test_a_cache_that_is_filled_with_columns_has_all_that_a_job_reads_of_them(
    served: Served, run_python: RunPython, cache_dir: Path
) -> None:
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))
    code = """
import sys, jcache
done = jcache.warm(sys.argv[2:], columns=sys.argv[1].split(","))
print(done.is_complete, done.fetched_bytes)
"""
    warmed = run_python(code, ",".join(COLUMNS), *urls, env=CLIENT)
    is_complete, fetched = warmed.stdout.split()
    assert is_complete == "True"
    size = sum((served.directory / f"f{number}.root").stat().st_size for number in range(2))
    assert 0 < int(fetched) < size / 2
    served.reset()
    job = run_python(JOB, ",".join(COLUMNS), *urls, env=CLIENT)
    assert served.data_bytes() == 0, served.spans()
    assert job.report["readv"]["hit_bytes"] > 0
