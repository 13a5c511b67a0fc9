"""Notebooks in a real kernel: on, off, the report, a cell's own profile, and what is shown of them."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from jcache.counters import Counters
from jcache.report.model import Report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import ScriptedOrigin

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

DATA = random.Random(3).randbytes(50_000)


class ThisPython(KernelSpecManager):
    """Knows one kernel: this interpreter's, whatever is installed for the user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


class Notebook:
    """Cells, run one by one in a kernel of their own."""

    def __init__(self, directory: Path) -> None:
        self.document = nbformat.v4.new_notebook()
        manager = AsyncKernelManager(kernel_name="this", kernel_spec_manager=ThisPython(), shutdown_wait_time=120.0)
        self.client = NotebookClient(
            self.document, km=manager, timeout=60, resources={"metadata": {"path": str(directory)}}
        )

    def run(self, source: str) -> list[Any]:
        """Return the cell's outputs."""
        cell = nbformat.v4.new_code_cell(source)
        self.document.cells.append(cell)
        self.client.execute_cell(cell, len(self.document.cells) - 1)
        return cell.outputs

    def text(self, source: str) -> str:
        """Run a cell; return what it printed, its result and its report, as text."""
        return "".join(output.get("text") or output["data"]["text/plain"] for output in self.run(source))

    def error(self, source: str) -> str:
        with pytest.raises(CellExecutionError):
            self.run(source)
        *_, output = outputs = self.document.cells[-1].outputs
        if output["output_type"] == "stream":  # of errors in its use IPython shows one line, now and then in pieces
            return "".join(output["text"] for output in outputs)
        return f"{output['ename']}: {output['evalue']}"


@contextmanager
def kernel(directory: Path) -> Iterator[Notebook]:
    """A notebook whose kernel ends as one does that is shut down from its menu."""
    made = Notebook(directory)
    with made.client.setup_kernel(cleanup_kc=True):  # it is the manager that ends it, gracefully
        yield made


@pytest.fixture(autouse=True)
def of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's settings nor the user's files."""
    for name in [name for name in os.environ if name.startswith(("JCACHE_", "_JCACHE_"))]:
        monkeypatch.delenv(name)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    with kernel(tmp_path) as made:
        yield made


def numbers(text: str) -> dict[str, str]:
    """The rows of a text report."""
    return dict(re.findall(r"^│ ([a-z][a-z .()]*?) +: +(\S+)", text, re.MULTILINE))


def saved(cache: Path) -> list[Report]:
    return [Report.load(path) for path in sorted(cache.glob(".reports/jcache.*.json"))]


def test_on_a_cell_off(notebook: Notebook, http_origin: ScriptedOrigin, tmp_path: Path) -> None:
    resource = http_origin.put("data", DATA)
    cache = tmp_path / "my cache"
    # A file system that was made, and has read, before.
    notebook.run(f"import fsspec; fs = fsspec.filesystem('http'); url = {http_origin.url('data')!r}; fs.info(url)")
    assert notebook.text("%load_ext jcache") == ""
    assert notebook.text("%jcache") == "JCache is off.\n"
    assert notebook.text("%jcache on 'my cache' validate=never") == f"JCache is on: {cache} validate=never\n"

    resource.reset()
    assert notebook.text("fs.cat_file(url, 0, 1000) == fs.cat_file(url, 0, 1000)") == "True"
    assert resource.body_bytes == 1000

    # A cell's report is of the cell alone; the file's size was known before it.
    notebook.run("import time; time.sleep(0.5)")  # by this much the session's time is longer than any cell's
    began_s = time.monotonic()
    cell = notebook.text("%%jcache\n# both\nfound = fs.cat_ranges([url, url], [0, 2000], [500, 2500])\nlen(found)")
    took_s = time.monotonic() - began_s
    assert cell.startswith("2╭")
    assert f"cell [{notebook.document.cells[-1].execution_count}] on" in cell
    assert "# both" in cell
    assert numbers(cell)["total bytes readv"] == "1000"
    assert numbers(cell)["total bytes read"] == "0"
    assert numbers(cell)["cache combined hit rate"] == "50.00"
    assert numbers(cell)["total unique files bytes"] == str(len(DATA))
    assert float(numbers(cell)["app real time"]) <= took_s + 0.01
    assert "interim" not in cell
    assert notebook.text("found == [fs.cat_file(url, 0, 500), fs.cat_file(url, 2000, 2500)]") == "True"

    # The session's has everything, cells measured and not.
    report = notebook.run("%jcache report")[-1]["data"]
    assert numbers(report["text/plain"])["total bytes readv"] == "1000"
    assert numbers(report["text/plain"])["total bytes read"] == "3000"
    assert "<svg" in report["text/html"]
    assert "cache combined hit rate" in report["text/html"]

    final = notebook.text("%jcache off")
    assert (numbers(final)["total bytes read"], numbers(final)["total bytes readv"]) == ("3000", "1000")
    assert "interim" not in final
    (part,) = saved(cache)
    assert (part.appname, part.complete, part.requested_bytes) == ("notebook", True, 4000)
    assert numbers(final)["cache recorded bytes"] == str(part.cache.recorded_bytes) == "1500"
    resource.reset()
    assert notebook.text("fs.cat_file(url, 0, 500) == found[0]") == "True"
    assert resource.body_bytes == 500
    assert notebook.text("%jcache off") == "JCache is off.\n"
    assert numbers(notebook.text("%jcache report")) == numbers(final)  # the last there was


def test_a_cell_that_fails_fails_and_still_shows_what_it_read(
    notebook: Notebook, http_origin: ScriptedOrigin, tmp_path: Path
) -> None:
    http_origin.put("data", DATA)
    notebook.run(f"%load_ext jcache\n%jcache on {tmp_path}/cache\nimport fsspec\nurl = {http_origin.url('data')!r}")
    code = "fs = fsspec.filesystem('http')\ndef broken():\n    fs.cat_file(url, 0, 100)\n    return 1 / 0\nbroken()"
    assert notebook.error(f"%%jcache\n{code}") == "ZeroDivisionError: division by zero"
    outputs = notebook.document.cells[-1].outputs
    assert numbers(outputs[0]["data"]["text/plain"])["total bytes read"] == "100"
    assert any("return 1 / 0" in line for line in outputs[-1]["traceback"])
    # Later reads are not the cell's, and the cell's names are the notebook's.
    notebook.run("broken_too = broken; fs.cat_file(url, 0, 50)")
    assert numbers(notebook.text("%jcache report"))["total bytes read"] == "150"
    assert "total bytes read          :              10 " in notebook.text("%%jcache\nfs.cat_file(url, 0, 10);")


def test_a_cell_is_shown_request_by_request(notebook: Notebook, http_origin: ScriptedOrigin, tmp_path: Path) -> None:
    from jcache.profile.reader import Recording

    http_origin.put("data", DATA)
    notebook.run(f"%load_ext jcache\n%jcache on {tmp_path}/cache\nimport fsspec\nurl = {http_origin.url('data')!r}")
    notebook.run("fs = fsspec.filesystem('http'); fs.cat_file(url, 0, 100)")
    shown = notebook.text("%%jcache --profile\nfs.cat_ranges([url] * 2, [0, 2000], [100, 2500]); fs.info(url)")
    assert "total bytes readv         :             600 " in shown
    assert "requests: 1 vector, 1 stat" in shown
    assert "offset over time" in shown
    (path,) = (tmp_path / "cache" / ".reports").glob("*.jcp")
    recording = Recording.open(path)
    assert [(list(one.starts), one.hit, one.miss) for batch in recording.batches() for one in batch if one.starts] == [
        ([0, 2000], 100, 500)
    ]
    assert recording.state == "complete"
    assert str(path) in shown
    assert "read nothing" in notebook.text("%%jcache --profile\n1 + 1;")


def test_what_is_wrong_is_said(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("%load_ext jcache")
    said = {
        "%jcache on": "there is no cache directory: give one, or set JCACHE_DIR",
        "%jcache on d validate=x": "validate='x' is wrong: give open, never or a number of seconds",
        "%jcache on d nothing=1": "there is no setting 'nothing'",
        "%jcache on d never": "'never' is not NAME=VALUE",
        "%jcache up": "no such command: %jcache up",
        "%jcache report": "nothing to report: JCache has not been on",
        "%%jcache\n1": "JCache is not on: %jcache on DIR",
        "%%jcache on d\n1": "%%jcache takes no arguments",
    }
    for source, message in said.items():
        assert f"UsageError: {message}" in notebook.error(source)
    assert notebook.text("%jcache") == "JCache is off.\n"
    assert not (tmp_path / "d").exists()
    notebook.run("%unload_ext jcache")
    assert "not found" in notebook.error("%jcache on d")


def test_processes_that_a_cell_starts_cache_and_count(
    notebook: Notebook, http_origin: ScriptedOrigin, tmp_path: Path
) -> None:
    resource = http_origin.put("data", DATA)
    before = notebook.text("import os; before = dict(os.environ); before.get('JCACHE_DIR')")
    read = f"import fsspec; fsspec.filesystem('http').cat_file({http_origin.url('data')!r}, 0, 700)"
    notebook.run("%load_ext jcache\n%jcache on cache validate=never")
    for _ in range(2):
        notebook.run(f"import subprocess, sys\ndone = subprocess.run([sys.executable, '-c', {read!r}], check=True)")
    assert resource.body_bytes == 700  # the second process had it from the first
    report = notebook.text("%jcache report")
    assert "sum of 3 processes" in report
    assert (numbers(report)["total bytes read"], numbers(report)["cache combined hit rate"]) == ("1400", "50.00")
    notebook.run("%jcache off")
    assert notebook.text("os.environ == before") == "True"
    assert before == ""
    assert {part.requested_bytes for part in saved(tmp_path / "cache")} == {700}


def test_a_directory_that_cannot_be_used_is_said_at_once(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = notebook.text("%load_ext jcache\n%jcache on file")
    assert "JCache only measures: the cache directory" in said
    assert "it is a file" in said
    assert "JCache is on" not in said


def test_a_kernel_that_ends_leaves_its_report_and_prints_none(
    http_origin: ScriptedOrigin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    http_origin.put("data", DATA)
    read = f"fsspec.open({http_origin.url('data')!r}).open().read()"
    with kernel(tmp_path) as notebook:
        notebook.run(f"%load_ext jcache\n%jcache on cache\nimport fsspec\ndata = {read}")
        assert notebook.text("%jcache on cache") == f"JCache is on: {tmp_path / 'cache'}\n"  # the same once more
        assert "give open, never" in notebook.error("%jcache on other validate=x")
        assert notebook.text("import os; os.environ['JCACHE_DIR']") == repr(str(tmp_path / "cache"))
        notebook.run("%jcache on third validate=never")  # the session before it is over
        assert notebook.text("%jcache on other") == f"JCache is on: {tmp_path / 'other'}\n"
        assert [part.requested_bytes for part in saved(tmp_path / "cache")] == [len(DATA)]
        assert notebook.text(f"{read} == data") == "True"
        assert saved(tmp_path / "other") == []
    (part,) = saved(tmp_path / "other")
    assert (part.complete, part.requested_bytes) == (True, len(DATA))
    assert "cache combined hit rate" not in capfd.readouterr().err


def test_every_method_that_counts_is_counted_twice() -> None:
    from jcache_plugins.notebook import COUNTING

    others = {"any_activity", "at_first_read", "profile", "snapshot", "start_time"}
    assert {name for name in vars(Counters) if name[0] != "_"} == {*COUNTING, *others}
