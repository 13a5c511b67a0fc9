"""What is read and not kept has its reason in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from servers import Resource

from jcache.report.merge import merge
from jcache.report.model import Report

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin

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
