"""The HTTP origin against a server that answers as told: bytes of one proved version, or none, or an error."""

import asyncio
import gzip
import http.server
import random
import threading
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.http import HTTPFileSystem
from readers import PATIENCE_S, Host
from servers import Resource

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Journal, Version
from jcache.naming import identify
from jcache.origin import Fetched, Info
from jcache.reader.remote import RemoteFile
from jcache.system.storage import Storage
from jcache_plugins.origins.answers import AT_ONCE_BYTES, Answer, took_long
from jcache_plugins.origins.base import FileSystemOrigin
from jcache_plugins.origins.http import HttpOrigin

OLD, NEW = random.Random(1).randbytes(5000), random.Random(2).randbytes(5000)
LONG_AGO = 1_600_000_000.0
SIZE = len(OLD)


@asynccontextmanager
async def origin_of(url: str, **options):
    fs = HTTPFileSystem(asynchronous=True, loop=asyncio.get_running_loop(), skip_instance_cache=True, **options)
    try:
        yield HttpOrigin(fs, url, identify("https", url, {}))
    finally:
        if fs._session is not None:
            await fs._session.close()


def fetch(url: str, *ranges, known: Info | None = None, stat: bool = False, **options) -> Fetched:
    async def run() -> Fetched:
        async with origin_of(url, **options) as origin:
            before = await origin.stat() if stat else known
            return await origin.fetch(list(ranges), known=before)

    return asyncio.run(run())


def stat(url: str, **options) -> Info:
    async def run() -> Info:
        async with origin_of(url, **options) as origin:
            return await origin.stat()

    return asyncio.run(run())


def info(etag: str | None = '"1"', size: int = SIZE, **fields) -> Info:
    return Info(Version(size, etag=etag, **fields))


@pytest.fixture
def raw_server():
    """`raw_server(status, headers, body)` starts a server that answers every request so, and returns a URL of it."""
    servers = []

    def start(status: int, headers: dict[str, str], body: bytes, *, seen: list | None = None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                if seen is not None:
                    seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status not in {204, 304}:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/f"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


# -- right answers -----------------------------------------------------------------------------------------------


def test_ranges_and_the_version_that_the_answers_name(http_origin, monkeypatch) -> None:
    judged: list[bool] = []
    monkeypatch.setattr(
        "jcache_plugins.origins.http.took_long", lambda answers: judged.append(took_long(answers)) or judged[-1]
    )
    # A round trip that is longer than the body takes, unless this machine stands still meanwhile.
    file = http_origin.put("f", OLD, etag='"1"', modified_s=LONG_AGO, delay_s=0.2)
    got = fetch(http_origin.url("f"), (0, 10), (4990, 6000), (100, None))
    assert got.data == [OLD[:10], OLD[4990:], OLD[100:]]
    assert got.info is not None
    assert got.info.version == Version(SIZE, mtime_ns=int(LONG_AGO) * 10**9, etag='"1"')
    assert got.recordable
    assert file.gets == 3
    assert got.requests == 3 + file.heads
    assert file.heads == sum(judged)
    assert file.if_matches == [None] * 3


@pytest.mark.parametrize(
    ("size", "done_s", "is_long"), [(10, 0.3, False), (10, 0.5, True), (AT_ONCE_BYTES + 1, 0.3, True), (0, 9.0, False)]
)
def test_what_came_within_a_round_trip_needs_no_question_behind_it(size: int, done_s: float, *, is_long: bool) -> None:
    answer = Answer((0, size), bytes(size), {}, size_bytes=5000, placed=True)
    answer.asked_s, answer.told_s, answer.done_s = 0.0, 0.2, done_s
    assert took_long([answer]) == is_long


def test_what_stat_says_agrees_with_what_answers_say(http_origin) -> None:
    file = http_origin.put("f", OLD, etag='"1"', modified_s=LONG_AGO)
    url = http_origin.url("f")
    assert stat(url).version == fetch(url, (0, 10)).info.version  # type: ignore[union-attr]
    got = fetch(url, (0, 10), (20, 30), stat=True)
    assert got.data == [OLD[:10], OLD[20:30]]
    assert file.if_matches[-2:] == ['"1"'] * 2


def test_the_whole_file_without_a_range(http_origin) -> None:
    file = http_origin.put("f", OLD)
    got = fetch(http_origin.url("f"), (0, None))
    assert got.data == [OLD]
    assert got.info is not None
    assert file.asked == [None]


def test_an_empty_file(http_origin) -> None:
    http_origin.put("f", b"")
    url = http_origin.url("f")
    assert stat(url).version.size_bytes == 0
    got = fetch(url, (0, None))
    assert got.data == [b""]
    assert got.info is not None
    assert got.info.version.size_bytes == 0
    assert fetch(url, (0, 100)).data == [b""]


def test_a_range_behind_the_end_before_the_size_is_known(http_origin) -> None:
    http_origin.put("f", OLD)
    got = fetch(http_origin.url("f"), (0, 10), (9000, 9010))
    assert got.data == [OLD[:10], b""]
    assert got.info is not None
    assert got.info.version == Version(SIZE, etag='"1"')
    got = fetch(http_origin.url("f"), (9000, 9010), (9100, None))
    assert got.data == [b"", b""]


# -- wrong answers -----------------------------------------------------------------------------------------------


def test_an_answer_shorter_than_its_content_range(http_origin) -> None:
    http_origin.put("f", OLD, short_by=3)
    first, second = fetch(http_origin.url("f"), (0, 100), (200, None), known=info()).data
    assert isinstance(first, ShortReadError)
    assert isinstance(second, ShortReadError)


@pytest.mark.parametrize("after", [0, 1, 50])
def test_a_connection_dropped_in_the_middle_of_a_body(http_origin, after: int) -> None:
    file = http_origin.put("f", OLD)
    file.once[2] = {"drop_after": after}
    data = fetch(http_origin.url("f"), (0, 100), known=info()).data + fetch(http_origin.url("f"), (0, 100)).data
    assert data[0] == OLD[:100]
    assert isinstance(data[1], aiohttp.ClientPayloadError)


@pytest.mark.parametrize("part", [(0, None), (0, 100), (100, 200), (4000, None)])
def test_a_connection_dropped_in_the_middle_of_a_whole_file(http_origin, part) -> None:
    http_origin.put("f", OLD, ranges=False, drop_after=150)
    (got,) = fetch(http_origin.url("f"), part).data
    assert isinstance(got, aiohttp.ClientPayloadError) or got == OLD[slice(*part)]
    if part != (0, 100):
        assert isinstance(got, aiohttp.ClientPayloadError)


@pytest.mark.parametrize("ranges", [[(0, 10)], [(4990, None)], [(4990, 6000)], [(10, 20), (4000, 4500)], [(0, 6000)]])
def test_the_whole_file_in_answer_to_a_range(http_origin, ranges) -> None:
    http_origin.put("f", OLD, ranges=False)
    got = fetch(http_origin.url("f"), *ranges)
    assert got.data == [OLD[a:b] for a, b in ranges]
    assert got.info is not None
    assert got.info.version == Version(SIZE, etag='"1"')


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 10-19/5000",
        "bytes 0-9/5000",
        "bytes 100-198/5000",
        "bytes 100-200/5000",
        "bytes */5000",
        "items 1-2/3",
        "",
    ],
)
def test_a_partial_answer_of_another_range(raw_server, content_range: str) -> None:
    body = OLD[:100]
    url = raw_server(206, {"Content-Range": content_range, "ETag": '"1"'} if content_range else {"ETag": '"1"'}, body)
    got = fetch(url, (100, 200), known=info())
    if content_range in ("bytes */5000", "items 1-2/3", ""):
        # Nothing says where these bytes are from: delivered as the plain file system would, and not as proved.
        assert got.data == [body] or isinstance(got.data[0], ShortReadError)
        assert got.info is None or not got.recordable or isinstance(got.data[0], Exception)
    else:
        assert isinstance(got.data[0], ShortReadError)


def test_a_partial_answer_to_a_request_for_everything(raw_server) -> None:
    url = raw_server(206, {"Content-Range": "bytes 100-199/5000", "ETag": '"1"'}, OLD[100:200])
    (got,) = fetch(url, (0, None)).data
    assert isinstance(got, ShortReadError)


def test_an_answer_that_does_not_tell_the_size(raw_server) -> None:
    url = raw_server(206, {"Content-Range": "bytes 100-199/*", "ETag": '"1"'}, OLD[100:200])
    got = fetch(url, (100, 200))
    assert got.data == [OLD[100:200]]
    assert got.info is None
    got = fetch(url, (100, 200), known=info())
    assert got.data == [OLD[100:200]]
    assert got.info is not None, "its ETag is the known one"
    with pytest.raises(OriginChangedError):
        fetch(url, (100, 200), known=info('"2"'))


def test_a_compressed_answer_proves_nothing(raw_server) -> None:
    url = raw_server(200, {"Content-Encoding": "gzip", "ETag": '"1"'}, gzip.compress(OLD))
    got = fetch(url, (100, 200), (0, None), known=None)
    assert got.data == [OLD[100:200], OLD]
    assert got.info is None


@pytest.mark.parametrize("status", [204, 304, 300])
def test_an_answer_that_is_neither_the_file_nor_an_error(raw_server, status: int) -> None:
    url = raw_server(status, {"ETag": '"1"'}, b"")
    for known in (None, info()):
        (got,) = fetch(url, (0, 100), known=known).data
        assert isinstance(got, OSError)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, FileNotFoundError), (403, aiohttp.ClientResponseError), (500, aiohttp.ClientResponseError)],
)
def test_errors_are_those_of_the_plain_file_system(http_origin, status: int, error: type) -> None:
    file = http_origin.put("f", OLD)
    file.status = status
    url = http_origin.url("f")

    async def plain() -> BaseException:
        async with origin_of(url) as origin:
            try:
                await origin.fs._cat_file(url, 0, 10)
            except Exception as problem:
                return problem
            raise AssertionError

    (got,) = fetch(url, (0, 10)).data
    problem = asyncio.run(plain())
    assert type(got) is type(problem)
    assert isinstance(got, error)
    if isinstance(got, aiohttp.ClientResponseError):
        assert got.status == status
    with pytest.raises(error):
        stat(url)


def test_one_range_that_fails_does_not_cost_the_others_theirs(http_origin) -> None:
    file = http_origin.put("f", OLD)
    file.once[2] = {"status": 500}
    data = fetch(http_origin.url("f"), (0, 10), (20, 30), (40, 50)).data
    assert [isinstance(part, bytes) for part in data].count(False) == 1
    for part, (start, stop) in zip(data, [(0, 10), (20, 30), (40, 50)], strict=True):
        assert isinstance(part, Exception) or part == OLD[start:stop]


# -- other versions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("honoured", [True, False])
def test_another_version_than_the_known_one(http_origin, honoured: bool) -> None:
    http_origin.put("f", NEW, etag='"2"', if_match=honoured)
    with pytest.raises(OriginChangedError):
        fetch(http_origin.url("f"), (0, 10), known=info())


@pytest.mark.parametrize("fields", [{"etag": '"2"'}, {"etag": None, "modified_s": LONG_AGO + 1}])
def test_replaced_between_two_ranges_of_one_vector(http_origin, fields) -> None:
    before = {"etag": '"1"'} if fields["etag"] else {"etag": None, "modified_s": LONG_AGO}
    http_origin.put("f", OLD, **before, at={2: lambda file: file.change(NEW, **fields)})
    with pytest.raises(OriginChangedError):
        fetch(http_origin.url("f"), (0, 10), (20, 30), (40, 50))


@pytest.mark.parametrize("size", [100, 4000, 6000])
def test_a_file_that_shrank_or_grew(http_origin, size: int) -> None:
    http_origin.put("f", NEW[:size] * 1 + bytes(max(0, size - SIZE)), etag=None, modified_s=LONG_AGO)
    known = Info(Version(SIZE, mtime_ns=int(LONG_AGO) * 10**9))
    with pytest.raises(OriginChangedError):
        fetch(http_origin.url("f"), (4500, 4600), known=known)


def test_a_weak_tag_proves_nothing_but_the_time_beside_it_does(http_origin) -> None:
    file = http_origin.put("f", OLD, etag='W/"1"', modified_s=LONG_AGO)
    got = fetch(http_origin.url("f"), (0, 10), stat=True)
    assert got.info is not None
    assert got.info.version == Version(SIZE, mtime_ns=int(LONG_AGO) * 10**9)
    assert got.recordable
    assert file.if_matches == [None], "If-Match compares strongly"


def test_a_file_modified_this_very_second_is_not_recorded(http_origin) -> None:
    http_origin.put("f", OLD, etag=None, modified_s=time.time() + 3600)
    assert not fetch(http_origin.url("f"), (0, 10)).recordable


def test_a_checksum_that_comes_with_the_whole_file_only(raw_server) -> None:
    url = raw_server(200, {"Content-MD5": "abc", "Last-Modified": "Sun, 13 Sep 2020 12:26:40 GMT"}, OLD)
    got = fetch(url, (0, 10), stat=True)
    assert got.data == [OLD[:10]]
    assert got.info is not None
    assert got.info.version == Version(SIZE, mtime_ns=int(LONG_AGO) * 10**9)


def test_no_validator_at_all(http_origin) -> None:
    http_origin.put("f", OLD, etag=None)
    got = fetch(http_origin.url("f"), (0, 10), stat=True)
    assert got.data == [OLD[:10]]
    assert got.info is not None
    assert not got.info.version.is_provable


# -- what the file system was told -----------------------------------------------------------------------------------


def test_headers_and_credentials_of_the_file_system_are_sent(raw_server) -> None:
    seen: list[dict[str, str]] = []
    url = raw_server(206, {"Content-Range": "bytes 0-9/5000"}, OLD[:10], seen=seen)
    fetch(
        url,
        (0, 10),
        headers={"X-Mine": "yes", "accept-encoding": "gzip"},
        client_kwargs={"auth": aiohttp.BasicAuth("me", "pw"), "headers": {"X-Session": "too"}},
    )
    headers, *_ = seen  # on a busy machine, a HEAD that proves the bytes is sent behind
    assert headers["x-mine"] == "yes"
    assert headers["x-session"] == "too"
    assert headers["authorization"].startswith("Basic ")
    assert headers["range"] == "bytes=0-9"
    assert headers["accept-encoding"] == "identity"


def test_the_options_of_the_file_system_are_left_as_they_were(http_origin) -> None:
    http_origin.put("f", OLD)
    headers = {"X-Mine": "yes"}
    fetch(http_origin.url("f"), (0, 10), headers=headers)
    assert headers == {"X-Mine": "yes"}


def test_a_redirect_is_followed_and_its_address_stays_out_of_the_journal(http_origin, raw_server, tmp_path) -> None:
    http_origin.put("f", OLD, modified_s=LONG_AGO)
    url = raw_server(302, {"Location": http_origin.url("f") + "?signature=secret"}, b"")

    async def run() -> None:
        async with origin_of(url) as origin:
            host = Host()
            journal = Journal(Storage(), str(tmp_path / "j"), "f")
            remote = RemoteFile(host, journal, url="f")  # type: ignore[arg-type]
            assert (await remote.stat(origin)).version.size_bytes == SIZE
            assert await remote.read(origin, [(10, 20)], vector=False) == [OLD[10:20]]
            host.recorder.call(remote.close)
            host.close()

    asyncio.run(run())
    (segment,) = (tmp_path / "j").iterdir()
    assert OLD[10:20] in segment.read_bytes()
    assert b"secret" not in segment.read_bytes()


# -- the reader over it ------------------------------------------------------------------------------------------


class Reader:
    """Processes, one after the other, that read one URL with one cache directory."""

    def __init__(self, url: str, directory, **host) -> None:
        self.url, self.directory, self.host_options = url, directory, host

    def __call__(self, *vectors):
        async def run() -> list:
            async with origin_of(self.url) as origin:
                host = Host(**self.host_options)
                remote = RemoteFile(host, Journal(Storage(), str(self.directory), "f"), url="f")  # type: ignore[arg-type]
                out: list = []
                for vector in vectors:
                    try:
                        out.append(await remote.read(origin, vector, vector=True))
                    except OSError as problem:
                        out.append(problem)
                assert host.recorder.flush(PATIENCE_S)
                host.recorder.call(remote.close)
                host.close()
                self.counts = host.counters.snapshot()
                return out

        return asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "recorded"),
    [
        ({"etag": '"1"'}, True),
        ({"etag": None, "modified_s": LONG_AGO}, True),
        ({"etag": 'W/"1"', "modified_s": LONG_AGO}, True),
        ({"etag": None}, False),
        ({"etag": 'W/"1"'}, False),
        ({"etag": '"1"', "ranges": False}, True),
    ],
)
@pytest.mark.parametrize("validate", ["open", "never"])
def test_what_is_recorded(http_origin, tmp_path, fields, recorded: bool, validate: str) -> None:
    file = http_origin.put("f", OLD, **fields)
    reader = Reader(http_origin.url("f"), tmp_path / "j", validate=validate)
    vectors = [[(0, 10), (9000, 9010), (100, 200)], [(50, 150)]]
    expected = [[OLD[a:b] for a, b in vector] for vector in vectors]
    assert reader(*vectors) == expected
    recorded = recorded or validate == "never"
    assert reader.counts.recorded_bytes == (160 if recorded else 0)
    file.reset()
    assert reader(*vectors) == expected
    if recorded:
        assert file.gets == 0
        assert file.heads == (1 if validate == "open" else 0)


def replaced(file: Resource) -> None:
    file.change(NEW, etag='"2"')


@pytest.mark.parametrize("honoured", [True, False])
@pytest.mark.parametrize("at", range(1, 8))
def test_replaced_at_any_request_it_is_one_version_or_an_error(http_origin, tmp_path, honoured: bool, at: int) -> None:
    http_origin.put("f", OLD, if_match=honoured, at={at: replaced})
    reader = Reader(http_origin.url("f"), tmp_path / "j")
    vectors = [[(0, 100), (200, 300)], [(50, 250), (1000, 1100)], [(0, 300)]]
    versions = []
    for vector, rows in zip(vectors, reader(*vectors), strict=True):
        if isinstance(rows, OSError):
            assert isinstance(rows, OriginChangedError)
            versions.append(None)
            continue
        (state,) = [data for data in (OLD, NEW) if rows == [data[a:b] for a, b in vector]]
        versions.append(state)
    # Once the new version was delivered, the old one never comes back; between the two lies an error.
    if OLD in versions and NEW in versions:
        assert None in versions[versions.index(OLD) : versions.index(NEW)]
        assert OLD not in versions[versions.index(NEW) :]
    file = http_origin.resources["/f"]
    replaced(file)
    assert Reader(http_origin.url("f"), tmp_path / "j")([(0, 1100)]) == [[NEW[:1100]]]


def test_a_server_that_hangs_up_between_requests(http_origin, tmp_path) -> None:
    http_origin.put("f", OLD)

    async def run() -> None:
        async with origin_of(http_origin.url("f")) as origin:
            assert (await origin.fetch([(0, 10)], known=None)).data == [OLD[:10]]
            stopping = threading.Thread(target=lambda: (http_origin.stop(), http_origin.start()))
            stopping.start()
            stopping.join()
            got = await origin.fetch([(10, 20)], known=info())
            assert got.data == [OLD[10:20]] or isinstance(got.data[0], OSError)

    asyncio.run(run())


def test_no_answer_of_another_length_enters_the_journal(http_origin, tmp_path) -> None:
    file = http_origin.put("f", OLD, short_by=5)
    reader = Reader(http_origin.url("f"), tmp_path / "j")
    ((first, second),) = reader([(0, 100), (200, 300)])
    assert isinstance(first, ShortReadError)
    assert isinstance(second, ShortReadError)
    assert reader.counts.recorded_bytes == 0
    file.short_by = 0
    assert reader([(0, 100), (200, 300)]) == [[OLD[:100], OLD[200:300]]]
    assert reader.counts.readv_hit == 0


def test_a_file_system_that_tells_no_size_is_read_unproved() -> None:
    class Stream(AbstractFileSystem):
        protocol = "stream"

        def info(self, path: str, **kwargs: object) -> dict:
            return {"name": path, "size": None, "type": "file"}

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
            return OLD[start:end]

    origin = FileSystemOrigin(Stream(), "/f", identify("stream", "/f", {}))
    got = asyncio.run(origin.fetch([(0, 10), (20, None)], known=None))
    assert got.data == [OLD[:10], OLD[20:]]
    assert got.info is None


# -- proof by what is asked behind the bytes -----------------------------------------------------------------------

LARGE, OTHER = random.Random(5).randbytes(600_000), random.Random(6).randbytes(600_000)
FIRST, SECOND = (0, 300_000), (300_000, 300_010)


def fetch_then(url: str, behind) -> tuple[Fetched | BaseException, Fetched | BaseException | None]:
    """Fetch more than a server reads at once; call `behind` when the bytes have come, and start what it returns."""

    async def run():
        async with origin_of(url) as origin:
            started = []

            def arrived() -> None:
                coroutine = behind(origin)
                if coroutine is not None:
                    started.append(asyncio.ensure_future(coroutine))

            first = asyncio.ensure_future(origin.fetch([FIRST], known=info(size=len(LARGE)), arrived=arrived))
            done = await asyncio.wait_for(asyncio.gather(first, return_exceptions=True), PATIENCE_S)
            return done[0], (await asyncio.gather(*started, return_exceptions=True) or [None])[0]

    return asyncio.run(run())


def second_of(origin: HttpOrigin):
    return origin.fetch([SECOND], known=info(size=len(LARGE)))


def test_a_request_behind_the_bytes_proves_them_and_nothing_more_is_asked(http_origin) -> None:
    resource = http_origin.put("large", LARGE)
    resource.once[2] = {"delay_s": 0.2}  # a round trip that is longer than ten bytes take
    first, second = fetch_then(http_origin.url("large"), second_of)
    assert isinstance(first, Fetched)
    assert isinstance(second, Fetched)
    assert (first.data, second.data) == ([LARGE[:300_000]], [LARGE[300_000:300_010]])
    assert (resource.gets, resource.heads) == (2, 0)


def test_where_nothing_is_asked_behind_the_bytes_their_version_is(http_origin) -> None:
    resource = http_origin.put("large", LARGE)
    first, _ = fetch_then(http_origin.url("large"), lambda origin: None)
    assert isinstance(first, Fetched)
    assert (resource.gets, resource.heads) == (1, 1)


@pytest.mark.parametrize("if_match", [True, False])
def test_a_file_overwritten_while_it_was_sent_is_found_out_by_what_is_asked_behind(http_origin, if_match: bool) -> None:
    resource = http_origin.put("large", LARGE, if_match=if_match)

    def behind(origin: HttpOrigin):
        resource.change(OTHER, etag='"2"')
        return second_of(origin)

    first, second = fetch_then(http_origin.url("large"), behind)
    assert isinstance(first, OriginChangedError)
    assert isinstance(second, OriginChangedError)


def test_a_request_that_was_sent_before_the_bytes_had_come_proves_nothing(http_origin) -> None:
    resource = http_origin.put("large", LARGE)
    resource.once[1] = {"delay_s": 60.0}

    async def run() -> None:
        async with origin_of(http_origin.url("large")) as origin:
            before = asyncio.ensure_future(second_of(origin))
            while not resource.gets:
                await asyncio.sleep(0.001)
            await origin.fetch([FIRST], known=info(size=len(LARGE)), arrived=lambda: None)
            assert resource.heads == 1
            assert not before.done()
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("fields", [{"status": 503}, {"ranges": False}])
def test_an_answer_that_tells_of_no_version_proves_nothing(http_origin, fields) -> None:
    resource = http_origin.put("large", LARGE)
    resource.once[2] = fields
    first, _ = fetch_then(http_origin.url("large"), second_of)
    assert isinstance(first, Fetched)
    assert resource.heads, "for the first, and maybe for the second"


def test_a_request_behind_the_bytes_that_is_cancelled_proves_nothing(http_origin) -> None:
    resource = http_origin.put("large", LARGE)
    resource.once[2] = {"delay_s": 60.0}

    async def run() -> None:
        async with origin_of(http_origin.url("large")) as origin:
            started: list[asyncio.Future] = []
            first = asyncio.ensure_future(
                origin.fetch(
                    [FIRST],
                    known=info(size=len(LARGE)),
                    arrived=lambda: started.append(asyncio.ensure_future(second_of(origin))),
                )
            )
            while resource.gets < 2:
                await asyncio.sleep(0.001)
            assert not first.done()
            started[0].cancel()
            assert (await asyncio.wait_for(first, PATIENCE_S)).data == [LARGE[:300_000]]
            assert resource.heads == 1

    asyncio.run(run())
