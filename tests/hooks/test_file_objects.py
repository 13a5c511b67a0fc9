"""A file that is opened for reading is the file system's own file object, whose reads go through the journal."""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import SlowFileSystem, _Reader
from fsspec.caching import BytesCache
from fsspec.implementations.http import HTTPFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin, XrootdServer

    from jcache.session import Session

DATA = random.Random(1).randbytes(300_000)


def test_it_is_of_its_own_class_and_reads_exactly(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active()
    http_origin.put("f", DATA)
    fs, url = fsspec.filesystem("http"), http_origin.url("f")
    with fs.open(url, block_size=1 << 20) as file:
        assert isinstance(file, HTTPFile)
        assert (type(file).__name__, type(file).__module__) == ("HTTPFile", "fsspec.implementations.http")
        assert (file.blocksize, file.cache.name, file.size) == (1 << 20, "bytes", len(DATA))
        assert file.details == {"name": url, "size": len(DATA), "type": "file"}
        file.seek(1000)
        assert file.read(500) == file._fetch_range(1000, 1500) == DATA[1000:1500]
        copy = pickle.loads(pickle.dumps(file))
        assert isinstance(copy, HTTPFile)
        assert copy.read(10) == DATA[1500:1510]
    assert http_origin.body_bytes == 510
    with pytest.raises(ValueError, match="closed file"):
        file.read(1)


def test_a_size_that_the_call_says_goes_before_the_servers(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    http_origin.put("f", DATA)
    fs, url = fsspec.filesystem("http"), http_origin.url("f")
    for _ in range(2):
        with fs.open(url, size=100) as file:
            assert (file.size, file.read()) == (100, DATA[:100])


SIZED = """
import sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1])
with fs.open(path, size=100) as file:
    print(file.size, file.read(), file.seek(0, 2))
"""


@pytest.mark.parametrize("kind", ["xrootd", "jcache"])
def test_a_size_that_the_call_says_is_that_of_a_file_that_is_not_opened(
    kind: str, request: pytest.FixtureRequest, run_python: RunPython
) -> None:
    if kind == "xrootd":
        server = request.getfixturevalue("xrootd_server")
        (server.directory / "f").write_bytes(DATA)
        url = plain = server.url("f")
    else:
        origin: ScriptedOrigin = request.getfixturevalue("http_origin")
        origin.put("f", DATA)
        plain = origin.url("f")
        url = f"jcache::{plain}"
    told = run_python(SIZED, plain, cache=None).stdout
    assert told.startswith("100 ")
    for _ in ("cold", "warm"):
        assert run_python(SIZED, url).stdout == told


def test_its_cache_is_the_one_that_the_method_takes_by_itself(active: Callable[..., Session], tmp_path: Path) -> None:
    class Choosing(SlowFileSystem):
        protocol, default_cache_type = "choosing", "mmap"

        def _open(self, path: str, mode: str = "rb", cache_type: str = "bytes", **kwargs: Any) -> Any:
            return _Reader(self, path, mode, cache_type=cache_type, size=len(DATA))

    (tmp_path / "f").write_bytes(DATA)
    plain = Choosing(skip_instance_cache=True).open(str(tmp_path / "f")).cache.name
    active()
    assert Choosing(skip_instance_cache=True).open(str(tmp_path / "f")).cache.name == plain == "bytes"


def test_another_cache_that_is_put_there_is_used(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active()
    http_origin.put("f", DATA)
    file = fsspec.filesystem("http").open(http_origin.url("f"))
    file.cache = BytesCache(1000, file._fetch_range, file.size)
    for _ in range(2):
        file.seek(10_000)
        assert b"".join(file.read(100) for _ in range(20)) == DATA[10_000:12_000]
        file.seek(0)
        assert file.read() == DATA
    assert file.cache.total_requested_bytes
    file.close()


CACHES = """
import sys, fsspec
from fsspec.caching import caches
fs = fsspec.filesystem("http")
for name in caches:
    if name is None:
        continue
    with fs.open(sys.argv[1], block_size=1000, cache_type=name) as file:
        cache = file.cache
        print(name, isinstance(cache, caches[name]), cache.name, type(cache).__name__, type(cache).__module__)
        if name == "bytes":
            print(len(cache), cache.cache, cache.start, cache.end, cache.trim)
        if hasattr(cache, "cache_info"):
            print(cache.cache_info(), cache.maxblocks)
        print(hasattr(cache, "cache"), hasattr(cache, "nothing"), cache.hit_count)
        print(name == "parts" or (file.read(5), file.read(10)))
for options in ({"cache_type": "nothing"}, {"cache_type": "bytes", "cache_options": {"nothing": 1}}):
    try:
        fs.open(sys.argv[1], **options)
    except (KeyError, TypeError) as error:
        print(type(error).__name__)
with fs.open(sys.argv[1], cache_type="blockcache", cache_options={"maxblocks": 3}) as file:
    print(file.cache.maxblocks)
"""


def test_its_cache_is_of_the_class_that_it_would_have(http_origin: ScriptedOrigin, run_python: RunPython) -> None:
    http_origin.put("f", DATA)
    plain, cold, warm = (run_python(CACHES, http_origin.url("f"), **how) for how in ({"cache": None}, {}, {}))
    assert plain.stdout.count(" True ") >= 8
    assert cold.stdout == plain.stdout
    assert warm.stdout == plain.stdout
    assert "jcache: " not in cold.stderr + warm.stderr


OPENED_LATE = """
import sys, fsspec
from fsspec_xrootd.xrootd import XRootDFile
fs, path = fsspec.url_to_fs(sys.argv[1])
with fs.open(path) as file:
    print(isinstance(file, XRootDFile), file.read(5), "_myFile" in vars(file), file._myFile.is_open(), file.read(6))
print(file.closed)
"""


def test_a_file_of_xrootd_is_opened_at_the_server_once_that_is_needed(
    xrootd_server: XrootdServer, export_dir: Path, run_python: RunPython
) -> None:
    (export_dir / "a.bin").write_bytes(b"hello world")
    for _ in range(2):
        assert (
            run_python(OPENED_LATE, xrootd_server.url("a.bin")).stdout == "True b'hello' False True b' world'\nTrue\n"
        )
