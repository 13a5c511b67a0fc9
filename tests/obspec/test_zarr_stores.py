"""Groups of zarr over obstore, and by name over any store of zarr: plain, cold, warm, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import s3_servers
from libraries import END_WITH_OBSTORE
from s3_servers import KEYS, Moto

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("zarr.storage", reason="zarr is not installed")
pytest.importorskip("moto.server", reason="moto's server is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

BEGIN = """
import asyncio, sys, warnings
import numpy as np, zarr
from obstore.store import MemoryStore, S3Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, MemoryStore as Memory, ObjectStore

def objects(**more):
    keys = {"access_key_id": "key", "secret_access_key": "secret", "endpoint": sys.argv[1], "region": "us-east-1"}
    return ObjectStore(S3Store("bucket", prefix="z", client_options={"allow_http": True}, **keys), **more)

def files(**more):
    how = {"key": "key", "secret": "secret", "endpoint_url": sys.argv[1]}
    return FsspecStore.from_url("s3://bucket/z", storage_options=how, **more)
"""
MAKE = """
group = zarr.create_group(objects(), attributes={"answer": 42})
a = group.create_array("a", shape=(100, 100), chunks=(10, 100), dtype="f8")
a[:] = np.arange(10_000).reshape(100, 100)
b = group.create_array("sharded", shape=(1000,), chunks=(10,), shards=(200,), dtype="i4")
b[:] = np.arange(1000)
group.create_array("unwritten", shape=(4,), chunks=(2,), dtype="i4", fill_value=7)
"""
READ = """
def show(store):
    group = zarr.open_group(store, mode="r")
    print(dict(group.attrs), group["a"][:].sum(), group["a"][10:20, 5].tolist(), group["sharded"][100:120].tolist())
    print("missing" in group, group["unwritten"][:].tolist(), len(group["a"][5]))
show(eval(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def server(moto: Moto, run_python: RunPython) -> Moto:
    moto.reset()
    s3_servers.client(moto.url).create_bucket(Bucket="bucket")
    run_python(BEGIN + MAKE + END_WITH_OBSTORE, moto.url, cache=None)
    moto.requests()
    return moto


def bodies(server: Moto) -> list[str]:
    return [str(one) for one in server.requests() if one.method == "GET" and one.status in {200, 206}]


def test_a_group_over_obstore_is_cached_unawares(run_python: RunPython, server: Moto) -> None:
    args = (BEGIN + READ + END_WITH_OBSTORE, server.url, "objects(read_only=True)")
    before = run_python(*args, cache=None).stdout
    plain = len(bodies(server))
    cold = run_python(*args)
    assert cold.stdout == before
    assert 0 < len(bodies(server)) <= plain
    warm = run_python(*args)
    assert warm.stdout == before
    assert bodies(server) == []
    assert "100.00" in warm.stderr
    for env in ({"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"}):
        assert run_python(*args, env=env).stdout == before
        assert server.requests() == []


def test_what_zarr_read_by_fsspec_it_has_by_obstore(run_python: RunPython, server: Moto) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    before = run_python(BEGIN + READ + END_WITH_OBSTORE, server.url, "files(read_only=True)", env=KEYS).stdout
    assert bodies(server)
    assert run_python(BEGIN + READ + END_WITH_OBSTORE, server.url, "objects(read_only=True)", env=KEYS).stdout == before
    assert bodies(server) == []


def test_what_is_written_through_zarr_is_read(run_python: RunPython, server: Moto) -> None:
    code = """
group = zarr.open_group(objects())
before = group["a"][:].sum()
group["a"][:] = 1
print(before, group["a"][:].sum(), zarr.open_group(objects(), mode="r")["a"][:].sum())
del group["a"]
print("a" in group, "a" in zarr.open_group(objects(), mode="r"))
"""
    assert run_python(BEGIN + code + END_WITH_OBSTORE, server.url).stdout == "49995000.0 10000.0 10000.0\nFalse False\n"


BY_NAME = """
from jcache_plugins.zarr import JCacheZarrStore
where = sys.argv[3]
show(JCacheZarrStore(eval(sys.argv[2]), cache_dir=where))
writable = JCacheZarrStore(objects(), cache_dir=where)
assert not writable.read_only and writable.with_read_only(True).read_only
assert writable.with_read_only(True).cache_dir == where
memory = JCacheZarrStore(Memory(), cache_dir=where)
zarr.create_array(memory, name="x", shape=3, chunks=3, dtype="i4", fill_value=5)
print(zarr.open_array(memory, path="x", mode="r")[:].tolist())
"""


@pytest.mark.parametrize("store", ["objects(read_only=True)", "files(read_only=True)"])
def test_a_store_in_front_of_another_one(run_python: RunPython, server: Moto, tmp_path: Path, store: str) -> None:
    if "files" in store:
        pytest.importorskip("s3fs", reason="s3fs is not installed")
    args, where = (server.url, store), str(tmp_path / "elsewhere")
    before = run_python(BEGIN + READ + END_WITH_OBSTORE, *args, cache=None, env=KEYS).stdout
    plain = len(bodies(server))
    code = BEGIN + READ.rpartition("show(")[0] + BY_NAME + END_WITH_OBSTORE
    cold = run_python(code, *args, where, cache=None, env=KEYS)
    assert cold.stdout == before + "[5, 5, 5]\n"
    assert 0 < len(bodies(server)) <= plain
    assert run_python(code, *args, where, cache=None, env=KEYS).stdout == cold.stdout
    assert bodies(server) == []


def test_ranges_of_values_are_what_they_are_without(run_python: RunPython, server: Moto, tmp_path: Path) -> None:
    code = """
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from jcache_plugins.zarr import JCacheZarrStore
kinds = (None, RangeByteRequest(3, 20), OffsetByteRequest(5), SuffixByteRequest(7))
async def main(store):
    whole = default_buffer_prototype()
    for kind in kinds:
        value = await store.get("a/zarr.json", whole, kind)
        print(value.to_bytes(), await store.get("none", whole, kind))
    values = await store.get_partial_values(whole, [("a/zarr.json", kind) for kind in kinds])
    print([value.to_bytes() for value in values], await store.getsize("a/zarr.json"))
    print(await store.exists("a/zarr.json"), await store.exists("none"))
asyncio.run(main(JCacheZarrStore(objects(), cache_dir=sys.argv[2]) if len(sys.argv) > 2 else objects()))
"""
    before = run_python(BEGIN + code + END_WITH_OBSTORE, server.url, cache=None).stdout
    for where in ((), (str(tmp_path / "elsewhere"),)):
        for _ in range(2):
            assert run_python(BEGIN + code + END_WITH_OBSTORE, server.url, *where).stdout == before


ELSEWHERE = """
import pickle
from multiprocessing import get_context
from concurrent.futures import ProcessPoolExecutor

def total(array):
    return float(array[:].sum())

def halve(array):
    array[:] = array[:] / 2

if __name__ == "__main__":
    from jcache_plugins.zarr import JCacheZarrStore
    store = JCacheZarrStore(eval(sys.argv[2]), cache_dir=sys.argv[3])
    again = pickle.loads(pickle.dumps(store))
    assert again == store and again.cache_dir == store.cache_dir and again.read_only == store.read_only
    array = zarr.open_array(store, path="a")
    for call in sys.argv[4:]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
            print(workers.submit(globals()[call], array).result())
"""


@pytest.mark.parametrize("store", ["objects()", pytest.param("files()", marks=pytest.mark.long)])
def test_a_store_that_is_unpickled_in_another_process_caches_there(
    run_python: RunPython, server: Moto, tmp_path: Path, store: str
) -> None:
    if "files" in store:
        pytest.importorskip("s3fs", reason="s3fs is not installed")
    args = BEGIN + ELSEWHERE, server.url, store, str(tmp_path / "elsewhere")
    ran = run_python(*args, "total", "halve", cache=None, env=KEYS)
    assert ran.stdout == "49995000.0\nNone\n"
    assert len([body for body in bodies(server) if "/c/" in body]) == 10
    # What was written there is not stale for who asks for nothing.
    ran = run_python(*args, "total", cache=None, env=KEYS | {"JCACHE_VALIDATE": "never"})
    assert ran.stdout == "24997500.0\n"


SIZES = """
from jcache_plugins.zarr import JCacheZarrStore
store = eval(sys.argv[2])
if len(sys.argv) > 3:
    store = JCacheZarrStore(store, cache_dir=sys.argv[3])
array = zarr.open_array(store, path="a", mode="r")
print(array.nbytes_stored(), array.info_complete()._count_bytes_stored)
print(asyncio.run(store.getsize("a/c/0/0")))
"""


@pytest.mark.parametrize("store", ["objects(read_only=True)", "files(read_only=True)"])
def test_sizes_are_asked_for_as_without(run_python: RunPython, server: Moto, tmp_path: Path, store: str) -> None:
    if "files" in store:
        pytest.importorskip("s3fs", reason="s3fs is not installed")
    args = BEGIN + SIZES + END_WITH_OBSTORE, server.url, store
    before = run_python(*args, cache=None, env=KEYS).stdout
    assert [body for body in bodies(server) if "/c/" in body] == []
    assert run_python(*args, str(tmp_path / "elsewhere"), cache=None, env=KEYS).stdout == before
    assert [body for body in bodies(server) if "/c/" in body] == []
