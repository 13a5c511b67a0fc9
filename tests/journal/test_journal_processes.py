"""Writers and readers in real processes."""

import os
import random
import signal

import pytest
from journals import REMOTE, VERSION, attached, readable, record
from programs import answer, start, tell


def test_two_writers_record_and_find_each_other(tmp_path):
    program = """
        target = attached(directory)
        view = target.view(VERSION)
        print("ready", flush=True)
        input()
        for _ in range(300):
            a = rng.randrange(len(REMOTE) - 5000)
            target.refresh()
            readable(view, a, a + 5000)
            gaps = [part[:2] for part in view.find(a, a + rng.randrange(1, 5000)) if part[2] is None]
            record(target, *gaps)
        assert target.problems() == [], target.problems()
        target.close()
        print("done", target.damaged, flush=True)
    """
    writers = [start(program, tmp_path, seed) for seed in range(2)]
    for writer in writers:
        assert answer(writer) == "ready"
    for writer in writers:
        tell(writer)
    for writer in writers:
        assert answer(writer) == "done 0"
        assert writer.wait() == 0
    segments = list(tmp_path.iterdir())
    assert len(segments) == 2
    reader = attached(tmp_path)
    assert readable(reader.view(VERSION)) == reader.view(VERSION).covered() > 500_000


def test_a_reader_follows_a_writer_in_another_process(tmp_path):
    writer = start(
        """
        target = attached(directory)
        for line in sys.stdin:
            start, stop = map(int, line.split())
            print(record(target, (start, stop)), flush=True)
        target.close()
        print("closed", flush=True)
        """,
        tmp_path,
    )
    reader = attached(tmp_path)
    view = reader.view(VERSION)
    for step in range(50):
        tell(writer, f"{step * 1000} {step * 1000 + 700}")
        answer(writer)
        assert reader.refresh()
        assert readable(view, step * 1000, step * 1000 + 1000) == 700
        assert reader.others_live()
    writer.stdin.close()
    assert answer(writer) == "closed"
    writer.wait()
    reader.refresh()
    assert not reader.others_live()
    assert readable(view) == 35_000
    assert (reader.damaged, reader.problems()) == (0, [])


def test_writers_killed_at_random_moments(tmp_path):
    program = """
        target = attached(directory)
        view = target.view(VERSION)
        print("ready", flush=True)
        while True:
            a = rng.randrange(len(REMOTE) - 60_000)
            record(target, *[p[:2] for p in view.find(a, a + rng.randrange(1, 60_000)) if p[2] is None])
            if rng.random() < 0.05:
                target.seal()
            print(view.covered(), flush=True)
    """
    rng = random.Random(11)
    for round_ in range(12):
        writer = start(program, tmp_path, round_)
        answer(writer)
        last = 0
        for _ in range(rng.randrange(1, 25)):
            last = int(answer(writer))
        writer.kill()
        writer.wait()
        reader = attached(tmp_path)
        view = reader.view(VERSION)
        assert readable(view) >= last, "what was acknowledged survives the process"
        assert reader.damaged == 0
        assert not reader.others_live(), "the dead are known"
        reader.close()


def test_a_live_writer_is_told_from_a_dead_one(tmp_path):
    program = "target = attached(directory); record(target, (0, 10)); print('ready', flush=True); input()"
    writer = start(program, tmp_path)
    answer(writer)
    reader = attached(tmp_path)
    assert reader.others_live()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not reader.others_live()


def test_a_forked_child_writes_its_own_segment(tmp_path):
    parent = attached(tmp_path)
    record(parent, (0, 100))
    view = parent.view(VERSION)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            parent.forget()
            assert view.covered() == 0
            parent.attach()
            assert readable(parent.view(VERSION)) == 100
            record(parent, (200, 300))
            parent.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert readable(view) == 100
    assert parent.refresh()
    assert readable(view) == 200
    record(parent, (100, 200))
    parent.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert readable(attached(tmp_path).view(VERSION)) == 300


def test_a_forked_child_that_was_told_nothing_does_not_touch_its_parents_segment(tmp_path):
    parent = attached(tmp_path)
    record(parent, (0, 100))
    (segment,) = tmp_path.iterdir()
    before = segment.read_bytes()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            record(parent, (200, 300))
            parent.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert segment.read_bytes() == before
    # The child's copy of the descriptor is gone; the lock is still the parent's.
    from jcache.system.storage import Storage

    fd = os.open(segment, os.O_RDWR)
    with pytest.raises(OSError):  # noqa: PT011  # EAGAIN or EACCES, by system
        Storage().lock(fd)
    os.close(fd)
    parent.close()
    assert readable(attached(tmp_path).view(VERSION)) == 200
    assert len(REMOTE) == VERSION.size_bytes
