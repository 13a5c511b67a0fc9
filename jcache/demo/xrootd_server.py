"""A private XRootD server on the loopback interface, started for as long as somebody needs it.

The server is the real ``xrootd`` daemon. It counts for itself: its trace has one line, with offset and length, for each
range that a client reads, and that is the source of :meth:`XrootdServer.reads`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

# The daemon refuses to run as root; these accounts exist wherever it was packaged.
_ACCOUNTS = ("xrootd", "daemon", "nobody")
_READ_LINE = re.compile(rb"Xrootd_Protocol: .*\b(pgread|readV|read) (\d+)@(\d+)")
_POLL_S = 0.02
_PORT_ATTEMPTS = 3
# The daemon has no setting for the address that it listens on; built with systemd, it takes a socket that is passed.
_WITH_SOCKET = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null'

# Where a server may listen on all interfaces: it turns others away, or is for all.
_OPEN_OR_HERE = frozenset({"127.0.0.1", "localhost", "0.0.0.0"})  # noqa: S104 - compared


class XrootdUnavailableError(RuntimeError):
    """No XRootD server can be had here; the message says why."""


class PortTakenError(XrootdUnavailableError):
    """Another process listens there."""


class XrootdRead(NamedTuple):
    """One range that a client asked the server for; a vector read gives one for each of its ranges."""

    operation: str
    offset: int
    length: int


class XrootdServer:
    """A running ``xrootd`` that exports one directory read-only on ``127.0.0.1``.

    Args:
        directory: What is exported, as ``/``. Every account must be able to reach it: the daemon does not run as root.
        probe: Name of a file in ``directory``; the server counts as started when it answers a ``stat`` of this file.
            None stands for the directory itself.
        port: Port to listen on, or None for a free one.
        startup_s: Seconds to wait for the first answer.

    Raises:
        XrootdUnavailableError: ``xrootd`` is not installed, does not start, or cannot reach the directory.
    """

    kind = "xrootd"
    counted = "the server's trace of reads"

    rights = "r/o"
    """What clients may do, as its configuration says it."""

    host = "127.0.0.1"
    """The address that it listens on."""

    has_own_session = False
    """Whether a terminal's interrupt does not reach it."""

    def __init__(
        self, directory: Path, *, probe: str | None = None, port: int | None = None, startup_s: float = 15.0
    ) -> None:
        self.directory = directory
        self._probe = "/" + (probe or "")
        self._program = find_xrootd()
        self._work = Path(tempfile.mkdtemp(prefix="jcache-xrootd-"))
        self._log = self._work / "log"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.port = self._start_on_free_port(startup_s) if port is None else self._start(port, startup_s)
        except BaseException:
            self.stop()
            shutil.rmtree(self._work, ignore_errors=True)
            raise

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        if self._process is None:
            raise RuntimeError("the XRootD server is stopped")
        return self._process.pid

    @property
    def address(self) -> str:
        """``host:port`` of the server."""
        return f"127.0.0.1:{self.port}"

    def url(self, name: str, port: int | None = None) -> str:
        """URL of a file in the exported directory; through another port, if something is in front of the server."""
        return f"root://127.0.0.1:{port or self.port}//{name}"

    def reads(self) -> list[XrootdRead]:
        """Return every range read so far, in the order in which the server received them.

        A length is what the client asked for, which is more than it got where the range goes past the end of the file.
        """
        return [
            XrootdRead(operation.decode(), int(offset), int(length))
            for operation, length, offset in _READ_LINE.findall(self._log.read_bytes())
        ]

    def sent_bytes(self) -> int:
        """Return the data bytes that clients asked for so far."""
        return sum(read.length for read in self.reads())

    def log(self) -> str:
        """Return what the daemon has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """End the daemon and wait for it; the port is free afterwards. Does nothing when it is stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, *, startup_s: float = 15.0) -> None:
        """Start the stopped server again on the same port; counting goes on."""
        if self._process is None:
            self._start(self.port, startup_s)

    def close(self) -> None:
        """Stop the daemon and remove its log and working files."""
        self.stop()
        shutil.rmtree(self._work, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _start_on_free_port(self, startup_s: float) -> int:
        # Between the choice of a port and its use another process can take it.
        for attempt in range(_PORT_ATTEMPTS):
            try:
                return self._start(free_port(), startup_s)
            except PortTakenError:
                if attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _start(self, port: int, startup_s: float) -> int:
        try:
            listener = socket.create_server((self.host, port))
        except OSError as error:
            raise PortTakenError(f"xrootd cannot have port {port}: {error.strerror}") from error
        try:
            with listener:
                self._launch(port, startup_s, listener)
        except XrootdUnavailableError as error:
            if "bind" not in str(error).lower() or self.host not in _OPEN_OR_HERE:
                raise
            # This build takes no socket. It listens on all interfaces then, and turns away who comes from elsewhere.
            self._launch(port, startup_s, None)
        return port

    def _launch(self, port: int, startup_s: float, listener: socket.socket | None) -> None:
        self._work.chmod(0o755)
        admin = self._work / "admin"
        admin.mkdir(exist_ok=True)
        config = self._work / "xrootd.cfg"
        config.write_text(
            f"xrd.port {port}\n"
            "xrd.network nodnr\n"
            f"all.export / {self.rights}\n"
            f"all.adminpath {admin}\n"
            f"all.pidpath {admin}\n" + "".join(f"{line}\n" for line in self._settings())
        )
        command = [self._program, "-I", "v4", "-c", os.fspath(config)]
        if os.geteuid() == 0:
            account = _unprivileged_account()
            closed = [path for path in (self.directory, *self.directory.parents) if not path.stat().st_mode & 0o001]
            if closed:
                raise XrootdUnavailableError(
                    f"xrootd, as {account.pw_name}, cannot reach {self.directory}: {closed[-1]} is closed to others"
                )
            os.chown(admin, account.pw_uid, account.pw_gid)
            command[1:1] = ["-R", account.pw_name]
        if listener is not None:
            command[:0] = ["/bin/sh", "-c", _WITH_SOCKET, "sh"]
        with self._log.open("ab") as log:
            start = log.tell()
            stdin = subprocess.DEVNULL if listener is None else listener.fileno()
            self._process = subprocess.Popen(
                command,
                cwd=admin,
                env=self._environ(),
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=self.has_own_session,
            )
        self._wait_until_ready(port, startup_s, log_start=start)

    def _settings(self) -> list[str]:
        """Return what its configuration says besides ports, rights and places of its own."""
        return [
            "xrd.allow host 127.0.0.1",
            f"oss.localroot {self.directory}",
            "xrootd.chksum max 2 adler32",
            "xrootd.trace fsio",
        ]

    def _environ(self) -> dict[str, str] | None:
        """Return the daemon's environment; None for this process's."""
        return None

    def _problem(self, port: int) -> str:
        """Ask it for its probe, and return what is wrong with the answer, if anything; raises OSError without one."""
        return stat_problem(self.host, port, self._probe)

    def _wait_until_ready(self, port: int, startup_s: float, *, log_start: int) -> None:
        # Where the port belongs to somebody else, that server might answer: the daemon's own word comes first.
        completed = f":{port} initialization completed".encode()
        deadline = time.monotonic() + startup_s
        problem = "no answer"
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                self._process = None
                raise XrootdUnavailableError(f"xrootd ended at start: {_reason(self.log())}")
            if completed in self._log.read_bytes()[log_start:]:
                try:
                    problem = self._problem(port)
                except OSError as error:
                    problem = str(error)
                else:
                    if not problem:
                        return
                    break
            time.sleep(_POLL_S)
        self.stop()
        raise XrootdUnavailableError(f"xrootd cannot serve {self._probe} of {self.directory}: {problem}")


def find_xrootd() -> str:
    """Return the path of the ``xrootd`` program.

    Raises:
        XrootdUnavailableError: It is not installed.
    """
    program = shutil.which("xrootd") or shutil.which("xrootd", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise XrootdUnavailableError("xrootd is not installed (Debian: apt-get install xrootd-server)")
    return program


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at this moment.

    It is none of those that systems give away by themselves (Linux: from 32768 on, macOS: from 49152): until its server
    listens, or while that is stopped, no connection and no other server is given it.
    """
    # Not the generator of the module, which tests may have seeded: two of them at a time would choose the same.
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def stat_problem(host: str, port: int, path: str, *, timeout_s: float = 5.0) -> str:
    """Ask a server for a ``stat`` in the XRootD protocol, without the XRootD client.

    The client library would remember a refused connection for two minutes and would leave threads in this process.

    Returns:
        "" when the server answered with a file or directory, else its error message.

    Raises:
        OSError: No conversation with the server.
    """
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(struct.pack(">5i", 0, 0, 0, 4, 2012))
        _response(connection)
        login = struct.pack(">2sHi8sBBBBi", b"\0\1", 3007, os.getpid(), b"jcache", 0, 0, 5, 0, 0)
        connection.sendall(login)
        status, body = _response(connection)
        if status == 0:
            name = path.encode()
            connection.sendall(struct.pack(">2sH16si", b"\0\1", 3017, bytes(16), len(name)) + name)
            status, body = _response(connection)
        return "" if status == 0 else body[4:].rstrip(b"\0").decode(errors="replace") or f"status {status}"


def _response(connection: socket.socket) -> tuple[int, bytes]:
    _, status, length = struct.unpack(">2sHi", _exactly(connection, 8))
    return status, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionError("the server closed the connection")
        received += chunk
    return bytes(received)


def _unprivileged_account() -> pwd.struct_passwd:
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise XrootdUnavailableError(f"xrootd does not run as root and there is no account {' or '.join(_ACCOUNTS)}")


def _reason(log: str) -> str:
    """Return the line of a failed start's log that says most: its last complaint, since the end only says "failed"."""
    lines = [line for line in log.splitlines() if line.strip()]
    complaints = [line for line in lines if re.search(r"unable|denied|cannot|invalid", line, re.IGNORECASE)]
    return (complaints or lines or ["no log"])[-1]
