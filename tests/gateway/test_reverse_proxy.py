"""A real nginx before a gateway, as a reverse proxy, and with a cache of its own that it fills slice by slice."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from gateways import GatewayProcess, Reply, reply, request
from proxy import CountingProxy
from servers import Nginx, ScriptedOrigin, find_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEN = 1_700_000_000
MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
SIZE = 1_200_000
DATA = random.Random(51).randbytes(SIZE)
NAME = "data.example.org"
LIMIT_S = 300

HTTP = """
upstream jcache {{ server 127.0.0.1:{port}; keepalive 8; }}
proxy_http_version 1.1;
proxy_cache_path {work}/cache keys_zone=slices:1m;
proxy_cache_key $uri$is_args$args$slice_range;
"""
# By /sliced/ and /short/ it keeps slices: for an hour; and for a second, after which it asks whether they have changed.
SERVER = """
merge_slashes off;
location / { proxy_pass http://jcache; proxy_set_header Connection ""; proxy_set_header Host localhost; }
location /named/ { proxy_pass http://jcache/; proxy_set_header Host $http_host; }
location ^~ /.mark- { return 404; }
slice 256k;
proxy_cache_bypass $http_cache_control;
add_header X-Cache $upstream_cache_status;
location /sliced/ {
  proxy_pass http://jcache/;
  proxy_set_header Connection ""; proxy_set_header Host localhost; proxy_set_header Range $slice_range;
  proxy_cache slices; proxy_cache_valid 200 206 1h;
}
location /short/ {
  proxy_pass http://jcache/;
  proxy_set_header Connection ""; proxy_set_header Host localhost; proxy_set_header Range $slice_range;
  proxy_cache slices; proxy_cache_valid 200 206 1s; proxy_cache_revalidate on;
}
"""


class Chain(NamedTuple):
    """nginx, what counts between it and the gateway, the gateway, its origin, and another that it forwards to."""

    front: Nginx
    counting: CountingProxy
    gateway: GatewayProcess
    origin: Nginx
    other: ScriptedOrigin

    def get(self, target: str, *, method: str = "GET", **headers: str) -> Reply:
        with socket.create_connection(("127.0.0.1", self.front.port), timeout=LIMIT_S) as connection:
            connection.sendall(request(target, method=method, **headers))
            return reply(connection.makefile("rb"), method=method)

    def write(self, name: str, data: bytes, modified_s: int = WHEN) -> None:
        path = self.origin.directory / name
        path.write_bytes(data)
        os.utime(path, (modified_s, modified_s))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    if find_nginx() is None:
        pytest.skip("nginx is not installed")
    directory, work, front_work = (tmp_path_factory.mktemp(name) for name in ("files", "origin", "front"))
    (directory / "listed").mkdir()
    origin, other = Nginx(directory, work), ScriptedOrigin()
    args = ("--origin", origin.url(), "--allow", f"127.0.0.1:{other.port}", "--name", NAME, "--validate", "3600")
    with GatewayProcess(work / "cache", *args) as gateway, CountingProxy(gateway.port) as counting:
        front = Nginx(front_work, front_work, http=HTTP.format(port=counting.port, work=front_work), server=SERVER)
        chain = Chain(front, counting, gateway, origin, other)
        chain.write("a.bin", DATA)
        yield chain
        front.stop()
    origin.stop()
    other.stop()
    assert "Traceback" not in gateway.stderr


def test_answers_come_through_as_the_gateway_gives_them(chain: Chain) -> None:
    asked = [
        {},
        {"Range": "bytes=100-199"},
        {"Range": "bytes=-10"},
        {"Range": f"bytes={SIZE}-"},
        {"If_Modified_Since": MODIFIED},
        {"Range": "bytes=5-9", "If_Range": '"other"'},
        {"If_Match": '"other"'},
    ]
    chain.write("b.bin", DATA)
    assert chain.get("/b.bin").body == DATA  # cold, by nginx
    tag = chain.gateway.get("/b.bin", method="HEAD")["ETag"] or ""
    asked += [{"If_None_Match": tag}, {"Range": "bytes=5-9", "If_Range": tag}]
    chain.origin.reset()
    for headers in asked:
        for method in ("GET", "HEAD"):
            found, direct = (one.get("/b.bin", method=method, **headers) for one in (chain, chain.gateway))
            assert (found.status, found.body) == (direct.status, direct.body), headers
            for name in ("ETag", "Last-Modified", "Content-Range", "Content-Length", "Content-Type", "Accept-Ranges"):
                assert found[name] == direct[name], (name, headers)
    assert chain.get("/b.bin", Range="bytes=5-9").body == DATA[5:10]
    assert chain.get("/b.bin", If_None_Match=tag).status == 304
    several = chain.get("/b.bin", Range="bytes=0-1,500-504")
    assert several.status == 206
    assert DATA[500:505] in several.body
    assert chain.get("/none.bin").status == 404
    assert chain.origin.body_bytes() == 0, chain.origin.requests()


def test_its_connections_to_the_gateway_are_kept(chain: Chain) -> None:
    chain.get("/a.bin", Range="bytes=0-9")
    chain.counting.reset()
    for headers in ({}, {"Range": "bytes=5-9"}, {"Range": f"bytes={SIZE}-"}, {"If_Modified_Since": MODIFIED}) * 5:
        for method in ("GET", "HEAD"):
            chain.get("/a.bin", method=method, **headers)
    assert chain.counting.connections <= 1


def test_a_name_that_it_hands_on_is_checked(chain: Chain) -> None:
    for host, status in ((NAME, 206), ("elsewhere.example.org", 421)):
        assert chain.get("/named/a.bin", Host=host, Range="bytes=0-9").status == status


def test_slices_that_it_keeps_are_the_files(chain: Chain) -> None:
    assert chain.get("/sliced/a.bin", Range="bytes=300000-700000").body == DATA[300_000:700_001]
    assert chain.get("/sliced/a.bin").body == DATA
    chain.counting.reset()
    chain.origin.reset()
    tag = chain.gateway.get("/a.bin", method="HEAD")["ETag"]
    for start, stop in ((0, SIZE), (5, 9), (262_143, 262_145), (1, 1_100_000), (SIZE - 3, SIZE)):
        found = chain.get("/sliced/a.bin", Range=f"bytes={start}-{stop - 1}")
        assert (found.status, found.body) == (206, DATA[start:stop])
        assert (found["X-Cache"], found["ETag"], found["Last-Modified"]) == ("HIT", tag, MODIFIED)
        assert found["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert chain.get("/sliced/a.bin", If_None_Match=tag or "").status == 304
    assert (chain.counting.bytes_to_server, chain.origin.body_bytes()) == (0, 0)


def test_slices_of_two_versions_are_never_one_answer(chain: Chain) -> None:
    new = random.Random(52).randbytes(SIZE)
    chain.write("c.bin", DATA)
    assert chain.get("/sliced/c.bin", Range="bytes=0-9").body == DATA[:10]  # the first slice
    chain.write("c.bin", new, WHEN + 100)
    assert chain.gateway.get("/c.bin", Cache_Control="no-cache").body == new
    # nginx compares the entity tags, and breaks the connection.
    with pytest.raises(ConnectionResetError):
        chain.get("/sliced/c.bin")
    assert chain.get("/sliced/c.bin", Cache_Control="no-cache").body == new
    again = chain.get("/sliced/c.bin")
    assert (again.body, again["X-Cache"]) == (new, "HIT")


def test_it_asks_whether_slices_have_changed(chain: Chain) -> None:
    def until(status: str) -> Reply:
        deadline = time.monotonic() + LIMIT_S
        while (found := chain.get("/short/d.bin", Range="bytes=0-200000"))["X-Cache"] != status:
            assert found["X-Cache"] == "HIT"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found

    chain.write("d.bin", DATA)
    assert chain.get("/short/d.bin").body == DATA
    chain.counting.reset()
    assert until("REVALIDATED").body == DATA[:200_001]
    assert chain.counting.bytes_to_client < 10_000  # a 304
    chain.write("d.bin", new := DATA[::-1], WHEN + 100)
    assert chain.gateway.get("/d.bin", Cache_Control="no-cache").body == new
    assert until("EXPIRED").body == new[:200_001]


def test_what_is_not_for_all_or_has_no_version_is_not_kept(chain: Chain) -> None:
    for name, tag, said in (("a", '"1"', "private"), ("b", '"1"', "no-store"), ("c", None, "no-store")):
        given = {} if tag is None else {"Cache-Control": said}
        chain.other.put(name, DATA, etag=tag, headers=given)
        for _ in range(2):
            found = chain.get(f"/sliced/{chain.other.url(name)}")
            assert (found.body, found["X-Cache"]) == (DATA, "MISS")
            assert found["Cache-Control"] == said


def signed(url: str) -> dict[str, str]:
    auth, awsrequest = pytest.importorskip("botocore.auth"), pytest.importorskip("botocore.awsrequest")
    from botocore.credentials import Credentials

    asked = awsrequest.AWSRequest("GET", url)
    auth.S3SigV4Auth(Credentials("key", "secret"), "s3", "us-east-1").add_auth(asked)
    return dict(asked.headers.items())


@pytest.mark.parametrize("s3", [False, True], ids=["token", "s3"])
def test_what_needs_a_token_or_a_key_is_not_kept(chain: Chain, tmp_path: Path, s3: bool) -> None:
    """nginx keeps answers also to requests with an Authorization field, other than RFC 9111, 3.5, has it."""
    chain.write("listed/f.bin", DATA)
    who = tmp_path / "who"
    who.write_text("key secret\n" if s3 else "open-sesame\n")
    args = ("--s3", "--s3-keys", str(who)) if s3 else ("--token-file", str(who))
    with GatewayProcess(tmp_path / "cache", "--origin", chain.origin.url(), *args) as gateway:
        (work := tmp_path / "front").mkdir()
        front = Nginx(work, work, http=HTTP.format(port=gateway.port, work=work), server=SERVER)
        mine = chain._replace(front=front)
        headers = signed("http://localhost/listed/f.bin") if s3 else {"Authorization": "Bearer open-sesame"}
        try:
            for _ in range(2):
                found = mine.get("/sliced/listed/f.bin", **headers)
                assert (found.status, found.body, found["X-Cache"]) == (200, DATA, "MISS")
                assert mine.get("/sliced/listed/f.bin").status == (403 if s3 else 401)
        finally:
            front.stop()


def test_a_listing_is_of_the_kind_that_was_asked_for(chain: Chain) -> None:
    chain.write("listed/e.bin", DATA)
    for accepted, kind in (("application/json", "application/json"), ("text/html", "text/html")) * 2:
        found = chain.get("/sliced/listed/", Accept=accepted)
        assert (found.status, (found["Content-Type"] or "").partition(";")[0]) == (200, kind)
        assert (found["X-Cache"], found["Vary"]) == ("MISS", "Accept")


def test_an_empty_file(chain: Chain) -> None:
    """Of which slices are ranges, too."""
    chain.write("empty", b"")
    for where in ("/empty", "/sliced/empty", "/sliced/empty"):
        found = chain.get(where)
        assert (found.status, found.body) == (200, b""), where
