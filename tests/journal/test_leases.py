"""Leases: exclusive between processes, all or nothing, released with their process, and never in the way."""

import errno
import itertools
import os
import random
import signal

import pytest
from faults import FaultyStorage, error
from journals import VERSION, attached, journal, readable
from programs import answer, start, tell

from jcache.journal import Contended, Lease
from jcache.journal.leases import LEASE_FILE, join_closest
from jcache.ranges import normalise, subtract

HOLDER = """
    target = attached(directory)
    target.announce()
    leases = []
    print("ready", flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "lease":
            numbers = iter(map(int, numbers))
            leases.append(target.lease(list(zip(numbers, numbers))))
            print(type(leases[-1]).__name__, getattr(leases[-1], "ranges", None), flush=True)
        elif command == "record":
            print(record(target, tuple(map(int, numbers))), flush=True)
        else:
            leases[int(numbers[0])].release()
            print("released", flush=True)
"""


def ask(process, line: str) -> str:
    tell(process, line)
    return answer(process)


@pytest.fixture
def holder(tmp_path):
    process = start(HOLDER, tmp_path)
    assert answer(process) == "ready"
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


def test_a_lease_excludes_other_processes_until_it_is_released(tmp_path, holder):
    assert ask(holder, "lease 100 200").startswith("Lease")
    target = attached(tmp_path)
    for ranges in ([(150, 160)], [(0, 101)], [(199, 300)], [(0, 10), (120, 130)]):
        refused = target.lease(ranges)
        assert isinstance(refused, Contended)
        assert not refused.is_over()
    beside = target.lease([(0, 100), (200, 300)])
    assert isinstance(beside, Lease)
    assert ask(holder, "lease 0 1").startswith("Contended"), "what was refused released nothing of ours"
    ask(holder, "release 0")
    assert refused.is_over()
    lease = target.lease([(120, 130)])
    assert isinstance(lease, Lease)
    assert ask(holder, "lease 120 121").startswith("Contended")
    lease.release()
    lease.release()
    assert ask(holder, "lease 120 121").startswith("Lease")


def test_all_or_nothing(tmp_path, holder):
    ask(holder, "lease 500 600")
    target = attached(tmp_path)
    assert isinstance(target.lease([(0, 100), (200, 300), (550, 560)]), Contended)
    assert ask(holder, "lease 0 100 200 300").startswith("Lease"), "what was taken first is free again"


def test_leases_die_with_their_process(tmp_path, holder):
    ask(holder, "lease 0 1000")
    target = attached(tmp_path)
    assert isinstance(target.lease([(0, 10)]), Contended)
    holder.kill()
    holder.wait()
    assert isinstance(target.lease([(0, 10)]), Lease)


def test_who_gave_up_once_is_not_held_up_again(tmp_path, holder):
    ask(holder, "lease 0 1000")
    os.kill(holder.pid, signal.SIGSTOP)
    target = attached(tmp_path)
    assert target.others_live()
    refused = target.lease([(0, 10)])
    assert isinstance(refused, Contended)
    assert not refused.is_over()
    refused.give_up()
    empty = target.lease([(0, 10)])
    assert isinstance(empty, Lease)
    assert not empty.ranges
    empty.release()
    assert target.lease([(2000, 2010)]).ranges, "free ranges are still leased"


def test_what_a_holder_published_is_there_when_it_releases(tmp_path, holder):
    ask(holder, "lease 1000 3000")
    target = attached(tmp_path)
    refused = target.lease([(1000, 3000)])
    ask(holder, "record 1000 3000")
    assert not refused.is_over()
    ask(holder, "release 0")
    assert refused.is_over()
    assert target.refresh()
    assert readable(target.view(VERSION), 1000, 3000) == 2000


def test_leases_of_one_process_do_not_release_one_anothers_bytes(tmp_path, holder):
    target = attached(tmp_path)
    first, second = target.lease([(0, 100), (200, 300)]), target.lease([(50, 250)])
    assert isinstance(first, Lease)
    assert isinstance(second, Lease), "a process does not exclude itself"
    first.release()
    assert ask(holder, "lease 0 50 250 300").startswith("Lease")
    assert ask(holder, "lease 50 51").startswith("Contended")
    assert ask(holder, "lease 249 250").startswith("Contended")
    second.release()
    assert ask(holder, "lease 50 250").startswith("Lease")


def test_a_forked_child_neither_keeps_nor_releases_its_parents_leases(tmp_path, holder):
    target = attached(tmp_path)
    lease = target.lease([(0, 100)])
    before = len(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            lease.release()
            assert not target.lease([(200, 300)]).ranges
            target.forget()
            assert len(os.listdir("/proc/self/fd")) < before
            lease.release()
            status = 0 if isinstance(target.lease([(50, 60)]), Contended) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert ask(holder, "lease 0 1").startswith("Contended"), "the parent still has it"
    lease.release()
    assert ask(holder, "lease 0 1").startswith("Lease")


def test_the_cost_in_operations(tmp_path):
    storage = FaultyStorage()
    target = journal(tmp_path, storage)
    first = target.lease([(0, 10)])
    assert storage.calls == ["open", "fcntl"], "nothing before the first lease is wanted"
    first.release()
    storage.calls.clear()
    target.lease([(i * 1000, i * 1000 + 10) for i in range(20)]).release()
    assert storage.calls == ["fcntl"] * 21, "one for each range, and one to release them"
    storage.calls.clear()
    target.lease([(i * 1000, i * 1000 + 10) for i in range(5000)]).release()
    assert storage.calls == ["fcntl"] * 33
    storage.calls.clear()
    target.lease([]).release()
    target.lease([(5, 5)]).release()
    assert storage.calls == []
    assert (tmp_path / LEASE_FILE).stat().st_size == 0
    assert (tmp_path / LEASE_FILE).stat().st_mode & 0o777 == 0o600


def test_joining_covers_and_fills_the_narrowest_holes():
    rng = random.Random(5)
    for _ in range(300):
        run = normalise((a := rng.randrange(10_000), a + rng.randrange(1, 40)) for _ in range(rng.randrange(1, 60)))
        most = rng.randrange(1, 20)
        joined = join_closest(run, most)
        assert len(joined) == min(most, len(run))
        assert not subtract(run, joined)
        filled = [b - a for a, b in subtract(joined, run)]
        left = [b[0] - a[1] for a, b in itertools.pairwise(joined)]
        assert not filled or not left or max(filled) <= min(left)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EIO, errno.ESTALE, errno.EBADF, errno.EINVAL])
@pytest.mark.parametrize("which", ["open", "fcntl"])
def test_where_there_are_no_locks_there_is_nothing_to_wait_for(tmp_path, number, which):
    storage = FaultyStorage(lambda name, at: error(number) if name == which else None)
    target = journal(tmp_path, storage)
    lease = target.lease([(0, 10), (20, 30)])
    assert isinstance(lease, Lease)
    assert not lease.ranges
    lease.release()
    calls = len(storage.calls)
    assert not target.lease([(0, 10)]).ranges
    assert len(storage.calls) == calls, "it is asked for once only"
    target.close()
    assert not storage.open_fds


def test_a_lock_that_fails_late_leaves_nothing_locked(tmp_path, holder):
    failing = iter([None, None, error(errno.EIO)])
    storage = FaultyStorage(lambda name, at: next(failing, None) if name == "fcntl" else None)
    target = journal(tmp_path, storage)
    assert not target.lease([(0, 10), (20, 30), (40, 50)]).ranges
    assert ask(holder, "lease 0 50").startswith("Lease")


def test_closing_the_journal_ends_its_leases(tmp_path, holder):
    storage = FaultyStorage()
    target = journal(tmp_path, storage)
    lease = target.lease([(0, 10)])
    target.close()
    assert ask(holder, "lease 0 50").startswith("Lease")
    assert not storage.open_fds
    lease.release()
    assert not target.lease([(0, 10)]).ranges


def test_processes_that_start_together_fetch_each_byte_once(tmp_path):
    """What `jcache.journal.leases` tells a reader to do, done by four processes that read the same at the same time."""
    program = """
        import time
        from jcache.journal import Contended
        from jcache.journal.leases import LEASE_LIMIT_S
        from jcache.system.locks import pauses
        target = attached(directory)
        target.announce()
        view, fetched, waits = target.view(VERSION), 0, 0
        def missing(wanted):
            return [part[:2] for a, b in wanted for part in view.find(a, b) if part[2] is None]
        print("ready", flush=True)
        input()
        for first in range(0, 1_000_000, 20_000):
            wanted = [(first + 1000 * i, first + 1000 * i + 500) for i in range(20)]
            while gaps := missing(wanted):
                lease = target.lease(gaps) if target.others_live() else None
                if isinstance(lease, Contended):
                    waits += 1
                    for pause_s in pauses(LEASE_LIMIT_S):
                        time.sleep(pause_s)
                        if lease.is_over():
                            break
                    else:
                        lease.give_up()
                    lease = None
                    target.refresh()
                    continue
                if target.refresh() and missing(wanted) != gaps:
                    if lease is not None:
                        lease.release()
                    continue
                time.sleep(0.003)  # the way to the origin
                fetched += sum(b - a for a, b in gaps)
                record(target, *gaps)
                if lease is not None:
                    lease.release()
        assert readable(view, 0, 1_000_000) == 500_000
        print(fetched, waits, flush=True)
        target.close()
    """
    processes = [start(program, tmp_path, seed) for seed in range(4)]
    for process in processes:
        assert answer(process) == "ready"
    for process in processes:
        tell(process)
    told = [answer(process).split() for process in processes]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert sum(int(waits) for _, waits in told) > 0, "they met"
    # Only who came first did not see the others, and fetched one vector of 10,000 bytes without a lease.
    assert 500_000 <= sum(int(fetched) for fetched, _ in told) <= 510_000
