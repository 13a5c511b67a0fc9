"""Whatever a server can tell apart, by URL or by who asks, the cache tells apart. Plain fsspec is the oracle."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import aiohttp
import fsspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jcache.cache import Cache
from jcache.cli import main
from jcache.naming import identify
from jcache.naming.asking import UNSTABLE, fingerprint, who_asks
from jcache.settings.rules import Rule
from jcache_plugins.origins.sharing import sharing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.session import Session

SIZE = 600
ASKING = ("Authorization", "Cookie", "X-Auth-Token", "Accept-Language", "X-Tenant", "User-Agent", "X-Odd-Token")


def content(path: str, *asked: str) -> bytes:
    return hashlib.shake_256("\n".join((path, *asked)).encode()).digest(SIZE)


class Asked(http.server.ThreadingHTTPServer):
    """Content is a hash of the request; all of it has one length, one time and, unless told otherwise, one tag."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.varies: tuple[str, ...] = ()
        self.headers: dict[str, str] = {}
        self.has_own_tags = False
        self.refused: set[str] = set()
        # Whether each who asks is sent to a place of his own.
        self.redirects = False
        self.log: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self) -> int:
        return sum(method == "GET" for method, _ in self.log)


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Asked

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.log.append((self.command, self.path))
        if self.headers.get("Authorization", "") in self.server.refused:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.redirects and not self.path.startswith("/of/"):
            self.send_response(302)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Location", f"/of/{self.headers.get('Authorization')}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = (
            b""
            if "empty" in self.path
            else content(self.path, *(self.headers.get(name, "") for name in self.server.varies))
        )
        tag = hashlib.sha256(data).hexdigest()[:8] if self.server.has_own_tags else "same"
        start, stop, status = 0, len(data), 200
        if (ranged := self.headers.get("Range")) is not None:
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(len(data), int(last or SIZE) + 1), 206 if data else 200
        self.send_response(status)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        for name, value in () if self.server.redirects else self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start:stop])

    do_HEAD = do_GET  # noqa: N815 - the base class's name


@pytest.fixture
def asked() -> Iterator[Asked]:
    server = Asked()
    yield server
    server.shutdown()
    server.server_close()


READER = """
    import json, sys, fsspec
    for line in sys.stdin:
        urls, options = json.loads(line)
        fs = fsspec.filesystem("http", **options)
        out = []
        for url in urls:
            try:
                out.append(fs.cat_file(url).hex())
            except Exception as error:
                out.append(f"{type(error).__name__} {getattr(error, 'status', '')}")
        print(json.dumps(out), flush=True)
"""


class Process:
    """A process that reads URLs: plain, or with a cache."""

    def __init__(self, **variables: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE", "_JCACHE"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER)],
            env={**environ, "JCACHE_SUMMARY": "0", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, *urls: str, **options: object) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([urls, options]) + "\n")
        self._process.stdin.flush()
        found: list[str] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate(timeout=60)


# Nothing that makes a complete signature together.
ITEMS = """
    a a= a=1 a=2 A=1 a=b+c a=b%20c a=%62 a=%2B b=1 token=1 token=2 access_token=1 session_id=41 session_id=42
    signature=x signature=y sig=1 se=2 Signature=1 Expires=2 X-Amz-Signature=1 X-Amz-Date=2 n_tokens=3 key_id=4
    password=5 versionId=6 jwt=7 api_key=8 Policy=1 q-ak=1 hmac=3 expires=1 expires=2
""".split()  # noqa: SIM905 - a list of items reads better as a text
QUERIES = st.lists(st.sampled_from(["", *ITEMS]), max_size=4).map("&".join)
PATHS = st.sampled_from(
    ["/a", "/a/", "//a", "/a/b", "/A", "/%61", "/a%2Fb", "/a;b", "/a%20b", "/a+b", "/a,b", "/", "/a=b"]
)
URLS = st.tuples(PATHS, st.sampled_from(["", "?"]), QUERIES, st.sampled_from(["", "#f"])).map(
    lambda parts: parts[0] + (parts[1] and parts[1] + parts[2]) + parts[3]
)


def test_urls_that_a_server_tells_apart(asked: Asked, tmp_path: Path) -> None:
    with Process() as plain, Process(JCACHE_DIR=str(tmp_path / "cache")) as cached:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(URLS, min_size=1, max_size=8), st.sampled_from([{}, {"params": {"a": "1"}}, {"encoded": True}]))
        def check(paths: list[str], options: dict[str, Any]) -> None:
            urls = [asked.url + path for path in paths]
            assert cached.read(*urls, **options) == plain.read(*urls, **options)

        check()


@pytest.mark.parametrize("has_own_tags", [False, True])
def test_headers_by_which_a_server_tells_apart(asked: Asked, tmp_path: Path, has_own_tags: bool) -> None:
    """It says so in `Vary`; or else, tags differ."""
    asked.varies = ASKING
    asked.has_own_tags = has_own_tags
    if not has_own_tags:
        asked.headers["Vary"] = ", ".join(ASKING)
    chosen = st.dictionaries(st.sampled_from(ASKING), st.sampled_from(["one", "two"]), max_size=3)
    cache = str(tmp_path / "cache")
    with Process() as plain, Process(JCACHE_DIR=cache) as first, Process(JCACHE_DIR=cache) as second:

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(chosen, st.booleans()), min_size=1, max_size=5))
        def check(each: list[tuple[dict[str, str], bool]]) -> None:
            for headers, in_client in each:
                options = {"client_kwargs": {"headers": headers}} if in_client else {"headers": headers}
                expected = plain.read(f"{asked.url}/f", **options)
                assert first.read(f"{asked.url}/f", **options) == expected
                assert second.read(f"{asked.url}/f", **options) == expected

        check()


def by(who: str, **options: object) -> Any:
    return fsspec.filesystem("http", client_kwargs={"headers": {"Authorization": who}}, **options)


@pytest.mark.parametrize("validate", ["open", 60.0])
@pytest.mark.parametrize("many", [False, True])
def test_whom_the_origin_refuses_is_refused(
    asked: Asked, active: Callable[..., Session], validate: str | float, many: bool
) -> None:
    asked.refused = {"mallory"}
    session = active(validate=validate)
    urls = [f"{asked.url}/{i}" for i in range(3)] if many else [f"{asked.url}/f"]
    for who in ("alice", "bob"):
        fs = by(who)
        assert (
            list(fs.cat(urls).values()) == [content(url.removeprefix(asked.url)) for url in urls]
            if many
            else [fs.cat_file(urls[0])] == [content("/f")]
        )
        session.recorder.flush(10)
    assert asked.bodies() == len(urls)  # one copy for both
    with pytest.raises((aiohttp.ClientResponseError, FileNotFoundError)):
        by("mallory").cat(urls) if many else by("mallory").cat_file(urls[0])
    with pytest.raises((aiohttp.ClientResponseError, FileNotFoundError)):
        by("mallory").cat_ranges([urls[0]], [0], [10], on_error="raise")
    asked.log.clear()
    assert by("alice").cat_file(urls[0]) == content(urls[0].removeprefix(asked.url))
    assert asked.log == []  # she has validated it


OWN = [
    {"Vary": "Authorization"},
    {"Vary": "X-Auth-Token"},
    {"Vary": "accept, COOKIE"},
    {"Cache-Control": "max-age=5, Private"},
    {"Vary": "*"},
]


@pytest.mark.parametrize("headers", OWN, ids=str)
@pytest.mark.parametrize("many", [False, True])
def test_what_is_for_one_asker_has_a_journal_of_its_own(
    asked: Asked, active: Callable[..., Session], cache_dir: Path, headers: dict[str, str], many: bool
) -> None:
    asked.varies = ("Authorization",)
    asked.headers = headers
    secrets = ("hunter2-alice", "hunter2-bob", "")

    def read(fs: Any) -> bytes:
        if many:
            return next(iter(fs.cat([f"{asked.url}/f", f"{asked.url}/g"]).values()))
        return (
            fs.cat_file(f"{asked.url}/f")
            if fs.client_kwargs["headers"]["Authorization"]
            else b"".join(fs.cat_ranges([f"{asked.url}/f"] * 2, [0, 300], [300, 600]))
        )

    for validate in ("open", "open", "never"):
        active(validate=validate)
        asked.log.clear()
        for who in secrets:
            assert read(by(who)) == content("/f", who)
    assert asked.log == []  # all three have theirs
    active(offline=True)
    assert read(by(secrets[1])) == content("/f", secrets[1])
    with pytest.raises(OSError, match="JCACHE_OFFLINE"):
        read(by("hunter2-mallory"))
    for directory, _, names in os.walk(cache_dir):
        assert "hunter2" not in directory
        for name in names:
            assert b"hunter2" not in (Path(directory) / name).read_bytes()


@pytest.mark.parametrize("headers", [*OWN, {"Cache-Control": "no-store"}], ids=str)
@pytest.mark.parametrize("many", [False, True])
def test_where_a_redirect_leads_each_who_asks_is_his_own(
    asked: Asked, active: Callable[..., Session], headers: dict[str, str], many: bool
) -> None:
    asked.redirects, asked.headers = True, headers
    url = f"{asked.url}/f"
    for validate in ("open", "never"):
        active(validate=validate)
        asked.log.clear()
        for who in ("alice", "bob"):
            right = content(f"/of/{who}/f")
            got = by(who).cat_ranges([url] * 2, [0, 300], [300, SIZE]) if many else [by(who).cat_file(url)]
            assert b"".join(got) == right
    assert asked.log == []


def test_urls_that_two_tenants_have_signed_are_apart(asked: Asked, active: Callable[..., Session]) -> None:
    """But for Amazon's own, where the name of a bucket is unique in the world."""
    signed = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}/20240101/x&X-Amz-Date=1&X-Amz-Signature={}"
    older = "AWSAccessKeyId={}&Expires=1&Signature={}"
    for name, query in ("k", signed), ("l", older):
        one, again, other = (f"/b/{name}?{query.format(*who)}" for who in (("A", 1), ("A", 2), ("B", 3)))
        for paths in ((one, again), (other,)):
            for path in paths:
                active(validate="never")
                assert fsspec.filesystem("http").cat_file(asked.url + path) == content(paths[0])
        ours, theirs = (identify("https", f"https://b.s3.amazonaws.com{path}", {}) for path in (one, other))
        assert ours.owner == theirs.owner == ""


def test_what_must_not_be_stored_is_not(asked: Asked, active: Callable[..., Session], cache_dir: Path) -> None:
    asked.headers = {"Cache-Control": "no-store"}
    for _ in range(2):
        session = active()
        urls = [f"{asked.url}/f", f"{asked.url}/g"]
        fs = fsspec.filesystem("http")
        assert fs.cat_file(urls[0]) == content("/f")
        assert list(fs.cat(urls).values()) == [content("/f"), content("/g")]
        assert fs.cat_ranges([urls[1]], [5], [9]) == [content("/g")[5:9]]
        with fs.open(urls[0]) as file:
            assert file.read() == content("/f")
        counts = session.counters.snapshot()
        assert counts.read_hit == counts.readv_hit == counts.recorded_bytes == 0
    active(offline=True)
    assert not [name for _, _, names in os.walk(cache_dir) for name in names if name.startswith("@s")]


def test_a_rule_sets_all_that_aside(asked: Asked, active: Callable[..., Session]) -> None:
    asked.headers = {"Cache-Control": "no-store, private", "Vary": "Authorization"}
    rules = (Rule(url=f"{asked.url}/*", shared=True, ignore_query=("nonce",)),)
    active(rules=rules)
    assert by("alice").cat_file(f"{asked.url}/f?nonce=1&x=2") == content("/f?nonce=1&x=2")
    active(rules=rules)
    assert by("bob").cat_file(f"{asked.url}/f?x=2&nonce=3") == content("/f?nonce=1&x=2")
    assert by("bob").cat_file(f"{asked.url}/f?x=3&nonce=3") == content("/f?x=3&nonce=3")
    assert asked.bodies() == 2
    active()
    assert by("bob").cat_file(f"{asked.url}/f?x=2&nonce=3") == content("/f?x=2&nonce=3")


def test_a_header_that_only_looks_like_a_credential_decides(asked: Asked, active: Callable[..., Session]) -> None:
    """Its server says nothing of it; nor does the disk."""
    asked.varies = ("X-Odd-Token",)
    for _ in range(2):
        active(validate="never")
        for value in ("one", "two"):
            fs = fsspec.filesystem("http", headers={"X-Odd-Token": value})
            assert fs.cat_file(f"{asked.url}/f") == content("/f", value)
    assert asked.bodies() == 2


def test_two_who_ask_at_the_same_time_share_a_journal(asked: Asked, active: Callable[..., Session]) -> None:
    session = active()
    alice, bob = by("alice"), by("bob")
    for start in range(0, SIZE, 100):
        for fs in (alice, bob):
            fs.cat_file(f"{asked.url}/f", start, start + 100)
        session.recorder.flush(10)
    assert bob.cat_file(f"{asked.url}/f") == alice.cat_file(f"{asked.url}/f") == content("/f")
    active(validate="never")
    asked.log.clear()
    assert by("carol").cat_file(f"{asked.url}/f") == content("/f")
    assert asked.log == []


@pytest.mark.parametrize("way", ["cat_file", "cat", "open", "cat_ranges"])
@pytest.mark.parametrize("validate", ["open", "never", 60.0])
def test_an_empty_file_is_there_offline(
    asked: Asked, active: Callable[..., Session], cache_dir: Path, way: str, validate: str | float
) -> None:
    def read() -> list[bytes]:
        fs = fsspec.filesystem("http")
        if way == "open":
            with fs.open(urls[0]) as file:
                return [file.read()]
        if way == "cat":
            return list(fs.cat(urls).values())
        return [fs.cat_file(urls[0])] if way == "cat_file" else fs.cat_ranges([urls[0]], [0], [10])

    urls = [f"{asked.url}/empty/{i}" for i in range(2)]
    active(validate=validate)
    first = read()
    assert not any(first)
    for fields in ({}, {"offline": True}):
        session = active(validate=validate, **fields)
        assert read() == first
        assert session.counters.snapshot().failures == 0
    journals = [names for at, _, names in os.walk(cache_dir / "http") if "@" in "".join(names) and "%=" not in at]
    assert sum(map(len, journals)) == len(first)
    runner = CliRunner()
    assert runner.invoke(main, ["verify", str(cache_dir)]).exit_code == 0
    assert "empty" in runner.invoke(main, ["ls", "--dir", str(cache_dir)]).output


class Plain:
    kwargs: ClassVar[dict[str, Any]] = {"headers": {"Origin": "x"}}
    client_kwargs: ClassVar[dict[str, Any]] = {"headers": {"User-Agent": "y", "X-Tenant": "z"}}


@pytest.mark.parametrize(
    ("headers", "sharing"),
    [
        ({}, "all"),
        ({"Vary": "Accept-Encoding, Accept"}, "all"),
        ({"Vary": "X-Tenant"}, "all"),  # its identity has it
        ({"Vary": "origin"}, "asker"),
        ({"Vary": "Referer"}, "all"),  # none was sent
        ({"Vary": "Accept,User-Agent"}, "asker"),
        ({"Vary": "authorization"}, "asker"),
        ({"Vary": "X-Auth-Token"}, "asker"),  # others may send one
        ({"Cache-Control": "public, max-age=3"}, "all"),
        ({"Cache-Control": 'private="set-cookie"'}, "asker"),
        ({"Cache-Control": "no-cache, must-revalidate"}, "all"),
        ({"Cache-Control": "No-Store", "Vary": "Cookie"}, "nobody"),
    ],
)
def test_for_whom_an_answer_is(headers: dict[str, str], sharing: str) -> None:
    assert sharing_of(headers, Plain) == sharing


def test_fingerprints(tmp_path: Path) -> None:
    assert fingerprint({}) == fingerprint({"a": None, "b": {}}) == ""
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})
    assert fingerprint({"a": {"b": 1}, "c": 2}) != fingerprint({"a": {"b": 1, "c": 2}})
    assert fingerprint({"client_kwargs": {"timeout": Odd()}}) == ""
    one, other = Odd(), Odd()
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    assert fingerprint(one).startswith(UNSTABLE)
    assert who_asks({"block_size": 1, "anon": False}, {}) == who_asks({}, {}) == ""
    assert who_asks({}, {"BEARER_TOKEN": "x"}) != who_asks({}, {"BEARER_TOKEN": "y"})
    assert who_asks({"token": "x"}, {}) != who_asks({"token": "y"}, {}) != who_asks({"anon": True}, {})
    netrc = tmp_path / "netrc"
    logged_in = {"client_kwargs": {"trust_env": True}}
    assert who_asks(logged_in, {"NETRC": str(netrc)}) == ""
    netrc.write_text("machine a login me password hunter2")
    told = who_asks(logged_in, {"NETRC": str(netrc)})
    assert told
    assert "hunter2" not in told
    assert who_asks({"client_kwargs": {"trust_env": False}}, {"NETRC": str(netrc)}) == who_asks({}, {}) == ""
    netrc.write_text("machine a login you password hunter3")
    assert who_asks(logged_in, {"NETRC": str(netrc)}) != told
    assert "hunter2" not in who_asks({"token": "hunter2"}, {})


class Odd:
    pass


def test_a_key_of_the_cache_hides_who_has_what(tmp_path: Path) -> None:
    identity = identify("s3", "b/k", {"key": "AKIA1", "endpoint_url": "http://ceph"}, environ={})
    other = identify("s3", "b/k", {"key": "AKIA2", "endpoint_url": "http://ceph"}, environ={})
    nobody = identify("s3", "b/k", {"anon": True, "endpoint_url": "http://ceph"}, environ={})
    assert identity.key == other.key == nobody.key
    caches = [Cache(tmp_path / name) for name in "ab"]
    for cache in caches:
        cache.prepare()
        assert not cache.has_owned
    places = {cache.path(one) for cache in caches for one in (identity, other, nobody)}
    assert len(places) == 6
    assert len({os.path.basename(place) for place in places}) == 5  # nobody's have plain names
    again = Cache(tmp_path / "a")
    again.prepare()
    assert again.path(identity) == caches[0].path(identity)
    assert (tmp_path / "a" / ".key").stat().st_mode & 0o777 == 0o600
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "a" / ".key").unlink()
    (tmp_path / "a" / ".key").write_bytes(b"short")
    strange = Cache(tmp_path / "a")
    strange.prepare()
    assert strange.path(identity) not in places


AWS = [{}, {"endpoint_url": "https://s3.eu-west-1.amazonaws.com"}, {"client_kwargs": {"region_name": "cn-north-1"}}]


@pytest.mark.parametrize("options", AWS, ids=str)
def test_at_amazon_a_bucket_is_one_whoever_asks(options: dict[str, Any]) -> None:
    environ = {"HOME": "/nonexistent"}
    assert identify("s3", "b/k", {**options, "key": "AKIA1"}, environ=environ).owner == ""


def test_elsewhere_the_access_key_decides_as_the_client_finds_it(tmp_path: Path) -> None:
    home = tmp_path / ".aws"
    home.mkdir()
    (home / "credentials").write_text("[default]\naws_access_key_id = AKIA1\n[lab]\naws_access_key_id=AKIA2\n")
    (home / "config").write_text("[profile other]\naws_access_key_id = AKIA3\n")

    def owner(environ: dict[str, str] | None = None, **options: object) -> str:
        everything = {"endpoint_url": "http://minio:9000", **options}
        return identify("s3", "b/k", everything, environ={"HOME": str(tmp_path), **(environ or {})}).owner

    first = owner()
    assert first
    assert first == owner(key="AKIA1") == owner(client_kwargs={"aws_access_key_id": "AKIA1"}) == owner(username="AKIA1")
    assert first == owner({"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_PROFILE": "x"}) == owner(profile="default")
    second, third = owner(profile="lab"), owner({"AWS_PROFILE": "other"})
    assert second == owner({"AWS_PROFILE": "lab"}) == owner(key="AKIA2", secret="s")
    assert len({first, second, third, owner(anon=True)}) == 4
    assert owner(anon=True) == owner(HOME="") == "" or owner(anon=True) == ""


def test_versions_and_tenants_of_s3_are_apart(tmp_path: Path, active: Callable[..., Session]) -> None:
    s3fs = pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    from s3_servers import KEYS, Moto

    with Moto(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        store = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1")
        store.create_bucket(Bucket="kept")
        store.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        old = store.put_object(Bucket="kept", Key="k", Body=b"old")["VersionId"]
        store.put_object(Bucket="kept", Key="k", Body=b"new")
        path = f"kept/k?versionId={old}"

        def read(**options: object) -> bytes:
            fs = s3fs.S3FileSystem(endpoint_url=server.url, skip_instance_cache=True, **options)
            return fs.cat_file(path)

        expected = [read(version_aware=aware) for aware in (True, False, True)]
        assert expected == [b"old", b"new", b"old"]
        for _ in range(2):
            active(validate="never")
            assert [read(version_aware=aware) for aware in (True, False, True)] == expected
        # Another key may mean another tenant, whose bucket of that name is another one.
        server.requests()
        assert read(version_aware=True) == b"old"
        assert not server.requests()
        assert read(version_aware=True, key="AKIA2", secret="s") == b"old"
        assert server.requests()
        active(offline=True)
        with pytest.raises(OSError, match="JCACHE_OFFLINE"):
            read(version_aware=True, key="AKIA3", secret="s")
        for fields in ({}, {"offline": True}):
            active(rules=(Rule(url="s3://kept/*", shared=True),), **fields)
            assert read(version_aware=True, key=f"AKIA{len(fields)}", secret="s") == b"old"
