"""Containers that share a host's name and a cache directory, with PID namespaces of their own and no file locks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
from places import SUPPORT

from jcache.activate.job import VARIABLE, Job
from jcache.cache import usage
from jcache.cache.books import Head, is_book, is_over, read_head
from jcache.journal.presence import writer_exists
from jcache.report.running import Watch
from jcache.system.processes import here
from jcache.system.storage import Storage

# As a directory mounted by several kernels that have no locks: Lustre without flock.
NO_LOCKS = f"""
import errno, sys
sys.path.insert(0, {str(SUPPORT)!r})
from jcache.system.storage import Storage

def refuse(*args, **options):
    raise OSError(errno.ENOSYS, "no locks")

Storage.lock = Storage.unlock = refuse
"""


def contained(code: str, *args: str, number: int = 0) -> subprocess.Popen:
    """Start a script in a PID namespace of its own, where its number is `number` and a few more."""
    burn = f'for i in $(seq {number}); do /bin/true; done; "$0" -c "$@"; true'
    return subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", burn, sys.executable, NO_LOCKS + code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def _needs_namespaces():
    tried = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("a PID namespace cannot be made here")


def test_a_living_process_of_another_namespace_counts(tmp_path, monkeypatch):
    writes = """
import os
from jcache.activate.job import VARIABLE, Job
from jcache.cache import usage
from jcache.cache.books import Book, Head
from jcache.journal import Journal, Version

book = Book(Storage(), usage.directory_of(sys.argv[1]))
os.makedirs(usage.directory_of(sys.argv[1]))
book.claim(Head(ahead_bytes=77))
journal = Journal(Storage(), sys.argv[1] + "/f", "https://h/f")
journal.append(Version(1000, etag='"1"'), {}, [(0, b"x" * 1000)])
print(os.getpid(), flush=True)
sys.stdin.readline()
"""
    looks = """
import os
from jcache.activate.job import VARIABLE, Job
from jcache.cache import usage
from jcache.cache.books import is_book, is_over
from jcache.journal.liveness import may_live

books = usage.directory_of(sys.argv[1])
print([is_over(Storage(), os.path.join(books, name)) for name in os.listdir(books) if is_book(name)])
(name,) = [name for name in os.listdir(sys.argv[1] + "/f") if name.endswith(".seg")]
fd = os.open(os.path.join(sys.argv[1], "f", name), os.O_RDONLY)
print(may_live(Storage(), fd, name, os.fstat(fd).st_mtime_ns))
"""
    writer = contained(writes, os.fspath(tmp_path), number=60)
    assert int(writer.stdout.readline()) > 60
    other = contained(looks, os.fspath(tmp_path))
    assert other.communicate()[0].splitlines() == ["[False]", "True"]
    storage = Storage()
    (name,) = [name for name in os.listdir(tmp_path / ".usage") if is_book(name)]
    path = os.path.join(tmp_path, ".usage", name)
    assert read_head(storage, path) == Head(ahead_bytes=77)
    monkeypatch.setattr(Storage, "lock", lambda *_, **__: (_ for _ in ()).throw(OSError(38, "no locks")))
    assert not is_over(storage, path), "nor here, where its number is nobody's"
    writer.communicate("")
    assert not is_over(storage, path), "it may live: nobody can tell but by its silence"
    os.utime(path, (time.time() - 100_000,) * 2)
    assert is_over(storage, path)


def test_the_limit_holds(tmp_path):
    """Three containers read far more than fits, all at once; at no time is there more than may be."""
    limit, size = 12_000_000, 3_000_000
    cache = tmp_path / "cache"
    code = "import size_job; size_job.main(*sys.argv[1:])"
    running = [
        contained(
            *(code, os.fspath(cache), str(limit), json.dumps([*range(10 * i, 10 * i + 10)]), str(size), "[]", "0"),
            number=20 * i,
        )
        for i in range(1, 4)
    ]
    most = 0
    while any(process.poll() is None for process in running):
        with contextlib.suppress(OSError):  # one was removed just now
            most = max(most, sum(path.stat().st_size for path in cache.rglob("@*.seg")))
        time.sleep(0.02)
    answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    recorded = sum(answer["recorded"] for answer in answers)
    print(f"at most {most / limit:.3f} of the limit, {recorded / limit:.1f} x recorded")
    assert all(answer["checked"] == 10 * size for answer in answers)
    assert most <= limit
    assert recorded > 1.5 * limit, "nothing had to go"
    total = usage.total_bytes(Storage(), os.fspath(cache))
    assert total is not None
    assert total <= limit


def test_a_process_of_another_namespace_is_of_another_job_and_not_known_by_its_number(tmp_path):
    """The number of a job's root is, in there, that of something else, which lives."""
    environ = {}
    job = Job.begin(environ)
    variable = environ[VARIABLE].replace(f" {os.getpid()} ", " 1 ", 1)
    code = f"""
import os, time
from jcache.activate.job import Job
from jcache.activate.reports import make_own
from jcache.settings.config import Config
from jcache.counters import Counters
from types import SimpleNamespace
joined = Job.join({{"{VARIABLE}": {variable!r}}})
counters = Counters()
counters.read(100, 100, 0, 0)
session = SimpleNamespace(config=Config(), counters=counters)
make_own(session, joined, times_before=(0.0, 0.0), interval_s=5.0).save(sys.argv[1])
print(joined.run, joined.is_root, flush=True)
sys.stdin.readline()
"""
    inside = contained(code, os.fspath(tmp_path))
    run, is_root = inside.stdout.readline().split()
    assert run != job.run
    assert is_root == "True"
    (shown,) = Watch(os.fspath(tmp_path)).look()
    assert shown.states == {"running": 1}, "whatever has its number out here, or nothing"
    inside.communicate("")


def test_a_name_says_where_its_number_means_something():
    assert writer_exists(f"@{here()}.{os.getpid()}.0123456789abcdef.seg") is True
    assert writer_exists(f"@{here()}.4999999.0123456789abcdef.seg") is False
    assert writer_exists(f"@{os.uname().nodename}.4999999.0123456789abcdef.seg") is None, "of an earlier release"
    inside = contained("from jcache.system.processes import here; print(here())").communicate()[0].strip()
    assert inside.partition("__")[0] == here().partition("__")[0] == os.uname().nodename[:50]
    assert inside != here()
    assert writer_exists(f"@{inside}.4999999.0123456789abcdef.seg") is None
