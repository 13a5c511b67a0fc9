"""Many small files by one `cat`: the same bytes as without a cache, no request too many, whatever else goes on."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import AsyncSlowFileSystem, seen

from jcache import session as sessions
from jcache.journal.whole import WHOLE_BYTES
from jcache.recording import small
from jcache_plugins.fsspec.writes import changing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import ScriptedOrigin

    from jcache.session import Session

COUNT = 300
PATIENCE_S = 20


def body(i: int, generation: int = 0) -> bytes:
    return random.Random(f"{i} {generation}").randbytes(50 + i)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    for i in range(COUNT):
        put(folder, i)
    return folder


def put(folder: Path, i: int, generation: int = 0) -> None:
    path = folder / f"c.{i}"
    path.write_bytes(body(i, generation))
    os.utime(path, ns=(10**18, (1_700_000_000 + generation) * 10**9 + 1))


def paths(folder: Path, count: int = COUNT) -> list[str]:
    return [str(folder / f"c.{i}") for i in range(count)]


def right(folder: Path, count: int = COUNT, generation: int = 0) -> dict[str, bytes]:
    return {str(folder / f"c.{i}"): body(i, generation) for i in range(count)}


def begin(active: Callable[..., Session], **fields: Any) -> Any:
    active(**fields)
    seen.reset()
    AsyncSlowFileSystem.clear_instance_cache()
    return fsspec.filesystem("aslow")


def current() -> Session:
    session = sessions.current()
    assert session is not None
    return session


def settle() -> None:
    assert current().recorder.flush(PATIENCE_S)


def segments(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.rglob("@*.seg"))


def test_cold_warm_and_trusted(active: Callable[..., Session], folder: Path, cache_dir: Path) -> None:
    fs = begin(active)
    assert fs.cat(paths(folder)) == right(folder)
    assert seen.calls["cat_file"] == COUNT
    settle()
    assert len(segments(cache_dir)) == COUNT
    counts = current().counters.snapshot()
    assert counts.read_miss == counts.origin_bytes == counts.recorded_bytes == sum(map(len, right(folder).values()))
    assert (counts.read_hit, counts.misses, counts.opened, counts.origin_requests) == (0, COUNT, COUNT, COUNT)

    fs = begin(active)
    assert fs.cat(paths(folder)) == right(folder)
    assert (seen.calls["cat_file"], seen.calls["info"]) == (0, COUNT)
    counts = current().counters.snapshot()
    assert (counts.read_hit, counts.read_miss, counts.full_hits) == (sum(map(len, right(folder).values())), 0, COUNT)

    fs = begin(active, validate="never")
    assert fs.cat(paths(folder)) == right(folder)
    assert fs.cat_ranges(paths(folder, 3), 5, 10) == [body(i)[5:10] for i in range(3)]
    assert not seen.calls
    assert len(segments(cache_dir)) == COUNT


def test_what_is_about_to_be_removed_is_not_read(active: Callable[..., Session], folder: Path) -> None:
    """A directory is written while the recorder, which removes what was recorded of it, has something else to do."""
    assert begin(active).cat(paths(folder, 3)) == right(folder, 3)
    settle()
    fs = begin(active, validate="never")
    gate = threading.Event()
    assert current().recorder.call(lambda: gate.wait(PATIENCE_S))
    try:
        with changing(fs, str(folder)):
            for i in range(3):
                put(folder, i, 1)
        assert fs.cat(paths(folder, 3)) == right(folder, 3, 1)
    finally:
        gate.set()


def test_a_second_cat_in_one_process_asks_for_nothing(active: Callable[..., Session], folder: Path) -> None:
    for _ in range(2):
        fs = begin(active)
        assert fs.cat(paths(folder, 100)) == right(folder, 100)
        settle()
        seen.reset()
        assert fs.cat(paths(folder, 100)) == right(folder, 100)
        assert [fs.cat_file(path) for path in paths(folder, 100)] == list(right(folder, 100).values())
        assert not seen.calls, "validated once in this process"


def test_what_waits_to_be_recorded_is_found_in_memory(active: Callable[..., Session], folder: Path) -> None:
    fs = begin(active)
    recorder = current().recorder
    recorder.fetching(1)  # somebody is: recording waits
    fs.cat(paths(folder, 20))
    assert recorder._waiting_bytes == sum(map(len, right(folder, 20).values()))
    seen.reset()
    assert fs.cat_file(paths(folder)[7]) == body(7)
    assert fs.cat_file(paths(folder)[8], 3, 9) == body(8)[3:9]
    assert not seen.calls
    recorder.fetching(-1)
    settle()
    assert recorder._waiting_bytes == 0
    assert fs.cat_file(paths(folder)[7]) == body(7)
    assert not seen.calls
    assert not next(iter(current().files._files.values())).validation.snapshot._held, "held by the journal only"


def test_what_was_replaced_is_read_new(active: Callable[..., Session], folder: Path) -> None:
    begin(active).cat(paths(folder, 50))
    for i in range(0, 50, 2):
        put(folder, i, 1)
    fs = begin(active)
    new = {path: body(i, 1 - i % 2) for i, path in enumerate(paths(folder, 50))}
    assert fs.cat(paths(folder, 50)) == new
    assert seen.calls["cat_file"] == 25
    fs = begin(active)
    assert fs.cat(paths(folder, 50)) == new
    assert seen.calls["cat_file"] == 0


def test_what_is_missing_is_told_as_without_a_cache(active: Callable[..., Session], folder: Path) -> None:
    asked = [*paths(folder, 20), str(folder / "missing"), str(folder / "refused")]
    (folder / "refused").write_bytes(b"x")
    for _ in range(2):
        fs = begin(active)
        with pytest.raises((FileNotFoundError, PermissionError)):
            fs.cat(asked)
        assert fs.cat(asked, on_error="omit") == right(folder, 20)
        found = fs.cat(asked, on_error="return")
        assert isinstance(found.pop(str(folder / "missing")), FileNotFoundError)
        assert isinstance(found.pop(str(folder / "refused")), PermissionError)
        assert found == right(folder, 20)
        assert not [file for file in current().files.small._files.values() if file.active]


def test_files_of_all_sizes(active: Callable[..., Session], folder: Path) -> None:
    sizes = [0, 1, WHOLE_BYTES - 1, WHOLE_BYTES, WHOLE_BYTES + 1, 3 * WHOLE_BYTES]
    for size in sizes:
        (folder / f"s{size}").write_bytes(random.Random(size).randbytes(size))
        os.utime(folder / f"s{size}", ns=(10**18, 10**18 + 1))
    expected = {str(folder / f"s{size}"): random.Random(size).randbytes(size) for size in sizes}
    for fetched in (len(sizes), 0):
        fs = begin(active)
        assert fs.cat(list(expected)) == expected
        assert seen.calls["cat_file"] == fetched
        assert fs.cat(list(expected)) == expected
        settle()


def test_part_of_a_file_and_damage_take_the_ordinary_way(
    active: Callable[..., Session], folder: Path, cache_dir: Path
) -> None:
    fs = begin(active)
    assert fs.cat_file(paths(folder)[0], 5, 20) == body(0)[5:20]
    fs.cat(paths(folder, 10)[1:])
    settle()
    (damaged,) = (path for path in segments(cache_dir) if path.parent.name == "c.3")
    data = damaged.read_bytes()
    at = data.index(body(3)) + 7
    fs = begin(active)
    damaged.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert fs.cat(paths(folder, 10)) == right(folder, 10)
    assert current().counters.snapshot().damaged_extents == 1
    assert sorted(r[0] for r in seen.ranges) == ["c.0", "c.0", "c.3"]
    fs = begin(active)
    assert fs.cat(paths(folder, 10)) == right(folder, 10)
    assert not seen.ranges


@pytest.mark.parametrize(("seed", "warm"), [*((seed, False) for seed in range(5)), (0, True), (1, True)])
def test_many_at_once_fetch_each_file_once(active: Callable[..., Session], folder: Path, seed: int, warm: bool) -> None:
    fs = begin(active)
    if warm:
        fs.cat(paths(folder))
        settle()
        fs = begin(active)
        AsyncSlowFileSystem.info_gate = threading.Event()
        AsyncSlowFileSystem.info_gate.set()
    asked = paths(folder)
    rng = random.Random(seed)
    wanted = [rng.sample(asked, rng.randint(2, COUNT)) for _ in range(6)]
    singles = rng.sample(asked, 60)
    results: list[dict[str, bytes]] = []

    def read(some: list[str]) -> None:
        results.append(fs.cat(some))

    def read_one_by_one() -> None:
        results.append({path: fs.cat_file(path) for path in singles})

    threads = [threading.Thread(target=read, args=(some,), daemon=True) for some in wanted]
    threads += [threading.Thread(target=read_one_by_one, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    everything = right(folder)
    for result in results:
        assert all(data == everything[path] for path, data in result.items())
    assert len(results) == len(threads)
    fetched = [name for name, _, _ in seen.ranges]
    assert len(fetched) == (0 if warm else len(set(fetched))), "no byte is fetched twice"
    settle()
    counts = current().counters.snapshot()
    assert counts.read_hit + counts.read_miss == sum(sum(map(len, result.values())) for result in results)
    assert counts.origin_bytes == counts.recorded_bytes == sum(stop - start for _, start, stop in seen.ranges)


def test_who_comes_while_a_file_is_fetched_waits_for_it(active: Callable[..., Session], folder: Path) -> None:
    fs = begin(active)
    while AsyncSlowFileSystem.arrived.acquire(blocking=False):
        pass
    AsyncSlowFileSystem.gate = threading.Event()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(fs.cat(paths(folder, 2)))),
        threading.Thread(target=lambda: found.append(fs.cat_file(paths(folder)[0]))),
        threading.Thread(target=lambda: found.append(fs.cat_file(paths(folder)[1], 5, 9))),
    ]
    threads[0].start()
    for _ in range(2):
        assert AsyncSlowFileSystem.arrived.acquire(timeout=PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    while len(current().files._files) < 2:
        pass
    AsyncSlowFileSystem.gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert right(folder, 2) in found
    assert body(0) in found
    assert body(1)[5:9] in found
    assert seen.calls["cat_file"] == 2
    settle()
    seen.reset()
    assert fs.cat(paths(folder, 2)) == right(folder, 2)
    assert not seen.calls


def test_who_comes_while_a_warm_file_is_validated_waits_for_it(active: Callable[..., Session], folder: Path) -> None:
    begin(active).cat(paths(folder, 3))
    settle()
    fs = begin(active)
    while AsyncSlowFileSystem.arrived.acquire(blocking=False):
        pass
    AsyncSlowFileSystem.info_gate = threading.Event()
    found: list[Any] = []
    first, second, third = paths(folder, 3)
    threads = [
        threading.Thread(target=lambda read=read: found.append(read()), daemon=True)
        for read in (
            lambda: fs.cat([first, second, third]),
            lambda: fs.cat_file(first),
            lambda: fs.cat([second, first]),
            lambda: fs.cat_file(third, 5, 9),
        )
    ]
    threads[0].start()
    for _ in range(3):
        assert AsyncSlowFileSystem.arrived.acquire(timeout=PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    while len(current().files._files) < 3:
        pass
    AsyncSlowFileSystem.info_gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not [thread for thread in threads if thread.is_alive()]
    assert len(found) == len(threads)
    for read in (right(folder, 3), body(0), {first: body(0), second: body(1)}, body(2)[5:9]):
        assert read in found
    assert (seen.calls["cat_file"], seen.calls["info"]) == (0, 3), "who waited need not ask again"


def test_a_cat_that_is_cancelled_leaves_nothing_behind(active: Callable[..., Session], folder: Path) -> None:
    begin(active)

    async def main() -> None:
        fs = AsyncSlowFileSystem(asynchronous=True)
        AsyncSlowFileSystem.gate = threading.Event()
        reading = asyncio.ensure_future(fs._cat(paths(folder)))
        other = asyncio.ensure_future(fs._cat_file(paths(folder)[0]))
        while seen.calls["cat_file"] < 50:
            await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        AsyncSlowFileSystem.gate.set()
        assert await other == body(0)
        assert not [file for file in current().files.small._files.values() if file.active]
        assert await fs._cat(paths(folder)) == right(folder)

    asyncio.run(main())
    settle()


@pytest.mark.parametrize("wait", [False, True])
def test_what_is_written_meanwhile_is_read_new(active: Callable[..., Session], folder: Path, wait: bool) -> None:
    fs = begin(active)
    if not wait:
        current().recorder.fetching(1)
    fs.cat(paths(folder, 10))
    if wait:
        settle()
    new = random.Random(99).randbytes(500)
    fs.pipe_file(paths(folder)[3], new)
    assert fs.cat(paths(folder, 10)) == right(folder, 10) | {paths(folder)[3]: new}
    if not wait:
        current().recorder.fetching(-1)
    settle()
    for validate in ("open", "never"):
        fs = begin(active, validate=validate)
        assert fs.cat(paths(folder, 10)) == right(folder, 10) | {paths(folder)[3]: new}


def test_only_some_are_remembered(
    active: Callable[..., Session], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "KEPT", 20)
    for _ in range(2):
        fs = begin(active)
        fs.cat(paths(folder))
        settle()
        assert len(current().files.small._files) == 20
        assert not [file for file in current().files.small._files.values() if file.data is not None]


def test_a_directory_that_cannot_be_written_is_said_once(
    active: Callable[..., Session], folder: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fs = begin(active)
    fs.cat(paths(folder, 2))
    settle()
    top = segments(cache_dir)[0].parent.parent
    for i in range(2, 40):
        (top / f"c.{i}").write_bytes(b"")  # in the way of a journal's directory
    seen.reset()
    assert fs.cat(paths(folder, 60)) == right(folder, 60)
    settle()
    assert capsys.readouterr().err.count("jcache:") == 1
    assert current().counters.snapshot().failures >= 1
    assert not [file for file in current().files.small._files.values() if file.data is not None]


def test_limits_of_what_waits(active: Callable[..., Session], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jcache.recording import recorder

    monkeypatch.setattr(recorder, "SMALL_FILES", 100)
    fs = begin(active)
    current().recorder.fetching(1)
    fs.cat(paths(folder))
    deadline = threading.Event()
    while len(current().recorder._queue) >= 100:
        assert not deadline.wait(0.001)
    assert current().counters.snapshot().recorded_bytes > 0, "though the fetching goes on"
    current().recorder.fetching(-1)


def test_over_http(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    names = [f"z/c.{i}" for i in range(50)]
    files = [http_origin.put(name, body(i), modified_s=1_700_000_000.0) for i, name in enumerate(names)]
    urls = [http_origin.url(name) for name in names]
    expected = dict(zip(urls, map(body, range(50)), strict=True))
    for gets, heads, validate in ((1, 0, "open"), (0, 1, "open"), (0, 0, "never")):
        active(validate=validate)
        http_origin.reset()
        fs, _ = fsspec.url_to_fs(urls[0], skip_instance_cache=True)
        assert fs.cat(urls) == expected
        assert {file.gets for file in files} == {gets}
        # On a busy machine, a HEAD that proves the bytes is sent behind a GET.
        assert {file.heads for file in files} <= ({0, 1} if gets else {heads})
        settle()
    files[7].change(body(7, 1), etag='"2"', modified_s=1_700_000_001.0)
    active()
    fs, _ = fsspec.url_to_fs(urls[0], skip_instance_cache=True)
    assert fs.cat(urls) == expected | {urls[7]: body(7, 1)}


def test_over_http_without_validators(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    urls = []
    for i in range(10):
        http_origin.put(f"z/c.{i}", body(i), etag=None)
        urls.append(http_origin.url(f"z/c.{i}"))
    expected = dict(zip(urls, map(body, range(10)), strict=True))
    for fetched in (10, 10):
        active()
        http_origin.reset()
        fs, _ = fsspec.url_to_fs(urls[0], skip_instance_cache=True)
        assert fs.cat(urls) == expected
        assert http_origin.requests == fetched, "nothing proves these, so nothing is kept"
    for fetched in (10, 0):
        active(validate="never")
        http_origin.reset()
        fs, _ = fsspec.url_to_fs(urls[0], skip_instance_cache=True)
        assert fs.cat(urls) == expected
        assert http_origin.requests == fetched, "the user vouches"
