"""Run an upstream suite without JCache and with it, cold and warm, and say where the outcomes differ."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from outcomes import FILE
from suites import Suite

__all__ = ["Comparison", "Run", "compare", "missing", "run"]

HERE = Path(__file__).parent
MODES = ("plain", "cold", "warm")
# XRootD's client tries hosts that cannot be reached for minutes.
UNREACHABLE_SOON = {"XRD_CONNECTIONWINDOW": "2", "XRD_CONNECTIONRETRY": "1", "XRD_STREAMERRORWINDOW": "2"}


@dataclass(slots=True)
class Run:
    """One run of a suite.

    Attributes:
        outcomes: By test.
        texts: What the failing ones said.
        seconds: The time that the passing ones took, each.
        wall_s: How long the whole took.
        said: Lines on stderr that JCache wrote.
        end: How the run ended: pytest's exit code, or "killed" after the time limit.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    said: list[str] = field(default_factory=list)
    end: int | str = 0

    @property
    def passed(self) -> set[str]:
        """The tests that passed."""
        return {test for test, outcome in self.outcomes.items() if outcome == "passed"}


@dataclass(slots=True)
class Comparison:
    """A suite's runs, without JCache twice at most, and with it."""

    suite: Suite
    runs: dict[str, Run]

    def lost(self, mode: str) -> dict[str, str]:
        """Return what passes without JCache and not with it, and how it ended there."""
        run = self.runs[mode]
        return {
            test: run.outcomes.get(test, f"not reached ({run.end})")
            for test in sorted(self.runs["plain"].passed)
            if run.outcomes.get(test) != "passed"
        }

    def slower(self, mode: str) -> float:
        """Return how much longer what passes in both takes with JCache, as a ratio."""
        plain, other = self.runs["plain"], self.runs[mode]
        both = plain.passed & other.passed
        whole = sum(plain.seconds[test] for test in both)
        return sum(other.seconds[test] for test in both) / whole if whole else 1.0


def missing(suite: Suite) -> str | None:
    """Return why a suite cannot run here; None where it can."""
    try:
        version(suite.distribution)
    except PackageNotFoundError:
        return f"{suite.distribution} is not installed"
    if suite.source:
        try:
            source(suite)
        except subprocess.CalledProcessError as error:
            return f"the source distribution of {suite.distribution} cannot be had: {error.stderr.strip()[-200:]}"
    return None


def source(suite: Suite) -> Path:
    """Return the unpacked source distribution of the installed version, kept beside the environment."""
    wanted = version(suite.distribution)
    kept = Path(sys.prefix) / "upstream" / f"{suite.distribution}-{wanted}"
    if not kept.is_dir():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command += ["--dest", directory, f"{suite.distribution}=={wanted}"]
            subprocess.run(command, check=True, capture_output=True, text=True)
            (archive,) = Path(directory).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(directory, filter="data")
            (unpacked,) = (path for path in Path(directory).iterdir() if path.is_dir())
            unpacked.rename(kept)
    return kept


def compare(suite: Suite, *, quick: bool, modes: tuple[str, ...] = MODES) -> Comparison:
    """Run a suite in each mode, one cache directory for cold and warm."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        cache = Path(directory) / "cache"
        runs = {mode: run(suite, cache=None if mode == "plain" else cache, quick=quick) for mode in modes}
    return Comparison(suite, runs)


def run(suite: Suite, *, cache: Path | None, quick: bool) -> Run:
    """Run a suite once, in a fresh copy of its tests and a fresh process."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        noted = Path(directory) / "outcomes"
        noted.touch()
        if suite.source:
            top = Path(directory) / "source"
            shutil.copytree(source(suite), top)
        else:
            top = Path(sysconfig.get_path("purelib"))
        # Compiled files are written: pytest else rewrites all modules of all plug-ins, in each run, for seconds.
        unwanted = ("JCACHE", "_JCACHE", "PYTEST", "PYTHONDONTWRITEBYTECODE")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        environ |= {FILE: str(noted), "PYTHONPATH": str(HERE), "TMPDIR": directory}
        environ |= {"PATH": f"{HERE / 'bin'}:{environ['PATH']}", **UNREACHABLE_SOON}
        if cache is not None:
            environ |= {"JCACHE_DIR": str(cache), "JCACHE_SUMMARY": "0"}
        more = suite.quick if quick and suite.quick is not None else ()
        command = [sys.executable, str(HERE / "isolated.py"), sys.executable]
        command += ["-m", "pytest", "-q", "-p", "outcomes", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += [
            "-o",
            "addopts=",
            "-o",
            "filterwarnings=",
            "-o",
            "faulthandler_timeout=120",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
            f"--basetemp={directory}/pytest",
            "--maxfail=1000000",
        ]
        started_s = time.monotonic()
        result = Run()
        with open(Path(directory) / "stderr", "w+", encoding="utf-8", errors="replace") as stderr:
            try:
                done = subprocess.run(
                    [*command, *suite.arguments, *more],
                    cwd=top,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=subprocess.STDOUT,
                    timeout=suite.timeout_s,
                    check=False,
                    umask=0,
                )
                result.end = done.returncode
            except subprocess.TimeoutExpired:
                result.end = "killed"
            result.wall_s = time.monotonic() - started_s
            stderr.seek(0)
            text = stderr.read()
        result.said = [line for line in text.splitlines() if line.startswith("jcache: ")]
        if os.environ.get("CONFORMANCE_KEEP"):
            mode = "plain" if cache is None else "jcache"
            Path(os.environ["CONFORMANCE_KEEP"], f"{suite.name}.{mode}.{time.time():.0f}.txt").write_text(text)
        for line in noted.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            # Some name the directory that they run in, which is another one each time.
            test, outcome = entry["test"].replace(directory, "..."), entry["outcome"]
            if outcome == "started":
                result.outcomes.setdefault(test, "never ended")
            elif result.outcomes.get(test) in (None, "never ended", "passed"):
                result.outcomes[test] = outcome
                result.seconds[test] = entry["s"]
                result.texts[test] = entry["text"]
    return result
