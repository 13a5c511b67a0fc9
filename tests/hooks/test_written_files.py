"""Files that are opened for writing behave as without JCache, and what they write is never read stale.

The oracle is plain fsspec in a fresh process: each job runs with JCACHE_DIR and without, and prints the same.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def same(run_python: RunPython, cache_dir: Path, job: str, *args: str) -> str:
    """Run a job without and with JCache, each with a name of its own, and return what both print."""
    job = "import gzip, gc, os, sys, fsspec\n" + job
    plain = run_python(job, *args, f"p{uuid.uuid4().hex}", cache=None, env=KEYS)
    cached = run_python(job, *args, f"c{uuid.uuid4().hex}", cache=cache_dir, env=KEYS)
    assert cached.stdout == plain.stdout
    return plain.stdout


ON_S3 = """
import s3fs
fs = s3fs.S3FileSystem(endpoint_url=sys.argv[1])
bucket = sys.argv[2]
fs.mkdir(bucket)
path = f"{bucket}/w"
read = lambda: fs.cat_file(path)[:20]
"""
# A synchronous file system with fsspec's own file objects, over a directory.
ON_DIRECTORY = """
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
class File(AbstractBufferedFile):
    def _upload_chunk(self, final=False):
        if final:
            with open(self.path, "wb") as file:
                file.write(self.buffer.getvalue())
        return not final
class Far(AbstractFileSystem):
    protocol = "far"
    def info(self, path, **kwargs):
        found = os.stat(path)
        return {"name": path, "size": found.st_size, "type": "file", "ETag": f"{found.st_mtime_ns}-{found.st_ino}"}
    def _open(self, path, mode="rb", block_size=None, **kwargs):
        return File(self, path, mode, block_size or "default", **kwargs)
    def cat_file(self, path, start=None, end=None, **kwargs):
        with open(path, "rb") as file:
            return file.read()[start:end]
fs = Far()
path = sys.argv[1] + "/" + sys.argv[2]
read = lambda: fs.cat_file(path)[:20]
"""


@pytest.fixture(params=["s3", "directory"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the code that makes a file system, a path and `read`, and its argument."""
    if request.param == "s3":
        return ON_S3, request.getfixturevalue("s3_endpoint")
    return ON_DIRECTORY, str(tmp_path)


def test_a_file_that_goes_out_of_scope_is_uploaded(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    job = "gc.disable()\nfs.open(path, 'wb').write(b'x')\nprint(read())"
    assert same(run_python, cache_dir, system[0] + job, system[1]) == "b'x'\n"


def test_a_compressed_or_text_file_is_uploaded_closed_or_not(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    job = """
gc.disable()
for close in (True, False):
    for mode, options, data in (("wb", {"compression": "gzip"}, b"zipped" * 99), ("wt", {}, "text")):
        file = fs.open(path, mode, **options)
        file.write(data)
        if close:
            file.close()
        del file
        gc.collect()
        print(close, mode, gzip.decompress(fs.cat_file(path)) if options else read())
"""
    out = same(run_python, cache_dir, system[0] + job, system[1])
    assert out.count("text") == 2
    assert out.count("zipped" * 99) == 2


def test_the_object_is_the_file_systems_own(system: tuple[str, str], run_python: RunPython, cache_dir: Path) -> None:
    job = """
import weakref
gc.disable()
file = fs.open(path, "wb")
print(type(file).__module__, type(file).__qualname__, sorted(vars(file)))
file.write(b"mine")
alive = weakref.ref(file)
del file
print(alive(), read())
with fs.open(path, "wb") as file:
    file.write(b"other")
print(read())
file.close()
try:
    file.write(b"more")
except ValueError as error:
    print(error)
"""
    assert "None b'mine'" in same(run_python, cache_dir, system[0] + job, system[1])


def test_what_is_written_is_read_in_this_process_and_in_later_ones_that_never_validate(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    name = f"n{uuid.uuid4().hex}"
    make = system[0].replace("fs.mkdir(bucket)", "fs.exists(bucket) or fs.mkdir(bucket)")
    job = (
        "import sys, os, fsspec\n"
        + make
        + """
what = sys.argv[3]
if what != "read":
    with fs.open(path, "wb") as file:
        file.write(b"first of all" if what == "first" else b"second of all")
print(read())
"""
    )
    never = KEYS | {"JCACHE_VALIDATE": "never"}
    assert run_python(job, system[1], name, "first", env=never).stdout == "b'first of all'\n"
    assert run_python(job, system[1], name, "second", env=never).stdout == "b'second of all'\n"
    assert run_python(job, system[1], name, "read", env=never).stdout == "b'second of all'\n"


def test_writes_that_are_committed_or_discarded(s3_endpoint: str, run_python: RunPython, cache_dir: Path) -> None:
    job = """
fs.pipe_file(path, b"old")
print(read())
with fs.transaction:
    file = fs.open(path, "wb")
    file.write(b"in a transaction")
    file.close()
    print(read())
print(read())
file = fs.open(path, "wb", autocommit=False)
file.write(b"late")
file.close()
print(read())
file.commit()
print(read())
file = fs.open(path, "wb", autocommit=False)
file.write(b"never")
file.close()
file.discard()
print(read())
try:
    with fs.transaction:
        fs.open(path, "wb").write(b"given up")
        raise KeyError
except KeyError:
    print(read())
"""
    out = same(run_python, cache_dir, ON_S3 + job, s3_endpoint).splitlines()
    assert out[:3] == ["b'old'", "b'old'", "b'in a transaction'"]
    assert out[4:6] == ["b'late'", "b'late'"]


def test_a_file_in_a_reference_cycle_is_not_read_stale_once_the_collector_has_closed_it(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    job = """
fs.pipe_file(path, b"old") if hasattr(fs, "_pipe_file") else open(path, "wb").write(b"old")
file = fs.open(path, "wb")
file.write(b"new")
file.cycle = file
print(read())
del file
gc.collect()
print(read())
"""
    assert same(run_python, cache_dir, system[0] + job, system[1]).splitlines()[1] == "b'new'"


def test_a_file_that_is_open_for_writing_is_read_as_it_is(run_python: RunPython, cache_dir: Path) -> None:
    """Here it is an object of the interpreter's own, which tells nobody when it writes or ends."""
    direct = "return open(path, mode)\n        return File("
    job = """
open(path, "wb").write(b"old")
print(read())
file = fs.open(path, "wb")
print(read())
for data in (b"one", b"two"):
    file.write(data)
    file.flush()
    print(read(), fs.cat_ranges([path], 0, 9), list(fs.cat([path]).values()))
file.close()
print(read(), fs.open(path).read())
"""
    out = same(run_python, cache_dir, ON_DIRECTORY.replace("return File(", direct) + job, str(cache_dir.parent))
    assert out.splitlines()[-1] == "b'onetwo' b'onetwo'"


# What others write, past JCache: moto looks at no signature.
ELSEWHERE = """
from urllib.request import Request, urlopen
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, Signature=0"}
SIGNED["Content-Type"] = "application/octet-stream"
def ask(method, data=None):
    with urlopen(Request(f"{sys.argv[1]}/{path}", data, SIGNED, method=method)) as answer:
        return answer.read()
"""


@pytest.mark.parametrize("validate", ["open", "never", "600"])
def test_what_is_appended_is_behind_what_the_origin_has(
    s3_endpoint: str, run_python: RunPython, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, validate: str
) -> None:
    """s3fs reads an object to append to it, and takes one that is not there for a new one."""
    monkeypatch.setitem(KEYS, "JCACHE_VALIDATE", validate)
    job = """
fs.pipe(path, b"1")
print(read())
ask("PUT", b"12")
with fs.open(path, "ab") as file:
    file.write(b"3")
print(ask("GET"), read())
path += "-new"
print(fs.exists(path))
ask("PUT", b"1")
with fs.open(path, "ab") as file:
    file.write(b"2")
print(ask("GET"), read())
"""
    out = same(run_python, cache_dir, ON_S3 + ELSEWHERE + job, s3_endpoint).splitlines()
    assert (out[1], out[3]) == ("b'123' b'123'", "b'12' b'12'")


def test_a_file_that_could_not_be_opened_for_writing_may_be_there(
    run_python: RunPython, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KEYS, "JCACHE_VALIDATE", "never")
    job = """
class Half(Far):
    protocol = "half"
    def _open(self, path, mode="rb", **kwargs):
        open(path, mode).close()
        raise NotImplementedError(mode)
fs = Half()
print(fs.exists(path))
try: fs.open(path, "xb")
except NotImplementedError as error: print(error)
print(fs.exists(path))
"""
    assert same(run_python, cache_dir, ON_DIRECTORY + job, str(cache_dir.parent)) == "False\nxb\nTrue\n"


def test_a_collector_that_closes_a_file_waits_for_no_lock(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    """The thread that it runs in may hold any lock of the session: here, all that it can have then."""
    job = """
import threading
from jcache.session import current
gc.disable()
with fs.open(path, "wb") as file:
    file.write(b"old")
read()
done = threading.Event()
def collect():
    session = current()
    files = list(session.files._files.values())
    with session.files._lock:
        for file in files:
            file._validation._lock.acquire()
        try:
            gc.collect()
        finally:
            for file in files:
                file._validation._lock.release()
    done.set()
file = fs.open(path, "wb")
file.write(b"new")
file.cycle = file
del file
threading.Thread(target=collect, daemon=True).start()
print(done.wait(20), read(), flush=True)
os._exit(not done.is_set())
"""
    out = run_python("import gc, os, sys, fsspec\n" + system[0] + job, system[1], f"c{uuid.uuid4().hex}", env=KEYS)
    assert out.stdout == "True b'new'\n"


def test_a_collector_that_closes_a_file_waits_for_no_event_loop_that_waits_for_its_thread(
    s3_endpoint: str, run_python: RunPython
) -> None:
    """It comes while JCache holds a lock in this thread, for which a task waits on the loop that is to upload."""
    job = """
import asyncio, threading
from jcache.registry import Registry
from jcache.session import current
from jcache_plugins.fsspec.access import identities
gc.disable()
with fs.open(path, "wb") as file:
    file.write(b"old")
read()
session, new_file, looked, done = current(), Registry._new, threading.Event(), threading.Event()
(other,) = identities(fs, [path + "/other"])
def collecting(self, *args):  # where `acquire` holds the registry's lock
    asyncio.run_coroutine_threadsafe(wants_the_lock(), fs.loop)
    looked.wait(20)
    gc.collect()
    return new_file(self, *args)
async def wants_the_lock():
    looked.set()
    with session.files._lock:
        pass
def within():
    session.files.acquire(other)
    done.set()
file = fs.open(path, "wb")
file.write(b"new")
file.cycle = file
del file
Registry._new = collecting
threading.Thread(target=within, daemon=True).start()
print(done.wait(20), flush=True)
if not done.is_set():
    os._exit(1)
session.close()
print(s3fs.S3FileSystem(endpoint_url=sys.argv[1], anon=False, skip_instance_cache=True).cat_file(path))
"""
    out = run_python("import gc, os, sys, fsspec\n" + ON_S3 + job, s3_endpoint, f"d{uuid.uuid4().hex}", env=KEYS)
    assert out.stdout == "True\nb'new'\n"


def test_what_the_collector_closed_is_not_stale_in_a_later_process(
    system: tuple[str, str], run_python: RunPython, cache_dir: Path
) -> None:
    name, never = f"n{uuid.uuid4().hex}", KEYS | {"JCACHE_VALIDATE": "never"}
    make = "import gc, os, sys, fsspec\n" + system[0].replace(
        "fs.mkdir(bucket)", "fs.exists(bucket) or fs.mkdir(bucket)"
    )
    job = """
with fs.open(path, "wb") as file:
    file.write(b"old")
file = fs.open(path, "wb")
file.write(b"new")
file.cycle = file
print(read())
del file
gc.collect()
"""
    assert run_python(make + job, system[1], name, env=never).stdout == "b'old'\n"
    assert run_python(make + "print(read())", system[1], name, env=never).stdout == "b'new'\n"


def test_the_classes_are_what_they_were_once_jcache_is_switched_off(cache_dir: Path, run_python: RunPython) -> None:
    job = """
import sys, os
sys.argv.append("w")
"""
    job += (
        ON_DIRECTORY
        + """
before = {name: getattr(File, name) for name in ("close", "commit", "discard", "_upload_chunk")}
fs.open(path, "wb").close()
assert getattr(File, "close") is not before["close"]
from jcache_plugins.fsspec import uninstall
uninstall()
print(all(getattr(File, name) is method for name, method in before.items()), "close" in vars(File))
"""
    )
    assert run_python(job, str(cache_dir.parent)).stdout == "True False\n"
