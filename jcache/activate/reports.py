"""The reports at a process's end: its own as JSON, the whole job's as text."""

import os
import sys
from typing import TYPE_CHECKING

from jcache.activate.job import program_name
from jcache.activate.notice import say
from jcache.report.counted import from_counters
from jcache.report.job import JobTitle
from jcache.report.model import Report, ReportError
from jcache.report.redact import redact
from jcache.system.processes import here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.activate.job import Job
    from jcache.session import Session
    from jcache.settings.config import Config


def make_own(session: "Session", job: "Job", *, times_before: tuple[float, float], interval_s: float = 0.0) -> Report:
    """Return this process's report.

    Args:
        session: Closed, so that its numbers are final; unless this is an interim report.
        job: What this process belongs to.
        times_before: User and system CPU seconds that this process had used when the session began.
        interval_s: In an interim report, the time until the next one.
    """
    times = os.times()
    return from_counters(
        session.counters,
        appname=called(session.config, job),
        host=os.uname().nodename,
        pid=os.getpid(),
        command=sys.orig_argv,
        user_s=max(0.0, times.user - times_before[0]),
        sys_s=max(0.0, times.system - times_before[1]),
        run=job.run,
        place=here(),
        complete=not interval_s,
        interval_s=interval_s,
    )


def save_own(report: Report, config: "Config", job: "Job", *, mark: bool = True, follows: bool = False) -> None:
    """Save this process's report and mark it as part of the job; one line on stderr where it cannot be saved.

    The job's root needs no mark: it is the one who looks for them.

    Args:
        report: The report.
        config: Where reports are.
        job: What this process belongs to.
        mark: Whether to mark it, and to say where that fails; once for each process is enough.
        follows: Whether another program takes this process over: then the root is marked, too.
    """
    if config.report_directory is None:
        return
    directory = str(config.report_directory)
    try:
        path = report.save(directory)
        if mark and (follows or not job.is_root):
            job.mark(path)
    except OSError as error:
        # That the cache directory is in trouble, in which they are by default, has been said already.
        told = config.json is None and report.cache.failures > 0 and config.log not in {"debug", "info"}
        if mark and not told:  # of interim reports the first one says it for all
            say(f"no JSON report in {directory}: {error.strerror or error}")


def others(config: "Config", job: "Job", own: Report | None, paths: "Sequence[str] | None" = None) -> list[Report]:
    """Return the reports that the job's other processes have saved, and forget which they were; never raises.

    Args:
        config: Where the reports are.
        job: The job.
        own: This process's report, if it has one.
        paths: Those that are marked; by default this is asked.
    """
    if config.report_directory is None:
        return []
    directory = str(config.report_directory)
    found = []
    try:
        paths = job.reports(directory) if paths is None else paths
    except OSError as error:
        say(f"the reports of other processes cannot be read: {error}")
        return []
    for path in paths:
        if own is None or os.path.basename(path) != own.filename:
            try:
                found.append(Report.load(path))
            except ReportError as error:
                say(f"a process is missing from the report: {error}")
    if paths:
        job.clear(directory)
    return found


def keep_title(config: "Config", job: "Job", command: "Sequence[str] | None" = None) -> JobTitle:
    """Return what the report of a whole job is headed by, and keep it beside its reports for `jcache report`.

    Args:
        config: Where the reports are.
        job: The job.
        command: What the user started; by default this process, its root.
    """
    name = config.appname or job.program
    words = sys.orig_argv if command is None else command
    title = JobTitle(job.run, name, os.uname().nodename, os.getpid(), redact(words))
    try:
        title.save(str(config.report_directory))
    except OSError:
        pass  # a later `jcache report` calls the job by the name of its first process
    return title


def print_job(
    config: "Config",
    job: "Job",
    own: Report | None,
    *,
    title: JobTitle | None = None,
    beside: "Sequence[Report] | None" = None,
) -> int:
    """Print one text report of all processes of a job on stderr, write its metrics, and forget which they were.

    Args:
        config: Where the reports are, and whether the user wants to see the text.
        job: The job.
        own: This process's report, if it has one.
        title: What the job is called in the text; by default what its first process is.
        beside: The job's other reports; by default those that `others` finds.

    Returns:
        The number of processes that the text is about; nothing is printed where that is 0.
    """
    if config.report_directory is None:
        return 0
    prints = config.summary and sys.__stderr__ is not None
    if prints:
        # Half of what a process's end costs, so not for nothing. It is time for children that got the same signal to
        # save their reports, so not later.
        from jcache.report.faces.text import render
        from jcache.report.merge import merge

    reports = [*([] if own is None else [own]), *(others(config, job, own) if beside is None else beside)]
    if reports and prints:
        merged = merge(reports)
        if title is not None:
            merged = title.entitle(merged)
        # Past `sys.stderr`: it may be closed or replaced by now, or its buffer locked by the code that a signal
        # interrupted.
        encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
        try:
            with open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False) as stderr:
                render(merged, stderr)
        except OSError:
            pass  # stderr is closed or its reader is gone; the JSON reports are saved
    if reports and config.tells_metrics:
        from jcache.activate.metrics import write_metrics

        write_metrics(config, reports, appname=config.appname or job.program)
    return len(reports)


def tidy_reports(config: "Config") -> None:
    """Remove what is too old in the cache's own directory of reports, once a day; never raises."""
    if config.json is None and config.report_directory is not None:
        from jcache.report.retention import tidy

        tidy(str(config.report_directory))


def called(config: "Config", job: "Job") -> str:
    """Return what this process is called in its report."""
    name = program_name()
    # Workers of multiprocessing run `python -c ...`; what the user knows is the program that started them.
    return config.appname or (job.program if name == "python" else name)
