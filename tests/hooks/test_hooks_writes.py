"""Whatever changes a file invalidates it: in this process, and with JCACHE_VALIDATE=never in later ones.

The oracle is plain fsspec in a fresh process: a job runs with JCACHE_DIR and without, and prints the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import fsspec
import pytest

from jcache_plugins.fsspec import writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunPython

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

PRELUDE = """
import sys, fsspec
endpoint, b, later = sys.argv[1], sys.argv[2], sys.argv[-1] == 'later'
fs = fsspec.filesystem("s3", endpoint_url=endpoint)
names = ["a", "a*", "d/x", "d/e/y", "top", "big"]
def told():
    found = {}
    for name in names:
        try: found[name] = fs.cat_file(f"{b}/{name}")[:9]
        except FileNotFoundError: found[name] = None
    return found
"""
CHANGES = {
    "pipe": 'fs.pipe(f"{b}/a", b"new")',
    "pipe of many": 'fs.pipe({f"{b}/a": b"new", f"{b}/top": b"new"})',
    "pipe by name": 'fs.pipe_file(path=f"{b}/a", data=b"new")',
    "touch": 'fs.touch(f"{b}/a")',
    "touch by name": 'fs.touch(path=f"{b}/a", truncate=True)',
    "glob": 'fs.rm(f"{b}/d/*")',
    "list": 'fs.rm([f"{b}/a", f"{b}/d/x"])',
    "tree": 'fs.rm(f"{b}/d", recursive=True)',
    "tree with a slash": 'fs.rm(f"{b}/d/", recursive=True)',
    "URL": 'fs.rm(f"s3://{b}/a")',
    "rm_file": 'fs.rm_file(f"{b}/a")',
    "delete": 'fs.delete(f"{b}/a")',
    "bulk": 'from fsspec.asyn import sync; sync(fs.loop, fs._bulk_delete, [f"{b}/a", f"{b}/d/x"])',
    "mv": 'fs.mv(f"{b}/a", f"{b}/top")',
    "rename": 'fs.rename(f"{b}/a", f"{b}/top")',
    "cp": 'fs.cp(f"{b}/a", f"{b}/top")',
    "copy of a tree": 'fs.copy(f"{b}/d/e", f"{b}/d", recursive=True)',
    "merge": 'fs.pipe_file(f"{b}/big", b"n" * (5 << 20)); fs.merge(f"{b}/top", [f"{b}/big"])',
    "append": 'f = fs.open(f"{b}/a", "ab"); f.write(b"+"); f.close()',
    "write": 'f = fs.open(f"{b}/a", "wb"); f.write(b"new"); f.close()',
    "text": 'fs.write_text(f"{b}/a", "new")',
    "multipart": 'f = fs.open(f"{b}/a", "wb", block_size=5 << 20); f.write(b"n" * (11 << 20)); f.close()',
    "put": 'open("l", "w").write("new"); fs.put("l", f"{b}/a"); fs.upload("l", f"{b}/top")',
    "transaction": 'with fs.transaction:\n    with fs.open(f"{b}/a", "wb") as f: f.write(b"new")',
    "bucket": "fs.rm(b, recursive=True)",
}


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


# All changes in one job, since a process costs more than they do: each in a bucket of its own.
JOB = (
    "changes = "
    + repr(CHANGES)
    + "\n"
    + PRELUDE
    + """
if len(sys.argv) > 3 and sys.argv[3] == "jcache": fs = fsspec.filesystem("jcache", fs=fs)
prefix = b
for number, (name, change) in enumerate(changes.items()):
    b = f"{prefix}{number}"
    if not later:
        fs.mkdir(b)
        for one in names: fs.pipe_file(f"{b}/{one}", f"old {one}".encode())
        told()
        try: exec(change)
        except Exception as error: print(type(error))
    try: print(name, told())
    except Exception as error: print(name, type(error))
"""
)


@pytest.fixture(scope="module")
def plain(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the job prints without JCache."""
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}, **KEYS}
    command = [sys.executable, "-c", JOB, s3_endpoint, uuid.uuid4().hex[:20]]
    where = tmp_path_factory.mktemp("plain")
    return subprocess.run(command, env=env, cwd=where, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("through", ["s3", pytest.param("jcache", marks=pytest.mark.long)])
def test_what_changes_an_object_is_seen(s3_endpoint: str, run_python: RunPython, plain: str, through: str) -> None:
    buckets = uuid.uuid4().hex[:20]
    assert run_python(JOB, s3_endpoint, buckets, through, "now", env=KEYS).stdout == plain
    later = [line for line in plain.splitlines() if not line.startswith("<class")]
    never = run_python(JOB, s3_endpoint, buckets, through, "later", env={**KEYS, "JCACHE_VALIDATE": "never"}).stdout
    assert never.splitlines() == later


@pytest.mark.parametrize(
    ("protocol", "methods"),
    [
        ("s3", "touch _touch merge _merge _bulk_delete _rm _rm_file _cp_file _pipe_file _put_file setxattr"),
        ("gs", "mv _mv rm _rm merge _merge mv_file _mv_file _cp_file _pipe_file _put_file setxattrs"),
        ("abfs", "rm _rm _rm_file pipe_file _pipe_file put_file _put_file cp_file _cp_file setxattrs upload"),
        ("root", "mv touch _touch _rm _rm_file _chmod"),
        ("sftp", "mv _rm put_file"),
        ("smb", "mv _rm copy"),
        ("webdav", "mv rm rm_file _rm cp_file copy pipe_file put_file upload_fileobj"),
        ("webhdfs", "mv rm rm_file cp_file chmod chown"),
        ("hf", "rm _rm cp_file"),
        ("http", "_put_file _pipe_file"),
    ],
)
def test_what_writes_is_found_by_its_name(protocol: str, methods: str) -> None:
    try:
        cls = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        pytest.skip(str(error))
    assert set(methods.split()) <= writes.writes(cls).keys()
    for name in methods.split():
        assert writes.changed_by(getattr(cls, name))


def test_which_arguments_are_changed() -> None:
    def rm_files(self: object, container_name: str, file_paths: list[str]) -> None: ...
    def mv(self: object, old: str, new: str) -> None: ...
    def cp_file(self: object, lpath: str, rpath: str) -> None: ...
    def merge(self: object, path: str, filelist: list[str]) -> None: ...
    def truncate(self: object, name: str, size: int) -> None: ...
    def put_file(self: object, lpath: str, rpath: str, mode: str = "overwrite") -> None: ...

    found = [writes.changed_by(method) for method in (rm_files, mv, cp_file, merge, truncate, put_file)]
    assert found == [["file_paths"], ["old", "new"], ["rpath"], ["path"], ["name"], ["rpath"]]
    assert not writes.verbs_of("_rm_from_cache")
    assert not writes.verbs_of("ls")


# An instance for each set of options, and each of them keeps what it has listed.
TWO = """
import sys, fsspec
endpoint, b, later = sys.argv[1], sys.argv[2], sys.argv[-1] == "later"
first, second = (fsspec.filesystem("s3", endpoint_url=endpoint, default_block_size=n) for n in (1 << 20, 2 << 20))
def ask(fs, what, *args, **options):
    try: return getattr(fs, what)(*args, **options)
    except FileNotFoundError: return None
def told(fs):
    found = [ask(fs, "ls", b, detail=False), ask(fs, "ls", f"{b}/d", detail=False), ask(fs, "find", b)]
    return found + [ask(fs, "exists", f"{b}/d/{n}") for n in ("a", "new")] + [ask(fs, "isdir", f"{b}/e")]
if not later:
    for n in ("top", "d/a", "d/b"):
        ask(second, "pipe", f"{b}/{n}", b"old")
    told(first)
    ask(second, "pipe", f"{b}/d/new", b"new")
    ask(second, "pipe", f"{b}/e/x", b"new")
    ask(second, "rm", f"{b}/d/a")
    print(told(first))
else:
    print(told(first), told(second))
"""


def test_what_one_instance_keeps_is_not_recorded_after_another_has_written(
    s3_endpoint: str, run_python: RunPython
) -> None:
    bucket = uuid.uuid4().hex
    fsspec.filesystem("s3", endpoint_url=s3_endpoint, key="key", secret="secret").mkdir(bucket)
    out = {}
    for mode, cache in (("plain", {"cache": None}), ("never", {})):
        env = {**KEYS, "JCACHE_VALIDATE": "never"}
        jobs = [run_python(TWO, s3_endpoint, f"{bucket}/{mode}", when, env=env, **cache) for when in ("now", "later")]
        out[mode] = [job.stdout.replace(f"{bucket}/{mode}", bucket) for job in jobs]
    assert out["never"] == out["plain"]
    assert f"{bucket}/d/new" in out["never"][1]
    assert f"{bucket}/d/a" not in out["never"][1]


# What is written by others than the instance that has listed.
PAST = """
import sys, fsspec
endpoint, b, later = sys.argv[1], sys.argv[2], sys.argv[-1] == "later"
def put_by_boto(path):
    import boto3
    bucket, _, key = path.partition("/")
    boto3.client("s3", endpoint_url=endpoint).put_object(Bucket=bucket, Key=key, Body=b"new")
def put_by_obstore(path):
    from obstore.store import S3Store
    bucket, _, key = path.partition("/")
    S3Store(bucket, endpoint=endpoint, client_options={"allow_http": True}).put(key, b"new")
def put_by_s3fs(path):
    fsspec.filesystem("s3", endpoint_url=endpoint, default_block_size=2 << 20).pipe_file(path, b"new")
for put in (put_by_boto, put_by_obstore, put_by_s3fs):
    for through in ("s3", "jcache"):
        d = f"{b}/{put.__name__}-{through}"
        fs = fsspec.filesystem("s3", endpoint_url=endpoint)
        if through == "jcache" and "--plain" not in sys.argv:
            fs = fsspec.filesystem("jcache", target_protocol="s3", target_options={"endpoint_url": endpoint})
        if not later:
            fs.pipe_file(f"{d}/a", b"old")
            fs.ls(d)
            put(f"{d}/new")
        print(put.__name__, through, fs.ls(d, detail=False), fs.exists(f"{d}/new"))
"""


def test_what_an_instance_keeps_is_not_recorded_after_other_clients_have_written(
    s3_endpoint: str, run_python: RunPython
) -> None:
    pytest.importorskip("obstore")
    bucket = uuid.uuid4().hex
    fsspec.filesystem("s3", endpoint_url=s3_endpoint, key="key", secret="secret").mkdir(bucket)
    out = {}
    for mode, cache in (("plain", {"cache": None}), ("never", {})):
        env = {**KEYS, "JCACHE_VALIDATE": "never"}
        jobs = [
            run_python(PAST, s3_endpoint, f"{bucket}/{mode}", f"--{mode}", when, env=env, **cache)
            for when in ("now", "later")
        ]
        out[mode] = [job.stdout.replace(f"{bucket}/{mode}", bucket) for job in jobs]
    assert out["never"] == out["plain"]
    assert out["never"][1].count("/new'] True") == 6


# A listing that the server has answered when something is written, and that is kept when that is done.
OVERTAKEN = """
import asyncio, sys, fsspec, s3fs
endpoint, d, later = sys.argv[1], sys.argv[2], sys.argv[-1] == "later"
listed, go = asyncio.Event(), asyncio.Event()
iterate = s3fs.S3FileSystem._iterdir
async def held_back(*args, **kwargs):
    async for one in iterate(*args, **kwargs):
        yield one
    listed.set()
    await go.wait()
async def main():
    fs = fsspec.filesystem("s3", endpoint_url=endpoint, asynchronous=True)
    if not later:
        await fs._pipe_file(f"{d}/a", b"old")
        s3fs.S3FileSystem._iterdir = held_back
        listing = asyncio.create_task(fs._ls(d))
        await listed.wait()
        s3fs.S3FileSystem._iterdir = iterate
        await fs._pipe_file(f"{d}/new", b"new")
        go.set()
        await listing
    print(sorted(await fs._ls(d, detail=False)), await fs._exists(f"{d}/new"))
    await (await fs.set_session()).close()
asyncio.run(main())
"""


def test_a_listing_that_a_write_has_overtaken_is_not_recorded(s3_endpoint: str, run_python: RunPython) -> None:
    bucket = uuid.uuid4().hex
    fsspec.filesystem("s3", endpoint_url=s3_endpoint, key="key", secret="secret").mkdir(bucket)
    env = {**KEYS, "JCACHE_VALIDATE": "never"}
    for when in ("now", "later"):
        plain, cached = (
            run_python(OVERTAKEN, s3_endpoint, f"{bucket}/{mode}", when, env=env, **cache).stdout.replace(mode, "")
            for mode, cache in (("plain", {"cache": None}), ("never", {}))
        )
        assert cached == plain
    assert "/new'] True" in cached


# At Amazon's own endpoint, which the proxy stands for: of what the names of buckets are in, no host is known.
BUCKETS = """
import sys, fsspec
one, two, later = sys.argv[1] + "1", sys.argv[1] + "2", sys.argv[-1] == "later"
def told():
    fs = fsspec.filesystem("s3", use_ssl=False, skip_instance_cache=True)
    return [fs.exists(name) for name in (one, two)], [name for name in fs.ls("") if name in (one, two)]
fs = fsspec.filesystem("s3", use_ssl=False)
if not later:
    fs.mkdir(two)
    print(told())
    fs.mkdir(one), fs.rmdir(two)
    print(told())
    fs.mkdir(two), fs.rmdir(one)
print(told())
"""


def test_which_buckets_there_are_at_the_default_endpoint(s3_endpoint: str, run_python: RunPython) -> None:
    env = {**KEYS, "http_proxy": s3_endpoint, "JCACHE_VALIDATE": "never"}
    for more in ((), ("later",)):
        plain, cached = (
            run_python(BUCKETS, name, *more, env=env, **cache).stdout.replace(name, "")
            for name, cache in (("plain-of-buckets", {"cache": None}), ("cached-of-buckets", {}))
        )
        assert cached == plain
    assert cached == "([False, True], ['2'])\n"
