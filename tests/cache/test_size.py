"""A cache's size at its limits: that what is booked is never less than what is there, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from places import ROOT

from jcache.cache import eviction, usage
from jcache.cache.books import Book, Head, Use, is_book
from jcache.cache.directory import Cache
from jcache.cache.eviction import Cleaned, Cleaner, Wish
from jcache.cache.keeper import Keeper, credit_bytes
from jcache.cache.meter import MeteredStorage
from jcache.cache.pins import add_pin
from jcache.cli import main
from jcache.journal import Version
from jcache.journal.whole import Whole, write_whole
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

BENCH = ROOT / "bench" / "size.py"
MB = 1_000_000
STORAGE = Storage()


@pytest.mark.slow
def test_processes_that_read_more_than_fits_keep_to_the_limit_and_spare_what_is_read_again() -> None:
    """At a tenth, and two times over; with JCACHE_TEST_SIZE=full at full size, as `python bench/size.py` alone does."""
    less = [] if os.environ.get("JCACHE_TEST_SIZE") == "full" else ["--scale", "0.1", "--rounds", "2"]
    done = subprocess.run(
        [sys.executable, BENCH, *less, "--json"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert all(document["held"].values())
    seen, load = document["seen"], document["load"]
    assert seen["recorded_bytes"] > 2 * load["limit_bytes"], "nothing had to go"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def record(cache: Cache, name: str, size: int = 10_000, *, storage: Storage | None = None) -> str:
    """Record bytes of a file; return the journal's path below the root."""
    through = cache if storage is None else Cache(cache.directory, storage=storage)
    identity = through.identify("https", f"https://h/{name}", {})
    journal = through.journal(identity)
    journal.append(Version(10**9, etag='"1"'), {}, [(0, os.urandom(size))])
    journal.close()
    return os.path.relpath(cache.path(identity), cache.directory)


def segments(cache: Cache) -> list[Path]:
    return sorted(Path(cache.directory).rglob("@*.seg"))


def there(cache: Cache) -> int:
    return sum(path.stat().st_size for path in segments(cache))


def total(cache: Cache) -> int:
    found = usage.total_bytes(STORAGE, cache.directory)
    assert found is not None
    return found


def clean(
    cache: Cache, to_bytes: int = 10**12, *, measure: bool = False, pace: Callable[[], object] = lambda: None
) -> Cleaned:
    """Clean, and book it."""
    cleaner = Cleaner(STORAGE, cache.directory, pace=pace, freed=lambda: book.claim(head()))
    book = Book(STORAGE, usage.directory_of(cache.directory))

    def head() -> Head:
        return Head(removed_bytes=cleaner.done.freed_bytes)

    done = cleaner.run(Wish(to_bytes=to_bytes), measure=measure)
    book.close(removed_bytes=cleaner.done.freed_bytes)
    assert done is not None
    return done


def note(cache: Cache, *paths: str, added_bytes: int) -> None:
    """Note that journals were made, one after the other."""
    book = Book(STORAGE, usage.directory_of(cache.directory))
    book.add([Use(path, time.time() - 100 + number) for number, path in enumerate(paths)])
    book.claim(Head(added_bytes=added_bytes))
    book.close(added_bytes=added_bytes)


def new_keeper(cache: Cache, storage: MeteredStorage, limit: int = 100 * MB) -> Keeper:
    def trouble(what: str) -> None:
        raise AssertionError(what)

    return Keeper(cache, storage, limit_bytes=limit, collect=list, seal_idle=lambda: None, trouble=trouble)


def where(cache: Cache, name: str) -> str:
    return cache.path(cache.identify("https", f"https://h/{name}", {}))


def test_what_is_claimed_and_not_written_yet_is_not_lost_in_a_walk(cache: Cache) -> None:
    clean(cache)
    metered = MeteredStorage()
    keeper = new_keeper(cache, metered)
    assert keeper.admit(where(cache, "a"), 500_000)
    clean(cache, measure=True)
    assert total(cache) >= 500_000 + credit_bytes(100 * MB) // 2
    record(cache, "a", 500_000, storage=metered)
    assert keeper.admit(where(cache, "b"), 200_000)
    record(cache, "b", 200_000, storage=metered)
    assert total(cache) >= there(cache)
    keeper.close()
    assert total(cache) == there(cache)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_recorded_and_removed_during_a_walk_the_books_are_not_below_what_is_there(
    cache: Cache, seed: int
) -> None:
    rng = random.Random(seed)
    for number in range(20):
        record(cache, f"d{number % 5}/f{number}", rng.randrange(1000, 50_000))
    clean(cache)
    metered = [MeteredStorage() for _ in range(3)]
    keepers = [new_keeper(cache, storage) for storage in metered]
    added = 0

    def others_work() -> None:
        nonlocal added
        storage = rng.choice(metered)
        keeper = keepers[metered.index(storage)]
        if rng.random() < 0.5:
            name, added = f"d{rng.randrange(5)}/g{added}", added + 1
            size = rng.randrange(1000, 300_000)
            assert keeper.admit(where(cache, name), size)
            record(cache, name, size, storage=storage)
        elif found := segments(cache):
            storage.unlink(str(rng.choice(found)))
            keeper._tell(is_due=False)  # the thread does this each second

    clean(cache, measure=True, pace=others_work)
    assert total(cache) >= there(cache)
    others_work()
    assert total(cache) >= there(cache)
    for keeper in keepers:
        keeper.close()
    assert total(cache) >= there(cache)
    clean(cache, measure=True)
    assert total(cache) == there(cache)
    assert clean(cache).left_bytes == there(cache)


def test_what_killed_processes_claimed_costs_no_journal(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring is better than removing for nothing."""
    monkeypatch.setattr(eviction, "_WALK_AGAIN_S", 0.0)
    for number in range(10):
        record(cache, f"f{number}", 100_000)
    clean(cache)
    for pid in range(3):
        book = Book(STORAGE, usage.directory_of(cache.directory))
        book.claim(Head(ahead_bytes=200_000))
        book.forget()
        name = f".{os.getpid()}."
        (path,) = (p for p in Path(cache.directory, ".usage").iterdir() if is_book(p.name) and name in p.name)
        path.rename(path.with_name(path.name.replace(name, f".{2**22 + pid}.")))
    assert total(cache) == there(cache) + 600_000
    done = clean(cache, 1_050_000)
    assert (done.journals, len(segments(cache))) == (0, 10)
    assert total(cache) == there(cache)


def test_a_write_that_fails_in_the_middle_is_not_counted(cache: Cache) -> None:
    class Fills(MeteredStorage):
        def pwritev(self, fd: int, buffers: object, position: int) -> int:
            written = super().pwritev(fd, [b"".join(map(bytes, buffers))[:3000]], position)  # type: ignore[call-overload]
            if position > 1000:
                raise OSError(28, "No space left on device")
            return written

    metered = Fills()
    identity = cache.identify("https", "https://h/f", {})
    journal = Cache(cache.directory, storage=metered).journal(identity)
    for _ in range(5):
        with pytest.raises(Exception, match="No space"):
            journal.append(Version(10**9, etag='"1"'), {}, [(0, os.urandom(20_000))])
    journal.forget()
    assert metered.net_bytes == there(cache)


KILLED = """
import os, signal, sys
from jcache.cache.books import Book, Head
from jcache.cache.eviction import Cleaner, Wish
from jcache.system.storage import Storage
class Killed(Storage):
    left = int(sys.argv[2])
    def _count(self):
        Killed.left -= 1
        if Killed.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def unlink(self, path):
        self._count()
        super().unlink(path)
    def rename(self, source, target):
        self._count()
        super().rename(source, target)
        self._count()
    def rmdir(self, path):
        super().rmdir(path)
        self._count()
book = Book(Storage(), sys.argv[1] + "/.usage")
cleaner = Cleaner(Killed(), sys.argv[1], freed=lambda: book.claim(Head(removed_bytes=cleaner.done.freed_bytes)))
cleaner.run(Wish(to_bytes=25_000))
book.close(removed_bytes=cleaner.done.freed_bytes)
"""


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 13, 99])
def test_a_cleaner_that_is_killed_leaves_work_to_the_next_and_nothing_else(cache: Cache, after: int) -> None:
    clean(cache)
    paths = [record(cache, f"d{number}/f") for number in range(8)]
    note(cache, *paths, added_bytes=there(cache))
    stranger = Path(cache.directory, "https", "h", "d1", "stranger.seg")
    stranger.write_bytes(b"not ours")
    child = subprocess.run([sys.executable, "-c", KILLED, cache.directory, str(after)], check=False)
    assert child.returncode in {0, -signal.SIGKILL}
    assert (child.returncode == 0) == (after == 99)
    assert total(cache) >= there(cache)
    clean(cache, 25_000)
    assert total(cache) >= there(cache)
    assert there(cache) <= 25_000
    clean(cache, 25_000, measure=True)
    assert total(cache) == there(cache)
    assert {path.parent.parent.name for path in segments(cache)} <= {"d6", "d7"}
    assert stranger.read_bytes() == b"not ours"


def test_a_clock_that_was_set_back_stops_no_cleaning(cache: Cache) -> None:
    for number in range(4):
        record(cache, f"f{number}")
    clean(cache)
    index = usage.load(STORAGE, cache.directory)
    index.walked_s += 5e6
    for known in index.entries.values():
        known.look(0)
        known.looked_s += 5e6
    usage.save(STORAGE, cache.directory, index, file_mode=0o600, pace=lambda: None)
    record(cache, "unknown")
    note(cache, added_bytes=there(cache) - total(cache))
    clean(cache, 0)
    assert segments(cache) == []
    assert total(cache) == 0


@pytest.mark.parametrize("mtime_s", [0, 4e9])
def test_books_of_other_hosts_count_until_they_were_quiet_for_long(cache: Cache, mtime_s: float) -> None:
    clean(cache)
    book = Book(STORAGE, usage.directory_of(cache.directory))
    book.add([Use(record(cache, "used", 100_000), time.time())])
    book.claim(Head(added_bytes=100_000, ahead_bytes=50_000))
    book.forget()
    directory = Path(cache.directory, ".usage")
    (path,) = (p for p in directory.iterdir() if is_book(p.name))
    other = path.with_name("@elsewhere." + path.name.split(".", 1)[1])
    path.rename(other)
    record(cache, "older")
    assert total(cache) == 150_000
    clean(cache)
    assert other.exists()
    assert total(cache) == 150_000
    os.utime(other, (0, mtime_s))
    assert Cleaner(STORAGE, cache.directory).fold()
    assert not other.exists()
    assert total(cache) == 150_000
    clean(cache, measure=True)
    assert total(cache) == there(cache)


def test_pins_beyond_the_limit_stay(cache: Cache) -> None:
    for number in range(6):
        record(cache, f"{'pinned' if number < 4 else 'free'}/f{number}")
    add_pin(STORAGE, cache.directory, "https://h/pinned/*", dir_mode=0o700, file_mode=0o600)
    done = clean(cache, 20_000)
    assert (done.journals, done.pinned) == (2, 4)
    assert {path.parent.parent.name for path in segments(cache)} == {"pinned"}


def test_commands_book_what_they_add_and_remove(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JCACHE_")]:
        monkeypatch.delenv(name)
    for number in range(80):  # so many that `compact`, on its way, keeps what it learnt of them
        record(cache, f"f{number}", 2000)
    for etag in ("1", "1", "2"):
        identity = cache.identify("https", "https://h/several", {})
        journal = cache.journal(identity)
        journal.append(Version(10**9, etag=f'"{etag}"'), {}, [(0, os.urandom(3000))])
        journal.close()
    clean(cache)
    assert total(cache) == there(cache)

    def call(*arguments: str, code: int = 0) -> None:
        result = CliRunner().invoke(main, [*arguments], prog_name="jcache")
        assert result.exit_code == code, result.output
        assert total(cache) == there(cache), arguments

    call("compact", "--all", "--dir", cache.directory)
    assert len(segments(cache)) < 83
    damaged, cut, *_ = segments(cache)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-20])
    note(cache, added_bytes=there(cache) - total(cache))
    report = Path(cache.directory, ".reports", "old.tmp")
    report.parent.mkdir()
    report.write_bytes(b"x" * 5000)
    os.utime(report, (0, 0))
    os.utime(cut, (0, 0))
    call("verify", "--repair", str(Path(cache.directory, "https")), code=1)
    assert not damaged.exists()
    call("verify", "--repair", cache.directory)
    assert not report.exists(), "it never counted"
    call("clean", cache.directory, "--url", "*f1*")
    call("clean", cache.directory, "--to", "50kB")
    call("clean", cache.directory, "--all")
    assert total(cache) == 0


class Tidied(Storage):
    """A cache whose cleaner is quick: directories that are made are gone again before anything is in them."""

    left = 4

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if self.left and flags & os.O_CREAT and path.endswith(".seg"):
            self.left -= 1
            directory = os.path.dirname(path)
            while not os.path.exists(os.path.join(directory, "CACHEDIR.TAG")):
                with contextlib.suppress(FileNotFoundError):
                    self.rmdir(directory)
                directory = os.path.dirname(directory)
        return super().open(path, flags, mode)


@pytest.mark.parametrize("how", ["journal", "whole"])
def test_a_directory_that_a_cleaner_removes_before_anything_is_in_it_is_made_again(cache: Cache, how: str) -> None:
    storage, version = Tidied(), Version(5, etag='"1"')
    identity = cache.identify("https", "https://h/d/f", {})
    if how == "journal":
        journal = Cache(cache.directory, storage=storage).journal(identity)
        journal.append(version, {}, [(0, b"bytes")])
        journal.close()
    else:
        whole = Whole(version, {}, b"bytes")
        modes = {"dir_mode": 0o700, "file_mode": 0o600}
        write_whole(storage, cache.path(identity), identity.key, whole, **modes, proved_ns=time.time_ns())
    assert not storage.left
    assert len(segments(cache)) == 1
