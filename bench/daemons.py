"""The servers of the benchmark: XRootD that does not log, XCache in front of it, nginx."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jcache.demo.xrootd_server import (
    XrootdUnavailableError,
    _unprivileged_account,
    find_xrootd,
    free_port,
    stat_problem,
)

ROOT = Path(__file__).resolve().parent.parent
START_S = 15.0

# No trace of reads, unlike the demo's server: a line for each of a million ranges would make the origin look slow.
ORIGIN = """
all.export / r/o
oss.localroot {directory}
"""
XCACHE = """
all.export /
oss.localroot {directory}
ofs.osslib libXrdPss.so
pss.cachelib libXrdPfc.so
pss.origin 127.0.0.1:{origin}
pfc.blocksize 128k
pfc.ram 1g
pfc.prefetch 0
pfc.diskusage 0.97 0.98
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A way to the origin.

    Attributes:
        rtt_ms: Round-trip time in milliseconds.
        gbit_s: Width in 10^9 bits per second, 0 for what the machine gives.
    """

    rtt_ms: float
    gbit_s: float = 0.0


LAN = Link(1)
STREAM = Link(10, 1)
WAN = Link(20, 1)


class Daemon:
    """A process that is ended with its owner."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def close(self) -> None:
        """End the process and wait for it."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Xrootd(Daemon):
    """An XRootD server with a configuration of the benchmark's own."""

    def __init__(self, directory: Path, template: str = ORIGIN, **names: object) -> None:
        super().__init__()
        self.work = Path(tempfile.mkdtemp(prefix="jcache-bench-xrootd-"))
        self.work.chmod(0o755)
        self.port = free_port()
        config = self.work / "xrootd.cfg"
        admin = self.work / "admin"
        admin.mkdir()
        config.write_text(
            f"xrd.port {self.port}\nxrd.network nodnr\nall.adminpath {admin}\nall.pidpath {admin}\n"
            + template.format(directory=directory, **names)
        )
        command = [find_xrootd(), "-c", os.fspath(config)]
        if os.geteuid() == 0:
            account = _unprivileged_account()
            os.chown(admin, account.pw_uid, account.pw_gid)
            if template is not ORIGIN:
                os.chown(directory, account.pw_uid, account.pw_gid)
            command += ["-R", account.pw_name]
        self.log = self.work / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=admin, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            if b"initialization completed" in self.log.read_bytes():
                with contextlib.suppress(OSError):
                    stat_problem("127.0.0.1", self.port, "/")
                    return
            time.sleep(0.02)
        text = self.log.read_text(errors="replace")
        self.close()
        raise XrootdUnavailableError(f"xrootd did not start:\n{text[-2000:]}")

    def close(self) -> None:
        """End the server and remove its files."""
        super().close()
        shutil.rmtree(self.work, ignore_errors=True)


def has_xcache() -> bool:
    """Whether the proxy cache is installed."""
    places = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
    return any(list(Path(place).glob("libXrdPfc*")) for place in places if Path(place).is_dir())
