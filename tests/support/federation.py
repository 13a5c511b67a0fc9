"""A redirector (cmsd) with data servers, of the real daemons, for tests that kill some of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from ports import free_port

from jcache.demo.xrootd_server import (
    XrootdUnavailableError,
    _unprivileged_account,
    find_xrootd,
    stat_problem,
)

_CONFIG = """
all.export / r/o
all.manager 127.0.0.1:{manager}
all.role {role}
all.adminpath {admin}
all.pidpath {admin}
xrd.network nodnr
xrd.allow host 127.0.0.1
xrd.allow host localhost
cms.delay startup 1 servers 1 lookup 1 full 1 suspend 1
cms.space min 1m 2m
xrootd.trace fsio
"""


class Federation:
    """A redirector in front of data servers, each with the directory of its own that `directories` names.

    `write` puts a file into all of them.
    """

    def __init__(self, count: int = 2) -> None:
        self._xrootd = find_xrootd()
        cmsd = shutil.which("cmsd", path=os.path.dirname(self._xrootd))
        if cmsd is None:
            raise XrootdUnavailableError("cmsd is not installed (Debian: apt-get install xrootd-server)")
        self._cmsd = cmsd
        self._work = Path(tempfile.mkdtemp(prefix="jcache-federation-"))
        self._work.chmod(0o755)
        self.port, self._manager = free_port(), free_port()
        self._count = count
        self.directories: list[Path] = []
        self._servers: list[list[subprocess.Popen[bytes]]] = []
        self._redirector = self._start("redirector", self.port, None)
        for number in range(count):
            directory = self._work / f"files{number}"
            directory.mkdir()
            self.directories.append(directory)
            self._servers.append(self._start(f"server{number}", free_port(), directory))

    def url(self, name: str) -> str:
        return f"root://127.0.0.1:{self.port}//{name}"

    def write(self, name: str, data: bytes, modified_s: int = 1_600_000_000) -> Path:
        for directory in self.directories:
            (directory / name).write_bytes(data)
            os.utime(directory / name, (modified_s, modified_s))
        self._wait(name)
        return self.directories[0] / name

    def reads(self) -> list[int]:
        """How often each data server was read from."""
        logs = [self._work / f"server{number}" / "xrootd.log" for number in range(len(self._servers))]
        return [log.read_bytes().count(b" readV ") for log in logs]

    def kill(self, number: int) -> None:
        """Kill a data server, as a machine that goes."""
        for process in self._servers[number]:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in [*self._redirector, *(each for server in self._servers for each in server)]:
            process.kill()
            process.wait()
        shutil.rmtree(self._work, ignore_errors=True)

    def _start(self, name: str, port: int, directory: Path | None) -> list[subprocess.Popen[bytes]]:
        admin = self._work / name
        admin.mkdir()
        account: list[str] = []
        if os.geteuid() == 0:
            who = _unprivileged_account()
            os.chown(admin, who.pw_uid, who.pw_gid)
            account = ["-R", who.pw_name]
        config = _CONFIG.format(manager=self._manager, role="server" if directory else "manager", admin=admin)
        started = []
        for program in (self._cmsd, self._xrootd):
            kind = os.path.basename(program)
            listens = port if kind == "xrootd" else None if directory else self._manager
            lines = [f"xrd.port {listens}"] * (listens is not None) + [f"oss.localroot {directory}"] * bool(directory)
            (self._work / f"{name}.{kind}.cfg").write_text("\n".join([config, *lines, ""]))
            command = [program, *account, "-I", "v4", "-n", name, "-c", str(self._work / f"{name}.{kind}.cfg")]
            with (admin / f"{kind}.log").open("ab") as log:
                started.append(
                    subprocess.Popen(command, cwd=admin, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
                )
            # Who finds its manager, or its cmsd, missing asks again after some seconds.
            log_says(admin / f"{kind}.log", f"{kind} {name}@".encode(), b"initialization completed")
        return started

    def _wait(self, name: str) -> None:
        """Wait until the redirector can name a server for a file: its answer to a stat is a redirection then."""
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            try:
                problem = stat_problem("127.0.0.1", self.port, f"/{name}")
            except OSError as error:
                problem = str(error)
            joined = (self._work / "redirector" / "cmsd.log").read_bytes().count(b" system ID: s-")
            if problem.startswith("127.0.0.1") and joined == self._count:
                return
            time.sleep(0.05)
        raise XrootdUnavailableError(f"the redirector names no server: {problem}")


def log_says(log: Path, *words: bytes) -> None:
    """Wait until one line of a log has all these words."""
    deadline_s = time.monotonic() + 30
    while not any(all(word in line for word in words) for line in log.read_bytes().splitlines()):
        if time.monotonic() > deadline_s:
            raise XrootdUnavailableError(log.read_text(errors="replace")[-500:])
        time.sleep(0.02)
