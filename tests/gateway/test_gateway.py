"""A gateway over a real server, line by line of RFC 9110, 9111, 9112 and 9211; and in the hands of real clients."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import HTTP
from typing import TYPE_CHECKING, NamedTuple

import pytest
from gateways import GatewayProcess, reply, request
from servers import Nginx, find_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEN = 1_700_000_000
MODIFIED, BEFORE = "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:19 GMT"
SIZE = 3_000_000
DATA = random.Random(12).randbytes(SIZE)
TEXT = b"one line\n"


class Served(NamedTuple):
    gateway: GatewayProcess
    nginx: Nginx


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if find_nginx() is None:
        pytest.skip("nginx is not installed")
    directory, work = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("nginx")
    (directory / "listed" / "inner").mkdir(parents=True)
    (directory / "data.root").write_bytes(DATA)
    (directory / "listed" / "a b.txt").write_bytes(TEXT)
    (directory / "listed" / "empty").write_bytes(b"")
    for path in directory.rglob("*"):
        os.utime(path, (WHEN, WHEN))
    nginx = Nginx(directory, work)
    cache = tmp_path_factory.mktemp("cache") / "cache"
    # So long that no test is too slow for it: those that want the origin asked say so.
    args = ("--origin", nginx.url(), "--allow", f"http://127.0.0.1:{nginx.port}/listed/*", "--validate", "3600")
    with GatewayProcess(cache, *args) as gateway:
        assert gateway.get("/data.root")["Cache-Status"] == "JCache; fwd=uri-miss; stored"
        yield Served(gateway, nginx)
    nginx.stop()


@pytest.fixture(scope="module")
def gateway(served: Served) -> GatewayProcess:
    return served.gateway


@pytest.fixture(scope="module")
def tag(gateway: GatewayProcess) -> str:
    found = gateway.get("/data.root", method="HEAD")["ETag"]
    assert found
    return found


# -- RFC 9110: methods, fields, status ---------------------------------------------------------------------------------


def test_get_sends_the_file_and_describes_it(gateway: GatewayProcess) -> None:
    """RFC 9110, 9.3.1, 8.3, 8.6, 8.8, 14.3."""
    answer = gateway.get("/data.root")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer["Content-Length"] == str(SIZE)
    assert answer["Last-Modified"] == MODIFIED
    assert answer["Accept-Ranges"] == "bytes"
    assert re.fullmatch(r'"[!#-~]+"', answer["ETag"] or "")
    assert answer["Date"]


def test_head_is_get_without_the_body(gateway: GatewayProcess) -> None:
    """RFC 9110, 9.3.2; and a range is for GET alone, 14.2."""
    whole, head = gateway.get("/data.root"), gateway.get("/data.root", method="HEAD", Range="bytes=0-9")
    assert head.status == 200
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head[name] == whole[name], name


def test_a_connection_goes_on_after_head_304_416_and_ranges(gateway: GatewayProcess, tag: str) -> None:
    """RFC 9112, 6.3 and 9.3: where a body ends, however it is delimited."""
    asked = [
        ("HEAD", {}),
        ("GET", {"If-None-Match": tag}),
        ("GET", {"Range": "bytes=9999999-"}),
        ("GET", {"Range": "bytes=5-9"}),
        ("GET", {"Range": "bytes=0-1,5-6"}),
        ("GET", {}),
    ]
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=30)
    sockets = set()
    for method, headers in asked:
        connection.request(method, "/data.root", headers=headers)
        sockets.add(connection.sock)
        connection.getresponse().read()
    assert len(sockets) == 1
    connection.close()


def test_requests_that_are_sent_at_once_are_answered_in_their_order(gateway: GatewayProcess) -> None:
    """RFC 9112, 9.3.2."""
    with gateway.connect() as connection:
        asked = [request("/data.root", Range=f"bytes={i}-{i + 4}", Connection="keep-alive") for i in range(20)]
        connection.sendall(b"".join(asked))
        stream = connection.makefile("rb")
        assert [reply(stream).body for _ in asked] == [DATA[i : i + 5] for i in range(20)]


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("TRACE", 405), ("PATCH", 405), ("LOCK", 501)],
)
def test_other_methods_are_refused_by_name(gateway: GatewayProcess, method: str, status: int) -> None:
    """RFC 9110, 9.1, 15.5.6."""
    answer = gateway.get("/data.root", method=method, Content_Length="0")
    assert (answer.status, answer["Allow"]) == (status, "GET, HEAD")


def test_connect_makes_no_tunnel(gateway: GatewayProcess) -> None:
    answer = gateway.send(request(f"127.0.0.1:{gateway.port}", method="CONNECT"))
    assert answer.status in {400, 405}


def test_a_file_that_is_not_there(gateway: GatewayProcess) -> None:
    assert gateway.get("/nothing.root").status == 404
    assert gateway.get("/nothing.root", method="HEAD").status == 404


def test_an_empty_file_is_empty(gateway: GatewayProcess) -> None:
    answer = gateway.get("/listed/empty")
    assert (answer.status, answer.body) == (200, b"")


def test_a_range_of_an_empty_file_is_the_file(served: Served) -> None:
    """RFC 9110, 14.2, lets a range be left out; as nginx does, for who asks for ranges of whatever there is."""
    with socket.create_connection(("127.0.0.1", served.nginx.port), timeout=30) as connection:
        connection.sendall(request("/listed/empty", Range="bytes=0-9"))
        plain = reply(connection.makefile("rb"))
    for said in ("bytes=0-9", "bytes=5-", "bytes=-3", "bytes=0-1,5-9"):
        answer = served.gateway.get("/listed/empty", Range=said)
        assert (answer.status, answer.body) == (plain.status, plain.body) == (200, b""), said


def test_a_message_that_could_be_two_is_refused(gateway: GatewayProcess) -> None:
    """RFC 9112, 6.1, 6.3, 11.2: nothing is smuggled behind it."""
    inner = request("/data.root", Range="bytes=0-0")
    for fields in (
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length: +5",
    ):
        head = f"GET /listed/a%20b.txt HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n0\r\n\r\n".encode()
        with gateway.connect() as connection:
            connection.sendall(head + inner)
            stream = connection.makefile("rb")
            assert reply(stream).status == 400, fields
            assert stream.read() == b"", fields


def test_a_request_has_one_host(gateway: GatewayProcess) -> None:
    """RFC 9112, 3.2."""
    for fields in ("", "Host: a\r\nHost: b\r\n"):
        assert gateway.send(f"GET /data.root HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode()).status == 400
    assert gateway.send(b"GET /listed/a%20b.txt HTTP/1.0\r\n\r\n").body == TEXT


def test_a_page_of_another_name_reads_nothing(gateway: GatewayProcess) -> None:
    """RFC 9110, 7.4 and 15.5.20: a browser sends the name by which it was led here."""
    answer = gateway.get("/listed/a%20b.txt", Host="evil.example")
    assert (answer.status, TEXT in answer.body) == (421, False)
    assert gateway.get("/listed/a%20b.txt", Host=f"127.0.0.1:{gateway.port}").body == TEXT


def test_a_header_that_is_too_large_is_refused(gateway: GatewayProcess) -> None:
    assert gateway.get("/data.root", X_Large="a" * 100_000).status == 400
    assert gateway.get("/" + "a" * 20_000).status == 400


# -- RFC 9110, 13: conditions ------------------------------------------------------------------------------------------


def test_304_has_the_fields_of_200_and_no_body(gateway: GatewayProcess, tag: str) -> None:
    """15.4.5."""
    for said in ({"If_None_Match": tag}, {"If_None_Match": f'"x", W/{tag}'}, {"If_Modified_Since": MODIFIED}):
        answer = gateway.get("/data.root", **said)
        assert (answer.status, answer.body) == (304, b""), said
        assert (answer["ETag"], answer["Content-Length"] in {None, str(SIZE)}) == (tag, True)


def test_412_sends_nothing_of_the_file(gateway: GatewayProcess) -> None:
    """15.5.13."""
    for said in ({"If_Match": '"x"'}, {"If_Unmodified_Since": BEFORE}):
        answer = gateway.get("/data.root", **said)
        assert answer.status == 412
        assert len(answer.body) < 100


def test_conditions_that_hold_are_answered_with_the_file(gateway: GatewayProcess, tag: str) -> None:
    for said in ({"If_Match": tag}, {"If_None_Match": '"x"'}, {"If_Modified_Since": BEFORE}):
        assert gateway.get("/data.root", **said).body == DATA


def test_conditions_go_before_the_range(gateway: GatewayProcess, tag: str) -> None:
    """13.2.2 and 14.2."""
    assert gateway.get("/data.root", If_None_Match=tag, Range="bytes=0-1").status == 304
    assert gateway.get("/data.root", If_Match='"x"', Range="bytes=0-1").status == 412


def test_if_range(gateway: GatewayProcess, tag: str) -> None:
    """13.1.5: the part where it is still the same file, else all of it."""
    assert gateway.get("/data.root", If_Range=tag, Range="bytes=0-1").body == DATA[:2]
    assert gateway.get("/data.root", If_Range=MODIFIED, Range="bytes=0-1").body == DATA[:2]
    for other in ('"x"', f"W/{tag}", BEFORE):
        answer = gateway.get("/data.root", If_Range=other, Range="bytes=0-1")
        assert (answer.status, answer.body) == (200, DATA), other


# -- RFC 9110, 14: ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes={SIZE - 5}-", SIZE - 5, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=10-{SIZE * 2}", 10, SIZE),
        (f"bytes=3-4,{SIZE}-", 3, 5),
    ],
)
def test_one_range_is_sent_as_it_is(gateway: GatewayProcess, said: str, start: int, stop: int) -> None:
    """14.4, 15.3.7.1."""
    answer = gateway.get("/data.root", Range=said)
    assert (answer.status, answer.body) == (206, DATA[start:stop])
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"


def test_many_ranges_are_sent_as_parts_in_their_order(gateway: GatewayProcess) -> None:
    """14.6, 15.3.7.2."""
    ranges = [(500, 600), (0, 1), (SIZE - 9, SIZE), (1_000_000, 2_500_000), (550, 650)]
    answer = gateway.get("/data.root", Range="bytes=" + ",".join(f"{a}-{b - 1}" for a, b in ranges))
    assert answer.status == 206
    assert answer["Content-Range"] is None
    kind = f"Content-Type: {answer['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(kind + answer.body, policy=HTTP).get_payload()
    assert [part["Content-Range"] for part in parts] == [f"bytes {a}-{b - 1}/{SIZE}" for a, b in ranges]
    # Cut by hand: a parser of mail may change the ends of lines in what it takes for text.
    boundary = re.search(r'boundary="?([0-9a-f]+)', answer["Content-Type"] or "")
    assert boundary
    bodies = answer.body.split(b"--" + boundary[1].encode())
    assert (bodies[0], bodies[-1]) == (b"", b"--\r\n")
    assert [body.partition(b"\r\n\r\n")[2][:-2] for body in bodies[1:-1]] == [DATA[a:b] for a, b in ranges]


def test_ranges_that_are_not_there_are_416(gateway: GatewayProcess) -> None:
    """14.4, 15.5.17; and 14.2 of those that only cost."""
    for said in (f"bytes={SIZE}-", "bytes=-0", "bytes=0-,0-,0-", "bytes=" + ",".join(["1-1"] * 1025)):
        answer = gateway.get("/data.root", Range=said)
        assert (answer.status, answer["Content-Range"]) == (416, f"bytes */{SIZE}"), said


def test_ranges_that_mean_nothing_are_left_out(gateway: GatewayProcess) -> None:
    """14.2."""
    for said in ("lines=0-9", "bytes=9-0", "bytes=x", "0-9"):
        assert gateway.get("/data.root", Range=said).body == DATA, said


# -- RFC 9111 and 9211 -------------------------------------------------------------------------------------------------


def test_the_cache_says_what_it_did(served: Served) -> None:
    """RFC 9211; RFC 9111, 5.1."""
    (served.nginx.directory / "status.bin").write_bytes(DATA[:100_000])
    os.utime(served.nginx.directory / "status.bin", (WHEN, WHEN))
    cold = served.gateway.get("/status.bin", Range="bytes=0-999")
    warm = served.gateway.get("/status.bin", Range="bytes=0-999")
    more = served.gateway.get("/status.bin", Range="bytes=500-1999")
    assert cold["Cache-Status"] == "JCache; fwd=uri-miss; stored"
    assert re.fullmatch(r"JCache; hit; ttl=\d+", warm["Cache-Status"] or "")
    assert more["Cache-Status"] == "JCache; fwd=partial; stored"
    assert all(0 <= int(answer["Age"] or -1) < 600 for answer in (cold, warm, more))
    assert warm.body == cold.body == DATA[:1000]


def test_a_file_of_which_nothing_is_known_is_asked_for_once(served: Served) -> None:
    """As a client of its own would do it: no question goes before the bytes."""
    for name, said, sent in (("cold1.bin", {}, 10_000), ("cold2.bin", {"Range": "bytes=5-104"}, 100)):
        (served.nginx.directory / name).write_bytes(DATA[:10_000])
        os.utime(served.nginx.directory / name, (WHEN, WHEN))
        served.nginx.reset()
        answer = served.gateway.get(f"/{name}", **said)
        assert len(answer.body) == sent
        assert answer["Cache-Status"] == "JCache; fwd=uri-miss; stored"
        asked = [(one.method, one.body_bytes) for one in served.nginx.requests()]
        # A body that took longer than a round trip is proved by a HEAD behind it.
        assert asked[0] == ("GET", sent)
        assert asked[1:] in ([], [("HEAD", 0)])


def test_many_clients_at_once_get_their_bytes_and_each_is_fetched_once(served: Served) -> None:
    put = served.nginx.directory / "many.bin"
    put.write_bytes(DATA)
    os.utime(put, (WHEN, WHEN))
    served.nginx.reset()

    def ask(seed: int) -> None:
        own = random.Random(seed)
        for _ in range(12):
            ranges = [
                (a, min(SIZE, a + own.choice((1, 1000, 300_000)))) for a in own.sample(range(SIZE), own.choice((1, 3)))
            ]
            answer = served.gateway.get("/many.bin", Range="bytes=" + ",".join(f"{a}-{b - 1}" for a, b in ranges))
            assert answer.status == 206
            assert all(DATA[a:b] in answer.body for a, b in ranges)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert 0 < served.nginx.body_bytes() <= SIZE


def test_no_cache_asks_the_origin_and_fetches_nothing(served: Served) -> None:
    """RFC 9111, 5.2.1.4; 5.4."""
    for said in ({"Cache_Control": "no-cache"}, {"Pragma": "no-cache"}):
        served.nginx.reset()
        answer = served.gateway.get("/data.root", Range="bytes=0-9", **said)
        assert (answer.body, answer["Cache-Status"]) == (DATA[:10], "JCache; fwd=request; detail=validated")
        assert [(one.method, one.body_bytes) for one in served.nginx.requests()] == [("HEAD", 0)]


def test_max_age_asks_for_an_answer_that_is_not_older(served: Served) -> None:
    """RFC 9111, 5.2.1.1."""
    served.gateway.get("/data.root", Range="bytes=0-9")
    served.nginx.reset()
    assert "hit" in (
        served.gateway.get("/data.root", Range="bytes=0-9", Cache_Control="max-age=600")["Cache-Status"] or ""
    )
    assert served.nginx.requests() == []
    answer = served.gateway.get("/data.root", Range="bytes=0-9", Cache_Control="max-age=0")
    assert answer["Cache-Status"] == "JCache; fwd=request; detail=validated"


def test_only_if_cached_asks_nobody(served: Served) -> None:
    """RFC 9111, 5.2.1.7."""
    (served.nginx.directory / "part.bin").write_bytes(DATA[:10_000])
    os.utime(served.nginx.directory / "part.bin", (WHEN, WHEN))
    served.gateway.get("/part.bin", Range="bytes=0-99")
    served.nginx.reset()
    said = {"Cache_Control": "only-if-cached"}
    assert served.gateway.get("/part.bin", Range="bytes=10-89", **said).body == DATA[10:90]
    assert served.gateway.get("/part.bin", Range="bytes=50-149", **said).status == 504
    assert served.gateway.get("/part.bin", **said).status == 504
    assert served.gateway.get("/never-asked.bin", **said).status == 504
    assert served.gateway.get("/data.root", **said).body == DATA
    assert served.nginx.requests() == []


def test_min_fresh_asks_where_less_is_left(served: Served) -> None:
    """RFC 9111, 5.2.1.3."""
    served.gateway.get("/data.root", Range="bytes=0-9", Cache_Control="no-cache")
    for said, asks in (("min-fresh=600", False), ("min-fresh=3600", True)):
        served.nginx.reset()
        answer = served.gateway.get("/data.root", Range="bytes=0-9", Cache_Control=said)
        assert (answer.status, answer.body, bool(served.nginx.requests())) == (206, DATA[:10], asks), said


def test_only_if_cached_asks_nobody_for_a_listing(served: Served) -> None:
    served.nginx.reset()
    assert served.gateway.get("/listed/", Cache_Control="only-if-cached").status == 504
    assert served.nginx.requests() == []


def test_no_script_in_a_file_reads_other_files(served: Served) -> None:
    """To a browser the files of all servers are one site, the gateway's."""
    for name in ("page.html", "drawing.svg"):
        (served.nginx.directory / "listed" / "inner" / name).write_bytes(b"<script>1</script>")
    url = served.nginx.url("listed/inner/page.html")
    for target in ("/listed/inner/page.html", "/listed/inner/drawing.svg", f"/{url}", "/data.root", "/nothing.html"):
        assert served.gateway.get(target)["Content-Security-Policy"] == "sandbox", target
    assert served.gateway.get("/listed/")["Content-Security-Policy"] == "default-src 'none'"
    assert served.gateway.get(url)["Content-Security-Policy"] is None  # the browser knows whose it is
    for name in ("page.html", "drawing.svg"):
        (served.nginx.directory / "listed" / "inner" / name).unlink()


def test_no_store_records_nothing(served: Served) -> None:
    """RFC 9111, 5.2.1.5."""
    (served.nginx.directory / "unstored.bin").write_bytes(DATA[:10_000])
    os.utime(served.nginx.directory / "unstored.bin", (WHEN, WHEN))
    answer = served.gateway.get("/unstored.bin", Cache_Control="no-store")
    assert (answer.body, answer["Cache-Status"]) == (DATA[:10_000], "JCache; fwd=uri-miss")
    assert served.gateway.get("/unstored.bin", Cache_Control="only-if-cached").status == 504


def test_a_file_that_was_replaced_is_another_version(served: Served, tag: str) -> None:
    path = served.nginx.directory / "replaced.bin"
    path.write_bytes(b"old" * 1000)
    os.utime(path, (WHEN, WHEN))
    old = served.gateway.get("/replaced.bin")
    path.write_bytes(b"new" * 1000)
    os.utime(path, (WHEN + 5, WHEN + 5))
    new = served.gateway.get("/replaced.bin", Cache_Control="no-cache")
    assert (old.body, new.body) == (b"old" * 1000, b"new" * 1000)
    assert old["ETag"] != new["ETag"]
    assert served.gateway.get("/replaced.bin", If_Match=old["ETag"] or "").status == 412
    assert served.gateway.get("/replaced.bin", If_None_Match=new["ETag"] or "").status == 304


# -- directories, and the gateway's own --------------------------------------------------------------------------------


def test_a_directory_is_a_page_or_json(gateway: GatewayProcess) -> None:
    page = gateway.get("/listed/")
    assert (page.status, page["Vary"]) == (200, "Accept")
    assert re.findall(rb'href="([^"]*)"', page.body) == [b"../", b"a%20b.txt", b"empty", b"inner/"]
    listed = gateway.get("/listed/", Accept="application/json")
    assert (listed["Content-Type"] or "").startswith("application/json")
    assert [(one["name"], one["type"]) for one in json.loads(listed.body)] == [
        ("a b.txt", "file"),
        ("empty", "file"),
        ("inner", "directory"),
    ]
    away = gateway.get("/listed")
    assert (away.status, away["Location"]) == (301, "./listed/")
    assert gateway.get("/listed/nothing/").status == 404


def test_health_and_metrics(gateway: GatewayProcess) -> None:
    assert gateway.get("/healthz").body == b"ok\n"
    first, _, second = (gateway.get("/metrics").body.decode(), gateway.get("/data.root"), gateway.get("/metrics"))
    text = second.body.decode()
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) jcache_\w+ .+|jcache_\w+(\{[^}]*\})? [0-9.e+-]+", line), line
    name = 'jcache_read_bytes_total{source="hit"} '
    before, after = (int(re.search(re.escape(name) + r"(\d+)", one)[1]) for one in (first, text))  # type: ignore[index]
    assert after - before == SIZE


# -- forwarding --------------------------------------------------------------------------------------------------------


def test_forwarded_by_path_and_as_a_proxy(served: Served) -> None:
    url = served.nginx.url("listed/a b.txt")
    for target in (f"/{url}", url):
        answer = served.gateway.get(target)
        assert (answer.status, answer.body) == (200, TEXT), target
        assert "jcache-" in (answer["Via"] or "")


def test_its_own_address_in_full_is_a_path_of_it(served: Served) -> None:
    """RFC 9112, 3.2.2."""
    assert served.gateway.get(f"{served.gateway.url}/listed/a%20b.txt").body == TEXT


def test_what_is_not_allowed_is_not_forwarded(served: Served) -> None:
    for target in (
        f"/{served.nginx.url('data.root')}",
        served.nginx.url("data.root"),
        "/https://example.org/",
        f"/http://127.0.0.1:{served.nginx.port}/listed/../data.root",
        f"/http://127.0.0.1:{served.nginx.port}/listed/%2e%2e/data.root",
        f"/http://127.0.0.1:{served.nginx.port}/listed/..%2fdata.root",
        f"/http://127.0.0.1:{served.nginx.port}@example.org/listed/x",
    ):
        assert served.gateway.get(target).status in {400, 403}, target


def test_a_request_that_has_come_round_is_refused(served: Served) -> None:
    via = served.gateway.get("/data.root", method="HEAD")["Via"]
    assert served.gateway.get("/data.root", Via=f"1.1 other, {via}").status == 508


# -- real clients ------------------------------------------------------------------------------------------------------


def curl(*args: str) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["curl", "-sS", "--fail", "--noproxy", "", *args], capture_output=True, timeout=60, check=True
    )
    return done.stdout


def test_curl(served: Served, tmp_path: Path) -> None:
    url = f"{served.gateway.url}/data.root"
    assert curl(url) == DATA
    assert curl("-r", "100-199", url) == DATA[100:200]
    assert curl("-r", "-10", url) == DATA[-10:]
    (tmp_path / "half").write_bytes(DATA[:1_000_000])
    curl("-C", "-", "-o", str(tmp_path / "half"), url)
    assert (tmp_path / "half").read_bytes() == DATA
    assert curl("-x", served.gateway.url, served.nginx.url("listed/a b.txt")) == TEXT


def test_wget(served: Served, tmp_path: Path) -> None:
    if shutil.which("wget") is None:
        pytest.skip("wget is not installed")
    (tmp_path / "data.root").write_bytes(DATA[:2_000_000])
    command = ["wget", "-q", "--no-proxy", "-c", "-O", str(tmp_path / "data.root"), f"{served.gateway.url}/data.root"]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "data.root").read_bytes() == DATA


def test_uproots_own_client_asks_for_many_ranges(served: Served) -> None:
    numpy, uproot = pytest.importorskip("numpy"), pytest.importorskip("uproot")
    made = served.nginx.directory / "tree.root"
    with uproot.recreate(made) as file:
        file["tree"] = {name: numpy.arange(20_000) * i for i, name in enumerate("abcdef")}
    os.utime(made, (WHEN, WHEN))
    served.nginx.reset()
    for _ in range(2):
        with uproot.open(f"{served.gateway.url}/tree.root:tree", handler=uproot.HTTPSource) as tree:
            found = tree.arrays(["b", "d", "f"], library="np")
        assert all((found[name] == numpy.arange(20_000) * i).all() for name, i in (("b", 1), ("d", 3), ("f", 5)))
    assert served.nginx.body_bytes() <= made.stat().st_size


def test_native_clients_of_polars_and_obstore(served: Served) -> None:
    """They read nothing through fsspec, and are cached all the same."""
    polars, store = pytest.importorskip("polars"), pytest.importorskip("obstore.store")
    import obstore

    made = served.nginx.directory / "table.parquet"
    polars.DataFrame({"a": range(100_000), "b": [i * 0.5 for i in range(100_000)]}).write_parquet(made)
    os.utime(made, (WHEN, WHEN))
    found = [polars.scan_parquet(f"{served.gateway.url}/table.parquet").select(polars.col("a").sum()).collect().item()]
    served.nginx.reset()
    found += [polars.scan_parquet(f"{served.gateway.url}/table.parquet").select(polars.col("a").sum()).collect().item()]
    assert found == [sum(range(100_000))] * 2
    remote = store.HTTPStore.from_url(served.gateway.url, client_options={"allow_http": True})
    parts = obstore.get_ranges(remote, "data.root", starts=[0, 1_000_000], ends=[10, 1_500_000])
    assert [bytes(part) for part in parts] == [DATA[:10], DATA[1_000_000:1_500_000]]
    assert obstore.head(remote, "data.root")["size"] == SIZE
    assert served.nginx.body_bytes() == 0


def test_pythons_own_client_by_http_proxy(served: Served) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": served.gateway.url}))
    with opener.open(served.nginx.url("listed/a b.txt"), timeout=30) as answer:
        assert answer.read() == TEXT


def test_fsspec_reads_and_lists_through_it(served: Served) -> None:
    import fsspec

    fs = fsspec.filesystem("http")
    with fs.open(f"{served.gateway.url}/data.root", block_size=100_000) as file:
        file.seek(SIZE - 50)
        assert file.read() == DATA[-50:]
    ranges = [(7, 9), (1_000_000, 1_200_000)]
    url = f"{served.gateway.url}/data.root"
    assert fs.cat_ranges([url] * 2, [7, 1_000_000], [9, 1_200_000]) == [DATA[a:b] for a, b in ranges]
    names = [one.rpartition("/")[2] for one in fs.ls(f"{served.gateway.url}/listed/", detail=False)]
    assert {"a%20b.txt", "empty"} <= set(names)
