"""The threads that touch the cache directory: what they take, what they refuse, and that nothing ends them."""

import asyncio
import random
import threading

import pytest
from readers import PATIENCE_S

from jcache.journal import JournalError, Version
from jcache.origin import Info
from jcache.recording.recorder import Recorder, Recording
from jcache.recording.workers import CacheHungError, Workers
from jcache.vectors import Extents

INFO = Info(Version(1000, etag='"1"'))
OTHER = Info(Version(1000, etag='"2"'))


class Journal:
    """Stands for a journal: slow, or broken, as told. What it does with bytes is tested with the real one."""

    def __init__(self) -> None:
        self.frames: list[tuple[Version, dict, list]] = []
        self.error: BaseException | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def append(self, version, info, extents) -> int:
        self.entered.set()
        assert self.go.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.frames.append((version, info, list(extents)))
        return 1


class Box:
    def __init__(self, **options) -> None:
        self.journal = Journal()
        self.settled: list = []
        self.failures: list[JournalError] = []
        self.recorded = 0
        options = {"limit_bytes": 100, "pause_s": 0.0, "failed": self.failures.append, **options}
        self.recorder = Recorder(recorded=self.count, **options)

    def count(self, nbytes: int) -> None:
        self.recorded += nbytes

    def recording(self, start: int, size: int = 10, info: Info = INFO, journal: Journal | None = None) -> Recording:
        return Recording(journal or self.journal, info, Extents([start], [bytes(size)]), self.settled.extend)

    def submit(self, *args, timeout_s: float = 0, **kwargs) -> bool:
        return self.recorder.submit(self.recording(*args, **kwargs), timeout_s=timeout_s)


def stop(box: Box) -> None:
    assert box.recorder.close(PATIENCE_S)
    assert box.recorder._waiting_bytes == 0


def test_records_in_order_and_settles_each_recording_behind_its_frame() -> None:
    box = Box()
    for start in range(0, 50, 10):
        assert box.submit(start)
    stop(box)
    assert b"".join(data for _, _, extents in box.journal.frames for _, data in extents) == bytes(50)
    assert box.journal.frames[0][2][0][0] == 0
    assert [start for start, _ in box.settled] == list(range(0, 50, 10))
    assert box.recorded == 50


def test_small_vectors_that_wait_share_a_frame_but_not_with_another_version_or_journal() -> None:
    box, other = Box(), Journal()
    box.journal.go.clear()
    assert box.submit(0)
    assert box.journal.entered.wait(PATIENCE_S)
    assert box.submit(20)
    assert box.submit(40)
    assert box.submit(50, info=OTHER)
    assert box.submit(60, journal=other)
    assert box.submit(70)
    box.journal.go.set()
    stop(box)
    frames = [[start for start, _ in extents] for _, _, extents in box.journal.frames]
    assert frames == [[0], [20, 40], [50], [70]]
    assert [version for version, _, _ in box.journal.frames][2] == OTHER.version
    assert [[start for start, _ in extents] for _, _, extents in other.frames] == [[60]]


def test_recordings_that_wait_together_are_not_refused_for_being_too_much_together() -> None:
    box, asked = Box(frame_bytes=25), []

    def admit(size_bytes: int) -> bool:
        asked.append(size_bytes)
        return True

    box.journal.go.clear()
    for start in (0, 20, 40, 60):
        one = Recording(box.journal, INFO, Extents([start], [bytes(10)]), box.settled.extend, admit=admit)
        assert box.recorder.submit(one, timeout_s=0)
        assert box.journal.entered.wait(PATIENCE_S)
    box.journal.go.set()
    stop(box)
    assert asked == [10, 20, 10]


def test_reads_that_follow_one_another_become_one_extent_and_a_vectors_ranges_do_not() -> None:
    box = Box(limit_bytes=1 << 20)
    box.journal.go.clear()
    assert box.submit(2_000_000)
    assert box.journal.entered.wait(PATIENCE_S)
    remote = random.Random(1).randbytes(1_000_000)
    steps = [(at, at + 8192) for at in range(0, 20 * 8192, 8192)]
    singles = [*steps, (500_000, 500_008), (500_008, 500_010), (500_010, 600_000), (600_000, 600_001), (7, 8)]
    vector = [(600_001, 600_005), (600_005, 600_010)]
    last = [(600_010, 600_020), (600_020, 600_030)]
    for reads in ([span] for span in singles):
        assert submit_of(box, remote, reads)
    assert submit_of(box, remote, vector)
    for reads in ([span] for span in last):
        assert submit_of(box, remote, reads)
    box.journal.go.set()
    stop(box)
    (_, _, extents) = box.journal.frames[1]
    assert [(start, start + len(data)) for start, data in extents] == [
        *((0, 65536), (65536, 131072), (131072, 163840)),
        *((500_000, 500_010), (500_010, 600_000), (600_000, 600_001), (7, 8), *vector, (600_010, 600_030)),
    ]
    assert all(bytes(data) == remote[start : start + len(data)] for start, data in extents)
    assert box.recorded == sum(len(data) for _, data in extents) + 10
    assert [start for start, _ in box.settled][1:] == [start for start, _ in [*singles, *vector, *last]]


def submit_of(box: Box, remote: bytes, spans: list[tuple[int, int]]) -> bool:
    extents = Extents.of((start, memoryview(remote)[start:stop]) for start, stop in spans)
    return box.recorder.submit(Recording(box.journal, INFO, extents, box.settled.extend), timeout_s=0)


def test_a_full_queue_refuses_at_once_or_when_the_wait_is_over_and_takes_when_there_is_room() -> None:
    box = Box()
    box.journal.go.clear()
    assert box.submit(0, 60)
    assert box.journal.entered.wait(PATIENCE_S)
    assert not box.submit(100, 60)
    assert not box.submit(100, 60, timeout_s=0.01)
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(box.submit(100, 60, timeout_s=PATIENCE_S)))
    waiter.start()
    box.journal.go.set()
    waiter.join(PATIENCE_S)
    assert taken == [True]
    stop(box)
    assert box.recorded == 120


def test_what_is_larger_than_the_limit_is_not_taken() -> None:
    box = Box()
    assert not box.submit(0, 101)
    assert box.submit(0, 100)
    stop(box)
    assert box.recorded == 100


def test_takes_nothing_once_closed_and_lets_go_of_who_waits_for_room() -> None:
    box = Box()
    box.journal.go.clear()
    assert box.submit(0, 80)
    assert box.journal.entered.wait(PATIENCE_S)
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(box.submit(100, 80, timeout_s=PATIENCE_S)))
    waiter.start()
    assert not box.recorder.close(0.01), "the journal hangs"
    waiter.join(PATIENCE_S)
    assert taken == [False]
    assert not box.submit(300)
    assert not box.recorder.call(lambda: None)
    box.journal.go.set()
    assert box.recorder.flush(PATIENCE_S)
    assert [start for start, _ in box.settled] == [0]


@pytest.mark.parametrize("error", [JournalError("full", errno=28), ZeroDivisionError("a defect")])
def test_a_failed_write_is_told_and_settled_and_the_next_one_works(error: Exception) -> None:
    box = Box()
    box.journal.error = error
    assert box.submit(0)
    assert box.recorder.flush(PATIENCE_S)
    assert len(box.failures) == 1
    assert [start for start, _ in box.settled] == [0]
    box.journal.error = None
    assert box.submit(10)
    stop(box)
    assert box.recorded == 10


def test_a_directory_that_refused_is_left_alone_for_a_while() -> None:
    box = Box(pause_s=1000.0)
    box.journal.error = JournalError("full", errno=28)
    for start in range(0, 30, 10):
        assert box.submit(start)
        assert box.recorder.flush(PATIENCE_S)
    stop(box)
    assert len(box.failures) == 1
    assert len(box.settled) == 3


def test_a_task_that_fails_does_not_end_the_thread() -> None:
    box = Box()

    def seal() -> None:
        raise JournalError("cannot seal", errno=28)

    assert box.recorder.call(seal)
    assert box.submit(0)
    stop(box)
    assert box.recorded == 10
    assert len(box.failures) == 1


def test_no_callback_that_fails_ends_the_thread() -> None:
    def fail(*args: object) -> None:
        raise ValueError("stderr is closed")

    box = Box(failed=fail)
    box.journal.error = JournalError("full")
    assert box.submit(0)
    assert box.recorder.flush(PATIENCE_S)
    box.journal.error = None
    assert box.recorder.submit(Recording(box.journal, INFO, Extents([50], [b"x"]), fail), timeout_s=0)
    assert box.submit(10)
    stop(box)
    assert box.recorded == 11


def test_a_thread_that_cannot_start_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    box = Box()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert not box.submit(0)
        assert not box.recorder.call(lambda: None)
    assert box.recorder._waiting_bytes == 0
    assert box.submit(10)
    stop(box)
    assert [start for start, _ in box.settled] == [10]


def test_many_threads_submit_and_everything_is_recorded_once() -> None:
    box = Box(limit_bytes=50)

    def submit(first: int) -> None:
        for k in range(50):
            assert box.submit(first + k, 1, timeout_s=PATIENCE_S)

    threads = [threading.Thread(target=submit, args=(n * 50,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    stop(box)
    recorded = [(start, start + len(data)) for _, _, extents in box.journal.frames for start, data in extents]
    assert sorted(at for span in recorded for at in range(*span)) == list(range(400))
    assert sorted(start for start, _ in box.settled) == list(range(400))


# -- the threads that read the cache directory -------------------------------------------------------------------------


def workers(**options) -> tuple[Workers, list[float]]:
    hung: list[float] = []
    return Workers(**{"threads": 4, "limit_s": 0.1, "on_hung": hung.append, **options}), hung


def test_tasks_use_all_the_threads() -> None:
    pool, _ = workers(limit_s=PATIENCE_S)
    together = threading.Barrier(4, timeout=PATIENCE_S)

    async def all_of_them() -> None:
        for _ in range(3):
            await asyncio.gather(*(pool.run(together.wait) for _ in range(4)))

    asyncio.run(all_of_them())


def test_a_long_queue_is_not_a_hung_directory() -> None:
    pool, hung = workers(threads=1, limit_s=0.5)
    step = threading.Event()

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(pool.run(lambda: step.wait(0.1)) for _ in range(10)))

    assert asyncio.run(all_of_them()) == [False] * 10
    assert not hung


@pytest.mark.parametrize("queued", [False, True])
def test_a_directory_that_hangs_is_given_up_once(queued: bool) -> None:
    pool, hung = workers(threads=1)
    go = threading.Event()

    async def both() -> list:
        return await asyncio.gather(*(pool.run(go.wait) for _ in range(1 + queued)), return_exceptions=True)

    assert all(isinstance(result, CacheHungError) for result in asyncio.run(both()))
    assert hung == [0.1]
    with pytest.raises(CacheHungError):
        pool.call(lambda: None)
    go.set()


def test_what_a_task_raises_is_raised_a_timeout_as_well() -> None:
    pool, hung = workers()

    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        pool.call(fail)
    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(pool.run(fail))
    assert not hung
