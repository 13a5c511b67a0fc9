"""Many tasks and threads on one file, failures and cancellations among them, and a cache directory that is slow."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from aiohttp import ClientError
from filesystems import AsyncSlowFileSystem, SlowFileSystem, seen, settle
from fsspec.implementations.http import HTTPFileSystem

from jcache import registry
from jcache.cache import directory as directories
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.waiting import landed
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import ScriptedOrigin

    from jcache.session import Session

DATA = random.Random(1).randbytes(2_000_000)
SIZE = len(DATA)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "remote" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(DATA)
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return str(path)


def asked_ranges(origin: ScriptedOrigin, name: str) -> list[tuple[int, int]]:
    asked = origin.resources["/" + name].asked
    pairs = [text.removeprefix("bytes=").split("-") for text in asked if text]
    return sorted((int(first), int(last) + 1) for first, last in pairs)


def covered(ranges: list[tuple[int, int]]) -> int:
    """How many bytes lie in at least one of some ranges, which are sorted."""
    until = total = 0
    for start, stop in ranges:
        total += max(stop - max(start, until), 0)
        until = max(until, stop)
    return total


def some_spans(seed: int, count: int = 8) -> list[tuple[int, int]]:
    """Ranges on a grid, so that readers with different seeds ask for many of the same."""
    rng = random.Random(seed)
    return [(start := 10_000 * rng.randrange(SIZE // 10_000), start + 10_000) for _ in range(count)]


def test_tasks_and_threads_on_one_file_fetch_each_range_once(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active()
    http_origin.put("f", DATA, delay_s=0.02)
    url = http_origin.url("f")
    fs = HTTPFileSystem()

    def thread(seed: int) -> None:
        rng = random.Random(seed)
        with fs.open(url) as file:
            for start, stop in some_spans(seed):
                if rng.random() < 0.5:
                    file.seek(start)
                    assert file.read(stop - start) == DATA[start:stop]
                else:
                    assert fs.cat_file(url, start, stop) == DATA[start:stop]
            spans = some_spans(seed + 1000)
            got = fs.cat_ranges([url] * len(spans), [a for a, _ in spans], [b for _, b in spans])
            assert got == [DATA[a:b] for a, b in spans]

    async def tasks() -> None:
        own = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
        client = await own.set_session()

        async def task(seed: int) -> None:
            for start, stop in some_spans(seed, 4):
                assert await own._cat_file(url, start, stop) == DATA[start:stop]
            spans = some_spans(seed + 2000, 4)
            got = await own._cat_ranges([url] * len(spans), [a for a, _ in spans], [b for _, b in spans])
            assert got == [DATA[a:b] for a, b in spans]

        try:
            await asyncio.gather(*(task(seed) for seed in range(100)))
        finally:
            await client.close()

    with ThreadPoolExecutor(17) as pool:
        results = [pool.submit(asyncio.run, tasks()), *(pool.submit(thread, seed) for seed in range(16))]
        for result in results:
            result.result(60)
    ranges = asked_ranges(http_origin, "f")
    wanted = {span for seed in range(16) for span in (*some_spans(seed), *some_spans(seed + 1000))}
    wanted |= {span for seed in range(100) for span in (*some_spans(seed, 4), *some_spans(seed + 2000, 4))}
    settle()
    counted = session.counters.snapshot()
    assert counted.recorded_bytes == sum(stop - start for start, stop in wanted)
    assert counted.origin_bytes == http_origin.body_bytes
    twice = sum(stop - start for start, stop in ranges) - covered(ranges)
    assert twice <= counted.prefetch_unused_bytes, "no byte twice, but for what was read ahead and let go of"
    asked = 16 * 8 * 10_000 + 100 * 4 * 10_000
    assert counted.read_hit + counted.read_miss == asked == counted.readv_hit + counted.readv_miss


def test_threads_that_read_in_steps_each_have_their_bytes(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    http_origin.put("f", DATA)

    def steps(seed: int) -> None:
        rng = random.Random(seed)
        with fsspec.open(http_origin.url("f")) as file:
            for _ in range(3):
                start, step = rng.randrange(SIZE - 400_000), rng.choice([1000, 8192, 30_000])
                file.seek(start)
                for at in range(start, start + 200_000, step):
                    assert file.read(step) == DATA[at : at + step]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(steps, range(16)))


def test_a_cancelled_task_harms_no_other(active: Callable[..., Session], path: str) -> None:
    session = active()
    AsyncSlowFileSystem.gate = gate = threading.Event()
    while AsyncSlowFileSystem.arrived.acquire(blocking=False):
        pass

    async def main() -> None:
        fs = AsyncSlowFileSystem(asynchronous=True, skip_instance_cache=True)
        first = asyncio.ensure_future(fs._cat_file(path, 0, 1000))
        while not AsyncSlowFileSystem.arrived.acquire(blocking=False):
            await asyncio.sleep(0)
        others = [asyncio.ensure_future(fs._cat_file(path, 500 * i, 500 * i + 600)) for i in range(3)]
        vectors = [asyncio.ensure_future(fs._cat_ranges([path] * 2, [0, 5000], [700, 6000])) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        vectors[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await vectors[0]
        assert await asyncio.gather(*others) == [DATA[500 * i : 500 * i + 600] for i in range(3)]
        for vector in vectors[1:]:
            assert await vector == [DATA[:700], DATA[5000:6000]]

    asyncio.run(asyncio.wait_for(main(), 30))
    settle()
    assert session.counters.snapshot().recorded_bytes == 1600 + 1000


def test_cancelling_at_any_moment_leaves_no_one_waiting(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    http_origin.put("f", DATA, delay_s=0.001)
    url = http_origin.url("f")
    rng = random.Random(5)

    async def main() -> None:
        fs = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
        client = await fs.set_session()
        try:
            for round_ in range(40):
                spans = [(start := 5000 * rng.randrange(300), start + 5000) for _ in range(6)]
                starts, ends = [a for a, _ in spans], [b for _, b in spans]
                tasks = [asyncio.ensure_future(fs._cat_ranges([url] * 6, starts, ends)) for _ in range(5)]
                for task in tasks[:4]:
                    await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003]))
                    task.cancel()
                expected = [DATA[a:b] for a, b in spans]
                assert await asyncio.wait_for(tasks[4], 10) == expected, round_
                for result in await asyncio.gather(*tasks[:4], return_exceptions=True):
                    assert isinstance(result, asyncio.CancelledError) or result == expected
        finally:
            await client.close()

    asyncio.run(main())
    settle()
    fs = HTTPFileSystem()
    assert fs.cat_file(url) == DATA


def test_a_loop_that_is_closed_in_the_middle_harms_no_other(active: Callable[..., Session], path: str) -> None:
    active()
    AsyncSlowFileSystem.gate = gate = threading.Event()
    while AsyncSlowFileSystem.arrived.acquire(blocking=False):
        pass
    fs, fetching = AsyncSlowFileSystem(), threading.Event()

    def dying() -> None:
        async def main() -> None:
            own = AsyncSlowFileSystem(asynchronous=True, skip_instance_cache=True)
            task = asyncio.ensure_future(own._cat_file(path, 0, 1000))
            while not AsyncSlowFileSystem.arrived.acquire(blocking=False):
                await asyncio.sleep(0.001)
            fetching.set()
            await asyncio.wait_for(task, 0.2)

        with pytest.raises(TimeoutError):
            asyncio.run(main())

    thread = threading.Thread(target=dying)
    thread.start()
    assert fetching.wait(20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fs.cat_file, path, 0, 1000)
        thread.join()
        gate.set()
        assert waiting.result(20) == DATA[:1000]


def test_a_loop_that_is_closed_over_its_tasks_holds_nobody_up(
    active: Callable[..., Session], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    active()
    monkeypatch.setattr("jcache.planning.waiting.STUCK_S", 60.0)
    AsyncSlowFileSystem.gate = gate = threading.Event()
    while AsyncSlowFileSystem.arrived.acquire(blocking=False):
        pass
    loop = asyncio.new_event_loop()
    own = AsyncSlowFileSystem(asynchronous=True, skip_instance_cache=True)

    async def leave_behind() -> asyncio.Task[bytes]:
        task = asyncio.ensure_future(own._cat_file(path, 0, 1000))
        while not AsyncSlowFileSystem.arrived.acquire(blocking=False):
            await asyncio.sleep(0.001)
        return task

    task = loop.run_until_complete(leave_behind())
    loop.close()
    gate.set()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(AsyncSlowFileSystem().cat_file, path, 0, 1000).result(20) == DATA[:1000]
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is, on purpose


def test_who_waits_no_more_leaves_nothing_for_asyncio_to_complain_of() -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        flight = Flight()
        waiting = asyncio.ensure_future(landed(flight))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        flight.end(FlightAbortedError())
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert not complaints


def test_a_fetch_that_fails_is_not_recorded_and_fails_only_who_needs_it(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active(retries=0)
    resource = http_origin.put("f", DATA)
    url, fs = http_origin.url("f"), HTTPFileSystem()
    assert fs.cat_file(url, 0, 10) == DATA[:10]
    settle()
    for failure in ({"short_by": 100}, {"drop_after": 300}, {"status": 500}, {"status": 403}):
        for name, value in failure.items():
            setattr(resource, name, value)
        with pytest.raises((OSError, ClientError)):
            fs.cat_file(url, 1000, 2000)
        first, second, third = fs.cat_ranges([url] * 3, [0, 1000, 5], [10, 2000, 8])
        assert (first, third) == (DATA[:10], DATA[5:8])
        assert isinstance(second, Exception)
        with fs.open(url) as file:
            file.seek(1500)
            with pytest.raises((OSError, ClientError)):
                file.read(500)
            resource.short_by, resource.drop_after, resource.status = 0, None, None
            file.seek(1500)
            assert file.read(1) == DATA[1500:1501]
    settle()
    assert session.counters.snapshot().recorded_bytes == 11
    assert fs.cat_file(url, 1000, 2000) == DATA[1000:2000]
    settle()
    active()
    assert fs.cat_file(url, 1000, 2000) == DATA[1000:2000]


# -- a slow cache directory ----------------------------------------------------------------------------------------


class SluggishStorage(Storage):
    """Every operation takes its time. It is not `pread` as a plain alias, so that this holds for reads as well."""

    __slots__ = ()
    delay_s = 0.2
    # What was called on the thread of fsspec's event loop.
    on_the_loop: list[str] = []  # noqa: RUF012 - of all instances

    def _slow(name: str) -> Any:  # noqa: N805 - a maker of methods
        plain = getattr(Storage, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is fsspec.asyn.iothread[0]:
                SluggishStorage.on_the_loop.append(name)
            time.sleep(SluggishStorage.delay_s)
            return plain(*args, **kwargs) if name == "pread" else plain(self, *args, **kwargs)

        return method

    for _name in ("open", "pread", "pwritev", "fstat", "stat", "listdir", "mkdir", "unlink", "rename", "ftruncate"):
        locals()[_name] = _slow(_name)


class SlowWrites(Storage):
    __slots__ = ()

    def pwritev(self, fd: int, buffers: Any, position: int) -> int:
        time.sleep(0.003)
        return super().pwritev(fd, buffers, position)


def test_more_files_than_stay_open_are_fetched_once(
    active: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(directories, "Storage", SlowWrites)
    (tmp_path / "many").mkdir()
    paths = [tmp_path / "many" / str(i) for i in range(registry.IDLE_FILES + 100)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i % 256]) * 1000)
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    session = active()
    fs = SlowFileSystem()
    for _ in range(2):
        for i, path in enumerate(paths):
            assert fs.cat_file(str(path), 0, 500) == bytes([i % 256]) * 500
    assert seen.data_bytes == 500 * len(paths)
    settle()
    assert session.counters.snapshot().recorded_bytes == 500 * len(paths)
    for i, path in enumerate(paths):
        assert fs.cat_file(str(path), 0, 500) == bytes([i % 256]) * 500
    assert seen.data_bytes == 500 * len(paths)
    settle()
    (tmp_path / "many" / "one more").write_bytes(b"x")
    fs.cat_file(str(tmp_path / "many" / "one more"))
    settle()
    assert len(session.files._files) <= registry.IDLE_FILES


async def longest_pause(until: threading.Event) -> float:
    longest = 0.0
    before = time.perf_counter()
    while not until.is_set():
        await asyncio.sleep(0.002)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


class Beside(threading.Thread):
    """A thread that has nothing to do: how long it did not run at most is the machine's share of any pause."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest_s = 0.0
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        before = time.perf_counter()
        while not self.over.wait(0.002):
            now = time.perf_counter()
            self.longest_s, before = max(self.longest_s, now - before), now


@pytest.mark.parametrize("validate", ["open", 0.05])
def test_a_slow_cache_directory_does_not_stall_the_event_loop(
    active: Callable[..., Session],
    http_origin: ScriptedOrigin,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    validate: Any,
) -> None:
    monkeypatch.setattr(directories, "Storage", SluggishStorage)
    SluggishStorage.on_the_loop.clear()
    for i in range(2):
        http_origin.put(f"f{i}", DATA)
    urls = [http_origin.url(f"f{i}") for i in range(2)]

    async def work(fs: Any, slow: Any) -> None:
        async def one(url: str, seed: int) -> None:
            for start, stop in some_spans(seed, 2):
                assert await fs._cat_file(url, start, stop) == DATA[start:stop]
            assert await fs._cat_ranges([url] * 2, [0, 50], [10, 60]) == [DATA[:10], DATA[50:60]]
            assert await fs._exists(url)
            assert (await fs._info(url))["size"] == SIZE
            file = await fs.open_async(url, "rb")
            assert await file.read(10) == DATA[:10]
            await file.close()

        await asyncio.gather(*(one(url, seed) for seed, url in enumerate(urls)))
        await slow._pipe_file(path, DATA)
        assert await slow._cat_file(path, 0, 10) == DATA[:10]
        await slow._cp_file(path, path + ".copy")
        assert await slow._cat_file(path + ".copy", 0, 10) == DATA[:10]

    pauses = []
    for _ in range(2):
        active(validate=validate)
        fs, slow, done = HTTPFileSystem(), AsyncSlowFileSystem(), threading.Event()
        beside = Beside()
        watch = asyncio.run_coroutine_threadsafe(longest_pause(done), fs.loop)
        try:
            asyncio.run_coroutine_threadsafe(work(fs, slow), fs.loop).result(60)
        finally:
            done.set()
        pauses.append(watch.result(10) - beside.longest_s)
        beside.over.set()
    assert not SluggishStorage.on_the_loop
    assert max(pauses) < SluggishStorage.delay_s * 0.8, pauses
