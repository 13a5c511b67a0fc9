"""The whole examination of a directory, alone or together with a doctor on another node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jcache.doctor.deeds import Deeds
from jcache.doctor.meeting import clean, meet, workplace
from jcache.doctor.model import Check, Diagnosis, Level
from jcache.doctor.mounts import judge
from jcache.doctor.pair import PeerLostError, exclusion, visibility
from jcache.doctor.probes import check_directory, latencies, tries
from jcache.doctor.rival import check_processes
from jcache.system.mounts import find_mount
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.doctor.meeting import Meeting

__all__ = ["PEER_WAIT_S", "examine"]

PEER_WAIT_S = 120.0

_CHECKS = "checks"


def examine(
    directory: str,
    *,
    storage: Storage | None = None,
    peer_wait_s: float | None = None,
    progress: Callable[[str], object] = lambda what: None,  # noqa: ARG005
) -> Diagnosis:
    """Try out whether a directory is fit to be a cache, and leave it as it was.

    Args:
        directory: Existing.
        storage: The file system; the operating system's by default.
        peer_wait_s: Seconds to wait for a doctor that is started on another node; None to go without one.
        progress: Is told what is being done.

    Returns:
        The diagnosis. What the file system refuses is a finding, never an exception.
    """
    storage = Storage() if storage is None else storage
    diagnosis = Diagnosis(os.path.abspath(directory), os.uname().nodename)
    checks = diagnosis.checks
    mount = find_mount(directory)
    checks.append(judge(mount))
    checks.extend(check_directory(storage, directory))
    try:
        work = workplace(storage, directory)
    except OSError as error:
        checks.append(Check("write", Level.BAD, f"nothing can be written: {error.strerror or error}"))
        return diagnosis
    try:
        progress("files")
        checks.extend(tries(storage, work))
        progress("latency")
        checks.extend(latencies(storage, work))
        progress("two processes")
        checks.extend(check_processes(storage, work))
        if peer_wait_s is not None:
            progress("another node")
            checks.extend(_with_peer(storage, work, peer_wait_s, progress))
        elif mount is not None and mount.is_shared:
            advice = "run `jcache doctor --peer` on two nodes at the same time"
            checks.append(Check("between nodes", Level.NOTE, "not tried", advice))
    except OSError as error:
        checks.append(Check("write", Level.BAD, f"fails: {error.strerror or error}"))
    finally:
        clean(storage, work)
    return diagnosis


def _with_peer(storage: Storage, work: str, wait_s: float, progress: Callable[[str], object]) -> Iterator[Check]:
    name = "between nodes"
    try:
        meeting = meet(storage, work, wait_s=wait_s)
    except PeerLostError as error:
        yield Check(
            name, Level.BAD, str(error),
            "start it on both nodes at the same time; if it was, they do not share this directory"
        )  # fmt: skip
        return
    except OSError as error:
        yield Check(name, Level.BAD, f"the peer cannot be met: {error.strerror or error}")
        return
    progress(f"together with {meeting.peer}")
    if meeting.is_same_machine:
        yield Check(name, Level.NOTE, f"the peer, {meeting.peer}, runs on this same machine", "start it on another one")
    else:
        yield Check(name, Level.OK, f"tried with {meeting.peer}")
    deeds = Deeds(storage, meeting.work)
    try:
        if meeting.is_first:
            yield from _lead(storage, meeting, deeds)
        else:
            yield from _follow(meeting, deeds)
    except PeerLostError as error:
        yield Check(name, Level.BAD, f"given up: {error}", "run it again")
    except OSError as error:
        yield Check(name, Level.BAD, f"fails: {error.strerror or error}")
    finally:
        deeds.close()


def _lead(storage: Storage, meeting: Meeting, deeds: Deeds) -> Iterator[Check]:
    channel = meeting.channel
    found = []
    for checks in (exclusion(deeds, channel, "between nodes"), visibility(storage, meeting.work, channel)):
        for check in checks:
            found.append(check)
            yield check
    channel.send({_CHECKS: [check.to_json() for check in found]})
    channel.receive()  # before the files of both go


def _follow(meeting: Meeting, deeds: Deeds) -> Iterator[Check]:
    channel = meeting.channel
    while True:
        request = channel.receive()
        if _CHECKS in request:
            channel.send({})
            yield from (Check.from_json(check) for check in request[_CHECKS])
            return
        for reply in deeds.do(request):
            channel.send(reply)
