"""The bytes of a profile: golden ones, those of any requests, and those that something has happened to."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from jcache.counters import LISTING, OPEN, READ, STAT, VECTOR
from jcache.profile.format import (
    BLOCK,
    END,
    FILES,
    HEAD,
    REQUESTS,
    Batch,
    Request,
    pack_batch,
    pack_block,
    pack_json,
    pack_start,
    parse_batch,
    parse_block_head,
    parse_payload,
)
from jcache.profile.reader import Profile, ProfileError, Recording

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://host/f.root"
WORKED = [
    Request(OPEN, 1000, 800, 0, 0, [0], [5000], 0, 0, 0, 0),
    Request(VECTOR, 3000, 1500, 0, 0, [0, 300, 4000], [100, 400, 4100], 100, 200, 0, 0),
    Request(READ, 3020, 20, 0, 0, [4100], [4200], 100, 0, 0, 0),
]
"""The example of docs/profile.md."""

GOLDEN = bytes.fromhex(
    """
    89 4a 43 50 52 46 0d 0a 01 00 00 00 00 00 00 00
    4a 43 50 42 48 00 00 00 0b 00 00 00 0b 00 00 00
    00 00 00 00 00 00 00 00 8d 9e 98 3a fa 40 a8 58
    7b 22 72 75 6e 22 3a 22 72 22 7d 4a 43 50 42 46
    00 00 00 1b 00 00 00 1b 00 00 00 00 00 00 00 00
    00 00 00 62 a9 68 18 f5 0b cd ce 5b 22 68 74 74
    70 73 3a 2f 2f 68 6f 73 74 2f 66 2e 72 6f 6f 74
    22 2c 22 62 22 5d 4a 43 50 42 52 00 00 00 46 00
    00 00 46 00 00 00 03 00 00 00 05 00 00 00 a7 9d
    5a af e4 16 d9 41 e8 03 00 00 00 00 00 00 01 00
    02 01 02 00 d0 14 00 07 00 02 20 dc 14 03 05 00
    00 00 01 01 03 01 02 00 78 c8 10 00 00 ec 00 0e
    00 02 88 64 64 64 64 13 00 00 00 00 02 00 c8 00
    00 00 00 00 00 02 88 00 00 13 00 00 4a 43 50 42
    5a 00 00 00 19 00 00 00 19 00 00 00 00 00 00 00
    00 00 00 00 78 ee f5 5f 48 c8 40 d6 7b 22 65 6e
    64 5f 74 69 6d 65 22 3a 32 2e 30 2c 22 6c 6f 73
    74 22 3a 33 7d
    """
)


def written(requests: list[Request], *, ends: bool = True) -> bytes:
    blocks = [pack_start(), pack_json(HEAD, {"run": "r"}), pack_json(FILES, [URL, "b"])]
    blocks += [pack_batch(Batch.of(requests))] if requests else []
    return b"".join(blocks + ([pack_json(END, {"end_time": 2.0, "lost": 3})] if ends else []))


def read(path: Path) -> tuple[list[Request], Recording]:
    recording = Recording.open(path)
    return [one for batch in recording.batches() for one in batch], recording


def saved(path: Path, data: bytes) -> Path:
    (path / "p.jcp").write_bytes(data)
    return path / "p.jcp"


def test_the_bytes_are_what_they_were(tmp_path: Path) -> None:
    """Where they change, so must the version of the format."""
    assert written(WORKED) == GOLDEN
    found, recording = read(saved(tmp_path, GOLDEN))
    assert found == WORKED
    assert (recording.head.run, recording.files, recording.state, recording.lost) == ("r", [URL, "b"], "complete", 3)


def test_the_document_has_these_bytes() -> None:
    data = b""
    document = (ROOT / "docs" / "profile.md").read_text()
    for position, row in re.findall(r"^    ([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})", document, re.MULTILINE):
        assert int(position, 16) == len(data)
        data += bytes.fromhex(row)
    assert data == GOLDEN


numbers = st.one_of(st.integers(0, 300), st.integers(0, 1 << 60))
ranges = st.lists(st.tuples(numbers, st.integers(0, 1 << 34)), max_size=4)


@st.composite
def any_request(draw: st.DrawFn) -> Request:
    asked = draw(ranges)
    starts, stops = [start for start, _ in asked], [start + size for start, size in asked]
    served = draw(st.sampled_from(["hit", "miss", "bypass", "any"]))
    total = sum(size for _, size in asked)
    hit, miss, bypass = (total if served == one else 0 for one in ("hit", "miss", "bypass"))
    if served == "any":
        hit, miss, bypass = draw(numbers), draw(numbers), draw(st.integers(0, 2))
    head = draw(st.integers(0, 4)), draw(numbers), draw(numbers), draw(st.integers(0, 300)), draw(st.integers(0, 1))
    return Request(*head, starts, stops, hit, miss, bypass, draw(st.integers(0, 3)))


@given(st.lists(any_request(), min_size=1, max_size=20))
def test_what_is_packed_is_what_is_parsed(requests: list[Request]) -> None:
    data = pack_batch(Batch.of(requests))
    head = parse_block_head(data[: BLOCK.size])
    assert head is not None
    assert (head.kind, head.requests) == (REQUESTS, len(requests))
    payload = parse_payload(head, data[BLOCK.size :])
    assert payload is not None
    batch = parse_batch(head, payload)
    assert batch is not None
    assert list(batch) == requests


@given(st.binary(max_size=200), st.integers(0, 40), st.integers(0, 40))
def test_no_payload_is_too_odd(payload: bytes, requests: int, ranges: int) -> None:
    data = pack_block(REQUESTS, payload, requests=requests, ranges=ranges)
    head = parse_block_head(data[: BLOCK.size])
    assert head is not None
    batch = parse_batch(head, payload)
    assert batch is None or len(list(batch)) == requests


def test_wherever_it_is_cut_what_is_before_stays(tmp_path: Path) -> None:
    whole = written(WORKED[:1], ends=False) + pack_batch(Batch.of(WORKED[1:])) + pack_json(END, {})
    head = len(pack_start() + pack_json(HEAD, {"run": "r"}))
    for size in range(len(whole)):
        path = saved(tmp_path, whole[:size])
        if size < head:
            with pytest.raises(ProfileError, match="is no profile" if size < 16 else "does not say who recorded it"):
                Recording.open(path)
            continue
        found, recording = read(path)
        assert found == WORKED[: len(found)]
        assert recording.state == "cut off"


def test_whichever_byte_is_damaged_nothing_wrong_is_read(tmp_path: Path) -> None:
    whole = written(WORKED)
    for position in range(16, len(whole)):
        path = saved(tmp_path, whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :])
        if position < len(pack_start() + pack_json(HEAD, {"run": "r"})):
            with pytest.raises(ProfileError, match="does not say who recorded it"):
                read(path)
            continue
        found, recording = read(path)
        assert found in ([], WORKED), position
        assert recording.state in ("damaged", "cut off"), position


def test_a_block_that_says_it_is_huge_takes_no_memory() -> None:
    for sizes in ((1 << 31, 1 << 31, 0, 0), (10, 1 << 30, 0, 0), (10, 10, 1 << 30, 0), (10, 10, 0, 1 << 30)):
        assert parse_block_head(BLOCK.pack(b"JCPB", REQUESTS, 1, 0, *sizes, 0)) is None


def test_a_million_ranges_of_a_hundred_bytes_take_less_than_twenty_bytes_each() -> None:
    """Both ways: as reads of one range each, at any place, and as vectors."""
    chance = random.Random(1)
    starts = [chance.randrange(4 << 30) for _ in range(20_000)]
    stops = [start + 100 for start in starts]
    ends = [30 * i + chance.randrange(20) for i in range(len(starts))]
    single = [
        Request(
            READ,
            end,
            chance.randrange(15, 40),
            i % 3,
            i % 200,
            [start],
            [stop],
            100 * (i % 2),
            100 - 100 * (i % 2),
            0,
            0,
        )
        for i, (start, stop, end) in enumerate(zip(starts, stops, ends, strict=True))
    ]
    assert len(pack_batch(Batch.of(single))) < 20 * len(starts)
    vector = Request(VECTOR, 1, 1, 0, 0, starts, stops, 100 * len(starts), 0, 0, 0)
    assert len(pack_batch(Batch.of([vector]))) < 8 * len(starts)


def test_questions_and_kinds_have_names() -> None:
    one = Request(LISTING, 5, 5, 0, 0, [], [], 0, 1, 0, 0)
    other = Request(STAT, 9, 4, 0, 1, [], [], 1, 0, 0, 0)
    data = pack_batch(Batch.of([one, other]))
    head = parse_block_head(data[: BLOCK.size])
    assert head is not None
    assert list(parse_batch(head, data[BLOCK.size :]) or []) == [one, other]


def test_the_processes_of_a_run_have_one_clock_and_one_list_of_files(tmp_path: Path) -> None:
    for number, (start, files) in enumerate([(10.0, ["a", "b"]), (10.5, ["b"])]):
        request = Request(READ, 700_000 - 600_000 * number, 5, 0, len(files) - 1, [0], [1], 1, 0, 0, 0)
        blocks = [pack_start(), pack_json(HEAD, {"start_time": start}), pack_json(FILES, files)]
        (tmp_path / f"{number}.jcp").write_bytes(b"".join([*blocks, pack_batch(Batch.of([request]))]))
    profile = Profile([Recording.open(tmp_path / "0.jcp"), Recording.open(tmp_path / "1.jcp")])
    found = list(profile.requests())
    assert [(process, one.end_us, profile.files[one.file]) for process, one in found] == [
        (1, 600_000, "b"),
        (0, 700_000, "b"),
    ]
    assert [process for process, _ in profile.batches()] == [0, 1]
