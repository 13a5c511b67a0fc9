"""File objects that plain fsspec opens at the server, or that are none of fsspec's. Judge: plain fsspec alone."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin

JOB = """
import importlib, pickle, sys, fsspec
fs = fsspec.filesystem(sys.argv[1], **eval(sys.argv[2]))
module, _, name = sys.argv[3].rpartition(".")
plain = getattr(importlib.import_module(module), name)
file = fs.open(sys.argv[4])
for call in sys.argv[5:]:
    try:
        print(call, eval(call))
    except Exception as error:
        print(call, type(error).__name__)
"""
CALLS = (
    "isinstance(file, plain)", "type(file).__module__, type(file).__qualname__", "hasattr(file, 'none')",
    "hasattr(file, 'name')", "file.seek(3)", "file.tell()", "file.read(4)", "file.seek(-5, 2)", "file.read()",
    "file.seek(0)", "file.readline()", "file.readlines()", "file.seek(0)", "file.readinto(bytearray(6))",
    "next(file)", "iter(file) is file", "list(file)", "file.seek(1000)", "file.read(2)", "file.readable()",
    "file.writable()", "file.seekable()", "file.closed", "file.flush()", "file.seek(0)",
)  # fmt: skip
NAMES = "sorted({name for name in OF if not name.startswith('_')} - set(dir(file)))".replace("OF", "dir(plain)")
LINES = (
    "file.seek(1)", "file.readline(2)", "file.tell()", "file.readline(100)", "file.readline(-1)", "file.readline(0)",
    "file.seek(2)", "file.readlines(4)", "file.tell()", "file.readlines(-1)", "file.readlines(0)",
)  # fmt: skip
OF_SFTP = (
    "file.MAX_REQUEST_SIZE", "file.SEEK_END", "file.xreadlines() is file", "file.read(4)", *LINES,
)  # fmt: skip
AT_THE_SERVER = (
    "file.stat().st_size", "file.prefetch()", "list(file.readv([(0, 3), (5, 2)]))", "file.newlines", "file.pipelined",
    "type(file.sftp).__name__", "type(file.handle).__name__", "file.gettimeout()", "'handle' in dir(file)",
)  # fmt: skip
OF_WEBDAV = (
    "file.details", "file.info()", "file.size", "file.path", "file.mode", "file.loc", "file.blocksize",
    "file.autocommit", "file.isatty()", "file.full_name", "file.readuntil(b'c')", "'reader' in dir(file)",
)  # fmt: skip
PARTS = "fs.open(sys.argv[4], cache_type='parts', cache_options={'data': {(0, 4): b'0123'}})"
FOREIGN = (
    f"(lambda file: [file.seek(5), file.read(2), file.tell(), file.readline(), file.read()])({PARTS})",
    "setattr(file, 'cache', fsspec.caching.BytesCache(1000, lambda start, end: b'#' * (end - start), 16))",
    "file.seek(5)", "file.read(2)", "file.tell()", "file.readline()", "file.seek(0)", "file.read()",
    "fs.open(sys.argv[4], cache_type='unknown').read(2)", "fs.open(sys.argv[4], size=5).read()",
)  # fmt: skip
# By which plain fsspec makes none.
CARRIED = "pickle.loads(pickle.dumps(file)).read(2)"
READER = ("type(file.reader).__name__", "type(file.fobj).__name__", "file.read()")
CLOSED = ("file.close()", "file.closed", "file.close()")


@pytest.fixture(params=["sftp", "webdav"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[contextlib.ExitStack, list[str]]]:
    """A server with a file, until the stack is closed; protocol, options, class of file objects, and path."""
    from generic_servers import Sftp, WebDav

    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "f").write_bytes(b"0123\nabc\ndefg\nhij")
    with contextlib.ExitStack() as stack:
        if request.param == "sftp":
            how = {"host": "127.0.0.1", "username": "user", "password": "secret"}
            how["port"] = stack.enter_context(Sftp(directory)).port
            yield stack, ["sftp", repr(how), "paramiko.SFTPFile", "/f"]
        else:
            running = stack.enter_context(WebDav(directory))
            running.wait()
            yield stack, ["webdav", repr(running.options(running.port)), "webdav4.fsspec.WebdavFile", "f"]


def test_a_file_object_is_of_its_own_class_and_has_what_that_has(
    server: tuple[contextlib.ExitStack, list[str]], run_python: RunPython
) -> None:
    stack, asked = server
    is_sftp = asked[0] == "sftp"
    offline = [*CALLS, *(OF_SFTP if is_sftp else OF_WEBDAV), *CLOSED]
    online = [*CALLS, *(OF_SFTP if is_sftp else OF_WEBDAV), *(AT_THE_SERVER if is_sftp else READER), *CLOSED]
    plain = run_python(JOB, *asked, *online, cache=None).stdout
    assert plain.count("\n") == len(online)
    for env in ({}, {}, {"JCACHE_VALIDATE": "never"}):
        assert run_python(JOB, *asked, *online, env=env).stdout == plain, env
        assert run_python(JOB, *asked, NAMES, env=env).stdout == f"{NAMES} []\n"
    assert run_python(JOB, *asked, CARRIED).stdout == f"{CARRIED} b'01'\n"
    plain = run_python(JOB, *asked, *offline, cache=None).stdout
    stack.close()
    # What only the server has is not there, and not asked for.
    got = run_python(JOB, *asked, *offline, "hasattr(file, 'sftp')", "file.reader", env={"JCACHE_OFFLINE": "1"}).stdout
    assert got == f"{plain}hasattr(file, 'sftp') False\nfile.reader AttributeError\n"


TEXT = (
    "(lambda file: [file.readline(), file.seek(0), file.read(6), file.seek(0), file.readlines()])(fs.open(PATH, 'r'))"
)
IN_MEMORY = (
    TEXT.replace("PATH", "sys.argv[4]"), "file.read(3)", "file.read1(3)", "file.tell()", "file.seek(5)", "file.read1()",
    "file.tell()", "file.read1(2)", "file.seek(4)", "file.readinto1(bytearray(3))", "file.tell()", *LINES,
    "file.readline(None)", "file.readlines(None)", "hasattr(file, 'peek')",
)  # fmt: skip
BUFFERED = ("file.seek(2)", "file.peek(3)[:3]", "file.tell()", "file.peek()[:1]", "file.read(2)")
GITHUB = """
import sys
from fsspec.implementations.github import GithubFileSystem
GithubFileSystem.url = sys.argv[3] + "trees/{sha}"
GithubFileSystem.content_url = sys.argv[3] + "contents/{path}?ref={sha}"
sys.argv[3] = "io.BytesIO"
"""
TOLD = "0123\nabc\ndefg\nhij"


@pytest.mark.parametrize("server", ["sftp"], indirect=True)
def test_lines_that_are_read_past_the_cache_are_counted(
    server: tuple[contextlib.ExitStack, list[str]], run_python: RunPython
) -> None:
    calls = ("list(file)", "file.seek(0)", "file.readlines()", "file.seek(0)", "file.readline()", "file.read()")
    ran = run_python(JOB, *server[1], *calls, env={"JCACHE_BYPASS": "1"})
    assert ran.report["read"]["bypass_bytes"] == 3 * len(TOLD)


@pytest.mark.parametrize("server", ["webdav", "sftp"], indirect=True)
def test_what_plain_does_not_look_at_is_not_looked_at(
    server: tuple[contextlib.ExitStack, list[str]], run_python: RunPython
) -> None:
    plain = run_python(JOB, *server[1], *FOREIGN, cache=None).stdout
    for _ in ("cold", "warm"):
        assert run_python(JOB, *server[1], *FOREIGN).stdout == plain


def test_a_file_object_of_the_interpreters_has_one_position(http_origin: ScriptedOrigin, run_python: RunPython) -> None:
    pytest.importorskip("requests", reason="requests is not installed")
    tree = [{"path": "f", "mode": "100644", "type": "blob", "size": len(TOLD), "sha": "1"}]
    http_origin.put("trees/main", json.dumps({"tree": tree}).encode())
    http_origin.put("contents/f", json.dumps({"content": base64.b64encode(TOLD.encode()).decode()}).encode())
    asked = ["github", repr({"org": "o", "repo": "r", "sha": "main"}), http_origin.url(""), "f", *IN_MEMORY]
    plain = run_python(GITHUB + JOB, *asked, cache=None).stdout
    for hit in (0, len(TOLD)):
        ran = run_python(GITHUB + JOB, *asked)
        assert ran.stdout == plain
        assert ran.report["read"]["hit_bytes"] >= hit
        assert not ran.report["read"]["bypass_bytes"]


def test_a_file_object_with_a_buffer_has_one_position(tmp_path: Path, run_python: RunPython) -> None:
    from generic_servers import Smb

    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "f").write_text(TOLD)
    with Smb(directory) as server:
        how = {"host": "127.0.0.1", "port": server.port, "username": "user", "password": "secret"}
        asked = ["smb", repr(how), "io.BufferedReader", "/share/f", *IN_MEMORY, *BUFFERED]
        plain = run_python(JOB, *asked, cache=None).stdout
        for _ in ("cold", "warm"):
            assert run_python(JOB, *asked).stdout == plain


def test_a_file_of_ftp_has_the_cache_that_it_has(tmp_path: Path, run_python: RunPython) -> None:
    from ftp_server import Server

    (tmp_path / "f").write_text(TOLD)
    with Server(tmp_path) as server:
        how = {"host": "127.0.0.1", "port": server._server.address[1], "username": "user", "password": "secret"}
        cache = "(lambda file: (file.cache.name, file.read(3)))(fs.open(sys.argv[4], cache_type=NAME))"
        calls = [cache.replace("NAME", name) for name in ("None", "'unknown'", "'bytes'")]
        asked = ["ftp", repr(how), "fsspec.implementations.ftp.FTPFile", "/f", *calls]
        plain = run_python(JOB, *asked, cache=None).stdout
        assert run_python(JOB, *asked).stdout == plain


GOOGLE = """
from gcsfs.extended_gcsfs import BucketType, ExtendedGcsFileSystem
async def none(*_):
    return BucketType.UNKNOWN  # as where gRPC is not to be had, which takes minutes
ExtendedGcsFileSystem._get_bucket_type = none
"""
OF_GOOGLE = (
    "file.cache.name", "file.cache_type", "file.blocksize", "file.bucket", "file.key", "file.url()", "file.size",
    "file.content_type", "file.mode", "fs.open(sys.argv[4], block_size=2**18).blocksize",
    "fs.open(sys.argv[4], cache_type='bytes').cache_type", "fs.open(sys.argv[4], cache_type='bytes').cache.name",
)  # fmt: skip


def test_a_file_of_googles_is_its_own(tmp_path: Path, run_python: RunPython) -> None:
    from generic_servers import Gcs

    with Gcs(tmp_path) as server:
        server.write(TOLD.encode(), 1)
        how = {**server.options(server.port), "block_size": 2**20}
        asked = ["gcs", repr(how), "gcsfs.core.GCSFile", "bucket/a.bin", *OF_GOOGLE, *CALLS, *CLOSED]
        for env in ({}, server.variables):
            plain = run_python(GOOGLE + JOB, *asked, cache=None, env=env).stdout
            for _ in ("cold", "warm"):
                assert run_python(GOOGLE + JOB, *asked, env=env).stdout == plain
