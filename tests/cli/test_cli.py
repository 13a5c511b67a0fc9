"""The command line: quick help, commands that fail alone, and `jcache report`."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from report_samples import ttbar_report

import jcache
from jcache.cache.directory import Cache
from jcache.cli import group, main
from jcache.journal import Version
from jcache.report.faces.text import render
from jcache.report.merge import merge
from jcache.report.model import Report


@pytest.fixture
def call(monkeypatch):
    for name in ("JCACHE_DIR", "JCACHE_JSON"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, **environ):
        return CliRunner().invoke(main, [str(a) for a in arguments], env=environ, prog_name="jcache")

    return run


@pytest.fixture
def reports(tmp_path):
    """Two jobs: an old one of three processes on two hosts, and a newer one of two."""
    directory = tmp_path / "reports"
    paths = {}
    for number, (run, pid, host) in enumerate(
        [("old", 1, "a"), ("old", 2, "a"), ("old", 1, "b"), ("new", 5, "a"), ("new", 6, "a")]
    ):
        report = ttbar_report(seed=number, events=50, real_s=5.0, run=run, pid=pid, host=host)
        path = report.save(directory)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        paths[run, pid, host] = path
    return directory, paths


def text_of(report: Report, note: str = "") -> str:
    file = io.StringIO()
    render(report, file, note=note)
    return file.getvalue()


def test_help_names_every_command_and_imports_none(call):
    result = call("--help")
    assert result.exit_code == 0
    for name, (_, line) in group.COMMANDS.items():
        assert f"  {name} " in result.output
        assert line in result.output
    script = (
        "import sys; from jcache.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in sys.modules if m.startswith('jcache.cli.') or m in ('rich', 'asyncio', 'fsspec')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['jcache.cli.errors', 'jcache.cli.group']"


def test_version(call):
    assert call("--version").output == f"jcache {jcache.__version__}\n"


def test_a_command_that_is_not_there_fails_alone(call, monkeypatch):
    monkeypatch.setitem(group.COMMANDS, "ghost", ("jcache.cli.ghost:ghost", "Not there."))
    assert call("--help").exit_code == 0
    assert call("report", "--help").exit_code == 0
    result = call("ghost")
    assert result.exit_code == 1
    assert result.stderr == "jcache: this installation has no command 'ghost'\n"
    assert call("nonsense").exit_code == 2


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["reprot"], "jcache: no such command 'reprot'; did you mean 'report'?\n"),
        (["verfy", "--repair"], "jcache: no such command 'verfy'; did you mean 'verify'?\n"),
        (["xyzzy"], "jcache: no such command 'xyzzy'; 'jcache --help' lists them\n"),
        (["report", "--jsn"], "--json"),
        (["run", "--dri", "x", "--", "true"], "--dir"),
        (["--verzion"], "--version"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_near_one(call, words, answer):
    result = call(*words)
    assert result.exit_code == 2
    assert result.stderr.endswith(answer) if answer.endswith("\n") else answer in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", list(group.COMMANDS))
def test_every_command_takes_the_directory_as_an_option(call, name):
    assert "--dir DIR " in call(name, "--help").output


@pytest.mark.parametrize(
    ("words", "as_argument"),
    [
        (["ls"], True),
        (["top", "--json"], True),
        (["clean", "--dry-run", "--all"], True),
        (["verify", "--json"], True),
        (["report", "--json"], True),
        (["doctor", "--json"], True),
        (["info", "https://host.cern.ch/data/b.root", "--json"], False),
        (["verify", "https://host.cern.ch/data/b.root", "--json"], False),
        (["pin", "--list"], False),
        (["compact", "--all", "--json"], False),
        (["config"], False),
    ],
)
def test_the_directory_is_the_same_however_it_is_given(call, cached, tmp_path, words, as_argument):
    def said(*arguments, **environ):
        result = call(*words, *arguments, **environ)
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stdout.splitlines() if '_s":' not in line and "seconds" not in line]
        return [line.replace("JCACHE_DIR", "--dir") for line in lines if words[0] != "doctor" or "finding" not in line]

    other = {"JCACHE_DIR": str(tmp_path / "other"), "JCACHE_JSON": str(tmp_path / "other")}
    expected = said(JCACHE_DIR=str(cached))
    assert said("--dir", str(cached)) == expected
    assert said("--dir", str(cached), JCACHE_DIR=other["JCACHE_DIR"]) == expected
    if words[0] in ("report", "top"):  # where reports are by default is not where those of that cache are
        assert said("--dir", str(cached), **other) == expected
    if as_argument:
        assert said(str(cached), JCACHE_DIR=other["JCACHE_DIR"]) == expected
        both = call(*words, str(cached), "--dir", tmp_path)
        assert (both.exit_code, words[0] == "ls" or both.stderr.startswith("jcache: which ")) == (2, True)


def test_ls_takes_a_directory_for_what_it_is(call, cached, tmp_path, monkeypatch):
    everything = call("ls", "--dir", cached).stdout
    monkeypatch.chdir(cached)
    below = next(path for path in (cached / "https").iterdir() if path.is_dir())
    for where in (".", str(cached) + "/", "https", below):
        assert call("ls", where).stdout == everything
    assert call("ls", where, "--dir", cached).stdout == ""  # a pattern then, which matches nothing
    strange = call("ls", tmp_path)
    assert (strange.exit_code, "is not a cache directory" in strange.stderr) == (2, True)


def test_a_command_whose_package_is_missing_says_which(call, monkeypatch, tmp_path):
    (tmp_path / "needy_command.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(group.COMMANDS, "needy", ("needy_command:needy", "Needs more."))
    result = call("needy")
    assert result.exit_code == 1
    assert "'a_package_that_nobody_has'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_command_that_is_there_is_a_command(call):
    for name in group.COMMANDS:
        result = call(name, "--help")
        if "has no command" not in result.output:
            assert result.exit_code == 0, result.output
            assert isinstance(main.get_command(click.Context(main), name), click.Command)


def test_one_report_is_printed_as_it_was(call, reports):
    _, paths = reports
    path = paths["new", 5, "a"]
    result = call("report", path)
    assert result.exit_code == 0
    assert result.stdout == text_of(Report.load(path))
    assert call("report", path, path).stdout == result.stdout


def test_last_is_the_newest_job_with_all_its_processes(call, reports):
    directory, paths = reports
    job = merge([Report.load(path) for key, path in paths.items() if key[0] == "new"])
    for arguments, environ in (
        (["--last"], {"JCACHE_JSON": str(directory)}),
        ([], {"JCACHE_JSON": str(directory), "JCACHE_DIR": "/nonexistent"}),
    ):
        result = call("report", *arguments, **environ)
        assert result.exit_code == 0
        assert result.stdout == text_of(job, "sum of 2 processes")
    for path in paths.values():
        os.utime(path, (1_800_000_000, 1_800_000_000) if "old" in Report.load(path).run else None)
    result = call("report", "--last", "--json", JCACHE_JSON=str(directory))
    assert json.loads(result.stdout)["run"] == "old"


def test_last_looks_below_the_cache_directory(call, tmp_path):
    report = ttbar_report(events=20)
    report.save(tmp_path / ".reports")
    assert call("report", JCACHE_DIR=str(tmp_path)).stdout == text_of(report)


def test_a_directory_is_merged_and_json_is_the_same_report(call, reports):
    directory, paths = reports
    total = merge([Report.load(path) for path in paths.values()])
    assert call("report", directory).stdout == text_of(total, "sum of 5 processes on 2 hosts")
    result = call("report", directory, "--json")
    assert Report.loads(result.stdout) == total
    assert call("report", "--json", *paths.values(), directory).stdout == result.stdout


def test_unreadable_reports_are_named_and_the_rest_is_printed(call, reports):
    directory, _ = reports
    torn = directory / "jcache.torn.a.1.1.json"
    torn.write_text(ttbar_report(run="new").dumps()[:700])
    (directory / ".jcache.x.json.1234.tmp").write_text("being written")
    result = call("report", directory)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"jcache: cannot read {torn}: not JSON")
    assert result.stderr.count("\n") == 1
    assert "sum of 5 processes" in result.stdout
    os.utime(torn, (1_600_000_000, 1_600_000_000))
    result = call("report", "--last", JCACHE_JSON=str(directory))
    assert (result.exit_code, str(torn) in result.stderr) == (1, True)  # a report of that very job
    assert "sum of 2 processes" in result.stdout
    result = call("report", torn)
    assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["/no/such/file.json"], {}, "no such file or directory: /no/such/file.json"),
        ([], {}, "JCACHE_DIR"),
        (["--last"], {"JCACHE_DIR": "/no/such/dir"}, "/no/such/dir/.reports"),
        (["--last", "EMPTY"], {}, "no reports (jcache.*.json) in"),
        (["EMPTY"], {}, "no reports (jcache.*.json) in"),
        (["--last"], {"JCACHE_JSON": "EMPTY"}, "no reports (jcache.*.json) in"),
    ],
)
def test_wrong_paths_are_one_clear_line(call, tmp_path, arguments, environ, words):
    def place(text):
        return str(tmp_path) if text == "EMPTY" else text

    result = call("report", *map(place, arguments), **{key: place(value) for key, value in environ.items()})
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("jcache: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_thousand_reports_are_merged_in_seconds(call, tmp_path):
    one = ttbar_report(events=200)
    for pid in range(1000):
        replace(one, pid=pid).save(tmp_path)
    begin = time.perf_counter()
    result = call("report", tmp_path, "--json")
    assert time.perf_counter() - begin < 15  # measured: 0.7 s
    assert Report.loads(result.stdout).read.bytes == 1000 * one.read.bytes


def test_the_installed_command_runs(reports):
    directory, _ = reports
    script = "import sys; from jcache.cli import main; sys.exit(main(prog_name='jcache'))"
    done = subprocess.run(
        [sys.executable, "-c", script, "report", str(directory)], capture_output=True, text=True, check=True
    )
    assert "cache combined hit rate" in done.stdout
    assert done.stderr == ""


def test_the_package_is_the_command():
    command = [sys.executable, "-X", "importtime", "-m", "jcache", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"jcache {jcache.__version__}\n"
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert loaded.isdisjoint({"rich", "asyncio", "fsspec", "jcache.session", "jcache.report"})


@pytest.fixture
def cached(tmp_path):
    """A cache directory with bytes of two files, one of them in two states."""
    directory = tmp_path / "cache"
    cache = Cache(directory)
    cache.prepare()
    for name, versions in (("a.root", 1), ("b.root", 2)):
        journal = cache.journal(cache.identify("https", f"https://host.cern.ch/data/{name}", {}))
        journal.attach()
        for number in range(versions):
            version = Version(size_bytes=1000, etag=f'"{number}"')
            journal.append(version, {}, [(0, b"x" * 100), (500, b"y" * 25)])
            journal.seal()
        journal.close()
    ttbar_report(events=5).save(directory / ".reports")
    (directory / "stranger.txt").write_text("not ours")
    return directory


def test_ls_lists_what_is_cached(call, cached):
    result = call("ls", JCACHE_DIR=str(cached))
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.split()[:3] == second.split()[:3] == ["125", "12.50", "%"]
    assert "host.cern.ch" in first
    assert first.endswith("a.root")
    lines = call("ls", "--dir", cached, "--json", "*b.root").stdout.splitlines()
    entry = json.loads(lines[0])
    assert (len(lines), entry["segments"], len(entry["versions"])) == (1, 2, 2)


def test_info_tells_of_one_file(call, cached):
    url = "https://host.cern.ch/data/b.root"
    result = call("info", url, "--dir", cached)
    assert result.exit_code == 0
    assert "125 of 1000 bytes, 12.50 %" in result.stdout
    assert "superseded" in result.stdout
    entry = json.loads(call("info", url, "--json", JCACHE_DIR=str(cached)).stdout)
    assert entry["versions"][0]["cached_bytes"] == 125
    assert json.loads(call("info", entry["name"], "--json", "--dir", cached).stdout) == entry


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "https://host.cern.ch/data/c.root", "--dir", "CACHE"], 1, "holds nothing of https://host"),
        (["info", "a.root", "--dir", "CACHE"], 2, "neither a URL nor a name"),
        (["info", "https://host/x", "--dir", "/no/such"], 2, "no such directory: /no/such"),
        (["ls", "--dir", "/no/such"], 2, "no such directory: /no/such"),
        (["ls"], 2, "JCACHE_DIR"),
    ],
)
def test_ls_and_info_fail_in_one_line(call, cached, arguments, code, words):
    result = call(*(str(cached) if argument == "CACHE" else argument for argument in arguments))
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
