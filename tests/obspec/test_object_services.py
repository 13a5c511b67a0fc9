"""Microsoft's service, as its emulator is it, and Google's answers, through obstore."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from generic_servers import ACCOUNT, KEY, Azure

pytest.importorskip("obstore", reason="obstore is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunPython
    from proxy import CountingProxy
    from servers import ScriptedOrigin

OLD, NEW = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
BEGIN = "import asyncio, json, sys, fsspec; from obstore.store import AzureStore, GCSStore; port = sys.argv[1]\n"
GCS = """
key = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True}
key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
store = GCSStore("bucket", service_account_key=json.dumps(key), client_options={"allow_http": True})
"""
AZURE = f"""
where = f"http://127.0.0.1:{{port}}/{ACCOUNT}"
keys = {{"account_name": {ACCOUNT!r}, "account_key": {KEY!r}}}
store = AzureStore("box", endpoint=where, **keys, client_options={{"allow_http": True}})
"""
JOB = """
async def main():
    return bytes(await store.get_range_async("a.bin", start=70_000, end=70_100))
meta = store.get("a.bin").meta
assert meta == store.head("a.bin"), meta
print({name: str(value) for name, value in meta.items()})
print(store.get_range("a.bin", start=0, end=10), store.get_ranges("a.bin", starts=[5, 50_000], ends=[20, 50_010]))
print(asyncio.run(main()), hash(bytes(store.get("a.bin").bytes())))
try:
    store.head("missing")
except FileNotFoundError:
    print("missing")
"""


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    (tmp_path / "server").mkdir()
    with Azure(tmp_path / "server") as running:
        running.write(OLD, 0)
        yield running


def test_azure_is_read_as_obstore_reads_it(
    azure: Azure, run_python: RunPython, counting_proxy: Callable[..., CountingProxy]
) -> None:
    proxy = counting_proxy(azure.port)
    args, env = (BEGIN + AZURE + JOB, str(proxy.port)), {"PYTHONHASHSEED": "0"}
    before = run_python(*args, cache=None, env=env).stdout
    assert run_python(*args, env=env).stdout == before
    proxy.reset()
    assert run_python(*args, env=env).stdout == before
    assert proxy.bytes_to_client < 10_000, "it is asked for no bytes"
    assert run_python(*args, env=env | {"JCACHE_OFFLINE": "1"}).stdout == before
    azure.write(NEW, 0)
    after = run_python(*args, cache=None, env=env).stdout
    assert after != before
    for _ in range(2):
        assert run_python(*args, env=env).stdout == after


ADLFS = """
import sys, adlfs
fs = adlfs.AzureBlobFileSystem(connection_string=sys.argv[2])
print(hash(fs.cat_file("box/a.bin")))
"""
BY_OBSTORE = "print(hash(bytes(store.get('a.bin').bytes())))"


@pytest.mark.parametrize("first", ["adlfs", "obstore"])
def test_adlfs_and_obstore_read_what_the_other_recorded(
    azure: Azure, run_python: RunPython, counting_proxy: Callable[..., CountingProxy], first: str
) -> None:
    proxy = counting_proxy(azure.port)
    env = {"PYTHONHASHSEED": "0"}
    text = str(azure.options(proxy.port)["connection_string"])
    jobs = (ADLFS, BEGIN + AZURE + BY_OBSTORE)
    one, other = jobs if first == "adlfs" else jobs[::-1]
    told = run_python(one, str(proxy.port), text, env=env).stdout
    proxy.reset()
    assert run_python(other, str(proxy.port), text, env=env).stdout == told
    assert proxy.bytes_to_client < 10_000, "it is asked for no bytes"


def test_google_is_read_as_obstore_reads_it(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    told = {"x-goog-generation": "17"}
    file = http_origin.put("bucket/a.bin", OLD, etag='"a"', modified_s=1_700_000_000, headers=told)
    args, env = (BEGIN + GCS + JOB, str(http_origin.port)), {"PYTHONHASHSEED": "0"}
    before = run_python(*args, cache=None, env=env).stdout
    assert "'version': '17'" in before
    assert run_python(*args, env=env).stdout == before
    file.reset()
    assert run_python(*args, env=env).stdout == before
    assert file.body_bytes == 0
    assert run_python(*args, env=env | {"JCACHE_OFFLINE": "1"}).stdout == before
    assert file.body_bytes == 0
    file.change(NEW, etag='"b"', modified_s=1_700_000_000)
    after = run_python(*args, cache=None, env=env).stdout
    assert after != before
    assert run_python(*args, env=env).stdout == after
