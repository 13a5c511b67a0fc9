"""The budget of descriptors: a quarter of the limit over all journals, and a read never fails for want of one."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from journals import REMOTE, VERSION, attached, hits, journal, read, record

from jcache.journal import LostSegment

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(3).randbytes(400_000)

# argv: limit of descriptors, number of files, first byte, URL's beginning. Prints most descriptors below the cache and
# whatever failed. `what` may open files of the application's own.
JOB = """
import os, resource, sys, fsspec

limit, files, first = map(int, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
fs = fsspec.filesystem("http")
cache, most, bad, got = os.environ["JCACHE_DIR"], 0, [], {}

def below():
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith(cache)
        except OSError:
            pass
    return found

for n in [*range(files), *range(files)]:
    try:
        starts = [first, 200_000 + first]
        data = fs.cat_ranges([sys.argv[4] + str(n)] * 2, starts, [start + 900 for start in starts], on_error="raise")
        got[n] = b"".join(data).hex()
        open("/etc/hostname").close()
    except Exception as error:
        bad.append(f"{n}: {error!r}")
    if n % 8 == 0:
        most = max(most, below())
print(most, bad, len(set(got.values())) == 1 and got[0])
"""


def expected(first: int) -> str:
    return (DATA[first : first + 900] + DATA[200_000 + first : 200_900 + first]).hex()


@pytest.fixture
def files(http_origin):
    for n in range(60):
        http_origin.put(f"f{n}", DATA)
    return http_origin.url("f")


LIMIT = 160


@pytest.mark.parametrize("workers", [1, 6])
def test_many_files_and_segments_leave_the_application_descriptors(workers, files, cache_dir, http_origin, tmp_path):
    """Workers of one job, all at once: each sees the others' segments, writes its own, and leases."""
    script = tmp_path / "job.py"
    script.write_text(JOB)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}

    def run(worker: int) -> str:
        ran = subprocess.run(
            [sys.executable, script, str(LIMIT), "60", str(worker * 1000), files],
            env=clean | {"JCACHE_DIR": os.fspath(cache_dir), "JCACHE_SUMMARY": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "jcache: " not in ran.stderr
        return ran.stdout

    for is_warm in (False, True):
        before = http_origin.body_bytes
        with ThreadPoolExecutor(workers) as pool:
            answers = list(pool.map(run, range(workers)))
        for worker, answer in enumerate(answers):
            most, rest = answer.split(" ", 1)
            print(f"{most} descriptors")
            assert rest == f"[] {expected(worker * 1000)}\n"
            assert int(most) <= LIMIT // 4 + 4, "4: a moment's, of threads that are at work"
        assert not is_warm or http_origin.body_bytes == before


@pytest.fixture
def scarce():
    """Lower the limit to what is open, and a few more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))

    def lower(spare: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))

    yield lower
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def fill(directory: Path, segments: int) -> None:
    for n in range(segments):
        target = journal(directory)
        record(target, (1000 * n, 1000 * n + 500))
        target.close()


def is_right(view, segments: int) -> bool:
    return all(
        list(read(view, 1000 * n, 1000 * n + 500)) == [(1000 * n, REMOTE[1000 * n : 1000 * n + 500])]
        for n in range(segments)
    )


def test_where_the_application_has_all_other_descriptors_segments_are_opened_one_at_a_time(tmp_path, scarce):
    fill(tmp_path, 30)
    target = attached(tmp_path)
    view = target.view(VERSION)
    scarce(0)
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/", os.O_RDONLY))
        assert is_right(view, 30)
        other = attached(tmp_path)
        assert is_right(other.view(VERSION), 30), "attaching lists and opens"
        assert record(other, (50_000, 50_100))
    finally:
        for fd in taken:
            os.close(fd)
    assert not target.problems()


def test_a_segment_that_was_closed_and_removed_is_a_miss(tmp_path, scarce):
    fill(tmp_path, 2)
    target = attached(tmp_path)
    view = target.view(VERSION)
    for segment in target._segments.known.values():
        segment.source.rest()
    for path in tmp_path.glob("*.seg"):
        path.unlink()
    (part,) = view.find(1000, 1500)
    with pytest.raises(LostSegment) as caught:
        view.read(part)
    assert caught.value.errno == errno.ENOENT
    assert not hits(view, 1000, 1500)
    assert hits(view, 0, 500), "the other one is not known to be gone yet"
    assert not target.damaged


def test_those_that_write_are_closed_last_and_sealed(tmp_path, scarce):
    before = len(os.listdir("/proc/self/fd"))
    scarce(before + 40)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    journals = [journal(tmp_path / str(n)) for n in range(limit // 4 + 20)]
    for target in journals:
        record(target, (0, 500))
        assert len(os.listdir("/proc/self/fd")) <= before + limit // 4
    written = [target._segments.writer is not None for target in journals]
    assert written[-1]
    assert sum(written) <= limit // 4
    for target in journals:
        record(target, (1000, 1500))
        assert list(read(target.view(VERSION), 0, 1500)) == [(0, REMOTE[:500]), (1000, REMOTE[1000:1500])]
        target.close()


def test_a_descriptor_stays_open_for_whoever_has_it(tmp_path):
    fill(tmp_path, 1)
    (segment,) = attached(tmp_path)._segments.known.values()
    fd = segment.source.fd
    segment.source.rest()
    assert os.fstat(fd).st_size == segment.source.size_bytes
    number = int(fd)
    del fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
