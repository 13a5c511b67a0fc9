"""A path is written by one spelling and read by another: with a slash in front of it, and without.

The oracle is plain fsspec in a fresh process.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from generic_servers import Azure, WebDav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
CHANGES = {
    "pipe": 'fs.pipe_file(f"{b}/x", b"new")',
    "write": 'f = fs.open(f"{b}/x", "wb"); f.write(b"new"); f.close()',
    "put": 'open("l", "wb").write(b"new"); fs.put_file("l", f"{b}/x")',
    "cp": 'fs.cp_file(f"{b}/y", f"{b}/x")',
    "mv": 'fs.mv(f"{b}/y", f"{b}/x")',
    "rm": 'fs.rm(f"{b}/x")',
    "rm-file": 'fs.rm_file(f"{b}/x")',
    "tree": 'fs.rm(f"{b}/d", recursive=True)',
}
JOB = """
import json, sys, time, fsspec
protocol, options, top, later = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], len(sys.argv) > 4
changes = {CHANGES}
fs = fsspec.filesystem(protocol, **options)
def outcome(call, *args):
    try: return call(*args)
    except Exception as error: return type(error).__name__
def told(b):
    for name in ("x", "y", "d/z"):
        yield name
        for path in (f"{b}/{name}", f"/{b}/{name}"):
            yield outcome(lambda: fs.open(path).read())
            yield outcome(fs.cat_file, path)
            if later: yield outcome(fs.exists, path)
cases = [(f"{top}{change}{len(spelling)}", change, spelling) for change in changes for spelling in ("", "/")]
for b, change, spelling in cases if not later else ():
    fs.makedirs(f"/{b}/d", exist_ok=True)
    for name in ("x", "y", "d/z"):
        with fs.open(f"/{b}/{name}", "wb") as file:
            file.write(b"old " + name.encode())
if not later:
    time.sleep(2.1)  # a time in whole seconds proves nothing in its own second
for b, change, spelling in cases:
    if not later:
        list(told(b))
        print(change, spelling, outcome(exec, changes[change], {"fs": fs, "b": spelling + b}))
        fs.invalidate_cache()
    if later or len(change) % 2 == len(spelling):  # what is not read again must be gone as well
        print(change, spelling, *told(b))
"""


@pytest.fixture(params=["webdav", "abfs", *(pytest.param(name, marks=pytest.mark.long) for name in ("s3", "ftp"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any], str, dict[str, str]]]:
    """Return protocol, options, and what names begin with at a server; and what is to be in the environment."""
    protocol, directory = request.param, tmp_path / "server"
    directory.mkdir()
    if protocol == "s3":
        moto = pytest.importorskip("moto.server")
        s3 = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        s3.start()
        yield protocol, {"endpoint_url": "http://{}:{}".format(*s3.get_host_and_port())}, "", KEYS
        s3.stop()
        return
    if protocol == "ftp":
        from ftp_server import Server

        with Server(directory) as ftp:
            host, port = ftp.url.rpartition("@")[2].split(":")
            options = {"host": host, "port": int(port), "username": "user", "password": "secret"}
            yield protocol, options, "", {}
        return
    kinds: dict[str, tuple[Any, str]] = {"webdav": (WebDav, ""), "abfs": (Azure, "box/")}
    kind, top = kinds[protocol]
    with kind(directory) as server:
        server.write(b"", 0)
        yield protocol, server.options(server.port), top, {}


def test_what_is_written_by_one_spelling_is_read_by_all(
    place: tuple[str, dict[str, Any], str, dict[str, str]], run_python: RunPython
) -> None:
    protocol, options, top, env = place
    job = JOB.replace("{CHANGES}", repr(CHANGES))

    def run(base: str, *more: str, **how: Any) -> list[str]:
        how["env"] = {**env, **how.get("env", {})}
        return run_python(job, protocol, json.dumps(options), top + base, *more, **how).stdout.splitlines()

    plain, cached = (uuid.uuid4().hex[:20] for _ in range(2))
    assert run(cached) == run(plain, cache=None)
    assert run(cached, "later", env={"JCACHE_VALIDATE": "never"}) == run(plain, "later", cache=None)
