"""The root of a server, where a directory has none above it: listings, writes, copies. Judge: plain fsspec."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from jcache.naming import identify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

JOB = """
import os, sys, tempfile, fsspec
fs = fsspec.filesystem(sys.argv[1], **eval(sys.argv[2]))
here = tempfile.mkdtemp()
def got(path):
    fs.get(path, here, recursive=True)
    return sorted(os.path.relpath(os.path.join(at, name), here) for at, _, names in os.walk(here) for name in names)
def put(path):
    open(here + "/local", "wb").write(b"new")
    fs.put_file(here + "/local", path)
for call in sys.argv[3:]:
    print(call, eval(call))
"""
LISTINGS = (
    "sorted(fs.ls('/', detail=False))", "sorted(fs.glob('/f1*'))", "sorted(fs.find('/'))", "fs.exists('/f3')",
    "fs.isdir('/')", "fs.isdir('/d')", "sorted(fs.find('/', withdirs=True))", "got('/d')",
)  # fmt: skip
WRITES = (
    "fs.exists('')", "fs.exists('/new')", "put('/new')", "fs.exists('/new')", "fs.exists('/new2')", "put('/new2')",
    "fs.exists('/new2')", "fs.isfile('/new2')", "fs.rm_file('/new')", "fs.exists('/new')", "fs.exists('/new2')",
    "fs.rm_file('/new2')", "len(fs.ls('/'))",
)  # fmt: skip


@pytest.fixture(params=["ftp", "sftp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Protocol and options of a server with twelve files and a directory in its root."""
    directory = tmp_path / "served"
    (directory / "d" / "e").mkdir(parents=True)
    for name in (*(f"f{number}" for number in range(12)), "d/x", "d/e/y"):
        (directory / name).write_bytes(name.encode())
        os.utime(directory / name, (1_600_000_000, 1_600_000_000))
    with contextlib.ExitStack() as stack:
        if request.param == "ftp":
            pytest.importorskip("pyftpdlib", reason="pyftpdlib is not installed")
            from ftp_server import Server

            running = stack.enter_context(Server(directory))
            how = {"host": "127.0.0.1", "port": running.client().port, "username": "user", "password": "secret"}
        else:
            pytest.importorskip("paramiko", reason="paramiko is not installed")
            from generic_servers import Sftp

            how = {"host": "127.0.0.1", "port": stack.enter_context(Sftp(directory)).port}
            how |= {"username": "user", "password": "secret"}
        yield request.param, repr(how)


def test_what_a_root_lists_is_remembered(server: tuple[str, str], run_python: RunPython) -> None:
    plain = run_python(JOB, *server, *LISTINGS, cache=None).stdout
    assert plain.count("\n") == len(LISTINGS)
    for env in ({}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"}):
        assert run_python(JOB, *server, *LISTINGS, env=env).stdout == plain, env


def test_what_is_written_into_a_root_is_seen(server: tuple[str, str], run_python: RunPython) -> None:
    plain = run_python(JOB, *server, *WRITES, cache=None).stdout
    for env in ({}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_VALIDATE": "never"}):
        assert run_python(JOB, *server, *WRITES, env=env).stdout == plain, env


@pytest.mark.parametrize(
    ("protocol", "path", "options"),
    [
        ("sftp", "", {"host": "h"}),
        ("sftp", "/", {"host": "h"}),
        ("ftp", "", {"host": "h"}),
        ("http", "http://h:1/", {}),
        ("http", "http://h", {}),
        ("root", "/", {"hostid": "h"}),
        ("s3", "", {}),
    ],
)
def test_nothing_is_above_a_root(protocol: str, path: str, options: dict[str, str]) -> None:
    assert identify(protocol, path, options).answers(above=True) is None
