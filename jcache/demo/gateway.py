"""The end of the demonstration: a program that knows nothing of Python reads a warm file, with the origin stopped."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CLIENTS", "ClientRead", "read_by", "warm_whole"]

_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class ClientRead:
    """What a client read through a gateway."""

    client: str
    name: str
    nbytes: int
    equal: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"file": self.name, "bytes": self.nbytes, "equal": self.equal}


@dataclass(frozen=True, slots=True)
class _Client:
    """How a client is served, and how it writes a file to stdout.

    Attributes:
        serve: Options of `jcache serve`.
        address: What the gateway says once it can be asked.
        command: The client's command, with the address and the file's name to be put in.
    """

    serve: tuple[str, ...]
    address: re.Pattern[str]
    command: tuple[str, ...]


CLIENTS = {
    "curl": _Client((), re.compile(r"serving at (http://\S+)"), ("--silent", "--fail", "{address}/{name}")),
    "xrdcp": _Client(("--xrootd", "0"), re.compile(r"serving at (root://\S+)"), ("--silent", "{address}//{name}", "-")),
}
"""By the command's name."""


def warm_whole(cache: Path, url: str) -> bool:
    """Have all of a file in a cache; False where there is no client to read it, or it cannot be had."""
    if not any(map(shutil.which, CLIENTS)):
        return False
    command = [sys.executable, "-m", "jcache", "warm", "--dir", os.fspath(cache), url]
    done = subprocess.run(command, env=_environment(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    return done.returncode == 0


def read_by(client: str, cache: Path, url: str, file: Path) -> ClientRead | None:
    """Serve a cache, whose origin is stopped, and read a file of it; None where nothing can be served to that client.

    Args:
        client: One of `CLIENTS`.
        cache: The cache, which has all of the file.
        url: The file's.
        file: What it is to be equal to.
    """
    how = CLIENTS[client]
    if shutil.which(client) is None:
        return None
    origin = url.removesuffix(file.name)
    command = [sys.executable, "-m", "jcache", "serve", "--dir", os.fspath(cache), "--origin", origin, "--port", "0"]
    environment = _environment() | {"JCACHE_OFFLINE": "1", "JCACHE_SUMMARY": "0"}
    with subprocess.Popen([*command, *how.serve], env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next((found[1] for line in server.stderr if (found := how.address.search(line))), None)
            if address is None:
                return None
            got = subprocess.run(
                [client, *(word.format(address=address.rstrip("/"), name=file.name) for word in how.command)],
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            ).stdout
        finally:
            server.terminate()
    wanted = hashlib.sha256(file.read_bytes()).digest()
    return ClientRead(client, file.name, len(got), hashlib.sha256(got).digest() == wanted)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
