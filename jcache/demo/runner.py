"""Run the demonstration: the same analysis in fresh processes, without JCache and with it, and what each run cost."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jcache.demo.gateway import CLIENTS, ClientRead, read_by, warm_whole
from jcache.demo.http_server import HttpServer
from jcache.demo.wire import Wire
from jcache.demo.xrootd_server import XrootdServer, XrootdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_JOB = Path(__file__).with_name("job.py")
_JOB_TIMEOUT_S = 60
# The XRootD client would otherwise try a stopped server for minutes.
_XROOTD_CLIENT = {"XRD_CONNECTIONWINDOW": "3", "XRD_CONNECTIONRETRY": "1", "XRD_REQUESTTIMEOUT": "20"}
_NEEDED = ("uproot", "awkward", "aiohttp")


class DemoError(RuntimeError):
    """The demonstration cannot run here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        events: Events in each file.
        files: Number of files.
        formats: How ROOT stores them; ``both`` makes the last one an RNTuple.
        origin: ``auto`` takes XRootD where it can be had.
        rtt_ms: Round trip to the origin in milliseconds, by a wire in front of it; 0 for the loopback interface's own.
        keep: Directory for data set, cache and reports; None for a temporary one.
    """

    events: int = 15_000
    files: int = 4
    formats: Literal["ttree", "rntuple", "both"] = "both"
    origin: Literal["auto", "xrootd", "http"] = "auto"
    rtt_ms: float = 20.0
    keep: Path | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the analysis.

    Attributes:
        seconds: Time of the analysis itself, from the first open to the last histogram; None when it failed.
        origin_bytes: Data bytes that the origin counted during the run.
        disk_bytes: Bytes in the cache directory after the run, without reports; None without a cache.
        hit_rate: Requested bytes that came from the journal, over all; None where nothing was counted.
        equal: Whether histograms and columns equal those of the run without JCache; None for that run itself.
        report: JCache's JSON report, where there was one.
        stderr: What the process wrote there, which is where JCache prints its report.
        problem: Why the run counts as failed, or "".
    """

    name: str
    seconds: float | None = None
    origin_bytes: int = 0
    disk_bytes: int | None = None
    hit_rate: float | None = None
    equal: bool | None = None
    report: dict[str, Any] | None = None
    stderr: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demonstration found."""

    origin: str
    counted: str
    note: str
    dataset_bytes: int
    runs: tuple[Run, ...]
    clients: tuple[ClientRead, ...] = ()

    @property
    def warm(self) -> Run:
        """The warm run, whose report is shown."""
        return next(run for run in self.runs if run.name == "warm")

    @property
    def problems(self) -> list[str]:
        """Everything that went wrong, one line each; empty when the demonstration succeeded."""
        found = [f"{run.name}: {run.problem}" for run in self.runs if run.problem]
        found += [f"{run.name}: results differ from those without JCache" for run in self.runs if run.equal is False]
        if self.warm.origin_bytes:
            found.append(f"warm: {self.warm.origin_bytes} bytes came from the origin")
        return found + [
            f"{read.client}: {read.nbytes} bytes through the gateway, which are not those of {read.name}"
            for read in self.clients
            if not read.equal
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome for a program to read."""
        runs = [
            {
                "run": run.name,
                "seconds": run.seconds,
                "origin_bytes": run.origin_bytes,
                "disk_bytes": run.disk_bytes,
                "hit_rate": run.hit_rate,
                "equal": run.equal,
                "problem": run.problem or None,
                "report": run.report,
            }
            for run in self.runs
        ]
        return {
            "ok": not self.problems,
            "origin": self.origin,
            "counted_by": self.counted,
            "dataset_bytes": self.dataset_bytes,
            "runs": runs,
            **dict.fromkeys(CLIENTS),
            **{read.client: read.to_json() for read in self.clients},
            "problems": self.problems,
        }


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    cached: bool
    more: bool = False
    stopped: bool = False


# The origin stops before the last run and is not needed again.
_PLANS = (
    _Plan("no cache", cached=False),
    _Plan("cold", cached=True),
    _Plan("warm", cached=True),
    _Plan("no cache, more columns", cached=False, more=True),
    _Plan("warm, more columns", cached=True, more=True),
    _Plan("warm, origin stopped", cached=True, stopped=True),
)


def run(options: Options, progress: Callable[[str, int, int], None]) -> Outcome:
    """Run the demonstration.

    Args:
        options: What to run.
        progress: Called with what is being done, how many steps of it are done, and of how many.

    Raises:
        DemoError: A package is missing, or the origin that was asked for cannot be had.
        OSError: The working directory cannot be written.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo needs {', '.join(missing)}: install JCache with its extra 'demo'")
    with ExitStack() as stack:
        work = stack.enter_context(_work_directory(options.keep))
        data = work / "data"
        data.mkdir(exist_ok=True)
        data.chmod(0o755)
        names = _write_dataset(data, options, progress)
        server, note = _start_origin(data, names[0], options.origin)
        stack.callback(server.close)
        port = stack.enter_context(Wire(server.port, options.rtt_ms)).port if options.rtt_ms else server.port
        urls = [server.url(name, port) for name in names]
        served = work / "served"
        runs = _run_all(work, server, urls, progress, last=lambda: warm_whole(served, urls[0]))
        clients = CLIENTS if served.is_dir() else ()
        reads = [read_by(client, served, urls[0], data / names[0]) for client in clients]
        size = sum((data / name).stat().st_size for name in names)
        return Outcome(server.kind, server.counted, note, size, tuple(runs), tuple(filter(None, reads)))


@contextmanager
def _work_directory(keep: Path | None) -> Iterator[Path]:
    """Give a directory that an XRootD daemon without privileges can pass through, with an empty cache."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="jcache-demo-", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o711)
            yield Path(name)
        return
    # A directory of our own below the user's, because what an earlier demonstration left there is removed.
    work = keep.expanduser().resolve() / "jcache-demo"
    work.mkdir(parents=True, exist_ok=True)
    for name in ("cache", "reports", "served"):
        shutil.rmtree(work / name, ignore_errors=True)
    yield work


def _write_dataset(data: Path, options: Options, progress: Callable[[str, int, int], None]) -> list[str]:
    # Imported here, when it is known that uproot and awkward are there.
    from jcache.demo import dataset

    wanted = dataset.recipes(files=options.files, events=options.events, formats=options.formats)
    progress("writing the data set", 0, len(wanted))
    for done, _ in enumerate(dataset.write(data, wanted), start=1):
        progress("writing the data set", done, len(wanted))
    return [recipe.name for recipe in wanted]


def _start_origin(
    data: Path, probe: str, origin: Literal["auto", "xrootd", "http"]
) -> tuple[XrootdServer | HttpServer, str]:
    if origin == "http":
        return HttpServer(data), ""
    try:
        for name in ("XRootD", "fsspec_xrootd"):
            if importlib.util.find_spec(name) is None:
                raise XrootdUnavailableError(f"module {name} is missing: install JCache with its extra 'xrootd'")
        return XrootdServer(data, probe=probe), ""
    except XrootdUnavailableError as error:
        if origin == "xrootd":
            raise DemoError(str(error)) from error
        return HttpServer(data), f"No XRootD: {error}"


def _run_all(
    work: Path,
    server: XrootdServer | HttpServer,
    urls: Sequence[str],
    progress: Callable[[str, int, int], None],
    *,
    last: Callable[[], object],
) -> list[Run]:
    """Run all plans; `last` is called before the origin stops for good."""
    runs: list[Run] = []
    references: dict[bool, Any] = {}
    for done, plan in enumerate(_PLANS):
        progress(plan.name, done, len(_PLANS))
        if plan.stopped:
            last()
            server.stop()
        before = server.sent_bytes()
        run, output = _run_job(work, plan, urls)
        run = replace(run, origin_bytes=server.sent_bytes() - before)
        if not plan.cached:
            references[plan.more] = output
        elif output is not None:
            run = replace(run, equal=output == references[plan.more])
        runs.append(run)
    progress("done", len(_PLANS), len(_PLANS))
    return runs


def _run_job(work: Path, plan: _Plan, urls: Sequence[str]) -> tuple[Run, Any]:
    """Run the analysis once; return what it cost, and its result or None."""
    reports = work / "reports" / plan.name.replace(", ", "-").replace(" ", "-")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    environment |= _XROOTD_CLIENT
    if plan.cached:
        environment |= {"JCACHE_DIR": str(work / "cache"), "JCACHE_JSON": str(reports), "COLUMNS": "80"}
        if plan.stopped:
            environment["JCACHE_VALIDATE"] = "never"
    # -P: the script's own directory, which is this package, stays out of the path of its imports.
    command = [sys.executable, "-P", str(_JOB), *(["--more"] if plan.more else []), *urls]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_JOB_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Run(plan.name, problem=f"no end after {_JOB_TIMEOUT_S} s"), None
    run = Run(plan.name, stderr=done.stderr)
    if plan.cached:
        run = _with_report(replace(run, disk_bytes=_disk_bytes(work / "cache")), reports)
    if done.returncode != 0:
        message = (done.stderr.strip() or "no message").splitlines()[-1]
        return replace(run, problem=f"exit code {done.returncode}: {message}"), None
    output = json.loads(done.stdout)
    return replace(run, seconds=output.pop("seconds")), output


def _with_report(run: Run, reports: Path) -> Run:
    found = sorted(reports.glob("*.json")) if reports.is_dir() else []
    if len(found) != 1:
        reason = f"{len(found)} JSON reports instead of one"
        if not found:
            reason = f"no JSON report; is JCache installed, with its .pth file, for {sys.executable}?"
        return replace(run, problem=reason)
    report = json.loads(found[0].read_text())
    total = report["read"]["bytes"] + report["readv"]["bytes"]
    hits = report["read"]["hit_bytes"] + report["readv"]["hit_bytes"]
    return replace(run, report=report, hit_rate=hits / total if total else None)


def _disk_bytes(cache: Path) -> int:
    """Return the bytes of all files in the cache, its reports apart."""
    total = 0
    for directory, folders, files in os.walk(cache):
        if ".reports" in folders:
            folders.remove(".reports")
        total += sum(os.stat(os.path.join(directory, name)).st_size for name in files)
    return total
