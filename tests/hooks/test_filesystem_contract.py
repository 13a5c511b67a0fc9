"""`jcache::` is the file system that it wraps: fsspec's own suites pass over it as over the bare one.

The bare file system is the oracle: what it fails, in this environment, says nothing about JCache. Over S3 only what is
about single files runs here, for its server is slow; with JCACHE_TEST_LONG set, as by `make conformance`, all of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import os, uuid
import fsspec, pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.tests import abstract

TARGET = os.environ["TARGET"]

class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture(scope="class")
    def fs(self, request):
        if TARGET == "memory":
            fs = MemoryFileSystem()
            fs.store.clear(); fs.pseudo_dirs[:] = [""]
        elif TARGET == "directory":
            fs = DirFileSystem(path="/root", fs=MemoryFileSystem())
            fs.makedirs("/", exist_ok=True)
        elif TARGET == "s3":
            from moto.server import ThreadedMotoServer
            server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
            server.start()
            request.addfinalizer(server.stop)
            host, port = server.get_host_and_port()
            fs = fsspec.filesystem("s3", key="k", secret="s", endpoint_url=f"http://{host}:{port}")
            if not fs.exists("bucket"):  # what moto keeps, all its servers have
                fs.mkdir("bucket")
        return fsspec.filesystem("jcache", fs=fs) if os.environ.get("JCACHE_DIR") else fs

    @pytest.fixture
    def fs_path(self):
        return "bucket" if TARGET == "s3" else ""

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self):
        return TARGET != "s3"

class TestCopy(abstract.AbstractCopyTests, Fixtures): pass
class TestGet(abstract.AbstractGetTests, Fixtures):
    @pytest.fixture
    def local_fs(self): return LocalFileSystem(auto_mkdir=True)
    @pytest.fixture
    def local_join(self): return os.path.join
    @pytest.fixture
    def local_path(self, tmp_path): return str(tmp_path)
class TestPut(abstract.AbstractPutTests, Fixtures):
    @pytest.fixture
    def local_fs(self): return LocalFileSystem(auto_mkdir=True)
    @pytest.fixture
    def local_join(self): return os.path.join
    @pytest.fixture
    def local_path(self, tmp_path): return str(tmp_path)
for kind in ("Pipe", "Open"):
    if hasattr(abstract, f"Abstract{kind}Tests"):
        globals()[f"Test{kind}"] = type(f"Test{kind}", (getattr(abstract, f"Abstract{kind}Tests"), Fixtures), {})
"""


def outcomes(folder: Path, target: str, cache: Path | None) -> dict[str, str]:
    """Run the suites in a fresh process and return how each test ended."""
    folder.mkdir()
    (folder / "test_suite.py").write_text(SUITE)
    env = {"TARGET": target, "PATH": "/usr/bin:/bin", "HOME": str(folder), "JCACHE_SUMMARY": "0"}
    if cache is not None:
        env["JCACHE_DIR"] = str(cache)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=out.xml", "test_suite.py"]
    if target == "s3" and not os.environ.get("JCACHE_TEST_LONG"):
        command += ["-k", "file or pipe or open"]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert (folder / "out.xml").exists(), run.stdout[-2000:] + run.stderr[-2000:]
    found = {}
    for case in ET.parse(folder / "out.xml").iter("testcase"):
        ended = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found[f"{case.get('classname')}::{case.get('name')}"] = ended
    return found


@pytest.mark.slow
@pytest.mark.parametrize("target", ["memory", "directory", "s3"])
def test_the_suites_of_fsspec_pass_as_over_the_bare_file_system(target: str, tmp_path: Path) -> None:
    pytest.importorskip("fsspec.tests.abstract")
    if target == "s3":
        pytest.importorskip("s3fs")
        pytest.importorskip("moto.server")
    plain = outcomes(tmp_path / "plain", target, None)
    through = outcomes(tmp_path / "through", target, tmp_path / "cache")
    assert sum(ended == "passed" for ended in plain.values()) > 10
    assert {name: through[name] for name in plain if plain[name] == "passed" != through[name]} == {}
    assert through.keys() == plain.keys()
