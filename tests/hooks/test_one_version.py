"""One version for one operation: whatever is read in several pieces has the bytes of one version, or raises."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
from typing import TYPE_CHECKING, Any

import filesystems
import fsspec
import pytest
from fsspec.callbacks import Callback

from jcache.activate import deactivate
from jcache_plugins.fsspec import downloads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(downloads, "DOWNLOAD_BYTES", 10_000)
    (tmp_path / "remote").mkdir()
    path = tmp_path / "remote" / "a.bin"
    write(path, OLD, 1)
    return path


def write(path: Path, data: bytes, age: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(10**9 * age, 10**9 * age + 1))


class Between(Callback):  # type: ignore[misc]  # fsspec is untyped
    """Does something behind chosen pieces of a copy."""

    def __init__(self, what: Callable[[], None], *, behind: tuple[int, ...]) -> None:
        super().__init__()
        self._what = what
        self._behind = behind
        self.pieces = 0

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self.pieces += 1
        if self.pieces in self._behind:
            self._what()


@pytest.mark.parametrize("url", ["slow", "aslow", "jcache::slow", "jcache::aslow"])
def test_a_copy_starts_over_where_the_file_is_replaced(
    active: Callable[..., Session], origin: Path, tmp_path: Path, url: str
) -> None:
    active()
    target = tmp_path / "got"
    fs, path = fsspec.url_to_fs(f"{url}://{origin}")
    progress = Between(lambda: write(origin, NEW, 2), behind=(3,))
    fs.get_file(path, str(target), callback=progress)
    assert target.read_bytes() == NEW
    assert (progress.size, progress.value) == (len(NEW), len(NEW))


def test_a_copy_is_of_one_version_also_where_somebody_else_meets_the_change(
    active: Callable[..., Session], origin: Path, tmp_path: Path
) -> None:
    active()
    other, met = fsspec.filesystem("aslow"), []

    def replaced_and_read() -> None:
        write(origin, NEW, 2)
        for start in (90_000, 90_010):
            try:
                met.append(other.cat_file(str(origin), start, start + 5))
            except OSError as error:
                met.append(error)

    async def copy() -> None:
        fs = fsspec.filesystem("aslow", asynchronous=True, skip_instance_cache=True)
        progress = Between(replaced_and_read, behind=(2,))
        await fs._get_file(str(origin), str(tmp_path / "got"), callback=progress)

    asyncio.run(copy())
    assert isinstance(met[0], OSError)
    assert met[1] == NEW[90_010:90_015]
    assert (tmp_path / "got").read_bytes() == NEW


@pytest.mark.parametrize("url", ["slow", "aslow", "jcache::aslow"])
def test_a_copy_that_fails_leaves_no_part_of_a_file_behind(
    active: Callable[..., Session], origin: Path, tmp_path: Path, url: str
) -> None:
    active()
    target = tmp_path / "got"
    fs, path = fsspec.url_to_fs(f"{url}://{origin}")
    versions = iter(range(2, 100))
    progress = Between(lambda: write(origin, NEW, next(versions)), behind=tuple(range(2, 100, 3)))
    with pytest.raises(OSError, match="replaced"):
        fs.get_file(path, str(target), callback=progress)
    assert not target.exists()
    link, behind = tmp_path / "link", tmp_path / "behind"
    link.symlink_to(behind)
    gone = Between(origin.unlink, behind=(2,))
    with pytest.raises(FileNotFoundError):
        fs.get_file(path, str(link), callback=gone)
    assert not behind.exists()
    write(origin, NEW, 200)


def test_a_copy_into_a_file_object_raises(active: Callable[..., Session], origin: Path) -> None:
    active()
    target: Any = io.BytesIO()
    progress = Between(lambda: write(origin, NEW, 2), behind=(3,))
    with pytest.raises(OSError, match="replaced"):
        fsspec.filesystem("aslow").get_file(str(origin), target, callback=progress)
    assert OLD.startswith(target.getvalue())


@pytest.mark.parametrize("url", ["slow", "aslow", "jcache::slow", "jcache::aslow"])
def test_a_directory_is_made_where_plain_makes_it(
    active: Callable[..., Session], origin: Path, tmp_path: Path, url: str
) -> None:
    def copied(url: str, to: str) -> Any:
        fs, path = fsspec.url_to_fs(f"{url}://{origin}")
        target = tmp_path / to / "new" / "got"
        try:
            fs.get_file(path, str(target))
        except FileNotFoundError as error:
            return error.filename.removeprefix(str(tmp_path / to))
        return target.read_bytes()

    deactivate()
    filesystems.register()
    plain = copied(url.removeprefix("jcache::"), "plain")
    session = active()
    assert [copied(url, "cold"), copied(url, "warm")] == [plain] * 2
    assert session.counters.snapshot().read_hit == (len(OLD) if plain == OLD else 0)
    assert not session.counters.snapshot().read_bypass


MADE = """
import json, sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1], **json.loads(sys.argv[2]))
fs.get_file(path, "new/d/got")
print(len(open("new/d/got", "rb").read()))
"""


def test_a_directory_is_made_where_googles_makes_it(tmp_path: Path, run_python: RunPython) -> None:
    from generic_servers import Gcs

    with Gcs(tmp_path) as server:
        server.write(OLD, 1)
        args = server.url, json.dumps(server.options(server.port))
        for hit in (0, len(OLD)):
            ran = run_python(MADE, *args, env=server.variables)
            assert ran.stdout == f"{len(OLD)}\n"
            assert ran.report["read"]["hit_bytes"] == hit
