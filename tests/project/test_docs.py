"""The documents name what is there: tests, links, commands, settings; and no place of one machine."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from places import ROOT
from report_samples import ttbar_report

from jcache.cli import main
from jcache.cli.group import COMMANDS
from jcache.counters import Counters
from jcache.report.counted import from_counters
from jcache.report.faces.rows import groups
from jcache.report.merge import merge
from jcache.report.model import Uncached
from jcache.settings.config import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SEMANTICS = ROOT / "docs" / "semantics.md"
TEST = re.compile(r"(test_\w+\.py)::(\w+)")
PROMISES = re.compile(r"^\| promise \| held by \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Places that only some machine has. What users are shown is in /shared, /store, /data and the like.
MACHINES = re.compile(r"(?<![\w.])/(?:work|home|root|Users|tmp|opt|mnt|scratch)/\w+|\b(?:127|10|192)\.\d+\.\d+\.\d+\b")

each_document = pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document not in reached:
            reached.add(document)
            waiting += [path for path, _ in targets(document) if path.suffix == ".md"]
    assert {path for path in DOCS if path not in reached} == set()


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for path, heading in targets(document):
        assert path.exists(), path
        if heading:
            assert heading in anchors(path), f"{path.name} has no heading {heading!r}"


def targets(document: Path) -> list[tuple[Path, str]]:
    """File and heading of each link that stays in the repository."""
    out = []
    for target in LINK.findall(prose(document)):
        if "://" not in target:
            path, _, heading = target.partition("#")
            out.append(((document.parent / path).resolve() if path else document, heading))
    return out


def prose(document: Path) -> str:
    """A document's text without blocks of code."""
    return "\n".join(line for line in document.read_text().splitlines() if not line.startswith("    "))


def anchors(document: Path) -> set[str]:
    """The names that a document's headings have in links."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_test_that_is_named_exists(document: Path) -> None:
    missing = [f"{file}::{name}" for file, name in TEST.findall(document.read_text()) if name not in named_in(file)]
    assert missing == []


@cache
def named_in(file: str) -> frozenset[str]:
    path = next((ROOT / "tests").rglob(file), None)
    if path is None:
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):  # a state machine's test case
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(name for name in names if name.lower().startswith("test"))


def test_every_promise_names_its_test() -> None:
    bare, tables = [], 0
    for table in PROMISES.findall(SEMANTICS.read_text()):
        tables += 1
        bare += [row for row in table.splitlines() if not TEST.search(row)]
    assert bare == []
    assert tables >= 6


def test_every_command_has_help_and_is_explained() -> None:
    explained = "".join(path.read_text() for path in DOCS if path.name != "CHANGELOG.md")
    for name in COMMANDS:
        result = CliRunner().invoke(main, [name, "--help"], prog_name="jcache")
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"Usage: jcache {name} ")
        assert f"`jcache {name}" in explained or f"jcache {name} " in explained, f"jcache {name} is nowhere explained"
    assert max(map(len, CliRunner().invoke(main, ["--help"]).output.splitlines())) <= 80


def test_the_readme_shows_a_report_as_it_looks() -> None:
    counters = Counters()
    counters.file_opened("root://host//f", 1000, 0.1)
    counters.read(100, 100, 0, 0, url="root://host//f")
    counters.readv(3, 300, 300, 0, 0, url="root://host//f")
    warm = from_counters(counters, appname="job", host="h", pid=1, command="job", user_s=1.0, sys_s=1.0)
    shown = re.findall(r"^    │ ([a-z].*?) +:", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown == [row[0] for group in groups(warm) for row in group]


def test_every_line_of_a_report_is_explained() -> None:
    report = ttbar_report(warm=1.5)
    origin = replace(report.origin, errors=1, retries=1, prefetch_bytes=2, prefetch_unused_bytes=1)
    cache = replace(report.cache, damaged_extents=1, failures=1)
    read = replace(report.read, bytes=report.read.bytes + 1, bypass_bytes=1)
    report = replace(report, origin=origin, cache=cache, read=read, uncached=(Uncached("it is", 1, 1),))
    labels = [row[0] for group in groups(report) for row in group]
    assert len(labels) == 38
    table = (ROOT / "docs" / "howto" / "read-a-report.md").read_text().partition("## What the numbers mean")[2]
    table = table.partition("\n## ")[0]
    explained = [
        label
        for line in table.splitlines()
        if line.startswith("| `")
        for label in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert explained == labels


def test_every_key_of_a_json_report_is_named() -> None:
    first = replace(ttbar_report(complete=False, interval_s=5.0), uncached=(Uncached("it is", 1, 1),))
    report = merge([first, ttbar_report(pid=2)]).to_json()
    text = (
        (ROOT / "docs" / "howto" / "read-a-report.md").read_text().partition("## For programs")[2].partition("\n## ")[0]
    )
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    named = {key: set(re.findall(r"`(\w+)`", row[2])) for row in rows for key in re.findall(r"`(\w+)`", row[1])}
    assert set(named) == set(report)
    for key, value in report.items():
        inner = value[0] if key in {"urls", "uncached"} else value
        if isinstance(inner, dict):
            assert named[key] | (named["read"] if key == "readv" else set()) == set(inner), key


def test_the_readme_has_the_extras_and_each_has_lower_bounds() -> None:
    """Without one, pip has chosen a version of ten years ago to please another package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {"test", "ecosystem", "root"}
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name not in ours}
    for requirement in [*project["dependencies"], *itertools.chain.from_iterable(extras.values())]:
        assert ">=" in requirement, requirement
    rows = re.findall(r"^\| `([a-z0-9]+)` \| ([\w, -]+) \| .* \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    needed = {name: ", ".join(re.split(r"\W*>=", one)[0] for one in wanted) for name, wanted in extras.items()}
    assert dict(rows) == needed


def test_exit_codes_are_those_that_the_help_names() -> None:
    lines = (ROOT / "docs" / "commands.md").read_text().splitlines()
    for name in COMMANDS:
        codes = exit_codes(name)
        if name == "run":  # has those of the command that it runs
            assert {f"| {code.replace('*', 'any')} | {meaning} |" for code, meaning in codes.items()} <= set(lines)
            assert len(codes) == 4
        else:
            assert {"0", "2"} <= set(codes) <= {"0", "1", "2"}
            assert f"| `jcache {name}` | {codes['0']} | {codes.get('1', '-')} | {codes['2']} |" in lines


def exit_codes(name: str) -> dict[str, str]:
    """What a command's help says of its exit codes, each on a line of its own."""
    text = CliRunner().invoke(main, [name, "--help"], prog_name="jcache").output
    section = text.partition("Exit codes:\n")[2].partition("\n\n")[0]
    return dict(line.split(maxsplit=1) for line in section.splitlines())


def test_commands_and_settings_that_are_named_exist() -> None:
    settings = {setting.variable for setting in SETTINGS}
    for document in DOCS:
        text = document.read_text()
        assert set(re.findall(r"`jcache ([a-z]+)", text)) <= set(COMMANDS), document
        assert set(re.findall(r"\bJCACHE_[A-Z]+\b", text)) <= settings, document


@each_document
def test_nothing_names_one_machine(document: Path) -> None:
    assert MACHINES.findall(document.read_text()) == []
