"""What the tests of libraries share."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 20_000

# pyarrow's threads may still let go of a file object of Python's when the result is there. Taken down at that moment,
# as the interpreter does with threads that want to run Python code at its end, they abort the process, with JCache or
# without.
END_WITH_PYARROW = "sys.stdout.flush(); import os; os._exit(0)\n"

# So may a thread of obstore's that lets go of a result; what JCache does at the end is done before.
END_WITH_OBSTORE = (
    "\nimport atexit, os, sys; sys.stdout.flush(); atexit._run_exitfuncs(); sys.stderr.flush(); os._exit(0)\n"
)


# In a process of its own: GDAL brings libraries that others of this process may have, of other versions.
GEOTIFF = """
import sys, numpy, rasterio
from rasterio.enums import Resampling
size = 768
profile = {"driver": "GTiff", "width": size, "height": size, "count": 2, "dtype": "uint16", "crs": "EPSG:32632",
           "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5300000),
           "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
with rasterio.open(sys.argv[1], "w", **profile) as image:
    image.write(numpy.random.default_rng(3).integers(0, 4000, (2, size, size), dtype="uint16"))
    image.build_overviews([2, 4], Resampling.nearest)
    image.update_tags(taken="today")
"""


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def parquet(directory: Path, name: str = "t.parquet", seed: int = 5) -> None:
    import pandas as pd

    rng = random.Random(seed)
    columns = {f"c{i}": [rng.random() for _ in range(ROWS)] for i in range(6)}
    columns["key"] = [rng.randrange(10) for _ in range(ROWS)]
    pd.DataFrame(columns).to_parquet(directory / name, row_group_size=ROWS // 4)


def geotiff(path: Path) -> None:
    subprocess.run([sys.executable, "-c", GEOTIFF, path], timeout=300, check=True)
