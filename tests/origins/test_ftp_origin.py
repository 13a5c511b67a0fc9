"""FTP through fsspec's own file system, against a real server: what plain gives, in fewer bytes and commands."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from jcache.errors import OriginChangedError
from jcache_plugins.origins import ftp

pytest.importorskip("pyftpdlib", reason="pyftpdlib is not installed")

from ftp_server import OLD_S, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunPython

    from jcache.session import Session

DATA = random.Random(1).randbytes(1_500_000)
READ = """
import hashlib, sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1])
said = []
def say(data):
    said.append((len(data), hashlib.sha256(data).hexdigest()[:12]))
with fs.open(path) as file:
    while data := file.read(50_000):
        said.append(len(data))
        if len(said) % 7 == 0:
            said.append(sorted(fs.ls("/", detail=False)))  # over the one connection that there is
    file.seek(1_000)
    say(file.read(10))
    file.seek(900_000)
    say(file.read(5_000))
say(fs.cat_file(path))
say(fs.cat_file(path, 10, 20))
for data in fs.cat_ranges([path] * 4, [5, 400_000, 1_200, 1_499_990], [9, 400_100, 1_300, None]):
    say(data)
said += [fs.info(path), fs.exists(path), fs.exists("/none"), fs.isdir("/d")]
"""
MISS = """
def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__
for name in ("/none", "/d"):
    said += [outcome(lambda: fs.cat_file(name)), outcome(lambda: fs.cat_file(name, 0, 5))]
    said += [outcome(lambda: fs.open(name).read()), outcome(lambda: fs.cat_file(path, 2_000_000))]
"""
SAY = "print(said)"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`serve(without="MLST")` starts a server of a file and a directory."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        directory = tmp_path / "files"
        (directory / "d").mkdir(parents=True)
        servers.append(Server(directory, **options))
        servers[0].write("a.bin", DATA)
        return servers[0]

    yield start
    for server in servers:
        server.__exit__()


@pytest.mark.parametrize("without", ["", "MLST", "MLST MLSD"], ids=["MLST", "MDTM beside MLSD", "MDTM beside LIST"])
def test_plain_cold_warm_and_offline_are_equal(
    run_python: RunPython, serve: Callable[..., Server], without: str
) -> None:
    server = serve(without=without)
    url = f"{server.url}/a.bin"
    plain = run_python(READ + SAY, url, cache=None).stdout
    plain_commands, plain_bytes = server.noted()
    cold = run_python(READ + SAY, url)
    assert cold.stdout == plain
    commands, sent = server.noted()
    assert len(DATA) <= sent <= plain_bytes
    assert len(commands) < len(plain_commands) / 2
    assert cold.report["cache"]["recorded_bytes"] == len(DATA)
    for env in ({}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"})[: 1 if without else 3]:
        assert run_python(READ + SAY, url, env=env).stdout == plain, env
        commands, sent = server.noted()
        assert not sent
        assert "RETR" not in commands
        assert not env or not {"MLST", "SIZE", "MDTM"} & set(commands)
    assert without or not commands


def test_where_no_command_tells_a_time_the_reason_is_in_the_report(
    run_python: RunPython, serve: Callable[..., Server]
) -> None:
    server = serve(without="MLST MLSD MDTM")
    url = f"{server.url}/a.bin"
    plain = run_python(READ + MISS + SAY, url, cache=None).stdout
    plain_bytes = server.noted()[1]
    for _ in ("cold", "again"):
        ran = run_python(READ + MISS + SAY, url)
        assert ran.stdout == plain
        assert "nothing tells its version" in " ".join(item["reason"] for item in ran.report["uncached"])
        assert not ran.report["cache"]["recorded_bytes"]
        assert server.noted()[1] <= 1.2 * plain_bytes


def test_what_is_no_file_is_what_it_is_plain(run_python: RunPython, serve: Callable[..., Server]) -> None:
    url = f"{serve().url}/a.bin"
    code = READ.partition("with fs.open")[0] + MISS + SAY
    plain = run_python(code, url, cache=None).stdout
    for _ in ("cold", "warm"):
        assert run_python(code, url).stdout == plain


def test_a_replaced_file_is_seen(active: Callable[..., Session], serve: Callable[..., Server]) -> None:
    server, new = serve(), random.Random(2).randbytes(len(DATA))
    active()
    fs = server.client()
    looks = set(vars(fs))
    assert fs.cat_file("/a.bin", 5, 100_000) == DATA[5:100_000]
    assert set(vars(fs)) == looks
    file = fs.open("/a.bin")
    assert file.read(10) == DATA[:10]
    server.write("a.bin", new, OLD_S + 1)
    file.seek(700_000)
    with pytest.raises(OriginChangedError):
        file.read(10)
    active()
    assert server.client().cat_file("/a.bin", 5, 100_000) == new[5:100_000]
    assert server.client().open("/a.bin").read() == new


def test_ranges_that_lie_together_come_in_one_transfer(
    active: Callable[..., Session], serve: Callable[..., Server]
) -> None:
    server = serve()
    active()
    fs = server.client()
    starts = [900_000, *range(0, 300_000, 30_000), 1_499_000]
    stops = [900_010, *(start + 100 for start in range(0, 300_000, 30_000)), 1_600_000]
    expected = [DATA[start:stop] for start, stop in zip(starts, stops, strict=True)]
    for _ in ("cold", "warm"):
        assert fs.cat_ranges(["/a.bin"] * len(starts), starts, stops) == expected
    commands, sent = server.noted()
    assert commands.count("RETR") == 3
    assert sent < len(DATA)
    active()
    assert server.client().cat_ranges(["/a.bin"] * len(starts), starts, stops) == expected
    assert not server.noted()[1]


def test_threads_share_one_connection(active: Callable[..., Session], serve: Callable[..., Server]) -> None:
    server = serve()
    active()
    fs = server.client()

    def read(i: int) -> bool:
        data: bytes = fs.cat_file("/a.bin", i * 10_000, i * 10_000 + 100)
        return data == DATA[i * 10_000 : i * 10_000 + 100]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(100)))
    assert server.noted()[0].count("USER") == 1


def test_a_connection_that_the_server_ended_is_made_again(
    active: Callable[..., Session], serve: Callable[..., Server]
) -> None:
    server = serve()
    active()
    fs = server.client()
    with fs.open("/a.bin") as file:
        assert file.read(10) == DATA[:10]
        server.cut()
        file.seek(600_000)
        assert file.read(10) == DATA[600_000:600_010]
    assert server.noted()[0].count("USER") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20231114221320", OLD_S * 10**9),
        ("20231114221320.123", OLD_S * 10**9 + 123_000_000),
        ("Nov 14 22:13", None),
        ("2023-11-14 22:13", None),
        ("20231399221320", None),
        ("", None),
    ],
)
def test_times_of_the_protocol_are_understood(text: str, expected: int | None) -> None:
    assert ftp.moment(text) == expected
