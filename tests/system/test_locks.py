"""Locks between real processes, and every way in which a file system can fail to have them."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from jcache.system import locks
from jcache.system.locks import Attempt, FileLock, Holder, Outcome, RangeLock
from jcache.system.storage import Storage

ofd = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has OFD locks")
REFUSALS = [
    *(errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ESTALE, errno.EBADF, errno.EINVAL),
    *(errno.ENOTCONN, errno.EINTR, errno.EPERM, None),
]


class Refusing(Storage):
    """A file system whose locks answer with one error."""

    def __init__(self, number):
        self.number = number
        self.asked = 0

    def _refuse(self):
        self.asked += 1
        if self.number is None:
            raise OSError("portalocker could not say more")
        raise OSError(self.number, os.strerror(self.number))

    def lock(self, fd, *, shared=False):
        self._refuse()

    def unlock(self, fd):
        self._refuse()

    def fcntl(self, fd, command, argument):
        self._refuse()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    return str(tmp_path / "f")


@contextmanager
def opened(path, flags=os.O_RDWR):
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def another(path, take):
    """Run a process that takes a lock with `take`, an expression over `fd`, and holds it until it is told to end."""
    code = (
        "import os, sys; from jcache.system import locks;"
        f"fd = os.open({path!r}, os.O_RDWR); taken = {take};"
        "print(bool(taken), flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"True\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def test_a_file_is_locked_by_one_process_until_it_dies(path):
    with another(path, "locks.hold(fd)") as holder, opened(path) as fd:
        assert locks.is_held(path) is Holder.HELD
        assert FileLock(fd).try_lock() == Attempt(Outcome.HELD, errno.EAGAIN)
        assert not locks.hold(fd)
        holder.kill()
        holder.wait()
        assert locks.is_held(path) is Holder.FREE
        assert FileLock(fd).lock(5)


def test_a_stopped_holder_delays_by_no_more_than_the_limit(path):
    with another(path, "locks.hold(fd)") as holder, opened(path) as fd:
        holder.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        assert FileLock(fd).lock(0.2).outcome is Outcome.HELD
        assert 0.2 <= time.monotonic() - started_s < 5  # the holder would stay for ever


@ofd
def test_a_stopped_holder_of_a_range_delays_by_no_more_than_the_limit(path):
    with another(path, "locks.RangeLock(fd).try_lock([(0, 10)])") as holder, opened(path) as fd:
        holder.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        claim = RangeLock(fd).lock([(5, 15), (20, 30)], 0.2)
        assert 0.2 <= time.monotonic() - started_s < 5  # the holder would stay for ever
        assert (claim.taken, claim.held, claim.outcome) == (((20, 30),), ((5, 15),), Outcome.HELD)


def test_waiting_ends_when_the_holder_does(path):
    with another(path, "locks.hold(fd)") as holder, opened(path) as fd:
        holder.kill()
        assert FileLock(fd).lock(30)


def test_asking_whether_a_file_is_held_leaves_it_as_it_was(path):
    with opened(path) as fd, opened(path, os.O_RDONLY) as asking:
        assert locks.is_held(path) is Holder.FREE
        assert locks.is_held(asking) is Holder.FREE
        assert locks.hold(fd)
        assert [locks.is_held(asking), locks.is_held(path)] == [Holder.HELD] * 2
        assert locks.is_held(path) is Holder.HELD, "asking did not release it"
    assert locks.is_held(path) is Holder.FREE


def test_a_writer_outlasts_those_who_ask(path):
    """Whoever asks holds the file for a moment; a writer that begins in that moment is not left without its lock."""

    class Asked(Storage):
        def __init__(self):
            self.attempts = 0

        def lock(self, fd, *, shared=False):
            self.attempts += 1
            if self.attempts < 3:
                raise BlockingIOError(errno.EAGAIN, "somebody asks")

    storage = Asked()
    assert locks.hold(0, storage=storage)
    assert storage.attempts == 3


def test_what_cannot_be_opened_is_unknown(tmp_path):
    assert locks.is_held(str(tmp_path / "missing")) is Holder.UNKNOWN


@pytest.mark.parametrize("number", REFUSALS)
def test_a_file_system_without_locks_is_no_error_and_no_reason_to_wait(path, number):
    storage = Refusing(number)
    with opened(path) as fd:
        started_s = time.monotonic()
        assert FileLock(fd, storage=storage).lock(60) == Attempt(Outcome.UNSUPPORTED, number)
        assert storage.asked == 1
        FileLock(fd, storage=storage).unlock()
        assert not locks.hold(fd, storage=storage)
        assert locks.is_held(fd, storage=storage) is Holder.UNKNOWN
        ranges = RangeLock(fd, storage=storage)
        claim = ranges.lock([(0, 1)], 60)
        assert claim.outcome is Outcome.UNSUPPORTED
        assert not claim
        assert not claim.taken
        assert ranges.conflict(0, 1) is Outcome.UNSUPPORTED
        ranges.unlock([(0, 1)])
        assert time.monotonic() - started_s < 10


def test_a_closed_descriptor_is_no_error(path):
    fd = os.open(path, os.O_RDWR)
    os.close(fd)
    assert FileLock(fd).try_lock().outcome is Outcome.UNSUPPORTED
    assert RangeLock(fd).try_lock([(0, 1)]).outcome is Outcome.UNSUPPORTED
    assert locks.is_held(fd) is Holder.UNKNOWN


@ofd
def test_ranges_exclude_where_they_overlap_and_only_there(path):
    with another(path, "locks.RangeLock(fd).try_lock([(10, 20), (1 << 40, 1 << 41)])"), opened(path) as fd:
        mine = RangeLock(fd)
        claim = mine.try_lock([(0, 10), (19, 21), (20, 30), (5, 5), (1 << 41, (1 << 41) + 1)])
        assert claim.taken == ((0, 10), (20, 30), (1 << 41, (1 << 41) + 1))
        assert claim.held == ((19, 21),)
        assert mine.conflict(0, 100) == (10, 20)
        assert mine.conflict(20, 30) is Outcome.TAKEN
        with opened(path) as other_fd:
            assert RangeLock(other_fd).conflict(0, 5) == (0, 10), "another open file of this process is excluded too"
            mine.unlock([(0, 10)])
            assert RangeLock(other_fd).try_lock([(0, 10)])


@ofd
def test_closing_another_descriptor_of_the_file_keeps_the_ranges(path):
    with opened(path) as fd, opened(path) as asking:
        assert RangeLock(fd).try_lock([(0, 10)])
        os.close(os.open(path, os.O_RDWR))
        assert RangeLock(asking).conflict(0, 10) == (0, 10)


@ofd
def test_a_failure_midway_releases_what_was_taken(path):
    class FailsLater(Storage):
        calls = 0

        def fcntl(self, fd, command, argument):
            FailsLater.calls += 1
            if FailsLater.calls == 3:
                raise OSError(errno.ENOLCK, "table full")
            return super().fcntl(fd, command, argument)

    with opened(path) as fd, opened(path) as asking:
        claim = RangeLock(fd, storage=FailsLater()).try_lock([(0, 1), (2, 3), (4, 5)])
        assert (claim.outcome, claim.errno, claim.taken) == (Outcome.UNSUPPORTED, errno.ENOLCK, ())
        assert RangeLock(asking).conflict(0, 100) is Outcome.TAKEN


@ofd
def test_ranges_that_no_file_can_have_are_refused(path):
    with opened(path) as fd:
        for start, stop in [(-1, 5), (0, 1 << 63), (1 << 64, 1 << 65)]:
            assert RangeLock(fd).try_lock([(start, stop)]).outcome is Outcome.UNSUPPORTED
            assert RangeLock(fd).conflict(start, stop) is Outcome.UNSUPPORTED


def test_a_forked_child_releases_nothing_of_its_parent(path):
    with opened(path) as fd:
        whole, ranges = FileLock(fd), RangeLock(fd)
        assert whole.try_lock()
        has_ranges = bool(ranges.try_lock([(0, 10)]))
        pid = os.fork()
        if pid == 0:
            whole.unlock()
            ranges.unlock([(0, 10)])
            os._exit(ranges.try_lock([(0, 10)]).outcome is not Outcome.UNSUPPORTED)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child has no ranges of its own here"
        assert locks.is_held(path) is Holder.HELD
        if has_ranges:
            with opened(path) as asking:
                assert RangeLock(asking).conflict(0, 10) == (0, 10)
        whole.unlock()
        assert locks.is_held(path) is Holder.FREE


def test_pauses_grow_and_end_at_the_limit():
    taken = [0.0]

    def slept(pause_s):
        taken.append(pause_s)
        return pause_s

    assert sum(map(slept, locks.pauses(1.0, clock=lambda: sum(taken)))) == pytest.approx(1.0)
    del taken[0]
    assert sum(taken) == pytest.approx(1.0)
    assert taken[0] == 0.002
    assert max(taken) == 0.1
    assert all(a <= b for a, b in itertools.pairwise(taken[:-1]))
    assert list(locks.pauses(0.0)) == []


def test_locks_cost_no_import_until_one_is_taken():
    code = "import sys, jcache.system.locks; print('portalocker' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
