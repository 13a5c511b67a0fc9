"""How long reports are kept, and the profiles beside them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcache.report.job import JOBS
from jcache.report.places import create_inside, storage_of

if TYPE_CHECKING:
    from jcache.system.storage import Storage

KEEP_S = 30 * 86400.0
"""Reports older than this are removed where nothing else is said."""

_EVERY_S = 86400.0
_STAMP = ".cleaned"
"""In a directory of reports, an empty file: its time is when old ones were last looked for."""

# Names as `Report.filename` and the files beside it make them. Whatever is called otherwise is not ours.
_REPORT = re.compile(r"jcache\.[\w.-]+\.[\w.-]+\.\d+\.\d+\.\d{3}\.(?:json|jcp)", re.ASCII)
_UNFINISHED = re.compile(r"\.jcache\.[\w.-]+\.json\.[0-9a-f]{8}\.tmp", re.ASCII)
_TITLE = re.compile(r"[0-9a-f]{16}\.json|\.[0-9a-f]{16}\.[0-9a-f]+\.tmp", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed, or would be: the paths of reports, their bytes, and those that could not be removed."""

    removed: tuple[str, ...]
    removed_bytes: int
    failed: tuple[tuple[str, str], ...]


def clean_reports(
    directory: str,
    *,
    older_than_s: float = KEEP_S,
    dry_run: bool = False,
    now: float | None = None,
    storage: Storage | None = None,
) -> Cleaned:
    """Remove the reports in a directory that were written longer than a time ago; newer ones and all else stay.

    Args:
        directory: A directory of reports, such as `.reports` in a cache.
        older_than_s: Age in seconds above which reports go.
        dry_run: Whether to tell only.
        now: Unix time in seconds to count the age from.
        storage: The file system.

    Returns:
        What went. A directory that does not exist has nothing to remove.

    Raises:
        OSError: The directory cannot be read.
    """
    directory = os.path.abspath(directory)
    storage = storage or storage_of(directory)
    before = (time.time() if now is None else now) - older_than_s
    removed: list[str] = []
    failed: list[tuple[str, str]] = []
    freed = 0
    for folder, patterns in ((directory, (_REPORT, _UNFINISHED)), (os.path.join(directory, JOBS), (_TITLE,))):
        try:
            names = sorted(storage.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if not any(pattern.fullmatch(name) for pattern in patterns):
                continue
            if folder == directory and _started_s(name) >= before:
                continue  # and was written later; so new ones, nearly all, cost nothing on a slow file system
            path = os.path.join(folder, name)
            try:
                status = storage.stat(path)
                if status.st_mtime >= before or not stat.S_ISREG(status.st_mode):
                    continue
                if not dry_run:
                    storage.unlink(path)
            except FileNotFoundError:
                continue  # another cleaner was faster
            except OSError as error:
                failed.append((path, error.strerror or str(error)))
            else:
                removed.append(path)
                freed += status.st_size
    return Cleaned(tuple(removed), freed, tuple(failed))


def tidy(directory: str, *, now: float | None = None, storage: Storage | None = None) -> None:
    """Remove reports that are older than `KEEP_S`, if nobody has looked for such in the last day; never raises.

    Costs one operation on the file system where somebody has.

    Args:
        directory: A cache's own directory of reports. One that a user has chosen may be an archive.
        now: Unix time in seconds, to count ages from.
        storage: The file system.
    """
    directory = os.path.abspath(directory)
    storage = storage or storage_of(directory)
    now = time.time() if now is None else now
    stamp = os.path.join(directory, _STAMP)
    with contextlib.suppress(OSError):  # it is another day's work then
        try:
            if abs(now - storage.stat(stamp).st_mtime) < _EVERY_S:
                return
        except FileNotFoundError:
            storage.close(create_inside(storage, stamp, os.O_WRONLY, others_write=True))
        storage.utime(stamp)
        clean_reports(directory, now=now, storage=storage)


def _started_s(name: str) -> float:
    """Return the Unix time in a report's or a profile's name, at which its process had begun; 0 where there is none."""
    return float(".".join(name.rsplit(".", 3)[1:3])) if _REPORT.fullmatch(name) else 0.0
