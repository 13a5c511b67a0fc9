"""The hooks in fsspec's classes: every way to read and write, compared with fsspec's local file system."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import pickle
import random
from typing import TYPE_CHECKING, Any

import filesystems
import fsspec
import pytest
from filesystems import AsyncSlowFileSystem, SlowFileSystem, seen, settle
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from places import SUPPORT

from jcache import session as sessions
from jcache.activate import deactivate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin

    from jcache.session import Session

DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
SIZE = len(DATA)
# What reversed bounds mean, and those before the start, the file system says: see test_bounds.py.
SPANS: list[tuple[int | None, int | None]] = [
    (0, 10), (100, 200), (100, 200), (50, 150), (290_000, None), (None, 7), (None, None), (-5, None), (-20, -10),
    (10, -10), (10, 10), (SIZE, None), (SIZE - 3, SIZE + 50), (SIZE + 5, SIZE + 50), (None, -SIZE),
    (150, 120_000), (7, 9),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "a.bin").write_bytes(DATA)
    (folder / "b.bin").write_bytes(OTHER)
    (folder / "text.txt").write_text("first line\nzweite Zeile mit Ümlaut\nlast", encoding="utf-8")
    (folder / "packed.gz").write_bytes(gzip.compress(DATA))
    for path in folder.iterdir():
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return folder


@pytest.fixture(params=["slow", "aslow"])
def fs(request: pytest.FixtureRequest, active: Callable[..., Session]) -> Any:
    active()
    return fsspec.filesystem(request.param)


def replace(path: Path, data: bytes, later_s: int = 5) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(before, before + later_s * 10**9))


# -- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("span", SPANS)
def test_cat_file_cuts_as_slices_do(fs: Any, folder: Path, span: tuple[int, int], warm: bool) -> None:
    path = str(folder / "a.bin")
    if warm:
        assert fs.cat_file(path) == DATA
        settle()
        seen.reset()
    assert fs.cat_file(path, *span) == DATA[slice(*span)]
    if warm:
        assert not seen.ranges


@pytest.mark.parametrize("known", [False, True])
def test_cat_ranges_cuts_as_slices_do_and_fetches_nothing_twice(fs: Any, folder: Path, known: bool) -> None:
    path = str(folder / "a.bin")
    if known:
        fs.cat_file(path, 0, 1)
    starts, ends = [start for start, _ in SPANS], [end for _, end in SPANS]
    for _ in range(2):
        got = fs.cat_ranges([path] * len(SPANS), starts, ends)
        assert got == [DATA[slice(*span)] for span in SPANS]
    assert seen.data_bytes == SIZE, "each byte once"


def test_cat_ranges_of_several_files_and_one_bound_for_all(fs: Any, folder: Path) -> None:
    a, b = str(folder / "a.bin"), str(folder / "b.bin")
    assert fs.cat_ranges([a, b, a, b], [0, 5, 10, 20], [3, 8, 30, 25]) == [
        DATA[:3], OTHER[5:8], DATA[10:30], OTHER[20:25]
    ]  # fmt: skip
    assert fs.cat_ranges([a, b], 7, 11) == [DATA[7:11], OTHER[7:11]]
    assert fs.cat_ranges([], [], []) == []
    with pytest.raises(ValueError):  # noqa: PT011 - fsspec's own has no message
        fs.cat_ranges([a, b], [1, 2, 3], [4, 5, 6])
    with pytest.raises(TypeError):
        fs.cat_ranges(a, 0, 1)


@pytest.mark.parametrize("warm", [False, True])
def test_every_way_to_read(fs: Any, folder: Path, tmp_path: Path, warm: bool) -> None:
    a, b, text, packed = (str(folder / name) for name in ("a.bin", "b.bin", "text.txt", "packed.gz"))
    plain = LocalFileSystem()
    for _ in range(1 + warm):
        settle()
        seen.reset()
        assert fs.cat(a) == DATA
        assert fs.cat([a, b]) == {a: DATA, b: OTHER}
        assert fs.read_bytes(a, start=5, end=10) == DATA[5:10]
        assert fs.read_text(text, encoding="utf-8") == plain.read_text(text, encoding="utf-8")
        assert fs.head(a, 100) == DATA[:100]
        assert fs.tail(a, 100) == DATA[-100:]
        for arguments in ((0, 50, b"\n"), (5, 9, b"\n"), (12, None, b"\n"), (3, 7)):
            assert fs.read_block(text, *arguments) == plain.read_block(text, *arguments)
        with fs.open(text, "rt", encoding="utf-8") as file:
            assert list(file) == ["first line\n", "zweite Zeile mit Ümlaut\n", "last"]
        with fs.open(text, "rb") as file:
            assert file.readline() == b"first line\n"
            assert file.tell() == 11
            assert list(file)[-1] == b"last"
        with fs.open(packed, "rb", compression="gzip") as file:
            assert file.read() == DATA
        with fs.open(a, "rb") as file:
            file.seek(-10, 2)
            assert file.read() == DATA[-10:]
            file.seek(1000)
            buffer = bytearray(50)
            assert file.readinto(buffer) == 50
            assert bytes(buffer) == DATA[1000:1050]
            assert file.size == file.info()["size"] == SIZE
            assert file.read(0) == b""
        for target in (tmp_path / "one", tmp_path / "two"):
            fs.get_file(a, str(target))
            assert target.read_bytes() == DATA
        fs.get([a, b], [str(tmp_path / "x"), str(tmp_path / "y")])
        assert (tmp_path / "y").read_bytes() == OTHER
        fs.get(str(folder), str(tmp_path / "tree"), recursive=True)
        mapper = fs.get_mapper(str(folder))
        assert mapper["b.bin"] == OTHER
        assert mapper.getitems(["a.bin", "missing"], on_error="omit") == {"a.bin": DATA}
        assert "missing" not in mapper
    if warm:
        assert not seen.ranges, "no data byte from the origin"


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_every_way_to_open_by_url(active: Callable[..., Session], folder: Path, protocol: str) -> None:
    active()
    url = f"{protocol}://{folder}/a.bin"
    for _ in range(2):
        with fsspec.open(url) as file:
            assert file.read(1000) == DATA[:1000]
        with fsspec.open(f"{protocol}://{folder}/packed.gz", compression="infer") as file:
            assert file.read(1000) == DATA[:1000]
        fs, path = fsspec.url_to_fs(url)
        assert fs.cat_file(path, 0, 1000) == DATA[:1000]
        opened = fsspec.core.OpenFile(fs, path, "rb")
        with pickle.loads(pickle.dumps(opened)) as file:
            assert file.read(1000) == DATA[:1000]
        with fsspec.open_files(f"{protocol}://{folder}/*.bin")[1] as file:
            assert file.read(1000) == OTHER[:1000]
        assert fsspec.get_mapper(f"{protocol}://{folder}")["a.bin"] == DATA
    settle()
    assert [r for r in seen.ranges if r[0] == "a.bin"] == [("a.bin", 0, 1000), ("a.bin", 1000, SIZE)]


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_a_file_object_that_is_read_at_random_fetches_no_byte_twice(
    active: Callable[..., Session], folder: Path, protocol: str
) -> None:
    session, fs = active(), fsspec.filesystem(protocol)
    rng = random.Random(3)
    distinct: set[int] = set()
    with fs.open(str(folder / "a.bin")) as file:
        for _ in range(200):
            start, size = rng.randrange(SIZE), rng.randrange(1, 2000)
            file.seek(start)
            assert file.read(size) == DATA[start : start + size]
            distinct.update(range(start, min(start + size, SIZE)))
    assert len(distinct) <= seen.data_bytes <= SIZE
    settle()
    assert session.counters.snapshot().recorded_bytes == len(distinct), "what nobody asked for is not recorded"


def test_asynchronous_methods(active: Callable[..., Session], folder: Path, tmp_path: Path) -> None:
    active()
    path = str(folder / "a.bin")

    async def main() -> None:
        fs = AsyncSlowFileSystem(asynchronous=True)
        for _ in range(2):
            assert await fs._cat_file(path, 5, 10) == DATA[5:10]
            assert await fs._cat_file(path, start=-5) == DATA[-5:]
            assert await fs._cat_ranges([path] * 2, [0, 50], [10, 60]) == [DATA[:10], DATA[50:60]]
            assert await fs._cat([path]) == {path: DATA}
            await fs._get_file(path, str(tmp_path / "got"))
            assert (tmp_path / "got").read_bytes() == DATA
            assert (await fs._info(path))["size"] == SIZE
            assert await fs._exists(path)
            assert await fs._isfile(path)
            assert not await fs._exists(path + "x")
            assert path in await fs._ls(str(folder), detail=False)
            with pytest.raises(NotImplementedError):
                await fs.open_async(path, "rb")  # it has none

    asyncio.run(main())
    assert seen.data_bytes == SIZE


def test_http_asynchronous_instances_on_several_loops(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    http_origin.put("f", DATA)

    async def main() -> None:
        fs = HTTPFileSystem(asynchronous=True, skip_instance_cache=True)
        session = await fs.set_session()
        try:
            assert await fs._cat_file(http_origin.url("f"), 100, 200) == DATA[100:200]
            assert await fs._cat_ranges([http_origin.url("f")] * 2, [0, 400], [10, 500]) == [DATA[:10], DATA[400:500]]
            file = await fs.open_async(http_origin.url("f"), "rb")
            assert await file.read(10) == DATA[:10]
            await file.close()
        finally:
            await session.close()

    for _ in range(3):
        asyncio.run(main())
    settle()
    assert http_origin.body_bytes == 210


# -- what stays what it was ----------------------------------------------------------------------------------------


def methods(cls: type) -> dict[str, Any]:
    return {name: value for base in cls.__mro__ for name, value in vars(base).items() if callable(value)}


def test_classes_and_instances_stay_what_they_were(active: Callable[..., Session]) -> None:
    before = [methods(cls) for cls in (HTTPFileSystem, SlowFileSystem, AsyncSlowFileSystem)]
    http, slow = HTTPFileSystem(headers={"x": "y"}), SlowFileSystem()
    json, pickled = http.to_json(), pickle.dumps(http)
    active()
    hooked = HTTPFileSystem(headers={"x": "y"})
    assert hooked is http
    assert HTTPFileSystem._cat_file is not before[0]["_cat_file"]
    assert type(hooked) is HTTPFileSystem
    assert isinstance(hooked, AsyncFileSystem)
    assert hooked.protocol == ("http", "https")
    assert hooked.to_json() == json
    assert AbstractFileSystem.from_json(json) is http
    assert pickle.dumps(hooked) == pickled
    assert pickle.loads(pickled) is http
    assert asyncio.iscoroutinefunction(hooked._cat_file)
    assert not asyncio.iscoroutinefunction(hooked.cat_file)
    assert hooked._cat_file.__doc__ == before[0]["_cat_file"].__doc__
    assert SlowFileSystem() is slow
    deactivate()
    assert [methods(cls) for cls in (HTTPFileSystem, SlowFileSystem, AsyncSlowFileSystem)] == before
    assert methods(AbstractFileSystem) == methods(AbstractFileSystem)


def test_local_and_memory_file_systems_are_left_alone(active: Callable[..., Session], folder: Path) -> None:
    before = methods(LocalFileSystem)
    active()
    fs = fsspec.filesystem("file")
    assert methods(type(fs)) == before
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    wrapper = AsyncFileSystemWrapper(fs, asynchronous=True)
    assert asyncio.run(wrapper._cat_file(str(folder / "a.bin"), 0, 5)) == DATA[:5]
    session = sessions.current()
    assert session is not None
    assert not session.counters.any_activity()


def test_two_names_of_one_object_in_one_cat(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active()
    http_origin.put("f", DATA[:1000])
    names = [http_origin.url("f") + end for end in ("", "#a", "#b")]
    for _ in range(2):
        assert HTTPFileSystem().cat(names) == dict.fromkeys(names, DATA[:1000])
        settle()
        deactivate()
        active()


def test_a_class_whose_protocol_is_a_property(active: Callable[..., Session], folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow.fs")
    from fsspec.implementations.arrow import ArrowFSWrapper

    active()
    assert ArrowFSWrapper(arrow.LocalFileSystem()).cat_file(str(folder / "a.bin")) == DATA


def test_instances_that_the_collector_does_not_know_any_more_are_cached(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    http_origin.put("f", bytes(1000))
    url = http_origin.url("f")
    deactivate()
    fs = HTTPFileSystem()
    gc.freeze()  # as servers do before they fork
    session = active()
    assert fs.cat_file(url, 0, 10) == bytes(10)
    assert fs.cat_ranges([url, url], [0, 100], [10, 110]) == [bytes(10)] * 2
    counted = session.counters.snapshot()
    assert (counted.read_ops, counted.readv_ops, counted.origin_bytes) == (1, 1, http_origin.body_bytes)


@pytest.mark.parametrize("cls", [SlowFileSystem, AsyncSlowFileSystem])
@pytest.mark.parametrize("skip", [False, True])
def test_instances_from_before_activation_are_cached(
    active: Callable[..., Session], folder: Path, cls: Any, skip: bool
) -> None:
    filesystems.register()
    before = cls(skip_instance_cache=skip)
    path = str(folder / "a.bin")
    assert before.cat_file(path, 0, 10) == DATA[:10]
    active()
    seen.reset()
    for _ in range(2):
        assert before.cat_file(path, 0, 10) == DATA[:10]
        assert before.cat_ranges([path], [20], [30]) == [DATA[20:30]]
        assert before.cat([path]) == {path: DATA}
    assert seen.data_bytes == SIZE


@pytest.mark.parametrize("cls", [SlowFileSystem, AsyncSlowFileSystem])
@pytest.mark.parametrize("skip", [False, True])
def test_instances_work_after_deactivation(active: Callable[..., Session], folder: Path, cls: Any, skip: bool) -> None:
    active()
    path = str(folder / "a.bin")
    made = cls(skip_instance_cache=skip)
    assert made.cat_file(path, 0, 10) == DATA[:10]
    deactivate()
    for _ in range(2):
        seen.reset()
        assert made.cat_file(path, 0, 10) == DATA[:10]
        assert made.cat_ranges([path], [0], [10]) == [DATA[:10]]
        assert made.cat([path]) == {path: DATA}
        assert made.info(path)["size"] == SIZE
        assert seen.data_bytes == SIZE + 20


@pytest.mark.parametrize("cls", [SlowFileSystem, AsyncSlowFileSystem])
def test_what_a_path_means_is_up_to_the_session(active: Callable[..., Session], folder: Path, cls: Any) -> None:
    made, path = cls(), str(folder / "a.bin")
    for fields, fetched in ({}, 10), ({"flat": True}, 10), ({"basepath": str(folder)}, 10), ({"flat": True}, 0):
        active(**fields)
        seen.reset()
        assert made.cat_file(path, 0, 10) == DATA[:10]
        assert seen.data_bytes == fetched, fields


def test_open_files_survive_deactivation_or_say_so(active: Callable[..., Session], folder: Path) -> None:
    active()
    file = SlowFileSystem().open(str(folder / "a.bin"))
    assert file.read(10) == DATA[:10]
    deactivate()
    assert file.read(10) == DATA[10:20]
    file.close()


def test_a_file_that_is_never_closed_ends_with_the_process(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    http_origin.put("f", DATA)
    code = """
import fsspec, sys
file = fsspec.open(sys.argv[1]).open()
assert sum(len(file.read(3000)) for _ in range(20)) == 60_000
"""
    cold = run_python(code, http_origin.url("f"))
    assert "Traceback" not in cold.stderr, cold.stderr
    warm = run_python(code, http_origin.url("f"))
    assert "Traceback" not in warm.stderr, warm.stderr
    assert warm.report["read"]["hit_bytes"] == 60_000


BEHIND_THE_END = """
import atexit, builtins, os, sys, tempfile, threading
sys.path.insert(0, {tests!r})
import filesystems
import fsspec

filesystems.register()
path = sys.argv[1]
slow, aslow = fsspec.filesystem("slow"), fsspec.filesystem("aslow")
data = open(path, "rb").read()

def told(where, fs, start):
    assert fs.cat_file(path, start, start + 1000) == data[start : start + 1000]
    with fs.open(path) as file:
        assert b"".join(file.read(5000) for _ in range(10)) == data[:50_000]
    with tempfile.TemporaryDirectory() as directory:
        fs.get_file(path, directory + "/got")
        assert open(directory + "/got", "rb").read() == data
    print(where, fs.protocol)

def behind():
    threading.main_thread().join()
    for k, fs in enumerate((slow, aslow)):
        told("thread", fs, 60_000 + 2000 * k)

class Last:
    def __del__(self, slow=slow, path=path, write=os.write):
        try:
            slow.cat_file(path, 5, 50)
        except ImportError:
            pass  # it opens a file, which Python may refuse by now
        write(1, b"collected")

builtins.last = Last()
for fs in (slow, aslow):
    atexit.register(told, "exit handler", fs, 70_000)
threading.Thread(target=behind).start()
slow.cat_file(path, 0, 10)
print("main")
"""


def test_reads_behind_the_end_of_the_main_thread(run_python: RunPython, folder: Path) -> None:
    """In threads that outlive it, in exit handlers, and while the interpreter is taken down: executors are no more."""
    code = BEHIND_THE_END.format(tests=str(SUPPORT))
    plain = run_python(code, str(folder / "a.bin"), cache=None)
    assert plain.stdout.split("\n")[-1] == "collected"
    for _ in range(2):
        ran = run_python(code, str(folder / "a.bin"))
        assert ran.stdout == plain.stdout
        assert "Traceback" not in ran.stderr, ran.stderr
        assert ran.stderr.count("cache combined hit rate") == 1


class Copying(SlowFileSystem):
    """Has its own way to copy a file, as those over SFTP and FTP have."""

    protocol = "copying"

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, **kwargs: Any) -> None:
        with open(lpath, "wb") as file:
            file.write(filesystems.piece(rpath, None, None))


def test_a_synchronous_file_system_with_its_own_get_file(
    active: Callable[..., Session], folder: Path, tmp_path: Path
) -> None:
    session = active()
    fs = Copying(skip_instance_cache=True)
    for _ in range(2):
        fs.get_file(str(folder / "a.bin"), str(tmp_path / "got"))
        fs.get([str(folder / "a.bin"), str(folder / "b.bin")], [str(tmp_path / "got"), str(tmp_path / "b")])
        assert (tmp_path / "got").read_bytes() == DATA
        assert (tmp_path / "b").read_bytes() == OTHER
    assert seen.data_bytes == 2 * SIZE
    assert session.counters.snapshot().read_hit == 4 * SIZE


class Doubling(AsyncSlowFileSystem):
    """Overrides a read and calls what it overrides."""

    protocol = "doubling"

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return bytes(255 - byte for byte in await super()._cat_file(path, start, end, **kwargs))


class InvertingHttp(HTTPFileSystem):
    """An HTTP file system that does something to the bytes (decrypts them, say)."""

    protocol = "inverting"

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return bytes(255 - byte for byte in await super()._cat_file(url, start, end, **kwargs))


def test_a_subclass_that_overrides_and_calls_super(active: Callable[..., Session], folder: Path) -> None:
    active()
    AsyncSlowFileSystem()
    path = str(folder / "a.bin")
    fs = Doubling()
    for _ in range(2):
        assert fs.cat_file(path, 5, 15) == bytes(255 - byte for byte in DATA[5:15])
        assert AsyncSlowFileSystem().cat_file(path, 5, 15) == DATA[5:15]
        settle()
    assert seen.data_bytes == 20
    Doubling.clear_instance_cache()


def test_a_subclass_of_http_keeps_what_it_makes_of_the_bytes(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    http_origin.put("f", DATA)
    active()
    fs = InvertingHttp(skip_instance_cache=True)
    for _ in range(2):
        assert fs.cat_file(http_origin.url("f"), 5, 15) == bytes(255 - byte for byte in DATA[5:15])
        settle()


class Wrapped(AsyncSlowFileSystem):
    """Its read is a coroutine function only when it is called, as behind a third party's decorator."""

    protocol = "wrapped"

    def _cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return super()._cat_file(path, *args, **kwargs)


def test_a_class_that_cannot_be_hooked_works_as_without(active: Callable[..., Session], folder: Path) -> None:
    active()
    fs = Wrapped(asynchronous=True, skip_instance_cache=True)
    assert asyncio.run(fs._cat_file(str(folder / "a.bin"), 0, 5)) == DATA[:5]


# -- errors ---------------------------------------------------------------------------------------------------------


def test_missing_files_raise_what_the_plain_file_system_raises(fs: Any, folder: Path, tmp_path: Path) -> None:
    missing = str(folder / "missing")
    for _ in range(2):
        for read in (
            lambda: fs.cat_file(missing),
            lambda: fs.cat_file(missing, 0, 5),
            lambda: fs.cat_file(missing, -5),
            lambda: fs.open(missing).read(),
            lambda: fs.head(missing, 5),
            lambda: fs.info(missing),
            lambda: fs.get_file(missing, str(tmp_path / "out")),
            lambda: fs.cat_ranges([missing], [0], [5], on_error="raise"),
        ):
            with pytest.raises(FileNotFoundError):
                read()
        assert not fs.exists(missing)
        (error,) = fs.cat_ranges([missing], [0], [5])
        assert isinstance(error, FileNotFoundError)
        a = str(folder / "a.bin")
        first, error, last = fs.cat_ranges([a, missing, a], [0, 0, 50], [5, 5, 60], on_error="return")
        assert (first, last) == (DATA[:5], DATA[50:60])
        assert isinstance(error, FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            fs.cat_ranges([a, missing, a], [0, 0, 50], [5, 5, 60], on_error="raise")
        with pytest.raises(FileNotFoundError):
            fs.cat([a, missing])
        assert fs.cat([a, missing], on_error="omit") == {a: DATA}
        assert fs.cat([a, missing], on_error="return")[a] == DATA


def test_http_missing_file(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active()
    fs, url = HTTPFileSystem(), http_origin.url("missing")
    for read in (
        lambda: fs.cat_file(url),
        lambda: fs.cat_file(url, 0, 5),
        lambda: fs.open(url).read(),
        lambda: fs.info(url),
        lambda: fs.cat_ranges([url, url], [0, 5], [5, 10], on_error="raise"),
    ):
        with pytest.raises(FileNotFoundError):
            read()
    assert all(isinstance(error, FileNotFoundError) for error in fs.cat_ranges([url, url], [0, 5], [5, 10]))


def test_one_range_that_fails_loses_no_neighbour(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    active(retries=0)
    resource = http_origin.put("f", DATA)
    url, fs = http_origin.url("f"), HTTPFileSystem()
    resource.once = {2: {"status": 503}}
    got = fs.cat_ranges([url] * 4, [0, 100, 200, 300], [10, 110, 210, 310])
    failed = [i for i, part in enumerate(got) if isinstance(part, Exception)]
    assert len(failed) == 1
    assert all(part == DATA[100 * i : 100 * i + 10] for i, part in enumerate(got) if i not in failed)
    settle()
    asked = http_origin.body_bytes
    assert asked == 30
    got = fs.cat_ranges([url] * 4, [0, 100, 200, 300], [10, 110, 210, 310])
    assert got == [DATA[100 * i : 100 * i + 10] for i in range(4)]
    assert http_origin.body_bytes == 40, "only the range that failed is asked for again"


def test_a_refused_read_is_no_cache_trouble(fs: Any, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "refused").write_bytes(b"x")
    with pytest.raises(PermissionError):
        fs.cat_file(str(folder / "refused"))
    with pytest.raises(PermissionError), fs.open(str(folder / "refused")) as file:
        file.read()
    assert "jcache" not in capfd.readouterr().err


# -- writing --------------------------------------------------------------------------------------------------------


def write_with(fs: Any, how: str, path: str, local: Path, data: bytes) -> None:
    local.write_bytes(data)
    if how == "open":
        with fs.open(path, "wb") as file:
            file.write(data)
    elif how == "pipe_file":
        fs.pipe_file(path, data)
    elif how == "pipe_file by name":
        fs.pipe_file(path=path, value=data)
    elif how == "pipe":
        fs.pipe({path: data})
    elif how == "write_bytes":
        fs.write_bytes(path, data)
    elif how == "put_file":
        fs.put_file(str(local), path)
    elif how == "put":
        fs.put(str(local), path)
    elif how == "put by name":
        fs.put(lpath=str(local), rpath=path)
    elif how in {"cp", "mv"}:
        source = path + ".source"
        with open(source, "wb") as file:
            file.write(data)
        getattr(fs, how)(source, path)
    elif how == "cp by name":
        with open(path + ".source", "wb") as file:
            file.write(data)
        fs.cp_file(path1=path + ".source", path2=path)
    elif how == "transaction":
        with fs.transaction, fs.open(path, "wb") as file:
            file.write(data)
    os.utime(path, ns=(0, 1_700_000_099_000_000_001))


HOW = ("open", "pipe_file", "pipe_file by name", "pipe", "write_bytes", "put_file", "put", "put by name", "cp",
       "cp by name", "mv")  # fmt: skip


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
@pytest.mark.parametrize("validate", ["open", "never"])
@pytest.mark.parametrize("how", HOW)
def test_what_was_written_is_read(
    active: Callable[..., Session], folder: Path, tmp_path: Path, protocol: str, validate: str, how: str
) -> None:
    active(validate=validate)
    fs, path = fsspec.filesystem(protocol), str(folder / "a.bin")
    assert fs.cat_file(path, 0, 100) == DATA[:100]
    settle()
    write_with(fs, how, path, tmp_path / "local", OTHER)
    assert fs.cat_file(path, 0, 100) == OTHER[:100]
    settle()
    active(validate=validate)
    assert fsspec.filesystem(protocol).cat_file(path, 0, 100) == OTHER[:100]


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
@pytest.mark.parametrize("settled", [False, True])
def test_what_was_written_and_not_read_is_not_stale_in_a_later_process(
    active: Callable[..., Session], folder: Path, tmp_path: Path, protocol: str, settled: bool
) -> None:
    active(validate="never")
    fs, path = fsspec.filesystem(protocol), str(folder / "a.bin")
    assert fs.cat_file(path, 0, 100) == DATA[:100]
    if settled:
        settle()
    write_with(fs, "pipe_file", path, tmp_path / "local", OTHER)
    active(validate="never")
    assert fsspec.filesystem(protocol).cat_file(path, 0, 100) == OTHER[:100]


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
@pytest.mark.parametrize("later", [False, True])
def test_what_was_removed_is_gone(active: Callable[..., Session], folder: Path, protocol: str, later: bool) -> None:
    active(validate="never")
    fs, path = fsspec.filesystem(protocol), str(folder / "a.bin")
    below = str(folder / "sub" / "c.bin")
    os.makedirs(os.path.dirname(below))
    (folder / "sub" / "c.bin").write_bytes(OTHER)
    assert fs.cat_file(path, 0, 100) == DATA[:100]
    assert fs.cat_file(below, 0, 100) == OTHER[:100]
    settle()
    if later:
        active(validate="never")
        fs = fsspec.filesystem(protocol)
    fs.rm(path)
    fs.rm_file(below)
    for _ in range(2):
        for gone in (path, below):
            with pytest.raises(FileNotFoundError):
                fs.cat_file(gone, 0, 100)
            with pytest.raises(FileNotFoundError):
                fs.info(gone)
            assert not fs.exists(gone)
        active(validate="never")
        fs = fsspec.filesystem(protocol)


def test_a_transaction_invalidates_when_it_commits(active: Callable[..., Session], folder: Path) -> None:
    class Committed(AsyncSlowFileSystem):
        protocol = "committed"

        def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **kwargs: Any) -> Any:
            if mode == "rb" or autocommit:
                return super()._open(path, mode, **kwargs)
            return Pending(path)

    class Pending:
        def __init__(self, path: str) -> None:
            self.path, self.data, self.closed = path, b"", False

        def write(self, data: bytes) -> None:
            self.data += data

        def close(self) -> None:
            self.closed = True

        def commit(self) -> None:
            with open(self.path, "wb") as file:
                file.write(self.data)

    active(validate="never")
    fs, path = Committed(), str(folder / "a.bin")
    assert fs.cat_file(path, 0, 100) == DATA[:100]
    with fs.transaction:
        file = fs.open(path, "wb")
        file.write(OTHER)
        file.close()
        assert fs.cat_file(path, 0, 100) == DATA[:100]
    assert fs.cat_file(path, 0, 100) == OTHER[:100]


def test_open_async_for_writing_invalidates(active: Callable[..., Session], folder: Path) -> None:
    class File:
        def __init__(self, path: str) -> None:
            self.path = path

        async def write(self, data: bytes) -> None:
            with open(self.path, "wb") as file:
                file.write(data)

        async def close(self) -> None:
            pass

    class Streaming(AsyncSlowFileSystem):
        protocol = "streaming"

        async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            return File(path)

    active(validate="never")
    path = str(folder / "a.bin")

    async def main() -> None:
        fs = Streaming(asynchronous=True, skip_instance_cache=True)
        assert await fs._cat_file(path, 0, 100) == DATA[:100]
        file = await fs.open_async(path, "wb")
        await file.write(OTHER)
        await file.close()
        assert await fs._cat_file(path, 0, 100) == OTHER[:100]

    asyncio.run(main())


def test_offline_nothing_is_asked_of_the_origin(active: Callable[..., Session], folder: Path) -> None:
    active()
    a, b = str(folder / "a.bin"), str(folder / "b.bin")
    assert fsspec.filesystem("aslow").cat_file(a, 0, 100) == DATA[:100]
    assert fsspec.filesystem("slow").cat_file(a, 0, 100) == DATA[:100]
    active(offline=True)
    seen.reset()
    for fs in (fsspec.filesystem("aslow"), fsspec.filesystem("slow")):
        assert fs.cat_file(a, 10, 100) == DATA[10:100]
        assert fs.info(a)["size"] == SIZE
        assert fs.exists(a)
        assert fs.isfile(a)
        with fs.open(a) as file:
            assert file.read(100) == DATA[:100]
            with pytest.raises(OSError, match="JCACHE_OFFLINE"):
                file.read(1)
        for unknown in (fs.cat_file, fs.info, fs.open):
            with pytest.raises(OSError, match="JCACHE_OFFLINE"):
                unknown(b)
    assert not seen.calls
    assert not seen.ranges


# -- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_a_file_object_never_mixes_two_versions(active: Callable[..., Session], folder: Path, protocol: str) -> None:
    active()
    fs, path = fsspec.filesystem(protocol), folder / "a.bin"
    one, two = fs.open(str(path)), fs.open(str(path))
    assert one.read(100) == DATA[:100]
    assert two.read(100) == DATA[:100]
    replace(path, OTHER)
    with pytest.raises(OSError, match="replaced"):
        one.read(100)
    for file in (one, two):
        for _ in range(2):
            try:
                assert file.read(100) == DATA[file.tell() - 100 : file.tell()]
            except OSError:
                continue
    with fs.open(str(path)) as file:
        assert file.read(100) == OTHER[:100], "opening anew starts with the new version"


# -- counting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_bypass_counts_each_byte_once(active: Callable[..., Session], folder: Path, protocol: str) -> None:
    session = active(bypass=True)
    fs, path = fsspec.filesystem(protocol), str(folder / "a.bin")
    assert fs.cat_file(path, 0, 100) == DATA[:100]
    assert fs.cat_ranges([path] * 2, [0, 50], [10, 60]) == [DATA[:10], DATA[50:60]]
    with fs.open(path) as file:
        assert file.read(30) == DATA[:30]
    counted = session.counters.snapshot()
    assert (counted.read_ops, counted.read_hit, counted.read_miss, counted.read_bypass) == (2, 0, 0, 130)
    assert (counted.readv_ops, counted.readv_ranges, counted.readv_bypass) == (1, 2, 20)
    assert counted.origin_bytes == seen.data_bytes == 150


@pytest.mark.parametrize(
    "module", ["jcache_plugins.fsspec", "jcache_plugins.fsspec.access", "jcache_plugins.origins.http"]
)
def test_hooks_are_in_place_whatever_of_theirs_was_imported_first(
    run_python: RunPython, http_origin: ScriptedOrigin, module: str
) -> None:
    http_origin.put("f", bytes(1000))
    code = f"import sys, {module}, fsspec; print(len(fsspec.filesystem('http').cat_file(sys.argv[1])))"
    ran = run_python(code, http_origin.url("f"))
    assert (ran.stdout, ran.report["read"]["bytes"]) == ("1000\n", 1000), ran.stderr
    assert "jcache: " not in ran.stderr
