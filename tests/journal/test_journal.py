"""What the journal promises to its caller."""

import gc
import itertools
import os
import threading
import time

import pytest
from faults import FaultyStorage
from journals import INFO, REMOTE, VERSION, attached, hits, journal, readable, record

from jcache.journal import JournalError, Version
from jcache.segment.format import PIECE_BYTES
from jcache.system.storage import Storage


def test_nothing_is_touched_before_the_first_append(tmp_path):
    reader = attached(tmp_path / "a" / "b")
    assert reader.versions() == []
    assert reader.view(VERSION).find(5, 9) == [(5, 9, None, 0, 0)]
    assert not reader.refresh()
    assert record(reader) == 0
    assert reader.append(VERSION, INFO, [(5, b"")]) == 0
    reader.close()
    assert list(tmp_path.iterdir()) == []


def test_recorded_bytes_are_hits_at_once_and_after_reopening(tmp_path):
    writer = attached(tmp_path / "a" / "b")
    view = writer.view(VERSION)
    size = record(writer, (10, 20), (100, 1000))
    assert hits(view, 0, 2000) == [(10, 20), (100, 1000)]
    assert readable(view) == view.covered() == 910
    assert size == sum(entry.stat().st_size for entry in (tmp_path / "a" / "b").iterdir())
    writer.close()
    reader = attached(tmp_path / "a" / "b")
    assert readable(reader.view(VERSION)) == 910
    assert [(v.version, v.info) for v in reader.versions()] == [(VERSION, INFO)]
    assert reader.problems() == []


def test_parts_are_exactly_what_was_asked_for(tmp_path):
    writer = attached(tmp_path)
    record(writer, (100, 200), (200, 300))
    record(writer, (300, 400))
    view = writer.view(VERSION)
    assert hits(view, 100, 200) == [(100, 200)]
    assert hits(view, 150, 160) == [(150, 160)]
    assert hits(view, 150, 250) == [(150, 250)], "neighbours in one frame are one part"
    assert hits(view, 50, 450) == [(100, 300), (300, 400)], "frames are apart on disk"
    assert hits(view, 99, 101) == [(100, 101)]
    assert hits(view, 399, 401) == [(399, 400)]
    for start, stop in ((100, 100), (400, 300), (0, 0)):
        assert view.find(start, stop) == []
    for start, stop in ((150, 160), (150, 250), (50, 450), (100, 200)):
        assert readable(view, start, stop) == sum(b - a for a, b in hits(view, start, stop))


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5])
def test_a_long_extent_is_one_part_and_one_read_whatever_its_pieces(tmp_path, size):
    storage = FaultyStorage()
    writer = attached(tmp_path, storage)
    record(writer, (7, 7 + size))
    writer.close()
    writer = attached(tmp_path, storage)
    view = writer.view(VERSION)
    (part,) = view.find(7, 7 + size)
    before = storage.counts["pread"]
    assert view.read(part) == REMOTE[7 : 7 + size]
    assert storage.counts["pread"] == before + 1
    (part,) = view.find(1000, 1100)
    storage.largest_read_bytes = 0
    assert view.read(part) == REMOTE[1000:1100]
    assert storage.largest_read_bytes == min(size, PIECE_BYTES)


def test_any_buffer_is_taken(tmp_path):
    import array

    writer = attached(tmp_path)
    words = array.array("H", REMOTE[:20])
    writer.append(VERSION, INFO, [(0, words), (20, bytearray(REMOTE[20:30])), (30, memoryview(REMOTE)[30:40])])
    assert readable(writer.view(VERSION)) == 40


@pytest.mark.parametrize("extent", [(-1, b"ab"), (len(REMOTE) - 1, b"ab"), (1 << 64, b"a")])
def test_extents_outside_the_file_are_refused(tmp_path, extent):
    writer = attached(tmp_path)
    with pytest.raises(JournalError, match="outside"):
        writer.append(VERSION, INFO, [(0, b"fine"), extent])
    assert list(tmp_path.iterdir()) == []


def test_bytes_of_an_unproved_version_are_refused(tmp_path):
    writer = attached(tmp_path)
    with pytest.raises(JournalError, match="proves nothing"):
        writer.append(Version(10), {}, [(0, b"x")])
    assert writer.view(Version(10)).find(0, 1) == [(0, 1, None, 0, 0)]


def test_info_that_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path):
    writer = attached(tmp_path)
    with pytest.raises(JournalError, match="describe"):
        writer.append(VERSION, {"x": "y" * 70_000}, [(0, b"x")])
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_sealing_begins_a_new_segment_and_keeps_the_old_readable(tmp_path):
    writer = attached(tmp_path)
    view = writer.view(VERSION)
    record(writer, (0, 10))
    writer.seal()
    writer.seal()
    record(writer, (10, 20))
    assert readable(view) == 20
    assert len(list(tmp_path.iterdir())) == 2
    writer.close()
    assert readable(attached(tmp_path).view(VERSION)) == 20


def test_a_new_version_begins_a_new_segment(tmp_path):
    writer = attached(tmp_path)
    replaced = Version(100, mtime_ns=9)
    record(writer, (0, 10))
    writer.append(replaced, {}, [(0, b"new")])
    record(writer, (10, 20))
    assert readable(writer.view(VERSION)) == 20
    assert readable(writer.view(replaced), 0, 100, b"new") == 3
    writer.close()
    assert len(list(tmp_path.iterdir())) == 3
    reader = attached(tmp_path)
    assert {stored.version for stored in reader.versions()} == {VERSION, replaced}


def test_a_version_learnt_more_exactly_goes_on_in_the_same_segment(tmp_path):
    writer = attached(tmp_path)
    record(writer, (0, 10), version=Version(len(REMOTE), 5))
    record(writer, (10, 20), version=Version(len(REMOTE), 5, '"e"'))
    assert len(list(tmp_path.iterdir())) == 1
    assert readable(writer.view(Version(len(REMOTE), 5, '"e"'))) == 20
    assert writer.view(Version(len(REMOTE), etag='"e"')).covered() == 0


def test_versions_are_ordered_by_what_the_origin_was_found_to_have(tmp_path):
    writer = attached(tmp_path)
    old, new = Version(10, 1), Version(10, 2)
    writer.append(old, {"n": 1}, [(0, b"a")])
    writer.append(new, {"n": 2}, [(0, b"b")])
    writer.close()
    for entry in tmp_path.iterdir():
        os.utime(entry, ns=(5, 6 if b'"mtime_ns":1' in entry.read_bytes() else 5))
    reader = attached(tmp_path)
    assert [(v.version, v.validated_ns, v.info) for v in reader.versions()] == [(new, 5, {"n": 2}), (old, 6, {"n": 1})]
    reader.touch(old)
    assert [v.version for v in reader.versions()] == [old, new]
    again = attached(tmp_path)
    assert again.versions() == reader.versions()
    reader.touch(Version(10, 3))
    assert len(reader.versions()) == 2


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_versions_that_differ_are_not_mixed_through_one_that_tells_less(tmp_path, order):
    """Told by its time alone, a file may be either of two whose tags differ and whose times do not."""
    less = Version(100, 5)
    versions = [less, Version(100, 5, etag='"a"'), Version(100, 5, etag='"b"')]
    names = {}
    for i, version in enumerate(versions):
        before = set(os.listdir(tmp_path))
        writer = attached(tmp_path)
        writer.append(version, {}, [(0, bytes([i]))])
        writer.append(version, {}, [(10 * (i + 1), bytes([i]))])
        writer.close()
        (names[i],) = set(os.listdir(tmp_path)) - before
    reader = attached(tmp_path, ListedAs([names[i] for i in order]))
    for i, version in enumerate(versions):
        view = reader.view(version)
        assert set(view.extents()) == {(0, 1), (10 * (i + 1), 10 * (i + 1) + 1)}
        assert view.read(view.find(0, 1)[0]) == bytes([i])
    os.unlink(tmp_path / names[2])
    alone = attached(tmp_path)
    assert set(alone.view(less).extents()) == set(alone.view(versions[1]).extents()) == {(0, 1), (10, 11), (20, 21)}


def test_versions_validated_at_the_same_time_are_ordered_by_their_beginning(tmp_path):
    old, new = Version(10, 1), Version(10, 2)
    for version in (old, new):
        writer = attached(tmp_path)
        writer.append(version, {}, [(0, b"a")])
        writer.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    for listed in (names, names[::-1]):
        for entry in tmp_path.iterdir():
            os.utime(entry, ns=(5, 5))
        storage = ListedAs(listed)
        assert [stored.version for stored in attached(tmp_path, storage).versions()] == [new, old]


class ListedAs(Storage):
    """Lists a directory in an order that a file system may choose."""

    def __init__(self, names):
        self.names = names

    def listdir(self, path):
        return [os.fsencode(name) if isinstance(path, bytes) else name for name in self.names]


def test_sealing_does_not_count_as_a_validation(tmp_path):
    writer = attached(tmp_path)
    record(writer, (0, 10))
    (stored,) = writer.versions()
    time.sleep(0.05)
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mtime_ns == stored.validated_ns
    (again,) = attached(tmp_path).versions()
    assert again.validated_ns == stored.validated_ns
    assert again.age_s > stored.age_s + 0.04


def test_close_lets_go_of_every_descriptor_and_takes_nothing_more(tmp_path):
    storage = FaultyStorage()
    for start in range(5):
        writer = attached(tmp_path, storage)
        record(writer, (start, start + 1))
        writer.close()
    reader = attached(tmp_path, storage)
    assert len(storage.open_fds) == 5, "one for each segment"
    view = reader.view(VERSION)
    (part,) = view.find(0, 1)
    reader.close()
    assert len(storage.open_fds) == 1, "what a reader holds stays open"
    assert view.read(part) == REMOTE[:1]
    assert view.find(0, 1) == [(0, 1, None, 0, 0)]
    del part
    gc.collect()
    assert not storage.open_fds
    reader.close()
    reader.attach()
    assert not reader.refresh()
    with pytest.raises(JournalError, match="closed"):
        record(reader, (0, 1))


def test_a_journal_dropped_without_close_leaves_a_valid_segment(tmp_path):
    storage = FaultyStorage()
    writer = attached(tmp_path, storage)
    record(writer, (0, 10))
    del writer
    gc.collect()
    assert not storage.open_fds
    assert readable(attached(tmp_path).view(VERSION)) == 10


def test_permissions(tmp_path):
    from jcache.journal import Journal
    from jcache.system.storage import Storage

    old = os.umask(0)
    try:
        private, shared = tmp_path / "p" / "q", tmp_path / "s" / "t"
        record(journal(private), (0, 1))
        record(Journal(Storage(), os.fsencode(shared), "x", dir_mode=0o2770, file_mode=0o660), (0, 1))
    finally:
        os.umask(old)
    modes = {p: p.stat().st_mode & 0o777 for p in (private, private.parent, *private.iterdir())}
    assert set(modes.values()) == {0o700, 0o600}
    modes = {p: p.stat().st_mode & 0o777 for p in (shared, shared.parent, *shared.iterdir())}
    assert set(modes.values()) == {0o770, 0o660}


def test_following_a_live_writer(tmp_path):
    writer, reader = attached(tmp_path), attached(tmp_path)
    view = reader.view(VERSION)
    assert not reader.refresh()
    for step in range(20):
        record(writer, (step * 10, step * 10 + 10))
        assert reader.refresh()
        assert view.covered() == 10 * (step + 1)
        assert not reader.refresh()
    writer.seal()
    assert reader.refresh()
    assert readable(view) == 200
    assert not reader.others_live()
    record(writer, (500, 510))
    assert reader.refresh()
    assert readable(view) == 210
    assert reader.others_live()
    assert not writer.others_live()


def test_following_a_frame_that_arrives_byte_by_byte(tmp_path):
    record(writer := attached(tmp_path / "whole"), (0, 10), (20, 30))
    record(writer, (40, 50))
    writer.close()
    (whole,) = (tmp_path / "whole").iterdir()
    (tmp_path / "j").mkdir()
    reader = attached(tmp_path / "j")
    view = reader.view(VERSION)
    seen = set()
    with (tmp_path / "j" / whole.name).open("wb", buffering=0) as live:
        for byte in whole.read_bytes():
            live.write(bytes([byte]))
            reader.refresh()
            seen.add(readable(view))
    assert seen == {0, 20, 30}
    assert (reader.damaged, reader.problems()) == (0, [])
    assert not reader.others_live()


def test_a_frame_whose_size_is_there_before_its_bytes(tmp_path):
    record(writer := attached(tmp_path / "whole"), (0, 10))
    record(writer, (40, 50))
    writer.forget()
    (whole,) = (tmp_path / "whole").iterdir()
    data = whole.read_bytes()
    (tmp_path / "j").mkdir()
    live = tmp_path / "j" / whole.name
    live.write_bytes(bytes(len(data)))
    reader = attached(tmp_path / "j")
    view = reader.view(VERSION)
    assert readable(view) == 0
    live.write_bytes(data[:-60] + bytes(60))
    reader.refresh()
    assert readable(view) == 10
    live.write_bytes(data)
    reader.refresh()
    assert readable(view) == 20
    assert (reader.damaged, reader.problems()) == (0, [])


@pytest.mark.parametrize(("fraction_ns", "tick_s"), [(0, 1.0), (4_000_000, 0.1)])
def test_refresh_lists_the_directory_only_while_it_may_have_changed(tmp_path, monkeypatch, fraction_ns, tick_s):
    clock = [1000.0]
    monkeypatch.setattr("jcache.segment.directory.time.monotonic", lambda: clock[0])
    os.utime(tmp_path, ns=(0, 1_700_000_000_000_000_000 + fraction_ns))
    storage = FaultyStorage()
    reader = attached(tmp_path, storage)
    reader.refresh()
    assert storage.counts["listdir"] == 2
    clock[0] += tick_s / 2
    reader.refresh()
    assert storage.counts["listdir"] == 3, "it may have changed again within the tick of its time"
    clock[0] += tick_s
    reader.refresh()
    assert storage.counts["listdir"] == 4
    for _ in range(100):
        clock[0] += 0.01
        storage.calls.clear()
        assert not reader.refresh()
        assert storage.calls == ["stat"], "a miss that finds nothing costs one stat"
    record(attached(tmp_path), (0, 10))
    assert reader.refresh()
    assert reader.view(VERSION).covered() == 10


def test_a_removed_segment_is_let_go_of(tmp_path):
    record(writer := attached(tmp_path), (0, 10))
    writer.close()
    storage = FaultyStorage()
    reader = attached(tmp_path, storage)
    view = reader.view(VERSION)
    (path,) = tmp_path.iterdir()
    path.unlink()
    assert reader.refresh()
    assert view.covered() == 0
    assert not storage.open_fds, "so that its space is freed"
    record(reader, (0, 10))
    (path,) = tmp_path.iterdir()
    path.unlink()
    reader.refresh()
    record(reader, (20, 30))
    reader.close()
    assert attached(tmp_path).view(VERSION).covered() == 10, "nothing more goes to a segment that nobody can find"


def test_overlapping_extents_are_served_whole(tmp_path):
    for which, ranges in enumerate(
        [[(0, 100), (50, 150), (60, 70), (50, 60)], [(200, 300), (150, 400)], [(90, 210), (90, 210)]]
    ):
        writer = attached(tmp_path / "j") if which else journal(tmp_path / "j")
        for each in ranges:
            record(writer, each)
        assert readable(writer.view(VERSION), 0, 500) == writer.view(VERSION).covered()
        writer.close()
    reader = attached(tmp_path / "j")
    view = reader.view(VERSION)
    assert view.covered() == 400
    for start in range(0, 420, 7):
        for stop in range(start, 420, 11):
            assert readable(view, start, stop) == max(0, min(stop, 400) - start)


def test_forgetting_leaves_the_parents_files_alone(tmp_path):
    storage = FaultyStorage()
    writer = attached(tmp_path, storage)
    record(writer, (0, 10))
    view = writer.view(VERSION)
    before = len(storage.calls)
    writer.forget()
    gc.collect()
    assert set(storage.calls[before:]) <= {"close"}
    assert view.find(0, 10) == [(0, 10, None, 0, 0)]
    writer.attach()
    assert readable(writer.view(VERSION)) == 10
    record(writer, (10, 20))
    assert len(list(tmp_path.iterdir())) == 2


def test_readers_and_a_writer_in_threads(tmp_path):
    """Lookups and reads take no lock, while the table grows, merges and moves under them."""
    writer = attached(tmp_path)
    view = writer.view(VERSION)
    done, wrong = threading.Event(), []

    def reading(seed: int) -> None:
        import random

        rng = random.Random(seed)
        try:
            while not done.is_set():
                start = rng.randrange(len(REMOTE))
                readable(view, start, start + rng.randrange(5000))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=reading, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    order = [(i * 367) % 4096 for i in range(4096)]
    for count, index in enumerate(order):
        record(writer, (index * 256, index * 256 + 256))
        if count % 1000 == 999:
            writer.seal()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert writer.damaged == 0
    assert readable(view) == len(REMOTE)
