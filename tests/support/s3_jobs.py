"""Jobs of libraries that read S3, most of them past fsspec; what each needs, and what another program writes for it."""

from __future__ import annotations

__all__ = ["JOBS", "MADE", "NEEDED"]

# None of them says where the server is, or who asks: that is in their environment.
JOBS = {
    "boto3": """
import hashlib, boto3
s3 = boto3.client("s3")
print([one["Name"] for one in s3.list_buckets()["Buckets"]])
for one in s3.list_objects_v2(Bucket="bucket")["Contents"]:
    print(one["Key"], hashlib.sha256(s3.get_object(Bucket="bucket", Key=one["Key"])["Body"].read()).hexdigest())
print(s3.get_object(Bucket="bucket", Key="a.bin", Range="bytes=5-99")["Body"].read().hex())
""",
    "pyarrow": """
import os, sys, pyarrow.fs, pyarrow.parquet
fs, base = pyarrow.fs.FileSystem.from_uri("s3://bucket")
print(sorted(info.path for info in fs.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))))
print(pyarrow.parquet.read_table("s3://bucket/t/t.parquet", columns=["x"])["x"].to_pylist()[-3:])
fs = pyarrow.fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
print(pyarrow.parquet.read_table("bucket/t/t.parquet", filesystem=fs, columns=["y"])["y"].to_pylist()[-3:])
sys.stdout.flush(); os._exit(0)
""",
    "polars": """
import polars as pl
print(pl.scan_parquet("s3://bucket/t/*.parquet").select(pl.col("x").sum()).collect().item())
print(pl.read_parquet("s3://bucket/t/t.parquet", columns=["y"])["y"].to_list()[-3:])
""",
    "obstore": """
import hashlib, obstore
from obstore.store import S3Store
store = S3Store("bucket")
print(sorted(one["path"] for page in obstore.list(store) for one in page))
print(hashlib.sha256(bytes(obstore.get(store, "a.bin").bytes())).hexdigest())
print([bytes(one).hex() for one in obstore.get_ranges(store, "dir/b c.bin", starts=[0, 500_000], ends=[9, 500_009])])
""",
    "duckdb": """
import importlib.util, os, pathlib, duckdb
connection = duckdb.connect()
found = importlib.util.find_spec("duckdb_extension_httpfs")
(extension,) = pathlib.Path(found.origin).parent.rglob("httpfs.duckdb_extension")
connection.execute(f"LOAD '{extension}'")
if "_JCACHE_GATEWAY" not in os.environ:
    where = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    connection.execute(f"SET s3_endpoint = '{where}'; SET s3_use_ssl = false")
connection.execute("SET s3_url_style = 'path'")
print(connection.sql("SELECT sum(x) FROM 's3://bucket/t/t.parquet'").fetchall())
""",
    "rasterio": """
import hashlib, os, rasterio
from rasterio.windows import Window
if "_JCACHE_GATEWAY" not in os.environ:
    where = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    os.environ |= {"AWS_S3_ENDPOINT": where, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
with rasterio.open("/vsis3/bucket/image.tif") as image:
    print({name: str(value) for name, value in sorted(image.profile.items())}, image.tags(), image.files)
    for window in (Window(0, 0, 50, 60), Window(200, 500, 200, 100)):
        print(hashlib.sha256(image.read(window=window).tobytes()).hexdigest())
    print(hashlib.sha256(image.read(1, out_shape=(192, 192)).tobytes()).hexdigest())
""",
    "icechunk": """
import hashlib, icechunk, zarr
storage = icechunk.s3_storage(bucket="bucket", prefix="ice", from_env=True, allow_http=True, force_path_style=True)
repository = icechunk.Repository.open(storage)
group = zarr.open_group(repository.readonly_session("main").store, mode="r")
print([one.message for one in repository.ancestry(branch="main")], dict(group.attrs))
print(hashlib.sha256(group["a"][:].tobytes()).hexdigest(), group["a"][700:703].tolist())
""",
    "zarr": """
import hashlib, zarr
from obstore.store import S3Store
group = zarr.open_group(zarr.storage.ObjectStore(S3Store("bucket", prefix="zarr"), read_only=True), mode="r")
print(dict(group.attrs), hashlib.sha256(group["a"][:].tobytes()).hexdigest(), group["a"][700:703].tolist())
""",
    "s3fs": """
import fsspec
fs = fsspec.filesystem("s3")
print(sorted(fs.find("bucket")))
with fs.open("bucket/a.bin") as file:
    file.seek(1000)
    print(file.read(500).hex())
""",
}
NEEDED = {
    "duckdb": ("duckdb", "duckdb_extension_httpfs"),
    "icechunk": ("icechunk", "zarr"),
    "zarr": ("zarr", "obstore"),
}
# What has to be in the bucket first, and is written past the gateway.
FILLED = """
import numpy, zarr
def fill(store):
    group = zarr.create_group(store, attributes={"kind": "ice"})
    array = group.create_array("a", shape=(1000,), chunks=(250,), dtype="int64")
    array[:] = numpy.random.default_rng(1).integers(0, 1 << 40, 1000)
"""
MADE = {
    "icechunk": f"""{FILLED}
import icechunk
storage = icechunk.s3_storage(bucket="bucket", prefix="ice", from_env=True, allow_http=True, force_path_style=True)
session = icechunk.Repository.create(storage).writable_session("main")
fill(session.store)
session.commit("first")
""",
    "zarr": f"""{FILLED}
from obstore.store import S3Store
fill(zarr.storage.ObjectStore(S3Store("bucket", prefix="zarr")))
""",
}
