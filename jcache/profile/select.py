"""Which profiles are meant: files, directories, the runs in them by name."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from jcache.profile.format import SUFFIX
from jcache.profile.reader import Profile, ProfileError, Recording
from jcache.report.job import title_of
from jcache.report.select import LAST, SelectionError
from jcache.settings.config import REPORTS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ProfiledRun", "in_directory", "named", "runs"]

_NTH = re.compile(r"(?P<name>.+?)~(?P<number>\d{1,6})")


@dataclass(slots=True)
class ProfiledRun:
    """The profiles of one run of a job."""

    run: str
    appname: str
    recordings: list[Recording] = field(default_factory=list)

    @property
    def start_time(self) -> float:
        """When the first of its processes began, in Unix seconds."""
        return self.profile.start_time

    @property
    def profile(self) -> Profile:
        """All of them together."""
        return Profile(self.recordings)

    def is_of(self, uid: int) -> bool:
        """Tell whether a user's processes wrote any of it."""
        return any(os.stat(one.path).st_uid == uid for one in self.recordings)

    def is_called(self, name: str) -> bool:
        """Tell whether a name, a glob or a run's id means this one."""
        names = {self.appname, *(one.head.appname for one in self.recordings)}
        return name in (self.run, LAST) or any(fnmatchcase(known, name) for known in names)


def in_directory(directory: str) -> list[str]:
    """Return the paths of a directory's profiles, or of those of the cache in it.

    Raises:
        SelectionError: It cannot be read, or there are none.
    """
    try:
        names = os.listdir(directory)
        if REPORTS_NAME in names and not any(name.endswith(SUFFIX) for name in names):
            directory = os.path.join(directory, REPORTS_NAME)
            names = os.listdir(directory)
    except OSError as error:
        raise SelectionError(f"cannot read {directory}: {error.strerror}") from None
    found = sorted(os.path.join(directory, name) for name in names if name.endswith(SUFFIX))
    if not found:
        raise SelectionError(f"no profiles (*{SUFFIX}) in {directory}: JCACHE_PROFILE=1 has jobs record them")
    return found


def runs(paths: Iterable[str], errors: list[ProfileError]) -> list[ProfiledRun]:
    """Put profiles together by the run that they are of, the newest first; what cannot be read goes into `errors`."""
    found: dict[str, ProfiledRun] = {}
    recordings = []
    for path in paths:
        try:
            recordings.append(Recording.open(path))
        except ProfileError as error:
            errors.append(error)
    for one in sorted(recordings, key=lambda one: (one.head.start_time, one.head.host, one.head.pid)):
        key = one.head.run or one.path
        if key not in found:
            title = title_of(os.path.dirname(one.path), one.head.run)
            found[key] = ProfiledRun(one.head.run, one.head.appname if title is None else title.appname)
        found[key].recordings.append(one)
    return sorted(found.values(), key=lambda run: (run.start_time, run.run), reverse=True)


def named(word: str, directory: str | None, errors: list[ProfileError]) -> Profile:
    """Return the profile that a word means: files or a glob of them, or a run in a directory as `NAME` or `NAME~N`.

    Args:
        word: A path, a glob, a job's name, a run's id, or `last`.
        directory: Where runs are looked for.
        errors: Gets what cannot be read.

    Raises:
        SelectionError: It means nothing.
    """
    paths = [word] if os.path.exists(word) else sorted(glob.glob(word))
    if paths and os.path.isdir(word):
        paths, word = in_directory(word), LAST
    elif paths:
        return Profile([one for run in runs(paths, errors) for one in run.recordings])
    elif os.sep in word or directory is None:
        raise SelectionError(f"no such file or directory: {word}")
    nth = _NTH.fullmatch(word)
    name, number = (nth["name"], int(nth["number"])) if nth is not None else (word, 0)
    matching = [one for one in runs(paths or in_directory(directory or ""), errors) if one.is_called(name)]
    if name == LAST:
        # Many may share a directory: the newest one is one's own, if there is any.
        matching = [one for one in matching if one.is_of(os.geteuid())] or matching
    if number >= len(matching):
        raise SelectionError(f"no such run: {word}" + (f", there are only {len(matching)}" if matching else ""))
    return matching[number].profile
