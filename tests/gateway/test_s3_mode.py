"""`jcache serve --s3`: clients of S3 that others wrote, plain against an S3 server and with the gateway before it."""

from __future__ import annotations

import io
import itertools
import os
import random
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import s3_servers
from gateways import GatewayProcess
from s3_servers import KEYS, Moto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import XrootdServer

DATA = random.Random(8).randbytes(1_200_000)
NAMES = ("a.bin", "dir/b c.bin", "dir/deep/c+d=&.bin", "dir/deep/é.bin", "dir2/e.bin", "z/%41.bin")
WHEN = 1_700_000_000
OTHERS = "gateway-key gateway-secret\n# not-a key\nkey secret\n"


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        client = s3_servers.client(server.url)
        for bucket in ("bucket", "other"):
            client.create_bucket(Bucket=bucket)
        for name in NAMES:
            client.put_object(Bucket="bucket", Key=name, Body=DATA)
        server.requests()
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(OTHERS)
    return path


@pytest.fixture
def gateway(moto: Moto, cache_dir: Path, keys: Path) -> Iterator[GatewayProcess]:
    environ = {**KEYS, "AWS_ENDPOINT_URL": moto.url}
    with GatewayProcess(cache_dir, "--s3", "--s3-keys", str(keys), "--origin", "s3://", **environ) as process:
        yield process
    assert "Traceback" not in process.stderr


def told(call: Callable[[], Any]) -> Any:
    """Return what a call of boto3's gives that is not about the server, or what it raises."""
    from botocore.exceptions import ClientError

    try:
        answer = call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return code, error.response["ResponseMetadata"]["HTTPStatusCode"]
    if "Body" in answer:
        return answer["Body"].read(), answer.get("ContentRange"), answer["ContentLength"]
    listed = [(one["Key"], one["Size"]) for one in answer.get("Contents", ())]
    prefixes = [one["Prefix"] for one in answer.get("CommonPrefixes", ())]
    buckets = [one["Name"] for one in answer.get("Buckets", ())]
    return listed, prefixes, buckets, answer.get("IsTruncated"), answer.get("KeyCount"), answer.get("ContentLength")


def pages(client: Any, **how: Any) -> list[Any]:
    return [told(lambda page=page: page) for page in client.get_paginator("list_objects_v2").paginate(**how)]


def questions(client: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name in NAMES:
        yield f"get {name}", lambda n=name: told(lambda: client.get_object(Bucket="bucket", Key=n))
        yield f"head {name}", lambda n=name: told(lambda: client.head_object(Bucket="bucket", Key=n))
    for span in ("bytes=5-104", "bytes=-7", "bytes=1199990-", "bytes=1200000-", "bytes=0-99999999"):
        how = {"Bucket": "bucket", "Key": "a.bin", "Range": span}
        yield f"range {span}", lambda how=how: told(lambda: client.get_object(**how))
    for key in ("none", "dir", "dir/", "dir/deep", "a.bin/x"):
        yield f"get {key}", lambda k=key: told(lambda: client.get_object(Bucket="bucket", Key=k))
        yield f"head {key}", lambda k=key: told(lambda: client.head_object(Bucket="bucket", Key=k))
    yield "no bucket", lambda: told(lambda: client.get_object(Bucket="nowhere", Key="a"))
    yield "no bucket's list", lambda: told(lambda: client.list_objects_v2(Bucket="nowhere"))
    yield "head bucket", lambda: told(lambda: client.head_bucket(Bucket="bucket"))
    yield "head no bucket", lambda: told(lambda: client.head_bucket(Bucket="nowhere"))
    yield "buckets", lambda: told(client.list_buckets)
    yield "location", lambda: client.get_bucket_location(Bucket="bucket").get("LocationConstraint")
    prefixes = ("", "d", "dir", "dir/", "dir/deep/", "dir/deep/c+", "nothing", "z/%41")
    for prefix, delimiter, most in itertools.product(prefixes, ("", "/", "e"), (1, 2, 1000)):
        how = {"Bucket": "bucket", "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": most}
        yield f"pages {how}", lambda how=how: pages(client, **how, PaginationConfig={"PageSize": how["MaxKeys"]})
    for after in ("a.bin", "dir/", "dir/b", "zz"):
        how = {"Bucket": "bucket", "StartAfter": after}
        yield f"after {after}", lambda how=how: told(lambda: client.list_objects_v2(**how))
    yield "first version", lambda: told(lambda: client.list_objects(Bucket="bucket", Prefix="dir/", Delimiter="/"))


def test_boto3_gets_what_it_gets_without_the_gateway(moto: Moto, gateway: GatewayProcess) -> None:
    plain = {name: call() for name, call in questions(s3_servers.client(moto.url))}
    for _ in ("cold", "warm"):
        got = {name: call() for name, call in questions(s3_servers.client(gateway.url))}
        wrong = [
            f"{name}: {got[name]!r:.300}, plain {plain[name]!r:.300}" for name in plain if got[name] != plain[name]
        ]
        assert not wrong, "\n".join(wrong)


def test_a_range_of_an_empty_object_is_refused(moto: Moto, gateway: GatewayProcess) -> None:
    s3_servers.client(moto.url).put_object(Bucket="other", Key="empty", Body=b"")
    for url in (moto.url, gateway.url):
        client = s3_servers.client(url)
        got = told(lambda client=client: client.get_object(Bucket="other", Key="empty", Range="bytes=0-9"))
        assert got == ("InvalidRange", 416)


def test_a_listing_and_an_answer_name_the_same_version(gateway: GatewayProcess) -> None:
    client = s3_servers.client(gateway.url)
    listed = {one["Key"]: one for one in client.list_objects_v2(Bucket="bucket")["Contents"]}
    for name in NAMES:
        head = client.head_object(Bucket="bucket", Key=name)
        assert listed[name]["ETag"] == head["ETag"]
        assert listed[name]["LastModified"] == head["LastModified"]
        client.get_object(Bucket="bucket", Key=name, IfMatch=listed[name]["ETag"])["Body"].read()


def test_only_who_signs_with_a_key_of_the_gateways_own_is_served(gateway: GatewayProcess, keys: Path) -> None:
    import boto3

    def code(key: str, secret: str) -> Any:
        named = {"aws_access_key_id": key, "aws_secret_access_key": secret}
        client = boto3.client("s3", endpoint_url=gateway.url, region_name="eu-central-1", **named)
        return told(lambda: client.get_object(Bucket="bucket", Key="dir/b c.bin"))

    assert code("gateway-key", "gateway-secret")[0] == DATA
    assert code("gateway-key", "another")[0] == "SignatureDoesNotMatch"
    assert code("nobody", "gateway-secret")[0] == "InvalidAccessKeyId"
    assert code("not-a", "key")[0] == "InvalidAccessKeyId"
    assert gateway.get("/bucket/a.bin").status == 403
    assert b"AccessDenied" in gateway.get("/bucket/a.bin").body
    keys.unlink()
    time.sleep(1.1)  # by then it looks again
    assert code("gateway-key", "gateway-secret")[0] == "InvalidAccessKeyId"


def test_signed_urls(gateway: GatewayProcess) -> None:
    import boto3
    from botocore.config import Config

    named = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    signer = boto3.client("s3", endpoint_url=gateway.url, config=Config(signature_version="s3v4"), **named)
    url = signer.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": NAMES[2]}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == DATA
    for changed in (url.replace("c%2Bd", "c"), url.replace("X-Amz-Expires=60", "X-Amz-Expires=99"), url[:-1]):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(changed)
        assert error.value.code == 403


def test_what_nobody_signed_is_refused_and_not_a_defect(gateway: GatewayProcess) -> None:
    day = time.strftime("%Y%m%d", time.gmtime())
    query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={{}}%2F{day}%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date={day}T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature={{}}"
    )
    for key, signature in (("key", "%C3%A9"), ("key", "%FF"), ("%FF", "0" * 64), ("k%C3%A9y", "0")):
        answer = gateway.get(f"/bucket/a.bin?{query.format(key, signature)}")
        assert (answer.status, b"<Error>" in answer.body) == (403, True)
    many = gateway.get("/bucket/a.bin?" + "&".join(f"a{i}=" for i in range(100)))
    assert (many.status, b"<Error>" in many.body) == (400, True)
    assert gateway.get("/metrics").status == 403
    assert "defect" not in gateway.stderr


def test_a_first_page_is_no_older_than_the_settings_have_it(moto: Moto, cache_dir: Path) -> None:
    how = {**KEYS, "AWS_ENDPOINT_URL": moto.url}
    with GatewayProcess(cache_dir, "--s3", "--origin", "s3://", "--validate", "0", **how) as gateway:
        client = s3_servers.client(gateway.url)
        for name in ("new/1", "new/2"):
            s3_servers.client(moto.url).put_object(Bucket="other", Key=name, Body=b"x")
            for listing in (client.list_objects, client.list_objects_v2):
                keys = [one["Key"] for one in listing(Bucket="other", Prefix="new/")["Contents"]]
                assert keys[-1] == name, listing
        moto.requests()
        for target in ("/", "/other", "/other?location", "/other?list-type=2"):
            assert gateway.get(target, Cache_Control="only-if-cached").status == 504, target
        assert not moto.requests()


def test_clients_of_s3_read_from_the_journals(moto: Moto, gateway: GatewayProcess) -> None:
    """Each by its endpoint alone, plain, cold and warm; no byte of what is warm is asked of the origin."""
    pa_fs = pytest.importorskip("pyarrow.fs")
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    obstore, pl = pytest.importorskip("obstore"), pytest.importorskip("polars")
    import s3fs

    table, out = pa.table({"x": list(range(5000)), "y": [str(i) for i in range(5000)]}), io.BytesIO()
    pq.write_table(table, out)
    s3_servers.client(moto.url).put_object(Bucket="other", Key="t/part=1/t.parquet", Body=out.getvalue())

    def arrow(url: str) -> Any:
        host = url.partition("//")[2]
        fs = pa_fs.S3FileSystem(access_key="key", secret_key="secret", endpoint_override=host, scheme="http")
        found = [info.path for info in fs.get_file_info(pa_fs.FileSelector("other", recursive=True))]
        return found, pq.read_table("other/t/part=1/t.parquet", filesystem=fs, columns=["x"]).num_rows

    def rust(url: str) -> Any:
        from obstore.store import S3Store

        store = S3Store(
            "bucket",
            access_key_id="key",
            secret_access_key="secret",
            endpoint=url,
            region="us-east-1",
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
        names = sorted(one["path"] for page in obstore.list(store) for one in page)
        rows = obstore.get_ranges(store, NAMES[1], starts=[0, 500_000], ends=[100, 500_100])
        return names, [bytes(row) for row in rows], bytes(obstore.get(store, NAMES[0]).bytes()) == DATA

    def polars(url: str) -> Any:
        how = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_endpoint_url": url}
        how |= {"aws_region": "us-east-1", "aws_allow_http": "true"}
        return (
            pl.scan_parquet("s3://other/t/**/*.parquet", storage_options=how).select(pl.col("x").sum()).collect().item()
        )

    def python(url: str) -> Any:
        fs = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=url, skip_instance_cache=True)
        with fs.open(f"bucket/{NAMES[3]}") as file:
            file.seek(1000)
            data = file.read(1000)
        return sorted(fs.find("bucket")), sorted(fs.ls("bucket/dir")), data, fs.exists("bucket/nothing")

    for job in (arrow, rust, polars, python):
        plain = job(moto.url)
        assert job(gateway.url) == plain, job.__name__
        moto.requests()
        assert job(gateway.url) == plain, job.__name__
        assert not [one for one in moto.requests() if one.method == "GET" and one.range], job.__name__


def test_buckets_over_xrootd(xrootd_server: XrootdServer, cache_dir: Path) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    for name in NAMES[:2]:
        path = xrootd_server.directory / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)
        os.utime(path, (WHEN, WHEN))
    for path in (xrootd_server.directory, *xrootd_server.directory.rglob("*")):
        path.chmod(0o755)
    origin = f"root://localhost:{xrootd_server.port}//"
    with GatewayProcess(cache_dir, "--s3", "--origin", origin, "--validate", "never") as gateway:
        client = s3_servers.client(gateway.url)
        assert [one["Name"] for one in client.list_buckets()["Buckets"]] == ["store"]
        listed = client.list_objects_v2(Bucket="store")["Contents"]
        assert [(one["Key"], one["Size"]) for one in listed] == [(name, len(DATA)) for name in NAMES[:2]]
        for one in listed:
            assert client.get_object(Bucket="store", Key=one["Key"], IfMatch=one["ETag"])["Body"].read() == DATA
        keys = {name for name in NAMES[:2] if "/" not in name}
        prefixes = {f"{name.partition('/')[0]}/" for name in NAMES[:2] if "/" in name}
        top = client.list_objects_v2(Bucket="store", Delimiter="/")
        assert {one["Key"] for one in top.get("Contents", ())} == keys
        assert {one["Prefix"] for one in top.get("CommonPrefixes", ())} == prefixes
        for prefix in prefixes:
            below = client.list_objects_v2(Bucket="store", Delimiter="/", Prefix=prefix)
            shown = [*below.get("Contents", ()), *({"Key": one["Prefix"]} for one in below.get("CommonPrefixes", ()))]
            assert shown
            keys = [one["Key"] for one in shown]
            assert keys == [key for key in keys if key.startswith(prefix) and "//" not in key]
        with pytest.raises(client.exceptions.NoSuchBucket):
            client.list_objects_v2(Bucket="nothing")
        xrootd_server.stop()
        assert client.get_object(Bucket="store", Key=NAMES[1])["Body"].read() == DATA
    assert "Traceback" not in gateway.stderr


@pytest.mark.parametrize(
    "target",
    [
        "/bucket?prefix=../secret/",
        "/bucket?prefix=%2e%2e/",
        "/bucket?list-type=2&prefix=a%00/",
        "/../bucket/a.bin",
        "/bucket?list-type=2&max-keys=x",
        "/bucket?list-type=2&continuation-token=%21%21",
        "/bucket?encoding-type=base",
    ],
)
def test_what_leads_elsewhere_is_refused(moto: Moto, cache_dir: Path, target: str) -> None:
    environ = {**KEYS, "AWS_ENDPOINT_URL": moto.url}
    with GatewayProcess(cache_dir, "--s3", "--origin", "s3://", **environ) as gateway:
        answer = gateway.get(target)
        assert answer.status == 400
        assert gateway.get("/bucket/a.bin").body == DATA
        assert gateway.get("/bucket/a.bin?acl").status == 501
        put = gateway.get("/bucket/a.bin", method="PUT")
        assert put.status == 405
    assert "Traceback" not in gateway.stderr
