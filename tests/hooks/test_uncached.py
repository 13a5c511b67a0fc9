"""What is read and not kept has its reason in the report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import AsyncSlowFileSystem, settle
from servers import Resource

from jcache.report.merge import merge
from jcache.report.model import Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin, XrootdServer

    from jcache.session import Session

DATA = bytes(range(256)) * 40
READ = "import fsspec, sys; print(len(fsspec.filesystem('http').cat_file(sys.argv[1], 10, 500)))"


@pytest.mark.parametrize(
    ("resource", "code", "reason"),
    [
        ({}, READ, "names nothing by which versions are told apart"),
        ({"etag": '"a"'}, READ.replace("500)", "500, headers={'X-A': 'b'})"), "headers may decide which bytes"),
        (
            {},
            "import fsspec, sys; print(len(fsspec.open(sys.argv[1]).open().read(490)))",
            "nothing tells its version",
        ),
    ],
    ids=["no validator", "an option", "a file object"],
)
def test_the_reason_is_in_the_report(
    run_python: RunPython, http_origin: ScriptedOrigin, resource: dict[str, Any], code: str, reason: str
) -> None:
    http_origin.resources["/f"] = Resource(DATA, **resource)
    ran = run_python(code, http_origin.url("f"))
    assert ran.stdout == "490\n"
    (item,) = ran.report["uncached"]
    assert reason in item["reason"]
    assert item["bytes"] == 490
    assert item["ops"] == 1
    assert "bytes not cached" in ran.stderr


def test_what_is_kept_has_none(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    http_origin.resources["/f"] = Resource(DATA, etag='"a"')
    ran = run_python(READ, http_origin.url("f"))
    assert "uncached" not in ran.report
    assert "not cached" not in ran.stderr


def test_a_rule_is_a_reason(run_python: RunPython, http_origin: ScriptedOrigin, tmp_path: Path) -> None:
    http_origin.resources["/f"] = Resource(DATA, etag='"a"')
    (tmp_path / "jcache.toml").write_text('[[rules]]\nurl = "http://*"\nbypass = true\n')
    ran = run_python(READ, http_origin.url("f"), env={"JCACHE_CONFIG": str(tmp_path / "jcache.toml")})
    assert [(item["reason"], item["bytes"]) for item in ran.report["uncached"]] == [("a rule says so", 490)]


def test_reasons_of_many_processes_add_up(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    http_origin.resources["/f"] = Resource(DATA)
    reports = [Report.from_json(run_python(READ, http_origin.url("f")).report) for _ in range(2)]
    (item,) = merge(reports).uncached
    assert (item.ops, item.bytes) == (2, 980)
    assert Report.loads(merge(reports).dumps()) == merge(reports)


COPIES = """
import asyncio, io, os, sys, fsspec
fs, url = fsspec.filesystem("http"), sys.argv[1]
options = {"headers": {"X-A": "b"}} if sys.argv[2:] else {}
fs.get_file(url, "got", **options)
fs.get(url, "again", **options)
into = io.BytesIO()
fs.get_file(url, into, **options)
async def stream():
    fs = fsspec.filesystem("http", asynchronous=True, skip_instance_cache=True)
    file = await fs.open_async(url, **options)
    parts = [await file.read(1000), await file.read()]
    await file.close()
    await (await fs.set_session()).close()
    return parts
print(os.path.getsize("got"), os.path.getsize("again"), len(into.getvalue()), sum(map(len, asyncio.run(stream()))))
fsspec.filesystem("jcache", fs=fs).get_file(url, "third", **options)
"""


@pytest.mark.parametrize("why", ["bypass", "no validator", "an option"])
def test_what_is_copied_or_streamed_past_the_cache_is_counted(
    run_python: RunPython, http_origin: ScriptedOrigin, why: str
) -> None:
    http_origin.resources["/f"] = Resource(DATA) if why == "no validator" else Resource(DATA, etag='"a"')
    env = {"JCACHE_BYPASS": "1"} if why == "bypass" else {}
    ran = run_python(COPIES, http_origin.url("f"), *(["x"] if why == "an option" else []), env=env)
    assert ran.stdout == f"{' '.join([str(len(DATA))] * 4)}\n"
    assert ran.report["read"]["bypass_bytes"] == 5 * len(DATA)
    assert ran.report["read"]["hit_bytes"] == ran.report["read"]["miss_bytes"] == 0


def test_a_copy_by_a_method_of_its_own_is_counted(active: Callable[..., Session], tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    session = active(bypass=True)
    fs = fsspec.filesystem("aslow", skip_instance_cache=True)
    fs.get_file(str(path), str(tmp_path / "got"))
    fs.get(str(path), str(tmp_path / "got"))
    fsspec.filesystem("slow").get_file(str(path), str(tmp_path / "got"))
    assert session.counters.snapshot().read_bypass == 3 * len(DATA)


def test_how_azures_and_googles_are_to_copy_is_no_reason(active: Callable[..., Session], tmp_path: Path) -> None:
    class Tuned(AsyncSlowFileSystem):
        protocol, __module__ = "tuned", "adlfs.spec"

    path = tmp_path / "f"
    path.write_bytes(DATA)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    session = active()
    for hits in range(2):
        Tuned(skip_instance_cache=True).get(str(path), str(tmp_path / "got"), max_concurrency=1)
        assert (tmp_path / "got").read_bytes() == DATA
        assert session.counters.snapshot().read_hit == hits * len(DATA)
        settle()


def test_a_copy_by_a_client_that_is_hooked_is_counted_once(xrootd_server: XrootdServer, run_python: RunPython) -> None:
    (xrootd_server.directory / "f").write_bytes(DATA)
    code = "import fsspec, sys; fs, path = fsspec.url_to_fs(sys.argv[1]); fs.get(path, 'got')"
    ran = run_python(code, xrootd_server.url("f"), env={"JCACHE_BYPASS": "1"})
    assert ran.report["read"]["bypass_bytes"] == len(DATA)
