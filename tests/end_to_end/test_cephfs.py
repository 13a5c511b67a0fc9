"""One journal seen through two clients of a real CephFS, as by two nodes. Run by `make test-cephfs`: it takes long.

The origin is a real nginx; what it sent is counted there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import cephfs
import pytest
from analysis import OLD_S
from patterns import SEED_BYTES, SEED_FILE_BYTES, seed_pattern, total, write_sparse
from sharing import Crew, digests_of, once

WHY_NOT = "set JCACHE_TEST_CEPHFS=1 for it" if not os.environ.get("JCACHE_TEST_CEPHFS") else cephfs.unavailable()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

EACH = 4
VECTORS = seed_pattern()


@pytest.fixture(scope="module")
def ceph(tmp_path_factory):
    with cephfs.CephFS(tmp_path_factory.mktemp("cephfs")) as ceph:
        yield ceph


@pytest.fixture
def caches(ceph, request):
    """The same cache directory, as the one client and as the other has it."""
    return [client.path / request.node.name.partition("[")[0] for client in ceph.clients]


@pytest.fixture
def seed_file(nginx_server):
    path = nginx_server.directory / "seed.bin"
    write_sparse(path, SEED_FILE_BYTES, VECTORS, seed=1)
    os.utime(path, (OLD_S, OLD_S))
    return nginx_server.url(path.name), digests_of(path, VECTORS)


def both_agree(work, seed_file, caches, nginx_server):
    """A process on each client reads all; then again, and then every byte is in the journal."""
    url, expected = seed_file
    for again in (False, True):
        for cache in caches:
            nginx_server.reset()
            with Crew(work, url, VECTORS, [cache]) as crew:
                crew.go()
                (result,) = crew.results()
            assert result.digests == expected
            assert not again or (result.miss, nginx_server.body_bytes()) == (0, 0)


@pytest.mark.parametrize("orders", ["one order", "eight orders"])
def test_four_processes_on_each_of_two_clients_start_cold_together(caches, seed_file, nginx_server, tmp_path, orders):
    url, expected = seed_file
    caches = [cache.with_name(cache.name + orders[:3]) for cache in caches]
    seeds = [0] * 2 * EACH if orders == "one order" else list(range(1, 2 * EACH + 1))
    with Crew(tmp_path, url, VECTORS, caches * EACH, seeds=seeds) as crew:
        nginx_server.reset()
        began_s = time.monotonic()
        crew.go()
        results = crew.results()
    sent = nginx_server.body_bytes()
    print(f"2 x {EACH} processes, {time.monotonic() - began_s:.1f} s: {sent / SEED_BYTES:.4f} x the distinct bytes")
    for result in results:
        assert result.digests == expected
        assert "jcache: " not in result.stderr
    assert sent <= 1.05 * SEED_BYTES
    both_agree(tmp_path, seed_file, caches, nginx_server)


def test_the_processes_of_one_client_killed_in_the_middle(caches, seed_file, nginx_server, tmp_path):
    url, expected = seed_file
    with Crew(tmp_path, url, VECTORS, [caches[0]] * EACH + [caches[1]] * EACH) as crew:
        staying, doomed = crew.processes[:EACH], crew.processes[EACH:]
        began_s = time.monotonic()
        crew.go()
        crew.after(doomed[0], 5)
        for process in doomed:
            process.kill()
            process.wait()
        results = [crew.end(process) for process in staying]
    print(f"{time.monotonic() - began_s:.1f} s")
    assert [result.digests for result in results] == [expected] * EACH
    both_agree(tmp_path, seed_file, caches, nginx_server)


def test_one_client_killed_in_the_middle(ceph, caches, seed_file, nginx_server, tmp_path):
    """Its processes read on from the origin, those of the other as if nothing had happened, or from the origin too."""
    url, expected = seed_file
    env = {"JCACHE_TIMEOUT": "3"}
    with Crew(tmp_path, url, VECTORS, [caches[0]] * EACH + [caches[1]] * EACH, env=env) as crew:
        began_s = time.monotonic()
        crew.go()
        crew.after(crew.processes[-1], 5)
        ceph.clients[1].kill()
        results = crew.results()
    took_s = time.monotonic() - began_s
    print(f"{took_s:.1f} s")
    assert [result.digests for result in results] == [expected] * 2 * EACH
    for result in results:
        assert result.stderr.count("jcache: ") <= 1, result.stderr
    # For what the dead client had in hand the servers make the other one wait until they give it up, 30 s here.
    assert took_s < 30 + 15
    ceph.clients[1].mount()
    both_agree(tmp_path, seed_file, caches, nginx_server)


def has_ended(pid):
    """Whether a process's main thread has, as the kernel's flag PF_EXITING says."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state == "Z" or bool(int(fields[5]) & 4)


def recorded(cache):
    return sum(path.stat().st_size for path in cache.rglob("@*.seg"))


@pytest.mark.parametrize("moment", ["before the first read", "between reads", "after the last read"])
def test_a_client_that_is_stopped_costs_the_limit_once(ceph, caches, seed_file, nginx_server, tmp_path, moment):
    """The interpreter has then ended; what is left waits in the kernel, which tells a FUSE client of each closed file.

    Nothing in user space, SIGKILL included, spares a process that wait, so its parent is told of its end only then.
    """
    url, expected = seed_file
    client, limit_s = ceph.clients[0], 2.0
    half_bytes = total(VECTORS[: len(VECTORS) // 2])
    cache = caches[0].with_name(moment.replace(" ", "-"))
    with Crew(tmp_path, url, VECTORS, [cache], env={"JCACHE_TIMEOUT": str(limit_s)}, rounds=[0.5, 1]) as crew:
        (process,) = crew.processes
        try:
            if moment == "before the first read":
                client.stop()
            began_s = time.monotonic()
            crew.go()
            crew.after(process, len(VECTORS) // 2)
            if moment != "before the first read":
                once(lambda: recorded(cache) >= half_bytes)
            if moment == "between reads":
                client.stop()
            crew.go()
            crew.after(process, len(VECTORS))
            if moment == "after the last read":
                client.stop()
            once(lambda: has_ended(process.pid), 20)
        finally:
            took_s = time.monotonic() - began_s
            client.go_on()
        result = crew.end(process)
    print(f"stopped {moment}: {took_s:.1f} s")
    assert result.digests == expected
    assert took_s < limit_s + 4
    lines = [line for line in result.stderr.splitlines() if line.startswith("jcache: ")]
    # Stopped just then, it may have had the time to take what was left.
    assert len(lines) == 1 or (moment == "after the last read" and not lines), result.stderr
    once(lambda: os.path.ismount(client.path))
    both_agree(tmp_path, seed_file, [cache, caches[1].with_name(cache.name)], nginx_server)
