"""pyxrootd against a real XRootD server: what `File` and `FileSystem` answer, cold, warm and without the server.

Judge: the same script in a process without JCache.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from analysis import CLIENT, COLUMNS, OLD_S, Served, write
from commands import jcache

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ran, RunPython
    from servers import WritableXrootd, XrootdServer

TEXT = "line one\nline two\n" + "x" * 3000 + "\nGrüße\n\nthe end"
BINARY = bytes(range(256)) * 20_000
TRUSTED = {"never": {"JCACHE_VALIDATE": "never"}, "offline": {"JCACHE_OFFLINE": "1"}}

PRELUDE = """
import os, sys, threading
from XRootD import client
from XRootD.client.flags import DirListFlags, OpenFlags, QueryCode

server = sys.argv[1]

def opened(name, *args, **kwargs):
    file = client.File()
    status, response = file.open(f"{server}//{name}", *args, **kwargs)
    assert status.ok, status
    return file

def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not hasattr(value, "__dict__"):
        return value
    # When it was read last is another time each time.
    return type(value).__name__, {name: plain(item) for name, item in sorted(vars(value).items()) if name != "atime"}

def show(*values):
    print(*(plain(value) for value in values))

def called(call, *args, **kwargs):
    done, told = threading.Event(), []
    def callback(status, response, hosts):
        told.extend([status, response, type(hosts).__name__, threading.current_thread() is threading.main_thread()])
        done.set()
    submitted = call(*args, **kwargs, callback=callback)
    assert done.wait(60)
    return [submitted, *told]

def tried(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)
"""
READS = (
    PRELUDE
    + """
file = opened("binary")
size = 256 * 20_000
show(file.is_open(), file.stat())
ranges = (0, 10), (5, 1), (1000, 70_000), (size - 5, 100), (size, 1), (size + 5, 1), (7, 3), (size - 9, 0)
for offset, length in ranges:
    show(file.read(offset, length))
    show(called(file.read, offset, length))
show(file.read(size=3, offset=2, timeout=30), file.read(True, 2), len(file.read()[1]))
for chunks in ([(0, 5)], [(10, 5), (2, 3)], [(0, 0), (2, 3)], [(0, 2), (1, 2)], [(n * 1000, 8) for n in range(1024)]):
    show(file.vector_read(chunks))
    show(called(file.vector_read, chunks=chunks, timeout=30))
_, info = file.vector_read([(3, 4), (9, 2)])
show([(chunk.offset, chunk.length, chunk.buffer) for chunk in info], info.size)
show([len(chunk) for chunk in file.readchunks(0, 1 << 20)], next(iter(file.readchunks(3, 5))))
show(file.close(), file.is_open(), file.close())
show(tried(file.read, 0, 1), tried(file.stat), tried(file.vector_read, [(0, 1)]), tried(file.readline))
show(file.open(f"{server}//text", OpenFlags.READ), file.read(0, 4), called(file.close))

show(opened("text").readlines(), opened("text").readlines(0, 100), opened("text").readlines(0, 0, 7))
show([line for line in opened("text")])
file = opened("text")
show(file.readline(), file.readline(9), file.readline(), file.readline(0, 4), file.readline(0, 5, 3))
show(file.readline(0, 100, 7), file.readlines(), file.readline(), file.readline(5000))
show(tried(opened("binary").readline), tried(opened("binary").readlines))
with client.File() as file:
    show(called(file.open, f"{server}//text"), file.is_open(), file.read(1, 2))
show(file.is_open())
with client.File() as file:
    show(tried(file.read), file.is_open(), file.close())

system = client.FileSystem(server)
show(system.stat("/text"), called(system.stat, "/binary"))
for flags in (DirListFlags.NONE, DirListFlags.STAT):
    show(system.dirlist("/", flags), called(system.dirlist, "/many", flags))
show(system.query(QueryCode.CONFIG, "readv_iov_max readv_ior_max"))
"""
)
REFUSALS = (
    PRELUDE
    + """
file, text = opened("binary"), opened("text")
show(file.read(0, 5), file.vector_read([(0, 5)]))
for chunks in ([], [(0, 3_000_000)], [(0, 1)] * 1025, [(3, 2), (3, 2)], [(256 * 20_000 - 2, 9)], [(1 << 40, 1)]):
    show(file.vector_read(chunks), called(file.vector_read, chunks))
for args in ((-1, 2), (0, -1), (0, 1 << 33), ("a",), (0.5, 1), (0, 5, None), (0, 5, 0, 3)):
    show(tried(file.read, *args))
for chunks in (((0, 1),), [[0, 1]], [(0,)], [("a", 1)], [(-1, 2)], None):
    show(tried(file.vector_read, chunks))
show(tried(file.open, f"{server}//text"), file.get_property("ReadRecovery"), file.get_property("nonsense"))
show(file.get_property("DataServer"), file.get_property("LastURL").partition("?")[0])
show(file.list_xattr(), tried(file.write, b"x"))
for name in ("nothing", "many", ""):
    show(client.File().open(f"{server}//{name}"), called(client.File().open, f"{server}//{name}"))
show(client.File().open("root://"), tried(client.File().open, None), tried(client.File().open, f"{server}//text", "r"))
show(tried(client.File().open, f"{server}//text", timeout=None))
show(tried(client.File().open, f"{server}//text", callback=3))
system = client.FileSystem(server)
show(system.stat("/nothing"), system.dirlist("/nothing"), system.dirlist("/text"), called(system.stat, "/nothing"))
show(tried(system.stat, None), tried(system.dirlist, "/", "x"), tried(system.stat, "/text", callback=3))
file = opened("empty")
show(file.read(), file.read(0, 5), file.readlines(), file.stat(), [chunk for chunk in file.readchunks()])
"""
)


@pytest.fixture
def served(xrootd_server: XrootdServer) -> Served:
    found = Served(xrootd_server)
    files = {"text": TEXT.encode(), "binary": BINARY, "empty": b"", **{f"many/{n}": b"x" * n for n in range(20)}}
    (found.directory / "many").mkdir()
    for name, data in files.items():
        put(found.directory / name, data)
    return found


def put(path: Path, data: bytes, when_s: int = OLD_S) -> None:
    """Write a file that was modified long ago: what is of this second is not recorded."""
    path.write_bytes(data)
    path.chmod(0o644)
    os.utime(path, (when_s, when_s))


def address(served: Served) -> str:
    return f"root://{served.server.address}"


def reads(ran: Ran) -> dict[str, int]:
    kinds = ("read", "readv")
    return {name: sum(ran.report[kind][f"{name}_bytes"] for kind in kinds) for name in ("hit", "miss", "bypass")}


def test_what_is_read_is_equal_and_warm_no_byte_comes_from_the_server(served: Served, run_python: RunPython) -> None:
    plain = run_python(READS, address(served), cache=None)
    plain_bytes = served.data_bytes()
    served.reset()
    cold = run_python(READS, address(served))
    assert cold.stdout == plain.stdout
    assert 0 < served.data_bytes() <= plain_bytes
    assert reads(cold)["bypass"] == 0
    assert cold.report["origin"]["bytes"] == served.data_bytes() == reads(cold)["miss"]
    served.reset()
    warm = run_python(READS, address(served))
    assert warm.stdout == plain.stdout
    assert served.data_bytes() == 0
    assert (reads(warm)["miss"], reads(warm)["bypass"]) == (0, 0)
    assert reads(warm)["hit"] == sum(reads(cold).values())
    assert cold.report["files"]["opened"] == warm.report["files"]["opened"]
    for ran in (cold, warm):
        assert "jcache:" not in ran.stderr
    served.stop()
    for env in TRUSTED.values():
        assert run_python(READS, address(served), env={**env, **CLIENT}).stdout == plain.stdout


def test_what_is_refused_is_refused_alike(served: Served, run_python: RunPython) -> None:
    plain = run_python(REFUSALS, address(served), cache=None)
    for env in ({}, {}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_BYPASS": "1"}):
        ran = run_python(REFUSALS, address(served), env=env)
        assert ran.stdout == plain.stdout


# -- with fsspec, and uproot ------------------------------------------------------------------------------------------

BY_FSSPEC = """
import sys, fsspec
fs, path = fsspec.core.url_to_fs(f"{sys.argv[1]}//binary")
print(fs.cat_file(path, 10, 5000) == bytes(range(256))[10:] + bytes(range(256)) * 18 + bytes(range(136)))
print([len(row) for row in fs.cat_ranges([path] * 2, [7000, 9000], [7100, 9200])])
with fs.open(path) as file:
    file.seek(50_000)
    print(len(file.read(1000)))
print(fs.info(path))
"""
BY_PYXROOTD = (
    PRELUDE
    + """
file = opened("binary")
print(file.read(10, 4990)[1] == bytes(range(256))[10:] + bytes(range(256)) * 18 + bytes(range(136)))
print([chunk.length for chunk in file.vector_read([(7000, 100), (9000, 200)])[1]])
print(len(file.read(50_000, 1000)[1]))
print(file.stat()[1].size)
"""
)


@pytest.mark.parametrize("jobs", [(BY_FSSPEC, BY_PYXROOTD), (BY_PYXROOTD, BY_FSSPEC)], ids=["fsspec", "pyxrootd"])
def test_what_one_has_read_the_other_has(served: Served, run_python: RunPython, jobs: tuple[str, str]) -> None:
    first, second = jobs
    expected = run_python(second, address(served), cache=None).stdout
    cold = run_python(first, address(served))
    assert reads(cold)["miss"] >= 6290
    for env in ({}, *TRUSTED.values()):
        served.reset()
        ran = run_python(second, address(served), env={**env, **CLIENT})
        assert ran.stdout == expected
        assert served.data_bytes() == 0
        assert (reads(ran)["miss"], reads(ran)["bypass"]) == (0, 0)
        if env:
            served.stop()


UPROOT = """
import hashlib, sys
import awkward as ak, uproot
from uproot.source.xrootd import MultithreadedXRootDSource, XRootDSource

handler = {source.__name__: source for source in (MultithreadedXRootDSource, XRootDSource)}[sys.argv[1]]
with uproot.open(sys.argv[2], handler=handler) as file:
    events = file["Events"].arrays(sys.argv[3].split(","))
    print(file.file.source.num_bytes, file.file.source.closed)
for name in events.fields:
    print(name, hashlib.sha256(ak.to_numpy(ak.flatten(events[name], axis=None)).tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    ("source", "rntuple"),
    [
        pytest.param("XRootDSource", False, id="ttree"),
        pytest.param("MultithreadedXRootDSource", True, id="rntuple, threads"),
        pytest.param("MultithreadedXRootDSource", False, id="ttree, threads", marks=pytest.mark.long),
        pytest.param("XRootDSource", True, id="rntuple", marks=pytest.mark.long),
    ],
)
def test_uproots_own_sources(served: Served, run_python: RunPython, source: str, rntuple: bool) -> None:
    write(served.directory / "events", rntuple=rntuple)
    args = source, f"{address(served)}//events", ",".join(COLUMNS)
    plain = run_python(UPROOT, *args, cache=None)
    plain_bytes = served.data_bytes()
    served.reset()
    cold = run_python(UPROOT, *args)
    assert cold.stdout == plain.stdout
    assert served.data_bytes() == cold.report["origin"]["bytes"] == reads(cold)["miss"] <= plain_bytes
    for env in ({}, *TRUSTED.values()):
        served.reset()
        warm = run_python(UPROOT, *args, env={**env, **CLIENT})
        assert warm.stdout == plain.stdout
        assert served.data_bytes() == 0
        assert (reads(warm)["miss"], reads(warm)["bypass"]) == (0, 0)
        assert sum(reads(warm).values()) == sum(reads(cold).values())
        if env:
            served.stop()


def test_uproot_runs_offline_where_fsspec_has_read(served: Served, run_python: RunPython) -> None:
    write(served.directory / "events", rntuple=False)
    args = "XRootDSource", f"{address(served)}//events", ",".join(COLUMNS)
    by_fsspec = run_python(UPROOT.replace(", handler=handler", ""), *args)
    served.stop()
    assert run_python(UPROOT, *args, env={"JCACHE_OFFLINE": "1"}).stdout == by_fsspec.stdout


def test_uproot_runs_with_a_bundle_alone(served: Served, run_python: RunPython, tmp_path: Path) -> None:
    write(served.directory / "events", rntuple=False)
    args = "XRootDSource", f"{address(served)}//events", ",".join(COLUMNS)
    cold = run_python(UPROOT, *args, env={"JCACHE_PROFILE": os.fspath(tmp_path / "profiles")})
    target = tmp_path / "a.jcb"
    jcache("bundle", "create", tmp_path / "profiles", "--dir", tmp_path / "cache", "-o", target)
    served.stop()
    ran = run_python(UPROOT, *args, cache=None, env={**CLIENT, "JCACHE_BUNDLES": os.fspath(target)})
    assert ran.stdout == cold.stdout
    assert (reads(ran)["miss"], reads(ran)["bypass"]) == (0, 0)


# -- what changes -----------------------------------------------------------------------------------------------------

CHANGED = (
    PRELUDE
    + """
file = opened("binary")
show(file.read(0, 10), file.stat()[1].size, client.FileSystem(server).stat("/binary")[1].size)
"""
)


def test_what_was_replaced_between_runs_is_read_new(served: Served, run_python: RunPython) -> None:
    run_python(CHANGED, address(served))
    put(served.directory / "binary", b"other", OLD_S + 1000)
    expected = run_python(CHANGED, address(served), cache=None).stdout
    assert "b'other'" in expected
    assert run_python(CHANGED, address(served)).stdout == expected
    served.reset()
    assert run_python(CHANGED, address(served), env={"JCACHE_VALIDATE": "never"}).stdout == expected
    assert served.data_bytes() == 0


REPLACED = (
    PRELUDE
    + """
import pathlib
path, how, first = pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "first"
file, again = opened("binary"), opened("text")
if first:
    show(file.read(0, 10))
data = b"new" * 1_000_000
if how == "renamed":
    (path.parent / "new").write_bytes(data)
    os.utime(path.parent / "new", (1_650_000_000, 1_650_000_000))
    (path.parent / "new").rename(path)
else:
    path.write_bytes(data)
    os.utime(path, (1_650_000_000, 1_650_000_000))
show(file.read(100, 10), called(file.read, 200, 10), file.vector_read([(300, 10), (400, 10)]))
show(file.read(100, 10), file.readline(1 << 20, 10) if how == "renamed" else "")
show(file.close(), again.close())
show(opened("binary").read(0, 10), opened("binary").read(100, 10))
"""
)


@pytest.mark.parametrize("first", ["first", "later"])
@pytest.mark.parametrize("how", ["renamed", "in place"])
def test_what_is_replaced_while_it_is_open_is_one_version(
    served: Served, run_python: RunPython, how: str, first: str
) -> None:
    path = served.directory / "binary"
    args = address(served), os.fspath(path), how, first

    def run(**options: Path | None) -> list[str]:
        put(path, b"as it was\n" * 500_000)
        return run_python(REPLACED, *args, **options).stdout.splitlines()

    plain, cached, later = run(cache=None), run(), run()
    # A file that keeps its name's old content for who has it open is read on; where that is gone, what was read of it
    # is not mixed with what is there now.
    if how == "renamed" or first == "later":
        assert cached == plain
        assert later[-1] == plain[-1]
    else:
        assert cached[0] == plain[0]
        assert cached[-2:] == later[-2:] == plain[-2:]
        assert all("replaced" in line and "b'new" not in line for line in (*cached[1:3], *later[1:3]))


WRITES = (
    PRELUDE
    + """
base = sys.argv[2]
system, later = client.FileSystem(server), len(sys.argv) > 3
names = ["a", "b", "c"]

def get(name):
    file = client.File()
    status, _ = file.open(f"{server}/{base}/{name}")
    try:
        if not status.ok:
            return status.code, status.errno
        return file.read()[1], file.read(1, 3)[1], file.stat()[1].size
    finally:
        file.close()

def info(name):
    status, info = system.stat(f"{base}/{name}")
    return info.size if status.ok else status.errno

def put(name, data, flags=OpenFlags.DELETE):
    file = client.File()
    assert file.open(f"{server}/{base}/{name}", flags)[0].ok
    assert file.write(data)[0].ok
    return file

def write_in_steps():
    file = put("a", b"first part")
    show(get("a")[:1] != (b"old a",), file.read(0, 3))
    file.write(b" and second", 10)
    file.close()

def copy_all():
    process = client.CopyProcess()
    process.add_job(f"{server}/{base}/b", f"{server}/{base}/a", force=True)
    process.prepare()
    process.run()

def async_write():
    file = put("a", b"written, closed behind it")
    called(file.close)

changes = {
    "write": lambda: put("a", b"new content").close(),
    "steps": write_in_steps,
    "asynchronous": async_write,
    "update": lambda: put("a", b"NEW", OpenFlags.UPDATE).close(),
    "rm": lambda: system.rm(f"{base}/a"),
    "rm asynchronous": lambda: called(system.rm, f"{base}/a"),
    "mv": lambda: system.mv(f"{base}/b", f"{base}/a"),
    "truncate": lambda: system.truncate(f"{base}/a", 2),
    "copy": lambda: system.copy(f"{server}/{base}/b", f"{server}/{base}/a", force=True),
    "copies": copy_all,
    "with": lambda: put("a", b"left open").__exit__(None, None, None),
    "dropped": lambda: put("a", b"never closed") and None,
}
for number, (name, change) in enumerate(changes.items()):
    base = f"{sys.argv[2]}{number}"
    if not later:
        system.mkdir(base)
        for one in names[:2]:
            put(one, b"old " + one.encode()).close()
        for one in names:
            get(one), info(one)
        change()
    print(name, *(what(one) for one in names for what in (get, info)))
"""
)


def test_what_it_changes_is_seen_by_it_and_by_later_processes(
    writable_xrootd: WritableXrootd, run_python: RunPython
) -> None:
    def run(base: str, *more: str, **how: object) -> list[str]:
        return run_python(WRITES, f"root://{writable_xrootd.address}", base, *more, **how).stdout.splitlines()

    expected = run("/plain", cache=None)
    assert run("/cached") == expected
    expected = run("/plain", "later", cache=None)
    assert run("/cached", "later", env={"JCACHE_VALIDATE": "never"}) == expected


# -- without the server, without the cache ----------------------------------------------------------------------------

UNKNOWN = (
    PRELUDE
    + """
file, system = client.File(), client.FileSystem(server)
for status, response in (file.open(f"{server}//text"), called(file.open, f"{server}//text")[1:3],
                         system.stat("/text"), system.dirlist("/"), called(system.stat, "/text")[1:3]):
    assert (status.ok, status.error, response) == (False, True, None), status
    assert "JCACHE_OFFLINE" in status.message
assert not file.is_open()
file = opened("binary")
for status, response in (file.read(0, 10), called(file.read, 0, 10)[1:3], file.vector_read([(0, 10), (20, 3)]),
                         called(file.vector_read, [(0, 10)])[1:3], file.list_xattr(), file.vector_read([])):
    assert (status.ok, response) == (False, None), status
    assert "JCACHE_OFFLINE" in status.message
try:
    print(file.readline(100))
except OSError as error:
    assert "JCACHE_OFFLINE" in str(error)
show(file.read(5000, 10), file.is_open(), file.get_property("nonsense"), file.close(), file.is_open())
"""
)


def test_what_is_not_there_offline_is_an_error_and_nobody_is_asked(served: Served, run_python: RunPython) -> None:
    run_python(PRELUDE + "opened('binary').read(5000, 10)", address(served))
    served.stop()
    ran = run_python(UNKNOWN, address(served), env={"JCACHE_OFFLINE": "1"}, timeout_s=30)
    assert str(BINARY[5000:5010]) in ran.stdout


SIMPLE = (
    PRELUDE
    + """
file = opened("binary")
print(file.read(0, 100)[1] == bytes(range(100)), called(file.read, 0, 100)[2] == bytes(range(100)))
print([chunk.buffer for chunk in file.vector_read([(5, 3), (9, 2)])[1]])
print(called(file.vector_read, [(5, 3), (9, 2)])[2].size)
print(opened("text").readlines() == open(sys.argv[2], encoding="utf-8").readlines())
"""
)


@pytest.mark.parametrize(
    ("env", "counts"),
    [({"JCACHE_BYPASS": "1"}, True), ({"JCACHE_DIR": "/dev/null/x"}, True), ({"JCACHE_DENY": "root://*"}, True),
     ({"JCACHE_PROTOCOLS": "http"}, False), ({"JCACHE_CONFIG": "excluded"}, False)],
    ids=["bypass", "unusable", "denied", "protocols", "excluded"],
)  # fmt: skip
def test_what_is_not_cached_is_read_as_ever(
    served: Served, run_python: RunPython, tmp_path: Path, env: dict[str, str], counts: bool
) -> None:
    if "JCACHE_CONFIG" in env:
        (tmp_path / "jcache.toml").write_text('[[rules]]\nmatch = ["root://*"]\nexclude = true\n')
        env = {"JCACHE_CONFIG": os.fspath(tmp_path / "jcache.toml")}
    (served.directory / "local").write_text(TEXT, encoding="utf-8")
    args = address(served), os.fspath(served.directory / "local")
    plain = run_python(SIMPLE, *args, cache=None)
    ran = run_python(SIMPLE, *args, env=env)
    assert ran.stdout == plain.stdout
    expected = 200 + 10 + len(TEXT.encode()) if counts else 0
    found = reads(ran) if ran.reports else {"hit": 0, "miss": 0, "bypass": 0}
    assert found == {"hit": 0, "miss": 0, "bypass": expected}


BY_FSSPEC_PAST = """
import fsspec, sys
with fsspec.open(f"{sys.argv[1]}//binary") as file:
    print(len(file.read(1000)))
print(len(fsspec.filesystem("root", hostid=sys.argv[1][7:]).cat_file("/binary", 0, 50)))
"""


@pytest.mark.parametrize("env", [{}, {"JCACHE_BYPASS": "1"}], ids=["cached", "bypass"])
def test_what_fsspec_xrootd_reads_is_counted_once(served: Served, run_python: RunPython, env: dict[str, str]) -> None:
    ran = run_python("from XRootD import client\n" + BY_FSSPEC_PAST, address(served), env=env)
    assert ran.stdout == "1000\n50\n"
    assert sum(reads(ran).values()) == 1050
    assert ran.report["files"]["opened"] <= 2


MANY = (
    PRELUDE
    + """
import concurrent.futures, gc, random
from jcache_plugins.pyxrootd import reading

files = [opened("binary") for _ in range(4)]
rng = random.Random(1)
asked = [(rng.randrange(5_000_000), rng.randrange(1, 30_000)) for _ in range(400)]
expected = bytes(range(256)) * 20_000
done, wrong = threading.Semaphore(0), []

def check(offset, length, status, data):
    if not status.ok or data != expected[offset : offset + length]:
        wrong.append((offset, length, status))

def begin(file, offset, length):
    def callback(status, data, hosts):
        check(offset, length, status, data)
        done.release()
    status = file.read(offset, length, callback=callback)
    assert status.ok, status

for number, (offset, length) in enumerate(asked[:200]):
    begin(files[number % 4], offset, length)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for number, (offset, length) in enumerate(asked[200:]):
        pool.submit(lambda f=files[number % 4], o=offset, n=length: check(o, n, *f.read(o, n)))
for _ in range(200):
    assert done.acquire(timeout=60)
assert not wrong, wrong[:3]
for file in files[:2]:
    assert file.close()[0].ok
del file, files
gc.collect()
print(len(reading._readings))
"""
)


def test_many_at_a_time(served: Served, run_python: RunPython) -> None:
    for _ in range(2):
        ran = run_python(MANY, address(served))
        assert ran.stdout == "0\n"
    assert reads(ran)["miss"] == 0


FORKS = (
    PRELUDE
    + """
import multiprocessing
def child(number):
    file = opened("binary")
    return file.read(number * 1000, 4)[1], opened("text").readline()

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        show(pool.map(child, range(6)))
"""
)


def test_forked_children(served: Served, run_python: RunPython) -> None:
    # Of a parent that has asked a server pyxrootd's children hang, also without JCache.
    env = {"XRD_RUNFORKHANDLER": "1"}
    plain = run_python(FORKS, address(served), cache=None, env=env)
    for _ in range(2):
        assert run_python(FORKS, address(served), env=env).stdout == plain.stdout


def test_the_classes_are_put_back(run_python: RunPython) -> None:
    pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")
    ran = run_python("""
import inspect
from XRootD import client
from jcache.activate import deactivate
classes = client.File, client.FileSystem, client.CopyProcess
hooked = [dict(vars(cls)) for cls in classes]
names = [(cls, name) for cls in classes for name in vars(cls) if hasattr(vars(cls)[name], "__wrapped__")]
assert len(names) > 25, names
for cls, name in names:
    method = vars(cls)[name]
    assert method.__name__ == name and method.__module__ == method.__wrapped__.__module__
    if method.__code__.co_varnames[: method.__code__.co_argcount] != ("self",):
        assert inspect.signature(method) == inspect.signature(method.__wrapped__)
deactivate()
for (cls, name) in names:
    assert not hasattr(vars(cls)[name], "__wrapped__"), name
""")
    assert "failed" not in ran.stderr


DEACTIVATED = (
    PRELUDE
    + """
from jcache.activate import activate, deactivate
from jcache_plugins.pyxrootd import reading

file, text = opened("binary"), opened("text")
assert not reading.reading_of(file).is_real
deactivate()
assert not reading._readings
show(file.is_open(), file.read(0, 10), file.read(4000, 3), text.readline(), text.close())
assert text.open(f"{server}//binary")[0].ok
activate()
show(text.read(0, 10), file.read(10, 5), opened("text").read(0, 8))
"""
)


def test_what_is_open_when_it_is_deactivated_is_read_on(served: Served, run_python: RunPython) -> None:
    run_python(PRELUDE + "opened('binary').read(0, 10), opened('text').readline()", address(served))
    ran = run_python(DEACTIVATED, address(served), env=TRUSTED["never"])
    assert "error': True" not in ran.stdout
    assert ran.stdout.count(str(BINARY[:10])) == 2
    assert str(BINARY[4000:4003]) in ran.stdout
    assert "line one" in ran.stdout


REOPENED = (
    PRELUDE
    + """
from concurrent.futures import Future
from jcache_plugins.pyxrootd import files, reading

failed, told = Future(), []
failed.set_exception(OSError("lost"))
file = opened("binary")
kept = reading.reading_of(file)
asked = files.asked(kept, lambda callback: told.append("read"), 0, 10)
file.close()
for again in (False, True):
    if again:
        assert file.open(f"{server}//text")[0].ok
    done = threading.Event()
    files.deliver(file, kept, asked, lambda *answers: (told.extend(answers[:2]), done.set()), failed)
    assert done.wait(30)
    assert file.is_open() == again
    assert not kept.open_really(file).ok
assert [getattr(one, "ok", one) for one in told] == [False, None] * 2, told
assert file.read(0, 8)[1] == b"line one"
"""
)


def test_a_read_that_fails_behind_the_close_reads_nothing_else(served: Served, run_python: RunPython) -> None:
    for env in ({}, TRUSTED["never"]):
        assert "failed" not in run_python(REOPENED, address(served), env=env).stderr


HUNG = (
    PRELUDE
    + """
import signal, time

file, pid = opened("binary"), int(sys.argv[2])
show(file.read(0, 10))
os.kill(pid, signal.SIGSTOP)
try:
    for call in (
        lambda: file.read(1_000_000, 100, timeout=1),
        lambda: called(file.read, 2_000_000, 100, timeout=1),
        lambda: file.vector_read([(3_000_000, 5), (4_000_000, 5)], timeout=1),
        lambda: called(file.vector_read, [(3_000_000, 5), (4_000_000, 5)], timeout=1),
    ):
        began = time.monotonic()
        show(call())
        print("took long" if time.monotonic() - began > 5 else "in time")
finally:
    os.kill(pid, signal.SIGCONT)
show(file.read(1_000_000, 10, timeout=30), file.vector_read([(3_000_000, 5), (4_000_000, 5)], timeout=30))
"""
)


@pytest.mark.long  # of a server that hangs the client itself says now and then something else than that it expired
def test_who_waits_no_longer_than_so_long_is_told_in_time(served: Served, run_python: RunPython) -> None:
    process = served.server._process
    assert process is not None
    args, env = (address(served), str(process.pid)), {"XRD_TIMEOUTRESOLUTION": "1", "XRD_REQUESTTIMEOUT": "20"}
    before = run_python(HUNG, *args, cache=None, env=env).stdout
    assert before.count("in time") == before.count("Operation expired") == 4
    assert run_python(HUNG, *args, env=env).stdout.splitlines() == before.splitlines()


REFUSED = (
    PRELUDE
    + """
from jcache_plugins.fsspec.written import open_files
from jcache_plugins.pyxrootd.plain import FILE
from jcache_plugins.pyxrootd.statuses import refused

file, close = client.File(), FILE["close"]
assert file.open(f"{server}//a", OpenFlags.DELETE)[0].ok and file.write(b"abc")[0].ok
def no(self, timeout=0, callback=None):
    answers = refused(OSError("no")), None
    return callback(*answers, None) or answers[0] if callback else answers
FILE["close"] = no
assert not file.close()[0].ok and id(file) in open_files
assert not called(file.close)[1].ok and id(file) in open_files
FILE["close"] = close
assert file.close()[0].ok and id(file) not in open_files
show(opened("a").read())
"""
)


def test_what_is_not_closed_is_being_written(writable_xrootd: WritableXrootd, run_python: RunPython) -> None:
    assert "b'abc'" in run_python(REFUSED, f"root://{writable_xrootd.address}").stdout


CLONES = (
    PRELUDE
    + """
kept = getattr(OpenFlags, "DUP", 0) | OpenFlags.NEW
def result(one):
    return (one.ok, one.code, one.errno) if hasattr(one, "ok") else one
for name, flags in (("one", kept), ("two", OpenFlags.NEW), ("a", OpenFlags.READ)):
    file, source = client.File(), opened("a")
    base = sys.argv[2] if name != "a" else ""
    status, _ = file.openusingtemplate(source, f"{server}//{base}{name}", flags)
    show(name, result(status), file.is_open(), source.is_open(), result(file.open(f"{server}//a")[0]))
    if status.ok:
        locs = [{"src_file": opened("a"), "src_offset": 0, "src_length": 3, "dest_offset": 2}]
        show(*map(result, file.clone(locs)))
        show(file.read(0, 10)[1])
    show(result(file.close()[0]))
show(opened("a").read(0, 9)[1])
"""
)


def test_files_made_of_others(writable_xrootd: WritableXrootd, run_python: RunPython) -> None:
    client = pytest.importorskip("XRootD.client")
    if not hasattr(client.File, "clone"):
        pytest.skip("of newer clients")
    url = f"root://{writable_xrootd.address}"
    run_python(PRELUDE + "f = client.File(); f.open(f'{server}//a', OpenFlags.NEW); f.write(b'abcdef'); f.close()", url)
    run_python(PRELUDE + "opened('a').read()", url)
    expected = run_python(CLONES, url, "plain", cache=None).stdout
    assert "True" in expected
    assert run_python(CLONES, url, "cached", env=TRUSTED["never"]).stdout == expected


def test_callbacks_where_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("XRootD.client")
    from jcache_plugins.pyxrootd import callbacks

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("XRD_WORKERTHREADS", "2")
    monkeypatch.setattr(callbacks, "_callers", callbacks._Callers())
    done, began, ends = [], threading.Semaphore(0), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        callbacks.call_soon(lambda: done.append(threading.current_thread()))
    assert done == [threading.current_thread()]
    for _ in range(4):
        callbacks.call_soon(lambda: (began.release(), ends.wait(30), done.append(None)))
    assert began.acquire(timeout=30)
    assert began.acquire(timeout=30)
    assert callbacks._callers.count == 2
    ends.set()
    assert began.acquire(timeout=30)
    assert began.acquire(timeout=30)


def test_without_fsspec_xrootd_nothing_is_loaded(run_python: RunPython) -> None:
    pytest.importorskip("XRootD.client")
    run_python("""
import sys
sys.modules["fsspec_xrootd"] = None
from XRootD import client
from jcache.activate import deactivate
assert "jcache_plugins.pyxrootd" in sys.modules
assert not {"fsspec", "jcache_plugins.pyxrootd.hooks", "jcache_plugins.fsspec.hooks"} & set(sys.modules)
assert not hasattr(client.File.open, "__wrapped__")
deactivate()
""")
