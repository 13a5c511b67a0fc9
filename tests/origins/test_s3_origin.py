"""S3 through s3fs: what plain s3fs gives, cold, warm and offline, in no more requests; one version, or an error."""

from __future__ import annotations

import io
import os
import random
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec
import pytest
import s3_servers
from filesystems import settle
from s3_servers import KEYS, Gateway, Moto

from jcache.activate import deactivate
from jcache.errors import OriginChangedError
from jcache.settings.rules import Rule
from jcache_plugins.origins.base import reaching

s3fs = pytest.importorskip("s3fs")
FileExpired = pytest.importorskip("s3fs.utils").FileExpired
pytest.importorskip("moto.server", reason="moto's server is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcache.session import Session

T = TypeVar("T", Moto, Gateway)
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


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    if not os.environ.get("JCACHE_TEST_CEPHFS"):
        pytest.skip("set JCACHE_TEST_CEPHFS=1 for it: a cluster of Ceph takes its time to begin")
    if missing := Gateway.missing():
        pytest.skip(f"no S3 gateway of Ceph: not installed: {', '.join(missing)}")
    with Gateway(tmp_path_factory.mktemp("gateway")) as server:
        yield server


@pytest.fixture
def server(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """A server with a bucket that keeps versions and one that does not, which notes what it is asked for."""
    return filled(moto, monkeypatch)


@pytest.fixture(params=["moto", "gateway"])
def any_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Moto | Gateway:
    """The same, and a real one."""
    return filled(request.getfixturevalue(request.param), monkeypatch)


def filled(server: T, monkeypatch: pytest.MonkeyPatch) -> T:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server.reset()
    boto = s3_servers.client(server.url)
    boto.create_bucket(Bucket="bucket")
    boto.create_bucket(Bucket="kept")
    boto.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    for key, data in (("file", OLD), ("empty", b""), ("directory/file", NEW)):
        boto.put_object(Bucket="bucket", Key=key, Body=data)
    server.requests()
    return server


def put(server: Moto, path: str, data: bytes) -> str:
    """Write an object from elsewhere; return the id of its version."""
    bucket, _, key = path.partition("/")
    with reaching():  # else this process sees what it writes
        version: str = s3_servers.client(server.url).put_object(Bucket=bucket, Key=key, Body=data).get("VersionId", "")
    server.requests()
    return version


def client(server: Moto, **options: Any) -> Any:
    return s3fs.S3FileSystem(**{"endpoint_url": server.url, "skip_instance_cache": True, **options})


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or what it raises as something that can be compared."""
    try:
        return call()
    except Exception as error:
        return as_told(error)


def as_told(result: Any) -> Any:
    if isinstance(result, list):
        return [as_told(one) for one in result]
    return (type(result), getattr(result, "errno", None)) if isinstance(result, Exception) else result


def methods(server: Moto) -> list[str]:
    return [request.method for request in server.requests()]


# -- as plain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [OLD, b""], ids=["file", "empty"])
def test_any_range_gives_what_plain_gives_cold_warm_and_offline(
    any_server: Moto | Gateway, active: Callable[..., Session], data: bytes
) -> None:
    deactivate()
    paths = [f"bucket/{i}" for i in range(len(SPANS))]
    for path in paths:
        put(any_server, path, data)
    fs = client(any_server)
    plain = [outcome(lambda p=p, s=s: fs.cat_file(p, start=s[0], end=s[1])) for p, s in zip(paths, SPANS, strict=True)]
    plain_vectors = [as_told(fs.cat_ranges([p], [s[0]], [s[1]])) for p, s in zip(paths, SPANS, strict=True)]
    for state in ({}, {}, {"validate": "never"}, {"offline": True}):
        active(**state)
        fs = client(any_server)
        for path, (start, end), single, vector in zip(paths, SPANS, plain, plain_vectors, strict=True):
            told = state, start, end
            if state and isinstance(any_server, Gateway) and is_none(start, end, len(data)):
                continue  # unlike Amazon's, it refuses what is no range, and is not asked
            assert outcome(lambda f=fs, p=path, a=start, b=end: f.cat_file(p, start=a, end=b)) == single, told
            assert as_told(fs.cat_ranges([path], [start], [end])) == vector, told
            if not state:
                assert fs.cat_file(path) == data, told


def is_none(start: int | None, end: int | None, size: int) -> bool:
    """Whether two bounds are no range to S3."""
    first = max((start or 0) + (size if (start or 0) < 0 else 0), 0)
    last = size if end is None else end + (size if end < 0 else 0)
    return (start is not None and start < 0 and not size) or (end is not None and last <= first)


def test_what_is_not_there_raises_what_plain_raises(any_server: Moto | Gateway, active: Callable[..., Session]) -> None:
    def told(fs: Any) -> list[Any]:
        calls: list[Callable[[], Any]] = [
            lambda path=path, name=name: getattr(fs, name)(path)
            for path in ("bucket/directory", "bucket/none", "bucket", "nowhere/file")
            for name in ("cat_file", "info", "exists", "isdir", "isfile")
        ]
        calls += [lambda path=path: fs.cat_file(path, start=0, end=3) for path in ("bucket/directory", "bucket/none")]
        calls += [
            lambda path=path: fs.open(path).read()
            for path in ("bucket/directory", "bucket/none", "bucket", "nowhere/file", "nowhere")
        ]
        return [outcome(call) for call in calls]

    deactivate()
    plain = told(client(any_server))
    for _ in ("cold", "warm"):
        active()
        assert told(client(any_server)) == plain


def test_an_object_is_read_with_the_key_that_it_is_encrypted_with(server: Moto, active: Callable[..., Session]) -> None:
    active()
    fs = client(server, s3_additional_kwargs={"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32})
    fs.pipe_file("bucket/encrypted", OLD)
    assert fs.cat_file("bucket/encrypted") == OLD
    active()
    assert fs.cat_file("bucket/encrypted", start=5, end=50) == OLD[5:50]


# -- requests ---------------------------------------------------------------------------------------------------


def test_a_cold_read_is_one_request_a_range_and_a_warm_one_asks_once(
    server: Moto, active: Callable[..., Session]
) -> None:
    starts, stops = zip(*VECTOR, strict=True)
    expected = [OLD[start:stop] for start, stop in VECTOR]
    active()
    assert client(server).cat_file("bucket/file") == OLD
    assert methods(server) == ["GET"]
    put(server, "bucket/vector", OLD)
    fs = client(server)
    assert fs.cat_ranges(["bucket/vector"] * 4, starts, stops) == expected
    assert methods(server) == ["GET"] * 4
    assert fs.cat_file("bucket/vector", start=20_000, end=20_100) == OLD[20_000:20_100]
    (asked,) = server.requests()
    assert (asked.method, asked.range, asked.status) == ("GET", "bytes=20000-20099", 206)
    assert asked.if_match
    active()
    fs = client(server)
    for _ in range(2):
        assert fs.cat_ranges(["bucket/vector"] * 4, starts, stops) == expected
    assert methods(server) == ["HEAD"]
    active(validate="never")
    assert client(server).cat_ranges(["bucket/vector"] * 4, starts, stops) == expected
    assert methods(server) == []


def test_asking_about_files_costs_what_it_costs_plain(server: Moto, active: Callable[..., Session]) -> None:
    def job(*, reading: bool) -> tuple[list[Any], list[str]]:
        fs = client(server)
        found = []
        for path in ("bucket/file", "bucket/directory", "bucket/directory/file", "bucket/none"):
            if reading and fs.isfile(path):
                fs.cat_file(path)
            server.requests()
            found += [fs.exists(path), fs.isdir(path), outcome(lambda path=path: fs.info(path)), fs.isfile(path)]
        return found, [str(request) for request in server.requests()]

    deactivate()
    plain = job(reading=False)
    active()
    assert job(reading=True) == plain
    for _ in range(2):
        active()
        assert job(reading=False) == plain


def test_reading_leaves_the_listings_that_s3fs_has_cached(server: Moto, active: Callable[..., Session]) -> None:
    active()
    fs = client(server)
    fs.ls("bucket")
    server.requests()
    fs.cat_file("bucket/file")
    with fs.open("bucket/file") as file:
        file.read(10)
    server.requests()
    assert fs.ls("bucket")
    assert fs.exists("bucket/file")
    assert methods(server) == []


def test_a_large_object_is_fetched_in_parts_side_by_side(server: Moto, active: Callable[..., Session]) -> None:
    data = random.Random(3).randbytes(1_000_000)
    put(server, "bucket/large", data)
    active()
    fs = client(server, default_block_size=100_000)
    assert fs.cat_file("bucket/large") == data
    asked = server.requests()
    assert len(asked) == 10
    assert all(request.if_match for request in asked[1:])


# -- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["bucket/changing", "kept/changing"])
def test_an_overwritten_object_is_one_version_or_an_error(
    any_server: Moto | Gateway, active: Callable[..., Session], path: str
) -> None:
    put(any_server, path, OLD)
    active()
    fs = client(any_server)
    assert fs.cat_file(path, start=0, end=1000) == OLD[:1000]
    put(any_server, path, NEW)
    with pytest.raises(OriginChangedError):
        fs.cat_ranges([path, path], [0, 5000], [1000, 6000], on_error="raise")
    assert fs.cat_ranges([path, path], [0, 5000], [1000, 6000]) == [NEW[:1000], NEW[5000:6000]]
    put(any_server, path, OLD)
    active()
    assert client(any_server).cat_file(path, start=5000, end=7000) == OLD[5000:7000]


def test_a_version_is_read_once_and_never_asked_for_again(server: Moto, active: Callable[..., Session]) -> None:
    old = put(server, "kept/file", OLD)
    put(server, "kept/file", NEW)
    active()
    aware, fs = client(server, version_aware=True), client(server)
    assert aware.cat_file("kept/file", version_id=old) == OLD
    assert aware.cat_file(f"kept/file?versionId={old}", start=5, end=50) == OLD[5:50]
    with aware.open("kept/file", version_id=old) as file:
        assert file.read(100) == OLD[:100]
    assert methods(server) == ["GET"]
    assert fs.cat_file("kept/file", version_id=old) == OLD
    server.requests()
    assert aware.cat_file("kept/file") == fs.cat_file("kept/file") == NEW
    assert fs.cat_file(f"kept/file?versionId={old}") == NEW  # s3fs heeds it only where it is aware of versions
    server.requests()
    with pytest.raises(ValueError, match="version aware"):
        fs.open("kept/file", version_id=old)
    active()
    aware, fs = client(server, version_aware=True), client(server)
    assert aware.cat_file("kept/file", version_id=old) == fs.cat_file("kept/file", version_id=old) == OLD
    assert aware.cat_ranges([f"kept/file?versionId={old}"], [5], [50]) == [OLD[5:50]]
    assert methods(server) == []


def test_an_object_without_versions_is_asked_for_again(
    any_server: Moto | Gateway, active: Callable[..., Session]
) -> None:
    path = "bucket/file?versionId=null"
    active()
    assert client(any_server, version_aware=True).cat_file(path, start=0, end=1000) == OLD[:1000]
    put(any_server, "bucket/file", NEW)
    active()
    assert client(any_server, version_aware=True).cat_file(path, start=0, end=1000) == NEW[:1000]


def test_an_open_file_of_a_kept_version_is_read_to_its_end(
    any_server: Moto | Gateway, active: Callable[..., Session]
) -> None:
    put(any_server, "kept/file", OLD)
    active()
    fs = client(any_server, version_aware=True)
    with fs.open("kept/file") as file, client(any_server).open("kept/file") as other:
        assert file.read(1000) == other.read(1000) == OLD[:1000]
        put(any_server, "kept/file", NEW)
        assert file.read(1000) + file.read() == OLD[1000:]
        with pytest.raises(s3fs.utils.FileExpired) as raised:
            other.read(1000)
        assert isinstance(raised.value, OriginChangedError)
    assert fs.cat_file("kept/file") == NEW


def test_objects_uploaded_in_parts_and_of_one_size(any_server: Moto | Gateway, active: Callable[..., Session]) -> None:
    active()
    fs = client(any_server)
    for seed in (4, 5):
        data = random.Random(seed).randbytes(6 << 20)
        with fs.open("bucket/parts", "wb", block_size=5 << 20) as file:
            file.write(data)
        assert "-" in fs.info("bucket/parts")["ETag"]
        for _ in range(2):
            assert client(any_server).cat_ranges(["bucket/parts"] * 2, [0, 5 << 20], [10, 6 << 20]) == [
                data[:10],
                data[5 << 20 :],
            ]
        active()


@pytest.mark.parametrize("options", [
    {"anon": True}, {"requester_pays": True}, {"local_expiry_check": True}, {"max_concurrency": 1},
    {"cache_regions": True}, {"config_kwargs": {"s3": {"addressing_style": "path"}}},
])  # fmt: skip
def test_the_options_of_the_file_system_hold(
    server: Moto, active: Callable[..., Session], options: dict[str, Any]
) -> None:
    s3_servers.client(server.url).put_object_acl(Bucket="bucket", Key="file", ACL="public-read")
    for _ in ("cold", "warm"):
        active()
        fs = client(server, **options)
        assert fs.cat_file("bucket/file") == OLD
        assert fs.cat_ranges(["bucket/file"] * 2, [0, 50], [10, 60]) == [OLD[:10], OLD[50:60]]
        with fs.open("bucket/file", requester_pays=options.get("requester_pays", False)) as file:
            assert file.read(10) == OLD[:10]


def test_what_is_written_is_forgotten_however_its_path_is_spelt(server: Moto, active: Callable[..., Session]) -> None:
    old = put(server, "kept/file", OLD)
    active(validate="never")
    fs = client(server, version_aware=True)
    assert fs.cat_file("kept/file") == OLD
    fs.pipe_file(f"s3://kept/file?versionId={old}", NEW)
    assert fs.cat_file("kept/file") == NEW
    assert fs.cat_file("kept/file", version_id=old) == OLD
    fs.rm("kept", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.cat_file("kept/file")


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "put": lambda boto, fs: boto.put_object(Bucket="bucket", Key="file", Body=NEW),
    "upload": lambda boto, fs: boto.upload_fileobj(io.BytesIO(NEW), "bucket", "file"),
    "copy": lambda boto, fs: boto.copy_object(Bucket="bucket", Key="file", CopySource="bucket/directory/file"),
    "delete": lambda boto, fs: boto.delete_object(Bucket="bucket", Key="file"),
    "delete many": lambda boto, fs: boto.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "file"}]}),
    "s3fs's client": lambda boto, fs: fs.call_s3("put_object", Bucket="bucket", Key="file", Body=NEW),
}


@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_past_fsspec_is_seen(server: Moto, active: Callable[..., Session], write: str) -> None:
    deactivate()
    boto = s3_servers.client(server.url)
    active(validate="never")
    fs = client(server)
    assert fs.cat_file("bucket/file") == OLD
    with fs.open("bucket/file") as file, fs.open("bucket/directory/file") as other:
        assert file.read(10) == OLD[:10]
        WRITES[write](boto, fs)
        assert other.read() == NEW
        with pytest.raises((FileExpired, FileNotFoundError)):
            file.read()
    assert fs.exists("bucket/file") is ("delete" not in write)
    active(validate="never")
    if "delete" in write:
        with pytest.raises(FileNotFoundError):
            client(server).cat_file("bucket/file")
    else:
        assert client(server).cat_file("bucket/file") == NEW


def test_what_is_written_past_fsspec_is_seen_at_all_endpoints_of_one_tree(
    server: Moto, active: Callable[..., Session]
) -> None:
    urls = [server.url, server.url.replace("127.0.0.1", "localhost")]
    active(validate="never", rules=(Rule(same=tuple(url.replace("http:", "s3:") for url in urls)),))
    filesystems = [client(server, endpoint_url=url) for url in urls]
    for url, data in ((urls[0], NEW), (urls[1], OLD), (urls[0], NEW)):
        s3_servers.client(url).put_object(Bucket="bucket", Key="file", Body=data)
        assert [fs.cat_file("bucket/file") for fs in filesystems] == [data] * 2


def test_what_is_read_past_fsspec_drops_nothing(server: Moto, active: Callable[..., Session]) -> None:
    active()
    fs = client(server)
    assert fs.cat_file("bucket/file") == OLD
    boto = s3_servers.client(server.url)
    assert boto.get_object(Bucket="bucket", Key="file")["Body"].read() == OLD
    boto.put_object(Bucket="bucket", Key="other", Body=NEW)
    server.requests()
    with fs.open("bucket/file") as file:
        assert file.read() == OLD
    assert methods(server) == []


def test_the_copy_of_an_object_and_many_objects_at_once(
    server: Moto, active: Callable[..., Session], tmp_path: Path
) -> None:
    paths = [f"bucket/many/{i}" for i in range(50)]
    old = put(server, "kept/file", OLD)
    put(server, "kept/file", NEW)
    for path in paths:
        put(server, path, path.encode())
    expected = {path: path.encode() for path in paths}
    active()
    fs = client(server)
    assert fs.cat(paths) == expected
    assert methods(server) == ["GET"] * 50
    fs.get_file("kept/file", str(tmp_path / "new"))
    fs.get_file("kept/file", str(tmp_path / "old"), version_id=old)
    assert (tmp_path / "new").read_bytes() == NEW
    assert (tmp_path / "old").read_bytes() == OLD
    server.requests()
    active()
    assert client(server).cat(paths) == expected
    assert methods(server) == ["HEAD"] * 50


def test_what_a_program_says_in_a_fragment_is_no_part_of_a_key(server: Moto, active: Callable[..., Session]) -> None:
    session = active()
    s3fs.S3FileSystem.clear_instance_cache()
    options = {"endpoint_url": server.url, "jcache": {"validate": "never"}}
    for times in (1, 2):
        with fsspec.open("s3://bucket/file#jcache.refresh", **options) as file:
            assert file.read() == OLD
            assert file.path == "bucket/file"
            assert file.fs.exists("bucket/file#jcache.bypass")
            assert file.fs.ls("bucket/directory#jcache.bypass", detail=False) == ["bucket/directory/file"]
        settle()
        assert session.counters.snapshot().read_miss == times * len(OLD)


def test_a_file_system_stays_where_the_environment_said_at_first(
    active: Callable[..., Session], server: Moto, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore looks there when it connects, and never again."""
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    for place, path, data in (
        (server.url, "bucket/file", OLD),
        ("http://other.example:9000", "bucket/directory/file", NEW),
        ("http://other.example:9000", "bucket/file", OLD),
    ):
        active()
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        assert fs.cat_file(path) == data
    deactivate()
    names = [path.name for path in cache_dir.rglob("*")]
    assert "directory" in names
    assert not [name for name in names if "other.example" in name]
