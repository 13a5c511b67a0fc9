"""obstore as it is in a process of its own, and with JCache: cold, warm, with no question asked, and offline."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
import s3_servers
from libraries import END_WITH_OBSTORE, needs
from s3_servers import KEYS, Moto

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto's server is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Ran, RunPython
    from servers import Nginx

OLD, NEW = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
WHEN = 1_700_000_000

BEGIN = """
import asyncio, sys
import obstore as obs
from obstore.store import HTTPStore, S3Store

url = sys.argv[1]
how = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}

def s3(prefix="dir", key="key", **more):
    keys = {"access_key_id": key, "secret_access_key": "secret", "endpoint": url, "region": "us-east-1"}
    return S3Store("bucket", prefix=prefix, **keys, **how, **more)

def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return sorted((name, str(one)) for name, one in value.items())
    return value if value is None or isinstance(value, (int, str)) else bytes(value)

def whole(result):
    return plain(result.meta), plain(result.range), plain(result.bytes())

def run(make):
    async def main():
        return await make()
    return asyncio.run(main())

async def streamed(store, path, size):
    return b"".join([chunk async for chunk in (await store.get_async(path)).stream(size)])

async def all_whole(results):
    return [(plain(one.meta), plain(one.range), plain(await one.bytes_async())) for one in results]
"""

JOB = (
    BEGIN
    + """
store = eval(sys.argv[2])
for call in sys.argv[3:]:
    try:
        told = plain(eval(call))
    except Exception as error:
        # Behind that there is how long it took.
        told = type(error).__name__, str(error).partition(": Error performing")[0].partition(" in ")[0]
    print(call, "->", told)
"""
    + END_WITH_OBSTORE
)

READS = (
    "store.get_range('f', start=10, end=20)",
    "obs.get_range(store, 'f', start=5, length=30)",
    "store.get_range('f', start=99_990, end=200_000)",
    "store.get_ranges('f', starts=[1, 50_000, 99_000], ends=[3, 50_010, 200_000])",
    "store.get_ranges('f', starts=[70, 60], lengths=[5, 20], coalesce=0)",
    "store.get_ranges('f', starts=[], ends=[])",
    "whole(store.get('f', options={'range': (100, 200)}))",
    "whole(store.get('f', options={'range': [100, 200_000]}))",
    "whole(store.get('f', options={'range': {'offset': 99_000}}))",
    "whole(store.get('f', options={'range': {'suffix': 100}}))",
    "whole(store.get('f', options={'range': {'suffix': 200_000}}))",
    "whole(store.get('f'))",
    "whole(store.get('g/h'))",
    "whole(store.get('empty'))",
    "b''.join(store.get('f').stream(1000))",
    "b''.join(store.get('g/h'))",
    "store.get('f').buffer()",
    "store.head('f')",
    "run(lambda: store.head_async('g/h'))",
    "run(lambda: store.get_range_async('f', start=20, end=40))",
    "run(lambda: obs.get_ranges_async(store, 'f', starts=[3, 30], ends=[5, 50]))",
    "run(lambda: streamed(store, 'f', 30_000))",
    "run(lambda: all_whole([store.get('f'), store.get('g/h')]))",
    # What it says is wrong with a call.
    "store.get_range('f', start=5, end=5)",
    "store.get_range('f', start=5, end=3)",
    "store.get_range('f', start=5)",
    "store.get_range('f', start=-5, end=3)",
    "store.get_range(b'f', start=1, end=3)",
    "store.get_range('g//h', start=1, end=3)",
    "store.get_ranges('f', starts=[1], ends=[1])",
    "store.get('f', options={'range': None})",
    "store.nothing('f')",
)
MISSING = (
    "store.get_range('missing', start=1, end=5)",
    "store.get('missing')",
    "store.head('missing')",
    "run(lambda: store.get_async('missing'))",
)
# Only the server can tell these.
ASKING = (
    "store.get('f').attributes",
    "store.get_range('f', start=200_000, end=200_010)",
    "store.get_ranges('f', starts=[200_000], ends=[200_010])",
    "store.get('f', options={'range': {'offset': 100_000}})",
    "store.get('f', options={'head': True}).meta",
    "store.get('f', options={'if_match': 'none'})",
    "sorted(one['path'] for page in store.list() for one in page)",
)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def server(moto: Moto) -> Moto:
    moto.reset()
    client = s3_servers.client(moto.url)
    client.create_bucket(Bucket="bucket")
    for name, data in (("f", OLD), ("g/h", OLD[:1000]), ("empty", b"")):
        client.put_object(Bucket="bucket", Key=f"dir/{name}", Body=data, ContentType="text/x", Metadata={"a": "b"})
    moto.requests()
    return moto


@pytest.fixture
def files(nginx_server: Nginx) -> Nginx:
    for name, data in (("dir/f", OLD), ("dir/g/h", OLD[:1000]), ("dir/empty", b"")):
        path = nginx_server.directory / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(data)
        os.utime(path, (WHEN, WHEN))
    nginx_server.reset()
    return nginx_server


def bodies(server: Moto | Nginx) -> list[str]:
    """Requests since this was asked last whose answers have bytes of objects."""
    if isinstance(server, Moto):
        return [str(one) for one in server.requests() if one.method == "GET" and one.status in {200, 206}]
    found = [
        one.uri for one in server.requests() if one.method == "GET" and one.body_bytes and one.status in {200, 206}
    ]
    server.reset()
    return found


def alike(run_python: RunPython, server: Moto | Nginx, url: str, store: str, calls: tuple[str, ...]) -> list[Ran]:
    """Run calls without the cache, cold, warm, unasked and offline; all print the same, warm ones bring no bytes."""
    before = run_python(JOB, url, store, *calls, cache=None)
    most = bodies(server)
    assert most
    cold = run_python(JOB, url, store, *calls)
    assert 0 < len(bodies(server)) <= len(most)
    warm = run_python(JOB, url, store, *calls)
    assert bodies(server) == []
    unasked = run_python(JOB, url, store, *calls, env={"JCACHE_VALIDATE": "never"})
    offline = run_python(JOB, url, store, *calls, env={"JCACHE_OFFLINE": "1"})
    assert server.requests() == []
    for ran in (cold, warm, unasked, offline):
        assert ran.stdout.splitlines() == before.stdout.splitlines()
        assert "jcache:" not in ran.stderr
        assert sum(ran.report[kind]["bypass_bytes"] for kind in ("read", "readv")) == 0
    return [cold, warm]


def test_s3_is_read_as_obstore_reads_it(run_python: RunPython, server: Moto) -> None:
    cold, warm = alike(run_python, server, server.url, "s3()", READS + MISSING)
    assert cold.report["origin"]["bytes"] <= 2 * (len(OLD) + 1000)
    assert warm.report["read"]["miss_bytes"] == warm.report["readv"]["miss_bytes"] == 0


def test_http_is_read_as_obstore_reads_it(run_python: RunPython, files: Nginx) -> None:
    calls = tuple(call for call in READS if "empty" not in call)
    alike(run_python, files, files.url("dir").rstrip("/"), "HTTPStore(url, **how)", calls)


@pytest.mark.parametrize("call", ["store.get('empty')", *MISSING])
def test_http_says_what_obstore_says(run_python: RunPython, files: Nginx, call: str) -> None:
    args = (JOB, files.url("dir"), "HTTPStore(url, **how)", call)
    before = run_python(*args, cache=None).stdout
    assert run_python(*args).stdout == before
    assert run_python(*args).stdout == before


def test_what_only_the_server_can_tell_it_tells(run_python: RunPython, server: Moto) -> None:
    before = run_python(JOB, server.url, "s3()", *ASKING, cache=None).stdout
    for _ in range(2):
        assert run_python(JOB, server.url, "s3()", READS[0], *ASKING).stdout.splitlines()[1:] == before.splitlines()


def test_one_request_tells_the_version_and_brings_the_bytes(run_python: RunPython, server: Moto) -> None:
    for call in ("whole(store.get('f'))", "store.get_range('g/h', start=1, end=5)", "store.get('g/h').meta"):
        run_python(JOB, server.url, "s3()", call)
        assert len(server.requests()) == 1, call


def test_an_object_that_was_replaced_is_read_new(run_python: RunPython, server: Moto) -> None:
    calls = ("store.get_range('f', start=0, end=100)", "whole(store.get('f'))", "store.head('f')")
    run_python(JOB, server.url, "s3()", *calls)
    s3_servers.client(server.url).put_object(Bucket="bucket", Key="dir/f", Body=NEW)
    before = run_python(JOB, server.url, "s3()", *calls, cache=None).stdout
    assert str(NEW[:100]) in before
    for _ in range(2):
        assert run_python(JOB, server.url, "s3()", *calls).stdout == before


S3FS = """
import sys, s3fs
fs = s3fs.S3FileSystem(key=sys.argv[2], secret="secret", endpoint_url=sys.argv[1])
print(fs.cat_file("bucket/dir/f", start=10, end=50_000), fs.cat_file("bucket/dir/g/h"))
"""
BY_OBSTORE = ("store.get_range('f', start=10, end=50_000)", "store.get('g/h').bytes()")


@pytest.mark.parametrize("first", ["s3fs", pytest.param("obstore", marks=pytest.mark.long)])
def test_s3fs_and_obstore_read_what_the_other_recorded(run_python: RunPython, server: Moto, first: str) -> None:
    needs("s3fs")
    jobs = [(S3FS, server.url, "key"), (JOB, server.url, "s3()", *BY_OBSTORE)]
    one, other = jobs if first == "s3fs" else jobs[::-1]
    before = run_python(*other, cache=None, env=KEYS).stdout
    run_python(*one, env=KEYS)
    assert len(bodies(server)) > 1
    for env in ({}, {"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"}):
        assert run_python(*other, env=KEYS | env).stdout == before
        assert bodies(server) == []


def test_who_asks_as_another_has_journals_of_his_own(run_python: RunPython, server: Moto) -> None:
    """At an endpoint of one's own a bucket may be another one for each account, as for s3fs."""
    run_python(JOB, server.url, "s3()", *BY_OBSTORE)
    bodies(server)
    run_python(JOB, server.url, "s3(key='other')", *BY_OBSTORE)
    assert len(bodies(server)) == 2
    run_python(JOB, server.url, "s3()", *BY_OBSTORE, env={"AWS_ACCESS_KEY_ID": "third"})
    assert bodies(server) == []


def test_fsspec_and_obstore_read_what_the_other_recorded_over_http(run_python: RunPython, files: Nginx) -> None:
    job = "import sys, fsspec; print(fsspec.filesystem('http').cat_file(sys.argv[1] + '/f', 10, 50_000))"
    url = files.url("dir")
    run_python(job, url)
    before = run_python(JOB, url, "HTTPStore(url, **how)", BY_OBSTORE[0], cache=None).stdout
    files.reset()
    assert run_python(JOB, url, "HTTPStore(url, **how)", BY_OBSTORE[0]).stdout == before
    run_python(JOB, url, "HTTPStore(url, **how)", BY_OBSTORE[1])
    files.reset()
    run_python("import sys, fsspec; print(fsspec.filesystem('http').cat_file(sys.argv[1] + '/g/h'))", url)
    assert files.body_bytes() == 0


WRITES = """
import collections
from io import BytesIO
store = s3()
new = bytes(range(100))
def writer():
    with obs.open_writer(store, "f") as file:
        file.write(new)
async def writer_async(path="f"):
    async with obs.open_writer_async(store, path) as file:
        await file.write(new)
store.put("other", new)
assert bytes(store.get("other").bytes()) == new
ways = {
    "put": lambda: store.put("f", new),
    "put_async": lambda: run(lambda: store.put_async("f", BytesIO(new))),
    "copy": lambda: store.copy("other", "f"),
    "copy_async": lambda: run(lambda: obs.copy_async(store, "other", "f")),
    "rename": lambda: store.rename("other", "f"),
    "rename_async": lambda: run(lambda: store.rename_async("other", "f")),
    "delete": lambda: store.delete("f"),
    "delete_async": lambda: run(lambda: store.delete_async(["f"])),
    "delete a sequence": lambda: store.delete(collections.UserList(["/f"])),
    "put_async /": lambda: run(lambda: store.put_async("/f", new)),
    "copy_async /": lambda: run(lambda: store.copy_async("other", "/f/")),
    "open_writer_async /": lambda: run(lambda: writer_async("/f")),
    "open_writer": writer,
    "open_writer_async": lambda: run(writer_async),
}
old = bytes(store.get("f").bytes())
assert len(old) == 100_000, len(old)
ways[sys.argv[2]]()
try:
    found = bytes(store.get_range("f", start=0, end=200))
except FileNotFoundError:
    found = None
assert found == (None if "delete" in sys.argv[2] else new), found
print(found)
"""


@pytest.mark.parametrize("way", [
    "put", "put_async", "copy", "copy_async", "rename", "rename_async", "delete", "delete_async", "open_writer",
    "open_writer_async", "delete a sequence", "put_async /", "copy_async /", "open_writer_async /",
])  # fmt: skip
def test_what_is_written_is_read(run_python: RunPython, server: Moto, way: str) -> None:
    assert run_python(BEGIN + WRITES, server.url, way).stdout
    # Nor has a process that asks for nothing what was there before.
    calls = ("store.get_range('f', start=0, end=100)",)
    before = run_python(JOB, server.url, "s3()", *calls, cache=None).stdout
    assert run_python(JOB, server.url, "s3()", *calls, env={"JCACHE_VALIDATE": "never"}).stdout == before


COPIES = """
store = s3()
for path in ("f", "g/h"):
    store.get(path).bytes()
store.copy("f", "g/h")
print(len(store.get_range("f", start=0, end=100_000)))
"""


def test_what_is_copied_stays_recorded(run_python: RunPython, server: Moto) -> None:
    assert run_python(BEGIN + COPIES, server.url).stdout == "100000\n"
    assert len(bodies(server)) == 2


PAST = """
from obstore.store import LocalStore, MemoryStore
import tempfile
for store in (MemoryStore(), LocalStore(tempfile.mkdtemp())):
    store.put("f", b"0123456789")
    result = store.get("f")
    print(type(result).__module__, bytes(result.bytes()), store.head("f")["size"])
    print(bytes(store.get_range("f", start=2, end=4)))
    print(run(lambda: store.get_range_async("f", start=2, end=4)), [len(page) for page in store.list()])
"""


def test_stores_that_are_not_remote_are_passed_by(run_python: RunPython) -> None:
    before = run_python(BEGIN + PAST, "", cache=None)
    ran = run_python(BEGIN + PAST, "")
    assert ran.stdout == before.stdout
    assert "jcache:" not in ran.stderr


def test_a_store_of_which_it_cannot_be_told_who_asks_is_passed_by(run_python: RunPython, server: Moto) -> None:
    provider = "lambda: {'access_key_id': 'a', 'secret_access_key': 'b', 'expires_at': None}"
    store = f"S3Store('bucket', endpoint=url, region='x', credential_provider={provider}, **how)"
    call = "store.get_range('dir/f', start=0, end=10)"
    for _ in range(2):
        ran = run_python(JOB, server.url, store, call)
        assert str(OLD[:10]) in ran.stdout
        assert "it is not told who asks" in ran.stderr
        assert len(bodies(server)) == 1


ENVIRONMENT = """
import os, pickle
def at(place):
    os.environ["AWS_ENDPOINT_URL"] = place
keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1", **how}
first, second = sys.argv[1:3]
at(first)
stores = [S3Store("bucket", prefix="dir", **keys)]
saved = pickle.dumps(stores[0])
at(second)
stores += [S3Store("bucket", prefix="dir", **keys), S3Store.from_url("s3://bucket/dir", **keys), pickle.loads(saved)]
stores += [obs.store.from_url("s3://bucket/dir", **keys), type("Mine", (S3Store,), {})("bucket", prefix="dir", **keys)]
os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
for store in stores:
    print(whole(store.get("f"))[2][:10], plain(store.get_range("f", start=50, end=60)), store.head("f")["size"])
"""


def test_where_a_store_is_the_environment_said_when_it_was_made(
    run_python: RunPython, server: Moto, nginx_server: Nginx
) -> None:
    path = nginx_server.directory / "bucket/dir/f"
    path.parent.mkdir(parents=True)
    path.write_bytes(NEW)
    os.utime(path, (WHEN, WHEN))
    other = nginx_server.url("").rstrip("/")
    for places, later in (
        ((server.url, other), {"JCACHE_OFFLINE": "1"}),
        ((other, server.url), {"JCACHE_VALIDATE": "never"}),
    ):
        before = run_python(BEGIN + ENVIRONMENT, *places, cache=None).stdout
        assert len(set(before.splitlines()[:2])) == 2
        for env in ({}, later):
            assert run_python(BEGIN + ENVIRONMENT, *places, env=env).stdout == before


BY_NAME = """
async def all_whole_of(store):
    return await all_whole([await store.get_async("f")])
import inspect, pickle
from jcache_plugins.obspec import JCacheStore
from obstore.store import MemoryStore
store = JCacheStore(s3(), cache_dir=sys.argv[2])
again = pickle.loads(pickle.dumps(store))
# As the protocols of obspec are checked.
names = ["get", "get_async", "get_range", "get_range_async", "get_ranges", "get_ranges_async", "head", "head_async"]
assert all(inspect.getattr_static(store, name, None) for name in (*names, "list", "put", "delete", "copy", "rename"))
assert again == store and again.store.prefix == store.prefix == "dir"
print(whole(store.get("f")), plain(again.get_ranges("f", starts=[1, 5], ends=[2, 7])), plain(store.head("f")))
print(run(lambda: all_whole_of(store)), b"".join(store.get("g/h")))
print(sorted(one["path"] for page in store.list() for one in page))
memory = JCacheStore(MemoryStore(), cache_dir=sys.argv[2])
memory.put("x", b"abc")
print(bytes(memory.get("x").bytes()))
"""


def test_a_store_in_front_of_another_one(run_python: RunPython, server: Moto, tmp_path: os.PathLike[str]) -> None:
    code = (
        BEGIN + "async def all_whole_of(store):\n    return await all_whole([await store.get_async('f')])\n" + BY_NAME
    )
    where = os.path.join(tmp_path, "elsewhere")
    cold = run_python(code, server.url, where, cache=None)
    assert len(bodies(server)) == 3  # of which one is the listing
    assert run_python(code, server.url, where, cache=None).stdout == cold.stdout
    assert [one for one in bodies(server) if "list-type" not in one] == []
    # Its journals are none of JCACHE_DIR's.
    run_python(JOB, server.url, "s3()", "store.get('f').bytes()")
    assert len(bodies(server)) == 1


FILE_SYSTEM = """
import fsspec, sys
from obstore.fsspec import register
register("s3")
keys = {"access_key_id": "key", "secret_access_key": "secret", "endpoint": sys.argv[1], "region": "us-east-1"}
fs = fsspec.filesystem("s3", config=keys, client_options={"allow_http": True})
name = "bucket/dir/f"
print(fs.cat_file(name), fs.cat_file(name, start=10, end=20), fs.cat_ranges([name] * 2, [1, 50], [5, 60]))
print(fs.open(name).read(), fs.info(name)["size"], fs.exists("bucket/dir/missing"))
"""


def test_the_file_system_that_obstore_has_for_fsspec_is_cached(run_python: RunPython, server: Moto) -> None:
    before = run_python(FILE_SYSTEM, server.url, cache=None).stdout
    server.requests()
    assert run_python(FILE_SYSTEM, server.url).stdout == before
    assert bodies(server)
    assert run_python(FILE_SYSTEM, server.url).stdout == before
    assert [one for one in bodies(server) if "list-type" not in one] == []
