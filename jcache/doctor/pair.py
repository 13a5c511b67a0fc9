"""Two processes, on one node or on two, and whether the file system keeps their locks and files apart and in step."""

from __future__ import annotations

import errno
import os
import secrets
import statistics
import time
from typing import TYPE_CHECKING, Any, Protocol

from jcache.doctor.deeds import LIMIT_S, Deeds, pattern
from jcache.doctor.model import Check, Level
from jcache.doctor.probes import write_file
from jcache.system.locks import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jcache.system.storage import Storage

__all__ = ["Other", "PeerLostError", "exclusion", "visibility"]

_TAKEN, _HELD, _UNSUPPORTED = Outcome.TAKEN.value, Outcome.HELD.value, Outcome.UNSUPPORTED.value
_RACES = 100
_APPENDS, _APPENDS_S = 20, 10.0
_APPEND_BYTES = 64 * 1024
_PINGS = 5
_SLOW_S = 1.0

_FLOCK_USE = "dead writers' segments are told from live ones only after an hour of quiet"
_RANGE_USE = "two processes that miss the same bytes at the same time may both fetch them"


class PeerLostError(Exception):
    """The other process does not answer."""


class Other(Protocol):
    """The other process."""

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask for something."""

    def receive(self) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            PeerLostError: There was none in time.
        """


def _ask(other: Other, **request: Any) -> dict[str, Any]:
    other.send(request)
    return other.receive()


def exclusion(here: Deeds, other: Other, where: str) -> Iterator[Check]:
    """Try whether locks and exclusive creation of one process hold against the other.

    Args:
        here: This process.
        other: The other one.
        where: What is between them, for people: `on this node`, `between nodes`.

    Raises:
        PeerLostError: The other one is gone.
    """
    yield _exclusion_of(here, other, f"flock {where}", {"do": "flock", "name": "flock"}, _FLOCK_USE)
    whole = {"do": "ranges", "name": "ranges", "start": 1000, "stop": 2000}
    check = _exclusion_of(here, other, f"range locks {where}", whole, _RANGE_USE)
    if check.level is Level.OK:
        check = _neighbours(here, other, check)
    yield check
    yield _race(here, other, f"O_EXCL {where}")


def _exclusion_of(here: Deeds, other: Other, name: str, request: dict[str, Any], use: str) -> Check:
    def limit(finding: str) -> Check:
        return Check(name, Level.LIMIT, f"{finding}; {use}", "mount it with locks that reach all nodes: NFS 4 without "
                     "nolock, Lustre with -o flock, CephFS")  # fmt: skip

    release = {"do": "release", "name": request["name"]}
    try:
        mine = here.one(request)
        if mine.get("outcome") != _TAKEN:
            return limit(f"none: {_why(mine)}")
        theirs = _ask(other, **request)
        if theirs.get("outcome") == _TAKEN:
            return limit("granted to both at once, so they exclude nobody")
        if theirs.get("outcome") != _HELD:
            return limit(f"none in the other process: {_why(theirs)}")
        here.one(release)
        started_s = time.perf_counter()
        theirs = _ask(other, **request, wait_s=LIMIT_S)
        took_s = time.perf_counter() - started_s
        if theirs.get("outcome") != _TAKEN:
            return limit(f"not free {LIMIT_S:g} s after they were released")
        mine = here.one(request)
        if mine.get("outcome") == _TAKEN:
            return limit("granted to both at once, so they exclude nobody")
        return Check(name, Level.OK, f"exclude; passed on within {took_s * 1e3:.1f} ms")
    finally:
        here.one(release)
        _ask(other, **release)


def _neighbours(here: Deeds, other: Other, check: Check) -> Check:
    """Try whether ranges that do not overlap leave each other alone, and ranges that do, do not."""
    release = {"do": "release", "name": "ranges"}
    try:
        request = {"do": "ranges", "name": "ranges"}
        here.one({**request, "start": 1000, "stop": 2000})
        beside = [_ask(other, **request, start=start, stop=stop) for start, stop in ((0, 1000), (2000, 1 << 40))]
        inside = _ask(other, **request, start=1999, stop=2000)
    finally:
        here.one(release)
        _ask(other, **release)
    if any(reply.get("outcome") != _TAKEN for reply in beside):
        return Check(check.name, Level.LIMIT, "exclude more than their range, so processes wait for nothing")
    if inside.get("outcome") == _TAKEN:
        return Check(check.name, Level.LIMIT, f"do not exclude where ranges overlap in part; {_RANGE_USE}")
    return check


def _race(here: Deeds, other: Other, name: str) -> Check:
    request = {"do": "race", "name": f"race-{secrets.token_hex(4)}", "count": _RACES}
    # From both ends, so that they meet on the way even if one starts later.
    other.send({**request, "step": -1})
    mine, theirs = here.one({**request, "step": 1}), other.receive()
    if "won" not in mine or "won" not in theirs:
        return Check(name, Level.LIMIT, f"fails: {_why(mine if 'won' not in mine else theirs)}")
    both = set(mine["won"]) & set(theirs["won"])
    none = set(range(_RACES)) - set(mine["won"]) - set(theirs["won"])
    if both:
        finding = f"{len(both)} of {_RACES} files were created by both"
        return Check(name, Level.LIMIT, finding, "names are random, so bytes are safe; locks may be as weak")
    if none:
        return Check(name, Level.LIMIT, f"{len(none)} of {_RACES} files were created by none")
    return Check(name, Level.OK, f"{_RACES} files, each created once ({len(mine['won'])} here)")


def visibility(storage: Storage, work: str, other: Other) -> Iterator[Check]:
    """Try how soon the other node sees what is created, renamed and appended here. Times include the answer's way.

    Raises:
        PeerLostError: The other one is gone.
        OSError: The file system fails here.
    """
    pings = [_timed(other, {"do": "ping"}) for _ in range(_PINGS)]
    yield Check("messages between nodes", Level.OK, f"{statistics.median(pings) * 1e3:.1f} ms there and back")
    yield _see_name(storage, work, other)
    yield _see_rename(storage, work, other)
    yield _see_appends(storage, work, other)
    yield _see_removed(storage, work, other)


def _timed(other: Other, request: Mapping[str, Any]) -> float:
    started_s = time.perf_counter()
    other.send(request)
    other.receive()
    return time.perf_counter() - started_s


def _see_name(storage: Storage, work: str, other: Other) -> Check:
    name = "new files between nodes"
    _ask(other, do="await_name", name="new")
    started_s = time.perf_counter()
    write_file(storage, os.path.join(work, "new"), b"x")
    reply = other.receive()
    took_ms = (time.perf_counter() - started_s) * 1e3
    if not (reply.get("seen") and reply.get("listed")):
        return Check(
            name, Level.LIMIT, f"not seen within {LIMIT_S:g} s", "NFS: mount it with lookupcache=positive, actimeo=1"
        )
    if not reply.get("touched"):
        return Check(
            name, Level.LIMIT, f"seen after {took_ms:.1f} ms, but the directory's time stamp does not change",
            "what others publish is noticed by new processes only"
        )  # fmt: skip
    return Check(name, Level.OK, f"seen after {took_ms:.1f} ms")


def _see_rename(storage: Storage, work: str, other: Other) -> Check:
    name = "renamed files between nodes"
    path = os.path.join(work, "renamed")
    write_file(storage, path, b"old")
    write_file(storage, f"{path}.new", b"new")
    reply = _ask(other, do="await_content", name="renamed", content="new")
    if not reply.get("ready"):
        return Check(name, Level.LIMIT, f"fails: {_why(reply)}")
    started_s = time.perf_counter()
    storage.rename(f"{path}.new", path)
    reply = other.receive()
    if not reply.get("seen"):
        return Check(name, Level.LIMIT, f"not seen within {LIMIT_S:g} s")
    return Check(name, Level.OK, f"seen after {(time.perf_counter() - started_s) * 1e3:.1f} ms")


def _see_appends(storage: Storage, work: str, other: Other) -> Check:
    name = "appended bytes between nodes"
    times, wrong, reopened = [], 0, 0
    deadline_s = time.perf_counter() + _APPENDS_S
    fd = storage.open(os.path.join(work, "appended"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        for number in range(_APPENDS):
            position = number * _APPEND_BYTES
            request = {"name": "appended", "number": number, "position": position, "size": _APPEND_BYTES}
            reply = _ask(other, do="follow", **request)
            if not reply.get("ready"):
                return Check(name, Level.LIMIT, f"fails: {_why(reply)}")
            started_s = time.perf_counter()
            storage.pwritev(fd, [pattern(number, _APPEND_BYTES)], position)
            reply = other.receive()
            times.append(time.perf_counter() - started_s)
            if not reply.get("seen"):
                return Check(
                    name, Level.LIMIT, f"not seen, or not right, within {LIMIT_S:g} s",
                    "what one node fetches is of use to the others only when it has ended"
                )  # fmt: skip
            wrong += reply["wrong"]
            reopened += reply["reopened"]
            if time.perf_counter() > deadline_s:
                break
    finally:
        storage.close(fd)
    finding = f"seen after {statistics.median(times) * 1e3:.1f} ms, at most {max(times) * 1e3:.1f} ms"
    if wrong:
        finding += f"; other bytes were read {wrong} times first, which checksums tell"
    if reopened:
        return Check(name, Level.LIMIT, f"{finding}; {reopened} times only when the file was opened again")
    if statistics.median(times) > _SLOW_S:
        return Check(name, Level.LIMIT, finding, "what another node has just fetched is waited for, or fetched again")
    return Check(name, Level.NOTE if wrong else Level.OK, finding)


def _see_removed(storage: Storage, work: str, other: Other) -> Check:
    name = "removed files between nodes"
    path = os.path.join(work, "removed")
    write_file(storage, path, b"still there")
    reply = _ask(other, do="open", name="removed")
    if "error" in reply:
        return Check(name, Level.NOTE, f"cannot be tried: {_why(reply)}")
    storage.unlink(path)
    reply = _ask(other, do="read_open", name="removed")
    if reply.get("data") == "still there":
        return Check(name, Level.OK, "stay readable to the node that has them open")
    return Check(name, Level.NOTE, f"cannot be read by the node that has them open ({_why(reply)}): it asks the origin")


def _why(reply: Mapping[str, Any]) -> str:
    if "error" in reply:
        return str(reply["error"])
    number = reply.get("errno")
    if number is not None:
        return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
    return "held by somebody else" if reply.get("outcome") == _HELD else "no reason is given"
