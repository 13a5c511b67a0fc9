"""Activation: what start-up costs, what wrong settings do, how plug-ins are found, and that all of it can be undone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from activation import Site

READ = "import faraway; faraway.read(1000)"


def imported(err: str) -> set[str]:
    return {line.rsplit("|", 1)[1].strip() for line in err.splitlines() if line.startswith("import time:")}


def test_unset_loads_nothing_of_ours(site: Site) -> None:
    for value in (None, ""):
        run = site.run("-X", "importtime", "-c", "pass", JCACHE_DIR=value)
        assert run.code == 0
        assert "sitecustomize" in imported(run.err)  # the .pth file was read
        assert not [
            name for name in imported(run.err) if "jcache" in name or name in ("wrapt", "fsspec", "rich", "asyncio")
        ]


def test_set_costs_only_its_own_small_modules(site: Site) -> None:
    plain = imported(site.run("-X", "importtime", "-c", "pass", JCACHE_DIR=None).err)
    armed = imported(site.run("-X", "importtime", "-c", "pass").err)
    assert armed - plain == {
        "jcache",
        "jcache.activate",
        "jcache.activate.exits",
        "jcache.activate.job",
        "jcache.activate.notice",
        "jcache.activate.past",
        "jcache.activate.plugins",
        "jcache.moved",
        "jcache.settings",
        "jcache.settings.several",
        "jcache.system",
        "jcache.system.processes",
        "jcache.system.stopwatch",
        "atexit",
    }


def test_silent_and_traceless_without_remote_reads(site: Site) -> None:
    for code in ("pass", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))'])"):
        run = site.run("-c", code)
        assert (run.code, run.out, run.err) == (0, "", "")
    assert not site.cache.exists()


def test_trigger_without_reads_is_silent(site: Site) -> None:
    run = site.run("-c", "import faraway")
    assert (run.code, run.err, run.reports) == (0, "", [])


def test_a_read_makes_one_report_and_one_panel(site: Site) -> None:
    run = site.run(site.script(READ))
    assert run.code == 0
    assert run.panels == 1
    (report,) = run.reports
    assert report["read"]["bytes"] == 1000
    assert report["appname"] == "job"
    assert report["complete"] is True
    assert site.cache.joinpath(".reports").stat().st_mode & 0o777 == 0o700
    assert not site.cache.joinpath(".reports", ".runs").exists(), "nobody else prints"


@pytest.mark.parametrize("how", ["script", "module", "package", "code"])
def test_appname_is_what_the_user_called(site: Site, how: str) -> None:
    site.write("tool/__init__.py", "")
    site.write("tool/__main__.py", READ)
    args, name = {
        "script": ([site.script(READ, "fill_histograms.py"), "--fast"], "fill_histograms"),
        "module": (["-W", "ignore", "-Bm", "tool", "x.py"], "tool"),
        "package": ([str(site.path / "tool")], "tool"),
        "code": (["-c", READ], "python"),
    }[how]
    run = site.run(*args)
    assert [report["appname"] for report in run.reports] == [name]


def test_settings_of_the_report(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "json"
    run = site.run("-c", READ, JCACHE_SUMMARY="0", JCACHE_JSON=str(other), JCACHE_APPNAME="mine")
    assert (run.code, run.err, run.reports) == (0, "", [])
    (path,) = other.glob("*.json")
    assert path.name.startswith("jcache.mine.")


def test_relative_paths_are_those_of_the_start(site: Site, tmp_path: Path) -> None:
    code = f"import os; os.chdir({str(tmp_path)!r}); {READ}"
    site.run("-c", code, JCACHE_DIR="here", JCACHE_JSON="there")
    assert len(list(site.path.glob("there/*.json"))) == 1
    assert not tmp_path.joinpath("here").exists()


def test_noapp_measures_and_bypasses(site: Site) -> None:
    code = "import faraway, jcache.session as s; faraway.read(5); print(s.current().bypassed)"
    assert "JCACHE_NOAPP" in site.run(site.script(code), JCACHE_NOAPP="job,other").out
    assert "None" in site.run(site.script(code), JCACHE_NOAPP="jo").out
    assert all(report["read"]["bytes"] == 5 for report in site.reports())


def test_reports_that_cannot_be_saved_are_one_line(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    run = site.run("-c", READ, JCACHE_JSON=str(file))
    assert run.code == 0
    assert run.err.startswith(f"jcache: no JSON report in {file}: ")
    assert run.err.count("jcache: ") == 1
    assert run.panels == 1


def test_wrong_setting_is_one_line_in_all_processes_of_a_job(site: Site) -> None:
    child = f"subprocess.run([sys.executable, '-c', {READ!r}])"
    code = f"import faraway, subprocess, sys; faraway.read(1); {child}; print('done')"
    run = site.run("-c", code, JCACHE_VALIDATE="sometimes")
    assert (run.code, run.out, run.reports) == (0, "done\n", [])
    (line,) = run.err.splitlines()
    assert line.startswith("jcache: not caching: ")
    assert "JCACHE_VALIDATE" in line


def test_a_broken_installation_is_one_line(site: Site) -> None:
    site.write("jcache/__init__.py", "raise RuntimeError('torn\\nfile')")
    run = site.run("-c", "print('fine')")
    assert (run.code, run.out) == (0, "fine\n")
    assert set(run.err.splitlines()) == {"jcache: not active: RuntimeError: torn file"}


def test_a_failing_plugin_is_one_line_and_the_import_works(site: Site) -> None:
    site.write("faraway_hook.py", "def install():\n raise LookupError('no such method')")
    run = site.run("-c", "import faraway; print(faraway.read(7))")
    assert (run.code, run.out) == (0, "7\n")
    (line,) = run.err.splitlines()
    assert "faraway_hook:install failed" in line
    assert "no such method" in line


def test_dotted_trigger_and_dotted_callable(site: Site) -> None:
    site.write("faraway/__init__.py", "from faraway.deep import x")
    site.write("faraway/deep.py", "x = 1")
    site.path.joinpath("faraway.py").unlink()
    site.write("faraway_hook.py", "def install(): print('hook')")
    site.write("faraway_deep.py", "class hooks:\n install = staticmethod(lambda: print('deep'))")
    run = site.run("-c", "import faraway; import faraway.deep; print('end')")
    assert (run.out, run.err) == ("deep\nhook\nend\n", "")


def test_plugins_on_paths_that_come_later(site: Site, tmp_path: Path) -> None:
    late = tmp_path / "late"
    late.joinpath("late-1.dist-info").mkdir(parents=True)
    late.joinpath("late-1.dist-info", "entry_points.txt").write_text(
        "[jcache.plugins]\nfaraway=late_hook:install\nsooner=late_hook:install\n"
    )
    late.joinpath("late_hook.py").write_text("def install(): print('late hook')")
    late.joinpath("later.py").write_text("")
    code = f"import faraway, sys; sys.path.append({str(late)!r}); import later; print('end')"
    run = site.run("-c", code)
    assert (run.out, run.err) == ("late hook\nend\n", "")


def test_missing_trigger_raises_as_ever(site: Site) -> None:
    site.path.joinpath("faraway.py").unlink()
    run = site.run("-c", "try:\n import faraway\nexcept ModuleNotFoundError as error: print(error.name)")
    assert (run.out, run.err) == ("faraway\n", "")


def test_activate_and_deactivate_in_a_program(site: Site) -> None:
    code = """
import os, signal, sys, jcache
before = os._exit, os.execv, os.execve, signal.getsignal(signal.SIGTERM), list(sys.meta_path)
import faraway
plain = faraway.read
from jcache.activate import activate, deactivate
from jcache.settings.config import Config
import jcache.session
s = activate(Config.from_environ({"JCACHE_DIR": os.environ["WHERE"]}))
assert s is activate() is jcache.session.current()
assert faraway.read is not plain and os._exit is not before[0]
faraway.read(10)
deactivate()
assert faraway.read is plain
assert jcache.session.current() is None
finders = [finder for finder in sys.meta_path if "wrapt" not in repr(finder)]
after = os._exit, os.execv, os.execve, signal.getsignal(signal.SIGTERM), finders
assert after == before, (before, after)
deactivate()
activate(Config.from_environ({"JCACHE_DIR": os.environ["WHERE"]}))
faraway.read(20)
"""
    run = site.run("-c", code, JCACHE_DIR=None, WHERE=str(site.cache))
    assert run.code == 0, run.err
    assert sorted(report["read"]["bytes"] for report in run.reports) == [10, 20]
    assert run.panels == 2


def test_what_is_started_after_deactivation_is_a_job_of_its_own(site: Site) -> None:
    child = "import faraway; faraway.read(5)"
    code = f"""
import faraway, subprocess, sys
from jcache.activate import activate, deactivate
faraway.read(10)
deactivate()
subprocess.run([sys.executable, "-c", {child!r}], check=True)
activate()
faraway.read(20)
subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
    run = site.run("-c", code)
    assert run.code == 0, run.err
    jobs: dict[str, list[int]] = {}
    for report in run.reports:
        jobs.setdefault(report["run"], []).append(report["read"]["bytes"])
    assert sorted(sorted(sizes) for sizes in jobs.values()) == [[5], [5, 20], [10]]
    assert run.panels == 3


def test_a_process_that_leaves_a_job_takes_nobody_out_of_it(site: Site) -> None:
    child = f"from jcache.activate import deactivate; {READ}; deactivate()"
    code = f"""
import faraway, subprocess, sys
faraway.read(10)
subprocess.run([sys.executable, "-c", {child!r}], check=True)
subprocess.run([sys.executable, "-c", {READ!r}], check=True)
"""
    run = site.run("-c", code)
    assert run.code == 0, run.err
    assert len({report["run"] for report in run.reports}) == 1
    assert (len(run.reports), run.panels) == (3, 1)


def test_activate_takes_over_from_a_session_without_a_directory(site: Site) -> None:
    code = """
import faraway, os
from jcache.activate import activate, ensure
from jcache.settings.config import Config
plain = faraway.read
first = ensure()
import colorsys, wsgiref.util
import late
assert faraway.read is plain, "only what is told to cache does"
first.counters.read(3, 3, 0, 0)
second = activate(Config.from_environ({"JCACHE_DIR": os.environ["WHERE"]}))
assert ensure() is second is activate() is not first
assert faraway.read is not plain
faraway.read(10)
"""
    site.write("late.py", "")
    run = site.run("-c", code, JCACHE_DIR=None, WHERE=str(site.cache))
    assert run.code == 0, run.err
    assert [report["read"]["bytes"] for report in run.reports] == [10]
    assert run.panels == 1


def test_ensure_without_a_cache_directory_leaves_no_report(site: Site) -> None:
    code = """
import faraway, os, pathlib
from jcache.activate import ensure
s = ensure()
assert s is ensure() and s.config.dir is None
close = s.close
s.close = lambda **options: (close(**options), pathlib.Path("closed").touch())
s.counters.read(10, 10, 0, 0)
os._exit(0)
"""
    run = site.run("-c", code, JCACHE_DIR=None)
    assert (run.code, run.err, run.reports) == (0, "", [])
    assert site.path.joinpath("closed").exists()


def test_activate_says_what_is_wrong(site: Site) -> None:
    code = (
        "from jcache.activate import activate\ntry: activate()\nexcept Exception as error: print(type(error).__name__)"
    )
    assert site.run("-c", code, JCACHE_VALIDATE="sometimes").out == "ConfigError\n"
    assert site.run("-c", code, JCACHE_DIR=None).out == "ConfigError\n"


def test_isolated_mode_reads_the_environment_too(site: Site) -> None:
    code = f"import site; site.addsitedir({str(site.path)!r}); import sys; sys.path += {sys.path!r}; {READ}"
    run = site.run("-I", "-c", code)
    assert run.panels == len(run.reports) == 1, run.err
