"""Keys and tokens that expire in the middle of a job: each request is made with those of its time."""

from __future__ import annotations

import http.server
import os
import random
import threading
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import fsspec
import pytest
from filesystems import settle

from jcache.activate import deactivate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunPython

    from jcache.session import Session

DATA = random.Random(5).randbytes(400_000)
NAMES = ("a", "b", "c", "d")

# The provider of keys that a site gives its users: others each time, for some seconds.
PROVIDER = r"""
printf x >> "$1"
printf '{"Version": 1, "AccessKeyId": "key%d", "SecretAccessKey": "secret", "Expiration": "%s"}' \
    "$(wc -c < "$1")" "$(date -u -d '+60 seconds' +%Y-%m-%dT%H:%M:%SZ)"
"""
READ = """
import hashlib, sys, fsspec
fs = fsspec.filesystem("s3", profile="site", endpoint_url=sys.argv[1], client_kwargs={"region_name": "us-east-1"})
for path in sys.argv[2:]:
    rows = fs.cat_ranges([path] * 2, [10, 300_000], [1_000, 400_000])
    with fs.open(path) as file:
        file.seek(200_000)
        rows.append(file.read(50_000))
    print(hashlib.sha256(b"".join(rows)).hexdigest())
"""


def test_keys_of_s3_that_expire_are_asked_for_again(run_python: RunPython, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    import s3_servers

    (tmp_path / "provider").write_text(PROVIDER)
    provider = f"sh {tmp_path / 'provider'} {tmp_path / 'count'}"
    (tmp_path / "config").write_text(f"[profile site]\ncredential_process = {provider}\n")
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_EC2_METADATA_DISABLED": "true"}
    env |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), None)
    with s3_servers.Moto(tmp_path) as server:
        client = s3_servers.client(server.url)
        client.create_bucket(Bucket="bucket")
        for name in NAMES:
            client.put_object(Bucket="bucket", Key=name, Body=DATA)
        server.requests()
        paths = [f"bucket/{name}" for name in NAMES]

        plain = run_python(READ, server.url, *paths, cache=None, env=env).stdout
        assert plain
        last = 0
        for run in ("plain", "cold", "warm"):
            if run != "plain":
                assert run_python(READ, server.url, *paths, env=env).stdout == plain
            keys = [int(request.key.removeprefix("key")) for request in server.requests()]
            assert len(keys) >= len(NAMES)
            assert min(keys) > last, f"{run}: keys of another process"
            # Those that go out at the same time have the same one, or each its own.
            assert len(set(keys)) > len(NAMES) / 2, run
            last = max(keys)


async def with_token(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    request.headers["Authorization"] = f"Bearer {Path(os.environ['BEARER_TOKEN_FILE']).read_text()}"
    return await handler(request)


async def client_with_token(**options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=(with_token,), **options)


class Site(http.server.ThreadingHTTPServer):
    """An origin that gives a file to who has the token of the hour."""

    daemon_threads = True
    token = ""
    asked = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server: Site

        def do_GET(self) -> None:
            self.server.asked += 1
            body, status, fields = b"", 401, {}
            if self.headers["Authorization"] == f"Bearer {self.server.token}":
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                status, body = 206, DATA[int(first) : int(last) + 1]
                fields = {"ETag": '"1"', "Content-Range": f"bytes {first}-{last}/{len(DATA)}"}
            self.answer(status, fields | {"Content-Length": str(len(body))}, body)

        def do_HEAD(self) -> None:
            if self.headers["Authorization"] == f"Bearer {self.server.token}":
                fields = {"ETag": '"1"', "Content-Length": str(len(DATA)), "Accept-Ranges": "bytes"}
                self.answer(200, fields | {"Last-Modified": formatdate(1_700_000_000, usegmt=True)}, b"")
            else:
                self.answer(401, {"Content-Length": "0"}, b"")

        def answer(self, status: int, fields: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        yield server
        server.shutdown()


def test_a_token_of_a_file_that_is_replaced_is_the_one_that_is_sent(
    active: Callable[..., Session], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "token"
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(kept))

    def hour(number: int) -> None:
        site.token = f"hour-{number}"
        kept.write_text(site.token)

    def told(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return type(error), getattr(error, "status", None)

    url = f"http://127.0.0.1:{site.server_address[1]}/file"

    def job() -> list[Any]:
        fs = fsspec.filesystem("http", get_client=client_with_token, skip_instance_cache=True)
        seen = []
        hour(1)
        with fs.open(url) as file:
            seen.append(file.read(10))
            hour(2)
            file.seek(100_000)
            seen.append(file.read(10))
        seen.append(fs.cat_ranges([url] * 2, [5, 200_000], [50, 200_050]))
        hour(3)
        seen.append(fs.cat_file(url, 300_000, 300_010))
        site.token = "hour-4"  # the file's has expired
        seen.append(told(lambda: fs.cat_file(url, 350_000, 350_010)))
        hour(5)
        seen.append(fs.cat_file(url, 350_000, 350_010))
        return seen

    deactivate()
    plain = job()
    assert plain[0] == DATA[:10]
    assert not isinstance(plain[4], bytes)
    session = active()
    assert job() == plain
    settle()
    asked = site.asked
    assert job()[:4] == plain[:4]
    assert site.asked - asked <= 1, "no byte of what is recorded; what is refused is asked for"
    assert session.counters.snapshot().readv_hit
