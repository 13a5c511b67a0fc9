"""How a mount begins and ends: by signals, by `fusermount3`, by SIGKILL; and where it does not begin."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from commands import jcache
from mounts import LIMIT_S, Mount, abandoned, is_mounted, needs_fuse, reading, run, wait_until_unmounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Nginx, ScriptedOrigin

DATA = bytes(range(256)) * 4096


@pytest.fixture
def mounted(http_origin: ScriptedOrigin, tmp_path: Path, cache_dir: Path) -> Iterator[Mount]:
    http_origin.put("f.bin", DATA)
    with Mount(tmp_path / "mount", cache_dir, http_origin.url("")) as mount:
        yield mount


@needs_fuse
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_unmounts_and_the_report_is_printed(mounted: Mount, number: int) -> None:
    assert mounted.run("cat f.bin | wc -c").stdout.strip() == str(len(DATA))
    assert mounted.stop(number) == 0
    assert not is_mounted(mounted.directory)
    assert list(mounted.directory.iterdir()) == []
    assert "total bytes read" in mounted.stderr
    assert mounted.report["read"]["bytes"] == len(DATA)
    assert mounted.report["appname"] == "jcache-mount"


@needs_fuse
def test_where_a_program_reads_yet_the_directory_is_free_at_once(mounted: Mount) -> None:
    with reading(mounted.directory / "f.bin") as reader:
        assert reader.first == DATA[:10].hex()
        mounted.process.send_signal(signal.SIGTERM)
        wait_until_unmounted(mounted.directory)
        assert reader.read(500_000) == "65536"
        reader.close()
        assert mounted.process.wait(LIMIT_S) == 0
        assert mounted.stop() == 0
    assert "total bytes read" in mounted.stderr


@needs_fuse
def test_the_end_of_one_mount_leaves_the_next_one_in_its_place(
    mounted: Mount, http_origin: ScriptedOrigin, tmp_path: Path, cache_dir: Path
) -> None:
    with reading(mounted.directory / "f.bin") as reader:
        mounted.process.send_signal(signal.SIGTERM)
        wait_until_unmounted(mounted.directory)
        with Mount(tmp_path / "next", cache_dir, http_origin.url(""), directory=mounted.directory) as following:
            reader.close()
            assert mounted.process.wait(LIMIT_S) == 0
            assert following.run("cat f.bin | wc -c").stdout.strip() == str(len(DATA))
            assert following.stop() == 0


@needs_fuse
def test_unmounting_it_ends_it(mounted: Mount) -> None:
    assert mounted.run("cat f.bin | wc -c").stdout.strip() == str(len(DATA))
    run(f"fusermount3 -u {mounted.directory}", mounted.directory.parent)
    assert mounted.process.wait(LIMIT_S) == 0


@needs_fuse
def test_killed_it_leaves_no_dead_mount(mounted: Mount) -> None:
    with reading(mounted.directory / "f.bin") as reader:
        mounted.process.kill()
        wait_until_unmounted(mounted.directory)
        assert list(mounted.directory.iterdir()) == []
        assert reader.read(500_000) in {"Transport endpoint is not connected", "Software caused connection abort"}


@needs_fuse
def test_a_mount_whose_process_is_gone_is_told_of(tmp_path: Path, cache_dir: Path) -> None:
    directory = tmp_path / "dead"
    directory.mkdir()
    for dead in abandoned(directory):
        done = jcache("mount", "--dir", cache_dir, "http://localhost:1/", dead, code=2)
        assert f"fusermount3 -uz {dead}" in done.stderr


@needs_fuse
def test_where_it_cannot_be_mounted(nginx_server: Nginx, tmp_path: Path, cache_dir: Path) -> None:
    (nginx_server.directory / "f.bin").write_bytes(DATA)
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    (full / "inside").mkdir(parents=True)
    url = nginx_server.url()
    for args, said in (
        ((url, full), "it has to be empty"),
        ((url, tmp_path / "missing"), "No such file or directory"),
        ((nginx_server.url("f.bin"), empty), "is a file; mount the directory that it lies in"),
        ((f"{url}?query", empty), "no query"),
        ((tmp_path, empty), "has to be remote"),
        ((url, cache_dir.parent), "the cache directory would lie in"),
        (("nosuch://host/path", empty), "is read by no file system here"),
    ):
        assert said in jcache("mount", "--dir", cache_dir, *args, code=2).stderr
    assert "there is no cache directory" in jcache("mount", url, empty, code=2).stderr
    assert not is_mounted(empty)


def test_without_the_library_it_is_named(tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "mfusepy.py").write_text("raise ImportError('no such library')\n")
    path = os.pathsep.join(filter(None, (os.fspath(tmp_path), os.environ.get("PYTHONPATH"))))
    where = tmp_path / "where"
    where.mkdir()
    done = jcache("mount", "--dir", cache_dir, "http://localhost:1/", where, env={"PYTHONPATH": path}, code=1)
    assert "install jcache[fuse]" in done.stderr


@needs_fuse
def test_without_its_program_it_is_named(tmp_path: Path, cache_dir: Path) -> None:
    where = tmp_path / "where"
    where.mkdir()
    done = jcache("mount", "--dir", cache_dir, "http://localhost:1/", where, env={"PATH": "/nowhere"}, code=1)
    assert "package fuse3" in done.stderr
