"""A second process on this node: `python -m jcache.doctor.rival DIR` does what it is asked through its pipes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from jcache.doctor.deeds import LIMIT_S, Deeds
from jcache.doctor.model import Check, Level
from jcache.doctor.pair import PeerLostError, exclusion
from jcache.system.locks import Outcome
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_processes"]

_ANSWER_S = 4 * LIMIT_S


class _Rival:
    """The other process, and its pipes."""

    def __init__(self, directory: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
        self._process = subprocess.Popen(  # noqa: S603  # this very Python, this very program
            [sys.executable, "-m", "jcache.doctor.rival", directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            bufsize=0,  # what lies in a buffer would be hidden from `select`
        )

    def send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerLostError("the second process is gone") from error

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # Replies are shorter than a pipe's buffer and end in a newline, so a line that begins is there.
        if not select.select([self._process.stdout], [], [], _ANSWER_S)[0]:
            raise PeerLostError(f"the second process does not answer within {_ANSWER_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerLostError("the second process has ended")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent goes nowhere
                pipe.close()


def check_processes(storage: Storage, work: str) -> Iterator[Check]:
    """Try whether two processes of this node exclude one another, and whether locks go with their process."""
    here, rival = Deeds(storage, work), _Rival(work)
    try:
        usable = {}
        for check in exclusion(here, rival, "on this node"):
            usable[check.name.split(" ")[0]] = check.level is Level.OK
            yield check
        requests: list[dict[str, Any]] = []
        if usable["flock"]:
            requests.append({"do": "flock", "name": "dying"})
        if usable["range"]:
            requests.append({"do": "ranges", "name": "dying", "start": 0, "stop": 10})
        for request in requests:
            rival.send(request)
            rival.receive()
        rival.kill()
        replies = [here.one({**request, "wait_s": LIMIT_S}) for request in requests]
        if not requests:
            return
        if all(reply.get("outcome") == Outcome.TAKEN.value for reply in replies):
            yield Check("locks of a killed process", Level.OK, "are free at once")
        else:
            yield Check("locks of a killed process", Level.LIMIT, f"are not free after {LIMIT_S:g} s")
    except PeerLostError as error:
        yield Check("locks on this node", Level.LIMIT, f"could not be tried: {error}")
    finally:
        here.close()
        rival.close()


def _serve(directory: str) -> None:
    deeds = Deeds(Storage(), directory)
    for line in sys.stdin:
        for reply in deeds.do(json.loads(line)):
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
