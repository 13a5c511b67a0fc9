"""What plain fsspec does in a process of its own with odd calls and odd servers, and what it does with JCache."""

from __future__ import annotations

import contextlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin

CALLS = """
import sys, tempfile, fsspec
url = sys.argv[1]
fs = fsspec.filesystem("http")
def got(where):
    fs.get_file(url, where)
    return open(where, "rb").read()
for call in sys.argv[2:]:
    try:
        told = eval(call)
    except Exception as error:
        told = type(error).__name__, str(error).replace(url, "URL")
    print(repr(told))
"""


class Parts(BaseHTTPRequestHandler):
    """Serves parts of files, of the version that `If-Match` asks for."""

    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes, tag: str, *, ranges: bool = True) -> None:
        if ranges and self.headers.get("If-Match", tag) != tag:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = 0, len(body)
        if ranges and "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or stop - 1) + 1, stop)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[start:stop])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Odd(Parts):
    """`/new` is another file each time, of 16 bytes; `/204` has nothing; `/f` is a file."""

    count = 0
    ranges = True

    def do_GET(self) -> None:
        if self.path == "/204":
            self.send_response(204)
            self.end_headers()
            return
        type(self).count += 1
        body = b"%016d" % self.count if self.path == "/new" else b"0123456789abcdef"
        self.answer(body, f'"{body.decode()}"', ranges=self.ranges)


@pytest.fixture(params=["ranges", "whole"])
def odd(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[Odd]]]:
    handler = type("Handler", (Odd,), {"ranges": request.param == "ranges"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "calls"),
    [
        ("/f", ("fs.cat_ranges([url], [2])", "fs.cat_ranges([url])", "fs.cat_ranges([url], [2], on_error='raise')",
                "fs.cat_ranges(starts=[1], ends=[2])", "fs.cat_file()", "fs.info()", "fs.cat()", "fs.open()")),
        ("/204", ("fs.cat_file(url)", "fs.cat_file(url, 2, 6)", "fs.open(url).read()", "fs.cat([url])")),
    ],
)  # fmt: skip
def test_it_is_the_same_with_jcache(
    odd: tuple[str, type[Odd]], run_python: RunPython, path: str, calls: tuple[str, ...]
) -> None:
    url = odd[0] + path
    plain = run_python(CALLS, url, *calls, cache=None).stdout
    assert plain.count("\n") == len(calls)
    for _ in range(2):
        assert run_python(CALLS, url, *calls).stdout == plain


def test_a_file_that_is_another_one_each_time_is_read_as_plain_fsspec_reads_it(
    odd: tuple[str, type[Odd]], run_python: RunPython
) -> None:
    """A page that a program makes for each request, say: one request has one version of it, whichever."""
    url, handler = odd[0] + "/new", odd[1]
    calls = ("fs.open(url).read()", "fs.cat_file(url)", "fs.cat(url)", "got(tempfile.mkdtemp() + '/f')",
             "fsspec.open(url, 'rt').open().read().encode()", "fs.open(url).read()")  # fmt: skip
    for _ in range(2):
        before = handler.count
        told = [eval(line) for line in run_python(CALLS, url, *calls).stdout.splitlines()]
        assert all(type(one) is bytes and before < int(one) <= handler.count for one in told), told
        # It is found out once; a program that asks again and again does not pay for it each time.
        before = handler.count
        again = [eval(line) for line in run_python(CALLS, url, *calls, *calls).stdout.splitlines()]
        assert all(type(one) is bytes for one in again)
        assert handler.count - before < 60


REPLACED = """
import sys, urllib.request, fsspec
url, size = sys.argv[1:]
fs = fsspec.filesystem("http", skip_instance_cache=True, use_listings_cache=False)
fs.open(url).close()
urllib.request.urlopen(url + "?becomes=" + size).read()
for _ in range(2):
    try:
        with fs.open(url) as file:
            print(len(file.read()), file.size)
    except OSError as error:
        print(type(error).__name__)
"""


class Once(Parts):
    """Serves a file of 1000 bytes until it is told how long another one is."""

    body = b"a" * 1000

    def do_GET(self) -> None:
        path, _, size = self.path.partition("?becomes=")
        if size:
            type(self).body = b"b" * int(size)
        self.answer(self.body, f'"{path}{len(self.body)}{self.body[:1].decode()}"')


@pytest.mark.parametrize("size", [300, 1000, 2500])
def test_a_file_that_was_replaced_once_is_never_cut(run_python: RunPython, size: int) -> None:
    """By another process, behind an open of this one: then what is read is all of the new one, or an error."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Once,), {}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/f"
        first, second = run_python(REPLACED, url, str(size)).stdout.splitlines()
    finally:
        server.shutdown()
        server.server_close()
    assert first in {f"{size} {size}", "OriginChangedError"}
    assert second == f"{size} {size}"


class Contrary(Odd):
    """Answers `HEAD` in one way and `GET` in another."""

    head, get = 200, 404

    def do_GET(self) -> None:
        status = self.head if self.command == "HEAD" else self.get
        if status == 200:
            return super().do_GET()
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    do_HEAD = do_GET  # noqa: N815 - as the library calls it


@pytest.mark.parametrize(("head", "get"), [(200, 404), (200, 403), (404, 200)])
def test_a_file_exists_for_whom_it_can_be_read(run_python: RunPython, head: int, get: int) -> None:
    """By plain fsspec's account, which asks by `GET`, also where another question was answered by `HEAD`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Contrary,), {"head": head, "get": get}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/f"
    calls = ("fs.open(url).size", "fs.exists(url)", "fs.isfile(url)", "fs.isdir(url)",
             "fs.open(url).read()", "fs.open(url).read(4)", "fs.cat_file(url)")  # fmt: skip
    try:
        plain = run_python(CALLS, url, *calls, cache=None).stdout
        for env in ({}, {}, {"JCACHE_VALIDATE": "never"}):
            assert run_python(CALLS, url, *calls, env=env).stdout == plain
        told = run_python(CALLS, url, *calls[1:4], env={"JCACHE_OFFLINE": "1"}).stdout
        assert told.splitlines() == plain.splitlines()[1:4]
    finally:
        server.shutdown()
        server.server_close()


def test_a_missing_file_is_missing_offline_where_opening_asks_the_server(run_python: RunPython, tmp_path: Path) -> None:
    from generic_servers import Sftp

    code = CALLS.replace("http", "sftp").replace('("sftp")', '("sftp", **eval(url))')
    (tmp_path / "served").mkdir()
    with Sftp(tmp_path / "served") as server:
        how = repr({"host": "127.0.0.1", "port": server.port, "username": "user", "password": "secret"})
        plain = run_python(code, how, "fs.open('/none')", cache=None).stdout
        assert "FileNotFoundError" in plain
        assert run_python(code, how, "fs.open('/none')").stdout == plain
    assert run_python(code, how, "fs.open('/none')", env={"JCACHE_OFFLINE": "1"}).stdout == plain
    unasked = run_python(code, how, "fs.open('/else')", env={"JCACHE_OFFLINE": "1"}).stdout
    assert "OfflineMissError" in unasked


INFOS = """
import sys, fsspec
fs = fsspec.filesystem(sys.argv[1], **eval(sys.argv[2]))
for call in sys.argv[3:]:
    told = eval(call)
    print(told if type(told) is bytes else [one for one in told.items() if one[0] not in {"url", "time", "mtime"}])
"""


@pytest.mark.parametrize("protocol", ["ftp", "sftp", "http"])
def test_what_is_recorded_of_a_file_that_was_read_is_told_in_the_order_of_the_file_system(
    protocol: str, run_python: RunPython, tmp_path: Path, http_origin: ScriptedOrigin
) -> None:
    """But for what is not recorded with its bytes: addresses, and what JSON cannot hold."""
    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "f").write_bytes(b"0123456789")
    os.utime(directory / "f", (1_600_000_000, 1_600_000_000))
    http_origin.put(
        "f", b"0123456789", headers={"Content-Type": "x/y", "Last-Modified": "Sun, 13 Sep 2020 12:26:40 GMT"}
    )
    user = {"host": "127.0.0.1", "username": "user", "password": "secret"}
    with contextlib.ExitStack() as stack:
        paths, how = ["/f", "f"], user
        if protocol == "ftp":
            pytest.importorskip("pyftpdlib", reason="pyftpdlib is not installed")
            from ftp_server import Server

            how |= {"port": stack.enter_context(Server(directory)).client().port}
        elif protocol == "sftp":
            from generic_servers import Sftp

            how |= {"port": stack.enter_context(Sftp(directory)).port}
        else:
            paths, how = [http_origin.url("f")], {}
        asks = [protocol, repr(how), *(f"fs.info({path!r})" for path in paths)]
        plain = run_python(INFOS, *asks, cache=None).stdout
        assert run_python(INFOS, *asks[:2], f"fs.cat_file({paths[-1]!r}, 0, 3)").stdout == "b'012'\n"
        assert run_python(INFOS, *asks[:2], f"fs.cat_file({paths[0]!r}, 0, 3)").stdout == "b'012'\n"
        for env in ({"JCACHE_OFFLINE": "1"}, {"JCACHE_VALIDATE": "never"}, {}, {"JCACHE_OFFLINE": "1"}):
            assert run_python(INFOS, *asks, env=env).stdout == plain, env


@pytest.mark.parametrize("call", ["fs.ls(url)", "fs.ls(url, detail=False)", "fs.ls(url, False)", "fs.isdir(url)"])
def test_a_file_that_was_read_is_not_read_again_to_learn_that_nothing_is_below_it(
    run_python: RunPython, http_origin: ScriptedOrigin, call: str
) -> None:
    resource = http_origin.put("f", b"0123456789" * 100, headers={"Content-Type": "x/y"})
    url = http_origin.url("f")
    plain = run_python(CALLS, url, call, cache=None).stdout
    run_python(CALLS, url, "fs.cat_file(url)")
    resource.reset()
    assert run_python(CALLS, url, call).stdout == plain
    assert (resource.gets, resource.heads) == (0, 1)


def test_behind_a_slash_there_may_be_the_page_without_it(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    http_origin.put("d/", b"{}", headers={"Content-Type": "application/json"})
    http_origin.put("d", b'<a href="/d/x">x</a>', headers={"Content-Type": "text/html"})
    calls = ("fs.ls(url)", "fs.isdir(url)", "fs.isfile(url)", "fs.exists(url)")
    url = http_origin.url("d/")
    plain = run_python(CALLS, url, *calls, cache=None).stdout
    assert "d/x" in plain
    run_python(CALLS, url, "fs.cat_file(url)")
    assert run_python(CALLS, url, *calls).stdout == plain
    assert run_python(CALLS, url, "fs.info(url)", *calls).stdout.partition("\n")[2] == plain


def test_which_links_are_meant_decides_what_is_below_a_page(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    page = f'<a href="x">x</a> http://127.0.0.1:{http_origin.port}/d/y'
    http_origin.put("d/", page.encode(), headers={"Content-Type": "text/html"})
    url = http_origin.url("d/")
    made = "", ", simple_links=False", ", same_scheme=False"
    calls = [f"sorted(fsspec.filesystem('http'{how}).ls(url, detail=False))" for how in made]
    plain = run_python(CALLS, url, *calls, cache=None).stdout
    assert len(set(plain.splitlines())) > 1
    for env in ({"JCACHE_VALIDATE": "never"}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"}):
        assert run_python(CALLS, url, *calls, env=env).stdout == plain


@pytest.mark.parametrize("validate", ["0", "0.01"])
def test_a_file_of_which_the_trust_runs_out_while_it_is_read_is_read_once(
    run_python: RunPython, http_origin: ScriptedOrigin, validate: str
) -> None:
    resource = http_origin.put("f", b"0123456789" * 1000, delay_s=0.05)
    env = {"JCACHE_VALIDATE": validate}
    for _ in range(2):
        resource.reset()
        told = run_python(CALLS, http_origin.url("f"), "len(fs.open(url, block_size=100).read())", env=env)
        assert told.stdout == "10000\n"
        assert resource.gets <= 1
        assert told.report["read"]["bytes"] == 10_000
