"""The numbers of a job as metrics: in a file, for whoever gathers those of a machine, or sent to whoever gathers more.

The job's root writes and sends them, of all processes of the job that have saved a report: one file has one writer.
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
from jcache.report.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcache.activate.job import Job
    from jcache.settings.config import Config

__all__ = ["beside", "prepare", "write_metrics"]

_told: set[str] = set()


def prepare(config: Config) -> None:
    """Import what is needed at the process's end, where some of it can be imported no more."""
    if config.metrics_push is not None:
        with _told_once(config.metrics_push):
            from jcache.report.push import prepare_for

            prepare_for(config.metrics_push)


def write_metrics(config: Config, reports: Sequence[Report], *, appname: str | None = None) -> None:
    """Write and send the sum of some reports; never raises: what goes wrong is one line on stderr, the first time.

    A file is whole, or the one before it. A link is followed; a pipe or a device is written into.

    Args:
        config: Where they go.
        reports: One or more.
        appname: What the job is called; by default what the first process is.
    """
    report = merge(reports)
    report = report if appname is None else replace(report, appname=appname)
    if (path := config.metrics) is not None:
        with _told_once(path):
            _put(path, openmetrics(report).encode())
    if (where := config.metrics_push) is not None:
        with _told_once(where):
            from jcache.report.push import send

            send(report, where)


@contextlib.contextmanager
def _told_once(where: str) -> Iterator[None]:
    """Say what goes wrong inside, once for each place."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a job does not fail for its metrics
        if where not in _told:
            _told.add(where)
            why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
            say(f"no metrics in {redact([where])}: {why}")


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
