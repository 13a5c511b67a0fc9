"""Libraries that read through fsspec, unmodified, with nothing but the environment variable set."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from libraries import END_WITH_PYARROW, needs, parquet

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ran
    from servers import Nginx


def test_pandas_read_parquet(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("pandas", "pyarrow")
    parquet(nginx_server.directory)
    code = """
import sys
import pandas as pd
frame = pd.read_parquet(sys.argv[1], columns=["c1", "key"], storage_options={})
print(frame.shape, repr(frame.c1.sum()), frame.key.sum())
"""
    code += END_WITH_PYARROW
    check(code, nginx_server.url("t.parquet"))


def test_pandas_read_csv(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("pandas")
    lines = "\n".join(f"{i},{i * i},name {i}" for i in range(30_000))
    (nginx_server.directory / "t.csv").write_text("a,b,c\n" + lines)
    code = """
import sys
import fsspec
import pandas as pd
with fsspec.open(sys.argv[1], "rt") as file:
    frame = pd.read_csv(file)
print(frame.shape, frame.b.sum(), frame.c.iloc[-1])
with fsspec.open(sys.argv[1], "rb") as file:
    print(sum(1 for line in file))
"""
    check(code, nginx_server.url("t.csv"))


def test_pyarrow_dataset_over_fsspec(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("pandas", "pyarrow")
    for name, seed in (("a.parquet", 1), ("b.parquet", 2)):
        parquet(nginx_server.directory, name, seed)
    code = """
import sys
import fsspec
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem
fs = PyFileSystem(FSSpecHandler(fsspec.filesystem("http")))
data = ds.dataset(sys.argv[1:], filesystem=fs, format="parquet")
table = data.to_table(columns=["c2"], filter=ds.field("key") == 3)
print(table.num_rows, repr(sum(table["c2"].to_pylist())))
"""
    code += END_WITH_PYARROW
    # pyarrow asks whether each file exists, which fsspec's HTTP finds out by a request for all of it.
    check(code, nginx_server.url("a.parquet"), nginx_server.url("b.parquet"), read_status=(206,))


def test_xarray_with_h5netcdf(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("xarray", "h5netcdf", "numpy", "dask")
    import dask
    import numpy as np
    import xarray as xr

    values = np.random.default_rng(3).random((40, 50, 60))
    data = xr.Dataset({name: (("t", "y", "x"), values * i) for i, name in enumerate(("u", "v", "w"))})
    # A client that another test had in this process may have left its scheduler behind.
    with dask.config.set(scheduler="synchronous"):
        data.to_netcdf(
            nginx_server.directory / "f.nc", engine="h5netcdf", encoding={n: {"chunksizes": (4, 25, 30)} for n in "uvw"}
        )
    code = """
import sys
import fsspec
import xarray as xr
with fsspec.open(sys.argv[1]) as file, xr.open_dataset(file, engine="h5netcdf") as data:
    print(repr(float(data.v.isel(t=slice(4, 9)).sum())), data.sizes)
"""
    check(code, nginx_server.url("f.nc"))


def test_zarr_fsspec_store(check: Callable[..., list[Ran]], nginx_server: Nginx) -> None:
    needs("zarr", "numpy")
    import numpy as np
    import zarr

    group = zarr.open_group(nginx_server.directory / "z.zarr", mode="w")
    array = group.create_array("a", shape=(200, 200), chunks=(50, 50), dtype="f8")
    array[:] = np.random.default_rng(4).random((200, 200))
    code = """
import sys
import zarr
from zarr.storage import FsspecStore
store = FsspecStore.from_url(sys.argv[1], read_only=True)
group = zarr.open_group(store, mode="r", use_consolidated=False)
print(repr(float(group["a"][30:120, 60:170].sum())), group["a"].shape)
"""
    check(code, nginx_server.url("z.zarr"))


TASKS = """
import sys

def load(url, start, stop):
    import fsspec
    fs, path = fsspec.url_to_fs(url)
    with fs.open(path) as file:
        file.seek(start)
        return sum(file.read(stop - start))

def main():
    urls = sys.argv[1:]
    {client}
    from dask import delayed
    parts = [delayed(load)(url, k * 50_000, k * 50_000 + 20_000) for url in urls for k in range(4)]
    print(delayed(sum)(parts).compute({options}))
    {close}

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("client", "options", "close"),
    [
        pytest.param("", "scheduler='processes', num_workers=2", "", id="processes", marks=pytest.mark.long),
        pytest.param(
            "from distributed import Client; client = Client(n_workers=2, dashboard_address=None)",
            "",
            "client.close()",
            id="distributed",
        ),
    ],
)
def test_dask_tasks_in_processes(
    check: Callable[..., list[Ran]], nginx_server: Nginx, client: str, options: str, close: str
) -> None:
    needs("dask", *(["distributed"] if client else []))
    rng = random.Random(6)
    for name in ("a", "b"):
        (nginx_server.directory / name).write_bytes(rng.randbytes(300_000))
    code = TASKS.format(client=client, options=options, close=close)
    check(code, nginx_server.url("a"), nginx_server.url("b"))
