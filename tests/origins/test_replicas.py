"""Files at several places: a vector that fails at one goes to another, and bytes of two versions are never mixed."""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import settle
from servers import ScriptedOrigin, XrootdServer

from jcache.errors import OriginChangedError
from jcache.settings.rules import Rule, parse_rule, replicas_of
from jcache_plugins.origins import replicas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcache.session import Session

DATA, OTHER = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
FIRST, NEXT = [(0, 100), (5000, 5100)], [(20_000, 20_500), (70_000, 70_001)]


def pieces(spans: list[tuple[int, int]], data: bytes = DATA) -> list[bytes]:
    return [data[start:stop] for start, stop in spans]


def digest(data: bytes) -> dict[str, str]:
    return {"Digest": f"adler32={zlib.adler32(data):08x}"}


@pytest.fixture
def servers() -> Iterator[list[ScriptedOrigin]]:
    """Four servers, of one file each."""
    replicas.Replicas._failed_s.clear()
    found = [ScriptedOrigin() for _ in range(4)]
    yield found
    for server in found:
        server.stop()


@pytest.fixture
def begin(active: Callable[..., Session], servers: list[ScriptedOrigin]) -> Callable[..., Session]:
    """Begin a session in which so many servers are said to have the same files."""

    def run(count: int = 4, **fields: Any) -> Session:
        return active(rules=(Rule(replicas=tuple(server.url("").rstrip("/") for server in servers[:count])),), **fields)

    return run


def read(server: ScriptedOrigin, spans: list[tuple[int, int]]) -> list[bytes]:
    starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
    return fsspec.filesystem("http").cat_ranges([server.url("f")] * len(spans), starts, stops, on_error="raise")


def test_one_dies_one_has_other_bytes_one_hangs_and_the_fourth_is_read(
    begin, servers: list[ScriptedOrigin], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin()
    first, other, hanging, good = servers
    first.put("f", DATA, etag='"first"', headers=digest(DATA))
    other.put("f", OTHER, etag='"other"', headers=digest(OTHER))
    hanging.put("f", DATA, etag='"hanging"', headers=digest(DATA), delay_s=60.0, head_delay_s=60.0)
    good.put("f", DATA, etag='"good"', headers=digest(DATA))
    assert read(first, FIRST) == pieces(FIRST)
    assert [server.requests for server in servers[1:]] == [0, 0, 0]
    first.stop()
    with monkeypatch.context() as patch:  # for this read alone, in which nobody else is to be given up
        patch.setattr(replicas, "HANG_S", 0.3)
        assert read(first, NEXT) == pieces(NEXT)
    assert other.body_bytes <= 1  # which a `GET` asks for its version with
    counts = session.counters.snapshot()
    assert counts.origin_retries >= 3
    assert counts.origin_errors == 0
    settle()
    # All is one version, whichever place it came from: another process has all of it from the journal.
    begin()
    good.reset()
    assert read(first, FIRST + NEXT) == pieces(FIRST + NEXT)
    assert good.body_bytes <= 1


def test_where_nobody_tells_a_checksum_another_place_is_asked_only_before_anything_is_known(
    begin, servers: list[ScriptedOrigin]
) -> None:
    begin(2, retries=4)
    first, second = servers[:2]
    first.put("f", DATA, etag='"first"')
    second.put("f", DATA, etag='"second"')
    assert read(first, FIRST) == pieces(FIRST)
    first.stop()
    with pytest.raises(OSError, match=r"."):
        read(first, NEXT)
    assert second.body_bytes <= 1
    settle()
    begin(2)
    assert read(first, FIRST + NEXT) == pieces(FIRST + NEXT)
    settle()


def test_without_a_checksum_equal_times_are_no_word_for_equal_bytes(begin, servers: list[ScriptedOrigin]) -> None:
    """What copies a tree keeps times, and nginx makes its tags of them."""
    first, second = servers[:2]
    for told in ({}, digest(OTHER)):
        replicas.Replicas._failed_s.clear()
        begin(2, retries=4)
        first.put("f", DATA, etag='"1"', modified_s=1_600_000_000)
        second.put("f", OTHER, etag='"1"', modified_s=1_600_000_000, headers=told)
        assert read(first, FIRST) == pieces(FIRST)
        settle()
        first.stop()
        with pytest.raises(OSError, match=r"."):
            read(first, NEXT)
        begin(2, retries=4)
        assert read(first, FIRST + NEXT) == pieces(FIRST + NEXT, OTHER), "not what was recorded, which is of the first"
        first.start()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("retries", [0, 10])
def test_a_place_that_is_slow_is_not_given_up(
    begin, servers: list[ScriptedOrigin], monkeypatch: pytest.MonkeyPatch, known: bool, retries: int
) -> None:
    session, (first, second) = begin(2, retries=retries), servers[:2]
    second.put("f", DATA, headers=digest(DATA))
    slow = first.put("f", DATA, headers=digest(DATA))
    if known:
        read(first, FIRST)
    monkeypatch.setattr(replicas, "HANG_S", 0.2)
    monkeypatch.setattr(replicas, "SLOWEST_BYTES_PER_S", 5_000 if retries else 10**9)
    slow.once[slow.gets + 1] = {"delay_s": 1.0}
    assert fsspec.filesystem("http").cat_file(first.url("f")) == DATA
    assert second.requests == session.counters.snapshot().origin_retries == 0


@pytest.mark.parametrize(
    ("count", "for_s", "hang_s"), [(2, 60.0, 15.0), (4, 60.0, 15.0), (10, 60.0, 6.0), (2, 0.0, 1.0)]
)
def test_all_places_have_their_turn_while_requests_are_sent_again(count: int, for_s: float, hang_s: float) -> None:
    assert replicas.patience_s(for_s, count) == hang_s


def test_a_file_that_is_missing_at_one_place_is_read_at_another(begin, servers: list[ScriptedOrigin]) -> None:
    begin(2)
    servers[1].put("f", DATA)
    assert read(servers[0], FIRST) == pieces(FIRST)
    with fsspec.open(servers[0].url("f")) as file:
        assert (file.read(50), file.details["name"]) == (DATA[:50], servers[0].url("f"))
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("http").cat_file(servers[0].url("none"), 0, 10)


def test_replaced_at_the_first_place_it_is_replaced(begin, servers: list[ScriptedOrigin]) -> None:
    begin(2)
    first, second = servers[:2]
    served = first.put("f", DATA, etag='"first"', headers=digest(DATA))
    second.put("f", DATA, etag='"second"', headers=digest(DATA))
    assert read(first, FIRST) == pieces(FIRST)
    served.change(OTHER, etag='"changed"')
    served.headers = digest(OTHER)
    with pytest.raises(OriginChangedError):
        read(first, NEXT)
    assert read(first, FIRST + NEXT) == pieces(FIRST + NEXT, OTHER)


def test_without_retries_the_first_place_is_the_only_one(begin, servers: list[ScriptedOrigin]) -> None:
    session = begin(2, retries=0)
    servers[0].put("f", DATA, status=503)
    servers[1].put("f", DATA)
    with pytest.raises(Exception, match="503"):
        read(servers[0], FIRST)
    assert session.counters.snapshot().origin_retries == 0


def test_where_no_place_is_left_the_error_is_the_first_ones_and_not_its_own_cause() -> None:
    class Gone:
        fs, path, identity = fsspec.filesystem("memory"), "f", None

        def __init__(self, *_: object) -> None:
            self.error = FileNotFoundError()

        async def stat(self) -> None:
            raise self.error

    async def ask(at: int) -> BaseException:
        first = Gone()
        found = replicas.Replicas(first, "memory://a/f", ["memory://b/f"], Gone)
        found._at = at
        for _ in range(2):
            with pytest.raises(FileNotFoundError) as raised:
                await found.stat()
        assert raised.value is first.error
        return raised.value

    for at in range(2):
        error = asyncio.run(ask(at))
        assert error.__cause__ is not error


def test_two_xrootd_servers_of_which_one_dies(active, export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files have different times: that they are the same is told by size and checksum."""
    pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")
    places = []
    for number in range(2):
        place = export_dir / str(number)
        place.mkdir()
        (place / "f").write_bytes(DATA)
        os.utime(place / "f", (1_600_000_000 + number,) * 2)
        places.append(place)
    with XrootdServer(places[0]) as first, XrootdServer(places[1]) as second:
        session = active(rules=(Rule(replicas=(first.url("").rstrip("/"), second.url("").rstrip("/"))),))
        fs, path = fsspec.url_to_fs(first.url("f"))

        def vector(spans: list[tuple[int, int]]) -> list[bytes]:
            starts, stops = zip(*spans, strict=True)
            return fs.cat_ranges([path] * len(spans), list(starts), list(stops), on_error="raise")

        assert vector(FIRST) == pieces(FIRST)
        monkeypatch.setattr(replicas, "HANG_S", 0.5)
        os.kill(first.pid, 9)
        assert vector(NEXT) == pieces(NEXT)
        assert [(read.offset, read.length) for read in second.reads()] == [(a, b - a) for a, b in NEXT]
        assert session.counters.snapshot().origin_errors == 0


def test_the_trees_of_a_rule() -> None:
    rule = parse_rule({"replicas": ["root://a//store/", "https://b/store"]})
    assert replicas_of((rule,), "root://a//store/x/f") == ("https://b/store/x/f",)
    assert replicas_of((rule,), "root://other//store/x/f", "https://b/store/f") == ("root://a//store/f",)
    assert replicas_of((rule,), "root://a//stored/f") == ()
    assert not rule.matches("root://a//store/x/f")
    with pytest.raises(ValueError, match="a rule of its own"):
        parse_rule({"replicas": ["root://a//store", "https://b/store"], "validate": "never"})
