"""Objects that are one asker's own: in bundles, in what is extracted from them, and in tiers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from jcache.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

DATA = bytes(range(256)) * 40
READ = """
import hashlib, sys, fsspec
fs = fsspec.filesystem(sys.argv[1], **eval(sys.argv[2]))
try:
    print(hashlib.sha256(fs.cat_file(sys.argv[3], start=1000, end=4000) + fs.open(sys.argv[3]).read(100)).hexdigest())
except Exception as error:
    print(type(error).__name__)
"""


class Private(BaseHTTPRequestHandler):
    """Gives each who asks a file of his own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        who = self.headers.get("Authorization", "").encode()
        body = (hashlib.sha256(who).digest() + DATA)[:10_000]
        start, _, stop = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(start), min(int(stop or 9_999), 9_999)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/10000")
        self.send_header("Cache-Control", "private")
        self.send_header("ETag", f'"{body[:8].hex()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[first : last + 1])

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["s3", "http"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, object], str]]:
    """Protocol, options of one who asks, and address of a file that is his own."""
    if request.param == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), Private)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        options: dict[str, object] = {"headers": {"Authorization": "Bearer alice"}}
        yield "http", options, f"http://127.0.0.1:{server.server_port}/f"
        server.shutdown()
        server.server_close()
        return
    pytest.importorskip("moto", reason="needs the S3 server moto")
    import boto3
    from s3_servers import Moto

    work = tmp_path / "moto"
    work.mkdir()
    with Moto(work) as moto:
        keys = {"aws_access_key_id": "alice", "aws_secret_access_key": "s"}
        client = boto3.client("s3", endpoint_url=moto.url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="f", Body=DATA)
        yield "s3", {"key": "alice", "secret": "s", "client_kwargs": {"endpoint_url": moto.url}}, "bucket/f"


def jcache(*args: str | Path) -> None:
    done = CliRunner().invoke(main, [os.fspath(word) for word in args])
    assert done.exit_code == 0, done.output


def test_it_is_found_by_who_asked_and_by_nobody_else(
    origin: tuple[str, dict[str, object], str], run_python: RunPython, tmp_path: Path
) -> None:
    protocol, options, url = origin
    recorded, bundle, extracted = tmp_path / "recorded", tmp_path / "own.jcb", tmp_path / "extracted"
    other = json.loads(json.dumps(options).replace("alice", "mallory"))

    def read(cache: Path | str | None, options: dict[str, object] = options, **env: str) -> str:
        named = {"JCACHE_DIR": os.fspath(cache)} if cache is not None else {}
        return run_python(READ, protocol, repr(options), url, cache=None, env={**named, **env}).stdout.strip()

    digest = read(recorded, JCACHE_PROFILE=os.fspath(tmp_path / "profiles"))
    assert len(digest) == 64
    jcache("bundle", "create", tmp_path / "profiles", "--dir", recorded, "-o", bundle)
    jcache("bundle", "extract", bundle, "--dir", extracted)
    assert b"alice" not in bundle.read_bytes()
    offline = {"JCACHE_OFFLINE": "1"}
    for cache, more in (
        (None, {"JCACHE_BUNDLES": os.fspath(bundle)}),
        (tmp_path / "new", {"JCACHE_BUNDLES": os.fspath(bundle)}),
        (extracted, {}),
        (f"{tmp_path}/newer:{recorded}", {}),
    ):
        assert read(cache, **offline, **more) == digest
        assert read(cache, other, **offline, **more) == "OfflineMissError"
