"""A small file in one sealed segment: written by one call, read by one, and wrong under no circumstances."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest
from faults import Crashed, FaultyStorage, error

from jcache.journal import Journal, JournalError, Version
from jcache.journal.whole import WHOLE_BYTES, Whole, read_whole, write_whole
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

KEY = "url:https/example.org/a/f"
DATA = random.Random(5).randbytes(300)
VERSION = Version(len(DATA), etag='"1"', mtime_ns=10**18)
WHOLE = Whole(VERSION, {"size": len(DATA), "mimetype": "text/plain"}, DATA)
NOW_NS = 1_700_000_000_000_000_000


def write(directory: Path, storage: Storage | None = None, whole: Whole = WHOLE, key: str = KEY) -> int:
    return write_whole(
        storage or Storage(), os.fspath(directory), key, whole, dir_mode=0o700, file_mode=0o600, proved_ns=NOW_NS
    )


def read(directory: Path, key: str = KEY) -> object:
    return read_whole(Storage(), os.fspath(directory), key)


def by_journal(directory: Path) -> bytes | None:
    """What an ordinary reader gets of the file: all of it, or a miss."""
    journal = Journal(Storage(), os.fspath(directory), KEY)
    try:
        journal.attach()
        parts = journal.view(VERSION).find(0, len(DATA))
        if any(part[2] is None for part in parts):
            return None
        return b"".join(journal.view(VERSION).read(part) for part in parts)
    except JournalError:
        return None
    finally:
        journal.forget()


def segment_of(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def test_what_is_written_is_read_and_is_an_ordinary_sealed_segment(tmp_path: Path) -> None:
    place = tmp_path / "a" / "f"
    assert read(place) == "nothing"
    size = write(place)
    path = segment_of(place)
    assert path.stat().st_size == size
    assert read(place) == WHOLE
    assert by_journal(place) == DATA
    journal = Journal(Storage(), os.fspath(place), KEY)
    journal.attach()
    (stored,) = journal.versions()
    assert (stored.version, stored.info) == (VERSION, WHOLE.info)
    assert stored.validated_ns == NOW_NS, "not when it was written"
    assert not journal.problems()
    assert not journal.others_live(), "it is sealed: nobody writes here"
    journal.close()
    assert read(place) == WHOLE


def test_the_calls_that_it_takes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    storage = FaultyStorage()
    write(tmp_path / "a" / "f", storage)
    assert storage.calls == ["mkdir", "open", "pwritev", "utime", "close"]
    assert not storage.open_fds
    storage.calls.clear()
    assert read_whole(storage, os.fspath(tmp_path / "a" / "f"), KEY) == WHOLE
    assert storage.calls == ["listdir", "open", "fstat", "pread", "close"]
    assert not storage.open_fds


def test_only_a_journal_tells_of_anything_else(tmp_path: Path) -> None:
    write(tmp_path / "f")
    assert read(tmp_path / "f", key=KEY + "x") == "unclear", "another file that has the same name here"
    write(tmp_path / "f")
    assert read(tmp_path / "f") == "unclear", "two segments"
    journal = Journal(Storage(), os.fspath(tmp_path / "part"), KEY)
    journal.append(VERSION, {}, [(0, DATA[:100])])
    assert read(tmp_path / "part") == "unclear", "being written"
    journal.close()
    assert read(tmp_path / "part") == "unclear", "a part of it"
    journal = Journal(Storage(), os.fspath(tmp_path / "two"), KEY)
    journal.append(VERSION, {}, [(0, DATA[:100]), (100, DATA[100:])])
    journal.close()
    assert read(tmp_path / "two") == "unclear", "two extents"
    (tmp_path / "tree" / "below").mkdir(parents=True)
    assert read(tmp_path / "tree") == "nothing", "the directory of others"
    (tmp_path / "file").write_bytes(b"")
    assert read(tmp_path / "file") == "unclear"
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / segment_of(tmp_path / "two").name)
    assert read(tmp_path / "fifo") == "unclear"


def test_an_empty_file_is_a_segment_without_extents(tmp_path: Path) -> None:
    empty = Whole(Version(0, etag='"1"'), {"a": 1}, b"")
    write(tmp_path / "f", whole=empty)
    assert read(tmp_path / "f") == empty
    journal = Journal(Storage(), os.fspath(tmp_path / "f"), KEY)
    journal.attach()
    assert [known.version for known in journal.versions()] == [empty.version]
    assert journal.view(empty.version).covered() == 0
    assert (journal.damaged, journal.problems()) == (0, [])


@pytest.mark.parametrize(
    "whole",
    [
        Whole(Version(len(DATA)), {}, DATA),
        Whole(VERSION, {}, DATA[1:]),
        Whole(VERSION, {}, b""),
        Whole(Version(WHOLE_BYTES + 1, etag='"1"'), {}, bytes(WHOLE_BYTES + 1)),
    ],
    ids=["unproved", "short", "empty", "large"],
)
def test_what_is_no_small_file_is_refused(tmp_path: Path, whole: Whole) -> None:
    with pytest.raises(JournalError):
        write(tmp_path / "f", whole=whole)
    assert not (tmp_path / "f").exists()


def test_a_file_that_is_cut_anywhere_is_a_miss(tmp_path: Path) -> None:
    write(tmp_path / "f")
    path = segment_of(tmp_path / "f")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert read(tmp_path / "f") == "unclear"
        assert by_journal(tmp_path / "f") in {None, DATA}


def test_a_byte_that_is_damaged_anywhere_never_shows(tmp_path: Path) -> None:
    write(tmp_path / "f")
    path = segment_of(tmp_path / "f")
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        found = read(tmp_path / "f")
        assert found in ("unclear", WHOLE), at
        assert found == "unclear" or at < data.index(DATA), "only what stands before the bytes is not looked at"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_whatever_fails_is_a_miss_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    (tmp_path / "a").mkdir()
    for operation in ("mkdir", "open", "pwritev"):
        storage = FaultyStorage(lambda name, _, fails=operation: error(number) if name == fails else None)
        with pytest.raises(JournalError) as caught:
            write(tmp_path / "a" / "f", storage)
        assert caught.value.errno == number
        assert read(tmp_path / "a" / "f") == "nothing"
        assert not storage.open_fds
    storage = FaultyStorage(lambda name, _: (100, None) if name == "pwritev" else None)
    with pytest.raises(JournalError):
        write(tmp_path / "a" / "f", storage)
    assert read(tmp_path / "a" / "f") == "nothing"
    for operation in ("utime", "close"):
        write(
            tmp_path / operation,
            FaultyStorage(lambda name, _, fails=operation: error(number) if name == fails else None),
        )
        assert read(tmp_path / operation) == WHOLE


def test_a_writer_that_is_killed_anywhere_leaves_a_miss_or_the_file(tmp_path: Path) -> None:
    outcomes = set()
    for step in range(6):
        for written in (0, 1, 100, 500, 10_000):
            place = tmp_path / f"{step}-{written}"

            def plan(name: str, number: int, step: int = step, written: int = written) -> object:
                if number != step:
                    return None
                return (written, Crashed()) if name == "pwritev" else Crashed()

            try:
                write(place, FaultyStorage(plan))  # type: ignore[arg-type]
            except Crashed:
                outcomes.add("killed")
            found = read(place)
            assert found in ("nothing", "unclear", WHOLE)
            assert by_journal(place) in {None, DATA}
            outcomes.add("whole" if found == WHOLE else str(found))
    assert outcomes == {"killed", "nothing", "unclear", "whole"}


def test_reading_that_fails_is_left_to_the_journal(tmp_path: Path) -> None:
    write(tmp_path / "f")
    for operation in ("listdir", "open", "fstat", "pread"):
        storage = FaultyStorage(lambda name, _, fails=operation: error(errno.EIO) if name == fails else None)
        assert read_whole(storage, os.fspath(tmp_path / "f"), KEY) == "unclear"
        assert not storage.open_fds
