"""S3 servers that are odd: what plain s3fs makes of one, JCache does, cold and warm. The oracle is another process."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from jcache.activate import deactivate
from jcache.errors import OriginChangedError

s3fs = pytest.importorskip("s3fs")

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunPython
    from servers import ScriptedOrigin

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(5000), random.Random(2).randbytes(5000)
CALLS = """
import hashlib, sys, s3fs
options = {"anon": True, "endpoint_url": sys.argv[1], "client_kwargs": {"region_name": "us-east-1"}}
fs = s3fs.S3FileSystem(**options, **eval(sys.argv[2]))
for call in sys.argv[3:]:
    try:
        told = eval(call)
    except Exception as error:
        told = type(error).__name__
    print(told if isinstance(told, str) else hashlib.sha1(repr(told).encode()).hexdigest())
"""
OPEN = "fs.open('b/k', 'rb', block_size=1000)"
READS: dict[str, Any] = {
    "fs.cat_file('b/k', start=0, end=10)": OLD[:10],
    "fs.cat_file('b/k', start=10, end=20)": OLD[10:20],
    "fs.cat_ranges(['b/k'] * 2, [0, 3000], [50, 3100])": [OLD[:50], OLD[3000:3100]],
    "fs.cat_file('b/k')": OLD,
    f"{OPEN}.read()": OLD,
    f"[{OPEN}.read(n) for n in (10, 1000, 3000)]": [OLD[:10], OLD[:1000], OLD[:3000]],
    f"[f.seek(2000) and f.read(100) for f in [{OPEN}] for _ in 'ab']": [OLD[2000:2100]] * 2,
}


def client(origin: ScriptedOrigin, **options: Any) -> Any:
    kwargs = {"region_name": "us-east-1"}
    return s3fs.S3FileSystem(
        anon=True, endpoint_url=origin.url("").rstrip("/"), client_kwargs=kwargs, skip_instance_cache=True, **options
    )


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({"refused": 501}, {}),
        ({"refused": 400, "as_head": {"etag": '"h"'}}, {}),
        ({"as_head": {"etag": '"h"'}}, {}),
        ({"as_head": {"etag": '"h"'}}, {"local_expiry_check": True}),
        ({"as_head": {"etag": None}}, {}),
    ],
    ids=["refuses conditions", "refuses, other tag", "other tag", "other tag, no condition", "no tag"],
)
def test_what_plain_s3fs_reads_is_read_cold_and_warm(
    run_python: RunPython, http_origin: ScriptedOrigin, how: dict[str, Any], options: dict[str, Any]
) -> None:
    file = http_origin.put("b/k", OLD, modified_s=1.6e9, **how)
    right = [hashlib.sha1(repr(value).encode()).hexdigest() for value in READS.values()]
    asked = http_origin.url("").rstrip("/"), repr(options), *READS
    assert run_python(CALLS, *asked, cache=None).stdout.splitlines()[:4] == right[:4]
    for _ in range(2):
        file.reset()
        assert run_python(CALLS, *asked).stdout.splitlines() == right
    assert file.gets <= 5, "it is recorded"


def test_an_object_whose_tag_head_does_not_know_is_one_version(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    file = http_origin.put("b/k", OLD, etag='"g1"', modified_s=1.6e9, as_head={"etag": '"h"'})
    fs = client(http_origin)
    with fs.open("b/k", block_size=100) as opened:
        assert opened.read(100) == OLD[:100]
        file.change(NEW, etag='"g2"', modified_s=1.6e9)
        for _ in range(3):
            opened.seek(2000)
            with pytest.raises(OriginChangedError):
                opened.read(100)
    assert fs.open("b/k").read() == NEW
    deactivate()


def test_a_version_that_the_server_knows_nothing_of_is_read_as_it_is(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    file = http_origin.put("b/k", OLD, modified_s=1.6e9)
    calls: list[Callable[[Any], bytes]] = [
        lambda fs: fs.cat_file("b/k", version_id="x"),
        lambda fs: fs.cat_file("b/k?versionId=x", start=0, end=10),
        lambda fs: fs.open("b/k?versionId=x").read(100),
        lambda fs: fs.open("b/k", version_id="x").read(100),
    ]
    for data in (OLD, NEW):
        file.change(data, etag=f'"{data[:3].hex()}"', modified_s=1.6e9)
        active()
        for call in calls:
            assert call(client(http_origin, version_aware=True)) in (data, data[:10], data[:100])
