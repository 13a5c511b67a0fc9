"""What one process does on another's request, so that both see whether the file system keeps them in step.

Requests and replies are JSON objects, one line each; they travel through pipes between processes of one node, and
through files between nodes. A request may have several replies: "I am ready", then "I have seen it".
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from jcache.doctor.probes import read_file, write_file
from jcache.system import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jcache.system.storage import Storage

__all__ = ["LIMIT_S", "Deeds", "pattern", "until"]

LIMIT_S = 5.0
"""How long something is waited for that should be there at once."""

_POLL_S = 0.001

Reply = dict[str, Any]


def pattern(number: int, size: int) -> bytes:
    """Return bytes that are neither zeros nor another number's."""
    return bytes([number % 251 + 1]) * size


def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Wait for a condition; False if it did not come true in time. A failing file system is one that is not ready."""
    deadline_s = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return True
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)


class Deeds:
    """What one process holds while it is asked: open files, and their locks."""

    def __init__(self, storage: Storage, directory: str) -> None:
        """Prepare for requests about files in a directory."""
        self._storage, self._directory = storage, directory
        self._open: dict[str, int] = {}

    def one(self, request: Mapping[str, Any]) -> Reply:
        """Do what has one reply."""
        return next(self.do(request))

    def do(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """Do what is asked, and yield the replies. What the file system refuses is a reply too."""
        try:
            yield from getattr(self, f"_do_{request['do']}")(request)
        except OSError as error:
            yield {"error": error.strerror or str(error), "errno": error.errno}

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._open):
            self._release(name)

    def _path(self, request: Mapping[str, Any]) -> str:
        return os.path.join(self._directory, os.path.basename(request["name"]))

    def _fd(self, request: Mapping[str, Any]) -> int:
        name = request["name"]
        if name not in self._open:
            self._open[name] = self._storage.open(self._path(request), os.O_RDWR | os.O_CREAT)
        return self._open[name]

    def _release(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                self._storage.close(fd)

    def _do_ping(self, _request: Mapping[str, Any]) -> Iterator[Reply]:
        yield {}

    def _do_flock(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        attempt = locks.FileLock(self._fd(request), storage=self._storage).lock(request.get("wait_s", 0.0))
        yield {"outcome": attempt.outcome.value, "errno": attempt.errno}

    def _do_ranges(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        ranges = locks.RangeLock(self._fd(request), storage=self._storage)
        claim = ranges.lock([(request["start"], request["stop"])], request.get("wait_s", 0.0))
        yield {"outcome": claim.outcome.value, "errno": claim.errno}

    def _do_release(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        self._release(request["name"])
        yield {}

    def _do_race(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """Create files that another process creates too, at the same time."""
        won = []
        for number in range(request["count"])[:: request["step"]]:
            with contextlib.suppress(FileExistsError):
                write_file(self._storage, f"{self._path(request)}.{number}", b"")
                won.append(number)
        yield {"won": won}

    def _do_await_name(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """See a file appear that was looked for in vain before."""
        path = self._path(request)
        mtime_ns = self._storage.stat(self._directory).st_mtime_ns
        until(lambda: not _exists(self._storage, path), 0.0)
        yield {"ready": True}
        seen = until(lambda: _exists(self._storage, path))
        listed = until(lambda: os.path.basename(path) in self._storage.listdir(self._directory))
        touched = until(lambda: self._storage.stat(self._directory).st_mtime_ns != mtime_ns, 2.0)
        yield {"seen": seen, "listed": listed, "touched": touched}

    def _do_await_content(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """See the content of a file change that another one replaces."""
        path, content = self._path(request), request["content"].encode()
        read_file(self._storage, path)
        yield {"ready": True}
        yield {"seen": until(lambda: read_file(self._storage, path) == content)}

    def _do_follow(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """See a file grow that is open all the time, as a reader follows another's segment; then read what is new."""
        fd = self._fd(request)
        position, size = request["position"], request["size"]
        expected = pattern(request["number"], size)
        yield {"ready": True}
        grown = until(lambda: self._storage.fstat(fd).st_size >= position + size)
        reopened = not grown and until(lambda: self._storage.stat(self._path(request)).st_size >= position + size)
        if reopened:
            self._release(request["name"])
            fd = self._fd(request)
        wrong = 0
        deadline_s = time.monotonic() + LIMIT_S
        while self._storage.pread(fd, size, position) != expected:
            wrong += 1
            if time.monotonic() >= deadline_s:
                yield {"seen": False, "reopened": reopened, "wrong": wrong}
                return
            time.sleep(_POLL_S)
        yield {"seen": True, "reopened": reopened, "wrong": wrong}

    def _do_open(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        self._fd(request)
        yield {}

    def _do_read_open(self, request: Mapping[str, Any]) -> Iterator[Reply]:
        """Read what was opened before."""
        yield {"data": self._storage.pread(self._fd(request), 100, 0).decode("latin-1")}


def _exists(storage: Storage, path: str) -> bool:
    try:
        storage.stat(path)
    except FileNotFoundError:
        return False
    return True
