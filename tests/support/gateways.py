"""`jcache serve` as a process of its own, and clients for it that send exactly what a test says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import Message
    from pathlib import Path

ADDRESS = re.compile(r"serving at (https?://\S+)")
ROOT_ADDRESS = re.compile(r"serving at root://([0-9.]+):([0-9]+)")
DOOR_S = CLIENT_S = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as it came over the wire."""

    status: int
    headers: Message
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return self.headers[name]


class GatewayProcess:
    """A running gateway; `stop` ends it, and returns its exit code.

    `start` is a command that executes Python with the arguments that follow it; it gets the descriptors `pass_fds`.
    """

    def __init__(
        self,
        cache: Path,
        *args: str,
        start: Sequence[str] = (sys.executable,),
        pass_fds: Sequence[int] = (),
        **environ: str,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
        clean |= {"JCACHE_DIR": os.fspath(cache), "JCACHE_RETRIES": "0", "JCACHE_SUMMARY": "0", **environ}
        self.process = subprocess.Popen(
            [*start, "-m", "jcache", "serve", "--port", "0", *args],
            env=clean,
            pass_fds=pass_fds,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stderr = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line
            if found := ADDRESS.search(line):
                self.url = found[1]
                break
        else:
            raise RuntimeError(f"no gateway: {self.process.wait()}: {self.stderr}")
        assert self.stderr.startswith("jcache: serving at "), self.stderr
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        where = urlsplit(self.url)
        self.host, self.port = where.hostname or "", where.port or 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=30)

    def is_refusing(self) -> bool:
        """Whether it takes no more connections."""
        try:
            self.connect().close()
        except (ConnectionRefusedError, ConnectionResetError):  # it may close just now
            return True
        return False

    def get(self, target: str = "/", *, method: str = "GET", **headers: str) -> Reply:
        """Ask on a connection of its own; `If_Match='"a"'` is a header field."""
        return self.send(request(target, method=method, **headers), method=method)

    def send(self, data: bytes, *, method: str = "GET") -> Reply:
        """Send bytes, and read one answer to its end."""
        with self.connect() as connection:
            with contextlib.suppress(OSError):  # it may have been refused before it was all there
                connection.sendall(data)
            return reply(connection.makefile("rb"), method=method)


def door(gateway: GatewayProcess) -> tuple[str, int]:
    """Return where its xrootd listens; skip where there can be none."""
    deadline = time.monotonic() + DOOR_S
    while not (found := ROOT_ADDRESS.search(gateway.stderr)):
        if gateway.process.poll() is not None:
            gateway.stop()
            pytest.skip(gateway.stderr.splitlines()[-1])
        assert time.monotonic() < deadline, gateway.stderr
        time.sleep(0.05)
    return found[1], int(found[2])


def by_door(script: str, url: str) -> str:
    """Run a script of a client of XRootD's without JCache, patiently; return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    environ |= {"XRD_REQUESTTIMEOUT": "120", "XRD_CONNECTIONRETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, url], env=environ, capture_output=True, text=True, timeout=CLIENT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def request(target: str, *, method: str = "GET", **headers: str) -> bytes:
    fields = {"Host": "localhost", "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def reply(stream, *, method: str = "GET") -> Reply:
    """Read an answer; a body that is shorter than it was said to be is an error."""
    line = stream.readline()
    if not line:
        raise ConnectionResetError("no answer")
    version, status = line.split()[:2]
    assert version.startswith(b"HTTP/1."), line
    head = b""
    while (field := stream.readline()) not in (b"\r\n", b""):
        head += field
    headers = message_from_bytes(head, policy=HTTP)
    body = b""
    if method != "HEAD" and status not in (b"304", b"204"):
        if headers["Transfer-Encoding"] == "chunked":
            while size := int(stream.readline(), 16):
                body += exactly(stream, size)
                assert stream.readline() == b"\r\n"
            stream.readline()
        elif headers["Content-Length"] is not None:
            body = exactly(stream, int(headers["Content-Length"]))
        else:
            body = stream.read()
    return Reply(int(status), headers, body)


def exactly(stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ConnectionResetError(f"{len(data)} of {size} bytes")
    return data
