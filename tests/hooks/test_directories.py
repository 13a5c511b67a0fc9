"""What is read of directories and of missing files, online and offline. Judge: plain fsspec in a process of its own."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from jcache_plugins.fsspec import directories
from jcache_plugins.origins.base import FileSystemOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

JOB = """
import os, sys, tempfile, fsspec
fs = fsspec.filesystem(sys.argv[1], **eval(sys.argv[2]))
def opened(path):
    with fs.open(path) as file:
        return file.read()
def got(path):
    where = tempfile.mkdtemp() + "/got"
    fs.get_file(path, where)
    return os.path.isdir(where) or open(where, "rb").read()
for call in sys.argv[3:]:
    try:
        told = eval(call)
    except Exception as error:
        told = type(error).__name__, error.args, getattr(error, "filename", None)
    print(call, told)
"""
CALLS = (
    "opened({!r})", "fs.cat_ranges([{!r}], [0], [3])", "fs.cat_ranges([{!r}], [0], [3], on_error='raise')",
    "fs.cat({!r})", "fs.cat_file({!r})", "fs.cat_file({!r}, 0, 3)", "fs.read_block({!r}, 0, 3)", "fs.head({!r})",
)  # fmt: skip


@pytest.fixture(params=["ftp", "sftp", "webdav"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[contextlib.ExitStack, str, str]]:
    """A server with a directory, until the stack is closed; its protocol and options."""
    from generic_servers import Sftp, WebDav

    directory = tmp_path / "served"
    (directory / "d").mkdir(parents=True)
    how = {"host": "127.0.0.1", "username": "user", "password": "secret"}
    with contextlib.ExitStack() as stack:
        if request.param == "ftp":
            pytest.importorskip("pyftpdlib", reason="pyftpdlib is not installed")
            from ftp_server import Server

            how["port"] = stack.enter_context(Server(directory)).client().port
        elif request.param == "sftp":
            how["port"] = stack.enter_context(Sftp(directory)).port
        else:
            running = stack.enter_context(WebDav(directory))
            running.wait()
            how = running.options(running.port)
        yield stack, request.param, repr(how)


@pytest.mark.parametrize("name", ["d", "none"])
def test_what_is_no_file_is_refused_offline_as_online(
    server: tuple[contextlib.ExitStack, str, str], run_python: RunPython, name: str
) -> None:
    """In the same words, whichever call asks for it, and however it ended: FTP opens directories as empty files."""
    stack, protocol, how = server
    path = name if protocol == "webdav" else f"/{name}"
    calls = [call.format(path) for call in CALLS]
    if (protocol, name) != ("ftp", "none"):  # which plain fsspec refuses in words of the protocol's
        calls.append(f"got({path!r})")
    asked = [protocol, how, *calls]
    plain = run_python(JOB, *asked, cache=None).stdout
    assert plain.count("\n") == len(calls)
    assert run_python(JOB, *asked).stdout == plain
    assert run_python(JOB, *asked, env={"JCACHE_VALIDATE": "never"}).stdout == plain
    stack.close()
    assert run_python(JOB, *asked, env={"JCACHE_OFFLINE": "1"}).stdout == plain
    unasked = run_python(JOB, protocol, how, f"fs.cat_file({path + '/x'!r})", env={"JCACHE_OFFLINE": "1"}).stdout
    assert "OfflineMissError" in unasked


def test_that_nobody_answered_is_not_what_a_directory_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[object] = []
    monkeypatch.setattr(directories, "_question", lambda *asked: noted.append(asked))
    monkeypatch.setattr(directories, "current", lambda: SimpleNamespace(answers=SimpleNamespace(epoch=1)))
    origin = SimpleNamespace(
        is_directory=True, retry_after=lambda error, met: FileSystemOrigin.retry_after(origin, error, met=met)
    )
    origin.fs, origin.transient = object(), ()
    reading, found = directories.Reading(), cast("Any", SimpleNamespace(origin=origin))
    for error in (TimeoutError("timed out"), ConnectionResetError(104, "reset"), OSError(113, "No route to host")):
        reading.gave(found, (None, None), error)
    assert not noted
    reading.gave(found, (None, None), IsADirectoryError("/d"))
    assert len(noted) == 1
