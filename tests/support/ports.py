"""Ports for servers that tests start."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

__all__ = ["free_port"]

# None of those that systems give away by themselves, nor that the demo and the benchmark choose from, in shares that a
# process has for itself as long as it lives.
FIRST, LAST, SHARE = 10_000, 20_000, 200
_shares: dict[int, tuple[object, itertools.cycle[int]]] = {}


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on, and no other process of tests is given."""
    for port in itertools.islice(_share(), SHARE):
        # Not by listening on it: what another thread forks at that moment would listen too, until it has executed.
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return port
    raise OSError(f"none of {SHARE} ports is free")


def _share() -> itertools.cycle[int]:
    """Return the ports of this process, in turn: one that was just given back is the last to be given again."""
    if os.getpid() not in _shares:
        directory = Path(tempfile.gettempdir()) / f"jcache-test-ports-{os.getuid()}"
        directory.mkdir(exist_ok=True)
        for first in range(FIRST, LAST, SHARE):
            file = (directory / str(first)).open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            _shares[os.getpid()] = file, itertools.cycle(range(first, first + SHARE))
            break
        else:
            raise OSError("other processes of tests have all ports")
    return _shares[os.getpid()][1]
