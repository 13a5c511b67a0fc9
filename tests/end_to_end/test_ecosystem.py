"""More of what people read remote data with: each plain, cold, warm and offline, with equal results.

Its own tests are in `test_libraries.py`; here are the larger frameworks. The table of all is in docs/ecosystem.md.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import analysis
import pytest
import s3_servers
from libraries import END_WITH_PYARROW, needs, parquet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Ran, RunPython
    from servers import Nginx


COFFEA = """
import contextlib, sys, warnings
warnings.filterwarnings("ignore")
import awkward as ak
from coffea import processor
from coffea.nanoevents import BaseSchema, NanoEventsFactory

class Count(processor.ProcessorABC):
    def process(self, events):
        # whole numbers: the chunks are added up in the order in which they end
        return {"events": len(events), "jets": round(1000 * float(ak.sum(events.Jet_pt)))}

    def postprocess(self, found):
        return found

def main():
    urls = sys.argv[2:]
    files = {"ttbar": {"files": {url: "Events" for url in urls}}}
    {run}

if __name__ == "__main__":
    main()
"""

FACTORY = """
    for url in urls:
        events = NanoEventsFactory.from_root({url: "Events"}, schemaclass=BaseSchema, mode="eager").events()
        print(len(events), round(float(ak.sum(events.Jet_pt)), 3), round(float(ak.sum(events.MET_pt)), 3))
"""

RUN = """
    with contextlib.redirect_stdout(sys.stderr):
        run = processor.Runner(executor=executor, schema=BaseSchema, chunksize=1000)
        found = run(files, Count(), treename="Events")
    print(sorted(found.items()))
"""

# One worker each, since importing coffea is what takes long; several at once are in test_dask.py.
FUTURES = f"""
    executor = processor.FuturesExecutor(workers=1, status=False)
    {RUN.strip()}
"""

DASK = f"""
    from distributed import Client
    client = Client(n_workers=1, threads_per_worker=2, dashboard_address=None)
    executor = processor.DaskExecutor(client=client, status=False)
    {RUN.strip()}
    client.close()
"""


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(FACTORY, id="factory"),
        pytest.param(FUTURES, id="futures", marks=pytest.mark.long),
        pytest.param(DASK, id="dask", marks=pytest.mark.long),
    ],
)
def test_coffea(check: Callable[..., list[Ran]], nginx_server: Nginx, how: str) -> None:
    needs("coffea", "uproot", *(["distributed"] if how is DASK else []))
    for seed, name in ((1, "a.root"), (2, "b.root")):
        analysis.write(nginx_server.directory / name, rntuple=False, seed=seed)
    code = COFFEA.replace("{run}", how.strip())
    check(code, "-", nginx_server.url("a.root"), nginx_server.url("b.root"), offline=True)


def test_polars_with_a_file_of_fsspec(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("polars", "pyarrow")
    parquet(nginx_server.directory)
    code = """
import sys
import fsspec, polars as pl
with fsspec.open(sys.argv[1]) as file:
    frame = pl.read_parquet(file, columns=["c1", "key"])
print(frame.shape, repr(frame["c1"].sum()), frame["key"].sum())
"""
    check(code, nginx_server.url("t.parquet"), offline=True)


def test_kerchunk_and_xarray(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("kerchunk", "xarray", "zarr", "h5py", "numpy")
    import h5py
    import numpy as np

    with h5py.File(nginx_server.directory / "f.h5", "w") as file:
        data = np.random.default_rng(5).random((60, 80))
        data = file.create_dataset("u", data=data, chunks=(20, 40))
        data.dims[0].label, data.dims[1].label = "y", "x"
    code = """
import sys
import fsspec
from kerchunk.hdf import SingleHdf5ToZarr
import xarray as xr
url = sys.argv[1]
with fsspec.open(url) as file:
    references = SingleHdf5ToZarr(file, url, inline_threshold=0).translate()
fs = fsspec.filesystem("reference", fo=references, remote_protocol="http", asynchronous=True,
                       remote_options={"asynchronous": True})
import zarr
store = zarr.storage.FsspecStore(fs, read_only=True)
group = zarr.open_group(store, mode="r", zarr_format=2, use_consolidated=False)
print(repr(float(group["u"][10:45, 30:70].sum())), group["u"].shape)
"""
    check(code, nginx_server.url("f.h5"), offline=True)


def test_universal_pathlib(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("upath")
    (nginx_server.directory / "t.bin").write_bytes(random.Random(8).randbytes(300_000))
    code = """
import sys
from upath import UPath
path = UPath(sys.argv[1])
print(path.name, path.stat().st_size, sum(path.read_bytes()))
with path.open("rb") as file:
    file.seek(1000)
    print(sum(file.read(5000)))
"""
    check(code, nginx_server.url("t.bin"), offline=True)


def test_intake(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("intake", "pandas", "pyarrow")
    parquet(nginx_server.directory)
    code = """
import sys
import intake
from intake.readers.datatypes import Parquet
from intake.readers.readers import PandasParquet
frame = PandasParquet(Parquet(url=sys.argv[1], storage_options={})).read()
print(frame.shape, repr(frame.c1.sum()))
"""
    check(code + END_WITH_PYARROW, nginx_server.url("t.parquet"), offline=True)


def test_a_tree_as_model_hubs_have_it(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    """A revision's files in folders: an index in JSON, shards, each read in part by its header."""
    directory = nginx_server.directory / "models" / "m" / "resolve" / "main"
    directory.mkdir(parents=True)
    rng = random.Random(9)
    names = [f"shard-{i}.safetensors" for i in range(3)]
    for name in names:
        header = json.dumps({"w": {"dtype": "U8", "shape": [200_000], "data_offsets": [0, 200_000]}}).encode()
        (directory / name).write_bytes(len(header).to_bytes(8, "little") + header + rng.randbytes(200_000))
    (directory / "index.json").write_text(json.dumps({"shards": names}))
    code = """
import json, sys
import fsspec
fs, root = fsspec.url_to_fs(sys.argv[1])
for name in json.loads(fs.cat_file(root + "/index.json"))["shards"]:
    path = f"{root}/{name}"
    length = int.from_bytes(fs.cat_file(path, 0, 8), "little")
    start, stop = json.loads(fs.cat_file(path, 8, 8 + length))["w"]["data_offsets"]
    print(name, sum(b"".join(fs.cat_ranges([path] * 2, [8 + length + start, 8 + length + 50_000],
                                           [8 + length + 1000, 8 + length + 52_000]))))
"""
    check(code, nginx_server.url("models/m/resolve/main"), offline=True)


# -- S3 ----------------------------------------------------------------------------------------------------

DUCKDB = """
import sys
import duckdb, fsspec
fs = fsspec.filesystem("s3", endpoint_url=sys.argv[1])
connection = duckdb.connect()
connection.register_filesystem(fs)
table = "read_parquet('s3://bucket/t.parquet')"
print(connection.execute(f"select key, count(*) from {table} where c1 < 0.5 group by 1 order by 1").fetchall())
"""

PANDAS = """
import sys
import pandas as pd
options = {"endpoint_url": sys.argv[1]}
frame = pd.read_parquet("s3://bucket/t.parquet", columns=["c1", "key"], storage_options=options)
print(frame.shape, repr(frame.c1.sum()))
"""

XARRAY = """
import sys
import fsspec, xarray as xr
with fsspec.open("s3://bucket/f.nc", endpoint_url=sys.argv[1]) as file:
    with xr.open_dataset(file, engine="h5netcdf") as data:
        print(repr(float(data.u.isel(y=slice(5, 15)).sum())))
"""

VIRTUALIZARR = """
import sys, warnings
warnings.filterwarnings("ignore")
import fsspec, json
from kerchunk.hdf import SingleHdf5ToZarr
import xarray as xr
options = {"endpoint_url": sys.argv[1], "asynchronous": False}
with fsspec.open("s3://bucket/f.nc", **options) as file:
    references = SingleHdf5ToZarr(file, "s3://bucket/f.nc", inline_threshold=0).translate()
data = xr.open_dataset("reference://", engine="zarr", consolidated=False, backend_kwargs={"storage_options": {
    "fo": references, "remote_protocol": "s3", "remote_options": {**options, "asynchronous": True}}})
print(repr(float(data.u.isel(y=slice(5, 15)).sum())))
"""


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        pytest.param(DUCKDB, ("duckdb", "pyarrow"), id="duckdb"),
        pytest.param(PANDAS + END_WITH_PYARROW, ("pandas", "pyarrow"), id="pandas"),
        pytest.param(XARRAY, ("xarray", "h5netcdf"), id="xarray", marks=pytest.mark.long),
        pytest.param(VIRTUALIZARR, ("kerchunk", "xarray", "zarr", "h5py"), id="references", marks=pytest.mark.long),
    ],
)
def test_s3(run_python: RunPython, tmp_path: Path, code: str, modules: tuple[str, ...]) -> None:
    needs("s3fs", "moto", *modules)
    import numpy as np
    import xarray as xr

    parquet(tmp_path)
    values = np.random.default_rng(3).random((40, 50))
    xr.Dataset({"u": (("y", "x"), values)}).to_netcdf(
        tmp_path / "f.nc", engine="h5netcdf", encoding={"u": {"chunksizes": (10, 25)}}
    )
    (tmp_path / "moto").mkdir()
    with s3_servers.Moto(tmp_path / "moto") as server:
        client = s3_servers.client(server.url)
        client.create_bucket(Bucket="bucket")
        for name in ("t.parquet", "f.nc"):
            client.put_object(Bucket="bucket", Key=name, Body=(tmp_path / name).read_bytes())
        plain = run_python(code, server.url, cache=None, env=s3_servers.KEYS)
        plain_gets = gets(server)
        cold = run_python(code, server.url, env=s3_servers.KEYS)
        assert gets(server) > 0
        warm = run_python(code, server.url, env=s3_servers.KEYS)
        # Not told by the server: what the cold run read ahead may have been under way as it ended.
        assert warm.report["origin"]["bytes"] == 0
        assert plain_gets > 0
    assert plain.stdout == cold.stdout == warm.stdout != ""
    assert run_python(code, server.url, env={**s3_servers.KEYS, "JCACHE_OFFLINE": "1"}).stdout == plain.stdout
    for ran in (cold, warm):
        assert "jcache:" not in ran.stderr


def gets(server: s3_servers.Moto) -> int:
    """Return how many objects, or parts of them, were got since this was last asked."""
    return sum(request.method == "GET" and request.path.count("/") > 1 for request in server.requests())
