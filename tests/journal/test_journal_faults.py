"""A file system that fails at every operation: errors are typed, what was acknowledged stays, the journal goes on."""

import errno
import gc
import itertools
import os

import pytest
from faults import Crashed, FaultyStorage, error, fail_from
from journals import REMOTE, VERSION, attached, journal, readable, record

from jcache.journal import JournalError, LostSegment
from jcache.segment.format import TRAILER_MAGIC

RANGES = [[(0, 100)], [(5000, 5050), (300, 400)], [(1000, 4000)], [(4000, 4001)], [(10_000, 10_500)]]
ALL = list(itertools.chain(*RANGES))


def scenario(directory, storage: FaultyStorage, acknowledged: list[tuple[int, int]] | None = None):
    """Use every operation of a journal; return what was acknowledged as recorded."""
    target = journal(directory, storage)
    acknowledged = [] if acknowledged is None else acknowledged
    attempts = [
        target.attach,
        *(lambda ranges=ranges: (record(target, *ranges), acknowledged.extend(ranges)) for ranges in RANGES[:3]),
        target.seal,
        *(lambda ranges=ranges: (record(target, *ranges), acknowledged.extend(ranges)) for ranges in RANGES[3:]),
        target.refresh,
        lambda: target.touch(VERSION),
        lambda: readable(target.view(VERSION), 0, 11_000),
        target.others_live,
        target.close,
    ]
    problems = []
    for attempt in attempts:
        try:
            attempt()
        except JournalError as problem:
            problems.append(problem)
    assert all(isinstance(problem.__cause__, OSError) and problem.errno for problem in problems)
    return acknowledged


def check(directory, acknowledged):
    reader = attached(directory)
    view = reader.view(VERSION)
    readable(view)
    for start, stop in acknowledged:
        assert readable(view, start, stop) == stop - start, f"{start} was acknowledged"
    assert reader.damaged == 0
    assert reader.problems() == []
    record(reader, (20_000, 20_010))
    reader.close()
    assert readable(attached(directory).view(VERSION), 20_000, 20_010) == 10


def operations(tmp_path) -> list[str]:
    storage = FaultyStorage()
    # Something to attach to, of both kinds.
    seeded(tmp_path / "count")
    assert scenario(tmp_path / "count", storage) == ALL
    return storage.calls


def seeded(directory):
    first = attached(directory)
    record(first, (50_000, 50_100))
    first.close()
    second = attached(directory)
    record(second, (60_000, 60_100))
    second.forget()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOENT, errno.ESTALE])
@pytest.mark.parametrize("count", [1, 1 << 60])
def test_every_operation_fails(tmp_path, number, count):
    for first, name in enumerate(operations(tmp_path)):
        if name == "pread" and count == 1:
            continue  # what cannot be read is forgotten, and not sealed: the test below
        directory = tmp_path / str(first)
        seeded(directory)
        storage = FaultyStorage(fail_from(first, number, count=count))
        acknowledged = scenario(directory, storage)
        gc.collect()
        assert not storage.open_fds
        check(directory, [*acknowledged, (50_000, 50_100), (60_000, 60_100)])


def test_one_failure_costs_one_append_at_most(tmp_path):
    for first, name in enumerate(operations(tmp_path)):
        directory = tmp_path / str(first)
        seeded(directory)
        acknowledged = scenario(directory, FaultyStorage(fail_from(first, errno.ENOSPC, count=1)))
        lost = len(ALL) - len(acknowledged)
        assert lost <= (2 if name in {"open", "pwritev", "mkdir"} else 0), name


@pytest.mark.parametrize("step", [1, 7, 100])
def test_short_writes_are_completed(tmp_path, step):
    storage = FaultyStorage(lambda name, number: (step, None) if name == "pwritev" else None)
    check(tmp_path, scenario(tmp_path, storage))
    reader = attached(tmp_path)
    assert all(segment.sealed for segment in reader._segments.known.values())


def test_a_disk_that_fills_at_every_byte(tmp_path):
    whole = journal(tmp_path / "whole")
    sizes = [record(whole, *ranges) for ranges in RANGES]
    whole.close()
    (path,) = (tmp_path / "whole").iterdir()
    total = path.stat().st_size
    for capacity in range(0, total, 13):

        class Disk(FaultyStorage):
            def pwritev(self, fd, buffers, position, capacity=capacity):
                data = b"".join(buffers)
                fits = max(0, min(len(data), capacity - position))
                os.pwrite(fd, data[:fits], position)
                if fits < len(data):
                    raise error(errno.ENOSPC)
                return fits

        directory = tmp_path / str(capacity)
        storage = Disk()
        writer = journal(directory, storage)
        acknowledged, numbers, size = [], set(), 0
        for ranges in RANGES:
            try:
                size += record(writer, *ranges)
            except JournalError as problem:
                numbers.add(problem.errno)
            else:
                acknowledged += ranges
        # Frames say when they were proved, to parts of a second, with more digits or fewer.
        fitting = sum(1 for index in range(len(sizes)) if sum(sizes[: index + 1]) + 32 <= capacity)
        assert len(acknowledged) >= len(list(itertools.chain(*RANGES[:fitting])))
        view = writer.view(VERSION)
        assert readable(view) == sum(b - a for a, b in acknowledged)
        for entry in directory.iterdir():
            assert entry.stat().st_size == size, "what does not fit is cut off again"
        try:
            writer.close()
        except JournalError as problem:
            numbers.add(problem.errno)
        assert numbers <= {errno.ENOSPC}
        check(directory, acknowledged)


def test_a_failed_frame_that_cannot_be_cut_off_is_overwritten(tmp_path):
    """The remains of a long frame behind a short one: never taken for frames, and sealing drops them."""
    fail = [False]

    def plan(name, number):
        if fail[0] and name == "pwritev":
            return 3000, error(errno.EIO)
        if fail[0] and name == "ftruncate":
            return error(errno.EIO)
        return None

    storage = FaultyStorage(plan)
    writer = attached(tmp_path, storage)
    record(writer, (0, 10))
    follower = attached(tmp_path)
    fail[0] = True
    with pytest.raises(JournalError):
        record(writer, (1000, 4100))
    follower.refresh()
    fail[0] = False
    record(writer, (20, 30))
    follower.refresh()
    assert readable(follower.view(VERSION)) == 20
    check_copy = attached(tmp_path)
    assert readable(check_copy.view(VERSION)) == 20
    assert check_copy.problems() == []
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[-48:].startswith(TRAILER_MAGIC)
    assert readable(attached(tmp_path).view(VERSION)) == 20


def test_a_frame_reported_as_failed_though_it_was_written(tmp_path):
    """Followers may have seen it; what overwrites it makes its extents fail their checksums."""
    fail = [False]
    storage = FaultyStorage(
        lambda name, number: (
            (fail[0] and ((1 << 30, error(errno.EIO)) if name == "pwritev" else error(errno.EIO))) or None
        )
    )
    writer = attached(tmp_path, storage)
    record(writer, (0, 10))
    follower = attached(tmp_path)
    fail[0] = True
    with pytest.raises(JournalError):
        record(writer, (1000, 1100))
    follower.refresh()
    assert readable(follower.view(VERSION)) == 110
    fail[0] = False
    record(writer, (2000, 2100))
    follower.refresh()
    assert readable(follower.view(VERSION)) in {10, 110}
    assert readable(follower.view(VERSION)) == 10
    writer.close()
    assert readable(attached(tmp_path).view(VERSION)) == 110


def test_a_crash_at_every_operation_and_every_byte(tmp_path):
    for at, name in enumerate(operations(tmp_path)):
        if name == "close":
            continue  # the kernel does that for a dead process
        cuts = [0, 1, 31, 32, 33, 100, 181, 182, 183, 230, 300, 400, 1000, 3100, 1 << 30]
        for cut in cuts if name == "pwritev" else [None]:
            directory = tmp_path / f"{at}.{cut}"
            seeded(directory)
            crash = Crashed() if cut is None else (cut, Crashed())
            storage = FaultyStorage(lambda name, number, at=at, crash=crash: crash if number == at else None)
            acknowledged = []
            with pytest.raises(Crashed):
                scenario(directory, storage, acknowledged)
            gc.collect()
            check(directory, [*acknowledged, (50_000, 50_100), (60_000, 60_100)])


def test_reading_fails_as_a_journal_error_and_is_a_gap_from_then_on(tmp_path):
    record(writer := attached(tmp_path), (0, 100), (200, 600_000))
    writer.close()
    failing = [False]
    storage = FaultyStorage(lambda name, number: error(errno.EIO) if failing[0] and name == "pread" else None)
    reader = attached(tmp_path, storage)
    view = reader.view(VERSION)
    parts = [part for part in view.find(0, len(REMOTE)) if part[2]]
    failing[0] = True
    for part in parts:
        with pytest.raises(JournalError, match="cannot read") as caught:
            view.read(part)
        assert caught.value.errno == errno.EIO
        assert view.find(part[0], part[1]) == [(part[0], part[1], None, 0, 0)]
    failing[0] = False
    assert readable(view) == 0
    assert "cannot be read" in reader.problems()[0][1]


def test_a_segment_that_cannot_be_opened_now_is_tried_again(tmp_path):
    record(writer := attached(tmp_path), (0, 100))
    writer.close()
    failing = [True]
    storage = FaultyStorage(lambda name, number: error(errno.EMFILE) if failing[0] and name == "open" else None)
    reader = attached(tmp_path, storage)
    assert reader.view(VERSION).covered() == 0
    assert "cannot be opened" in reader.problems()[0][1]
    failing[0] = False
    assert reader.refresh()
    assert readable(reader.view(VERSION)) == 100


def test_a_segment_that_cannot_be_opened_again_just_now_is_found_again(tmp_path):
    """Though its directory is as it was: what had no descriptor is no segment that was removed."""
    record(writer := attached(tmp_path), (0, 100))
    writer.close()
    os.utime(tmp_path, (1e9, 1e9))
    failing = [False]
    storage = FaultyStorage(lambda name, number: error(errno.EMFILE) if failing[0] and name == "open" else None)
    reader = attached(tmp_path, storage)
    assert [reader.refresh() for _ in range(3)] == [False] * 3
    view = reader.view(VERSION)
    part = view.find(0, 100)[0]
    part[2].source.rest()
    failing[0] = True
    with pytest.raises(LostSegment):
        view.read(part)
    failing[0] = False
    assert reader.refresh()
    assert readable(view) == 100


def test_locks_that_do_not_work_do_not_matter(tmp_path):
    for number in (errno.ENOSYS, errno.ENOLCK, errno.EIO, errno.ESTALE, errno.EBADF, errno.EAGAIN):
        storage = FaultyStorage(lambda name, at, number=number: error(number) if name == "lock" else None)
        writer = attached(tmp_path / str(number), storage)
        record(writer, (0, 100))
        writer.close()
        check(tmp_path / str(number), [(0, 100)])
