"""The servers that other tests measure with: what they count is what was sent, and they misbehave exactly as told."""

from __future__ import annotations

import http.client
import os
import random
import socket
import time
import urllib.error
import urllib.request

import pytest
from proxy import XrootdStreams

DATA = random.Random(1).randbytes(300_000)

ROOT_RANGES = """
import sys, fsspec
fs, path = fsspec.core.url_to_fs(sys.argv[1])
parts = fs.cat_ranges([path] * 3, [0, 1000, 299_000], [10, 70_000, 300_000])
parts.append(fs.cat_file(path, 5, 105))
sys.stdout.write(b"".join(parts).hex())
"""
ROOT_EXPECTED = (DATA[0:10] + DATA[1000:70_000] + DATA[299_000:] + DATA[5:105]).hex()


def get(url, start=None, stop=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if start is not None:
        headers["Range"] = f"bytes={start}-{stop - 1}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        return response.status, response.headers, response.read()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ask(client, path):
    client.request("GET", path)
    return client.getresponse().read()


def refused(port):
    with socket.socket() as client:
        client.settimeout(60)
        return client.connect_ex(("127.0.0.1", port)) != 0


def test_xrootd_serves_and_traces_every_range(xrootd_server, run_python):
    (xrootd_server.directory / "a.bin").write_bytes(DATA)
    ran = run_python(ROOT_RANGES, xrootd_server.url("a.bin"), cache=None)
    assert ran.stdout == ROOT_EXPECTED
    reads = [(read.operation, read.offset, read.length) for read in xrootd_server.reads()]
    assert sorted(reads) == [("read", 5, 100), ("readV", 0, 10), ("readV", 1000, 69_000), ("readV", 299_000, 1000)]
    assert xrootd_server.sent_bytes() == 10 + 69_000 + 1000 + 100


def test_xrootd_stops_and_comes_back_on_its_port(xrootd_server, run_python):
    (xrootd_server.directory / "a.bin").write_bytes(DATA)
    pid, port = xrootd_server.pid, xrootd_server.port
    xrootd_server.stop()
    assert gone(pid)
    assert refused(port)
    xrootd_server.restart()
    assert xrootd_server.port == port
    assert run_python(ROOT_RANGES, xrootd_server.url("a.bin"), cache=None).stdout == ROOT_EXPECTED


def test_proxy_counts_xrootd_data_bytes(xrootd_server, counting_proxy, run_python):
    (xrootd_server.directory / "a.bin").write_bytes(DATA)
    proxy = counting_proxy(xrootd_server.port, xrootd=True)
    ran = run_python(ROOT_RANGES, f"root://{proxy.address}//a.bin", cache=None)
    assert ran.stdout == ROOT_EXPECTED
    assert proxy.asked_bytes == xrootd_server.sent_bytes() == len(ROOT_EXPECTED) // 2
    assert proxy.data_bytes == len(ROOT_EXPECTED) // 2
    assert proxy.data_bytes < proxy.bytes_to_client < proxy.data_bytes + 2000
    assert {asked.operation for asked in proxy.asked} == {"read", "readv"}


def test_proxy_counts_what_came_and_not_what_was_asked_past_the_end(xrootd_server, counting_proxy, run_python):
    (xrootd_server.directory / "a.bin").write_bytes(DATA)
    proxy = counting_proxy(xrootd_server.port, xrootd=True)
    code = """
        import sys, fsspec
        fs, path = fsspec.core.url_to_fs(sys.argv[1])
        print(len(fs.cat_file(path, 299_990, 300_500)))
    """.replace("\n        ", "\n")
    assert run_python(code, f"root://{proxy.address}//a.bin", cache=None).stdout == "10\n"
    assert (proxy.asked_bytes, proxy.data_bytes) == (510, 10)


def test_proxy_decodes_page_reads(xrootd_server, counting_proxy, run_python, tmp_path):
    (xrootd_server.directory / "a.bin").write_bytes(DATA)
    proxy = counting_proxy(xrootd_server.port, xrootd=True)
    target = tmp_path / "copy"
    code = """
import sys
from XRootD import client
copy = client.CopyProcess()
copy.add_job(sys.argv[1], sys.argv[2])
copy.prepare()
print(copy.run()[0].ok)
"""
    assert run_python(code, f"root://{proxy.address}//a.bin", str(target), cache=None).stdout == "True\n"
    assert target.read_bytes() == DATA
    assert {asked.operation for asked in proxy.asked} == {"pgread"}
    assert proxy.asked_bytes >= proxy.data_bytes == len(DATA)
    assert proxy.asked_bytes == xrootd_server.sent_bytes()


def page_response(stream, offset, framed):
    """A kXR_status answer to a page read: header, status body, offset; then the pages, which the header leaves out."""
    body = bytes(4) + stream + bytes([18, 1]) + bytes(4) + len(framed).to_bytes(4, "big") + offset.to_bytes(8, "big")
    return stream + (4007).to_bytes(2, "big") + len(body).to_bytes(4, "big") + body + framed


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_decoder_takes_streams_cut_anywhere(step):
    stream = b"\0\5"
    up = bytes(20)
    up += (
        stream + (3030).to_bytes(2, "big") + bytes(4) + (100).to_bytes(8, "big") + (8000).to_bytes(4, "big") + bytes(4)
    )
    # From offset 100, 8000 bytes touch two pages (3996 and 4004 bytes), each with four bytes of checksum.
    down = bytes(8) + page_response(stream, 100, bytes(8000 + 8))
    up += stream + (3013).to_bytes(2, "big") + bytes(4) + bytes(8) + (9).to_bytes(4, "big") + bytes(4)
    down += stream + bytes(2) + (9).to_bytes(4, "big") + bytes(9)
    both = XrootdStreams()
    first = 20 + 24
    for start in range(0, first, step):
        both.up(up[start : min(start + step, first)])
    response = down[:-17]
    for start in range(0, len(response), step):
        both.down(response[start : start + step])
    assert both.data_bytes == 8000
    both.up(up[first:])
    for start in range(0, 17, step):
        both.down(down[-17:][start : start + step])
    assert both.data_bytes == 8009
    assert [tuple(asked) for asked in both.asked] == [("pgread", 100, 8000), ("read", 0, 9)]


def test_nginx_logs_the_bytes_of_every_range(nginx_server):
    (nginx_server.directory / "a.bin").write_bytes(DATA)
    status, headers, body = get(nginx_server.url("a.bin"), 100, 5100)
    assert (status, body) == (206, DATA[100:5100])
    assert headers["ETag"].startswith('"')
    assert get(nginx_server.url("a.bin"), 0, 7, If_Match=headers["ETag"])[2] == DATA[:7]
    with pytest.raises(urllib.error.HTTPError, match="412"):
        get(nginx_server.url("a.bin"), 0, 7, If_Match='"other"')
    logged = [(request.status, request.body_bytes, request.range) for request in nginx_server.requests()]
    assert logged[:2] == [(206, 5000, "bytes=100-5099"), (206, 7, "bytes=0-6")]
    assert logged[2][0] == 412
    assert nginx_server.body_bytes() == 5007
    nginx_server.reset()
    assert nginx_server.body_bytes() == 0


def test_nginx_stops_and_starts_on_its_port(nginx_server):
    (nginx_server.directory / "a.bin").write_bytes(DATA)
    pid = nginx_server.pid
    nginx_server.stop()
    assert gone(pid)
    assert refused(nginx_server.port)
    nginx_server.start()
    assert get(nginx_server.url("a.bin"))[2] == DATA
    assert nginx_server.body_bytes() == len(DATA)


def test_proxy_counts_and_delays(http_origin, counting_proxy):
    http_origin.put("a", DATA)
    proxy = counting_proxy(http_origin.port, delay_s=0.1)
    begin = time.monotonic()
    assert get(f"http://{proxy.address}/a")[2] == DATA
    assert time.monotonic() - begin >= 0.1
    assert proxy.connections == 1
    assert len(DATA) < proxy.bytes_to_client < len(DATA) + 1000
    assert 0 < proxy.bytes_to_server < 1000
    proxy.reset()
    assert (proxy.connections, proxy.bytes_to_client, proxy.bytes_to_server) == (0, 0, 0)


def test_proxy_drops_after_a_number_of_bytes(http_origin, counting_proxy):
    http_origin.put("a", DATA)
    proxy = counting_proxy(http_origin.port)
    proxy.drop_after(100_000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(f"http://{proxy.address}/a")
    assert proxy.bytes_to_client == 100_000
    assert 99_000 < len(caught.value.partial) < 100_000
    assert get(f"http://{proxy.address}/a")[2] == DATA


def test_proxy_stalls_until_told_and_refuses(http_origin, counting_proxy):
    http_origin.put("a", DATA)
    proxy = counting_proxy(http_origin.port)
    proxy.stall()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"http://{proxy.address}/a", timeout=0.2)
    proxy.resume()
    assert get(f"http://{proxy.address}/a")[2] == DATA
    proxy.refuse()
    assert refused(proxy.port)
    proxy.accept()
    assert get(f"http://{proxy.address}/a")[2] == DATA


def test_proxy_cuts_open_connections(http_origin, counting_proxy):
    http_origin.put("a", DATA, delay_s=0.0)
    proxy = counting_proxy(http_origin.port)
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    assert ask(client, "/a") == DATA
    proxy.cut()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client, "/a")
    client.close()


def test_origin_answers_ranges_and_counts(http_origin):
    resource = http_origin.put("a b", DATA, etag='"x"', modified_s=0)
    client = http.client.HTTPConnection("127.0.0.1", http_origin.port, timeout=60)
    for start, last in ((0, 9), (299_990, 400_000)):
        client.request("GET", "/a%20b", headers={"Range": f"bytes={start}-{last}"})
        response = client.getresponse()
        assert response.status == 206
        assert response.headers["ETag"] == '"x"'
        assert response.headers["Last-Modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
        assert response.read() == DATA[start : last + 1]
    client.request("HEAD", "/a%20b")
    response = client.getresponse()
    assert (response.read(), response.headers["Content-Length"]) == (b"", str(len(DATA)))
    client.request("GET", "/a%20b", headers={"Range": "bytes=300000-"})
    response = client.getresponse()
    assert response.status == 416
    response.read()
    client.request("GET", "/none")
    assert client.getresponse().status == 404
    client.close()
    assert http_origin.connections == 1
    assert (resource.gets, resource.heads, resource.body_bytes, http_origin.unknown) == (3, 1, 20, 1)
    assert resource.asked == ["bytes=0-9", "bytes=299990-400000", "bytes=300000-"]


@pytest.mark.parametrize(
    ("etag", "if_match", "status"),
    [('"1"', True, 206), ('"2"', True, 412), ('W/"1"', True, 412), (None, True, 412), ('"2"', False, 206)],
)
def test_origin_honours_or_ignores_if_match(http_origin, etag, if_match, status):
    resource = http_origin.put("a", DATA, etag=etag, if_match=if_match)
    try:
        answer = get(http_origin.url("a"), 0, 10, If_Match='"1"')[0]
    except urllib.error.HTTPError as error:
        answer = error.code
        error.close()
    assert answer == status
    assert resource.if_matches == ['"1"']


def test_origin_misbehaves_as_told(http_origin):
    resource = http_origin.put("a", DATA)
    url = http_origin.url("a")
    resource.ranges = False
    assert get(url, 0, 10)[0::2] == (200, DATA)
    resource.ranges = True
    resource.short_by = 3
    assert get(url, 0, 10)[2] == DATA[:7]
    resource.short_by = 0
    resource.drop_after = 4
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(url, 0, 10)
    assert caught.value.partial == DATA[:4]
    resource.drop_after = None
    assert resource.body_bytes == len(DATA) + 7 + 4
    resource.status = 503
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(url, 0, 10)


def test_origin_changes_at_the_kth_request(http_origin):
    resource = http_origin.put("a", DATA)
    other = bytes(len(DATA))
    resource.at[2] = lambda changing: changing.change(other, etag='"2"')
    resource.once[3] = {"status": 500}
    url = http_origin.url("a")
    assert get(url, 0, 10)[2] == DATA[:10]
    _, headers, body = get(url, 0, 10)
    assert (headers["ETag"], body) == ('"2"', bytes(10))
    with pytest.raises(urllib.error.HTTPError, match="500"):
        get(url, 0, 10)
    assert get(url, 0, 10)[2] == bytes(10)


def test_origin_stops_closes_connections_and_starts_again(http_origin):
    http_origin.put("a", DATA)
    client = http.client.HTTPConnection("127.0.0.1", http_origin.port, timeout=60)
    assert ask(client, "/a") == DATA
    http_origin.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client, "/a")
    client.close()
    assert refused(http_origin.port)
    http_origin.start()
    assert get(http_origin.url("a"))[2] == DATA


def test_run_python_returns_what_the_process_left(run_python, cache_dir):
    code = """
import json, os, pathlib, sys
reports = pathlib.Path(os.environ["JCACHE_JSON"])
reports.mkdir()
(reports / "jcache.x.json").write_text(json.dumps({"dir": os.environ.get("JCACHE_DIR"), "x": os.environ.get("X")}))
print("out", *sys.argv[1:])
print("err", file=sys.stderr)
sys.exit(3)
"""
    environment = {"X": "1", "PYTHONWARNINGS": None, "JCACHE_SUMMARY": "0", "JCACHE_BYPASS": "1"}
    ran = run_python(code, "a", "b", env=environment, check=False)
    assert (ran.returncode, ran.stdout) == (3, "out a b\n")
    assert "err" in ran.stderr
    assert {"dir": str(cache_dir), "x": "1"} in ran.reports
