"""Requests that fail and may succeed later are sent again: within the bound, counted, and never as another version."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import fsspec
import pytest
from federation import Federation
from readers import PATIENCE_S, Replaced, Setup

from jcache.demo.xrootd_server import XrootdUnavailableError
from jcache.errors import OriginChangedError
from jcache.reader.retrying import Retries
from jcache_plugins.fsspec.access import access
from jcache_plugins.origins.base import seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from activation import Site
    from servers import Resource, ScriptedOrigin, XrootdServer

DATA = random.Random(5).randbytes(200_000)
LONG_AGO = 1_600_000_000
# Of the test that kills a server: how often, and how many read meanwhile.
RESTARTS, READERS = map(int, os.environ.get("JCACHE_RESTARTS", "2:2").split(":"))
BUSY = {"status": 503, "headers": {"Retry-After": "1"}}


def vector(count: int, *, seed: int = 1, size: int = len(DATA)) -> list[tuple[int, int]]:
    chosen = sorted(random.Random(seed).sample(range(0, size - 1000, 1000), count))
    return [(at, at + 500) for at in chosen]


def read(origin: ScriptedOrigin, spans: list[tuple[int, int]], name: str = "f") -> list[bytes]:
    fs = fsspec.filesystem("http")
    return fs.cat_ranges(
        [origin.url(name)] * len(spans), [a for a, _ in spans], [b for _, b in spans], on_error="raise"
    )


def pieces(spans: list[tuple[int, int]], data: bytes = DATA) -> list[bytes]:
    return [data[start:stop] for start, stop in spans]


# -- HTTP ----------------------------------------------------------------------------------------------------------


def test_a_busy_server_is_asked_again_when_it_says(active, http_origin: ScriptedOrigin) -> None:
    session = active()
    http_origin.put("f", DATA, once={2: BUSY, 5: BUSY})
    spans = vector(8)
    started_s = time.monotonic()
    assert read(http_origin, spans) == pieces(spans)
    assert 1 <= time.monotonic() - started_s < PATIENCE_S
    counts = session.counters.snapshot()
    assert (counts.origin_retries, counts.origin_errors) == (2, 0)
    assert counts.origin_requests >= http_origin.resources["/f"].gets == 10


@pytest.mark.parametrize("failing", [{"status": 503}, {"resets": True}], ids=["busy", "reset"])
def test_questions_about_a_name_are_put_again_too(active, http_origin: ScriptedOrigin, failing: dict[str, Any]) -> None:
    session, url = active(), http_origin.url("f")
    fs = fsspec.filesystem("http", skip_instance_cache=True)
    for ask, answer in ((fs.exists, True), (fs.isfile, True), (lambda url: fs.info(url)["size"], len(DATA))):
        before = session.counters.snapshot().origin_retries
        http_origin.put("f", DATA, head=False, once={1: failing, 2: failing})
        assert ask(url) == answer
        assert session.counters.snapshot().origin_retries > before
    active(retries=0)
    http_origin.put("f", DATA, head=False, once={1: BUSY})
    assert not fs.exists(url), "as without JCache"


def test_one_connection_in_ten_is_reset(active, http_origin: ScriptedOrigin) -> None:
    session = active()
    failing = {k: {"drop_after": 100} if k % 20 else {"resets": True} for k in range(10, 1000, 10)}
    resource = http_origin.put("f", DATA, once=failing)
    for seed in range(6):
        spans = vector(20, seed=seed)
        assert read(http_origin, spans) == pieces(spans)
    counts = session.counters.snapshot()
    # Where a connection that was used before is reset, aiohttp sends the request again; not where an answer is cut.
    assert 0 < counts.origin_retries <= resource.gets // 10
    assert counts.origin_errors == 0


@pytest.mark.parametrize(
    "failing", [{"status": 429}, {"resets": True}, {"drop_after": 100}], ids=["busy", "reset", "cut short"]
)
def test_the_bound_holds_and_without_retries_the_error_is_the_plain_one(
    active, http_origin: ScriptedOrigin, failing: dict[str, Any]
) -> None:
    resource = http_origin.put("f", DATA, **failing)
    fs, url = fsspec.filesystem("http"), http_origin.url("f")
    errors = []
    for retries in (0, 2):
        session = active(retries=retries)
        resource.reset()
        with pytest.raises(Exception, match=r".") as raised:
            read(http_origin, [(0, 500)])
        errors.append(raised.value)
        counts = session.counters.snapshot()
        assert counts.origin_retries == retries
        session.bypass("to ask the file system itself")
        with pytest.raises(Exception, match=r".") as plain:
            fs.cat_file(url, start=0, end=500)
        assert type(errors[-1]) is type(plain.value)


def test_a_server_that_wants_to_be_left_alone_for_longer_than_the_bound_is_not_waited_for(
    active, http_origin: ScriptedOrigin
) -> None:
    active(retry_for=40.0)
    http_origin.put("f", DATA, status=503, headers={"Retry-After": "3600"})
    started_s = time.monotonic()
    with pytest.raises(aiohttp.ClientResponseError):
        read(http_origin, [(0, 500)])
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize(
    "told", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999", "x"]
)
def test_a_pause_that_is_no_time_is_none(told: str) -> None:
    assert seconds_of(told) == 0.0


def test_nobody_is_waited_for_who_never_answered(active, http_origin: ScriptedOrigin) -> None:
    session = active()
    http_origin.put("f", DATA)
    http_origin.stop()
    started_s = time.monotonic()
    with pytest.raises(aiohttp.ClientConnectorError):
        read(http_origin, [(0, 500)])
    assert time.monotonic() - started_s < 20
    assert session.counters.snapshot().origin_retries == 0


def test_a_server_that_is_restarted_is_waited_for(active, http_origin: ScriptedOrigin) -> None:
    session = active()
    http_origin.put("f", DATA)
    spans, more = vector(5), vector(5, seed=2)
    assert read(http_origin, spans) == pieces(spans)
    http_origin.stop()

    def start_when_it_was_missed() -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not session.counters.snapshot().origin_retries and time.monotonic() < end_s:
            time.sleep(0.01)
        http_origin.start()

    starting = threading.Thread(target=start_when_it_was_missed)
    starting.start()
    assert read(http_origin, more) == pieces(more)
    starting.join()
    assert session.counters.snapshot().origin_retries > 0


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_will_not_pass_is_not_asked_again(active, http_origin: ScriptedOrigin, status: int) -> None:
    session = active()
    http_origin.put("f", DATA, status=status)
    with pytest.raises(Exception, match=r"."):
        read(http_origin, [(0, 500)])
    assert session.counters.snapshot().origin_retries == 0


def test_replaced_between_two_requests_of_one_read(active, http_origin: ScriptedOrigin) -> None:
    """What failed is asked for under the version of what came: old and new bytes are never in one vector."""
    active()
    new = bytes(reversed(DATA))

    def replace(resource: Resource) -> None:
        resource.change(new, etag='"2"')

    http_origin.put("f", DATA, once={3: {"resets": True}, 4: {"resets": True}}, at={12: replace})
    spans = vector(10)
    got = read(http_origin, spans)
    assert got == pieces(spans, new)
    assert http_origin.resources["/f"].gets > 12


def test_what_a_file_system_repeats_by_itself_is_not_repeated_on_top(active) -> None:
    active()
    s3fs = pytest.importorskip("s3fs")
    repeating, other = s3fs.S3FileSystem(anon=True, skip_instance_cache=True), fsspec.filesystem("http")
    for fs, url, pause_s in ((repeating, "bucket/key", None), (other, "http://h/f", 0.0)):
        found = access(fs, url)
        assert found is not None
        assert found.origin.retry_after(TimeoutError(), met=True) == pause_s
        assert found.origin.retry_after(FileNotFoundError(), met=True) is None


# -- any origin ----------------------------------------------------------------------------------------------------


class Failing:
    """Makes the first so many fetches of an origin raise."""

    def __init__(self, setup: Setup, count: int, error: Exception) -> None:
        setup.origin.before = self
        setup.origin.retry_after = lambda error, *, met: 0.0 if isinstance(error, TimeoutError) else None  # type: ignore[attr-defined]
        self.count, self.error = count, error

    async def __call__(self, number: int, ranges: object) -> None:
        if number <= self.count:
            raise self.error


def test_any_origin_that_says_so_is_asked_again(tmp_path: Path) -> None:
    setup = Setup(tmp_path, retries=Retries(3))
    Failing(setup, 2, TimeoutError("slow"))
    data = setup.origin.state.data
    assert asyncio.run(setup.read((0, 10), (20, 30))) == [data[:10], data[20:30]]
    counts = setup.host.counters.snapshot()
    assert (counts.origin_requests, counts.origin_retries, counts.origin_errors) == (3, 2, 0)
    setup.settle()
    assert setup.try_read((0, 10), (20, 30)) is not None
    setup.host.close()


@pytest.mark.parametrize("again", [ConnectionResetError("again"), FileNotFoundError("gone")])
def test_what_fails_for_good_costs_its_neighbours_nothing_where_it_is_asked_for_again(
    tmp_path: Path, again: Exception
) -> None:
    """Of several ranges the error is in the list; a single one that is asked for again raises it."""
    setup = Setup(tmp_path, retries=Retries(3))
    Failing(setup, 0, again)
    setup.origin.retry_after = lambda error, *, met: 0.0 if isinstance(error, ConnectionResetError) else None  # type: ignore[attr-defined]
    data, spans = setup.origin.state.data, ((0, 9), (100, 109), (200, 209))

    async def before(number: int, ranges: Sequence[Any]) -> None:
        if number > 1:
            assert list(ranges) == [(100, 109)]
            raise again

    setup.origin.before = before
    setup.origin.answer = lambda rows: [rows[0], ConnectionResetError("first"), rows[2]]
    rows = asyncio.run(setup.read(*spans))
    assert rows == [data[0:9], rows[1], data[200:209]]
    assert isinstance(rows[1], ConnectionResetError)
    setup.settle()
    assert setup.try_read(spans[0], spans[2]) is not None
    setup.host.close()


def test_replaced_meanwhile_it_raises_as_ever(tmp_path: Path) -> None:
    setup = Setup(tmp_path, retries=Retries(3))
    new = Replaced(2)

    async def before(number: int, ranges: object) -> None:
        if number == 2:
            setup.origin.state = new
            raise TimeoutError

    async def job() -> None:
        assert await setup.read((0, 10)) == [setup.origin.state.data[:10]]
        with pytest.raises(OriginChangedError):
            await setup.read((100, 110))
        assert await setup.read((0, 10), (100, 110)) == [new.data[:10], new.data[100:110]]

    Failing(setup, 0, TimeoutError())
    setup.origin.before = before
    asyncio.run(job())
    setup.host.close()


# -- XRootD --------------------------------------------------------------------------------------------------------

READER = """
import mmap, os, random, sys
import fsspec

url, local, stop, seed = sys.argv[1:]
chance, steps = random.Random(int(seed)), open(f"{stop}-{seed}", "ab", buffering=0)
data = mmap.mmap(os.open(local, os.O_RDONLY), 0, prot=mmap.PROT_READ)
fs, path = fsspec.url_to_fs(url)
while not os.path.exists(stop):
    # Short and anywhere: however far one reader runs ahead, the server is needed for as long as the test takes.
    starts = sorted(chance.sample(range(len(data) - 300), 100))
    stops = [at + 300 for at in starts]
    assert fs.cat_ranges([path] * 100, starts, stops, on_error="raise") == [data[a:b] for a, b in zip(starts, stops)]
    steps.write(b".")
"""


def test_an_xrootd_that_is_killed_and_started_again_while_others_read(
    xrootd_server: XrootdServer, tmp_path: Path, site: Site
) -> None:
    """Killed in the middle of vectors: no read fails, all bytes are right, and what was sent again is counted."""
    file, stop = xrootd_server.directory / "f", tmp_path / "stop"
    file.write_bytes(random.Random(1).randbytes(10_000_000) * 10)
    file.chmod(0o644)
    os.utime(file, (LONG_AGO, LONG_AGO))
    client = {"XRD_CONNECTIONWINDOW": "1", "XRD_CONNECTIONRETRY": "1"}
    args = [site.script(READER), xrootd_server.url("f"), str(file), str(stop)]
    readers = [site.start(*args, str(seed), **client) for seed in range(READERS)]
    steps = [tmp_path / f"stop-{seed}" for seed in range(READERS)]

    def advance() -> None:
        """Wait until every reader has read on, or has ended."""
        before = [step.stat().st_size if step.exists() else 0 for step in steps]
        deadline_s = time.monotonic() + 3 * PATIENCE_S
        for reader, step, size in zip(readers, steps, before, strict=True):
            while reader.poll() is None and (not step.exists() or step.stat().st_size < size + 3):
                assert time.monotonic() < deadline_s, "a reader hangs"
                time.sleep(0.01)

    try:
        for _ in range(RESTARTS):
            advance()
            os.kill(xrootd_server.pid, 9)
            xrootd_server.stop()
            xrootd_server.restart()
        advance()
    finally:
        stop.touch()
        ended = [site.end(reader) for reader in readers]
    assert [(each.code, each.err.count("Error")) for each in ended] == [(0, 0)] * READERS, ended
    origins = [report["origin"] for report in site.reports()]
    assert len(origins) == READERS
    assert all(origin["errors"] == 0 for origin in origins)
    # The one open file of each reader was lost each time.
    assert all(origin["retries"] >= RESTARTS for origin in origins)


def test_a_data_server_that_dies_behind_a_redirector(tmp_path: Path, site: Site) -> None:
    """Reads that it had begun go on at the other one, whose file has the same size and time."""
    pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")
    stop, step = tmp_path / "stop", tmp_path / "stop-1"
    try:
        federation = Federation()
    except XrootdUnavailableError as error:
        pytest.skip(str(error))
    with federation:
        file = federation.write("f", random.Random(1).randbytes(10_000_000) * 5)
        reader = site.start(site.script(READER), federation.url("f"), str(file), str(stop), "1")

        def advance() -> None:
            before, deadline_s = step.stat().st_size if step.exists() else 0, time.monotonic() + 3 * PATIENCE_S
            while reader.poll() is None and (not step.exists() or step.stat().st_size < before + 3):
                assert time.monotonic() < deadline_s, "the reader hangs"
                time.sleep(0.01)

        try:
            advance()
            reads = federation.reads()
            federation.kill(reads.index(max(reads)))
            advance()
        finally:
            stop.touch()
            ended = site.end(reader)
        assert (ended.code, ended.err.count("Error")) == (0, 0), ended.err
        assert all(federation.reads())
    (origin,) = [report["origin"] for report in site.reports()]
    assert origin["errors"] == 0
    assert origin["retries"] >= 1
