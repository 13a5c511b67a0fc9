"""Compaction: one segment for many, no byte lost or twice, whoever else is there and whenever it is killed."""

import errno
import gc
import itertools
import os
import random
import time
import tracemalloc

import pytest
from faults import Crashed, FaultyStorage, error, fail_from
from journals import IDENTITY, INFO, REMOTE, VERSION, attached, hits, journal, readable, record
from programs import answer, start, tell

from jcache.journal import JournalError, Version
from jcache.journal.compaction import LOCK_FILE
from jcache.segment.format import parse_segment_name
from jcache.system.locks import FileLock
from jcache.system.storage import Storage


def segments(directory) -> list[str]:
    return sorted(name for name in os.listdir(directory) if parse_segment_name(name))


def others(directory) -> list[str]:
    return sorted(set(os.listdir(directory)) - set(segments(directory)))


def fill(directory, *parts: list[tuple[int, int]], orphans: int = 0) -> None:
    """Write one segment for each part; the last ones are never sealed, and their writers are gone."""
    for number, ranges in enumerate(parts):
        target = journal(directory)
        for chunk in ranges:
            record(target, chunk)
        if number < len(parts) - orphans:
            target.close()
        else:
            (name,) = target._segments.known
            target.forget()
            os.rename(directory / name, directory / name.replace(f".{os.getpid()}.", ".4999999."))


def compacted(directory, **options) -> int:
    return journal(directory).compact(**options)


def stored(directory) -> list[tuple[int, int]]:
    """Return the extents of the only segment by position."""
    (segment,) = attached(directory)._segments.known.values()
    assert segment.sealed
    columns = segment.table.columns()
    return [(s, n) for _, s, n in sorted(zip(columns.positions, columns.starts, columns.lengths, strict=True))]


EIGHT = [[(1000 * i, 1000 * i + 500), (1000 * (7 - i) + 500, 1000 * (7 - i) + 600)] for i in range(8)]


def test_many_segments_become_one_in_the_order_of_first_reading(tmp_path):
    fill(tmp_path, *EIGHT, orphans=3)
    before = attached(tmp_path)
    (validated,) = before.versions()
    created = min(segment.metadata.created_ns for segment in before._segments.known.values())
    assert before.wants_compaction()
    assert compacted(tmp_path) == 8
    assert len(segments(tmp_path)) == 1
    assert others(tmp_path) == [LOCK_FILE]
    assert stored(tmp_path) == [(start, stop - start) for part in EIGHT for start, stop in part]
    after = attached(tmp_path)
    assert readable(after.view(VERSION)) == 8 * 600
    assert after.versions() == [validated], "merging proves nothing, and forgets nothing"
    (segment,) = after._segments.known.values()
    assert segment.metadata.created_ns == created
    assert segment.metadata.info == INFO
    assert not after.wants_compaction()
    assert compacted(tmp_path) == compacted(tmp_path, at_least=1) == 0, "one sealed segment is as good as it gets"


def test_no_byte_is_stored_twice(tmp_path):
    rng = random.Random(3)
    for round_ in range(25):
        directory = tmp_path / str(round_)
        parts = []
        for _ in range(rng.randrange(2, 7)):
            starts = [rng.randrange(0, 3000) for _ in range(rng.randrange(1, 12))]
            parts.append([(start, start + rng.randrange(1, rng.choice([5, 50, 1500]))) for start in starts])
        fill(directory, *parts, orphans=rng.randrange(2))
        covered = {byte for part in parts for start, stop in part for byte in range(start, stop)}
        assert compacted(directory, at_least=2) == len(parts)
        extents = stored(directory)
        assert sum(length for _, length in extents) == len(covered)
        assert {byte for start, length in extents for byte in range(start, start + length)} == covered
        assert readable(attached(directory).view(VERSION)) == len(covered)


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_damage_is_left_out_and_counted_and_a_sound_copy_is_taken_instead(tmp_path):
    fill(tmp_path, [(0, 100), (200, 300)], [(50, 100)], [(400, 500)])
    for name in segments(tmp_path):
        data = (tmp_path / name).read_bytes()
        at = data.find(REMOTE[0:100])
        if at >= 0:
            flip(tmp_path / name, at + 60)
    target = attached(tmp_path)
    assert target.compact(at_least=3) == 3
    assert target.damaged == 1
    assert stored(tmp_path) == [(200, 100), (50, 50), (400, 100)]
    assert readable(target.view(VERSION)) == 250


def test_where_nothing_is_sound_nothing_is_left(tmp_path):
    fill(tmp_path, [(0, 100)], [(100, 200)])
    for name in segments(tmp_path):
        data = (tmp_path / name).read_bytes()
        at = max(data.find(REMOTE[0:100]), data.find(REMOTE[100:200]))
        flip(tmp_path / name, at)
    target = journal(tmp_path)
    assert target.compact(at_least=2) == 2
    assert target.damaged == 2
    assert segments(tmp_path) == []


def test_what_is_not_ours_to_merge_stays(tmp_path):
    fill(tmp_path, [(0, 10)], [(10, 20)])
    record(live := journal(tmp_path), (20, 30))
    (tmp_path / "note.txt").touch()
    record(foreign := journal(tmp_path, identity="https://example.org/other"), (0, 10))
    foreign.close()
    newer = Version(len(REMOTE), etag='"2"')
    record(other := journal(tmp_path), (0, 10), version=newer)
    other.close()
    assert len(segments(tmp_path)) == 5
    assert live.compact(at_least=2) == 2
    assert len(segments(tmp_path)) == 4
    assert others(tmp_path) == [LOCK_FILE, "note.txt"]
    record(live, (30, 40))
    live.close()
    reader = attached(tmp_path)
    assert readable(reader.view(VERSION)) == 40
    assert readable(reader.view(newer)) == 10
    assert compacted(tmp_path, at_least=2) == 2, "sealed, it takes part"


def test_what_nobody_needs_any_more_goes(tmp_path):
    fill(tmp_path, [(0, 10)], [(10, 20)], orphans=1)
    newer = Version(len(REMOTE), etag='"2"')
    record(target := journal(tmp_path), (20, 30), version=newer)
    target.close()
    assert not attached(tmp_path).wants_compaction()
    assert compacted(tmp_path) == 0, "readers of the old version may have just begun"
    old = [name for name in segments(tmp_path) if b'"2' not in (tmp_path / name).read_bytes()]
    for name in old:
        os.utime(tmp_path / name, (time.time() - 700, time.time() - 700))
    blank = tmp_path / "@elsewhere.1.0123456789abcdef.seg"
    blank.touch()
    os.utime(blank, (time.time() - 7200, time.time() - 7200))
    fresh = tmp_path / "@elsewhere.1.1123456789abcdef.seg"
    fresh.touch()
    assert attached(tmp_path).wants_compaction()
    assert compacted(tmp_path) == 3
    assert len(segments(tmp_path)) == 2
    assert fresh.exists()
    assert readable(attached(tmp_path).view(newer)) == 10


def test_readers_are_not_disturbed(tmp_path):
    fill(tmp_path, *EIGHT)
    reader = attached(tmp_path)
    view = reader.view(VERSION)
    held = view.find(0, 500)[0]
    assert compacted(tmp_path) == 8
    assert readable(view) == 8 * 600, "it has the old ones open"
    assert reader.refresh()
    assert len(reader._segments.known) == 1
    assert readable(view) == 8 * 600
    assert view.read(held) == REMOTE[:500]
    assert reader.problems() == []


def test_who_attaches_just_then_finds_every_byte(tmp_path):
    fill(tmp_path, *EIGHT)

    class Late(Storage):
        """Compacts between the listing and the opening."""

        done = False

        def open(self, path, flags, mode=0o600):
            if not self.done:
                self.done = True
                assert compacted(tmp_path) == 8
            return super().open(path, flags, mode)

    assert readable(attached(tmp_path, Late()).view(VERSION)) == 8 * 600


def test_one_at_a_time(tmp_path):
    fill(tmp_path, *EIGHT)
    fd = os.open(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    lock = FileLock(fd)
    assert lock.try_lock()
    assert compacted(tmp_path) == 0
    assert len(segments(tmp_path)) == 8
    lock.unlock()
    os.close(fd)
    assert compacted(tmp_path) == 8


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_locks(tmp_path, number):
    fill(tmp_path, *EIGHT)
    storage = FaultyStorage(lambda name, at: error(number) if name == "lock" else None)
    assert journal(tmp_path, storage).compact() == 8
    assert readable(attached(tmp_path).view(VERSION)) == 8 * 600


def test_time_that_is_up(tmp_path):
    fill(tmp_path, *EIGHT)
    assert compacted(tmp_path, timeout_s=0) == 0
    assert len(segments(tmp_path)) == 8
    assert others(tmp_path) == [LOCK_FILE]
    assert compacted(tmp_path, timeout_s=60) == 8


def test_an_empty_or_missing_journal(tmp_path):
    assert compacted(tmp_path) == compacted(tmp_path / "missing") == 0
    assert os.listdir(tmp_path) == []


def test_where_nothing_may_be_removed_no_copy_is_left(tmp_path):
    fill(tmp_path, *EIGHT)
    before = segments(tmp_path)
    refused = iter([error(errno.EPERM)])
    storage = FaultyStorage(lambda name, at: next(refused, None) if name == "unlink" else None)
    with pytest.raises(JournalError):
        journal(tmp_path, storage).compact()
    assert segments(tmp_path) == before


FEW = EIGHT[:3]


def operations(tmp_path) -> list[str]:
    storage = FaultyStorage()
    fill(tmp_path / "count", *FEW, orphans=1)
    stale(tmp_path / "count")
    assert journal(tmp_path / "count", storage).compact(at_least=3) == 3
    gc.collect()
    assert not storage.open_fds
    return storage.calls


def stale(directory) -> None:
    """Leave what a compaction on another machine left that was killed."""
    path = directory / "@elsewhere.1.0123456789abcdef.seg.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 7200, time.time() - 7200))


def test_a_crash_at_every_operation(tmp_path):
    for at, name in enumerate(operations(tmp_path)):
        if name == "close":
            continue  # to die there is to die before the next one
        directory = tmp_path / str(at)
        fill(directory, *FEW, orphans=1)
        stale(directory)
        cut = (random.Random(at).randrange(3000), Crashed()) if name == "pwritev" else Crashed()
        storage = FaultyStorage(lambda _, number, at=at, cut=cut: cut if number == at else None)
        with pytest.raises(Crashed):
            journal(directory, storage).compact(at_least=3)
        del storage, cut  # the exception holds what the dead process had open
        gc.collect()
        reader = attached(directory)
        assert readable(reader.view(VERSION)) == 3 * 600, f"{name}, operation {at}"
        assert (reader.damaged, reader.problems()) == (0, [])
        reader.close()
        # Long after.
        for entry in directory.glob("*.tmp"):
            os.utime(entry, (time.time() - 7200, time.time() - 7200))
        compacted(directory, at_least=2)
        assert others(directory) == [LOCK_FILE], f"{name}, operation {at}"
        assert sum(length for _, length in stored(directory)) == 3 * 600
        assert readable(attached(directory).view(VERSION)) == 3 * 600


def test_pieces_that_are_left_of_extents_keep_no_blocks(tmp_path):
    """Of the second segment a kilobyte of each extent is new; the block of 4 MiB that it is in need not stay."""
    data, version = bytes(1 << 18), Version(1 << 30, etag='"1"')
    for size in (255 << 10, 256 << 10):
        writer = attached(tmp_path)
        for number in range(0, 256, 32):
            writer.append(version, INFO, [(n << 18, data[:size]) for n in range(number, number + 32)])
        writer.close()
    target = attached(tmp_path)
    tracemalloc.start()
    try:
        assert target.compact(at_least=2) == 2
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert target.view(version).covered() == 256 << 18


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOENT, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("count", [1, 1 << 60])
def test_every_operation_fails(tmp_path, number, count):
    for first, name in enumerate(operations(tmp_path)):
        directory = tmp_path / str(first)
        fill(directory, *FEW, orphans=1)
        stale(directory)
        storage = FaultyStorage(fail_from(first, number, count=count))
        try:
            journal(directory, storage).compact(at_least=3)
        except JournalError as problem:
            assert problem.errno == number  # noqa: PT017  # most do not raise
        gc.collect()
        assert not storage.open_fds
        for entry in directory.glob("*.tmp"):
            os.utime(entry, (time.time() - 7200, time.time() - 7200))
        assert readable(attached(directory).view(VERSION)) == 3 * 600, f"{name}, operation {first}"
        compacted(directory, at_least=1)
        assert sum(length for _, length in stored(directory)) == 3 * 600


def test_a_disk_that_fills_in_the_middle(tmp_path):
    for capacity in range(0, 6000, 311):
        directory = tmp_path / str(capacity)
        fill(directory, *EIGHT)
        full = (capacity, error(errno.ENOSPC))
        storage = FaultyStorage(lambda name, at, full=full: full if name == "pwritev" else None)
        with pytest.raises(JournalError) as raised:
            journal(directory, storage).compact()
        assert raised.value.errno == errno.ENOSPC
        assert len(segments(directory)) == 8
        assert others(directory) == [LOCK_FILE]
        assert readable(attached(directory).view(VERSION)) == 8 * 600


def test_too_little_space_is_known_before(tmp_path):
    fill(tmp_path, *EIGHT)

    class Full(FaultyStorage):
        def statvfs(self, path):
            real = super().statvfs(path)
            return os.statvfs_result((*real[:4], 1, *real[5:]))

    storage = Full()
    with pytest.raises(JournalError) as raised:
        journal(tmp_path, storage).compact()
    assert raised.value.errno == errno.ENOSPC
    assert "pwritev" not in storage.counts


def test_a_segment_that_cannot_be_read_just_now_is_kept(tmp_path):
    fill(tmp_path, *[[(100 * i, 100 * i + 50)] for i in range(8)])
    reads = iter(range(10_000))
    storage = FaultyStorage()
    assert journal(tmp_path / "nothing", storage).compact() == 0
    # Each look reads every tail once; then come the extents.
    storage.plan = lambda name, at: error(errno.EIO) if name == "pread" and next(reads) == 18 else None
    assert journal(tmp_path, storage).compact() == 7
    assert len(segments(tmp_path)) == 2
    assert readable(attached(tmp_path).view(VERSION)) == 400


def test_two_compact_at_once_while_a_third_reads(tmp_path):
    fill(tmp_path, *[[(1000 * i, 1000 * i + 900)] for i in range(64)])
    compactor = """
        print("ready", flush=True)
        for line in sys.stdin:
            print(journal(directory).compact(at_least=2), flush=True)
    """
    reader = """
        from jcache.journal import JournalError
        print("ready", flush=True)
        input()
        for round_ in range(150):
            assert readable(attached(directory).view(VERSION)) == 64 * 900, round_
        print("fine", flush=True)
    """
    processes = [start(compactor, tmp_path, seed) for seed in range(2)]
    third = start(reader, tmp_path)
    for process in (*processes, third):
        assert answer(process) == "ready"
    tell(third)
    rng = random.Random(1)
    for _ in range(10):
        before = len(segments(tmp_path))
        for process in processes:
            tell(process)
        counts = [int(answer(process)) for process in processes]
        assert len(segments(tmp_path)) == before - sum(counts) + sum(count > 0 for count in counts) == 1
        for _ in range(3):
            a = rng.randrange(64)
            record(target := journal(tmp_path), (1000 * a, 1000 * a + 100))
            target.close()
    assert answer(third) == "fine"
    for process in (*processes, third):
        process.communicate()
        assert process.returncode == 0
    compacted(tmp_path, at_least=1)
    assert sum(length for _, length in stored(tmp_path)) == 64 * 900


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_moment(tmp_path, seed):
    rng = random.Random(seed)
    parts = [[(2000 * i + 40 * j, 2000 * i + 40 * j + 30) for j in range(50)] for i in range(40)]
    fill(tmp_path, *parts, orphans=rng.randrange(8))
    size = 40 * 50 * 30
    process = start(
        """
        from faults import FaultyStorage
        journal(directory, FaultyStorage(lambda name, at: print(name, flush=True))).compact()
        """,
        tmp_path,
    )
    # It has some 430 operations; from the 360th on it writes, publishes and removes.
    seen = list(itertools.islice(process.stdout, rng.choice([rng.randrange(1, 360), rng.randrange(350, 400)])))
    process.kill()
    assert seen
    process.wait()
    reader = attached(tmp_path)
    assert readable(reader.view(VERSION)) == size
    assert (reader.damaged, reader.problems()) == (0, [])
    compacted(tmp_path, at_least=1)
    assert sum(length for _, length in stored(tmp_path)) == size
    assert others(tmp_path) == [LOCK_FILE], "the dead process's leftovers are known by its number"
    assert hits(attached(tmp_path).view(VERSION), 0, 30) == [(0, 30)]
    assert attached(tmp_path, identity=IDENTITY + "x").versions() == []


def test_a_writer_that_only_seemed_dead_loses_nothing(tmp_path):
    fill(tmp_path, [(0, 100)], [(100, 200)])
    # Without a lock, and under the name of a process that does not exist.
    alive = journal(tmp_path, FaultyStorage(lambda name, at: error(errno.ENOLCK) if name == "lock" else None))
    record(alive, (200, 300))
    (name,) = alive._segments.known
    os.rename(tmp_path / name, tmp_path / name.replace(f".{os.getpid()}.", ".4999999."))
    storage = FaultyStorage(lambda name, at: record(alive, (300, 400)) and None if name == "rename" else None)
    assert journal(tmp_path, storage).compact(at_least=3) == 2
    assert readable(attached(tmp_path).view(VERSION)) == 400
    assert compacted(tmp_path, at_least=2) == 2
    assert stored(tmp_path) == [(0, 100), (100, 100), (200, 100), (300, 100)]
