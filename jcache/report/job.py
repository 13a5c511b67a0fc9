"""What a job is called that consists of many processes: kept beside their reports by the command that ran it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from jcache.report.places import create_inside, make_inside, read_file, storage_of
from jcache.report.schema import ReportError, build

if TYPE_CHECKING:
    from jcache.report.model import Report

JOBS = ".jobs"
"""Below a directory of reports: one small file for each job that `jcache run` ran."""


@dataclass(frozen=True, slots=True)
class JobTitle:
    """The heading of a job's merged report; `run` is the one in the reports of its processes."""

    run: str
    appname: str
    host: str
    pid: int
    command: str

    def entitle(self, report: Report) -> Report:
        """Return a merged report under the job's own name."""
        return replace(report, appname=self.appname, host=self.host, pid=self.pid, command=self.command)

    def save(self, directory: str) -> None:
        """Keep the title in a directory of reports that exists.

        Raises:
            OSError: It cannot be written.
        """
        directory = os.path.abspath(directory)
        storage = storage_of(directory)
        jobs = os.path.join(directory, JOBS)
        make_inside(storage, jobs)
        temporary = os.path.join(jobs, f".{self.run}.{os.urandom(4).hex()}.tmp")
        fd = create_inside(storage, temporary, os.O_WRONLY | os.O_EXCL)
        try:
            storage.pwritev(fd, [json.dumps(asdict(self)).encode()], 0)
        finally:
            storage.close(fd)
        storage.rename(temporary, os.path.join(jobs, f"{self.run}.json"))


def title_of(directory: str, run: str) -> JobTitle | None:
    """Return the title of a job, or `None` where nothing was kept: its first process gave it its name."""
    if not run or os.path.basename(run) != run:
        return None
    path = os.path.join(directory, JOBS, f"{run}.json")
    try:
        return build(JobTitle, json.loads(read_file(path)[0]), optional={}, source=path)
    except (OSError, ValueError, RecursionError, ReportError):
        return None
