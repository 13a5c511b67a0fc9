"""A gateway over origins that are no HTTP: mounted, plain, cold, warm, and with the origin stopped."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import pytest
import s3_servers
from gateways import GatewayProcess
from s3_servers import KEYS, Moto

if TYPE_CHECKING:
    from pathlib import Path

    from servers import XrootdServer

WHEN = 1_700_000_000
DATA = random.Random(5).randbytes(3_000_000)


def fill(directory: Path) -> None:
    (directory / "sub").mkdir()
    for name in ("a.root", "sub/b c.root"):
        (directory / name).write_bytes(DATA)
        os.utime(directory / name, (WHEN, WHEN))
    for path in directory.rglob("*"):
        path.chmod(0o755)


def listing(gateway: GatewayProcess, path: str) -> list[tuple[str, str, int | None]]:
    found = json.loads(gateway.get(path, Accept="application/json").body)
    return [(one["name"], one["type"], one.get("size")) for one in found]


def check(gateway: GatewayProcess) -> None:
    cold, warm = gateway.get("/a.root"), gateway.get("/a.root")
    assert (cold.status, cold.body == DATA, warm.body == DATA) == (200, True, True)
    assert cold["Cache-Status"] == "JCache; fwd=uri-miss; stored"
    assert (warm["Cache-Status"] or "").startswith("JCache; hit")
    assert (warm["ETag"], warm["Last-Modified"]) == (cold["ETag"], cold["Last-Modified"])
    part = gateway.get("/sub/b%20c.root", Range="bytes=100-199,-5")
    assert part.status == 206
    assert DATA[100:200] in part.body
    assert gateway.get("/nothing.root").status == 404
    assert gateway.get("/sub/nothing/").status == 404
    assert listing(gateway, "/sub/") == [("b c.root", "file", len(DATA))]
    away = gateway.get("/sub")
    assert (away.status, away["Location"]) == (301, "./sub/")
    assert gateway.get("/a.root?x=1").status == 400
    assert gateway.get("/a.root%3Fx=1").status == 400


def test_xrootd(xrootd_server: XrootdServer, cache_dir: Path) -> None:
    fill(xrootd_server.directory)
    origin = f"root://localhost:{xrootd_server.port}//"
    with GatewayProcess(cache_dir, "--origin", origin, "--validate", "never") as gateway:
        check(gateway)
        assert listing(gateway, "/")[:2] == [("a.root", "file", len(DATA)), ("sub", "directory", None)]
        xrootd_server.stop()
        assert gateway.get("/a.root").body == DATA
    assert "Traceback" not in gateway.stderr


def test_s3(tmp_path: Path, cache_dir: Path) -> None:
    pytest.importorskip("s3fs")
    with Moto(tmp_path) as moto:
        boto = s3_servers.client(moto.url)
        boto.create_bucket(Bucket="bucket")
        for key in ("data/a.root", "data/sub/b c.root"):
            boto.put_object(Bucket="bucket", Key=key, Body=DATA)
        environ = {**KEYS, "AWS_ENDPOINT_URL": moto.url}
        with GatewayProcess(cache_dir, "--origin", "s3://bucket/data", "--validate", "never", **environ) as gateway:
            check(gateway)
            moto.__exit__()
            assert gateway.get("/a.root").body == DATA
    assert "Traceback" not in gateway.stderr


def test_sftp(tmp_path: Path, cache_dir: Path) -> None:
    """Its file system connects as it is made, and takes no options of fsspec's."""
    pytest.importorskip("paramiko")
    from generic_servers import Sftp

    (tmp_path / "served").mkdir()
    fill(tmp_path / "served")
    with Sftp(tmp_path / "served") as server:
        origin = f"sftp://user:secret@127.0.0.1:{server.port}/"
        with GatewayProcess(cache_dir, "--origin", origin, "--validate", "never") as gateway:
            check(gateway)
        assert "Traceback" not in gateway.stderr
    with pytest.raises(RuntimeError, match="the origin cannot be had"):
        GatewayProcess(cache_dir, "--origin", origin)
