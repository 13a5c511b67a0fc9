"""`JCACHE_METRICS`: the numbers of a job in a file, for whoever gathers those of a machine, such as node_exporter.

The job's root writes it, of all processes of the job that have saved a report: one file has one writer.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from jcache.activate.notice import say
from jcache.report.merge import merge
from jcache.report.metrics import openmetrics
from jcache.report.model import Report, ReportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.activate.job import Job
    from jcache.settings.config import Config

__all__ = ["beside", "write_metrics"]

_told = False


def write_metrics(path: str, reports: Sequence[Report], *, appname: str | None = None) -> None:
    """Write the sum of some reports; never raises: what goes wrong is one line on stderr, the first time.

    The file is whole, or the one before it. A link is followed; a pipe or a device is written into.

    Args:
        path: The file.
        reports: One or more.
        appname: What the job is called; by default what the first process is.
    """
    global _told
    try:
        report = merge(reports)
        _put(path, openmetrics(report if appname is None else replace(report, appname=appname)).encode())
    except OSError as error:
        if not _told:
            say(f"no metrics in {path}: {error.strerror or error}")
        _told = True


def beside(config: Config, job: Job, own: Report | None = None) -> list[Report]:
    """Return the reports, interim ones too, that the job's other processes have saved by now; never raises."""
    found: list[Report] = []
    if config.report_directory is not None:
        with contextlib.suppress(OSError):
            for path in job.reports(str(config.report_directory)):
                if own is None or os.path.basename(path) != own.filename:
                    with contextlib.suppress(ReportError):  # the job's end says so
                        found.append(Report.load(path))
    return found


def _opened(path: str, flags: int) -> int:
    """Open what is there, and do not wait for whoever is to read it."""
    descriptor = os.open(path, flags & ~os.O_CREAT | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _put(path: str, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):  # by the name as it is: what stdout is has no other
        if not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb", opener=_opened) as file:
                file.write(data)
            return
    # Of a name that no collector reads, in the same directory.
    path = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.tmp")
    try:
        # For whoever the umask lets read it: the collector is another user, as a rule.
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o644)) as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
