"""What a run would have read from other caches: against sets of bytes, and against real runs with real caches."""

from __future__ import annotations

import json
import os
import random
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from jcache import registry
from jcache.cli.group import main
from jcache.counters import OPEN, READ, VECTOR
from jcache.profile import whatif
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start
from jcache.profile.reader import Profile, Recording
from jcache.profile.whatif import EXACT, WHOLE, Kind, what_if
from jcache.recording import recorder

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunPython
    from servers import Nginx


FILE_BYTES = 10_000


def recording(path: Path, requests: list[Request], files: int, *, start_time: float = 1000.0) -> Recording:
    path.write_bytes(
        pack_start()
        + pack_json(HEAD, {"run": "r", "start_time": start_time})
        + pack_json(FILES, [f"https://host/{number}" for number in range(files)])
        + pack_batch(Batch.of(requests))
        + pack_json(END, {"end_time": start_time + 1, "lost": 0})
    )
    return Recording.open(path)


def vector(end_us: int, file: int, *ranges: tuple[int, int]) -> Request:
    starts, stops = (list(column) for column in zip(*ranges, strict=True))
    size = sum(stops) - sum(starts)
    return Request(VECTOR if len(ranges) > 1 else READ, end_us, 10, 0, file, starts, stops, 0, size, 0, 0)


def opened(end_us: int, file: int) -> Request:
    return Request(OPEN, end_us, 10, 0, file, [0], [FILE_BYTES], 0, 0, 0, 0)


def reads(seed: int, count: int, files: int) -> list[Request]:
    chance = random.Random(seed)
    made = [opened(number, number) for number in range(files)]
    for number in range(count):
        ranges = []
        for _ in range(chance.randrange(1, 6)):
            start = chance.randrange(FILE_BYTES)
            ranges.append((start, min(start + chance.randrange(1, 2000), FILE_BYTES)))
        made.append(vector(1000 + number * 1000, chance.randrange(files), *ranges))
    return made


@pytest.mark.parametrize("unit", [EXACT, 512, 3000, WHOLE])
def test_without_a_limit_it_has_what_was_read_before(tmp_path: Path, unit: int) -> None:
    requests = reads(1, 300, 4)
    (told,) = what_if([Profile([recording(tmp_path / "a.jcp", requests, 4)])], [Kind(None, unit)])
    held: dict[int, set[int]] = {}
    hit = fetched = total = 0
    for one in requests:
        if one.kind == OPEN:
            continue
        there = held.setdefault(one.file, set())
        asked = {at for start, stop in zip(one.starts, one.stops, strict=True) for at in range(start, stop)}
        if unit == EXACT:
            wanted = asked
        elif unit == WHOLE:
            wanted = set(range(FILE_BYTES))
        else:
            wanted = {
                at for block in {at // unit for at in asked} for at in range(block * unit, (block + 1) * unit)
            } & set(range(FILE_BYTES))
        total += sum(one.stops) - sum(one.starts)
        hit += sum(len(there & set(range(*pair))) for pair in zip(one.starts, one.stops, strict=True))
        fetched += len(wanted - there)
        there |= wanted
    assert (told.read_bytes, told.origin_bytes) == (total, fetched)
    assert (told.hit_bytes, told.evicted) == (hit, 0)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    whole = (0, FILE_BYTES)
    order = [0, 1, 2, 0, 3, 0, 1]
    requests = [vector(1000 * (at + 1), file, whole) for at, file in enumerate(order)]
    profile = Profile([recording(tmp_path / "a.jcp", requests, 4)])
    # Room for three of them; what is cleaned goes down to nine tenths.
    lru = Kind(3 * FILE_BYTES + 4 * (64 << 10), WHOLE, "lru")
    (told,) = what_if([profile], [lru])
    assert told.evicted == 0
    small = [Kind(size, WHOLE, "lru") for size in (500_000, 1_000_000)]
    big = [Request(READ, one.end_us, 10, 0, one.file, [0], [150_000], 0, 150_000, 0, 0) for one in requests]
    tight, wide = what_if([Profile([recording(tmp_path / "b.jcp", big, 4)])], small)
    assert wide.hit_bytes == 3 * 150_000
    assert wide.evicted == 0
    assert tight.evicted > 0
    assert tight.hit_bytes < wide.hit_bytes
    assert tight.held_bytes <= 500_000


def test_a_scan_does_not_push_out_what_is_read_again_unless_the_policy_lets_it(tmp_path: Path) -> None:
    big, requests, end_us = 100_000, [], 0
    for again in range(6):
        for file in [0, 1, 2, *range(3 + 8 * again, 11 + 8 * again)]:
            end_us += 100_000_000
            requests.append(Request(READ, end_us, 10, 0, file, [0], [big], 0, big, 0, 0))
            if file < 3:
                requests.append(Request(READ, end_us + 1000, 10, 0, file, [0], [big], big, 0, 0, 0))
    profile = Profile([recording(tmp_path / "a.jcp", requests, 64)])
    size = 1_000_000
    ours, lru = what_if([profile], [Kind(size, WHOLE, policy) for policy in ("jcache", "lru")])
    assert ours.read_bytes == lru.read_bytes
    assert ours.hit_bytes > lru.hit_bytes
    assert ours.origin_bytes < lru.origin_bytes


def test_the_runs_find_what_those_before_them_left_whatever_their_order_on_the_command_line(tmp_path: Path) -> None:
    first = Profile([recording(tmp_path / "a.jcp", [vector(1000, 0, (0, 100))], 1, start_time=1000.0)])
    second = Profile([recording(tmp_path / "b.jcp", [vector(1000, 0, (50, 150))], 1, start_time=2000.0)])
    for profiles in ([first, second], [second, first]):
        (told,) = what_if(profiles, [Kind(None)])
        assert (told.hit_bytes, told.origin_bytes) == (50, 150)


def test_the_command_tells_a_program_and_a_person(tmp_path: Path) -> None:
    recording(tmp_path / "a.jcp", reads(3, 100, 3), 3)
    args = ["whatif", str(tmp_path / "a.jcp"), "--block", "exact,1k,whole", "--size", "1MB,10MB", "--policy", "lru"]
    found = CliRunner().invoke(main, [*args, "--json"], prog_name="jcache")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert [(one["block"], one["size"], one["policy"]) for one in told] == [
        (block, size, "lru") for block in ("exact", 1000, "whole") for size in (10**6, 10**7)
    ]
    exact, *_, whole = told
    assert 0 < exact["hit_rate"] < whole["hit_rate"] < 1
    shown = CliRunner().invoke(main, args, prog_name="jcache").stdout.splitlines()
    assert len(shown) == 7
    assert f"{100 * whole['hit_rate']:.2f} %" in shown[-1]


def test_it_draws_a_line_for_each_kind(tmp_path: Path) -> None:
    recording(tmp_path / "a.jcp", reads(3, 100, 3), 3)
    args = ["whatif", str(tmp_path / "a.jcp"), "--block", "exact,1k,whole", "--size", "1MB,10MB", "--json"]
    found = CliRunner().invoke(main, [*args, "--svg", str(tmp_path / "w.svg")], prog_name="jcache")
    assert found.exit_code == 0, found.output
    names = ET.fromstring((tmp_path / "w.svg").read_text()).iter()
    told = [one.text for one in names if one.tag.endswith("}title")]
    rates = [f"{100 * one['hit_rate']:.2f} %" for one in json.loads(found.stdout)]
    assert [text.rpartition(": ")[2] for text in told[1:]] == rates
    assert CliRunner().invoke(main, [*args, "--svg", str(tmp_path / "no" / "w.svg")], prog_name="jcache").exit_code == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--size", "much"), "--size"), (("--block", "x"), "--block"), (("--block", "whole,1"), "512")],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    recording(tmp_path / "a.jcp", reads(3, 10, 3), 3)
    found = CliRunner().invoke(main, ["whatif", str(tmp_path / "a.jcp"), *args], prog_name="jcache")
    assert found.exit_code == 2
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_more_than_half_of_the_limit_at_once_is_not_kept(tmp_path: Path) -> None:
    requests = [vector(1000 + again * 5_000_000, 0, (0, 600_000), (700_000, 800_000)) for again in range(3)]
    profile = Profile([recording(tmp_path / "a.jcp", requests, 1)])
    small, large = what_if([profile], [Kind(1_200_000), Kind(2_000_000)])
    assert (small.hit_bytes, small.origin_bytes, small.held_bytes) == (0, 2_100_000, 0)
    assert (large.hit_bytes, large.origin_bytes) == (1_400_000, 700_000)
    assert large.held_bytes >= 700_000


@pytest.mark.parametrize(("pause_us", "others_hit"), [(10_000, 300_000), (1_000_000, 0)])
def test_what_a_process_is_writing_makes_no_room_before_it_is_idle(
    tmp_path: Path, pause_us: int, others_hit: int
) -> None:
    whole = (0, 300_000)
    writes = [vector((at + 1) * pause_us, file, whole) for at, file in enumerate([0, 1, 2, 3, 3])]
    writer = recording(tmp_path / "a.jcp", [*writes, vector(30_000_000, 3, whole)], 4)
    other = recording(tmp_path / "b.jcp", [vector(5 * pause_us + 1000, 0, whole)], 1)
    (told,) = what_if([Profile([writer, other])], [Kind(1_250_000)])
    assert told.hit_bytes == 2 * 300_000 + others_hit


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unit", [EXACT, 4096, WHOLE])
def test_no_cache_holds_less_than_nothing_or_more_than_it_may(tmp_path: Path, unit: int, seed: int) -> None:
    chance, requests = random.Random(seed), []
    for at in range(200):
        start = chance.randrange(900_000)
        requests.append(vector(1000 + at * 300_000, chance.randrange(8), (start, start + chance.randrange(1, 100_000))))
    profile = Profile([recording(tmp_path / "a.jcp", requests, 8)])
    sizes = [1000, 100_000, 400_000, 1_000_000, 4_000_000, None]
    for told in what_if([profile], [Kind(size, unit, policy) for size in sizes for policy in ("jcache", "lru")]):
        assert 0 <= told.held_bytes <= (told.kind.size_bytes or told.held_bytes)


def test_it_goes_by_the_times_that_the_recorder_goes_by() -> None:
    assert (whatif.PAUSE_S, whatif.LONGEST_S) == (recorder.PAUSE_S, recorder.LONGEST_S)
    assert whatif.IDLE_FILES == registry.IDLE_FILES


JOB = """
import random, sys, time, fsspec
fs, chance = fsspec.filesystem("http"), random.Random(int(sys.argv[2]))
few = sys.argv[3] == "few"
for number in range(40 if few else 60):
    file, step = (number % 4, 100_000) if few else (min(int(chance.expovariate(0.08)), 39), 10_000)
    starts = sorted(chance.randrange(0, 99) * step for _ in range(8))
    fs.cat_ranges([sys.argv[1] + str(file)] * 8, starts, [start + step for start in starts])
    time.sleep(0.02)
"""


# Real runs with a cache of a few files differ from one another by points (with 16 MB by 4, with 5 MB by 1): what goes
# hangs on when it is looked for.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "size", "points"),
    [
        *(pytest.param("many", size, 2.0, marks=pytest.mark.long) for size in ("5MB", "12MB")),
        *(pytest.param("few", size, points, marks=pytest.mark.long) for size, points in (("4MB", 3.0), ("16MB", 5.0))),
        ("many", "100MB", 0.0),
        pytest.param("few", "40MB", 0.0, marks=pytest.mark.long),
    ],
)
def test_it_says_what_real_runs_with_a_real_cache_did(
    nginx_server: Nginx, run_python: RunPython, cache_dir: Path, tmp_path: Path, files: str, size: str, points: float
) -> None:
    count, nbytes = (4, 10_000_000) if files == "few" else (40, 1_000_000)
    for number in range(count):
        file = nginx_server.directory / f"f{number}"
        file.write_bytes(bytes(nbytes))
        os.utime(file, (1.6e9, 1.6e9))  # of one that was written just now nothing is recorded yet
    where, read, hit = tmp_path / "profiles", 0, 0
    nginx_server.reset()
    for seed in range(3):
        settings = {"JCACHE_PROFILE": str(where), "JCACHE_SIZE": size}
        ran = run_python(JOB, nginx_server.url("f"), str(seed), files, env=settings)
        read, hit = read + ran.report["readv"]["bytes"], hit + ran.report["readv"]["hit_bytes"]
    args = ["whatif", f"{where}/*.jcp", "--size", size, "--json"]
    (told,) = json.loads(CliRunner().invoke(main, args, prog_name="jcache").stdout)
    assert told["read_bytes"] == read
    assert abs(told["hit_bytes"] - hit) <= points / 100 * read
    if not points:
        assert told["origin_bytes"] == nginx_server.body_bytes()
        held = sum(path.stat().st_size for path in cache_dir.rglob("*.seg"))
        assert told["held_bytes"] == pytest.approx(held, rel=0.002)
