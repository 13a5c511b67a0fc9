"""Verify finds every flaw that a small journal can have, and repair keeps every sound byte."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import threading
import time

import pytest
from faults import Crashed, FaultyStorage, error
from journals import IDENTITY, INFO, REMOTE, VERSION, attached, journal, readable, record

from jcache.cache.directory import TAG
from jcache.cache.verify import Finding, Kind, Totals, measure, verify
from jcache.journal import Version
from jcache.segment.format import segment_name
from jcache.system.storage import Storage

OTHER = Version(len(REMOTE), etag='"2"')


def run(directory, *, storage=None, quiet_s=0.0, **options):
    """Return findings and totals; nothing is taken for alive just because this process, which wrote it, is."""
    *findings, totals = verify(storage or Storage(), os.fspath(directory), quiet_s=quiet_s, **options)
    assert all(isinstance(finding, Finding) for finding in findings)
    assert isinstance(totals, Totals)
    assert totals.wrong + totals.notes == len(findings)
    return findings, totals


def kinds(directory, **options):
    return [finding.kind for finding in run(directory, **options)[0]]


def segments(directory):
    return sorted(path for path in directory.rglob("@*.seg"))


def sealed(directory, *ranges, version=VERSION):
    """Write one sealed segment and return its path."""
    before = set(segments(directory)) if directory.exists() else set()
    target = journal(directory)
    for each in ranges:
        record(target, *each, version=version)
    target.close()
    (path,) = set(segments(directory)) - before
    return path


def unsealed(directory, *ranges):
    """Write one segment whose writer never sealed it, and return its path."""
    target = journal(directory)
    for each in ranges:
        record(target, *each)
    (path,) = segments(directory)
    target.forget()
    return path


SMALL = ([(100, 150), (20, 60)], [(300, 310)], [(500, 540), (600, 601)])
SMALL_BYTES = 50 + 40 + 10 + 40 + 1


def covered(directory):
    """Return how many bytes a reader gets, all of them right."""
    return readable(attached(directory).view(VERSION), 0, 1000)


def flip(path, position, mask=1):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_a_sound_cache_is_well(tmp_path):
    sealed(tmp_path / "a", *SMALL)
    sealed(tmp_path / "b", [(0, 1 << 20)])
    findings, totals = run(tmp_path)
    assert findings == []
    assert (totals.journals, totals.segments, totals.sealed, totals.live) == (2, 2, 2, 0)
    assert totals.sound_bytes == SMALL_BYTES + (1 << 20)
    assert totals.size_bytes == sum(path.stat().st_size for path in segments(tmp_path)) == measure(Storage(), tmp_path)


def test_every_flipped_bit_is_found_and_repair_keeps_what_readers_had(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    pristine = path.read_bytes()
    generator = random.Random(3)
    for position in range(len(pristine)):
        for each in segments(tmp_path):
            each.unlink()
        data = bytearray(pristine)
        data[position] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        findings, _ = run(tmp_path)
        assert any(finding.is_wrong for finding in findings), f"bit flipped at {position}"
        assert all(0 <= f.offset <= f.offset + f.size_bytes <= len(data) for f in findings)
        assert path.read_bytes() == data, "nothing is written without --repair"
        before = covered(tmp_path / "j")
        findings, _ = run(tmp_path, repair=True)
        assert all(finding.repair for finding in findings if finding.is_wrong)
        assert run(tmp_path)[1].wrong == 0
        assert covered(tmp_path / "j") >= before


def test_every_flipped_bit_of_an_orphan_is_found(tmp_path):
    path = unsealed(tmp_path / "j", *SMALL)
    pristine = path.read_bytes()
    for position in range(len(pristine)):
        for each in segments(tmp_path):
            each.unlink()
        path.write_bytes(pristine)
        flip(path, position, 1 << (position % 8))
        findings, _ = run(tmp_path)
        if 8 <= position < 10:
            assert [finding.kind for finding in findings] == [Kind.FOREIGN], (
                "another format version is not ours to judge"
            )
            continue
        assert {finding.kind for finding in findings} & {Kind.DAMAGED, Kind.TORN}, f"bit flipped at {position}"
        before = covered(tmp_path / "j")
        run(tmp_path, repair=True)
        assert run(tmp_path)[1].wrong == 0
        assert covered(tmp_path / "j") >= before


@pytest.mark.parametrize("write", [sealed, unsealed])
def test_a_cut_at_every_byte_is_found_and_repair_keeps_what_readers_had(tmp_path, write):
    path = write(tmp_path / "j", *SMALL)
    pristine = path.read_bytes()
    for size in range(len(pristine)):
        for each in segments(tmp_path):
            each.unlink()
        path.write_bytes(pristine[:size])
        before = covered(tmp_path / "j")
        findings, totals = run(tmp_path)
        assert totals.wrong, f"cut at {size}"
        assert {finding.kind for finding in findings} <= {Kind.TORN, Kind.ORPHAN}
        torn = sum(finding.size_bytes for finding in findings if finding.kind is Kind.TORN)
        assert torn <= size
        run(tmp_path, repair=True)
        assert run(tmp_path)[1].wrong == 0
        assert covered(tmp_path / "j") == before


def test_places_and_sizes_are_told(tmp_path):
    path = sealed(tmp_path / "j", [(0, 1000)], [(2000, 3000)], [(4000, 5000)])
    data = path.read_bytes()
    at = data.index(REMOTE[2000:3000])
    flip(path, at + 500)
    (finding,), _ = run(tmp_path)
    assert (finding.kind, finding.path, finding.offset, finding.size_bytes) == (Kind.DAMAGED, str(path), at, 1000)
    flip(path, at - 1)  # the table of that frame, whose header is in front of it
    findings, totals = run(tmp_path)
    assert [(f.offset, f.size_bytes) for f in findings] == [(at - 24 - 32, 24 + 32), (at, 1000)]
    assert totals.sound_bytes == 2000


def test_neighbouring_damage_is_one_finding(tmp_path):
    path = sealed(tmp_path / "j", [(0, 1 << 20)])
    data = path.read_bytes()
    at = data.index(REMOTE[: 1 << 10])
    path.write_bytes(data[:at] + bytes(1 << 20) + data[at + (1 << 20) :])
    (finding,), totals = run(tmp_path)
    assert (finding.offset, finding.size_bytes, finding.what) == (at, 1 << 20, "4 extents: wrong checksum")
    assert (totals.extents, totals.sound_bytes) == (4, 0)
    run(tmp_path, repair=True)
    assert segments(tmp_path) == [], "nothing in it was sound"


def test_what_the_index_still_knows_is_kept_when_its_table_is_lost(tmp_path):
    path = sealed(tmp_path / "j", [(0, 1000), (5000, 6000)])
    flip(path, path.read_bytes().index(b"JCFR"))
    assert kinds(tmp_path) == [Kind.DAMAGED]
    run(tmp_path, repair=True)
    assert readable(attached(tmp_path / "j").view(VERSION)) == 2000


def test_repair_keeps_permissions_and_the_time_of_validation(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    flip(path, path.read_bytes().index(REMOTE[300:310]))
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))
    old = os.umask(0)
    try:
        run(tmp_path, repair=True)
    finally:
        os.umask(old)
    (new,) = segments(tmp_path)
    assert new != path
    assert (new.stat().st_mode & 0o777, new.stat().st_mtime_ns) == (0o640, 10**18)
    assert covered(tmp_path / "j") == SMALL_BYTES - 10


def test_a_reader_goes_on_while_its_segment_is_repaired(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    reader = attached(tmp_path / "j")
    flip(path, path.read_bytes().index(REMOTE[300:310]))
    run(tmp_path, repair=True)
    assert readable(reader.view(VERSION), 0, 1000) == SMALL_BYTES - 10
    assert reader.refresh()
    assert readable(reader.view(VERSION), 0, 1000) == SMALL_BYTES - 10


def test_a_live_writer_is_left_alone(tmp_path):
    target = journal(tmp_path / "j")
    record(target, *SMALL[0])
    (path,) = segments(tmp_path)
    with path.open("ab") as file:
        file.write(b"JCFR on its way")
    findings, totals = run(tmp_path, repair=True)
    assert findings == []
    assert totals.live == 1
    record(target, *SMALL[1])
    target.close()
    assert run(tmp_path)[0] == []
    assert covered(tmp_path / "j") == 100


def test_a_segment_of_another_machine_counts_as_live_until_it_was_quiet_for_long(tmp_path):
    path = unsealed(tmp_path / "j", *SMALL)
    moved = path.with_name(segment_name("elsewhere", 1, int(path.name.split(".")[-2], 16)))
    path.rename(moved)
    assert kinds(tmp_path, quiet_s=3600.0) == []
    os.utime(moved, (0, time.time() - 3601))
    assert kinds(tmp_path, quiet_s=3600.0) == [Kind.ORPHAN]

    class NoLocks(Storage):
        def lock(self, fd, *, shared=False):
            raise error(errno.ENOLCK)

    assert kinds(tmp_path, quiet_s=3600.0, storage=NoLocks()) == [], "without locks, a day must pass"
    os.utime(moved, (0, time.time() - 24 * 3601))
    assert kinds(tmp_path, quiet_s=3600.0, storage=NoLocks()) == [Kind.ORPHAN]
    os.utime(moved, (0, time.time() + 3600))
    assert kinds(tmp_path, quiet_s=3600.0) == [], "clocks differ"
    os.utime(moved, (0, time.time() + 2 * 86400))
    assert kinds(tmp_path, quiet_s=3600.0) == [Kind.ORPHAN], "but not by days"


def test_an_older_version_beside_a_newer_one_is_superseded(tmp_path):
    old = sealed(tmp_path / "j", *SMALL)
    os.utime(old, (0, 1000))
    new = sealed(tmp_path / "j", [(0, 10)], version=OTHER)
    findings, totals = run(tmp_path)
    assert [(finding.kind, finding.path, finding.size_bytes) for finding in findings] == [
        (Kind.SUPERSEDED, str(old), old.stat().st_size)
    ]
    assert totals.wrong == 0
    run(tmp_path, repair=True)
    assert segments(tmp_path) == [new]


def test_versions_that_may_be_the_same_are_both_kept(tmp_path):
    sealed(tmp_path / "j", [(0, 10)], version=Version(len(REMOTE), etag='"1"'))
    sealed(tmp_path / "j", [(0, 10)], version=Version(len(REMOTE), mtime_ns=5))
    assert kinds(tmp_path) == []


def test_what_is_not_ours_is_told_and_left(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    (tmp_path / "j" / "notes.txt").write_text("mine")
    (tmp_path / "j" / "@.seg").write_text("mine")
    (tmp_path / "j" / "link").symlink_to(path)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / segment_name("h", 1, 2))
    (tmp_path / "j" / segment_name("h", 1, 3)).symlink_to("/dev/zero")
    for ours in ("CACHEDIR.TAG", "jcache.toml", "j/@lease", "j/.nfs0000000001"):
        (tmp_path / ours).write_text("")
    before = sorted(tmp_path.rglob("*"))
    findings, totals = run(tmp_path, repair=True)
    assert {finding.kind for finding in findings} == {Kind.FOREIGN}
    assert len(findings) == 6
    assert (totals.wrong, totals.repaired) == (0, 0)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mtime_s", [0, 4e9])
def test_leftovers_and_empty_directories_go_once_they_are_old(tmp_path, mtime_s):
    (tmp_path / "CACHEDIR.TAG").write_bytes(TAG)
    (tmp_path / ".reports").mkdir()
    old = [tmp_path / ".probe-1", tmp_path / ".reports" / ".x.tmp", tmp_path / "@new.tmp", tmp_path / "https" / "empty"]
    old[3].mkdir(parents=True)
    for path in old[:3]:
        path.write_text("x")
    assert kinds(tmp_path, quiet_s=3600.0) == []
    for path in old:
        os.utime(path, (0, mtime_s))
    assert kinds(tmp_path, quiet_s=3600.0) == [Kind.LEFTOVER, Kind.LEFTOVER, Kind.LEFTOVER, Kind.EMPTY]
    findings, totals = run(tmp_path, repair=True, quiet_s=3600.0)
    assert [finding.repair for finding in findings] == ["removed"] * 4
    assert totals.wrong == 0
    assert not any(path.exists() for path in old)


def test_empty_directories_stay_where_jcache_is_a_guest(tmp_path):
    (tmp_path / "mine").mkdir()
    assert [finding.repair for finding in run(tmp_path, repair=True)[0]] == [None]
    assert (tmp_path / "mine").is_dir()


def test_another_files_segment_in_a_journal_is_told(tmp_path):
    sealed(tmp_path / "j", *SMALL)
    assert kinds(tmp_path / "j", identity=IDENTITY) == []
    assert kinds(tmp_path / "j", identity="another") == [Kind.FOREIGN]


@pytest.mark.parametrize("repair", [False, True])
def test_every_failing_operation_is_a_finding_and_never_an_exception(tmp_path, tmp_path_factory, repair):
    path = sealed(tmp_path / "j", *SMALL)
    flip(path, path.read_bytes().index(REMOTE[300:310]))
    unsealed(tmp_path / "k", *SMALL)
    pristine = tmp_path_factory.mktemp("pristine")
    shutil.copytree(tmp_path, pristine, dirs_exist_ok=True)
    counting = FaultyStorage()
    run(tmp_path, storage=counting, repair=repair)
    for number in range(len(counting.calls)):
        shutil.rmtree(tmp_path)
        shutil.copytree(pristine, tmp_path)
        storage = FaultyStorage(lambda name, at, number=number: error(errno.EIO) if at == number else None)
        try:
            run(tmp_path, storage=storage, repair=repair)
        except OSError as problem:
            pytest.fail(f"operation {number} ({counting.calls[number]}): {problem}")
        gc.collect()  # a fault is raised from a variable of its own traceback
        assert storage.open_fds == set(), counting.calls[number]
        assert covered(tmp_path / "j") == SMALL_BYTES - 10
        assert covered(tmp_path / "k") == SMALL_BYTES


def test_what_cannot_be_read_is_told_and_not_repaired(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)

    class Failing(Storage):
        def pread(self, fd, size, position):
            raise error(errno.EIO)

    findings, totals = run(tmp_path, storage=Failing(), repair=True)
    assert {finding.kind for finding in findings} == {Kind.UNREADABLE}
    assert totals.repaired == 0
    assert path.exists()


def test_a_full_disk_leaves_the_damaged_segment_as_it_was(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    flip(path, path.read_bytes().index(REMOTE[300:310]))
    storage = FaultyStorage(lambda name, at: error(errno.ENOSPC) if name == "pwritev" else None)
    findings, totals = run(tmp_path, storage=storage, repair=True)
    assert [finding.repair for finding in findings] == [None, None]
    assert "No space" in findings[-1].what or "No space" in findings[0].what
    assert segments(tmp_path) == [path]
    assert totals.wrong == 2


def test_huge_lengths_allocate_nothing(tmp_path):
    path = sealed(tmp_path / "j", *SMALL)
    storage = FaultyStorage()
    for position in range(0, path.stat().st_size, 3):
        flip(path, position, 0xFF)
    run(tmp_path, storage=storage)
    assert storage.largest_read_bytes <= path.stat().st_size


def test_a_large_segment_is_read_once(tmp_path):
    target = journal(tmp_path / "j")
    version = Version(1 << 40, etag='"x"')
    for number in range(12):
        target.append(version, INFO, [(number << 30, REMOTE), ((number << 30) + (1 << 29), REMOTE)])
    target.close()
    storage = FaultyStorage()
    _, totals = run(tmp_path, storage=storage)
    assert totals.sound_bytes == 24 << 20
    assert storage.counts["pread"] < 24
    assert storage.largest_read_bytes <= 4 << 20


def test_progress_adds_up(tmp_path):
    sealed(tmp_path / "j", [(0, 1 << 20)])

    class Sum:
        total = 0

        def advance(self, nbytes):
            self.total += nbytes

    progress = Sum()
    run(tmp_path, progress=progress)
    assert progress.total == pytest.approx(measure(Storage(), tmp_path), rel=0.01)


def test_a_missing_directory_is_a_finding(tmp_path):
    assert kinds(tmp_path / "missing") == [Kind.UNREADABLE]


def test_a_repair_that_is_killed_at_any_operation_loses_nothing(tmp_path, tmp_path_factory):
    path = sealed(tmp_path / "j", *SMALL)
    flip(path, path.read_bytes().index(REMOTE[300:310]))
    pristine = tmp_path_factory.mktemp("pristine")
    shutil.copytree(tmp_path, pristine, dirs_exist_ok=True)
    counting = FaultyStorage()
    run(tmp_path, storage=counting, repair=True)
    numbers = [number for number, name in enumerate(counting.calls) if name != "close"]  # which changes nothing
    for number in numbers:
        shutil.rmtree(tmp_path)
        shutil.copytree(pristine, tmp_path)
        with pytest.raises(Crashed):
            run(tmp_path, storage=FaultyStorage(lambda _, at, n=number: Crashed() if at == n else None), repair=True)
        assert covered(tmp_path / "j") == SMALL_BYTES - 10, counting.calls[number]
        gc.collect()  # a dead process holds no locks
        run(tmp_path, repair=True)
        assert run(tmp_path)[1].wrong == 0
        assert covered(tmp_path / "j") == SMALL_BYTES - 10


def test_two_repairs_at_once_lose_nothing(tmp_path):
    for name in "abcdefgh":
        path = sealed(tmp_path / name, *SMALL)
        flip(path, path.read_bytes().index(REMOTE[300:310]))
    threads = [threading.Thread(target=run, args=(tmp_path,), kwargs={"repair": True}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(tmp_path)[1].wrong == 0
    assert [covered(tmp_path / name) for name in "abcdefgh"] == [SMALL_BYTES - 10] * 8
