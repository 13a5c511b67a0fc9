"""How two doctors on two nodes find each other in a directory, and talk there.

All that is said is in the names of empty directories: what a directory holds is the one thing that every shared file
system tells soon and alike, where opening a file that another node has just written can take seconds.

The first makes the directory `.doctor/offer`, as only one can; the second finds it and makes `second` in the first
one's workplace, as only one can too. An offer whose maker does not answer is one of a process that was killed; the
second removes it and makes its own. Both must be the same user's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jcache.doctor.pair import PeerLostError
from jcache.system import locks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcache.system.storage import Storage

__all__ = ["ROOT_NAME", "Channel", "Meeting", "clean", "meet", "workplace"]

ROOT_NAME = ".doctor"
"""Where doctors work, below the cache directory."""

_OFFER, _SECOND = "offer", "second"
_POLL_S = 0.02
_PART = 150  # characters in a name, with room for its number
_ANSWER_S = 30.0
_WELCOME_S = 10.0
_OLD_S = 3600.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def workplace(storage: Storage, directory: str) -> str:
    """Make a directory for one doctor below the cache directory, and return it; see `clean`.

    Raises:
        OSError: It cannot be made.
    """
    root = os.path.join(directory, ROOT_NAME)
    with contextlib.suppress(FileExistsError):
        storage.mkdir(root)
    _clean_old(storage, root)
    work = os.path.join(root, secrets.token_hex(8))
    storage.mkdir(work)
    return work


def clean(storage: Storage, work: str) -> None:
    """Remove what `workplace` made and what is in it, and the doctors' directory if no other one is there."""
    _remove(storage, work)
    with contextlib.suppress(OSError):  # another doctor is at work
        storage.rmdir(os.path.dirname(work))


def _remove(storage: Storage, path: str) -> None:
    with contextlib.suppress(OSError):  # what stays is found, and removed, by the next doctor
        for name in storage.listdir(path):
            each = os.path.join(path, name)
            try:
                storage.unlink(each)
            except (IsADirectoryError, PermissionError):
                _remove(storage, each)
        storage.rmdir(path)


def _clean_old(storage: Storage, root: str) -> None:
    """Remove what doctors that were killed have left."""
    with contextlib.suppress(OSError):
        for name in storage.listdir(root):
            path = os.path.join(root, name)
            if time.time() - storage.stat(path).st_mtime < _OLD_S:
                continue
            _remove(storage, path)


class Channel:
    """Messages to and from the other node."""

    def __init__(self, storage: Storage, mine: str, theirs: str) -> None:
        """Name the directories of both, which exist."""
        self._storage, self._mine, self._theirs = storage, mine, theirs
        self._sent = self._received = 0

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something.

        Raises:
            OSError: The file system failed.
        """
        _tell(self._storage, self._mine, self._sent, message)
        self._sent += 1

    def receive(self, timeout_s: float = _ANSWER_S) -> dict[str, Any]:
        """Wait for the next thing that is said.

        Raises:
            PeerLostError: Nothing came.
        """
        for pause_s in locks.pauses(timeout_s):
            message = _hear(self._storage, self._theirs, self._received)
            if message is not None:
                self._received += 1
                return message
            time.sleep(pause_s)
        raise PeerLostError(f"the peer said nothing for {timeout_s:g} s")


def _tell(storage: Storage, directory: str, number: int, message: Mapping[str, Any]) -> None:
    """Put a message into a directory, in as many names as it takes."""
    text = base64.urlsafe_b64encode(zlib.compress(json.dumps(message).encode())).decode()
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    for index, part in enumerate(parts):
        storage.mkdir(os.path.join(directory, f"{number}.{index}.{len(parts)}.{part}"))


def _hear(storage: Storage, directory: str, number: int) -> dict[str, Any] | None:
    """Return a message that is there as a whole, or None."""
    parts: dict[int, str] = {}
    total = -1
    try:
        for name in storage.listdir(directory):
            fields = name.split(".")
            if len(fields) == 4 and fields[0] == str(number):
                total, parts[int(fields[1])] = int(fields[2]), fields[3]
        if len(parts) != total:
            return None
        text = "".join(parts[index] for index in range(total))
        message = json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
    except (OSError, ValueError, KeyError, zlib.error):  # not there yet, or nothing of ours
        return None
    return message if isinstance(message, dict) else None


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two doctors that have found each other."""

    is_first: bool
    channel: Channel
    work: str
    """A directory that both know."""
    peer: str
    """The other's host and process, for people."""
    is_same_machine: bool


def meet(storage: Storage, work: str, *, wait_s: float) -> Meeting:
    """Find the doctor that was started on another node, or wait for it.

    Args:
        storage: The file system.
        work: This doctor's own workplace.
        wait_s: How long to wait.

    Raises:
        PeerLostError: None came.
        OSError: The file system failed.
    """
    deadline_s = time.monotonic() + wait_s
    root = os.path.dirname(work)
    for name in ("1", "2"):
        storage.mkdir(os.path.join(work, name))
    me = {"work": os.path.basename(work), "host": os.uname().nodename, "pid": os.getpid(), "boot": _boot_id()}
    offer = os.path.join(root, _OFFER)
    while time.monotonic() < deadline_s:
        try:
            storage.mkdir(offer)
        except FileExistsError:
            meeting = _answer(storage, root, me, deadline_s)
        else:
            _tell(storage, offer, 0, me)
            meeting = _await_second(storage, offer, work, me, deadline_s)
        if meeting is not None:
            return meeting
        time.sleep(_POLL_S)
    raise PeerLostError(f"no other doctor came within {wait_s:g} s")


def _await_second(storage: Storage, offer: str, work: str, me: dict[str, Any], deadline_s: float) -> Meeting | None:
    is_replaced = False
    try:
        while time.monotonic() < deadline_s:
            second = _load(storage, os.path.join(work, _SECOND))
            if second is not None:
                channel = Channel(storage, os.path.join(work, "1"), os.path.join(work, "2"))
                channel.send({"welcome": second["work"]})
                return _meeting(channel, work, me, second, is_first=True)
            current = _load(storage, offer)
            if current is not None and current["work"] != me["work"]:
                is_replaced = True  # it was taken for stale
                return None
            time.sleep(_POLL_S)
        return None
    finally:
        if not is_replaced:
            _remove(storage, offer)


def _answer(storage: Storage, root: str, me: dict[str, Any], deadline_s: float) -> Meeting | None:
    """Take up an offer; None if it was none, or nobody stands behind it any more."""
    offer = os.path.join(root, _OFFER)
    first = _load(storage, offer)
    if first is None:
        return None  # not written yet, or gone
    work = os.path.join(root, os.path.basename(first["work"]))
    channel = Channel(storage, os.path.join(work, "2"), os.path.join(work, "1"))
    left_s = deadline_s - time.monotonic()
    try:
        storage.mkdir(os.path.join(work, _SECOND))
        _tell(storage, os.path.join(work, _SECOND), 0, me)
        welcome = channel.receive(min(_WELCOME_S, left_s))
        if welcome.get("welcome") == me["work"]:
            return _meeting(channel, work, me, first, is_first=False)
    except FileExistsError:
        time.sleep(min(0.5, left_s))  # two others are at it, or were
        if _age_s(storage, os.path.join(work, _SECOND)) < _WELCOME_S:
            return None
    except (PeerLostError, FileNotFoundError):
        pass
    again = _load(storage, offer)
    if again is not None and again["work"] == first["work"]:
        _remove(storage, offer)
        _remove(storage, work)
    return None


def _age_s(storage: Storage, path: str) -> float:
    try:
        return time.time() - storage.stat(path).st_mtime
    except OSError:  # gone: as old as can be
        return _OLD_S


def _meeting(channel: Channel, work: str, me: dict[str, Any], other: dict[str, Any], *, is_first: bool) -> Meeting:
    peer = f"{other['host']} (process {other['pid']})"
    return Meeting(is_first, channel, work, peer, bool(me["boot"]) and me["boot"] == other["boot"])


def _load(storage: Storage, path: str) -> dict[str, Any] | None:
    loaded = _hear(storage, path, 0)
    return loaded if loaded is not None and {"work", "host", "pid", "boot"} <= loaded.keys() else None


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
