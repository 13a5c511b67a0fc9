"""S3 through s3fs: what plain s3fs gives, cold, warm and offline, in no more requests; one version, or an error."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server", reason="moto's server is not installed")

from s3_servers import KEYS, Moto

from jcache.activate import deactivate
from jcache.errors import OriginChangedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
SPANS = [
    (None, None), (0, None), (0, 5), (5, 5), (7, 3), (0, 0), (99_990, None), (100_000, None), (100_000, 100_010),
    (200_000, None), (200_000, 200_010), (-3, None), (-200_000, None), (-3, -1), (0, -1), (99_999, 100_010), (None, 4),
    (None, 0), (None, -3),
]  # fmt: skip
VECTOR = [(0, 10), (50_000, 50_100), (99_000, 100_000), (60_000, 60_001)]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def server(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """A server with a bucket that keeps versions and one that does not."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    moto.reset()
    client = boto(moto)
    client.create_bucket(Bucket="bucket")
    client.create_bucket(Bucket="kept")
    client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    for key, data in (("file", OLD), ("empty", b""), ("directory/file", NEW)):
        client.put_object(Bucket="bucket", Key=key, Body=data)
    moto.requests()
    return moto


def boto(server: Moto) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=server.url, region_name="us-east-1")


def put(server: Moto, path: str, data: bytes) -> str:
    """Write an object from elsewhere; return the id of its version."""
    bucket, _, key = path.partition("/")
    version: str = boto(server).put_object(Bucket=bucket, Key=key, Body=data).get("VersionId", "")
    server.requests()
    return version


def client(server: Moto, **options: Any) -> Any:
    return s3fs.S3FileSystem(endpoint_url=server.url, skip_instance_cache=True, **options)


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or what it raises as something that can be compared."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return as_told(error)


def as_told(result: Any) -> Any:
    if isinstance(result, list):
        return [as_told(one) for one in result]
    return (type(result), getattr(result, "errno", None)) if isinstance(result, Exception) else result


def methods(server: Moto) -> list[str]:
    return [request.method for request in server.requests()]


# -- as plain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["bucket/file", "bucket/empty"])
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_any_range_gives_what_plain_gives_cold_warm_and_offline(
    server: Moto, active: Callable[..., Session], path: str, span: tuple[int | None, int | None]
) -> None:
    start, end = span
    deactivate()
    plain = outcome(lambda: client(server).cat_file(path, start=start, end=end))
    plain_vector = as_told(client(server).cat_ranges([path], [start or 0], [end]))
    states = [{}, {}, {"validate": "never"}, *([{"offline": True}] if path == "bucket/file" else [])]
    for state in states:
        active(**state)
        fs = client(server)
        if not state:
            fs.cat_file(path)  # so that offline all of it is there
        assert outcome(lambda fs=fs: fs.cat_file(path, start=start, end=end)) == plain, state
        assert as_told(fs.cat_ranges([path], [start or 0], [end])) == plain_vector, state
    active()
    assert outcome(lambda: client(server).cat_file(path, start=start, end=end)) == plain
