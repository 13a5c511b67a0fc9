"""`jcache serve --xrootd`: clients of XRootD read through a real xrootd from a gateway; plain, cold and warm."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gateways import GatewayProcess, by_door, door
from servers import XrootdUnavailableError, find_xrootd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Nginx

WHEN = 1_700_000_000
DATA = random.Random(31).randbytes(5_000_000)
LIMIT_S = 300

VECTORS = """
import hashlib, random, sys
from XRootD import client
file = client.File()
status, _ = file.open(sys.argv[1])
assert status.ok, status
size = file.stat()[1].size
print(size)
rng = random.Random(4)
for count, length in ((3, 100_000), (900, 1000), (1, 1)):
    asked = [(start, length) for start in sorted(rng.sample(range(size - length), count))]
    status, told = file.vector_read(asked)
    assert status.ok, status
    print([(one.offset, one.length) for one in told] == asked)
    print(hashlib.sha256(b"".join(one.buffer for one in told)).hexdigest())
for start, length in ((0, 10), (size - 5, 5), (123_456, 3_000_000)):
    status, data = file.read(start, length)
    assert status.ok, status
    print(hashlib.sha256(data).hexdigest())
print(client.File().open(sys.argv[1] + ".not")[0].errno)
"""
TREE = """
import hashlib, sys, uproot
with uproot.open(sys.argv[1] + ":tree", handler=uproot.source.xrootd.XRootDSource) as tree:
    found = tree.arrays(["b", "d", "f"], library="np")
print({name: hashlib.sha256(column.tobytes()).hexdigest() for name, column in found.items()})
"""


@pytest.fixture
def origin(nginx_server: Nginx) -> Nginx:
    pytest.importorskip("XRootD", reason="the XRootD client for Python is not installed")
    uproot = pytest.importorskip("uproot")
    (nginx_server.directory / "dir").mkdir()
    (nginx_server.directory / "dir" / "data.bin").write_bytes(DATA)
    with uproot.recreate(nginx_server.directory / "tree.root") as file:
        file["tree"] = {name: np.arange(20_000) * i for i, name in enumerate("abcdef")}
    for path in nginx_server.directory.rglob("*"):
        os.utime(path, (WHEN, WHEN))
    return nginx_server


def serve(origin: Nginx, cache: Path, *args: str) -> GatewayProcess:
    try:
        find_xrootd()
    except XrootdUnavailableError as error:
        pytest.skip(str(error))
    return GatewayProcess(cache, "--origin", origin.url(), "--xrootd", "0", "--validate", "3600", *args)


@pytest.fixture
def gateway(origin: Nginx, cache_dir: Path) -> Iterator[GatewayProcess]:
    with serve(origin, cache_dir) as process:
        door(process)
        yield process
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(("script", "name"), [(VECTORS, "dir/data.bin"), (TREE, "tree.root")], ids=["vectors", "tree"])
def test_ranges_and_vectors_are_the_origins(
    origin: Nginx, gateway: GatewayProcess, export_dir: Path, script: str, name: str
) -> None:
    """Judged by an xrootd that serves the files themselves."""
    from servers import XrootdServer

    shutil.copytree(origin.directory, export_dir, dirs_exist_ok=True)
    for path in export_dir.rglob("*"):
        path.chmod(0o755)
    with XrootdServer(export_dir) as plain:
        expected = by_door(script, plain.url(name))
    host, port = door(gateway)
    origin.reset()
    assert by_door(script, f"root://{host}:{port}//{name}") == expected
    assert origin.body_bytes() > 0
    origin.reset()
    assert by_door(script, f"root://{host}:{port}//{name}") == expected
    assert origin.body_bytes() == 0, origin.requests()


COPIES = {
    "xrdcp": lambda where, copy: ["xrdcp", "-f", "-s", f"root://{where}//dir/data.bin", copy],
    "xrdfs": lambda where, copy: ["xrdfs", where, "cat", "-o", copy, "/dir/data.bin"],
}


@pytest.mark.parametrize("program", COPIES)
def test_debians_programs_copy_a_file(
    origin: Nginx, gateway: GatewayProcess, export_dir: Path, tmp_path: Path, program: str
) -> None:
    from servers import XrootdServer

    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")

    def copied(where: str) -> bytes:
        copy = tmp_path / "copy"
        copy.unlink(missing_ok=True)
        command = COPIES[program](where, str(copy))
        subprocess.run(command, stderr=subprocess.DEVNULL, timeout=LIMIT_S, check=True)
        return copy.read_bytes()

    shutil.copy(origin.directory / "dir" / "data.bin", export_dir / "data.bin")
    (export_dir / "dir").symlink_to(".")
    with XrootdServer(export_dir) as plain:
        assert copied(plain.address) == DATA
    where = ":".join(map(str, door(gateway)))
    origin.reset()
    assert copied(where) == DATA
    assert len(DATA) <= origin.body_bytes() <= len(DATA) * 1.05
    origin.reset()
    assert copied(where) == DATA
    assert origin.body_bytes() == 0, origin.requests()


def test_what_xrdfs_is_told_and_what_not(origin: Nginx, gateway: GatewayProcess) -> None:
    """The plug-in asks for a name by HEAD: it knows sizes, not directories, times or checksums; it does not write."""
    if shutil.which("xrdfs") is None:
        pytest.skip("xrdfs is not installed")
    (origin.directory / "listed").mkdir()
    (origin.directory / "listed" / "a.bin").write_bytes(DATA)
    where = ":".join(map(str, door(gateway)))

    def xrdfs(*args: str) -> str:
        environ = {**os.environ, "XRD_REQUESTTIMEOUT": "120", "XRD_CONNECTIONRETRY": "1", "TZ": "UTC"}
        done = subprocess.run(
            ["xrdfs", where, *args], env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if done.returncode == 0:
            return done.stdout
        assert done.returncode == 54, done.stderr
        found = re.search(r"\[ERROR\] Server responded with an error: \[([0-9]+)\]", done.stderr)
        return found[1] if found else done.stderr

    told = xrdfs("stat", "/dir/data.bin")
    assert re.search(r"^Size: +5000000$", told, re.MULTILINE), told
    assert re.search(r"^MTime: +1970-01-01 00:00:00$", told, re.MULTILINE), told
    assert xrdfs("stat", "/dir/none") == xrdfs("cat", "/dir/none") == "3011"  # there is no such file
    # A directory is an error, whether the origin lists it or not; it is never empty.
    assert {xrdfs("stat", one) for one in ("/dir", "/listed")} == {"3010", "3006"}
    assert {xrdfs("ls", one) for one in ("/dir", "/listed")} == {"3010", "3006"}
    assert xrdfs("query", "checksum", "/dir/data.bin") == "3013"
    for asked in (("mkdir", "/new"), ("rm", "/dir/data.bin"), ("mv", "/dir/data.bin", "/b"), ("truncate", "/a", "3")):
        assert xrdfs(*asked) == "3025", asked
    assert (origin.directory / "dir" / "data.bin").read_bytes() == DATA


def is_up(host: str, port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex((host, port)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_gateway(origin: Nginx, cache_dir: Path, number: signal.Signals) -> None:
    gateway = serve(origin, cache_dir)
    host, port = door(gateway)
    assert is_up(host, port)
    assert gateway.stop(number) == (0 if number == signal.SIGTERM else -number)
    deadline = time.monotonic() + LIMIT_S
    while is_up(host, port):
        assert number == signal.SIGKILL
        assert time.monotonic() < deadline, "xrootd goes on"
        time.sleep(0.05)


def test_the_gateway_ends_with_it(origin: Nginx, cache_dir: Path) -> None:
    gateway = serve(origin, cache_dir)
    door(gateway)
    children = subprocess.run(
        ["pgrep", "-x", "xrootd", "-P", str(gateway.process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    if len(children) != 1:
        gateway.stop()
        pytest.skip("its process cannot be found")
    assert os.getsid(int(children[0])) == int(children[0])  # a terminal's interrupt is for the gateway alone
    os.kill(int(children[0]), signal.SIGKILL)
    assert gateway.process.wait(LIMIT_S) == 1
    gateway.stop()
    assert "xrootd has ended" in gateway.stderr


def test_what_it_does_not_go_with(cache_dir: Path) -> None:
    for args in (["--allow", "x"], ["--origin", "https://x/", "--cert", __file__], ["--origin", "s3://", "--s3"],
                 ["--origin", "https://x/", "--per-client", "3"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "jcache", "serve", "--dir", str(cache_dir), "--xrootd", "0", *args],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 2
        assert "--xrootd goes with" in done.stderr or "--per-client cannot" in done.stderr
