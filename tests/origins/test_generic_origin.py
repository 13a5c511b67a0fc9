"""File systems without a way to the origin of their own, each against a server: what plain gives, and what it costs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import fsspec
import pytest
from filesystems import SlowFileSystem
from generic_servers import SERVERS, Server, WebDav

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Ran, RunPython
    from proxy import CountingProxy
    from servers import Nginx, ScriptedOrigin

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_500_000)
OLD_S = 1_700_000_000
OPEN = """
import hashlib, json, sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1], **json.loads(sys.argv[2]))
"""
READ = """
import pickle
said = []
def say(data):
    said.append((len(data), hashlib.sha256(data).hexdigest()[:12]))
with fs.open(path) as file:
    while data := file.read(50_000):
        said.append(len(data))
        if len(said) % 7 == 0:
            said.append(fs.exists(path))  # over the one connection that there may be
    file.seek(1_000)
    say(file.read(10))
    file.seek(900_000)
    say(file.read(5_000))
    try:
        again = pickle.loads(pickle.dumps(file))
    except Exception:
        again = fs.open(path)  # without JCache that cannot be carried elsewhere
    with again:
        again.seek(1_400_000)
        say(again.read(50_000))
say(fs.cat_file(path))
say(fs.cat_file(path, 10, 20))
for data in fs.cat_ranges([path] * 4, [5, 400_000, 1_200, 1_499_990], [9, 400_100, 1_300, 1_500_000]):
    say(data)
told = fs.info(path)
print(said, told["size"], told["type"], fs.isdir(path))
"""


@pytest.fixture(params=SERVERS, ids=lambda cls: cls.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "files"
    directory.mkdir()
    with request.param(directory) as started:
        started.write(OLD, OLD_S)
        yield started


def test_plain_cold_warm_offline_and_replaced(
    run_python: RunPython,
    active: Callable[..., Session],
    server: Server,
    counting_proxy: Callable[..., CountingProxy],
) -> None:
    proxy = counting_proxy(server.port)
    url, options = server.url.format(port=proxy.port), server.options(proxy.port)

    def read(**state: Any) -> tuple[str, int, int]:
        """Return what is read, in a session of this process where that can be."""
        proxy.reset()
        if server.apart:
            env = {**server.variables, **({"JCACHE_OFFLINE": "1"} if state else {})}
            return run_python(OPEN + READ, url, json.dumps(options), env=env).stdout, proxy.bytes_to_client, proxy.turns
        active(**state)
        fs, path = fsspec.url_to_fs(url, **options, skip_instance_cache=True)
        with contextlib.redirect_stdout(io.StringIO()) as told:
            exec(READ, {"fs": fs, "path": path, "hashlib": hashlib})
        return told.getvalue(), proxy.bytes_to_client, proxy.turns

    plain = run_python(OPEN + READ, url, json.dumps(options), cache=None, env=server.variables).stdout
    plain_bytes, plain_turns = proxy.bytes_to_client, proxy.turns
    cold, cold_bytes, cold_turns = read()
    assert cold == plain
    assert len(OLD) < cold_bytes <= min(plain_bytes, 1.1 * len(OLD))
    assert cold_turns <= plain_turns + 8  # some read megabytes at once before anybody asks for them
    warm, warm_bytes, warm_turns = read()
    assert warm == plain
    assert warm_bytes < 20_000  # a greeting, and one `info` for each of the questions that come apart
    assert warm_turns < plain_turns
    assert read(offline=True) == (plain, 0, 0)
    server.write(NEW, OLD_S + 1)
    new, new_bytes, _ = read()
    assert hashlib.sha256(NEW).hexdigest()[:12] in new
    assert len(NEW) < new_bytes <= plain_bytes


def test_what_webdav_has_no_range_of_is_what_it_is_plain(active: Callable[..., Session], tmp_path: Path) -> None:
    directory = tmp_path / "files"
    (directory / "d").mkdir(parents=True)
    (directory / "empty").touch()

    def told(server: Server) -> list[Any]:
        fs = fsspec.filesystem("webdav", **server.options(server.port))
        out: list[Any] = []
        for name in ("a.bin", "empty", "none", "d"):
            for start, stop in ((None, None), (0, 5), (5, None), (2_000_000, 2_000_010), (-5, None)):
                try:
                    out.append(fs.cat_file(name, start, stop))
                except Exception as error:
                    out.append(type(error))
        return out

    with WebDav(directory) as server:
        server.write(OLD, OLD_S)
        plain = told(server)
        for _ in ("cold", "warm"):
            active()
            assert told(server) == plain


# -- turns ------------------------------------------------------------------------------------------------------------


class Alone(SlowFileSystem):
    """Counts how many calls are under way, and how many were at most."""

    protocol = "alone"
    under_way: ClassVar[list[str]] = []
    most: ClassVar[list[int]] = []

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.under_way.append(path)
        self.most.append(len(self.under_way))
        time.sleep(0.001)
        data = super().cat_file(path, start, end, **kwargs)
        self.under_way.pop()
        return bytes(data)


def test_a_synchronous_file_system_is_asked_for_one_thing_at_a_time(
    active: Callable[..., Session], tmp_path: Path
) -> None:
    path, second = str(tmp_path / "a.bin"), str(tmp_path / "b.bin")
    for name in (path, second):
        Path(name).write_bytes(OLD)
        os.utime(name, (OLD_S, OLD_S))
    active()
    fs = Alone()
    with fs.open(path) as file:
        while file.read(20_000):
            assert not Alone.under_way
    assert len(Alone.most) < 20  # it was read ahead all the same
    starts = [i * 10_000 for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        rows = pool.map(lambda start: fs.cat_file(second, start, start + 100), starts)
        assert list(rows) == [OLD[start : start + 100] for start in starts]
    assert set(Alone.most) == {1}


# -- what lists before it is made, and what reads through others ---------------------------------------------------

GITHUB = """
import hashlib, sys, fsspec
from fsspec.implementations.github import GithubFileSystem
GithubFileSystem.url = sys.argv[1] + "trees/{sha}"
GithubFileSystem.content_url = sys.argv[1] + "contents/{path}?ref={sha}"
fs, path = fsspec.url_to_fs("github://o:r@main/small")
"""
REFERENCE = """
import hashlib, sys, fsspec
references = {"version": 1, "refs": {"in/a.bin": [sys.argv[1] + "padded", 1000, 1_500_000], "in/b.txt": "hello"}}
fs, path = fsspec.filesystem("reference", fo=references, remote_protocol="http"), "in/a.bin"
"""
ARCHIVES = (
    """
fs, path = fsspec.url_to_fs(f"zip://in/a.bin::{sys.argv[1]}zip")
""",
    """
fs, path = fsspec.url_to_fs(f"tar://in/a.bin::{sys.argv[1]}tar")
""",
)


def test_github_lists_the_repository_while_it_is_made(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    pytest.importorskip("requests", reason="requests is not installed")
    tree = []
    for name, content in (("small", base64.b64encode(OLD).decode()), ("large", "")):  # which is read over HTTP
        sha = hashlib.sha1(b"blob %d\0" % len(OLD) + OLD, usedforsecurity=False).hexdigest()
        tree.append({"path": name, "mode": "100644", "type": "blob", "size": len(OLD), "sha": sha})
        told = {"content": content, "download_url": http_origin.url(name)}
        http_origin.put(f"contents/{name}", json.dumps(told).encode())
        http_origin.put(name, OLD)
    http_origin.put("trees/main", json.dumps({"tree": tree}).encode())
    code, url = GITHUB + READ + 'path = "large"' + READ, http_origin.url("")
    plain = run_python(code, url, cache=None).stdout
    plain_bytes = http_origin.body_bytes
    http_origin.reset()
    assert run_python(code, url).stdout == plain
    assert 2 * len(OLD) <= http_origin.body_bytes <= plain_bytes
    http_origin.reset()
    assert run_python(code, url).stdout == plain
    assert http_origin.body_bytes < 10_000


def test_what_lies_in_a_file_over_http(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    directory = nginx_server.directory
    (directory / "padded").write_bytes(bytes(1000) + OLD)
    (directory / "a.bin").write_bytes(OLD)
    with zipfile.ZipFile(directory / "zip", "w") as archive:
        archive.write(directory / "a.bin", "in/a.bin")
    with tarfile.open(directory / "tar", "w") as archive:
        archive.add(directory / "a.bin", "in/a.bin")
    check("".join(code + READ for code in (REFERENCE, *ARCHIVES)), nginx_server.url(""), offline=True)
