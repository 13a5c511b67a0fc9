"""`invalidate_cache`: who calls it is told anew what there is, also of what was read already, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import SlowFileSystem, seen
from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import XrootdServer

OLD, NEW = b"old" * 100, b"newer" * 100


def opened(fs, path: str) -> bytes:
    with fs.open(path) as file:
        return file.read()


def got(fs, path: str) -> bytes:
    target = f"{path}.copy"
    fs.get_file(path, target)
    return Path(target).read_bytes()


def cached(fs, path: str) -> bytes:
    with fsspec.open(f"simplecache::{fs.protocol}://{path}", simplecache={"cache_storage": f"{path}.dir"}) as file:
        return file.read()


READS = {
    "cat_file": lambda fs, path: fs.cat_file(path),
    "cat_ranges": lambda fs, path: fs.cat_ranges([path], [0], [len(NEW)])[0],
    "cat of many": lambda fs, path: fs.cat([path, f"{path}.other"])[path],
    "open": opened,
    "get_file": got,
    "simplecache": cached,
}
DOUBTS = {
    "all": lambda fs, path: fs.invalidate_cache(),
    "the path": lambda fs, path: fs.invalidate_cache(path),
    "by name": lambda fs, path: fs.invalidate_cache(path=path),
    "what is above": lambda fs, path: fs.invalidate_cache(os.path.dirname(path)),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file, and another one beside it, as the origin has them."""
    path = tmp_path / "origin" / "f"
    path.parent.mkdir()
    path.write_bytes(OLD)
    path.with_name("f.other").write_bytes(b"other")
    return path


@pytest.mark.parametrize("protocol", ["slow", "aslow", "jcache"])
@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("before", ["cat_file", "cat of many"])
@pytest.mark.parametrize("read", READS)
def test_what_was_replaced_is_read_anew(
    active: Callable, file: Path, protocol: str, doubt: str, before: str, read: str
) -> None:
    active()
    if protocol == "jcache":
        fs = fsspec.filesystem("jcache", target_protocol="slow")
        if read == "simplecache":
            pytest.skip("a chain names its target")
    else:
        fs = fsspec.filesystem(protocol)
    assert READS[before](fs, str(file)) == OLD
    file.write_bytes(NEW)
    DOUBTS[doubt](fs, str(file))
    assert READS[read](fs, str(file)) == NEW


def test_what_was_not_replaced_is_not_fetched_again(active: Callable, file: Path) -> None:
    active()
    fs = fsspec.filesystem("slow")
    for _ in range(3):
        assert fs.cat_file(str(file)) == OLD
        fs.invalidate_cache()
    assert seen.data_bytes == len(OLD)


def test_a_file_object_keeps_to_its_version(active: Callable, file: Path) -> None:
    active()
    fs = fsspec.filesystem("slow")
    with fs.open(str(file)) as handle:
        assert handle.read(10) == OLD[:10]
        fs.invalidate_cache()
        assert handle.read(10) == OLD[10:20]
        file.write_bytes(NEW)
        fs.invalidate_cache()
        with pytest.raises(OSError, match="replaced"):
            handle.read(10)
    assert fs.cat_file(str(file)) == NEW


class _Uploader(AbstractBufferedFile):
    def _upload_chunk(self, final: bool = False) -> bool:
        Path(self.path).write_bytes(self.buffer.getvalue())
        return True


class _Telling(SlowFileSystem):
    """Its file objects and methods drop listings as they write, as those of object stores do."""

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        return _Uploader(self, path, mode) if mode == "wb" else super()._open(path, mode, block_size, **kwargs)

    def rm_file(self, path: str) -> None:
        super().rm_file(path)
        self.invalidate_cache(self._parent(path))
        self.invalidate_cache()


def test_what_a_method_that_writes_drops_casts_no_doubt_on_others(active: Callable, file: Path) -> None:
    active()
    fs = _Telling()
    fs.cat_file(str(file))
    with fs.open(f"{file}.new", "wb") as handle:
        handle.write(b"new")
    fs.cp_file(f"{file}.new", f"{file}.newer")
    fs.rm_file(f"{file}.newer")
    asked = seen.calls["info"]
    assert fs.cat_file(str(file)) == OLD
    assert seen.calls["info"] == asked


def test_never_asks_not_even_in_doubt(active: Callable, file: Path) -> None:
    active(validate="never")
    fs = fsspec.filesystem("slow")
    assert fs.cat_file(str(file)) == OLD
    asked = seen.calls.copy()
    fs.invalidate_cache()
    assert fs.cat_file(str(file)) == OLD
    assert seen.calls == asked


def test_a_file_that_was_empty_is_copied_as_it_is_opened(active: Callable, file: Path) -> None:
    active()
    fs = fsspec.filesystem("slow")
    file.write_bytes(b"")
    assert got(fs, str(file)) == b""
    file.write_bytes(NEW)
    assert got(fs, str(file)) == opened(fs, str(file)) == NEW


def test_rewritten_at_an_xrootd_server_within_the_second(
    active: Callable, xrootd_server: XrootdServer, tmp_path: Path
) -> None:
    active()
    url = xrootd_server.url("f")
    fs, path = fsspec.url_to_fs(url)
    for number, content in enumerate([b"", OLD, NEW * 1000, b"", NEW]):
        (xrootd_server.directory / "f").unlink(missing_ok=True)
        (xrootd_server.directory / "f").write_bytes(content)
        storage = str(tmp_path / str(number))
        with fsspec.open(f"simplecache::{url}", simplecache={"cache_storage": storage}) as file:
            assert file.read() == content
        target = tmp_path / f"{number}.copy"
        fs.get_file(path, str(target))
        assert target.read_bytes() == content
        assert opened(fs, path) == content
        fs.invalidate_cache()


def test_a_file_object_that_has_read_nothing_takes_the_version_that_the_server_serves(
    active: Callable, xrootd_server: XrootdServer
) -> None:
    from XRootD import client

    active()
    url = xrootd_server.url("f")
    file = xrootd_server.directory / "f"
    file.write_bytes(OLD)
    os.utime(file, (1e9, 1e9))
    fs, path = fsspec.url_to_fs(url)
    assert opened(fs, path) == OLD
    somebody = client.File()  # as long as it is open, the server opens the old file for others, too
    assert somebody.open(url)[0].ok
    fs.invalidate_cache()
    file.unlink()
    file.write_bytes(OLD[::-1])
    os.utime(file, (2e9, 2e9))
    assert opened(fs, path) in {OLD, OLD[::-1]}
    somebody.close()
    fs.invalidate_cache()
    assert opened(fs, path) == OLD[::-1]
