"""Programs and libraries that read HTTP by themselves, through `jcache serve`: plain, cold and warm."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from gateways import GatewayProcess
from libraries import geotiff, needs, parquet
from servers import Nginx, find_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEN = 1_700_000_000
DATA = random.Random(41).randbytes(9_000_000)
LIMIT_S = 300


def age(directory: Path) -> None:
    """What was modified just now could change within the same second, and is not recorded."""
    for path in directory.rglob("*"):
        os.utime(path, (WHEN, WHEN))


class Served(NamedTuple):
    gateway: GatewayProcess
    files: Nginx
    log: Path

    def statuses(self) -> list[str]:
        """The status of each answer that the gateway has given since this was last asked."""
        found = [line.rsplit('"', 1)[1].split()[0] for line in self.log.read_text().splitlines()]
        os.truncate(self.log, 0)
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if find_nginx() is None:
        pytest.skip("nginx is not installed")
    directory, work = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("nginx")
    (directory / "listed").mkdir()
    (directory / "a.bin").write_bytes(DATA)
    age(directory)
    files, log = Nginx(directory, work), work / "gateway.log"
    args = ("--origin", files.url(), "--allow", f"127.0.0.1:{files.port}", "--access-log", str(log))
    with GatewayProcess(work / "cache", *args, "--validate", "3600") as gateway:
        yield Served(gateway, files, log)
    files.stop()
    assert "Traceback" not in gateway.stderr


def environ() -> dict[str, str]:
    named = ("JCACHE_", "_JCACHE_", "AWS_")
    return {k: v for k, v in os.environ.items() if not k.startswith(named) and not k.lower().endswith("_proxy")}


# -- aria2: one file over many connections -----------------------------------------------------------------------------

MANY = ("-x8", "-s8", "-k1M")


def aria2c(url: str, directory: Path, *args: str) -> list[str]:
    if shutil.which("aria2c") is None:
        pytest.skip("aria2c is not installed")
    return ["aria2c", "--no-conf", "-q", "--file-allocation=none", "-d", str(directory), "-o", "copy", *args, url]


def fetched(url: str, directory: Path, *args: str) -> bytes:
    command = aria2c(url, directory, f"--checksum=sha-256={hashlib.sha256(DATA).hexdigest()}", *args)
    subprocess.run(command, env=environ(), timeout=LIMIT_S, check=True)
    return (directory / "copy").read_bytes()


def test_aria2_over_many_connections(served: Served, tmp_path: Path) -> None:
    files, url = served.files, f"{served.gateway.url}/a.bin"
    files.reset()
    assert fetched(files.url("a.bin"), tmp_path / "plain", *MANY) == DATA
    assert len([one for one in files.requests() if one.status == 206]) > 1
    files.reset()
    assert fetched(url, tmp_path / "cold", *MANY) == DATA
    # More than that by what is on its way for a connection that aria2 breaks off, to ask for the rest over another.
    assert files.body_bytes() >= len(DATA)
    assert served.statuses().count("206") > 1
    for way in ((url,), (files.url("a.bin"), f"--http-proxy={served.gateway.url}")):
        files.reset()
        assert fetched(way[0], tmp_path / "warm", *MANY, *way[1:], "--allow-overwrite=true") == DATA
        assert files.body_bytes() == 0, files.requests()
        assert served.statuses().count("206") > 1


def test_aria2_goes_on_where_a_file_ends(served: Served, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(DATA[:5_000_000])
    served.statuses()
    assert fetched(f"{served.gateway.url}/a.bin", tmp_path, "-c") == DATA
    assert "206" in served.statuses()


def test_aria2_goes_on_where_it_was_interrupted(served: Served, tmp_path: Path) -> None:
    """It notes in a file of its own which parts it has, of each of its connections."""
    url = f"{served.gateway.url}/a.bin"
    slow = ("--max-overall-download-limit=200K", "--auto-save-interval=1")
    process = subprocess.Popen(aria2c(url, tmp_path, *MANY, *slow), env=environ())
    deadline = time.monotonic() + LIMIT_S
    while not (tmp_path / "copy.aria2").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 7  # downloads that are not finished
    served.statuses()
    assert fetched(url, tmp_path, "-c", *MANY) == DATA
    assert "206" in served.statuses()
    assert not (tmp_path / "copy.aria2").exists()


def test_aria2_asks_whether_what_it_has_is_new(served: Served, tmp_path: Path) -> None:
    url, again = f"{served.gateway.url}/a.bin", ("--remote-time", "--conditional-get", "--allow-overwrite")
    options = [f"{option}=true" for option in again]
    assert fetched(url, tmp_path, *options) == DATA
    assert (tmp_path / "copy").stat().st_mtime == WHEN
    served.statuses()
    assert fetched(url, tmp_path, *options) == DATA
    assert served.statuses() == ["304"]


# -- libraries with clients of their own -------------------------------------------------------------------------------

# Each is given a URL that ends with a slash.
JOBS = {
    "rasterio": """
import hashlib, sys, rasterio
from rasterio.windows import Window
url = sys.argv[1]
with rasterio.open(f"/vsicurl/{url}listed/image.tif") as image:
    print({name: str(value) for name, value in sorted(image.profile.items())}, image.tags())
    print([name.replace(url, "") for name in image.files])
    for window in (Window(0, 0, 50, 60), Window(200, 500, 200, 100), Window(760, 760, 8, 8)):
        print(hashlib.sha256(image.read(window=window).tobytes()).hexdigest())
    print(hashlib.sha256(image.read(1, out_shape=(128, 128)).tobytes()).hexdigest())
    print(hashlib.sha256(image.read().tobytes()).hexdigest())
try:
    rasterio.open(f"/vsicurl/{url}listed/none.tif")
except rasterio.errors.RasterioIOError:
    print("no such file")
""",
    "duckdb": """
import importlib.util, pathlib, sys, duckdb
connection = duckdb.connect(config={"threads": 1})  # with more, sums are of another order each time
found = importlib.util.find_spec("duckdb_extension_httpfs")
(extension,) = pathlib.Path(found.origin).parent.rglob("httpfs.duckdb_extension")
connection.execute(f"LOAD '{extension}'")
table = f"'{sys.argv[1]}listed/t.parquet'"
print(connection.sql(f"SELECT sum(c1), count(*) FROM {table}").fetchall())
print(connection.sql(f"SELECT key, avg(c2), max(c5) FROM {table} WHERE c3 > 0.5 GROUP BY key ORDER BY key").fetchall())
""",
}
NEEDED = {"duckdb": ("duckdb", "duckdb_extension_httpfs", "pandas")}


def run(name: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", JOBS[name], url],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", JOBS)
def test_libraries_read_what_they_read_without_it(served: Served, name: str) -> None:
    needs(*NEEDED.get(name, (name,)))
    gateway, files = served.gateway, served.files
    listed = files.directory / "listed"
    if name == "rasterio":
        geotiff(listed / "image.tif")
    else:
        parquet(listed)
    age(files.directory)
    files.reset()
    expected = run(name, files.url())
    assert expected
    plain = files.body_bytes()
    files.reset()
    assert run(name, f"{gateway.url}/") == expected
    assert 0 < files.body_bytes() <= plain * 1.05 + (256 << 10)
    files.reset()
    assert run(name, f"{gateway.url}/") == expected
    # A listing is asked for each time.
    assert [one for one in files.requests() if one.body_bytes and one.uri != "/listed/" and one.status < 300] == []
