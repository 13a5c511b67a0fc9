"""The size of a cache: kept by those who record, whoever they are and however they end; what goes first, what stays."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import size_job
from places import SUPPORT

from jcache import session as sessions
from jcache.cache import usage
from jcache.cache.books import Book, Use
from jcache.cache.directory import Cache
from jcache.cache.eviction import Cleaner, Wish
from jcache.cache.keeper import LOW_SHARE, WAIT_S, Keeper, credit_bytes
from jcache.cache.meter import MeteredStorage
from jcache.cache.pins import add_pin
from jcache.journal import Version
from jcache.settings.config import Config
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JOB = SUPPORT / "size_job.py"
MB = 1_000_000


def segments_bytes(directory: Path) -> int:
    """What the segments took up at one moment, at least: files come, grow and go meanwhile."""
    sizes = {}
    for place, _, names in os.walk(directory):
        for name in names:
            if ".seg" in name:
                with contextlib.suppress(FileNotFoundError):
                    sizes[place, name] = os.lstat(os.path.join(place, name)).st_size
    # The moment is this one: what was counted and is gone by the second look is not held against anybody.
    return sum(size for path, size in sizes.items() if os.path.lexists(os.path.join(*path)))


class Watch:
    """The most that a directory held while this was in effect, as far as looking often shows."""

    def __init__(self, directory: Path) -> None:
        self.most = 0
        self._directory = directory
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            self.most = max(self.most, segments_bytes(self._directory))


def start(
    directory: Path, limit: int, numbers: Sequence[int], *, size: int, hot: Sequence[int] = ()
) -> subprocess.Popen[str]:
    arguments = [str(directory), str(limit), json.dumps(list(numbers)), str(size), json.dumps(list(hot)), str(MB // 4)]
    return subprocess.Popen(
        [sys.executable, str(JOB), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[dict[str, int]]:
    out = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=180)
        assert process.returncode == 0, stderr
        out.append(json.loads(stdout))
    return out


def test_eight_processes_and_restarts_stay_below_the_limit(tmp_path: Path) -> None:
    """A tenth of what is promised: 20 MB, and 100 MB read by eight processes, twice. Every byte is checked there."""
    directory, limit, files = tmp_path / "cache", 20 * MB, 100
    with Watch(directory) as watch:
        for _ in range(2):
            finish([start(directory, limit, range(k, files, 8), size=MB) for k in range(8)])
    assert limit // 2 < watch.most <= limit
    # The record is right without a walk: exactly, unless the machine was so busy that a process ended without closing
    # its book, which then still says what it had claimed.
    total = usage.total_bytes(Storage(), str(directory))
    assert total is not None
    assert segments_bytes(directory) <= total <= limit


def test_killed_processes_do_not_lift_the_limit(tmp_path: Path) -> None:
    directory, limit = tmp_path / "cache", 12 * MB
    with Watch(directory) as watch:
        for round_ in range(4):
            processes = [start(directory, limit, range(100 * round_ + 10 * k, 100 * round_ + 10 * k + 9), size=MB)
                         for k in range(2)]  # fmt: skip
            deadline_s = time.monotonic() + 60
            while segments_bytes(directory) < 2 * MB and time.monotonic() < deadline_s:
                time.sleep(0.01)
            processes[0].kill()
            processes[0].communicate()
            finish(processes[1:])
    assert watch.most <= limit
    total = usage.total_bytes(Storage(), str(directory))
    assert total is not None
    assert segments_bytes(directory) <= total <= limit
    Cleaner(Storage(), str(directory)).run(Wish(to_bytes=limit), measure=True)
    assert usage.total_bytes(Storage(), str(directory)) == segments_bytes(directory)


def test_what_is_used_again_and_again_survives(tmp_path: Path) -> None:
    directory, limit, hot = tmp_path / "cache", 12 * MB, [9001, 9002]
    finish([start(directory, limit, [0], size=MB, hot=hot)])
    for round_ in range(3):
        (done,) = finish([start(directory, limit, range(100 * round_ + 1, 100 * round_ + 7), size=MB, hot=hot)])
        assert done["hot"] == 0, "what was in use was removed"
    assert segments_bytes(directory) <= limit


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def record(cache: Cache, name: str, size: int = 10_000, *, etag: str = "1", start: int = 0) -> str:
    """Record bytes of a file; return the journal's path below the root."""
    identity = cache.identify("https", f"https://h/{name}", {})
    journal = cache.journal(identity)
    journal.append(Version(10**9, etag=f'"{etag}"'), {}, [(start, os.urandom(size))])
    journal.close()
    return os.path.relpath(cache.path(identity), cache.directory)


def use(cache: Cache, *paths: str, at_s: float) -> None:
    book = Book(Storage(), usage.directory_of(cache.directory))
    book.add([Use(path, at_s) for path in paths])
    book.close()
    for path in paths:
        for segment in Path(cache.directory, path).glob("@*.seg"):
            os.utime(segment, (at_s, at_s))


def left(cache: Cache) -> list[str]:
    return sorted({path.parent.name for path in Path(cache.directory).rglob("@*.seg")})


def test_order_pins_and_directories(cache: Cache) -> None:
    now_s = time.time()
    for age, name in enumerate(("x/new", "x/mid", "y/old", "z/pinned")):
        use(cache, record(cache, name), at_s=now_s - 1000 * (age + 1))
    add_pin(Storage(), cache.directory, "https://h/z/*", dir_mode=0o700, file_mode=0o600)
    done = Cleaner(Storage(), cache.directory).run(Wish(to_bytes=35_000))
    assert done is not None
    assert (done.journals, done.pinned, left(cache)) == (1, 1, ["mid", "new", "pinned"])
    assert not Path(cache.directory, "https/h/y").exists()
    done = Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0))
    assert left(cache) == ["pinned"]


def test_reading_alone_keeps_a_journal(cache: Cache) -> None:
    """No file is touched by a read: the record of use is a file of the reader's."""
    now_s = time.time()
    paths = [record(cache, f"f{n}") for n in range(4)]
    for path in paths:
        use(cache, path, at_s=now_s - 5000)
    before = {p: p.stat() for p in Path(cache.directory).rglob("@*.seg")}
    Book(Storage(), usage.directory_of(cache.directory)).add([Use(paths[0], now_s)])
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=15_000))
    assert left(cache) == ["f0"]
    (kept,) = Path(cache.directory, paths[0]).glob("@*.seg")
    after = kept.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before[kept].st_mtime_ns, before[kept].st_ctime_ns)


def test_superseded_versions_and_orphans_go_first(cache: Cache, tmp_path: Path) -> None:
    now_s = time.time()
    use(cache, record(cache, "oldest"), at_s=now_s - 9000)
    renewed = record(cache, "renewed", etag="1")
    use(cache, renewed, at_s=now_s - 100)
    record(cache, "renewed", etag="2")
    orphaned = Path(cache.directory, record(cache, "orphaned"))
    (whole,) = orphaned.glob("@*.seg")
    killed = orphaned / whole.name.replace(f".{os.getpid()}.", f".{2**22 + 5}.")
    killed.write_bytes(whole.read_bytes()[:-48])  # never sealed, and no such process
    whole.unlink()
    done = Cleaner(Storage(), cache.directory, keep_names=True).run(Wish(to_bytes=25_000))
    assert done is not None
    assert sorted((r.name, r.why) for r in done.removed) == [
        ("https://h/orphaned", "of no use"),
        ("https://h/renewed", "of no use"),
    ]
    assert left(cache) == ["oldest", "renewed"]


def test_readers_of_an_evicted_journal_carry_on(cache: Cache) -> None:
    record(cache, "f", 50_000)
    identity = cache.identify("https", "https://h/f", {})
    reader = cache.journal(identity)
    reader.attach()
    version = reader.versions()[0].version
    view = reader.view(version)
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0), measure=True)
    assert left(cache) == []
    (part,) = view.find(0, 50_000)
    assert len(view.read(part)) == 50_000
    reader.append(version, {}, [(90_000, b"new")])  # its directory is gone: it is made again
    assert left(cache) == ["f"]
    reader.refresh()
    assert [part[2] is None for part in view.find(0, 50_000)] == [True]
    reader.close()


def test_one_cleans_at_a_time(cache: Cache) -> None:
    record(cache, "f")
    with usage.cleaner_lock(Storage(), cache.directory, dir_mode=0o700, file_mode=0o600) as held:
        assert held
        assert Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0)) is None
    assert left(cache) == ["f"]


class Refuses(Storage):
    """A directory of somebody else's: nothing can be removed."""

    def unlink(self, path: str) -> None:
        if path.endswith(".seg"):
            raise PermissionError(1, "Operation not permitted", path)
        super().unlink(path)


def test_what_cannot_be_removed_is_told_and_stays(cache: Cache) -> None:
    record(cache, "a")
    record(cache, "b")
    done = Cleaner(Refuses(), cache.directory).run(Wish(to_bytes=0), measure=True)
    assert done is not None
    assert len(done.failed) == 2
    assert (done.freed_bytes, left(cache)) == (0, ["a", "b"])
    assert done.left_bytes == segments_bytes(Path(cache.directory))


@pytest.fixture
def troubles() -> list[str]:
    return []


@pytest.fixture
def keeper(cache: Cache, troubles: list[str]) -> Iterator[Keeper]:
    metered = MeteredStorage()
    made = Keeper(cache, metered, limit_bytes=10 * MB, collect=list, seal_idle=lambda: None, trouble=troubles.append)
    yield made
    made.close()


def test_claims_are_made_ahead_and_given_back(cache: Cache, keeper: Keeper) -> None:
    where = os.path.join(cache.directory, "https/h/f")
    assert keeper.admit(where, 100_000)
    first = usage.total_bytes(Storage(), cache.directory)
    assert first is not None
    assert first >= 100_000 + credit_bytes(10 * MB)
    (book,) = [path for path in Path(cache.directory, ".usage").iterdir() if path.name.endswith(".use")]
    before = book.read_bytes()
    assert keeper.admit(where, 100_000)  # there is room in what was claimed: not a call
    assert book.read_bytes() == before
    keeper.close()
    assert usage.total_bytes(Storage(), cache.directory) == 0


def test_what_would_fill_half_of_the_cache_is_not_recorded(cache: Cache, keeper: Keeper, troubles: list[str]) -> None:
    for _ in range(2):
        assert not keeper.admit(os.path.join(cache.directory, "https/h/f"), 6 * MB)
    assert troubles == [
        "a read of 6000000 bytes is more than half of what the cache may hold; what does not fit goes unrecorded"
    ]
    assert keeper.admit(os.path.join(cache.directory, "https/h/f"), 5 * MB)


def test_a_full_cache_that_cannot_be_emptied_is_told_once(
    cache: Cache, keeper: Keeper, troubles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jcache.cache.keeper._STUCK_S", 0.0)
    started_s = time.monotonic()
    record(cache, "f", 9_900_000)
    add_pin(Storage(), cache.directory, "*", dir_mode=0o700, file_mode=0o600)
    for _ in range(3):
        assert not keeper.admit(os.path.join(cache.directory, "https/h/g"), 100_000)
    assert left(cache) == ["f"]
    assert time.monotonic() - started_s < 3 * WAIT_S, "nothing may go, so there is nothing to wait for"
    assert len(troubles) == 1
    assert "is full: 1 journals are pinned, 0 are being written; what does not" in troubles[0]


def test_nothing_goes_and_nobody_waits_for_a_compaction(cache: Cache, keeper: Keeper, troubles: list[str]) -> None:
    record(cache, "f", 9_000_000)
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=10 * MB))
    started_s = time.monotonic()
    where = os.path.join(cache.directory, "https/h/g")
    assert not keeper.admit(where, 6_000_000, copy=True)
    assert not keeper.admit(where, 2_000_000, copy=True)
    assert time.monotonic() - started_s < WAIT_S / 2
    assert keeper.admit(where, 100_000, copy=True)
    assert (left(cache), troubles) == (["f"], [])


def test_a_process_that_ends_waits_for_room_once(cache: Cache, keeper: Keeper, troubles: list[str]) -> None:
    record(cache, "f", 9_900_000)
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=10 * MB))
    with usage.cleaner_lock(Storage(), cache.directory, dir_mode=0o700, file_mode=0o600):  # and nobody cleans
        keeper.hurry()
        started_s = time.monotonic()
        for number in range(20):
            assert not keeper.admit(os.path.join(cache.directory, f"https/h/g{number}"), 100_000)
            keeper._denied_until = 0.0
        assert time.monotonic() - started_s < 2 * WAIT_S
    assert len(troubles) == 1
    assert "is full: room is made more slowly than it is filled" in troubles[0]


def test_room_is_made_for_what_is_larger_than_a_tenth(cache: Cache, keeper: Keeper) -> None:
    for number in range(4):
        record(cache, f"f{number}", 2_200_000)
    assert keeper.admit(os.path.join(cache.directory, "https/h/new"), 4 * MB)
    assert segments_bytes(Path(cache.directory)) <= 6 * MB
    assert left(cache)


def test_what_is_written_again_long_after_it_went_may_go_again(
    cache: Cache, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = os.path.join(cache.directory, record(cache, "f", MB))
    assert keeper.admit(where, MB)
    for clock in ("time", "monotonic"):
        later = functools.partial(lambda now: now() + 20, getattr(time, clock))
        monkeypatch.setattr(time, clock, later)
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0))
    assert left(cache) == []
    record(cache, "f", MB)
    assert keeper.admit(where, MB)
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0))
    assert left(cache) == []


def test_the_limit_may_be_lowered(cache: Cache, keeper: Keeper) -> None:
    now_s = time.time()
    for number in range(30):
        use(cache, record(cache, f"f{number:02}", MB), at_s=now_s - 100 + number)
    assert keeper.admit(os.path.join(cache.directory, "https/h/new"), 100_000)
    assert segments_bytes(Path(cache.directory)) <= 10 * MB
    deadline_s = time.monotonic() + 60
    while segments_bytes(Path(cache.directory)) > LOW_SHARE * 10 * MB and time.monotonic() < deadline_s:
        time.sleep(0.01)  # it goes on behind whoever it has made room for
    assert segments_bytes(Path(cache.directory)) <= LOW_SHARE * 10 * MB
    assert left(cache)[-1] == "f29"


def test_a_session_notes_what_it_read(tmp_path: Path) -> None:
    import asyncio

    for round_ in range(2):
        running = sessions.start(Config(dir=str(tmp_path / "cache"), validate="never"))
        asyncio.run(size_job.read_file(7, 300_000, 100_000))
        sessions.stop()
        storage, root = Storage(), str(tmp_path / "cache")
        entries = usage.uses(storage, root, usage.load(storage, root))
        (entry,) = entries.values()
        assert abs(entry.used_s - time.time()) < 60
        assert (entry.hits, entry.hit_bytes) == (3 * round_, 300_000 * round_)
        assert running.counters.snapshot().failures == 0


def test_a_forked_child_leaves_its_parents_book_alone(cache: Cache, keeper: Keeper) -> None:
    assert keeper.admit(os.path.join(cache.directory, "https/h/f"), 1000)
    pid = os.fork()
    if pid == 0:
        keeper.forget()
        keeper.close()
        os._exit(0)
    os.waitpid(pid, 0)
    (book,) = [path for path in Path(cache.directory, ".usage").iterdir() if path.name.endswith(".use")]
    assert b" o" in book.read_bytes()[:96]


def test_what_was_read_again_is_told_though_nobody_has_looked_how_large_it_is(cache: Cache) -> None:
    now_s = time.time()
    book = Book(Storage(), usage.directory_of(cache.directory))
    for number in range(6):
        path = record(cache, f"f{number}")
        book.add([Use(path, now_s - 100 + number, 1, 10_000 if number == 1 else 500)])
    book.close()
    Cleaner(Storage(), cache.directory, look_s=0.0).run(Wish(to_bytes=25_000))
    assert left(cache) == ["f1", "f5"]


def test_what_was_read_again_is_spared_where_others_are_only_just_being_written(cache: Cache) -> None:
    now_s = time.time()
    book = Book(Storage(), usage.directory_of(cache.directory))
    book.add([Use(record(cache, "hot"), now_s - 100, 2, 20_000)])
    writer = cache.journal(cache.identify("https", "https://h/new", {}))
    writer.append(Version(10**9, etag='"1"'), {}, [(0, os.urandom(20_000))])
    book.add([Use("https/h/new", now_s)])
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=25_000, spares=True))
    assert left(cache) == ["hot", "new"]
    writer.close()
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=25_000, spares=True))
    assert left(cache) == ["hot"]
    Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0, spares=True))
    assert left(cache) == []
    book.close()
