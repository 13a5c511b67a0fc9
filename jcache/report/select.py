"""Which reports are meant: files, globs, directories, the jobs in them by name or age."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from jcache.report.job import title_of
from jcache.report.merge import merge
from jcache.report.model import Report, ReportError
from jcache.report.places import read_file
from jcache.report.schema import build
from jcache.settings.config import REPORTS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATTERN = "jcache.*.json"
_HEAD_BYTES = 8192
_HEAD = re.compile(rb'^"(appname|host|pid|start_time|end_time|complete|run|place)": (.*?),?$', re.MULTILINE)
_NTH = re.compile(r"(?P<name>.+?)~(?P<number>\d{1,6})")
LAST = "last"
"""Stands for the newest job, whatever its name."""


class SelectionError(Exception):
    """What the user named is not there; the message is one line."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a report says of itself in its first lines: enough to choose it without parsing the rest."""

    path: str
    modified_s: float
    uid: int
    appname: str
    host: str
    pid: int
    start_time: float
    end_time: float
    complete: bool
    run: str = ""
    place: str = ""


@dataclass(slots=True)
class Run:
    """The reports of one run of a job."""

    run: str
    appname: str
    heads: list[Head] = field(default_factory=list)

    @property
    def modified_s(self) -> float:
        """When the last of them was written, in Unix seconds."""
        return max(head.modified_s for head in self.heads)

    def is_of(self, uid: int) -> bool:
        """Tell whether a user's processes wrote any of it."""
        return any(head.uid == uid for head in self.heads)

    def is_called(self, name: str) -> bool:
        """Tell whether a name, a glob or a run's id means this job."""
        names = {self.appname, *(head.appname for head in self.heads)}
        return name == self.run or any(fnmatchcase(known, name) for known in names)


def in_directory(directory: str) -> list[str]:
    """Return the paths of a directory's reports, or of those of the cache in it; those being written are none yet.

    Raises:
        SelectionError: It cannot be read, or there are none.
    """
    try:
        names = os.listdir(directory)
        if REPORTS_NAME in names and not any(fnmatchcase(name, PATTERN) for name in names):
            directory = os.path.join(directory, REPORTS_NAME)
            names = os.listdir(directory)
    except OSError as error:
        raise SelectionError(f"cannot read {directory}: {error.strerror}") from None
    found = sorted(os.path.join(directory, name) for name in names if fnmatchcase(name, PATTERN))
    if not found:
        raise SelectionError(f"no reports ({PATTERN}) in {directory}")
    return found


def expand(words: Iterable[str]) -> list[str]:
    """Return the files that words name: files, directories of reports, globs of either; each file once.

    Raises:
        SelectionError: A word names nothing.
    """
    files: dict[str, str] = {}
    for word in words:
        if os.path.exists(word):
            found = [word]
        else:
            found = sorted(glob.glob(word, recursive=True))
            if not found:
                raise SelectionError(f"no such file or directory: {word}")
        for path in found:
            for name in in_directory(path) if os.path.isdir(path) else [path]:
                files.setdefault(os.path.realpath(name), name)
    return list(files.values())


def load(paths: Iterable[str], errors: list[ReportError]) -> list[Report]:
    """Load reports, of each process the latest one; what cannot be read goes into `errors`."""
    reports: list[Report] = []
    places: dict[tuple[Any, ...], int] = {}
    for path in paths:
        try:
            report = Report.load(path)
        except ReportError as error:
            errors.append(error)
            continue
        # The same process may be there twice: copied to another place while it ran, and again when it had ended.
        key = (report.run, report.host, report.pid, report.start_time, report.appname, report.parts)
        place = places.setdefault(key, len(reports))
        if place == len(reports):
            reports.append(report)
        elif (report.complete, report.end_time) > (reports[place].complete, reports[place].end_time):
            reports[place] = report
    return reports


def heads(paths: Iterable[str], errors: list[ReportError]) -> list[Head]:
    """Read the first lines of reports; what is none goes into `errors`, what has gone meanwhile is left out."""
    found: list[Head] = []
    for path in paths:
        try:
            head = read_head(path)
        except ReportError as error:
            errors.append(error)
        else:
            if head is not None:
                found.append(head)
    return found


def read_head(path: str) -> Head | None:
    """Return a report's head, `None` where the file has gone.

    Raises:
        ReportError: It is no report.
    """
    try:
        text, status = read_file(path, most_bytes=_HEAD_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReportError(path, "", error.strerror or str(error)) from None
    try:
        values = {name.decode(): json.loads(value) for name, value in _HEAD.findall(text)}
        values |= {"path": path, "modified_s": status.st_mtime, "uid": status.st_uid}
        head = build(Head, values, optional={"Head": frozenset({"run", "place"})}, source=path)
        if head.run or len(text) < _HEAD_BYTES:
            return head
    except (ValueError, RecursionError, ReportError):
        pass  # torn, or written by somebody else, in another layout
    report = Report.load(path)
    return Head(
        path=path,
        modified_s=status.st_mtime,
        uid=status.st_uid,
        appname=report.appname,
        host=report.host,
        pid=report.pid,
        start_time=report.start_time,
        end_time=report.end_time,
        complete=report.complete,
        run=report.run,
        place=report.place,
    )


def runs(found: Iterable[Head]) -> list[Run]:
    """Put reports together by the job that they are of, the newest job first; one of no job stands alone."""
    grouped: dict[str, Run] = {}
    for head in sorted(found, key=lambda head: (head.start_time, head.host, head.pid)):
        key = head.run or head.path
        if key not in grouped:
            title = title_of(os.path.dirname(head.path), head.run)
            grouped[key] = Run(head.run, head.appname if title is None else title.appname)
        grouped[key].heads.append(head)
    return sorted(grouped.values(), key=lambda run: (run.modified_s, run.run), reverse=True)


def last_job(
    paths: Sequence[str], errors: list[ReportError], *, name: str = LAST, nth: int = 0, uid: int | None = None
) -> list[str]:
    """Return the files of one run of a job.

    Args:
        paths: Where to look.
        errors: Gets what cannot be read and is newer than the run that was found.
        name: The job's name, a glob, or a run's id; `last` for any.
        nth: How many newer runs of that name to pass over.
        uid: A user, whose runs `last` is about if there are any: many may share a directory.

    Raises:
        SelectionError: There is none.
    """
    unreadable: list[ReportError] = []
    matching = [run for run in runs(heads(paths, unreadable)) if name == LAST or run.is_called(name)]
    if name == LAST and uid is not None:
        matching = [run for run in matching if run.is_of(uid)] or matching
    if nth >= len(matching):
        errors.extend(unreadable)
        if name == LAST and nth == 0 and unreadable:
            return []
        which = f"{name}~{nth}" if nth else name
        raise SelectionError(f"no such job: {which}" + (f", there are only {len(matching)}" if matching else ""))
    run = matching[nth]
    errors.extend(error for error in unreadable if _modified_s(error.source) > run.modified_s)
    return [head.path for head in run.heads]


def named(word: str, directory: str | None, errors: list[ReportError]) -> list[str]:
    """Return the files that one word means: a path or glob, or a job in a directory as `NAME` or `NAME~N`.

    Raises:
        SelectionError: It means nothing.
    """
    try:
        return expand([word])
    except SelectionError:
        if os.sep in word or directory is None:
            raise
    nth = _NTH.fullmatch(word)
    name, number = (nth["name"], int(nth["number"])) if nth is not None else (word, 0)
    return last_job(in_directory(directory), errors, name=name, nth=number, uid=os.geteuid())


def total(reports: Sequence[Report], directory: str | None) -> Report:
    """Merge reports, under the title that the first one's job was given in `directory`, if it was."""
    merged = merge(reports)
    title = None if directory is None else title_of(directory, merged.run)
    return merged if title is None else title.entitle(merged)


def _modified_s(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
