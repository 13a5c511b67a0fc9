"""One key for one object whoever asks, different keys for different objects, and no secret anywhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.naming.identity import Identifier, Identity, Unidentifiable, identify

HTTP = ("http", "https")
S3 = ("s3", "s3a")
ABFS = ("abfs", "az", "abfss")


def key(protocol: str | tuple[str, ...], path: str, options: Mapping[str, object] | None = None, **more: object) -> str:
    return identify(protocol, path, options or {}, environ={"HOME": "/nonexistent"}, **more).key  # type: ignore[arg-type]


AWS_SIGNED = (
    "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Credential={x}&X-Amz-Date={x}&X-Amz-Expires=3"
    "&X-Amz-SignedHeaders=h&X-Amz-Signature={x}&X-Amz-Security-Token={x}"
)

SAME = [
    # spelling
    [
        (HTTP, u)
        for u in ("https://h/a", "HTTPS://H/a", "https://h:443/a", "https://h:/a", "https://h/a#part", "https://h/a?")
    ],
    [(HTTP, "http://h/"), (HTTP, "http://h"), (HTTP, "http://h:80")],
    [(HTTP, "https://[2001:DB8::1]/a"), (HTTP, "https://[2001:db8::1]:443/a")],
    # credentials
    [(HTTP, u) for u in ("https://h/a", "https://user:pass@h/a", "https://h/a?authz=Bearer%20x")],
    [(HTTP, AWS_SIGNED.format(x=x)) for x in "12"] + [(HTTP, "https://b.s3.amazonaws.com/k")],
    [(HTTP, f"https://h/k?AWSAccessKeyId={x}&Signature={x}&Expires={x}") for x in "12"] + [(HTTP, "https://h/k")],
    [(HTTP, f"https://h/k?GoogleAccessId={x}&Signature={x}&Expires={x}") for x in "12"] + [(HTTP, "https://h/k")],
    [(HTTP, f"https://h/k?Policy={x}&Signature={x}&Key-Pair-Id={x}&Expires=5") for x in "12"] + [(HTTP, "https://h/k")],
    [(HTTP, f"https://a.blob.core.windows.net/c/k?sv=1&se={x}&sr=b&sp=r&sig={x}&st={x}&spr=https") for x in "12"]
    + [(HTTP, "https://a.blob.core.windows.net/c/k")],
    [(HTTP, f"https://h/k?xrd.wantprot=gsi&eos.app={x}&xrdcl.requuid=1") for x in "12"],
    [(HTTP, "https://h/k", {"headers": {"Authorization": x, "User-Agent": x}, "auth": object()}) for x in "12"]
    + [
        (
            HTTP,
            "https://h/k",
            {"client_kwargs": {"headers": {"X-Auth-Token": "x"}, "trust_env": True, "auth": object()}},
        )
    ],
    [
        (HTTP, "https://h/k", {"block_size": 0, "asynchronous": True, "loop": object(), "encoded": False}),
        (HTTP, "https://h/k"),
    ],
    [(HTTP, "https://h/k", {"params": {"v": 1, "authz": x}}) for x in "12"],
    [
        ("root", "/eos/f", {"hostid": "h"}),
        ("root", "//eos/f", {"hostid": "me:pw@H:1094", "valid_sources": ["a"]}),
        ("root", "/eos/f?authz=secret&xrd.cc=1", {"hostid": "h"}),
        ("root", "root://h//eos/f"),
        ("root", "xroot://h:1094///eos/f?xrd.wantprot=gsi&authz=y"),
        ("root", "roots://user@h//eos/f"),
    ],
    [(S3, "b/k", {"key": x, "secret": x, "token": x, "anon": x == "1", "session": object()}) for x in "12"]
    + [
        (S3, "s3://b/k"),
        (S3, "s3a://b/k"),
        (S3, "/b/k"),
        ("s3", "b/k", {"client_kwargs": {"region_name": "eu-west-1", "verify": False}}),
    ],
    [
        (S3, "b/k", {"endpoint_url": "https://minio.cern.ch"}),
        (S3, "b/k", {"endpoint_url": "https://MINIO.cern.ch:443/"}),
        (S3, "b/k", {"client_kwargs": {"endpoint_url": "https://u:p@minio.cern.ch"}}),
    ],
    [
        (ABFS, "c/k", {"account_name": "acct", "account_key": "x", "credential": object()}),
        (ABFS, "c/k", {"account_host": "acct.blob.core.windows.net", "sas_token": "x"}),
        (ABFS, "//c/k", {"account_name": "acct"}),
        (ABFS, "abfs://c@Acct.dfs.core.windows.net/k"),
        (ABFS, "az://c/k", {"connection_string": "AccountName=acct;AccountKey=a=b==;EndpointSuffix=core.windows.net"}),
        (
            ABFS,
            "c/k",
            {"connection_string": "BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=sig=x"},
        ),
    ],
    [
        ("sftp", "/f", {"host": "h", "password": "x"}),
        ("ssh", "/f", {"host": "H", "port": 22, "pkey": object()}),
        ("sftp", "sftp://H:22/f", {"host": "h", "port": 22}),
        ("sftp", "sftp://h/f"),
    ],
    [(("gs", "gcs"), "b/k"), (("gs", "gcs"), "/b/k"), (("gs", "gcs"), "gs://b/k")],
    [("webdav", path, {"base_url": "https://h/"}) for path in ("d/f", "/d/f", "//d//f")],
    [("github", "d/f", {"org": "o", "repo": "r", "sha": "s", "token": "t"}), ("github", "github://o:r@s/d/f")],
    [("hf", "datasets/o/r/f"), ("hf", "hf://datasets/o/r/f", {"token": "t", "endpoint": "https://huggingface.co"})],
    [("newfs", "a/b", {"password": "x", "account_key": "y", "timeout": 3}), ("newfs", "newfs://a/b", {"api_key": "z"})],
]


@pytest.mark.parametrize("group", SAME, ids=range(len(SAME)))
def test_one_object_has_one_key(group: list[tuple[object, ...]]) -> None:
    assert len({key(*asked) for asked in group}) == 1  # type: ignore[arg-type]


DIFFERENT = [
    (HTTP, "http://h/a"),
    (HTTP, "https://h/a"),
    (HTTP, "https://h:8443/a"),
    (HTTP, "https://h/A"),
    (HTTP, "https://h/a/"),
    (HTTP, "https://h//a"),
    (HTTP, "https://h/./a"),
    (HTTP, "https://h/../a"),
    (HTTP, "https://h/%61"),
    (HTTP, "https://h/a\\~0"),
    (HTTP, "https://h/a?author=1"),
    (HTTP, "https://h/a?author=2"),
    (HTTP, "https://h/a?versionId=1"),
    (HTTP, "https://h/a?pageToken=1"),
    (HTTP, "https://h/a?pageToken=2"),
    (HTTP, "https://h/a?access_token=1"),
    (HTTP, "https://h/a?access_token=2"),
    (HTTP, "https://h/a?my_api_token=1"),
    (HTTP, "https://h/a?session_id=41"),
    (HTTP, "https://h/a?session_id=42"),
    (HTTP, "https://h/a?signature=1"),
    (HTTP, "https://h/a?signature=1&expires=2"),
    (HTTP, "https://h/a?Signature=1&Expires=2"),
    (HTTP, "https://h/a?sig=1&se=2"),
    (HTTP, "https://h/a?X-Amz-Signature=1"),
    (HTTP, "https://h/a?X-Amz-Signature=2"),
    (HTTP, AWS_SIGNED.format(x="1")),
    (HTTP, AWS_SIGNED.format(x="1") + "&versionId=1"),
    (HTTP, AWS_SIGNED.format(x="1") + "&versionId=2"),
    (HTTP, AWS_SIGNED.format(x="1") + "&partNumber=2"),
    (HTTP, AWS_SIGNED.format(x="1") + "&response-content-encoding=gzip"),
    (HTTP, AWS_SIGNED.format(x="1") + "&X-Amz-Date=again"),
    (HTTP, AWS_SIGNED.lower().format(x="1")),
    (HTTP, "https://a.blob.core.windows.net/c/k?sv=1&se=2&sr=b&sig=3"),
    (HTTP, "https://a.blob.core.windows.net/c/k?snapshot=1&sv=1&se=2&sr=b&sig=3"),
    (HTTP, "https://a.blob.core.windows.net/c/k?versionid=1&sv=1&se=2&sr=b&sig=3"),
    (HTTP, "https://h/a?n_tokens=1000"),
    (HTTP, "https://h/a?key_id=1"),
    (HTTP, "https://h/a?a=1&b=2"),
    (HTTP, "https://h/a?b=2&a=1"),
    (HTTP, "https://h/a?a"),
    (HTTP, "https://h/a?&a"),
    (HTTP, "https://h/a?a="),
    (HTTP, "https://h/a?a&"),
    (HTTP, "https://h/a?A"),
    (HTTP, "https://h/a?a=b+c"),
    (HTTP, "https://h/a?a=b%20c"),
    (HTTP, "https://h./a"),
    (HTTP, "https://h/a", {"params": {"a": 1}}),
    (HTTP, "https://h/a?x&y"),
    (HTTP, "https://h/a?y&x"),
    (HTTP, "https://h/a?expires=1"),
    (HTTP, "https://h/a?expires=2"),
    (HTTP, "https://h/a?v=1&v=2"),
    (HTTP, "https://h/a?v=2&v=1"),
    (HTTP, "https://h/a", {"headers": {"Accept": "text/html"}}),
    (HTTP, "https://h/a", {"headers": {"Accept-Language": "de"}}),
    (HTTP, "https://h/a", {"headers": {"X-Tenant": "b"}}),
    (HTTP, "https://h/a", {"encoded": True}),
    ("root", "/a", {"hostid": "h"}),
    ("root", "a", {"hostid": "h"}),
    ("root", "/a", {"hostid": "h:1095"}),
    ("root", "/a?x=1", {"hostid": "h"}),
    ("root", "/a?eos.lfn=fxid:1", {"hostid": "h"}),
    ("root", "/a#b", {"hostid": "h"}),
    ("root", "/a?xrdcl.unzip=m", {"hostid": "h"}),
    ("root", "/a?xrdcl.unzip=n", {"hostid": "h"}),
    (S3, "b/k"),
    (S3, "B/k"),
    (S3, "b/k?versionId=1"),
    (S3, "b/k?versionId=2"),
    (S3, "b/k?versionId=1", {"version_aware": True}),
    (S3, "b/k?versionId=2", {"version_aware": True}),
    (S3, "b/k#x"),
    (S3, "b//k"),
    (S3, "b/k", {"endpoint_url": "http://minio:9000"}),
    (S3, "b/k", {"endpoint_url": "http://minio:9001"}),
    (S3, "b/k", {"endpoint_url": "http://minio"}),
    (S3, "b/k", {"endpoint_url": "https://minio"}),
    (S3, "b/k", {"endpoint_url": "https://gw/s3"}),
    (S3, "b/k", {"client_kwargs": {"region_name": "cn-north-1"}}),
    (S3, "b/k", {"s3_additional_kwargs": {"VersionId": "7"}}),
    ("gs", "b/k"),
    ("gs", "b/k#123"),
    ("gs", "b/k", {"endpoint_url": "http://localhost:4443"}),
    (ABFS, "c/k", {"account_name": "a"}),
    (ABFS, "c/k", {"account_name": "b"}),
    (ABFS, "c/k", {"account_host": "a.blob.core.chinacloudapi.cn"}),
    (ABFS, "c/k", {"connection_string": "UseDevelopmentStorage=true"}),
    ("sftp", "/f", {"host": "a"}),
    ("sftp", "/f", {"host": "b"}),
    ("sftp", "/f", {"host": "a", "port": 2222}),
    ("sftp", "f", {"host": "a"}),
    ("sftp", "/f", {"host": "a", "username": "u"}),
    ("sftp", "//f", {"host": "a"}),
    ("ftp", "/f", {"host": "a"}),
    ("ftp", "/f", {"host": "::1"}),
    ("ftp", "/f", {"host": "::1", "port": 2121}),
    ("hdfs", "/f", {"host": "a"}),
    ("webhdfs", "/f", {"host": "a"}),
    ("github", "f", {"org": "o", "repo": "r"}),
    ("github", "f", {"org": "o", "repo": "r", "sha": "x"}),
    ("github", "y/f", {"org": "o", "repo": "r", "sha": "x"}),
    ("github", "f", {"org": "o", "repo": "r", "sha": "x/y"}),
    ("hf", "o/r/f"),
    ("hf", "o/r/f", {"revision": "x"}),
    ("hf", "o/r/f", {"endpoint": "https://hub.example"}),
    ("newfs", "a/b"),
    ("newfs", "a/b", {"region": 1}),
    ("newfs", "a/b", {"region": "1"}),
    ("newfs", "x:y@a/b"),
    ("newfs", "x:z@a/b"),
    ("newfs", "a/b?c"),
    ("newfs", "a/b?d"),
    ("newfs", "A/b"),
    ("otherfs", "a/b"),
    ("newfs", "a/b#c"),
]


def test_different_objects_have_different_keys_and_directories() -> None:
    found: dict[object, object] = {}
    for asked in DIFFERENT:
        protocol, path, options = asked if len(asked) == 3 else (*asked, {})
        identity = identify(protocol, path, options, environ={"HOME": "/nonexistent"})  # type: ignore[arg-type]
        for one in (identity.key, identity.parts):
            assert one not in found, f"{asked} and {found[one]}"
            found[one] = asked


@pytest.mark.parametrize(
    ("protocol", "path", "options"),
    [
        (HTTP, "a/b", {}),
        (HTTP, "https:///a", {}),
        (HTTP, "https://h/a", {"client_kwargs": {"connector": object()}}),
        (HTTP, "https://h/a", {"get_client": lambda **_: None}),
        ("root", "/a", {}),
        (S3, "b/k", {"endpoint_url": "http://a", "client_kwargs": {"endpoint_url": "http://b"}}),
        (ABFS, "c/k", {}),
        (ABFS, "c/k", {"account_name": "a", "connection_string": "AccountName=b;AccountKey=x"}),
        ("newfs", "a", {"conf": {1: 2}}),
        ("hdfs", "/a", {"host": "default"}),
        ("sftp", "/a", {"host": "h", "sock": object()}),
        ("gdrive", "a", {}),
        ("memory", "/a", {}),
        (("file", "local"), "/a", {}),
        ("zip", "a", {"fo": "x.zip"}),
        ("newfs", "a", {"backend": object()}),
        ("newfs", "a", {"fs": "anything"}),
        ((), "a", {}),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    protocol: str | tuple[str, ...], path: str, options: dict[str, object]
) -> None:
    with pytest.raises(Unidentifiable):
        identify(protocol, path, options, environ={"HOME": "/nonexistent"})


SECRET = "hunter2SECRET"


@pytest.mark.parametrize(
    ("protocol", "path", "options"),
    [
        (
            HTTP,
            f"https://u:{SECRET}@h/a?foo={SECRET}&X-Amz-Signature={SECRET}#{SECRET}",
            {"headers": {"X-Odd": SECRET}},
        ),
        (HTTP, "https://h/a", {"params": {"odd": SECRET}, "client_kwargs": {"cookies": {"a": SECRET}}}),
        ("root", f"/a?authz={SECRET}&xrdcl.unzip={SECRET}", {"hostid": f"u:{SECRET}@h"}),
        ("root", f"root://u:{SECRET}@h//a", {}),
        (S3, "b/k", {"secret": SECRET, "odd": SECRET, "endpoint_url": f"http://u:{SECRET}@h/?x={SECRET}"}),
        (ABFS, "c/k", {"connection_string": f"AccountName=a;AccountKey={SECRET}", "odd": SECRET}),
        ("sftp", f"sftp://u:{SECRET}@h/a", {}),
        ("jupyter", "f", {"url": f"http://h:8888/?token={SECRET}", "tok": SECRET}),
        ("github", "f", {"org": "o", "repo": "r", "token": SECRET, "username": SECRET}),
        ("newfs", f"newfs://u:{SECRET}@h/a?s={SECRET}", {"odd": SECRET, "more": {"deep": [SECRET, SECRET.encode()]}}),
        ("webdav", "f", {"base_url": f"https://u:{SECRET}@h/", "auth": ("u", SECRET)}),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_no_secret_is_left(protocol: str | tuple[str, ...], path: str, options: dict[str, object], flat: bool) -> None:
    identity = identify(protocol, path, options, flat=flat, environ={})
    assert SECRET.lower() not in repr(identity).lower()
    with pytest.raises(Unidentifiable) as refused:
        identify(protocol, path, {**options, "odd_object": Odd()}, environ={})
    assert SECRET.lower() not in str(refused.value).lower()


class Odd:
    def __repr__(self) -> str:
        return SECRET


def test_environment_names_endpoints(tmp_path: Path) -> None:
    def s3(environ: dict[str, str], **options: object) -> str:
        return identify(S3, "b/k", options, environ={"HOME": str(tmp_path), **environ}).key

    aws = s3({})
    assert s3({"AWS_ENDPOINT_URL": "http://minio:9000"}) == s3({}, endpoint_url="http://minio:9000") != aws
    assert s3({"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "http://y"}) == s3({}, endpoint_url="http://y")
    config = tmp_path / "config"
    config.write_text("[default]\naws_secret_access_key = s\n[profile lab]\nendpoint_url = http://lab\n")
    with_file = {"AWS_CONFIG_FILE": str(config)}
    assert len({aws, s3(with_file), s3(with_file, profile="lab"), s3({**with_file, "AWS_PROFILE": "other"})}) == 4
    gs = identify("gs", "b/k", {}, environ={"STORAGE_EMULATOR_HOST": "http://localhost:1"})
    assert gs.key != identify("gs", "b/k", {}, environ={}).key


def test_basepath_joins_a_federation() -> None:
    def at(protocol: str | tuple[str, ...], path: str, **options: object) -> Identity:
        return identify(protocol, path, options, basepath="/store/", environ={})

    one = at("root", "/eos/cms/store/data/f.root", hostid="a")
    assert one == at("root", "/store/data/f.root", hostid="b") == at(HTTP, "https://c/prefix/store/data/f.root?authz=x")
    assert one.parts == (b"store", b"data", b"f.root")
    assert one.url == "/store/data/f.root"
    assert at("root", "/store/data/f.root?xrdcl.unzip=m", hostid="a").key != one.key
    assert at("root", "/stores/data/f.root", hostid="a").parts[0] == b"root"
    assert at("root", "/store", hostid="a").parts[0] == b"root"


def test_readable_tree() -> None:
    identity = identify(HTTP, "https://Opendata.cern.ch:443/eos/Run2012B_DoubleMuParked.root?authz=x", {}, environ={})
    assert b"/".join(identity.parts) == b"https/opendata.cern.ch/eos/Run2012B_DoubleMuParked.root"
    assert identity.url == "https://opendata.cern.ch/eos/Run2012B_DoubleMuParked.root"
    assert identify("root", "/eos/f", {"hostid": "h"}, environ={}).url == "root://h//eos/f"
    assert identify(S3, "b/k", {}, environ={"HOME": "/nonexistent"}).url == "s3://b/k"


SIGNATURES = [
    [f"X-Amz-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")],
    [f"X-Goog-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")],
    [f"x-oss-{name}" for name in ("signature-version", "credential", "date", "expires", "signature")],
    ["AWSAccessKeyId", "Signature", "Expires"],
    ["GoogleAccessId", "Signature", "Expires"],
    ["OSSAccessKeyId", "Signature", "Expires"],
    ["Key-Pair-Id", "Signature", "Policy"],
    ["sv", "se", "sr", "sp", "sig"],
    ["authz"],
    ["xrd.gsiusrpxy"],
]
REQUIRED = {"X-Amz-Signature", "X-Goog-Signature", "x-oss-signature", "Signature", "Policy", "Key-Pair-Id", "sv", "sig"}


@given(
    st.sampled_from(SIGNATURES),
    st.text(max_size=30),
    st.lists(st.sampled_from(["a=1", "b=2", "c", "token=3"]), max_size=3),
    st.randoms(use_true_random=False),
)
def test_a_complete_signature_is_cut_wherever_it_stands_and_an_incomplete_one_decides(
    names: list[str], secret: str, others: list[str], random: Random
) -> None:
    url = "https://h/f?" + "&".join(others)

    def signed(names: list[str], value: str) -> str:
        signature = [f"{name}={quote(value, errors='surrogatepass')}" for name in names]
        random.shuffle(signature)
        places = sorted(random.randrange(len(others) + 1) for _ in names)
        whole = list(others)
        for place, item in zip(reversed(places), signature, strict=True):
            whole.insert(place, item)
        return "https://h/f?" + "&".join(whole)

    assert key(HTTP, signed(names, secret)) == key(HTTP, url)
    for missing in REQUIRED & set(names):
        rest = [name for name in names if name != missing]
        assert key(HTTP, signed(rest, secret)) != key(HTTP, url)
        assert key(HTTP, signed(rest, secret)) != key(HTTP, signed(rest, secret + "x"))


PLAIN = st.one_of(st.integers(), st.booleans(), st.text(max_size=5), st.binary(max_size=5))
OPTIONS = st.dictionaries(
    st.text("abcd.", min_size=1, max_size=3),
    st.recursive(
        PLAIN, lambda inner: st.dictionaries(st.text("abcd", min_size=1, max_size=2), inner, min_size=1), max_leaves=4
    ),
    max_size=3,
)


@given(OPTIONS, OPTIONS)
def test_options_of_an_unknown_protocol_decide(first: dict[str, object], second: dict[str, object]) -> None:
    assert (key("newfs", "f", first) == key("newfs", "f", second)) == (repr_sorted(first) == repr_sorted(second))


def repr_sorted(value: object) -> str:
    if isinstance(value, dict):
        return repr(sorted((name, repr_sorted(item)) for name, item in value.items()))
    return repr(value)


NAMES = ["c.0.12", "x", "Y0", "a:b", "H:443", "a,b=c+d_-", ".zarray", "c~0123456789abcdef", "", "@x", "n" * 199]
NAMES += ["zarr.json", "n" * 201, "é", "a?b", "a#b", "%41", "x y", "cachedir.tag", "a@b"]


@pytest.mark.turns("flat")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("basepath", [None, "a", "eos"])
def test_the_objects_of_a_directory_are_what_they_are_one_by_one(flat: bool, basepath: str | None) -> None:
    for protocol, path, *more in [*DIFFERENT, *(asked for group in SAME for asked in group)]:
        options = more[0] if more else {}
        identifier = Identifier(protocol, options, basepath=basepath, flat=flat)  # type: ignore[arg-type]
        directories = {path, path.rpartition("/")[0], f"{path}/eos/{'d' * 198}", f"{path}/{'/'.join(['e' * 150] * 5)}"}  # type: ignore[attr-defined]
        expected: dict[str, object] = {}
        for asked in (path, *(f"{directory}/{name}" for directory in directories for name in (*NAMES, *NAMES))):
            if asked not in expected:
                try:
                    expected[asked] = identify(protocol, asked, options, basepath=basepath, flat=flat)  # type: ignore[arg-type]
                except Unidentifiable as error:
                    expected[asked] = error
            if isinstance(expected[asked], Unidentifiable):
                with pytest.raises(Unidentifiable, match=re.escape(str(expected[asked]))):
                    identifier.identify(asked)
            else:
                assert identifier.identify(asked) == expected[asked]


@given(st.text(max_size=40), st.text(max_size=40))
def test_paths_never_merge(first: str, second: str) -> None:
    for protocol, options in (("s3", {}), ("newfs", {})):
        a, b = key(protocol, first, options), key(protocol, second, options)
        # A URL of the protocol itself is the one other spelling, and the query of an unknown one loses what is empty.
        if "?" not in first + second and "://" not in first + second:
            assert (a == b) == (first == second)


@given(st.text(max_size=30))
def test_keys_and_urls_are_printable(path: str) -> None:
    identity = identify("s3", path, {}, environ={})
    assert identity.key.isprintable()
    assert identity.url.isprintable()
    json.dumps([identity.key, identity.url], ensure_ascii=False).encode()


def test_the_key_is_the_same_in_every_process() -> None:
    script = (
        "from jcache.naming.identity import identify\n"
        "print(identify('newfs', 'a?z=1', {'b': {'x': 1, 'y': [1.5, True]}, 'a': 'c'}, environ={}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
