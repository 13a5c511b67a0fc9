"""The record of use: books with one writer, the index that takes them over, the total that they add up to."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jcache.cache import usage
from jcache.cache.books import HEAD_BYTES, Book, Head, Use, is_book, is_over, read_head, read_uses
from jcache.cache.directory import Cache
from jcache.cache.eviction import Cleaner, Pace, StoppedError, Wish
from jcache.cache.pins import add_pin
from jcache.cache.tree import walk
from jcache.journal import Version
from jcache.system.storage import Storage

STORAGE = Storage()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cache" / ".usage").mkdir(parents=True)
    return tmp_path / "cache"


def new_book(root: Path) -> Book:
    return Book(STORAGE, usage.directory_of(str(root)))


def books(root: Path) -> list[Path]:
    return sorted(path for path in (root / ".usage").iterdir() if is_book(path.name))


def segment(root: Path, name: str, size: int = 1000) -> Path:
    cache = Cache(root)
    journal = cache.journal(cache.identify("https", f"https://h/{name}", {}))
    journal.append(Version(10**9, etag='"1"'), {}, [(0, b"x" * size)])
    journal.close()
    return next(Path(cache.path(cache.identify("https", f"https://h/{name}", {}))).glob("@*.seg"))


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("@*.seg"))


def test_a_book_is_made_when_there_is_something_to_note(root: Path) -> None:
    book = new_book(root)
    book.close()
    assert books(root) == []
    book.add([])
    assert not book.exists
    book.add([Use("https/h/a b%0A", 1_700_000_000.25, 3, 4)])
    (path,) = books(root)
    assert read_uses(STORAGE, str(path)) == [Use("https/h/a b%0A", 1_700_000_000.25, 3, 4)]
    assert read_head(STORAGE, str(path)) is not None
    assert not is_over(STORAGE, str(path))
    book.close(added_bytes=10, removed_bytes=15)
    head = read_head(STORAGE, str(path))
    assert head is not None
    assert (head.claim_bytes, head.is_closed) == (-5, True)
    assert is_over(STORAGE, str(path))


def test_what_is_noted_is_for_all_who_share_the_cache(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    before = os.umask(0o077)
    try:
        cache = Cache(shared)
        cache.prepare()
        modes = {"dir_mode": cache.dir_mode, "file_mode": cache.file_mode}
        book = Book(Storage(), usage.directory_of(str(shared)), **modes)
        book.claim(Head(1000))
        add_pin(Storage(), str(shared), "*", **modes)
        book.close()
    finally:
        os.umask(before)
    # The bit is what gives files the group of the cache, not that of whoever makes them.
    assert {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (shared / ".usage").rglob("*") if path.is_dir()
    } == {"pins": 0o2770}
    assert stat.S_IMODE((shared / ".usage").stat().st_mode) == 0o2770
    files = [path for path in (shared / ".usage").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o660}
    assert len(files) == 2


def test_a_torn_or_damaged_book_loses_only_what_is_torn(root: Path) -> None:
    book = new_book(root)
    uses = [Use(f"https/h/{n}", 1_700_000_000.0 + n, n, n, "w" if n % 2 else "u") for n in range(5)]
    book.add(uses)
    (path,) = books(root)
    whole = path.read_bytes()
    lengths = [HEAD_BYTES]
    for line in whole[HEAD_BYTES:].splitlines(keepends=True):
        lengths.append(lengths[-1] + len(line))
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        expected = uses[: sum(length <= cut for length in lengths[1:])]
        assert read_uses(STORAGE, str(path)) == (expected if cut >= HEAD_BYTES else [])
    path.write_bytes(b"\0" * HEAD_BYTES + b"\xff\xfe\nu nan 1 1 x\nu 1e99 1 1 x\nz 1 1 1 x\nu 1 1 1 \nu 5 6 7 ok\n")
    assert read_head(STORAGE, str(path)) is None
    assert read_uses(STORAGE, str(path)) == [Use("ok", 5.0, 6, 7)]


def test_the_total_is_known_after_a_walk_and_followed_without_one(root: Path) -> None:
    segment(root, "a")
    segment(root, "b", 5000)
    assert usage.total_bytes(STORAGE, str(root)) is None
    Cleaner(STORAGE, str(root)).run(Wish(to_bytes=10**9))
    assert usage.total_bytes(STORAGE, str(root)) == on_disk(root)
    mine, other = new_book(root), new_book(root)
    mine.claim(Head(ahead_bytes=1000))
    other.claim(Head(removed_bytes=300))
    assert usage.total_bytes(STORAGE, str(root)) == on_disk(root) + 700
    mine.close(added_bytes=900)
    assert usage.total_bytes(STORAGE, str(root)) == on_disk(root) + 600
    # Taken over, the sum stays what it was.
    assert Cleaner(STORAGE, str(root)).fold()
    assert len(books(root)) == 1
    assert usage.total_bytes(STORAGE, str(root)) == on_disk(root) + 600
    # What the books say is wrong here, and the next walk finds out.
    Cleaner(STORAGE, str(root)).run(Wish(to_bytes=10**9), measure=True)
    assert usage.total_bytes(STORAGE, str(root)) == on_disk(root)


def test_a_book_that_is_taken_over_twice_counts_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner that is killed between writing the index and removing the books."""
    book = new_book(root)
    book.add([Use("https/h/a", 1_700_000_000.0, 2, 20)])
    book.close(added_bytes=1234)
    Cleaner(STORAGE, str(root)).run(Wish(to_bytes=10**9))
    again = new_book(root)
    again.add([Use("https/h/a", 1_700_000_001.0, 3, 30)])
    again.close(added_bytes=1000)
    before = usage.total_bytes(STORAGE, str(root))

    class Killed(Storage):
        def unlink(self, path: str) -> None:
            if path.endswith(".use"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cleaner(Killed(), str(root)).fold()
    assert len(books(root)) == 1
    for _ in range(2):
        assert usage.total_bytes(STORAGE, str(root)) == before
        index = usage.load(STORAGE, str(root))
        entry = usage.uses(STORAGE, str(root), index)["https/h/a"]
        assert (entry.used_s, entry.hits, entry.hit_bytes) == (1_700_000_001.0, 5, 50)
        assert Cleaner(STORAGE, str(root)).fold()
    assert books(root) == []


def test_without_locks_a_cleaner_that_knows_less_loses_no_book(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(Storage, "lock", refuse)
    Cleaner(STORAGE, str(root)).run(Wish())
    book = new_book(root)
    book.claim(Head(5000, 0, 0))
    late = Cleaner(STORAGE, str(root))
    with usage.cleaner_lock(STORAGE, str(root), dir_mode=0o700, file_mode=0o600):
        late._load()
        book.close(added_bytes=5000)
        for _ in range(2):
            Cleaner(STORAGE, str(root)).fold()
            assert usage.total_bytes(STORAGE, str(root)) == 5000
        late._finish()
    assert usage.total_bytes(STORAGE, str(root)) == 5000
    Cleaner(STORAGE, str(root)).fold()
    assert usage.total_bytes(STORAGE, str(root)) == 5000
    now_s = time.time() + usage.DROP_S + 1  # by then nobody has an index without it in hand
    monkeypatch.setattr(time, "time", lambda: now_s)
    Cleaner(STORAGE, str(root)).fold()
    assert books(root) == []
    assert usage.total_bytes(STORAGE, str(root)) == 5000


def test_the_book_of_a_killed_process_is_taken_over_and_one_that_lives_is_not(root: Path) -> None:
    script = (
        "import os, sys; from jcache.cache.books import Book, Head, Use; from jcache.system.storage import Storage\n"
        "book = Book(Storage(), sys.argv[1]); book.add([Use('https/h/killed', 1.7e9)])\n"
        "book.claim(Head(ahead_bytes=77))\n"
        "print(flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(root / ".usage")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    Cleaner(STORAGE, str(root)).run(Wish(to_bytes=10**9))
    assert len(books(root)) == 1
    child.communicate(b"")
    assert Cleaner(STORAGE, str(root)).fold()
    assert books(root) == []
    index = usage.load(STORAGE, str(root))
    assert index.folded == Head(ahead_bytes=77)
    assert "https/h/killed" in index.entries


@pytest.mark.parametrize("content", ["", "{}", "[]\n1 1 1 1 x\n", '{"jcache-index": 99}\n', "\0" * 100, "\xff\n"])
def test_a_damaged_index_is_none(root: Path, content: str) -> None:
    (root / ".usage" / "index").write_text(content, encoding="latin-1")
    index = usage.load(STORAGE, str(root))
    assert index.offset_bytes is None
    assert usage.total_bytes(STORAGE, str(root)) is None


def test_a_walk_that_is_interrupted_goes_on_where_it_was(root: Path) -> None:
    for number in range(12):
        segment(root, f"d{number % 3}/f{number}", 100 * (number + 1))
    everything = [found.path for found in walk(STORAGE, str(root))]
    assert len(everything) == 12
    assert everything == sorted(everything, key=lambda path: path.split("/"))
    for position, path in enumerate(everything):
        assert [found.path for found in walk(STORAGE, str(root), after=path)] == everything[position + 1 :]

    for steps in (3, 9, 14):
        (root / ".usage" / "index").unlink(missing_ok=True)
        left = steps

        def tired() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StoppedError

        with pytest.raises(StoppedError):
            Cleaner(STORAGE, str(root), pace=tired).run(Wish(to_bytes=10**9))
        index = usage.load(STORAGE, str(root))
        assert index.walk is not None
        assert index.offset_bytes is None
        Cleaner(STORAGE, str(root)).run(Wish(to_bytes=10**9))
        assert usage.total_bytes(STORAGE, str(root)) == on_disk(root)
        assert len(usage.load(STORAGE, str(root)).entries) == 12


def test_the_pace_leaves_time_to_others() -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 4

    pace = Pace(pause_s=0.25, stopped=pause)
    begun_s = time.perf_counter()

    def work() -> None:
        while True:
            pace()

    with pytest.raises(StoppedError):
        work()
    assert pauses == [0.25] * 4
    assert time.perf_counter() - begun_s >= 0.004


def test_what_looks_like_a_journal_and_is_none_is_not_walked(root: Path, tmp_path: Path) -> None:
    path = segment(root, "a")
    for place in (root / "inner", tmp_path / "outer"):
        place.mkdir()
        os.link(path, place / path.name)
    (root / "inner" / "CACHEDIR.TAG").write_text("")
    (root / "link").symlink_to(tmp_path / "outer")
    (root / "https" / path.name).symlink_to(path)
    assert [found.path for found in walk(STORAGE, str(root))] == ["https/h/a"]
