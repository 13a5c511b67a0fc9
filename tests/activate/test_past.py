"""Libraries that read remote data by themselves are named at the process's end, with the way to have it cached."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from libraries import needs
from s3_servers import KEYS, Moto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunPython
    from servers import XrootdServer

pytest.importorskip("moto.server", reason="moto's server is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

ROWS = 1000
JOBS = {
    "boto3": """
import boto3
print(len(boto3.client("s3", endpoint_url=url).get_object(Bucket="bucket", Key="t.parquet")["Body"].read()) > 0)
""",
    "pyarrow": """
import pyarrow.fs, pyarrow.parquet
fs = pyarrow.fs.S3FileSystem(access_key="a", secret_key="b", endpoint_override=url)
print(pyarrow.parquet.read_table("bucket/t.parquet", filesystem=fs).num_rows)
""",
    "pandas": """
import pandas as pd
host = url.removeprefix("http://")
print(len(pd.read_parquet(f"s3://a:b@bucket/t.parquet?endpoint_override={host}&scheme=http")))
""",
    "polars": """
import polars as pl
options = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_region": "us-east-1",
           "aws_endpoint_url": url, "aws_allow_http": "true"}
print(pl.read_parquet("s3://bucket/t.parquet", storage_options=options).height)
""",
    "obstore": """
import obstore.store
store = obstore.store.S3Store("bucket", endpoint=url, access_key_id="a", secret_access_key="b", region="us-east-1",
                              client_options={"allow_http": True})
print(len(obstore.open_reader(store, "t.parquet").read(4)))
""",
}
LOCAL = {
    "polars": "import polars as pl; pl.DataFrame({'a': [1]}).write_parquet('t'); print(pl.read_parquet('t').height)",
    "pyarrow": "import pandas as pd; pd.DataFrame({'a': [1]}).to_parquet('t'); print(len(pd.read_parquet('t')))",
    "obstore": "import obstore.store as s; m = s.MemoryStore(); m.put('a', b'x'); print(len(m.get('a').bytes()))",
    "boto3": "import boto3; print(boto3.client('s3', region_name='us-east-1').meta.region_name)",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    import boto3
    import pandas as pd

    with Moto(tmp_path_factory.mktemp("moto")) as moto:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        client = boto3.client("s3", endpoint_url=moto.url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        data = io.BytesIO()
        pd.DataFrame({"a": range(ROWS)}).to_parquet(data)
        client.put_object(Bucket="bucket", Key="t.parquet", Body=data.getvalue())
        yield moto


@pytest.mark.parametrize("library", JOBS)
def test_who_read_past_the_cache_is_named_once(run_python: RunPython, server: Moto, library: str) -> None:
    needs(library)
    code = f"import sys; url = sys.argv[1]\n{JOBS[library]}"
    plain = run_python(code, server.url, cache=None, env=KEYS)
    ran = run_python(code, server.url, env=KEYS)
    assert ran.stdout == plain.stdout
    name = "pyarrow" if library == "pandas" else library
    lines = [line for line in ran.stderr.splitlines() if line.startswith("jcache: ")]
    assert len(lines) == 1, ran.stderr
    assert f"{name} read remote data past the cache" in lines[0]
    assert "docs/ecosystem.md" in lines[0]
    assert "jcache" not in plain.stderr


@pytest.mark.parametrize("library", LOCAL)
def test_nobody_is_named_who_read_nothing_remote(run_python: RunPython, library: str) -> None:
    needs(library)
    assert "past the cache" not in run_python(LOCAL[library]).stderr


def test_native_connections_are_seen(run_python: RunPython, xrootd_server: XrootdServer) -> None:
    (xrootd_server.directory / "f").write_bytes(b"x" * 1000)
    code = """
import sys
if "without" in sys.argv:
    sys.modules["fsspec_xrootd"] = None  # is not installed
from XRootD import client
with client.File() as file:
    status, _ = file.open(sys.argv[1])
    assert status.ok, status
    print(len(file.read(0, 100)[1]))
"""
    assert "past the cache" not in run_python(code, xrootd_server.url("f")).stderr
    ran = run_python(code, xrootd_server.url("f"), "without")
    assert ran.stdout == "100\n"
    assert f"pyxrootd read remote data past the cache (127.0.0.1:{xrootd_server.port})" in ran.stderr
    hooked = run_python(
        "import fsspec, sys; print(len(fsspec.open(sys.argv[1]).open().read()))", xrootd_server.url("f")
    )
    assert "past the cache" not in hooked.stderr


def test_a_cell_of_a_notebook_says_so_too(run_python: RunPython, server: Moto) -> None:
    needs("IPython")
    cell = "import boto3; boto3.client('s3', endpoint_url=url).get_object(Bucket='bucket', Key='t.parquet')"
    code = f"""
import sys
from IPython.testing.globalipapp import start_ipython
shell = start_ipython()
shell.user_ns["url"] = sys.argv[1]
shell.run_line_magic("load_ext", "jcache")
shell.run_line_magic("jcache", "on " + sys.argv[2])
shell.run_cell_magic("jcache", "", {cell!r})
"""
    ran = run_python(code, server.url, "cache", env=KEYS)
    assert "boto3 read remote data past the cache" in ran.stdout


def test_what_is_hooked_is_said_where_somebody_debugs(run_python: RunPython) -> None:
    code = "import fsspec; fsspec.filesystem('http'); fsspec.filesystem('file')"
    ran = run_python(code, env={"JCACHE_LOG": "debug"})
    assert "fsspec.implementations.http.HTTPFileSystem: hooked " in ran.stderr
    assert "_cat_file" in ran.stderr
    assert "fsspec.implementations.local.LocalFileSystem: not hooked" in ran.stderr
    assert "hooked" not in run_python(code).stderr
