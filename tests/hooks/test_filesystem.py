"""`jcache::` and `fsspec.filesystem("jcache", ...)`, chains with fsspec's own caches, and files read in small steps."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pickle
import random
import threading
from typing import TYPE_CHECKING, Any

import filesystems
import fsspec
import pytest
from filesystems import AsyncSlowFileSystem, SlowFileSystem, eventually, seen, settle
from fsspec.implementations.local import LocalFileSystem

from jcache_plugins.filesystem import JCacheFileSystem
from jcache_plugins.fsspec.access import access
from jcache_plugins.fsspec.ahead import LAST_WINDOW_BYTES, PIECES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from proxy import CountingProxy
    from servers import ScriptedOrigin, XrootdServer

    from jcache.session import Session

DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
SIZE = len(DATA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    for name, data in (("a.bin", DATA), ("b.bin", OTHER), ("long.bin", DATA * 20)):
        (folder / name).write_bytes(data)
        os.utime(folder / name, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return folder


def journaled(directory: Path) -> int:
    """Bytes in all segments below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("@*"))


# -- jcache:: ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
@pytest.mark.parametrize("set_directory", [False, True])
def test_every_way_to_read(
    active: Callable[..., Session], folder: Path, tmp_path: Path, cache_dir: Path, protocol: str, set_directory: bool
) -> None:
    if set_directory:
        active()
    options = {} if set_directory else {"jcache": {"cache_dir": str(cache_dir)}}
    url = f"jcache::{protocol}://{folder}/a.bin"
    for _ in range(2):
        with fsspec.open(url, **options) as file:
            assert file.read(1000) == DATA[:1000]
            file.seek(-10, 2)
            assert file.read() == DATA[-10:]
        fs, path = fsspec.url_to_fs(url, **options)
        assert isinstance(fs, JCacheFileSystem)
        assert path == str(folder / "a.bin")
        assert fs.cat_file(path, 10, 20) == DATA[10:20]
        assert fs.cat_file(path, -20) == DATA[-20:]
        spans = [(0, 10), (0, 10), (290_000, None), (None, None), (-5, None), (SIZE, SIZE + 5)]
        got = fs.cat_ranges([path] * len(spans), [a for a, _ in spans], [b for _, b in spans])
        assert got == [DATA[slice(*span)] for span in spans]
        assert fs.cat([path, str(folder / "b.bin")]) == {path: DATA, str(folder / "b.bin"): OTHER}
        fs.get(path, str(tmp_path / "got"))
        assert (tmp_path / "got").read_bytes() == DATA
        fs.get(str(folder), str(tmp_path / "tree"), recursive=True)
        assert (tmp_path / "tree" / "b.bin").read_bytes() == OTHER
        assert fs.head(path, 5) == DATA[:5]
        assert fs.info(path)["size"] == SIZE
        assert fs.exists(path)
        assert fs.isfile(path)
        assert fs.isdir(str(folder))
        assert not fs.exists(path + "x")
        assert path in fs.ls(str(folder), detail=False)
        assert path in fs.find(str(folder))
        assert fs.glob(f"{folder}/a*") == [path]
        assert fs.get_mapper(str(folder))["a.bin"] == DATA
        with pickle.loads(pickle.dumps(fs)).open(path) as file:
            assert file.read(5) == DATA[:5]
        for read in (fs.cat_file, fs.open, fs.info):
            with pytest.raises(FileNotFoundError):
                read(path + "x")
    settle()
    assert [r for r in seen.ranges if r[0] == "a.bin"] != []
    assert sum(stop - start for name, start, stop in seen.ranges if name == "a.bin") == SIZE, "each byte once"
    assert journaled(cache_dir) < 22.1 * SIZE, "no byte is recorded twice"


def test_asynchronous(active: Callable[..., Session], folder: Path, cache_dir: Path) -> None:
    filesystems.register()
    path = str(folder / "a.bin")

    async def main() -> None:
        inner = AsyncSlowFileSystem(asynchronous=True)
        fs = fsspec.filesystem("jcache", fs=inner, cache_dir=str(cache_dir), asynchronous=True)
        for _ in range(2):
            assert await fs._cat_file(path, 5, 10) == DATA[5:10]
            assert await fs._cat_ranges([path] * 2, [0, 50], [10, 60]) == [DATA[:10], DATA[50:60]]
            assert (await fs._info(path))["size"] == SIZE
            assert await fs._exists(path)
            file = await fs.open_async(path, "rb")
            assert await file.read(10) == DATA[:10]
            await file.close()

    asyncio.run(main())
    assert seen.data_bytes == 20


@pytest.mark.parametrize("elsewhere", [False, True])
def test_over_a_hooked_file_system_bytes_are_cached_once(
    active: Callable[..., Session], folder: Path, cache_dir: Path, tmp_path: Path, elsewhere: bool
) -> None:
    session = active()
    path = str(folder / "a.bin")
    other = tmp_path / "other"
    options = {"cache_dir": str(other)} if elsewhere else {}
    fs = fsspec.filesystem("jcache", fs=AsyncSlowFileSystem(), **options)
    for _ in range(2):
        assert fs.cat_file(path, 0, 100_000) == DATA[:100_000]
        settle()
    assert seen.data_bytes == 100_000
    assert 100_000 <= journaled(cache_dir) + journaled(other) < 110_000
    assert bool(journaled(other)) == elsewhere
    counted = session.counters.snapshot()
    assert (counted.read_ops, counted.read_hit, counted.read_miss, counted.read_bypass) == (2, 100_000, 100_000, 0)


class StrictFileSystem(SlowFileSystem):
    """Passes what it is told on to a client, as SFTP's does."""

    protocol = "strict"

    def __init__(self, host: str = "", **client_options: Any) -> None:
        super().__init__(host=host)
        assert not client_options


def test_a_synchronous_file_system_is_told_what_it_was_told_without(
    active: Callable[..., Session], folder: Path
) -> None:
    active()
    fsspec.register_implementation("strict", StrictFileSystem)
    assert JCacheFileSystem(target_protocol="strict").cat_file(str(folder / "a.bin"), 5, 15) == DATA[5:15]


def test_without_a_directory_or_a_file_system_it_says_what_to_do(active: Callable[..., Session]) -> None:
    with pytest.raises(ValueError, match="JCACHE_DIR"):
        fsspec.filesystem("jcache", fs=LocalFileSystem(), skip_instance_cache=True)
    with pytest.raises(ValueError, match="file system behind"):
        fsspec.filesystem("jcache", cache_dir="/nowhere", skip_instance_cache=True)


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
@pytest.mark.parametrize("validate", ["open", "never"])
def test_writes_pass_and_invalidate(
    active: Callable[..., Session], folder: Path, tmp_path: Path, protocol: str, validate: str
) -> None:
    path, count = str(folder / "a.bin"), 0

    def rewritten(write: Callable[[Any, bytes], Any]) -> None:
        nonlocal count
        count += 1
        data = bytes([count]) * SIZE
        fs = fsspec.filesystem("jcache", fs=fsspec.filesystem(protocol))
        fs.cat_file(path, 0, 10)
        write(fs, data)
        os.utime(path, ns=(0, 1_700_000_000_000_000_001 + count * 10**9))
        for later in (False, True):
            if later:
                active(validate=validate)
                fs = fsspec.filesystem("jcache", fs=fsspec.filesystem(protocol))
            assert fs.cat_file(path, 0, 10) == data[:10]

    def opened(fs: Any, data: bytes) -> None:
        with fs.open(path, "wb") as file:
            file.write(data)

    def put(fs: Any, data: bytes) -> None:
        (tmp_path / "local").write_bytes(data)
        fs.put(str(tmp_path / "local"), path)

    def copied(fs: Any, data: bytes) -> None:
        (folder / "source").write_bytes(data)
        fs.cp(str(folder / "source"), path)

    def moved(fs: Any, data: bytes) -> None:
        (folder / "source").write_bytes(data)
        fs.mv(str(folder / "source"), path)

    active(validate=validate)
    for write in (opened, put, copied, moved, lambda fs, data: fs.pipe(path, data)):
        rewritten(write)
    fs = fsspec.filesystem("jcache", fs=fsspec.filesystem(protocol))
    fs.rm(path)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(path, 0, 10)
    assert not fs.exists(path)


def test_over_xrootd_and_http(
    active: Callable[..., Session],
    cache_dir: Path,
    xrootd_server: XrootdServer,
    counting_proxy: Callable[..., CountingProxy],
    http_origin: ScriptedOrigin,
) -> None:
    (xrootd_server.directory / "f.bin").write_bytes(DATA)
    os.utime(xrootd_server.directory / "f.bin", (1_700_000_000, 1_700_000_000))
    http_origin.put("f.bin", DATA)
    proxy = counting_proxy(xrootd_server.port, xrootd=True)
    urls = [f"jcache::root://{proxy.address}//f.bin", "jcache::" + http_origin.url("f.bin")]
    for url in urls:
        for _ in range(2):
            with fsspec.open(url, jcache={"cache_dir": str(cache_dir)}) as file:
                file.seek(1000)
                assert file.read(50_000) == DATA[1000:51_000]
            settle()
    assert http_origin.body_bytes == 50_000
    assert proxy.data_bytes == 50_000


def test_chained_url_in_a_fresh_process_without_a_variable(
    run_python: RunPython, http_origin: ScriptedOrigin, cache_dir: Path
) -> None:
    http_origin.put("f", DATA)
    code = """
import sys, fsspec
with fsspec.open("jcache::" + sys.argv[1], jcache={"cache_dir": sys.argv[2]}) as file:
    print(sum(file.read(100_000)))
"""
    for _ in range(2):
        ran = run_python(code, http_origin.url("f"), str(cache_dir), cache=None)
        assert ran.stdout == f"{sum(DATA[:100_000])}\n"
        assert "jcache" not in ran.stderr
    assert http_origin.body_bytes == 100_000


# -- fsspec's own caches in front -----------------------------------------------------------------------------------


@pytest.mark.parametrize("front", ["simplecache", "filecache", "blockcache"])
@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_fsspecs_caches_in_front(
    active: Callable[..., Session], folder: Path, tmp_path: Path, front: str, protocol: str
) -> None:
    active()
    for turn in range(2):
        options = {front: {"cache_storage": str(tmp_path / f"storage-{turn}")}}
        with fsspec.open(f"{front}::{protocol}://{folder}/a.bin", **options) as file:
            assert file.read() == DATA
        settle()
    assert seen.data_bytes == SIZE, "the second time from the journal"


# -- reading in steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [100, 8192, 50_000])
def test_sequential_steps_take_few_requests_and_no_byte_twice(
    active: Callable[..., Session], http_origin: ScriptedOrigin, cache_dir: Path, step: int
) -> None:
    session = active()
    data = DATA * 4
    resource = http_origin.put("f", data)
    stop = 900_000
    with fsspec.open(http_origin.url("f")) as file:
        for start in range(0, stop, step):
            assert file.read(min(step, stop - start)) == data[start : min(start + step, stop)]
        # What is still on its way when the file is closed is cancelled, and the origin may have sent it all the same.
        eventually(lambda: session.counters.snapshot().origin_bytes == len(data))
    settle()
    assert resource.gets < 24
    ranges = [asked.removeprefix("bytes=").split("-") for asked in resource.asked if asked]
    taken = sorted((int(first), int(last) + 1) for first, last in ranges)
    assert sum(b - a for a, b in taken) == resource.body_bytes
    assert all(a[1] == b[0] for a, b in itertools.pairwise(taken)), "nothing twice, and nothing left out"
    counted = session.counters.snapshot()
    assert counted.recorded_bytes == stop, "what nobody asked for is not recorded"
    assert counted.read_hit + counted.read_miss == stop
    assert counted.origin_bytes == resource.body_bytes
    assert counted.prefetch_unused_bytes <= counted.prefetch_bytes <= counted.origin_bytes
    assert journaled(cache_dir) < stop * 1.01 + 30 * stop / min(step, 4096)
    http_origin.reset()
    with fsspec.open(http_origin.url("f")) as file:
        for start in range(0, stop, step):
            assert file.read(min(step, stop - start)) == data[start : min(start + step, stop)]
    assert resource.gets == 0


def test_steps_are_recorded_of_a_file_that_is_never_closed(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active()
    resource = http_origin.put("f", DATA * 4)
    file = fsspec.open(http_origin.url("f")).open()
    for start in range(0, 160_000, 8000):
        assert file.read(8000) == (DATA * 4)[start : start + 8000]
    assert session.close()
    counted = session.counters.snapshot()
    assert (counted.recorded_bytes, counted.read_miss, counted.read_hit) == (160_000, 160_000, 0)
    resource.reset()
    active()
    with fsspec.open(http_origin.url("f")) as again:
        for start in range(0, 160_000, 8000):
            assert again.read(8000) == (DATA * 4)[start : start + 8000]
    # What the first file was still reading ahead may come only now.
    assert all(int(span.removeprefix("bytes=").split("-")[0]) >= 160_000 for span in resource.asked if span)
    file.close()


def test_a_large_window_comes_in_pieces(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active()
    data = DATA * 20
    resource = http_origin.put("f", data)
    with fsspec.open(http_origin.url("f")) as file:
        for start in range(0, 4_000_000, 200_000):
            assert file.read(200_000) == data[start : start + 200_000]
    asked = [span.removeprefix("bytes=").split("-") for span in resource.asked if span]
    longest = max(int(last) + 1 - int(first) for first, last in asked)
    assert longest <= max(LAST_WINDOW_BYTES // PIECES, 200_000), "the reader does not wait for all of the window"


def test_two_sequential_readers_do_not_disturb_each_other(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    data = DATA * 10
    resource = http_origin.put("f", data)
    first, second = fsspec.open(http_origin.url("f")).open(), fsspec.open(http_origin.url("f")).open()
    second.seek(1_500_000)
    for i in range(100):
        assert first.read(8192) == data[8192 * i : 8192 * i + 8192]
        if i == 20:
            with fsspec.open(http_origin.url("f")) as third:
                third.seek(2_900_000)
                assert third.read(5) == data[2_900_000:2_900_005]
        assert second.read(8192) == data[1_500_000 + 8192 * i :][:8192]
    ranges = sorted(tuple(map(int, asked.removeprefix("bytes=").split("-"))) for asked in resource.asked if asked)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges)), "no byte twice"
    first.close()
    second.close()


def test_jumps_leave_nothing_behind_in_memory(active: Callable[..., Session], folder: Path) -> None:
    session = active()
    path = str(folder / "long.bin")
    fs = fsspec.filesystem("aslow")
    long = DATA * 20
    with fs.open(path) as file:
        for start in range(0, len(long) - 300_000, 1_000_000):
            file.seek(start)
            for _ in range(8):
                at = file.tell()
                assert file.read(8192) == long[at : at + 8192]
    settle()
    found = access(fs, path)
    remote = session.files.acquire(found.identity)
    remote.release()
    snapshot = remote._validation.snapshot
    assert snapshot is not None
    # What was on its way when the file was closed is dropped by the loop, in its own time.
    eventually(lambda: not list(snapshot._flights) and not list(snapshot._held))

    def adds_up() -> bool:
        counted = session.counters.snapshot()
        return counted.prefetch_unused_bytes == counted.origin_bytes - counted.recorded_bytes

    eventually(adds_up)
    counted = session.counters.snapshot()
    assert counted.recorded_bytes == counted.read_miss


def test_a_file_is_collected_where_its_thread_holds_any_lock(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    """The garbage collector runs in the middle of anything, and file objects in cycles are common."""
    session = active()
    data = DATA * 20
    http_origin.put("f", data)
    fs, path = fsspec.url_to_fs(http_origin.url("f"))
    gc.disable()
    try:
        held_up = [fs.open(path)]
        for start in range(0, 160_000, 8000):
            assert held_up[0].read(8000) == data[start : start + 8000]
        held_up.append(held_up)
        del held_up
        remote = session.files.acquire(access(fs, path).identity)
        remote.release()
        snapshot = remote._validation.snapshot
        assert snapshot is not None
        collected = threading.Event()

        def collect() -> None:
            with session.files._lock, session.counters._lock, snapshot.lock, session.recorder._changed:
                gc.collect()
                collected.set()

        threading.Thread(target=collect, daemon=True).start()
        assert collected.wait(20)
    finally:
        gc.enable()
    eventually(lambda: not list(snapshot._flights) and not list(snapshot._held))
    assert session.counters.snapshot().recorded_bytes == 160_000


def test_an_asynchronous_file_that_is_never_closed_keeps_nothing_in_memory(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active()
    data = DATA * 4
    http_origin.put("f", data)

    async def main() -> None:
        fs = fsspec.filesystem("http", asynchronous=True)
        client = await fs.set_session()
        path = http_origin.url("f")
        file = await fs.open_async(path)
        for start in range(0, 60_000, 5000):
            assert await file.read(5000) == data[start : start + 5000]
        del file
        gc.collect()
        await asyncio.sleep(0)
        settle()
        remote = session.files.acquire(access(fs, path).identity)
        remote.release()
        snapshot = remote._validation.snapshot
        assert snapshot is not None
        assert not list(snapshot._held)
        await client.close()

    asyncio.run(main())
    counted = session.counters.snapshot()
    assert counted.recorded_bytes == 60_000
    assert counted.prefetch_unused_bytes == counted.origin_bytes - 60_000 > 0


def test_steps_that_overtake_what_is_read_ahead_are_recorded(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active()
    data = DATA * 4
    resource = http_origin.put("f", data, delay_s=0.03)
    with fsspec.open(http_origin.url("f")) as file:
        for start in range(0, 1_000_000, 24_000):
            assert file.read(24_000) == data[start : start + 24_000]
    settle()
    assert session.counters.snapshot().recorded_bytes == 1_008_000
    resource.reset()
    resource.delay_s = 0
    active()
    with fsspec.open(http_origin.url("f")) as file:
        for start in range(0, 1_000_000, 24_000):
            assert file.read(24_000) == data[start : start + 24_000]
    assert resource.gets == 0


def test_lines(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    rng = random.Random(4)
    lines = [rng.randbytes(rng.randrange(200)).replace(b"\n", b"") + b"\n" for _ in range(5000)] + [b"last"]
    resource = http_origin.put("f", b"".join(lines))
    session = active()
    with fsspec.open(http_origin.url("f")) as file:
        assert list(file) == lines
        file.seek(0)
        assert file.readline() == lines[0]
        assert file.read(10) == b"".join(lines[1:])[:10]
        file.seek(0)
        assert file.readuntil(lines[700]) == b"".join(lines[:701])
        assert file.readlines() == lines[701:]
    assert resource.body_bytes == len(resource.data)
    counted = session.counters.snapshot()
    assert counted.read_hit + counted.read_miss < 4 * len(resource.data), "no block is read anew for each line"
