"""Odd HTTP servers: whatever plain fsspec makes of one, JCache does, cold and warm. The oracle is another process."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import fsspec
import pytest
from odd_servers import OddServer, attempts, right
from places import SUPPORT

from jcache.activate import activate, deactivate
from jcache.errors import OriginChangedError
from jcache_plugins.origins.http import PROBES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servers import Resource

# JCACHE_ODD_SERVERS=1000:3000 tries these seeds instead.
FIRST, LAST = map(int, os.environ.get("JCACHE_ODD_SERVERS", "0:100").split(":"))
BATCH = 100
# Seeds that have shown a defect.
FOUND = (
    *(118, 139, 226, 241, 258, 264, 291, 319, 439, 993, 1292, 1320, 3006),
    *(3088, 3259, 3266, 3917, 4095, 4105, 4136, 4161, 5067, 5129, 5515, 5702, 5734, 6330, 7317),
)  # fmt: skip


@pytest.fixture(scope="module")
def server():
    server = OddServer()
    yield server
    server.shutdown()
    server.server_close()


def client(server: OddServer, seeds: Sequence[int], cache: Path | None = None) -> dict[str, list]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE", "_JCACHE"))}
    env |= {"JCACHE_SUMMARY": "0"} if cache is None else {"JCACHE_SUMMARY": "0", "JCACHE_DIR": str(cache)}
    program = [sys.executable, str(SUPPORT / "odd_servers.py"), server.base, *map(str, seeds)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def accepted(got: Any, plain: Any, truth: Any) -> bool:
    """Whether this is what plain fsspec gives, or the right bytes where it gives others or none."""
    if got in (plain, truth):
        return True
    if isinstance(truth, list) and not is_bytes(truth) and isinstance(got, list) and isinstance(plain, list):
        # Steps of a file: plain stops at its first error, which may come later here.
        errors = [row for row in plain if isinstance(row, str)]
        steps = itertools.zip_longest(got, plain[: len(got)], truth[: len(got)])
        return (len(got) == len(truth) or isinstance(got[-1], str)) and all(
            mine in errors or accepted(mine, theirs, right) for mine, theirs, right in steps
        )
    # It raises where plain gives wrong bytes in silence.
    return isinstance(got, str) and is_bytes(plain) and is_bytes(truth) and plain != truth


def is_cut(got: Any, plain: Any) -> bool:
    """Whether both end with an error, whichever it is, or this with one that says that bytes are missing."""
    if isinstance(got, list) and not {"ShortReadError", "ClientPayloadError"}.isdisjoint(map(str, got)):
        return True
    ends = [value[-1] if isinstance(value, list) and value else value for value in (got, plain)]
    return ends[0] in ("ShortReadError", "ClientPayloadError") or all(isinstance(end, str) for end in ends)


def is_bytes(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str)


@pytest.mark.parametrize("first", range(FIRST, LAST, BATCH))
def test_as_plain_fsspec_reads_it_cold_and_warm(server: OddServer, tmp_path: Path, first: int) -> None:
    seeds = [*range(first, min(first + BATCH, LAST)), *(FOUND if first == 0 else ())]
    server.cuts = False  # what is cut now and then is to be had by who asks again
    plain = client(server, seeds)
    server.cuts = True
    wrong = []
    for run in ("cold", "warm"):
        got = client(server, seeds, tmp_path / "cache")
        for seed in seeds:
            origin = server.origin(seed)
            if plain[str(seed)] == "hangs":
                continue
            for (name, what), mine, theirs in zip(attempts(seed), got[str(seed)], plain[str(seed)], strict=True):
                truth = right(origin.data, name, what)
                if not (
                    accepted(mine, theirs, truth) or ((origin.drop_after or origin.drop_every) and is_cut(mine, theirs))
                ):
                    wrong.append(f"{run} {seed}: {name}{what} gave {mine}, plain {theirs}, right {truth}; {origin}")
    assert not wrong, "\n".join([f"{len(wrong)} differ", *wrong[:40]])


# -- one by one ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "cache"))
    session = activate()
    assert session is not None
    yield fsspec.filesystem("http", skip_instance_cache=True)
    deactivate()


def test_a_server_that_sends_no_parts_sends_the_file_once(cached, http_origin) -> None:
    data = random.Random(1).randbytes(8 << 20)
    file = http_origin.put("f", data, ranges=False)
    with cached.open(http_origin.url("f")) as opened:
        assert b"".join(iter(lambda: opened.read(300_000), b"")) == data
    assert file.gets == 1
    assert file.body_bytes == len(data)


def test_a_head_that_hangs_costs_its_limit_once(cached, http_origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcache_plugins.origins.questions.HEAD_S", 0.3)
    data = random.Random(2).randbytes(400_000)
    file = http_origin.put("f", data, modified_s=1.6e9, head_delay_s=60.0)
    started_s = time.monotonic()
    with cached.open(http_origin.url("f")) as opened:
        assert opened.read() == data
    assert cached.cat_file(http_origin.url("f"), 5, 10) == data[5:10]
    assert time.monotonic() - started_s < 30
    assert file.heads == 1


def test_tags_that_change_in_every_answer_cost_no_read_and_the_time_is_cached_by(cached, http_origin) -> None:
    data = random.Random(3).randbytes(50_000)
    file = http_origin.put("f", data, etag=None, modified_s=1.6e9, etag_of=lambda number: f'"{number}"')
    url = http_origin.url("f")
    with cached.open(url) as opened:
        assert [opened.read(100) for _ in range(20)] == [data[i : i + 100] for i in range(0, 2000, 100)]
    assert cached.cat_ranges([url] * 2, [0, 40_000], [50, 40_050]) == [data[:50], data[40_000:40_050]]
    gets = file.gets
    assert cached.cat_file(url, 40_010, 40_040) == data[40_010:40_040]
    assert file.gets == gets, "it is recorded"


def test_tags_that_change_are_not_held_against_what_took_long_either(cached, http_origin) -> None:
    data = random.Random(5).randbytes(1_000_000)
    http_origin.put("f", data, if_match=False, modified_s=1.6e9, etag_of=lambda number: f'"{number}"')
    url = http_origin.url("f")
    assert cached.cat_file(url, 0, 10) == data[:10]
    assert cached.cat_file(url, 10, 900_000) == data[10:900_000]


@pytest.mark.parametrize("is_slow", [False, True])
def test_two_servers_behind_one_name_with_tags_of_their_own_cost_no_read(
    cached, http_origin, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    if is_slow:  # it is asked again then, by HEAD, what it was
        monkeypatch.setattr("jcache_plugins.origins.http.took_long", lambda _: True)
    data, chance = random.Random(6).randbytes(50_000), random.Random(7)
    for number in range(60):
        # Which of them answers is chance, but for none of them more than eight times running.
        tags = [tag for _ in range(200) for tag in ('"one"', '"other"') for _ in range(chance.randrange(1, 9))]
        http_origin.put(f"f{number}", data, etag_of=tags.__getitem__)
        url = http_origin.url(f"f{number}")
        assert cached.cat_file(url, 0, 100) == data[:100]
        assert cached.cat_ranges([url] * 2, [500, 40_000], [550, 40_050]) == [data[500:550], data[40_000:40_050]]
        with cached.open(url, block_size=20_000) as opened:
            assert opened.read() == data


@pytest.mark.parametrize("is_now", [True, False])
def test_a_time_that_is_the_present_one_is_no_validator_whenever_its_second_ends(
    cached, http_origin, monkeypatch: pytest.MonkeyPatch, *, is_now: bool
) -> None:
    monkeypatch.setattr("jcache_plugins.origins.http.SECOND_S", 0.0)
    data, ahead_s = random.Random(4).randbytes(20_000), time.time() + 1000
    ends: list[int] = []  # behind so many requests a second ends

    def tell(resource: Resource) -> None:
        resource.modified_s = ahead_s + sum(resource.gets > end for end in ends)

    file = http_origin.put(
        "f", data, if_match=False, etag_of=lambda number: f'"{number}"', at=dict.fromkeys(range(99), tell)
    )
    url = http_origin.url("f")
    assert [cached.cat_file(url, i, i + 10) for i in (0, 50)] == [data[:10], data[50:60]], "by the time, not the tags"
    gets = file.gets
    ends += [gets, gets + 1 + PROBES] if is_now else [gets]
    if is_now:
        assert cached.cat_file(url, 100, 110) == data[100:110]
        ends += range(gets + 2 + PROBES, 99)
        assert cached.cat_ranges([url] * 2, [0, 200], [5, 205]) == [data[:5], data[200:205]]
    else:
        with pytest.raises(OriginChangedError):
            cached.cat_file(url, 100, 110)


@pytest.mark.parametrize("if_match", [True, False])
def test_a_file_that_is_replaced_all_the_time_is_not_taken_for_one_with_restless_tags(
    cached, http_origin, *, if_match: bool
) -> None:
    states = [random.Random(i).randbytes(20_000) for i in range(64)]

    def change(resource: Resource) -> None:
        resource.data, resource.etag = states[resource.gets % 64], f'"{resource.gets}"'

    http_origin.put("f", states[0], etag='"0"', if_match=if_match, at=dict.fromkeys(range(500), change))
    url = http_origin.url("f")
    raised = 0
    for _ in range(10):
        with cached.open(url) as opened:
            try:
                got = opened.read(5000) + opened.read(5000)
            except OriginChangedError:
                raised += 1
            else:
                assert got in [state[:10_000] for state in states]
    assert raised


def test_a_replaced_file_is_read_anew_where_the_client_raises_for_status(http_origin, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "cache"))
    assert activate() is not None
    try:
        fs = fsspec.filesystem("http", client_kwargs={"raise_for_status": True}, skip_instance_cache=True)
        file, url = http_origin.put("f", b"old" * 1000), http_origin.url("f")
        assert fs.cat_file(url, 0, 3) == b"old"
        file.change(b"new" * 1000, etag='"2"')
        with pytest.raises(OriginChangedError):
            fs.cat_file(url, 300, 303)
        assert fs.cat_file(url, 300, 303) == b"new"
    finally:
        deactivate()


def test_an_origin_out_of_reach_raises_what_the_plain_file_system_raises(cached, http_origin) -> None:
    data = b"x" * 1000
    http_origin.put("f", data)
    url = http_origin.url("f")
    assert cached.cat_file(url, 0, 10) == data[:10]
    deactivate()
    assert activate() is not None
    http_origin.stop()
    fs = fsspec.filesystem("http", skip_instance_cache=True)
    with pytest.raises(aiohttp.ClientConnectorError):
        fs.cat_file(url, 0, 10)
    with pytest.raises(FileNotFoundError):
        fs.open(url)
