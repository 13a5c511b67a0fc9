"""Processes that share a journal: they see each other, share what they may, and drop what is no longer true."""

import os
import subprocess
import sys
import threading
import time

import pytest
from faults import FaultyStorage, error
from journals import IDENTITY, VERSION, attached, journal, readable, record
from places import SUPPORT
from programs import answer, start, tell

from jcache.journal import Contended, Journal, JournalError, Sole, Turns, Version
from jcache.system.storage import Storage


def names(directory) -> list[str]:
    return sorted(os.listdir(directory))


def test_an_announced_writer_is_seen_before_it_wrote_anything(tmp_path):
    first, second = attached(tmp_path / "j"), attached(tmp_path / "j")
    first.announce()
    assert [path.stat().st_size for path in (tmp_path / "j").iterdir()] == [0]
    assert not first.others_live()
    second.announce()
    assert second.others_live(), "announcing looks for others"
    assert not first.others_live(), "who was there first sees the other at its next look"
    first.refresh()
    assert first.others_live()
    assert second.versions() == []
    record(first, (0, 10))
    assert second.refresh()
    assert readable(second.view(VERSION)) == 10
    first.close()
    second.refresh()
    assert not second.others_live()
    assert second.problems() == first.problems() == []


def test_announcing_costs_no_operation_more_than_recording(tmp_path):
    plain, announced = FaultyStorage(), FaultyStorage()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    record(other := journal(tmp_path / "a", plain), (0, 10))
    target = journal(tmp_path / "b", announced)
    target.announce()
    target.announce()
    assert announced.calls == ["open", "lock", "listdir"]
    record(target, (0, 10))
    assert plain.calls == ["open", "lock", "fstat", "pwritev"]
    assert announced.calls == ["open", "lock", "listdir", "fstat", "pwritev"]
    other.close()


def test_an_announced_writer_that_recorded_nothing_leaves_nothing(tmp_path):
    for leave in (Journal.close, Journal.seal):
        target = attached(tmp_path)
        target.announce()
        reader = attached(tmp_path)
        leave(target)
        assert names(tmp_path) == []
        reader.refresh()
        assert not reader.others_live()


def test_an_announced_segment_takes_whatever_version_comes(tmp_path):
    target = attached(tmp_path)
    target.announce()
    with pytest.raises(JournalError, match="describe"):
        target.append(VERSION, {"no": object()}, [(0, b"x")])
    record(target, (0, 10), version=Version(VERSION.size_bytes, etag='"2"'))
    assert len(names(tmp_path)) == 1
    record(target, (0, 10))
    assert len(names(tmp_path)) == 2
    target.close()
    assert len(attached(tmp_path).versions()) == 2


def test_announcing_where_it_cannot_be_done(tmp_path):
    target = journal(tmp_path, FaultyStorage(lambda name, at: error(28) if name == "open" else None))
    with pytest.raises(JournalError) as raised:
        target.announce()
    assert raised.value.errno == 28
    target.close()
    target.announce()
    assert names(tmp_path) == [], "a closed journal announces nobody"


def test_of_processes_that_announce_together_all_but_one_at_most_see_another(tmp_path):
    program = """
        target = attached(directory)
        print("ready", flush=True)
        input()
        target.announce()
        print(target.others_live(), flush=True)
        input()
    """
    processes = [start(program, tmp_path) for _ in range(4)]
    for process in processes:
        answer(process)
    for process in processes:
        tell(process)
    seen = [answer(process) for process in processes]
    assert seen.count("True") >= 3
    for process in processes:
        tell(process)
        process.wait()


def test_a_stopped_or_killed_writer_of_another_machine(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("jcache.journal.presence.time.monotonic", lambda: clock[0])
    program = "target = attached(directory); record(target, (0, 10)); print('ready', flush=True); input()"
    writer = start(program, tmp_path)
    answer(writer)
    (path,) = tmp_path.iterdir()
    # What tells machines apart is the name alone.
    path.rename(path := tmp_path / path.name.replace(path.name.split(".")[0], "@elsewhere"))
    storage = FaultyStorage()
    reader = attached(tmp_path, storage)
    storage.calls.clear()
    assert reader.others_live()
    assert storage.calls == ["lock"], "a lock that is held answers"
    for _ in range(100):
        assert reader.others_live()
    assert len(storage.calls) == 1, "the answer holds for a while"
    writer.kill()
    writer.wait()
    clock[0] += 4
    storage.calls.clear()
    assert not reader.others_live()
    assert storage.calls == ["lock", "unlock"]
    clock[0] += 50
    assert not reader.others_live()
    assert len(storage.calls) == 2
    # Who comes later cannot know whether the writer was about to lock its new segment: it asks twice.
    late = attached(tmp_path)
    assert late.others_live()
    clock[0] += 1
    assert not late.others_live()
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert not attached(tmp_path).others_live(), "an old segment has been locked, if ever, long ago"


@pytest.mark.parametrize("number", [38, 37, 5])
def test_without_locks_the_process_decides(tmp_path, number):
    program = "target = attached(directory); record(target, (0, 10)); print('ready', flush=True); input()"
    writer = start(program, tmp_path)
    answer(writer)
    reader = attached(tmp_path, FaultyStorage(lambda name, at: error(number) if name == "lock" else None))
    assert reader.others_live()
    writer.kill()
    writer.wait()
    assert not reader.others_live()


def test_dropping_removes_all_but_what_others_are_writing(tmp_path):
    record(first := attached(tmp_path), (0, 10))
    first.close()
    program = "target = attached(directory); record(target, (10, 20)); print('ready', flush=True); input()"
    dead, live = start(program, tmp_path), start(program, tmp_path)
    answer(dead), answer(live)
    dead.kill()
    dead.wait()
    (tmp_path / "@leases").touch()
    (tmp_path / "note.txt").touch()
    record(other := attached(tmp_path, identity="https://example.org/other"), (0, 10))
    other.close()
    assert len(names(tmp_path)) == 6
    target = attached(tmp_path)
    record(target, (20, 30))
    view = target.view(VERSION)
    assert readable(view) == 30
    held = view.find(0, 10)[0]
    target.drop()
    assert len(names(tmp_path)) == 4
    assert readable(view) == 10, "another live writer's"
    assert len(view.read(held)) == 10, "a reader keeps what it holds"
    assert record(target, (40, 50))
    target.close()
    assert readable(attached(tmp_path).view(VERSION), 40, 50) == 10
    tell(live)
    live.wait()


def test_dropping_goes_on_after_a_failure_and_says_so(tmp_path):
    for a in range(3):
        record(target := attached(tmp_path), (10 * a, 10 * a + 10))
        target.close()
    failures = iter([error(5)])
    target = attached(tmp_path, FaultyStorage(lambda name, at: next(failures, None) if name == "unlink" else None))
    with pytest.raises(JournalError) as raised:
        target.drop()
    assert raised.value.errno == 5
    assert len(names(tmp_path)) == 1
    assert readable(target.view(VERSION)) == 10
    target.drop()
    assert names(tmp_path) == []


def test_sharing_that_was_asked_for_is_not_taken_back_by_the_umask(tmp_path):
    (tmp_path / "s").mkdir()
    os.chmod(tmp_path / "s", 0o2770)
    old = os.umask(0o022)
    try:
        storage = FaultyStorage()
        shared = Journal(storage, str(tmp_path / "s" / "a" / "b"), IDENTITY, dir_mode=0o770, file_mode=0o660)
        record(shared, (0, 10))
        shared.lease([(0, 10)]).release()
        private = Journal(storage, str(tmp_path / "p" / "a"), IDENTITY)
        before = len(storage.calls)
        record(private, (0, 10))
        private.lease([(0, 10)])
    finally:
        os.umask(old)
    assert not {"chmod", "fchmod", "stat"} & set(storage.calls[before:]), "private costs nothing"
    for directory in ("s/a", "s/a/b"):
        assert (tmp_path / directory).stat().st_mode & 0o7777 == 0o2770, "set-group-id is inherited"
    for path in (tmp_path / "s" / "a" / "b").iterdir():
        assert path.stat().st_mode & 0o777 == 0o660
    for path in (tmp_path / "p" / "a").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="two users can be had by root only")
def test_two_users_of_one_group_share_a_journal(export_dir):
    root = export_dir / "shared"
    root.mkdir()
    os.chown(root, 10_001, 10_000)
    os.chmod(root, 0o2770)
    program = """
import fcntl, os, sys
sys.path.insert(0, sys.argv[4])
import portalocker  # before this user may not read it any more
from journals import *
from jcache.journal import *
uid, at = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([10_000]); os.setgid(10_000 if uid == 10_001 else uid); os.setuid(uid)
os.umask(0o022)
target = Journal(Storage(), sys.argv[3], IDENTITY, dir_mode=0o770, file_mode=0o660)
target.attach()
record(target, (at, at + 100))
assert target.lease([(0, 10)]).ranges
print(readable(target.view(VERSION)))
target.close()
"""
    readables = []
    for at, uid in enumerate((10_001, 10_002, 10_001)):
        directory = str(root / "a" / "b")
        arguments = [str(uid), str(100 * at), directory, str(SUPPORT)]
        process = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        readables.append(process.stdout.strip())
    assert readables == ["100", "200", "300"]
    assert {path.stat().st_uid for path in (root / "a" / "b").iterdir()} == {10_001, 10_002}
    assert Storage().stat(str(root / "a")).st_gid == 10_000


def test_who_looks_for_others_does_not_wait_for_a_slow_write(tmp_path):
    writing, go_on = threading.Event(), threading.Event()

    class Slow(Storage):
        def pwritev(self, fd, buffers, position):
            writing.set()
            assert go_on.wait(60)
            return super().pwritev(fd, buffers, position)

    target = attached(tmp_path, Slow())
    view = target.view(VERSION)
    thread = threading.Thread(target=record, args=(target, (0, 10)))
    thread.start()
    assert writing.wait(60)
    record(other := attached(tmp_path), (10, 30))
    assert target.refresh(wait=False), "another thread may look meanwhile"
    assert readable(view) == 20
    assert target.others_live()
    assert target.lease([(40, 50)]).ranges
    target.announce()
    other.close()
    assert target.refresh(wait=False)
    go_on.set()
    thread.join()
    assert readable(view) == 30
    target.close()
    assert readable(attached(tmp_path).view(VERSION)) == 30


def test_an_announced_segment_that_somebody_removed(tmp_path):
    target = attached(tmp_path)
    target.announce()
    for path in tmp_path.iterdir():
        path.unlink()
    target.seal()
    target.announce()
    for path in tmp_path.iterdir():
        path.unlink()
    target.refresh()
    assert record(target, (0, 10))
    target.close()
    assert readable(attached(tmp_path).view(VERSION)) == 10


def turns(directory, prepare=lambda: None) -> Turns:
    return Turns(Storage(), os.fspath(directory / "@turns"), mode=0o600, prepare=prepare)


def test_whose_turn_it_is_can_be_asked_also_where_another_process_makes_the_directory_just_then(tmp_path):
    def too_late():
        (tmp_path / "u").mkdir()
        raise FileExistsError

    first, second = turns(tmp_path / "u", too_late), turns(tmp_path / "u")
    assert isinstance(first.of("f").take(), Sole)
    assert isinstance(second.of("f").take(), Contended)


def test_who_is_alone_goes_on_without_another_look_for_a_moment(tmp_path, monkeypatch):
    turn, other = turns(tmp_path).of("f"), turns(tmp_path).of("f")
    assert turn.go_on() is None, "nobody has asked yet"
    leases = [turn.take()]
    assert turn.go_on() is None, "nobody has looked yet"
    monkeypatch.setattr("jcache.journal.turns.LOOK_S", 600.0)
    turn.looked()
    leases.append(turn.go_on())
    assert [type(lease) for lease in leases] == [Sole, Sole]
    assert isinstance(other.take(), Contended)
    monkeypatch.setattr("jcache.journal.turns.LOOK_S", -1.0)
    assert turn.go_on() is None, "the look was too long ago"
    monkeypatch.undo()
    for lease in leases:
        lease.release()
    turn.rest()
    assert turn.go_on() is None, "others may have fetched since"
    turn.take()
    assert turn.go_on() is None, "and nobody has looked whether they have"
    turn.looked()
    turn.make_room()
    assert turn.go_on() is None, "others were seen"
