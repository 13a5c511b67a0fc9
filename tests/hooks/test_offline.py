"""JCACHE_OFFLINE after one run: whatever libraries ask is answered, in a network namespace without an interface."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import s3_servers
from asking import ASK
from libraries import END_WITH_PYARROW, needs
from s3_servers import KEYS, Moto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunPython
    from servers import Nginx

# Ends the process where it asks for a name, an address included.
ALONE = """
import ctypes, os, socket
ctypes.CDLL(None).unshare(0x50000000)  # CLONE_NEWUSER | CLONE_NEWNET
def refused(*args, **kwargs):
    os.write(2, f"asked for {args}".encode())
    os._exit(77)
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refused
"""

ZARR = """
import sys, zarr
from zarr.storage import FsspecStore
store = FsspecStore.from_url(sys.argv[1], read_only=True, storage_options={OPTIONS})
group = zarr.open_group(store, mode="r", use_consolidated=False)
array = group["a"]
print(group.info, sorted(group.keys()), repr(float(array[:].sum())), array.shape, "nothing" in group)
"""

ZARR_MAP = """
import sys, fsspec, zarr
store = fsspec.get_mapper(sys.argv[1], **{OPTIONS})
print(sorted(store), ".zgroup" in store, len(store.getitems([".zgroup", "a/0.0", "a/99.0"], on_error="omit")))
"""

DASK = """
import sys, dask.dataframe as dd
frame = dd.read_parquet(sys.argv[1], storage_options={OPTIONS})
print(frame.npartitions, repr(frame.c1.sum().compute(scheduler="sync")))
"""

PYARROW = """
import sys, fsspec
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem
fs, path = fsspec.url_to_fs(sys.argv[1], **{OPTIONS})
# Over HTTP, a directory is a file for pyarrow, with JCache or without.
source = path if "s3" in fs.protocol else fs.find(path)
data = ds.dataset(source, filesystem=PyFileSystem(FSSpecHandler(fs)), format="parquet", partitioning=None)
print(sorted(data.files), repr(sum(data.to_table(columns=["c1"])["c1"].to_pylist())))
"""

PANDAS = """
import sys, pandas as pd
source = sys.argv[1]
if source.startswith("http"):
    import fsspec
    frame = pd.concat([pd.read_parquet(fsspec.open(url).open(), columns=["c1"])
                       for url in fsspec.filesystem("http").glob(source + "/*.parquet")])
else:
    frame = pd.read_parquet(source, columns=["c1"], storage_options={OPTIONS})
print(frame.shape, repr(frame.c1.sum()))
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    needs("s3fs", "moto.server")
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def fill(directory: Path) -> None:
    """Make groups of zarr, in both formats, with an absent chunk, and a directory of Parquet files."""
    import numpy as np
    import pandas as pd
    import zarr

    for version in (2, 3):
        group = zarr.open_group(directory / f"z{version}", mode="w", zarr_format=version)
        array = group.create_array("a", shape=(40, 20), chunks=(10, 10), dtype="f8")
        array[:30] = np.random.default_rng(version).random((30, 20))
    (directory / "p").mkdir()
    for i in range(3):
        values = np.random.default_rng(i).random((500, 3))
        pd.DataFrame(values, columns=["c0", "c1", "c2"]).to_parquet(directory / "p" / f"part-{i}.parquet")
    for path in directory.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture(params=["http", "s3"])
def run_alone(
    request: pytest.FixtureRequest, tmp_path: Path, run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], str]:
    """`run_alone(code, name)` runs code plain, once with a cache, and offline; all must print the same."""
    needs("zarr", "numpy", "pandas", "pyarrow")
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # fsspec lists what HTTP servers give out of a set
    options = "{}"
    if request.param == "http":
        nginx: Nginx = request.getfixturevalue("nginx_server")
        directory, base = nginx.directory / "listed", nginx.url("listed")
        directory.mkdir()
        fill(directory)
    else:
        server: Moto = request.getfixturevalue("moto")
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        server.reset()
        boto = s3_servers.client(server.url)
        boto.create_bucket(Bucket="bucket")
        directory, base = tmp_path / "files", "s3://bucket/top"
        directory.mkdir()
        fill(directory)
        for path in directory.rglob("*"):
            if path.is_file():
                boto.put_object(Bucket="bucket", Key=f"top/{path.relative_to(directory)}", Body=path.read_bytes())
        options = repr({"endpoint_url": server.url})

    def run(code: str, name: str) -> str:
        code = code.replace("{OPTIONS}", options)
        args = f"{base}/{name}"
        plain = run_python(code, args, cache=None)
        cold = run_python(code, args)
        offline = run_python(ALONE + code, args, env={"JCACHE_OFFLINE": "1"})
        assert plain.stdout
        assert cold.stdout == plain.stdout
        assert offline.stdout == plain.stdout
        return plain.stdout

    return run


@pytest.mark.turns("run_alone")
@pytest.mark.parametrize("name", ["z2", "z3"])
@pytest.mark.parametrize("code", [ZARR, ZARR_MAP], ids=["group", "mapper"])
def test_groups_of_zarr(run_alone: Callable[[str, str], str], code: str, name: str) -> None:
    run_alone(code, name)


@pytest.mark.turns("run_alone")
@pytest.mark.parametrize("code", [DASK, PYARROW, PANDAS], ids=["dask", "pyarrow", "pandas"])
def test_a_directory_of_parquet_files(run_alone: Callable[[str, str], str], code: str) -> None:
    run_alone(code + END_WITH_PYARROW, "p")


def test_all_questions_about_names(run_alone: Callable[[str, str], str]) -> None:
    code = ASK.replace("url_to_fs(sys.argv[1]", "url_to_fs(sys.argv[1], **{OPTIONS}").replace("a.bin", "part-0.parquet")
    assert "part-0.parquet" in run_alone(code, "p")


@pytest.mark.parametrize("protocol", ["sftp", "ftp"])
def test_file_systems_that_connect_as_they_are_made_do_not_offline(run_python: RunPython, protocol: str) -> None:
    needs(*(["paramiko"] if protocol == "sftp" else []))
    code = """
import sys, fsspec
from jcache.errors import OfflineMissError
fs = fsspec.filesystem(sys.argv[1], host="host.invalid")
for call in (lambda: fs.ls("/d"), lambda: fs.exists("/d/x"), lambda: fs.cat_file("/d/x"), lambda: fs.mkdir("/d")):
    try:
        print("gave", call())
    except OfflineMissError:
        print("missed")
"""
    ran = run_python(ALONE + code, protocol, env={"JCACHE_OFFLINE": "1"})
    assert ran.stdout == "missed\n" * 4
    assert "Traceback" not in ran.stderr
