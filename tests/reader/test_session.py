"""What a whole process does by itself with the journals that it used."""

import threading

import fsspec

from jcache.journal import Journal, JournalError

CODE = """
import sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1])
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    sys.stdout.write(fs.cat_file(path, i * 1000, i * 1000 + 500).hex())
"""


def test_a_journal_of_many_segments_is_compacted_by_who_closes_it(run_python, http_origin, cache_dir) -> None:
    data = bytes(range(251)) * 100
    url = http_origin.url("a")
    http_origin.put("a", data)
    for i in range(8):
        ran = run_python(CODE, url, str(i), str(i + 1))
        assert bytes.fromhex(ran.stdout) == data[i * 1000 : i * 1000 + 500]
    assert len(list(cache_dir.rglob("*.seg"))) == 1
    before = http_origin.body_bytes
    ran = run_python(CODE, url, "0", "8")
    assert bytes.fromhex(ran.stdout) == b"".join(data[i * 1000 : i * 1000 + 500] for i in range(8))
    assert http_origin.body_bytes == before
    assert ran.report["read"]["hit_bytes"] == 8 * 500


FORKS = """
import os, signal, sys, time, fsspec
from jcache.session import current
fs = fsspec.filesystem("http")
assert len(fs.cat_file(sys.argv[1])) == 1000
session = current()
keeper, = session.caches.keepers.values()
# As a thread that waits for an event holds its lock, now and then, just as another one forks.
with session._watch._over._cond, keeper._closing._cond, keeper._wake._cond:
    pid = os.fork()
if not pid:
    os._exit(current() is not session)
until_s = time.monotonic() + 10
while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
    if time.monotonic() > until_s:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.01)
print(ended[1])
"""


def test_a_child_that_is_forked_while_threads_hold_locks_begins(run_python, http_origin) -> None:
    http_origin.put("a", bytes(1000))
    assert run_python(FORKS, http_origin.url("a"), timeout_s=60).stdout == "0\n"


def test_no_terminal_obeys_what_there_is_to_say(active, capsys) -> None:
    active().trouble("a\x1b[2Jb\nc")
    assert capsys.readouterr().err == "jcache: a\\x1b[2Jb\\nc\n"


def test_what_cannot_be_recorded_at_the_end_is_told_too(active, http_origin, monkeypatch, capsys) -> None:
    session = active()
    ends = threading.Event()

    def append(*_: object) -> int:
        ends.wait(20)
        msg = "the disk is full"
        raise JournalError(msg)

    monkeypatch.setattr(Journal, "append", append)
    http_origin.put("a", bytes(1_000_000))
    assert fsspec.filesystem("http").cat_file(http_origin.url("a"), 0, 500_000) == bytes(500_000)
    threading.Timer(0.2, ends.set).start()
    session.close()
    told = capsys.readouterr().err
    assert told.startswith("jcache: the disk is full; "), (told, session.counters.snapshot(), http_origin.requests)
