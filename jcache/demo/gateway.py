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

__all__ = ["CurlRead", "read_by_curl", "warm_whole"]

_TIMEOUT_S = 60
_ADDRESS = re.compile(r"serving at (http://\S+)")


@dataclass(frozen=True, slots=True)
class CurlRead:
    """What `curl` read through a gateway."""

    name: str
    nbytes: int
    equal: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"file": self.name, "bytes": self.nbytes, "equal": self.equal}


def warm_whole(cache: Path, url: str) -> bool:
    """Have all of a file in a cache; False where there is no `curl` to read it, or it cannot be had."""
    if shutil.which("curl") is None:
        return False
    command = [sys.executable, "-m", "jcache", "warm", "--dir", os.fspath(cache), url]
    done = subprocess.run(command, env=_environment(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    return done.returncode == 0


def read_by_curl(cache: Path, url: str, file: Path) -> CurlRead | None:
    """Serve a cache, whose origin is stopped, and read a file of it with `curl`; None where nothing can be served.

    Args:
        cache: The cache, which has all of the file.
        url: The file's.
        file: What it is to be equal to.
    """
    origin = url.removesuffix(file.name)
    command = [sys.executable, "-m", "jcache", "serve", "--dir", os.fspath(cache), "--origin", origin, "--port", "0"]
    environment = _environment() | {"JCACHE_OFFLINE": "1", "JCACHE_SUMMARY": "0"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next((found[1] for line in server.stderr if (found := _ADDRESS.search(line))), None)
            if address is None:
                return None
            got = subprocess.run(
                ["curl", "--silent", "--fail", f"{address.rstrip('/')}/{file.name}"],
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            ).stdout
        finally:
            server.terminate()
    wanted = hashlib.sha256(file.read_bytes()).digest()
    return CurlRead(file.name, len(got), hashlib.sha256(got).digest() == wanted)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
