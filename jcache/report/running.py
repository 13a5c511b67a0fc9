"""Which jobs run just now, as far as their interim reports tell."""

from __future__ import annotations

import functools
import os
import pwd
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jcache.cache.books import USAGE_NAME, is_book, is_over, writer_of
from jcache.report.model import Report, ReportError
from jcache.report.select import PATTERN, Head, SelectionError, in_directory, load, read_head, runs, total
from jcache.segment.format import host_label
from jcache.system.processes import here, is_alive
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["running", "ended", "killed", "silent"]
"""Of a process: `killed` ones left no final report and are gone; of `silent` ones on other hosts nothing was heard."""

SILENT_S = 30.0
"""A process on another host is silent when its interim report is late by this and two more intervals."""

LOST_S = 600.0
"""A job of which no process runs any more and which left no final report is shown for so long."""

WINDOW_S = 10.0
"""Present bandwidth is the average over so much time before a process's last report, or over its interval."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """One job. Sizes are in bytes, times in seconds.

    Attributes:
        name: What it is called.
        run: Its id.
        user: Whose processes they are.
        states: How many processes are in which state.
        report: All that its processes read, merged.
        hit_bytes_per_s: From the cache, just now.
        miss_bytes_per_s: From origins, just now.
        age_s: Since the newest of its reports.
    """

    name: str
    run: str
    user: str
    states: dict[State, int]
    report: Report
    hit_bytes_per_s: float
    miss_bytes_per_s: float
    age_s: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, without the profile and the files."""
        report = self.report
        return {
            "name": self.name,
            "run": self.run,
            "user": self.user,
            "hosts": list(report.hosts),
            "processes": dict(self.states),
            "start_time": report.start_time,
            "real_s": report.real_s,
            "bytes": report.requested_bytes,
            "hit_bytes": report.hit_bytes,
            "origin_bytes": report.origin.bytes,
            "files": report.files.unique,
            "hit_bytes_per_s": self.hit_bytes_per_s,
            "miss_bytes_per_s": self.miss_bytes_per_s,
            "age_s": self.age_s,
        }


class Watch:
    """Looks at a directory of reports again and again; each report is read once, and again when it was replaced.

    Args:
        directory: The reports' directory, or the cache directory that has it.
        clock: Unix time in seconds.
    """

    def __init__(self, directory: str, *, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._clock = clock
        self._final: dict[str, Head] = {}
        self._reports: dict[Head, Report] = {}
        self._heard: set[tuple[str, int]] = set()

    def has_reports(self) -> bool:
        """Tell whether any report is there, of running jobs or others."""
        try:
            return bool(in_directory(self.directory))
        except SelectionError:
            return False

    def look(self) -> list[RunningJob]:
        """Return the jobs that run, and those that were killed lately, the busiest first.

        Reports that cannot be read are passed over: `jcache report` names them.

        Raises:
            SelectionError: The directory cannot be read.
        """
        try:
            paths = in_directory(self.directory)
        except SelectionError as error:
            if PATTERN not in str(error) and os.path.isdir(self.directory):
                raise
            return []  # there is no report yet, and perhaps no directory for them
        now = self._clock()
        found = []
        for path in paths:
            head = self._final.get(path)
            if head is None:
                try:
                    head = read_head(path)
                except ReportError:
                    continue
                if head is None:
                    continue
                if head.complete:
                    self._final[path] = head
            found.append(head)
        self._final = {head.path: head for head in found if head.complete}
        self._heard = {(host_label(head.place or head.host), head.pid) for head in found if not head.complete}
        jobs = []
        kept: dict[Head, Report] = {}
        unfinished = {head.run or head.path for head in found if not head.complete}
        for run in runs(head for head in found if (head.run or head.path) in unfinished):
            job = self._job(run.run, run.appname, run.heads, now, kept)
            if job is not None:
                jobs.append(job)
        self._reports = kept
        return sorted(jobs, key=lambda job: (-job.hit_bytes_per_s - job.miss_bytes_per_s, job.age_s, job.run))

    def unheard(self) -> int:
        """Return how many processes use the cache just now and were not among the reports of the last look."""
        storage = Storage()
        for root in (self.directory, os.path.dirname(self.directory)):
            books = os.path.join(root, USAGE_NAME)
            try:
                names = storage.listdir(books)
            except OSError:
                continue  # it is the directory of reports, or there is no cache yet
            writers = {name: writer_of(name) for name in names if is_book(name)}
            return len(
                {
                    writer
                    for name, writer in writers.items()
                    if writer not in self._heard and not is_over(storage, os.path.join(books, name))
                }
            )
        return 0

    def _job(self, run: str, name: str, heads: list[Head], now: float, kept: dict[Head, Report]) -> RunningJob | None:
        states: Counter[State] = Counter()
        reports = []
        hit = miss = 0.0
        for head in heads:
            report = self._reports.get(head)
            if report is None:
                loaded = load([head.path], [])
                if not loaded:
                    continue
                report = loaded[0]
            kept[head] = report
            state = state_of(report, now=now, modified_s=head.modified_s)
            states[state] += 1
            reports.append(report)
            if state == "running":
                now_hit, now_miss = bandwidth(report)
                hit += now_hit
                miss += now_miss
        age_s = max(0.0, now - max(head.modified_s for head in heads))
        if not reports or set(states) == {"ended"} or (not states["running"] and age_s > LOST_S):
            return None
        merged = total(reports, os.path.dirname(heads[0].path))
        return RunningJob(name, run, _name_of(heads[0].uid), dict(states), merged, hit, miss, age_s)


def state_of(report: Report, *, now: float, modified_s: float) -> State:
    """Tell what became of the process that wrote a report.

    Args:
        report: Its newest one.
        now: Unix time in seconds.
        modified_s: Unix time at which the file was written.
    """
    if report.complete:
        return "ended"
    if report.place == here() if report.place else report.host == os.uname().nodename:
        return "running" if is_alive(report.pid, before_s=report.end_time) else "killed"
    return "silent" if now - modified_s > 3 * report.interval_s + SILENT_S else "running"


def bandwidth(report: Report) -> tuple[float, float]:
    """Return the bytes per second, from the cache and from origins, that a process read before its last report."""
    profile = report.profile
    window_s = min(max(WINDOW_S, report.interval_s, profile.bin_s), report.real_s)
    if window_s <= 0:
        return 0.0, 0.0
    first = max(0, int((report.real_s - window_s) / profile.bin_s))
    return sum(profile.hit_bytes[first:]) / window_s, sum(profile.miss_bytes[first:]) / window_s


@functools.cache
def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
