"""What goes wrong around a gateway: origins, clients, its end, requests that are none, and who must not be asked."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from gateways import GatewayProcess, reply, request
from servers import ScriptedOrigin

from jcache.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Nginx

WHEN = 1_700_000_000
LARGE = 24 << 20
AT_ONCE = 5


@pytest.fixture(scope="module")
def origin() -> Iterator[ScriptedOrigin]:
    made = ScriptedOrigin()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gateway(origin: ScriptedOrigin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """In front of that origin; whatever happened to it, it has said nothing but that it serves."""
    args = ("--origin", origin.url(""), "--origin-requests", str(AT_ONCE))
    with GatewayProcess(tmp_path_factory.mktemp("cache") / "cache", *args) as made:
        yield made
        assert made.stop() == 0
    assert "Traceback" not in made.stderr


@pytest.fixture(scope="module")
def forwarding(origin: ScriptedOrigin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """To that origin and to no other; answers are trusted for a moment only."""
    args = ("--allow", f"http://127.0.0.1:{origin.port}/*", "--validate", "0.01")
    with GatewayProcess(tmp_path_factory.mktemp("cache") / "cache", *args) as made:
        yield made
        assert made.stop() == 0
    assert "Traceback" not in made.stderr


def put(nginx: Nginx, name: str, data: bytes, when: int = WHEN) -> bytes:
    """Put a file in the place of another one, as editors and copies do."""
    path = nginx.directory / name
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    os.utime(fresh, (when, when))
    fresh.rename(path)
    return data


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    limit = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


def slow_client(gateway: GatewayProcess, target: str) -> tuple[socket.socket, bytes]:
    """Ask for a file, and read no more than its head, and what comes with it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.settimeout(30)
    connection.connect((gateway.host, gateway.port))
    connection.sendall(request(target))
    begin = b""
    while b"\r\n\r\n" not in begin:
        begin += connection.recv(1024)
    return connection, begin


def broken(gateway: GatewayProcess) -> int:
    """How many answers the gateway says it has broken off."""
    found = re.search(r"^jcache_gateway_broken_total (\d+)$", gateway.get("/metrics").body.decode(), re.MULTILINE)
    assert found
    return int(found[1])


def rest_of(connection: socket.socket) -> bytes:
    rest = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 20):
            rest += data
    return rest


# -- origins -----------------------------------------------------------------------------------------------------------


def test_plain_cold_warm_and_with_the_origin_stopped_are_equal(nginx_server: Nginx, cache_dir: Path) -> None:
    data = put(nginx_server, "a.root", random.Random(1).randbytes(2_000_000))
    plain = urllib.request.urlopen(nginx_server.url("a.root"), timeout=30).read()
    with GatewayProcess(cache_dir, "--origin", nginx_server.url(), "--validate", "never") as gateway:
        cold, part = gateway.get("/a.root"), gateway.get("/a.root", Range="bytes=5-99")
        nginx_server.stop()
        warm = gateway.get("/a.root")
        assert gateway.get("/b.root").status == 502
    with GatewayProcess(cache_dir, "--origin", nginx_server.url(), JCACHE_OFFLINE="1") as later:
        assert later.get("/b.root").status == 504
        again = later.get("/a.root")
        assert (again["ETag"], again["Last-Modified"]) == (cold["ETag"], cold["Last-Modified"])
        assert later.get("/a.root", If_None_Match=cold["ETag"] or "").status == 304
        assert later.get("/a.root", method="HEAD")["Content-Length"] == str(len(data))
    assert plain == cold.body == warm.body == again.body == data
    assert part.body == data[5:100]


def test_what_a_job_has_read_the_gateway_has_and_the_other_way_round(
    nginx_server: Nginx, cache_dir: Path, run_python: Callable[..., object]
) -> None:
    """One cache directory, whoever comes first; and the gateway's report is one as any job's."""
    data = put(nginx_server, "a.root", random.Random(2).randbytes(500_000))
    put(nginx_server, "b.root", data)
    code = "import fsspec, sys; print(len(fsspec.filesystem('http').cat_file(sys.argv[1])))"
    run_python(code, nginx_server.url("a.root"))
    reports = cache_dir.parent / "reports"
    told = {"JCACHE_JSON": str(reports), "JCACHE_STATS": "0.1"}
    with GatewayProcess(cache_dir, "--origin", nginx_server.url(), **told) as gateway:
        nginx_server.reset()
        assert gateway.get("/a.root").body == gateway.get("/b.root").body == data
        assert nginx_server.body_bytes() == len(data)
        wait_until(lambda: "jcache-serve" in CliRunner().invoke(main, ["top", "--json", str(reports)]).output)
        assert gateway.stop() == 0
    nginx_server.reset()
    run_python(code, nginx_server.url("b.root"))
    assert nginx_server.body_bytes() == 0
    (path,) = reports.glob("jcache.jcache-serve.*.json")
    report = json.loads(path.read_text())
    total = {kind: report["read"][f"{kind}_bytes"] + report["readv"][f"{kind}_bytes"] for kind in ("hit", "miss")}
    assert total == {"hit": len(data), "miss": len(data)}
    assert report["complete"]


def test_replaced_in_mid_body_the_connection_breaks(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    before = broken(gateway)
    resource = origin.put("replaced.bin", b"a" * LARGE)
    connection, begin = slow_client(gateway, "/replaced.bin")
    wait_until(lambda: resource.gets >= 4)
    resource.change(b"b" * LARGE, etag='"2"')
    body = begin.partition(b"\r\n\r\n")[2] + rest_of(connection)
    connection.close()
    assert len(body) < LARGE
    assert set(body) == set(b"a")
    assert set(gateway.get("/replaced.bin").body) == set(b"b")
    assert broken(gateway) == before + 1


def test_what_is_too_old_is_validated_and_sent_from_the_cache(
    forwarding: GatewayProcess, origin: ScriptedOrigin
) -> None:
    resource = origin.put("old.bin", b"old" * 1000)
    url = origin.url("old.bin")
    assert forwarding.get(url)["Cache-Status"] == "JCache; fwd=uri-miss; stored"
    resource.reset()
    time.sleep(0.02)
    answer = forwarding.get(url)
    assert (answer["Cache-Status"], answer["Age"]) == ("JCache; fwd=stale; detail=validated", "0")
    assert (answer.body, resource.body_bytes) == (b"old" * 1000, 0)
    resource.change(b"new" * 1000, etag='"2"')
    time.sleep(0.02)
    assert forwarding.get(url).body == b"new" * 1000
    origin.stop()
    time.sleep(0.02)
    assert forwarding.get(url).status == 502
    origin.start()


def test_an_origin_that_dies_in_mid_body_breaks_the_connection(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    before = broken(gateway)
    origin.put("dies.bin", bytes(LARGE))
    connection, begin = slow_client(gateway, "/dies.bin")
    origin.stop()
    body = begin.partition(b"\r\n\r\n")[2] + rest_of(connection)
    connection.close()
    assert len(body) < LARGE
    assert gateway.get("/dies.bin", Cache_Control="no-cache").status == 502
    assert broken(gateway) == before + 1
    origin.start()
    assert len(gateway.get("/dies.bin").body) == LARGE


def test_what_the_origin_refuses_or_cannot_do(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    for status, told in (
        (401, 403),
        (403, 403),
        (404, 404),
        (410, 404),
        (429, 503),
        (500, 502),
        (503, 503),
        (504, 504),
    ):
        origin.put(f"{status}.bin", b"x", status=status)
        answer = gateway.get(f"/{status}.bin")
        assert answer.status == told, status
        assert b"127.0.0.1" not in answer.body


def test_a_file_without_a_version_passes_through(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    data = random.Random(3).randbytes(3_000_000)
    origin.put("unversioned.bin", data, etag=None)
    origin.put("empty.bin", b"")
    for _ in range(2):
        answer = gateway.get("/unversioned.bin", Range="bytes=0-9")
        assert (answer.status, answer.body) == (200, data)
        assert answer["Cache-Status"] == "JCache; fwd=bypass"
        assert answer["ETag"] is None
    assert gateway.get("/empty.bin").body == b""
    cut = origin.put("cut.bin", data, etag=None, drop_after=2_000_000)
    with pytest.raises((ConnectionError, ValueError)):
        gateway.get("/cut.bin")
    assert cut.gets > 0


def test_an_origin_that_sends_no_parts_sends_the_file_once(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    data = random.Random(7).randbytes(12 << 20)
    resource = origin.put("whole.bin", data, ranges=False)
    assert gateway.get("/whole.bin").body == data
    assert resource.gets == 2  # of which the first asked for a part, and was closed
    resource.reset()
    assert gateway.get("/whole.bin", Range="bytes=9000000-9000009").body == data[9_000_000:9_000_010]
    assert resource.body_bytes == 0


def test_what_an_origin_says_makes_no_header_field(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    origin.put("html.bin", b"x" * 10, etag='"<é>"', headers={"Content-Type": "text/html;\tx=<y>, evil"})
    origin.put("odd.bin", b"x" * 10, headers={"Content-Type": 'x"y'})
    answer = gateway.get("/html.bin")
    assert (answer["Content-Type"], (answer["ETag"] or "").isascii()) == ("text/html", True)
    assert gateway.get("/odd.bin")["Content-Type"] == "application/octet-stream"
    injected = gateway.get("/html.bin%0d%0aX-Injected:%20yes")
    assert (injected.status, injected["X-Injected"]) == (400, None)


def test_a_cache_that_cannot_be_used_fails_no_request(origin: ScriptedOrigin, cache_dir: Path) -> None:
    data = random.Random(6).randbytes(3_000_000)
    origin.put("uncached.bin", data)
    cache_dir.write_text("a file")
    with GatewayProcess(cache_dir, "--origin", origin.url("")) as gateway:
        for _ in range(2):
            answer = gateway.get("/uncached.bin")
            assert (answer.body, "stored" in (answer["Cache-Status"] or "")) == (data, False)
        assert gateway.get("/uncached.bin", Range="bytes=5-9").body == data[5:10]
    assert gateway.stderr.count("nothing is cached") == 1


# -- clients -----------------------------------------------------------------------------------------------------------


def test_a_client_that_goes_away_stops_its_fetch_and_a_slow_one_holds_nobody_up(
    gateway: GatewayProcess, origin: ScriptedOrigin
) -> None:
    large = origin.put("large.bin", bytes(4 * LARGE), delay_s=0.05)
    origin.put("small.bin", b"small")
    slow, _ = slow_client(gateway, "/large.bin")
    gone, _ = slow_client(gateway, "/large.bin")
    gone.close()
    started_s = time.monotonic()
    assert gateway.get("/small.bin").body == b"small"
    assert time.monotonic() - started_s < 20
    slow.close()
    wait_until(lambda: "jcache_gateway_requests 1\n" in gateway.get("/metrics").body.decode())
    # What is under way at the origin ends; then nothing is asked for any more.
    before = -1
    while before != large.gets:
        before = large.gets
        time.sleep(0.3)
    assert large.body_bytes < 2 * LARGE


def test_no_origin_is_asked_for_more_at_once_than_it_may_be(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    for i in range(10):
        origin.put(f"{i}.bin", bytes([i]) * 100_000, delay_s=0.02)
    origin.stop()  # so that all connections are new
    origin.start()
    origin.reset()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda i: gateway.get(f"/{i}.bin"), range(10)))
    assert [answer.body for answer in answers] == [bytes([i]) * 100_000 for i in range(10)]
    assert 1 < origin.connections <= AT_ONCE


def test_a_client_that_takes_nothing_costs_a_bounded_memory(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process(gateway.process.pid)
    origin.put("huge.bin", bytes(8 * LARGE), headers={"Cache-Control": "no-store"})
    gateway.get("/huge.bin", Range="bytes=0-9999999")
    before = process.memory_info().rss
    clients = [slow_client(gateway, "/huge.bin")[0] for _ in range(2)]
    for connection in clients:
        for _ in range(200):
            connection.recv(64 << 10)
        assert process.memory_info().rss - before < 2 * (24 << 20) + (32 << 20)
    for connection in clients:
        connection.close()


def test_malformed_requests_by_the_hundred(gateway: GatewayProcess, origin: ScriptedOrigin) -> None:
    """Each gets an answer or a closed connection; nothing is left of them: no traceback, no descriptor, no stall."""
    rng = random.Random(20261129)
    origin.put("a.root", b"right" * 1000)
    sound = [
        request("/a.root", Range="bytes=0-9,20-29", If_None_Match='"x"', Cache_Control="max-age=5"),
        request("/a.root", method="HEAD", Connection="keep-alive"),
        request("http://127.0.0.1:1/a", Host="127.0.0.1:1", Proxy_Authorization="Bearer x"),
        request("/a.root", method="POST", Content_Length="4") + b"body",
        request("/a.root", Transfer_Encoding="chunked") + b"4\r\nbody\r\n0\r\n\r\n",
    ]
    gateway.get("/a.root")
    descriptors = f"/proc/{gateway.process.pid}/fd"
    before = len(os.listdir(descriptors)) if os.path.isdir(descriptors) else None
    for _ in range(400):
        data = mangled(rng, rng.choice(sound))
        with gateway.connect() as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            answer = rest_of(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1."), answer[:100]
    assert gateway.get("/a.root").body == b"right" * 1000
    if before is not None:
        wait_until(lambda: len(os.listdir(descriptors)) <= before + 4)


def mangled(rng: random.Random, sound: bytes) -> bytes:
    """A request that was changed at up to six places: bytes put in, taken out, changed, said twice."""
    data = bytearray(sound)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                data[at:at] = data[at : at + rng.randint(1, 40)]
        data = data or bytearray(b"\r\n")
    return bytes(data)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_sigterm_lets_what_is_under_way_end(nginx_server: Nginx, cache_dir: Path) -> None:
    data = put(nginx_server, "a.root", random.Random(4).randbytes(LARGE))
    with GatewayProcess(cache_dir, "--origin", nginx_server.url()) as gateway:
        idle = gateway.connect()
        connection, begin = slow_client(gateway, "/a.root")
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(gateway.is_refusing)
        assert idle.recv(1) == b""  # it had nothing to wait for
        assert begin.partition(b"\r\n\r\n")[2] + rest_of(connection) == data
        connection.close()
        idle.close()
        assert gateway.process.wait(30) == 0


def test_connections_and_the_end_are_bounded(origin: ScriptedOrigin, cache_dir: Path) -> None:
    """Beyond the limit connections are turned away; who takes nothing does not hold up the end."""
    origin.put("long.bin", bytes(LARGE))
    with GatewayProcess(cache_dir, "--origin", origin.url(""), "--connections", "2", "--drain", "0.2") as gateway:
        with gateway.connect() as one, gateway.connect() as two:
            for connection in (one, two):
                connection.sendall(request("/healthz", Connection="keep-alive"))
                assert reply(connection.makefile("rb")).status == 200
            answer = gateway.get("/healthz")
            assert (answer.status, answer["Retry-After"]) == (503, "1")
        wait_until(lambda: gateway.get("/healthz").status == 200)
        connection, _ = slow_client(gateway, "/long.bin")
        started_s = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started_s < 25  # by default it would be 30
        connection.close()


# -- who may, and what may be reached ----------------------------------------------------------------------------------


def test_no_private_address_is_reached_that_no_pattern_names(http_origin: ScriptedOrigin, cache_dir: Path) -> None:
    secret = http_origin.put("secret", b"secret")
    port = http_origin.port
    hosts = ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0.0.0.0", "localhost", "LOCALHOST"]
    hosts += ["[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "127.0.0.1."]
    with GatewayProcess(cache_dir, "--allow", f"*:{port}", "--allow", "127.0.0.*") as gateway:
        for host in hosts:
            for target in (f"/http://{host}:{port}/secret", f"http://{host}:{port}/secret"):
                answer = gateway.get(target)
                assert answer.status in {400, 403}, (target, answer)
                assert b"secret" not in answer.body
    assert secret.gets + secret.heads == 0


def test_no_redirect_leads_to_what_is_not_allowed(
    gateway: GatewayProcess, forwarding: GatewayProcess, origin: ScriptedOrigin
) -> None:
    inner = ScriptedOrigin()
    secret = inner.put("secret", b"secret")
    origin.put("away", b"", status=302, headers={"Location": inner.url("secret")})
    origin.put("here", b"", status=302, headers={"Location": origin.url("there")})
    origin.put("file", b"", status=302, headers={"Location": "file:///etc/passwd"})
    guise = inner.url("secret").replace("http://", f"http://127.0.0.1:{origin.port}@")
    origin.put("user", b"", status=302, headers={"Location": guise})
    origin.put("there", b"there")
    for one, base in ((gateway, "/"), (forwarding, f"/{origin.url('')}")):
        assert one.get(f"{base}away").status == 403
        assert one.get(f"{base}user").status == 403
        assert one.get(f"{base}file").status in {403, 502}
        assert one.get(f"{base}here").body == b"there"
    assert secret.gets + secret.heads == 0
    inner.stop()


def test_tokens_and_the_access_log(http_origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path) -> None:
    http_origin.put("a.bin", b"there")
    tokens, log = tmp_path / "tokens", tmp_path / "log"
    tokens.write_text("open-sesame\n")
    args = ("--origin", http_origin.url(""), "--token-file", str(tokens), "--access-log", str(log))
    with GatewayProcess(cache_dir, *args) as gateway:
        assert gateway.get("/healthz").status == 200
        refused = gateway.get("/a.bin")
        assert (refused.status, refused["WWW-Authenticate"]) == (401, 'Bearer realm="jcache"')
        assert gateway.get("/metrics").status == 401
        assert gateway.get(http_origin.url("a.bin")).status == 407
        assert gateway.get("/a.bin?access_token=abc&x=1", Authorization="Bearer wrong").status == 401
        assert gateway.get("/a.bin", Authorization="Bearer open-sesame").body == b"there"
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    assert lines[-1].endswith('] "GET /a.bin HTTP/1.1" 200 5')
    assert '"GET /a.bin?access_token=***&x=1 HTTP/1.1" 401' in lines[-2]
    assert "sesame" not in log.read_text() + gateway.stderr
    assert "abc" not in log.read_text()


def test_tls_and_certificates_of_clients(http_origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name in ("server", "client"):
        made = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem", "-subj", f"/CN={name}"]
        made += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1"]
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", *made]
        subprocess.run(command, check=True, capture_output=True)
    http_origin.put("a.bin", b"there")
    args = [
        "--cert",
        f"{tmp_path}/server.pem",
        "--key",
        f"{tmp_path}/server.key",
        "--client-ca",
        f"{tmp_path}/client.pem",
    ]
    with GatewayProcess(cache_dir, "--origin", http_origin.url(""), *args) as gateway:
        assert gateway.url.startswith("https://")
        context = ssl.create_default_context(cafile=f"{tmp_path}/server.pem")
        with pytest.raises(OSError, match=r"(?i)certificate|reset|eof|closed"):
            urllib.request.urlopen(f"{gateway.url}/a.bin", context=context, timeout=30).read()
        context.load_cert_chain(f"{tmp_path}/client.pem", f"{tmp_path}/client.key")
        assert urllib.request.urlopen(f"{gateway.url}/a.bin", context=context, timeout=30).read() == b"there"
        assert gateway.stop() == 0
    assert "Traceback" not in gateway.stderr


def test_what_cannot_be_served_is_said_in_a_line(origin: ScriptedOrigin, cache_dir: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
    command = [sys.executable, "-m", "jcache", "serve", "--dir", str(cache_dir)]
    busy = ["--allow", "h", "--port", str(origin.port)]
    for args, code, said in ((["--allow", "a b"], 2, "names no origin"), (busy, 1, f"127.0.0.1:{origin.port}: ")):
        done = subprocess.run([*command, *args], env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("jcache: "), done.stderr
        assert (said in done.stderr, done.stderr.count("\n")) == (True, 1), done.stderr
