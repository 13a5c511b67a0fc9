"""What a file system keeps of listings is the application's: reads are proved past it, and leave it. Judge: plain."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from fsspec.spec import AbstractFileSystem
from generic_servers import SERVERS

from jcache_plugins.origins.unlisted import unlisted

# from jcache_plugins.origins.unlisted import unlisted

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunPython
    from servers import XrootdServer


OLD_S = 1_600_000_000
DATA = bytes(range(256)) * 10
JOB = """
import json, sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1], **json.loads(sys.argv[2]))
if sys.argv[3:]:
    path = sys.argv[3]
names = fs.ls(path.rpartition("/")[0], detail=False)
kept = {name: fs.dircache[name] for name in fs.dircache}
told = fs.info(path)
print(names, fs.cat_file(path, 5, 9), fs.open(path).read(9), fs.cat_file(path, 3, 7))
print([(name, fs.dircache.get(name) is listing) for name, listing in kept.items()], fs.info(path) == told)
"""


def place(kind: str, request: pytest.FixtureRequest, directory: Path, stack: contextlib.ExitStack) -> tuple[str, ...]:
    """Start a server, and return URL, options, and the path where the URL does not say it."""
    if kind.startswith("XRootD"):
        server: XrootdServer = request.getfixturevalue("xrootd_server")
        directory = server.directory
        (directory / "d").mkdir(mode=0o755)
        lay(directory / "d" / "f", DATA, OLD_S)
        return f"root://{server.address}//d/f", "{}", *(["//d/f"] if kind.endswith("//") else [])
    if kind == "FTP":
        from ftp_server import Server

        lay(directory / "f", DATA, OLD_S)
        port = stack.enter_context(Server(directory))._server.address[1]
        return f"ftp://user:secret@127.0.0.1:{port}/f", "{}"
    other = stack.enter_context(next(cls for cls in SERVERS if cls.__name__ == kind)(directory))
    other.wait()
    other.write(DATA, OLD_S)
    return other.url.format(port=other.port), json.dumps(other.options(other.port))


def lay(path: Path, data: bytes, modified_s: int) -> None:
    path.write_bytes(data)
    path.chmod(0o644)
    os.utime(path, (modified_s, modified_s))


@pytest.mark.parametrize("kind", ["XRootD", "XRootD//", "FTP", "Gcs", "Azure"])
def test_what_the_application_has_listed_stays(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, run_python: RunPython
) -> None:
    directory, env = tmp_path / "files", {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        args = place(kind, request, directory, stack)
        plain = run_python(JOB, *args, cache=None, env=env).stdout
        assert "True)" in plain
        for _ in ("cold", "warm"):
            assert run_python(JOB, *args, env=env).stdout == plain


REPLACED = """
import os, sys, fsspec
_, host, path, new, to = sys.argv
fs = fsspec.filesystem("root", hostid=host)
fs.ls(path[:-2])
os.rename(new, to)
print([fs.open(path).read(9) == fs.cat_file(path, 0, 9) == open(to, "rb").read(9) for _ in range(2)])
"""


@pytest.mark.parametrize("path", ["//d/f", "/d/f"])
def test_a_file_that_was_replaced_behind_a_listing_is_read_new(
    path: str, xrootd_server: XrootdServer, run_python: RunPython
) -> None:
    file = xrootd_server.directory / "d" / "f"
    file.parent.mkdir(mode=0o755)
    lay(file, b"", OLD_S)
    for i, data in enumerate((DATA, DATA[::-1])):
        new = file.with_name("new")
        lay(new, data, OLD_S + i)
        assert run_python(REPLACED, xrootd_server.address, path, str(new), str(file)).stdout == "[True, True]\n"


def test_what_is_set_meanwhile_is_set() -> None:
    class Plain(AbstractFileSystem):
        def __del__(self) -> None:
            ended.append(self)

    ended: list[Plain] = []
    fs = Plain(skip_instance_cache=True)
    fs.dircache["d"] = listing = [{"name": "d/f"}]
    with unlisted(fs) as view:
        assert isinstance(view, Plain)
        assert "d" not in view.dircache
        view.session, view.dircache["d"] = 1, []
        assert view.dircache["d"] == []
    assert (fs.session, fs.dircache["d"]) == (1, listing)
    with unlisted(fs) as view:
        assert "d" not in view.dircache
    del view
    assert not ended
