"""The XRootD origin on a real server: bytes of one proved version, or an error."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.asyn import sync
from readers import PATIENCE_S, Host

from jcache.errors import OriginChangedError
from jcache.journal import Journal
from jcache.naming import identify
from jcache.reader.remote import RemoteFile
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import XrootdServer

pytest.importorskip("XRootD", reason="the XRootD client for Python is not installed")
pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")

from fsspec_xrootd import XRootDFileSystem

from jcache_plugins.origins import base
from jcache_plugins.origins.base import beside
from jcache_plugins.origins.handles import Answers, OpenFile, OpenFiles
from jcache_plugins.origins.xrootd import Server, XRootDOrigin, requests_of

OLD, NEW = random.Random(1).randbytes(50_000), random.Random(2).randbytes(50_000)
LONG_AGO = 1_600_000_000


def write(path: Path, data: bytes, modified_s: int = LONG_AGO) -> None:
    """Write in place: the same file, other bytes."""
    path.write_bytes(data)
    path.chmod(0o644)
    os.utime(path, (modified_s, modified_s))


def replace(path: Path, data: bytes, modified_s: int = LONG_AGO + 1) -> None:
    """Replace by renaming, as it ought to be done."""
    beside = path.with_name(path.name + ".new")
    write(beside, data, modified_s)
    beside.rename(path)


class Hooked(XRootDOrigin):
    """Calls `between` after the bytes were read and before they are proved."""

    between: Callable[[], None] = staticmethod(lambda: None)

    async def _state(self, handle: Any, *, force: bool) -> Any:
        if force:
            self.between()
        return await super()._state(handle, force=force)


class Client:
    """A process that reads one server's files, as far as a test needs one."""

    def __init__(self, server: XrootdServer, directory: Path | None = None, **host: Any) -> None:
        self.fs = XRootDFileSystem(server.address, skip_instance_cache=True)
        self.server = server
        self.host = Host(**host)
        self.directory = directory
        self.remotes: dict[str, RemoteFile] = {}

    def origin(self, name: str) -> Hooked:
        return Hooked(self.fs, "/" + name, identify("root", "/" + name, {"hostid": self.fs.hostid}))

    def remote(self, name: str) -> RemoteFile:
        if name not in self.remotes:
            journal = Journal(Storage(), str(self.directory / name), name) if self.directory else None
            self.remotes[name] = RemoteFile(self.host, journal, url=name)  # type: ignore[arg-type]
        return self.remotes[name]

    def run(self, coroutine: Any) -> Any:
        async def wait() -> Any:
            return await asyncio.wait_for(coroutine, PATIENCE_S)

        return sync(self.fs.loop, wait)

    def fetch(self, name: str, *ranges: Any, known: Any = None) -> Any:
        return self.run(self.origin(name).fetch(list(ranges), known=known))

    def read(self, origin: Hooked, *spans: Any) -> list[Any]:
        return self.run(self.remote(origin.path[1:]).read(origin, list(spans), vector=True))

    def close_files(self) -> None:
        self.fs._readonly_filehandle_cache.close_all()

    def close(self) -> None:
        assert self.host.recorder.flush(PATIENCE_S)
        for remote in self.remotes.values():
            self.host.recorder.call(remote.close)
        self.host.close()
        self.close_files()


@pytest.fixture
def client(xrootd_server: XrootdServer, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    made = []

    def make(**host: Any) -> Client:
        made.append(Client(xrootd_server, tmp_path / "cache", **host))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def path(export_dir: Path) -> Path:
    write(export_dir / "f", OLD)
    return export_dir / "f"


# -- right answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ranges",
    [[(0, 10)], [(0, None)], [(49_990, 60_000)], [(60_000, 60_010)], [(0, 10), (100, 200), (49_000, None), (7, 8)]],
)
def test_ranges_and_their_version(client, path: Path, ranges: list) -> None:
    got = client().fetch("f", *ranges)
    assert got.data == [OLD[a:b] for a, b in ranges]
    assert got.info.version.size_bytes == len(OLD)
    assert got.info.version.mtime_ns == LONG_AGO * 10**9
    assert got.recordable


def test_stat_names_the_same_version(client, path: Path) -> None:
    each = client()
    known = each.run(each.origin("f").stat())
    got = each.fetch("f", (0, 10), known=known)
    assert got.info is known


@pytest.mark.parametrize(("count", "length"), [(1, 5_000_000), (3, 2_500_000), (9, 580_000), (2500, 100), (1025, 4096)])
def test_more_than_one_vector_read_takes(client, export_dir: Path, count: int, length: int) -> None:
    data = random.Random(3).randbytes(max(count * (length + 7), 100))
    write(export_dir / "large", data)
    ranges = [(i * (length + 7), i * (length + 7) + length) for i in range(count)]
    got = client().fetch("large", *ranges)
    assert got.data == [data[a:b] for a, b in ranges]
    assert all(type(part) is bytes for part in got.data)


def test_a_server_that_does_not_tell_its_limits_is_read(
    client, export_dir: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> None:
        raise OSError("Server query for vector read info failed: could not parse b'readv_iov_max'")

    monkeypatch.setattr(XRootDFileSystem, "_get_max_chunk_info", refused)
    monkeypatch.setattr(Server, "_known", {})
    each = client()
    assert each.fetch("f", (0, 10)).data == [OLD[:10]]
    assert each.fetch("f", (0, 10), (40_000, None)).data == [OLD[:10], OLD[40_000:]]
    data = random.Random(3).randbytes(5_000_000)
    write(export_dir / "large", data)
    assert each.fetch("large", (0, None)).data == [data]


@pytest.mark.parametrize(
    "sizes", [[100] * 5, [580_000] * 9, [2 << 20] * 40, [1] * 2500, [3 << 20, 1, 1], [1, 1, 3 << 20]]
)
def test_a_vector_is_sent_in_few_requests_that_servers_take(sizes: list[int]) -> None:
    chunks = [(i << 22, size) for i, size in enumerate(sizes)]
    sent = requests_of(chunks, 1024)
    assert [chunk for request in sent for chunk in request] == chunks
    assert all(0 < len(request) <= 1024 for request in sent)
    assert len(sent) <= max(8, -(-len(chunks) // 1024))
    assert len(sent) == 1 or len(chunks) > 1024 or sum(sizes) >= len(sent) << 20


def test_what_is_kept_of_a_file_system_does_not_show_on_it_and_goes_with_it(client, path: Path) -> None:
    each = client()
    before = set(vars(each.fs))
    each.fetch("f", (0, 10))
    assert set(vars(each.fs)) == before
    number, gone = id(each.fs), weakref.ref(each.fs)
    assert [key for key in base._beside if key[0] == number] == [(number, OpenFiles)]
    each.close_files()
    each.fs = fsspec.filesystem("memory")
    each.close_files = lambda: None
    end_s = time.monotonic() + PATIENCE_S
    while gone() is not None and time.monotonic() < end_s:  # a thread may just be leaving its last call
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
    assert not [key for key in base._beside if key[0] == number]


def test_the_clients_own_vector_read_says_the_same(client, path: Path) -> None:
    """What is asked below the client's Python layer is asked of that layer where there is no way past it."""
    each = client()
    outside = [(len(OLD) + 1, 10)]

    async def read(chunks: list[tuple[int, int]], *, below: bool) -> tuple[list[bytes], int, int]:
        file = await beside(each.fs, OpenFiles).take(each.fs, "/f")
        try:
            layer = SimpleNamespace(vector_read=file.handle.vector_read, stat=file.handle.stat)
            answers = Answers(file.handle if below else layer, file)
            answers.ask("vector_read", chunks, each.fs.timeout)
            answers.ask("stat", True, each.fs.timeout)
            vector, state = await answers.all()
        finally:
            beside(each.fs, OpenFiles).give_back(file)
        return [chunk["buffer"] for chunk in vector["chunks"]], state["size"], state["modtime"]

    chunks = [(0, 10), (100, 1), (49_990, 10)]
    assert each.run(read(chunks, below=True)) == ([OLD[a : a + n] for a, n in chunks], len(OLD), LONG_AGO)
    assert each.run(read(chunks, below=False)) == each.run(read(chunks, below=True))
    messages = []
    for below in (True, False):
        with pytest.raises(OSError, match="vector_read properly") as error:
            each.run(read(outside, below=below))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_request_that_is_refused_waits_for_no_other() -> None:
    """The client may try for minutes to reach a server for one of them."""

    def refuse(_chunks: Any, _timeout: Any, callback: Any) -> Any:
        threading.Thread(target=callback, args=(SimpleNamespace(ok=False, message="refused "), None, None)).start()
        return SimpleNamespace(ok=True)

    handle = SimpleNamespace(vector_read=refuse, stat=lambda *_: SimpleNamespace(ok=True))

    async def ask() -> None:
        answers = Answers(handle, OpenFile("/f", handle))
        answers.ask("vector_read", [(0, 1)], 0)
        answers.ask("stat", True, 0)
        await asyncio.wait_for(answers.all(), PATIENCE_S)

    with pytest.raises(OSError, match="vector_read properly: refused"):
        asyncio.run(ask())


@pytest.mark.parametrize("end", ["refused", "cancelled"])
def test_a_file_of_which_something_is_under_way_is_nobody_elses_to_close(end: str) -> None:
    """The client refuses to close it, and the file system would raise that where the application has it closed."""
    held, closed = [], []

    def hold(*args: Any) -> Any:
        held.append(args[-1])
        return SimpleNamespace(ok=True)

    handle = SimpleNamespace(vector_read=hold, stat=hold, close=lambda callback: closed.append(bool(callback)))
    keeping = SimpleNamespace(_cache={"/f": SimpleNamespace(handle=handle)}, _max_items=8)
    fs = SimpleNamespace(_readonly_filehandle_cache=keeping, unstrip_protocol=str)

    async def read() -> None:
        files = OpenFiles(fs)
        file = await files.take(fs, "/f")
        answers = Answers(handle, file)
        answers.ask("vector_read", [(0, 1)], 0)
        answers.ask("stat", True, 0)
        reading = asyncio.ensure_future(answers.all())
        await asyncio.sleep(0)
        if end == "refused":
            held.pop(0)(SimpleNamespace(ok=False, message="refused "), None, None)
        else:
            reading.cancel()
        with pytest.raises((OSError, asyncio.CancelledError)):
            await asyncio.wait_for(reading, PATIENCE_S)
        files.give_back(file)
        assert (keeping._cache, closed) == ({}, [])
        while held:
            assert not closed
            held.pop()(SimpleNamespace(ok=True), None, None)
            await asyncio.sleep(0.01)
        assert (keeping._cache, len(closed)) == ({}, 1)

    asyncio.run(read())


def test_an_empty_file(client, export_dir: Path) -> None:
    write(export_dir / "empty", b"")
    each = client()
    got = each.fetch("empty", (0, 10), (0, None))
    assert got.data == [b"", b""]
    assert got.info.version.size_bytes == 0
    assert each.read(each.origin("empty"), (0, 10), (None, None)) == [b"", b""]


def test_a_metalink_is_the_file_that_it_names(
    client, path: Path, export_dir: Path, xrootd_server: XrootdServer
) -> None:
    """The client opens that file, though a stat is of the metalink; another process reads it, and notices changes."""
    urls = f"<url>{xrootd_server.url('f')}</url>"
    named = f'<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="f">{urls}</file></metalink>'
    write(export_dir / "f.meta4", named.encode())
    for data in (OLD, OLD, NEW):
        if data is NEW:
            write(path, NEW, LONG_AGO + 1)
        each = client()
        assert each.run(each.origin("f.meta4").stat()).version.size_bytes == len(data)
        assert each.read(each.origin("f.meta4"), (0, 100), (40_000, 50_000)) == [data[:100], data[40_000:]]
        each.host.recorder.flush(PATIENCE_S)
        each.close_files()


def test_a_missing_file_and_a_directory(client, export_dir: Path) -> None:
    each = client()
    (export_dir / "d").mkdir()
    for name in ("missing", "d"):
        with pytest.raises(OSError, match=r"."):
            each.run(each.origin(name).stat())
        with pytest.raises(OSError, match=r"."):
            each.fetch(name, (0, 10))


def test_a_file_modified_this_very_second_is_not_recorded(client, export_dir: Path) -> None:
    write(export_dir / "young", OLD, modified_s=2_000_000_000)
    got = client().fetch("young", (0, 10))
    assert got.data == [OLD[:10]]
    assert not got.recordable


# -- replaced ----------------------------------------------------------------------------------------------------


def in_place(path: Path, data: bytes) -> None:
    write(path, data, LONG_AGO + 1)


@pytest.mark.parametrize("change", [in_place, replace])
@pytest.mark.parametrize("size", [len(OLD), 100, 60_000])
def test_replaced_between_two_processes(client, path: Path, change, size: int) -> None:
    first = client()
    assert first.read(first.origin("f"), (0, 100), (200, 300)) == [OLD[:100], OLD[200:300]]
    first.host.recorder.flush(PATIENCE_S)
    first.close_files()
    new = (NEW + NEW)[:size]
    change(path, new)
    second = client()
    assert second.read(second.origin("f"), (0, 150), (200, 300)) == [new[:150], new[200:300]]


@pytest.mark.parametrize("change", [in_place, replace])
def test_replaced_between_two_vectors(client, path: Path, change) -> None:
    """An open file that was replaced keeps its content, so the old version throughout is as good as an error."""
    each = client()
    origin = each.origin("f")
    assert each.read(origin, (0, 100), (200, 300)) == [OLD[:100], OLD[200:300]]
    change(path, NEW)
    vector = [(50, 150), (1000, 1100)]
    try:
        assert each.read(origin, *vector) == [OLD[a:b] for a, b in vector]
        assert change is replace
    except OriginChangedError:
        assert each.read(origin, *vector) == [NEW[a:b] for a, b in vector]
    each.host.recorder.flush(PATIENCE_S)
    each.close_files()
    again = client()
    assert again.read(again.origin("f"), (0, 1200)) == [NEW[:1200]]


@pytest.mark.parametrize("change", [in_place, replace])
@pytest.mark.parametrize("delivered", [False, True])
def test_replaced_between_the_bytes_and_their_proof(client, path: Path, change, delivered: bool, monkeypatch) -> None:
    """With a server that is asked when the bytes have come; the other way is tried in test_replaced.py."""

    monkeypatch.setattr(Server, "answers_in_order", lambda self: False)
    each = client()
    origin = each.origin("f")
    if delivered:
        assert each.read(origin, (0, 100)) == [OLD[:100]]
    changed = []

    def between() -> None:
        if not changed:
            changed.append(change(path, NEW))

    origin.between = between
    vector = [(50, 150), (1000, 1100)]
    try:
        rows = each.read(origin, *vector)
    except OriginChangedError:
        assert delivered
        rows = each.read(origin, *vector)
        assert rows == [NEW[a:b] for a, b in vector]
    if change is in_place:
        assert rows == [NEW[a:b] for a, b in vector]
    assert rows in ([OLD[a:b] for a, b in vector], [NEW[a:b] for a, b in vector])
    each.host.recorder.flush(PATIENCE_S)
    each.close_files()
    again = client()
    assert again.read(again.origin("f"), (0, 1200)) == [NEW[:1200]]


def test_a_handle_opened_before_the_file_was_replaced_is_not_read_for_the_new_version(client, path: Path) -> None:
    each = client()
    assert each.fetch("f", (0, 10)).data == [OLD[:10]]
    replace(path, NEW)
    assert each.read(each.origin("f"), (-10, None), (0, 100)) == [NEW[-10:], NEW[:100]]


def test_a_server_that_opens_the_replaced_file_while_somebody_has_it_open(client, path: Path) -> None:
    """The path names the new version, opening it gives the old one: a reader gets the old one, and it is told so."""
    first, second = client(), client()
    assert first.read(first.origin("f"), (0, 100)) == [OLD[:100]]
    replace(path, NEW)
    assert second.read(second.origin("f"), (0, 150), (200, 300)) in (
        [OLD[:150], OLD[200:300]],
        [NEW[:150], NEW[200:300]],
    )
    for each in (first, second):
        each.host.recorder.flush(PATIENCE_S)
        each.close_files()
    third = client()
    assert third.read(third.origin("f"), (0, 300)) == [NEW[:300]]


def test_cut_short_in_place_is_a_change_and_not_an_error_for_ever(client, path: Path) -> None:
    each = client()
    origin = each.origin("f")
    assert each.read(origin, (0, 100)) == [OLD[:100]]
    in_place(path, NEW[:200])
    with pytest.raises(OriginChangedError):
        each.read(origin, (1000, 1100), (2000, 2100))
    assert each.read(origin, (100, 1100)) == [NEW[100:200]]


# -- life --------------------------------------------------------------------------------------------------------


def test_the_server_restarted_between_two_reads(client, path: Path, xrootd_server: XrootdServer) -> None:
    each = client()
    origin = each.origin("f")
    assert each.read(origin, (0, 100), (200, 300)) == [OLD[:100], OLD[200:300]]
    xrootd_server.stop()
    assert each.remote("f").try_read([(0, 100)], vector=True) == [OLD[:100]]
    xrootd_server.restart()
    assert each.read(origin, (50, 250)) == [OLD[50:250]]


def test_the_file_replaced_while_the_server_restarts(client, path: Path, xrootd_server: XrootdServer) -> None:
    each = client()
    origin = each.origin("f")
    assert each.read(origin, (0, 100), (200, 300)) == [OLD[:100], OLD[200:300]]
    xrootd_server.stop()
    replace(path, NEW)
    xrootd_server.restart()
    with pytest.raises(OriginChangedError):
        each.read(origin, (50, 250))
    assert each.read(origin, (50, 250)) == [NEW[50:250]]


def test_more_files_at_once_than_the_file_system_keeps_open(client, export_dir: Path) -> None:
    """fsspec-xrootd closes what it opened first when there are too many, whether it is being read or not."""
    each = client()
    handles = each.fs._readonly_filehandle_cache
    handles._max_items = 8
    bodies = {f"n{i}": random.Random(i).randbytes(5000) for i in range(60)}
    for name, data in bodies.items():
        write(export_dir / name, data)

    async def one(name: str, data: bytes) -> None:
        origin = each.origin(name)
        for start in range(0, 4000, 1000):
            vector = [(start, start + 100), (start + 500, start + 700)]
            rows = await each.remote(name).read(origin, vector, vector=True)
            assert rows == [data[a:b] for a, b in vector], rows

    async def all_of_them() -> None:
        await asyncio.gather(*(one(name, data) for name, data in bodies.items()))

    each.run(all_of_them())
    assert len(handles._cache) <= 8


def test_a_handle_closed_by_the_file_system_while_it_is_read(client, path: Path) -> None:
    each = client()
    origin = each.origin("f")
    closed = []

    async def close() -> None:
        await each.fs._readonly_filehandle_cache._close(each.fs.unstrip_protocol("/f"), 0)

    def between() -> None:
        if not closed:
            closed.append(asyncio.get_running_loop().create_task(close()))

    origin.between = between
    assert each.read(origin, (0, 100), (200, 300)) == [OLD[:100], OLD[200:300]]
    assert each.read(origin, (50, 400)) == [OLD[50:400]]


# -- connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 3])
def test_files_that_are_read_at_the_same_time_take_several_connections(
    active, export_dir: Path, xrootd_server: XrootdServer, connections: int
) -> None:
    names = [f"f{number}" for number in range(5)]
    for name in names:
        write(export_dir / name, OLD)
    active(connections=connections)
    fs = XRootDFileSystem(hostid=xrootd_server.address, skip_instance_cache=True)
    before = xrootd_server.log().count(" login")
    assert fs.cat_ranges([f"//{names[0]}"] * 2, [0, 100], [10, 110], on_error="raise") == [OLD[:10], OLD[100:110]]
    # One that reads one file after the other has no more than the client's own.
    others = xrootd_server.log().count(" login") - before
    got = fs.cat_ranges([f"//{name}" for name in names[1:]], [200] * 4, [300] * 4, on_error="raise")
    assert got == [OLD[200:300]] * 4
    assert xrootd_server.log().count(" login") - before - others == connections - 1
