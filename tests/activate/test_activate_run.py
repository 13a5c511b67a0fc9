"""`jcache run`: settings, exit codes, signals and the one report of all processes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from activation import Ended, Site

RUN = ("-c", "from jcache.cli.run import run; run()")
READ = "import faraway; faraway.read(10)"


def jcache_run(site: Site, *args: str, **variables: str | None) -> Ended:
    return site.run(*RUN, *args, **variables)


def test_one_report_of_all_processes(site: Site) -> None:
    program = site.script(READ)
    python = shlex.quote(sys.executable)
    shell = f"{python} {program} & {python} {program}; {python} -c 'import os; os.system(\"{python} {program}\")'; wait"
    run = jcache_run(site, "--dir", str(site.cache), "--", "sh", "-c", shell, JCACHE_DIR=None)
    assert run.code == 0, run.err
    assert run.panels == 1
    assert "3 processes" in run.err
    assert "total bytes read          :              30" in run.err
    assert len(run.reports) == 3
    assert not list(site.cache.joinpath(".reports", ".runs").iterdir())


@pytest.mark.parametrize(
    ("command", "variables", "name"),
    [
        (["sh", "-c", "{python} {program}"], {}, "sh"),
        (["{python}", "-B", "{program}"], {}, "fill"),
        (["{python}", "{program}"], {"JCACHE_APPNAME": "mine"}, "mine"),
    ],
)
def test_the_report_is_called_what_the_user_called(
    site: Site, command: list[str], variables: dict[str, str], name: str
) -> None:
    program = site.script(READ, "fill.py")
    words = [word.format(python=sys.executable, program=program) for word in command]
    assert f"{name} on " in jcache_run(site, "--", *words, **variables).err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 77"], 77),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/nowhere/at/all"], 127),
        (["/"], 126),
    ],
)
def test_exit_code_is_the_commands(site: Site, command: list[str], code: int) -> None:
    run = jcache_run(site, "--no-summary", "--", *command)
    assert run.code == code
    assert run.err.count("\n") == (code in (126, 127))


def test_no_directory_is_an_error(site: Site) -> None:
    run = jcache_run(site, "--", "true", JCACHE_DIR=None)
    assert run.code == 2
    assert "--dir" in run.err
    assert "JCACHE_DIR" in run.err


def test_wrong_setting_is_an_error(site: Site) -> None:
    run = jcache_run(site, "--validate", "sometimes", "--", "echo", "ran")
    assert (run.code, run.out) == (2, "")
    assert "JCACHE_VALIDATE" in run.err


def test_options_reach_the_command(site: Site, tmp_path: Path) -> None:
    show = "import os; print(*sorted(f'{k}={v}' for k, v in os.environ.items() if k.startswith('JCACHE_')))"
    args = ["--dir", "x", "--validate", "never", "--offline", "--bypass", "--no-summary", "--json", "y"]
    run = jcache_run(
        site, *args, "--", sys.executable, "-c", show, "--dir", "not ours", JCACHE_DIR="z", JCACHE_SUMMARY="1"
    )
    assert run.out.split() == [
        "JCACHE_BYPASS=1",
        f"JCACHE_DIR={site.path / 'x'}",
        f"JCACHE_JSON={site.path / 'y'}",
        "JCACHE_OFFLINE=1",
        "JCACHE_SUMMARY=0",
        "JCACHE_VALIDATE=never",
    ]
    assert run.err == ""


def test_no_report_is_explained(site: Site) -> None:
    run = jcache_run(site, "true")
    assert run.code == 0
    assert run.err.count("\n") == 1
    assert "is JCache installed in the Python" in run.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(site: Site, number: signal.Signals) -> None:
    # Not one long sleep: a signal between Python's look for one and the call that sleeps is seen when that is over.
    program = site.script(f"{READ}\nimport time\nprint('up', flush=True)\nwhile True:\n    time.sleep(0.1)\n")
    # At a terminal the command would be sent interrupts by that.
    process = site.start(*RUN, "--", sys.executable, program, has_terminal=False)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    run = site.end(process)
    assert run.code == 128 + number
    assert run.panels == 1
    assert len(run.reports) == 1


def test_reports_that_cannot_be_written_are_the_reason_that_is_given(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    run = jcache_run(site, "--dir", str(tmp_path / "plain"), "--", sys.executable, site.script(READ))
    assert run.code == 0
    assert f"no report: {tmp_path / 'plain' / '.reports'} cannot be written to; --json REPORTS" in run.err
    assert "is JCache installed" not in run.err


def test_reports_in_a_directory_of_ones_own_stay(site: Site, tmp_path: Path) -> None:
    program = site.script(READ)
    old = "jcache.job.h.1.1000000000.000.json"
    for place in (site.cache / ".reports", tmp_path / "archive"):
        place.mkdir(parents=True)
        (place / old).write_text("{}")
        os.utime(place / old, (1e9, 1e9))
    assert site.run(program, JCACHE_JSON=str(tmp_path / "archive")).code == 0
    assert jcache_run(site, "--json", str(tmp_path / "archive"), "--", sys.executable, program).code == 0
    assert (tmp_path / "archive" / old).exists()
    assert (site.cache / ".reports" / old).exists()
    assert site.run(program).code == 0
    assert not (site.cache / ".reports" / old).exists()


def test_help_documents_exit_codes(site: Site) -> None:
    run = jcache_run(site, "--help")
    assert "Exit codes:" in run.out
    assert all(f" {code} " in run.out for code in (2, 126, 127))
