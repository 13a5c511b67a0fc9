"""A CephFS of this machine's own, on loopback, seen through two clients that know nothing of each other.

What one client writes the other sees only through the file system, as two nodes of a cluster would. Needs root and the
programs of Debian's packages ceph-mon, ceph-mgr, ceph-osd, ceph-mds, ceph-fuse and ceph-common.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER = ("ceph", "ceph-authtool", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool")
PROGRAMS = (*CLUSTER, "ceph-mds", "ceph-fuse")
START_S, STOP_S = 120, 20

_CONFIG = """
[global]
fsid = {fsid}
mon_initial_members = m
mon_host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = {work}/keyring
run_dir = {work}
log_file = {work}/$name.log
pid_file =
admin_socket =
mon_data = {work}/mon
mgr_data = {work}/mgr
osd_data = {work}/osd
mds_data = {work}/mds
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
osd_memory_target = 1073741824
bluestore_block_create = true
bluestore_block_size = 4294967296
"""


def unavailable() -> str | None:
    """Say why there can be no CephFS here, or None."""
    if os.geteuid() != 0:
        return "mounting a CephFS needs root"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"not installed: {', '.join(missing)}"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    return None


class Client:
    """One mounted client: a ceph-fuse process of its own."""

    def __init__(self, config: Path, path: Path) -> None:
        self._config = config
        self.path = path
        path.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.mount()

    def mount(self) -> None:
        """Mount the file system, again if need be."""
        self.unmount()
        # In the foreground, so that it is this process's child, and its number known.
        self._process = subprocess.Popen(
            ["ceph-fuse", "-f", "-c", os.fspath(self._config), os.fspath(self.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: os.path.ismount(self.path), START_S, "the mount")

    def stop(self) -> None:
        """Make the mount hang, and wait until no thread of the client takes a request any more."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)

        def is_stopped() -> bool:
            tasks = Path(f"/proc/{process.pid}/task").glob("*/stat")
            return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

        wait_for(is_stopped, STOP_S, "the client's end")

    def go_on(self) -> None:
        """Bring a mount back that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Let the client die without a word to its servers; the mount stays, and fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def unmount(self) -> None:
        """Unmount, also what hangs or whose client died."""
        process, self._process = self._process, None
        if process is None:
            return
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Cluster:
    """Monitor, manager, and one object store of 4 GB at most (sparse)."""

    more = ""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._config = work / "ceph.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every daemon."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
        deadline_s = time.monotonic() + STOP_S
        for daemon in self._daemons:
            try:
                daemon.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def _start(self) -> None:
        work, fsid = self._work, str(uuid.uuid4())
        for name in ("mon", "mgr", "osd"):
            (work / name).mkdir()
        address = f"[v2:127.0.0.1:{(v2 := free_port())},v1:127.0.0.1:{(v1 := free_port())}]"
        self._config.write_text(_CONFIG.format(fsid=fsid, work=work, v1=v1, v2=v2) + self.more)
        keyring, monmap = os.fspath(work / "keyring"), os.fspath(work / "monmap")
        allowed = [word for kind in ("mon", "osd", "mds", "mgr") for word in ("--cap", kind, "allow *")]
        run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *allowed)
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "m", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "m", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "m")
        self._daemon("ceph-mgr", "g")
        store = str(uuid.uuid4())
        self._run("ceph", "osd", "new", store)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self._daemon("ceph-osd", "0")
        wait_for(lambda: "1 up" in self._run("ceph", "osd", "stat"), START_S, "the object store")

    def _daemon(self, program: str, name: str) -> None:
        self._daemons.append(
            subprocess.Popen(
                [program, "-f", "-c", os.fspath(self._config), "-i", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def _run(self, program: str, *args: str) -> str:
        return run(program, "-c", os.fspath(self._config), *args)


class CephFS(Cluster):
    """A cluster with a metadata server, and two clients.

    Attributes:
        clients: The two, mounted.
    """

    def __init__(self, work: Path) -> None:
        self.clients: list[Client] = []
        super().__init__(work)

    def stop(self) -> None:
        """Unmount the clients and end every daemon."""
        for client in self.clients:
            client.unmount()
        super().stop()

    def _start(self) -> None:
        super()._start()
        (self._work / "mds").mkdir()
        self._daemon("ceph-mds", "d")
        for pool in ("metadata", "data"):
            self._run("ceph", "osd", "pool", "create", pool, "8")
        self._run("ceph", "fs", "new", "files", "metadata", "data")
        wait_for(lambda: "up:active" in self._run("ceph", "mds", "stat"), START_S, "the metadata server")
        # A client that is gone without a word is not waited for for minutes.
        self._run("ceph", "fs", "set", "files", "session_timeout", "30")
        self.clients = [Client(self._config, self._work / f"client-{i}") for i in (1, 2)]


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come within {limit_s} s")
        with contextlib.suppress(InterruptedError):
            time.sleep(0.1)
