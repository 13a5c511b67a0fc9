"""Whatever has become of a segment: right bytes or a gap, damage counted, nothing allocated beyond the file's size."""

import os
import random
import shutil
from array import array
from pathlib import Path

import pytest
from faults import FaultyStorage
from journals import IDENTITY, REMOTE, VERSION, attached, hits, journal, read, readable, record

from jcache.journal import DamagedExtent, Journal, Version
from jcache.journal.check import check
from jcache.segment.format import (
    FRAME_MAGIC,
    HEADER,
    HEADER_MAGIC,
    INDEX_MAGIC,
    Columns,
    Metadata,
    checksum,
    pack_frame,
    pack_header,
    pack_seal,
    segment_name,
)
from jcache.segment.writer import describe
from jcache.system.storage import Storage

# Three frames; the second holds two extents out of order, the third touches the first.
FRAMES = [[(100, 140)], [(400, 420), (200, 230)], [(140, 150)]]
TOTAL = 100


def small_segment(directory: Path, *, sealed: bool, frames=FRAMES) -> Path:
    writer = journal(directory)
    for ranges in frames:
        record(writer, *ranges)
    writer.close() if sealed else writer.forget()
    (path,) = directory.iterdir()
    return path


@pytest.fixture
def sealed(tmp_path):
    return small_segment(tmp_path / "j", sealed=True)


@pytest.fixture
def unsealed(tmp_path):
    return small_segment(tmp_path / "j", sealed=False)


def checked(path: Path, largest: int | None = None) -> tuple[Journal, int]:
    """Attach, read everything twice and return the journal and the bytes that were there the second time."""
    storage = FaultyStorage()
    reader = attached(path.parent, storage)
    view = reader.view(VERSION)
    first = readable(view, 0, 500)
    found = readable(view, 0, 500)
    # Behind a damaged extent there may be a sound copy in another segment.
    assert first <= found == view.covered()
    assert storage.largest_read_bytes <= (largest or path.stat().st_size)
    reader.close()
    assert not storage.open_fds
    return reader, found


def flips(path: Path):
    whole = path.read_bytes()
    damaged = bytearray(whole)
    with path.open("r+b", buffering=0) as file:
        for position in range(len(whole)):
            for bit in range(8):
                damaged[position] ^= 1 << bit
                os.pwrite(file.fileno(), damaged[position : position + 1], position)
                yield position
                damaged[position] = whole[position]
            os.pwrite(file.fileno(), whole[position : position + 1], position)


def data_positions(whole: bytes) -> dict[int, int]:
    """Position in the segment -> length of the extent that covers it."""
    return {
        position: stop - start
        for ranges in FRAMES
        for start, stop in ranges
        for position in range(whole.index(REMOTE[start:stop]), whole.index(REMOTE[start:stop]) + stop - start)
    }


def test_every_bit_of_a_sealed_segment_flipped(sealed):
    data = data_positions(sealed.read_bytes())
    for position in flips(sealed):
        reader, found = checked(sealed)
        # Header, frames, index and trailer are each told twice: only the bytes themselves are not.
        assert found == TOTAL - data.get(position, 0), position
        assert reader.damaged == (position in data)


def test_every_bit_of_an_unsealed_segment_flipped(unsealed):
    whole = unsealed.read_bytes()
    data = data_positions(whole)
    header = whole.index(FRAME_MAGIC)
    last = whole.rindex(FRAME_MAGIC)
    for position in flips(unsealed):
        reader, found = checked(unsealed)
        if position < header:
            assert found == 0
            # A length that points past the end looks like a header on its way.
            assert reader.problems() or 12 <= position < 16
        elif position in data:
            assert found == TOTAL - data[position]
            assert reader.damaged == 1
        elif position < last:
            assert found in {TOTAL - 40, TOTAL - 50}, "one frame is lost, and those behind it are found"
            assert reader.damaged >= 1
            assert reader.problems()
        elif position < last + 32:
            assert found == TOTAL - 10
            assert reader.problems() == [], "the last frame's header looks like a torn tail"
        else:
            assert found == TOTAL - 10
            assert reader.damaged == 1


@pytest.mark.parametrize("which", [0, 1])
def test_every_bit_of_one_of_two_segments_flipped(tmp_path, which):
    first = small_segment(tmp_path / "a", sealed=True)
    second = small_segment(tmp_path / "b", sealed=False, frames=[[(150, 170), (205, 215)]])
    shared = tmp_path / "j"
    shared.mkdir()
    paths = [path.rename(shared / path.name) for path in (first, second)]
    intact = TOTAL + 20
    largest = max(path.stat().st_size for path in paths)
    for _ in flips(paths[which]):
        _, found = checked(paths[which], largest)
        assert found >= intact - (60, 20)[which]
    assert checked(paths[0], largest)[1] == intact


@pytest.mark.parametrize("kind", ["sealed", "unsealed"])
def test_truncation_at_every_byte(kind, request):
    path = request.getfixturevalue(kind)
    whole = path.read_bytes()
    ends = [whole.index(REMOTE[a:b]) + b - a for a, b in ((100, 140), (200, 230), (140, 150))]
    for size in range(len(whole) - 1, -1, -1):
        os.truncate(path, size)
        reader, found = checked(path, largest=max(size, HEADER.size))
        assert found == sum(n for end, n in zip(ends, (40, 50, 10), strict=True) if size >= end)
        assert reader.damaged == 0
        assert reader.problems() == [], "a torn tail is silent"


@pytest.mark.parametrize("kind", ["sealed", "unsealed"])
@pytest.mark.parametrize("block", [7, 64, 200])
def test_zeroed_blocks_anywhere(kind, block, request):
    path = request.getfixturevalue(kind)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes(len(whole[position : position + block])) + whole[position + block :])
        checked(path)


@pytest.mark.parametrize("kind", ["sealed", "unsealed"])
def test_random_garbage_in_place_of_any_part(kind, request):
    path, rng = request.getfixturevalue(kind), random.Random(2)
    whole = path.read_bytes()
    for _ in range(500):
        a, b = sorted(rng.randrange(len(whole) + 1) for _ in range(2))
        garbage = rng.randbytes(rng.choice([b - a, rng.randrange(200)]))
        path.write_bytes(whole[:a] + garbage + whole[b:])
        checked(path)


def test_huge_lengths_with_sound_magic_are_not_believed(unsealed):
    whole = unsealed.read_bytes()
    frame = whole.index(FRAME_MAGIC)
    for at in (frame + 4, frame + 8, 12):
        unsealed.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :])
        checked(unsealed)


def test_damage_in_the_middle_is_reported_with_its_place(unsealed):
    whole = unsealed.read_bytes()
    frame = whole.index(FRAME_MAGIC)
    unsealed.write_bytes(whole[:frame] + b"XXXX" + whole[frame + 4 :])
    reader = attached(unsealed.parent)
    ((path, what),) = reader.problems()
    assert path == str(unsealed)
    assert what == f"damaged between {frame} and {whole.index(FRAME_MAGIC, frame + 1)}"
    assert reader.damaged == 1
    assert hits(reader.view(VERSION), 0, 500) == [(140, 150), (200, 230), (400, 420)]


def test_search_behind_damage_finds_headers_across_its_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("jcache.segment.segment._SEARCH_BYTES", 40)
    path = small_segment(tmp_path / "j", sealed=False)
    whole = path.read_bytes()
    frame = whole.index(FRAME_MAGIC)
    for shift in range(45):
        # Only the distance from the damage to the next frame matters: positions are checked, so the rest keeps its
        # place.
        path.write_bytes(whole[: frame - shift] + bytes(shift + 4) + whole[frame + 4 :])
        attached(path.parent)
    path.write_bytes(whole[:frame] + b"XXXX" + whole[frame + 4 :])
    assert checked(path)[1] == TOTAL - 40


class Watched(Storage):
    """Counts what is read, and takes files for longer than they are, as who looked before they were cut."""

    def __init__(self, more_bytes=0):
        self.more_bytes, self.reads, self.bytes = more_bytes, 0, 0

    def fstat(self, fd):
        found = list(super().fstat(fd))
        found[6] += self.more_bytes
        return os.stat_result(found, {"st_mtime_ns": found[8] * 10**9})

    def pread(self, fd, size, position):
        data = super().pread(fd, size, position)
        self.reads, self.bytes = self.reads + 1, self.bytes + len(data)
        return data


def looked_at(path, storage, *, by):
    """Have a journal or a check look at a segment."""
    if by == "journal":
        attached(path.parent, storage).close()
    else:
        check(storage, str(path.parent), path.name)


@pytest.mark.parametrize("by", ["journal", "check"])
def test_a_file_that_was_cut_is_not_searched_byte_by_byte(unsealed, by):
    raw = bytearray(unsealed.read_bytes())
    raw[raw.rindex(FRAME_MAGIC)] ^= 1
    unsealed.write_bytes(raw)
    looked_at(unsealed, storage := Watched(100_000), by=by)
    assert storage.reads < 100


@pytest.mark.parametrize("by", ["journal", "check"])
def test_searches_end_together(tmp_path, by):
    """Of a file that is holes with frames between them, no more is searched than of one hole."""
    salt, metadata = 7, describe(IDENTITY, VERSION, {}).pack()
    path = tmp_path / segment_name("evil", 1, salt)
    with path.open("wb") as file:
        file.write(pack_header(salt, metadata))
        for number in range(1, 11):
            file.seek(number * 100_000_000)
            file.write(pack_frame(salt, file.tell(), [number], [1], [checksum(b"x", salt)]) + b"x")
    looked_at(path, storage := Watched(), by=by)
    assert 200_000_000 < storage.bytes < 300_000_000


def test_a_frame_copied_to_another_place_is_not_taken(tmp_path):
    path = small_segment(tmp_path / "j", sealed=False)
    whole = path.read_bytes()
    frame, second = (m for m in (whole.index(FRAME_MAGIC), whole.index(FRAME_MAGIC, whole.index(FRAME_MAGIC) + 1)))
    path.write_bytes(whole + whole[frame:second])
    assert checked(path)[1] == TOTAL
    path.write_bytes(whole[:frame] + whole[second:])
    assert checked(path)[1] == 0


@pytest.mark.parametrize("sealed_outer", [True, False])
@pytest.mark.parametrize("sealed_inner", [True, False])
def test_a_journal_inside_a_journal(tmp_path, sealed_inner, sealed_outer):
    inner = small_segment(tmp_path / "inner", sealed=sealed_inner)
    remote = b"-" * 10 + inner.read_bytes()
    version = Version(len(remote), 1)
    outer = journal(tmp_path / "outer", identity="https://example.org/@x.seg")
    outer.append(version, {}, [(0, remote)])
    outer.append(version, {}, [(10, remote[10:])])  # ends with the inner one's trailer
    outer.close() if sealed_outer else outer.forget()
    reader = attached(tmp_path / "outer", identity="https://example.org/@x.seg")
    assert [stored.version for stored in reader.versions()] == [version]
    assert readable(reader.view(version), 0, len(remote), remote) == len(remote)
    # Damage in front of the inner one's frames makes the scan search through them.
    (path,) = (tmp_path / "outer").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(FRAME_MAGIC, b"XXXX", 1)[: len(whole) if not sealed_outer else -1])
    reader = attached(tmp_path / "outer", identity="https://example.org/@x.seg")
    assert readable(reader.view(version), 0, len(remote), remote) == len(remote) - 10
    assert readable(reader.view(VERSION)) == 0


def test_the_own_segment_cached_in_itself(tmp_path):
    path = small_segment(tmp_path / "j", sealed=True)
    remote = path.read_bytes()
    version = Version(len(remote), 1)
    writer = journal(path.parent)
    record(writer, (600, 610))
    (live,) = set(path.parent.iterdir()) - {path}
    own = live.read_bytes()
    writer.append(VERSION, {}, [(0, own)])
    writer.forget()
    whole = live.read_bytes()
    live.write_bytes(whole.replace(FRAME_MAGIC, b"XXXX", 1))
    reader = attached(path.parent)
    assert not [p for p in reader.view(VERSION).find(600, 610) if p[2]], "a frame inside the data is no frame"
    assert reader.view(version).covered() == 0


def test_foreign_files_are_left_alone(tmp_path):
    path = small_segment(tmp_path / "j", sealed=True)
    directory = path.parent
    salt = 0xABCDEF
    name = segment_name("h", 1, salt)
    (directory / "@h.1.00000000000000aa.seg").mkdir()
    os.mkfifo(directory / "@h.1.00000000000000bb.seg")
    (directory / "@h.1.00000000000000cc.seg").symlink_to(path)
    (directory / "@h.1.00000000000000dd.seg").write_bytes(b"#!/bin/sh\n" * 100)
    shutil.copy(path, directory / name)  # a copy under another name: its salt says so
    (directory / "@nonsense.seg").write_bytes(b"")
    (directory / "notes.txt").write_text("mine")
    (directory / "sub").mkdir()
    (directory / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    (directory / "@lease").write_bytes(b"")
    before = {entry.name: entry.lstat().st_mtime_ns for entry in directory.iterdir()}
    reader = attached(directory)
    assert readable(reader.view(VERSION), 0, 500) == TOTAL
    found = dict(reader.problems())
    assert found.pop(str(directory / "@h.1.00000000000000aa.seg")) == "not a regular file"
    assert found.pop(str(directory / "@h.1.00000000000000bb.seg")) == "not a regular file"
    assert "cannot be opened" in found.pop(str(directory / "@h.1.00000000000000cc.seg"))
    assert "magic" in found.pop(str(directory / "@h.1.00000000000000dd.seg"))
    assert "salt" in found.pop(str(directory / name))
    assert found.pop(str(directory / "@nonsense.seg")) == "not a segment's name"
    assert found == {}
    assert {entry.name: entry.lstat().st_mtime_ns for entry in directory.iterdir()} == before


@pytest.mark.parametrize("is_sealed", [True, False])
def test_another_identity_is_ignored(tmp_path, is_sealed):
    path = small_segment(tmp_path / "j", sealed=is_sealed)
    reader = attached(path.parent, identity="https://example.org/g")
    assert reader.versions() == []
    assert reader.view(VERSION).covered() == 0
    assert reader.problems() == [(str(path), f"belongs to {IDENTITY}")]


@pytest.mark.parametrize("is_sealed", [True, False])
def test_another_version_is_kept_apart(tmp_path, is_sealed):
    path = small_segment(tmp_path / "j", sealed=is_sealed)
    reader = attached(path.parent)
    replaced = Version(VERSION.size_bytes, etag='"2"')
    assert hits(reader.view(replaced), 0, 500) == []
    writer = attached(path.parent)
    other = bytes(byte ^ 255 for byte in REMOTE[:300])
    writer.append(replaced, {}, [(50, other[50:160])])
    writer.close()
    reader.refresh()
    assert readable(reader.view(VERSION), 0, 500) == TOTAL
    assert readable(reader.view(replaced), 0, 300, other) == 110
    assert [stored.version for stored in reader.versions()] == [replaced, VERSION]


@pytest.mark.parametrize("field", ["format version", "metadata"])
def test_a_header_of_a_later_program_is_ignored(tmp_path, field):
    packed = Metadata(IDENTITY, VERSION, {}, "h", 1, 1).pack() if field != "metadata" else b'{"identity":"x"}'
    header = pack_header(5, packed)
    if field == "format version":
        header = HEADER_MAGIC + b"\x02\x00" + header[10:]
    path = tmp_path / segment_name("h", 1, 5)
    path.write_bytes(header + INDEX_MAGIC)
    reader = attached(tmp_path)
    assert reader.versions() == []
    ((found, what),) = reader.problems()
    assert found == str(path)
    assert field in what


@pytest.mark.parametrize("what", ["removed", "replaced", "truncated", "emptied", "overwritten", "directory removed"])
@pytest.mark.parametrize("is_sealed", [True, False])
def test_segments_that_others_change_while_open(tmp_path, is_sealed, what):
    path = small_segment(tmp_path / "j", sealed=is_sealed)
    reader = attached(path.parent)
    view = reader.view(VERSION)
    parts = [part for part in view.find(0, 500) if part[2]]
    whole = path.read_bytes()
    if what == "removed":
        path.unlink()
    elif what == "replaced":
        other = tmp_path / "other"
        other.write_bytes(bytes(len(whole)))
        other.rename(path)
    elif what == "truncated":
        os.truncate(path, len(whole) // 2)
    elif what == "emptied":
        os.truncate(path, 0)
    elif what == "overwritten":
        path.write_bytes(random.Random(3).randbytes(len(whole)))
    else:
        shutil.rmtree(path.parent)
    for _ in range(2):
        readable(view, 0, 500)
        reader.refresh()
    if what in {"removed", "replaced", "directory removed"}:
        assert [view.read(part) for part in parts] == [REMOTE[a:b] for a, b, *_ in parts], "held open, still right"
    # And the journal goes on.
    assert record(reader, (300, 310)) > 0
    assert readable(view, 300, 310) == 10
    reader.close()
    assert readable(attached(path.parent).view(VERSION), 300, 310) == 10


def test_damage_is_counted_once_and_a_second_recording_heals_it(unsealed):
    whole = unsealed.read_bytes()
    at = whole.index(REMOTE[100:140])
    unsealed.write_bytes(whole[:at] + b"\0" + whole[at + 1 :])
    reader = attached(unsealed.parent)
    view = reader.view(VERSION)
    assert readable(view, 0, 500) == readable(view, 0, 500) == TOTAL - 40
    assert reader.damaged == 1
    record(reader, (100, 140))
    assert readable(view, 0, 500) == TOTAL
    reader.close()
    # The damaged copy is still in the first segment; another process finds it, or the sound one.
    again = attached(unsealed.parent)
    list(read(again.view(VERSION), 0, 500))
    assert readable(again.view(VERSION), 0, 500) == TOTAL


def test_what_was_found_damaged_is_not_sealed(tmp_path):
    writer = journal(tmp_path)
    for ranges in FRAMES:
        record(writer, *ranges)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(whole.index(REMOTE[200:230]))
        file.write(b"damaged")
    assert readable(writer.view(VERSION), 0, 500) == TOTAL - 30
    writer.close()
    reader = attached(tmp_path)
    (run,) = reader.view(VERSION).runs
    assert list(run.starts) == [100, 140, 400]
    assert readable(reader.view(VERSION), 0, 500) == TOTAL - 30
    assert reader.damaged == 0


def test_damage_in_a_long_extent_costs_one_piece(tmp_path):
    writer = journal(tmp_path)
    record(writer, (1000, 1_000_000))
    view = writer.view(VERSION)
    (part,) = view.find(1000, 1_000_000)
    (path,) = tmp_path.iterdir()
    at = path.read_bytes().index(REMOTE[600_000:600_010])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"0123456789")
    assert readable(view, 0, 500_000) == 499_000
    assert list(read(view, 1000, 1_000_000)) == [], "one read, one answer"
    assert readable(view) == 999_000 - 256 * 1024
    assert writer.damaged == 1
    with pytest.raises(DamagedExtent, match="1 of 4 extents from 1000 on"):
        view.read(part)
    assert readable(view) == 999_000 - 256 * 1024
    assert writer.damaged == 1


def test_pieces_read_through_a_storage_that_reads_short(tmp_path):
    class Short(Storage):
        def pread(self, fd, size, position):
            return os.pread(fd, min(size, 1 + size // 2), position)

    writer = journal(tmp_path, Short())
    record(writer, (0, 600_000))
    record(writer, (700_000, 700_001))
    writer.close()
    reader = attached(tmp_path, Short())
    assert readable(reader.view(VERSION)) == 600_001
    assert (reader.damaged, reader.problems()) == (0, [])


@pytest.mark.parametrize("length", [(1 << 32) - 1, 5000])
def test_an_index_that_promises_more_than_the_file_holds(tmp_path, length):
    """Its checksums are right, so only its writer can have been wrong: still nothing is allocated for it."""
    packed = Metadata(IDENTITY, VERSION, {}, "h", 1, 1).pack()
    header = pack_header(5, packed)
    columns = Columns(array("Q", [0]), array("I", [length]), array("Q", [1]), array("Q", [len(header)]))
    path = tmp_path / segment_name("h", 1, 5)
    path.write_bytes(header + pack_seal(5, len(header), columns, packed))
    reader, found = checked(path)
    assert (found, reader.damaged) == (0, 1)
