"""Which requests of a recorded run are made when, and which of them one after the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from jcache.counters import READ, VECTOR
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start
from jcache.profile.reader import Profile, Recording
from jcache_plugins.places import PlaceError, Places
from jcache_plugins.replay import schedule
from jcache_plugins.replay.schedule import calls

if TYPE_CHECKING:
    from pathlib import Path


def read(start_us: int, duration_us: int, *, thread: int = 0, file: int = 0) -> Request:
    return Request(READ, start_us + duration_us, duration_us, thread, file, [0], [10], 0, 10, 0, 0)


def recording(path: Path, requests: list[Request], *, start_time: float = 1000.0) -> Recording:
    ordered = sorted(requests, key=lambda one: one.end_us)
    path.write_bytes(
        pack_start()
        + pack_json(HEAD, {"run": "r", "start_time": start_time})
        + pack_json(FILES, ["https://host/a", "https://host/b"])
        + pack_batch(Batch.of(ordered))
        + pack_json(END, {"end_time": start_time + 1, "lost": 0})
    )
    return Recording.open(path)


def test_requests_are_made_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    chance = random.Random(1)
    requests = [read(chance.randrange(10**6), chance.randrange(10**5), thread=n % 7) for n in range(2000)]
    found = list(calls(Profile([recording(tmp_path / "a.jcp", requests)])))
    assert [one.start_us for one in found] == sorted(one.end_us - one.duration_us for one in requests)


def test_requests_of_one_lane_did_not_overlap_and_there_are_as_many_lanes_as_there_were_at_a_time(
    tmp_path: Path,
) -> None:
    chance = random.Random(2)
    starts = chance.sample(range(10**6), 3000)
    requests = [read(start, chance.randrange(1, 5000), thread=n % 3) for n, start in enumerate(starts)]
    found = list(calls(Profile([recording(tmp_path / "a.jcp", requests)])))
    length = {one.end_us - one.duration_us: one.duration_us for one in requests}
    ends: dict[int, int] = {}
    at_a_time = 0
    for one in found:
        assert ends.get(one.lane, 0) <= one.start_us
        ends[one.lane] = one.start_us + length[one.start_us]
    for thread in range(3):
        edges = [
            edge
            for one in requests
            if one.thread == thread
            for edge in ((one.end_us - one.duration_us, 1), (one.end_us, -1))
        ]
        now = most = 0
        for _, step in sorted(edges):
            now += step
            most = max(most, now)
        at_a_time += most
    assert len(ends) == at_a_time


def test_threads_and_processes_have_lanes_of_their_own_and_one_clock(tmp_path: Path) -> None:
    first = recording(tmp_path / "a.jcp", [read(0, 10), read(20, 10), read(40, 10, thread=1)])
    second = recording(tmp_path / "b.jcp", [read(5, 10, file=1)], start_time=1000.5)
    found = list(calls(Profile([first, second])))
    assert [(one.start_us, one.lane, one.process) for one in found] == [
        (0, 0, 0),
        (20, 0, 0),
        (40, 1, 0),
        (500_005, 2, 1),
    ]


def test_what_took_long_is_made_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(VECTOR, 900_000, 900_000, 1, 0, [0, 20], [10, 30], 20, 0, 0, 0)]
    requests += [read(n * 1000, 500) for n in range(1, 900)]
    found = list(calls(Profile([recording(tmp_path / "a.jcp", requests)])))
    assert (found[0].start_us, found[0].kind, list(found[0].ranges)) == (0, VECTOR, [(0, 10), (20, 30)])
    monkeypatch.setattr(schedule, "AHEAD", 10)
    late = list(calls(Profile([recording(tmp_path / "b.jcp", requests)])))
    assert len(late) == len(found), "none is lost where it is not looked so far ahead"


def test_addresses_are_mapped_and_marks_that_are_no_part_of_them_go() -> None:
    places = Places([("https://old/", "memory://new/"), ("https://", "memory://other/")])
    assert places.mapped("https://old/a/b.root") == "memory://new/a/b.root"
    assert places.mapped("https://host/b.root ~0123abcd") == "memory://other/host/b.root"
    assert places.mapped("root://eos:1094//a b.root") == "root://eos:1094//a b.root"
    fs, path = places.find("https://old/a/b.root")
    assert (type(fs).__name__, path) == ("MemoryFileSystem", "/new/a/b.root")


def test_an_object_of_a_store_is_named_without_the_endpoint_that_is_set() -> None:
    places = Places(options={"s3": {"endpoint_url": "http://127.0.0.1:9000"}})
    assert places.mapped("s3://127.0.0.1:9000/bucket/key") == "s3://bucket/key"
    assert places.mapped("s3://bucket/key") == "s3://bucket/key"


@pytest.mark.parametrize("address", ["/cut/by/basepath.root", "nosuch://host/f"])
def test_what_leads_nowhere_is_named(address: str) -> None:
    with pytest.raises(PlaceError, match=address.rpartition("/")[2]):
        Places().find(address)
