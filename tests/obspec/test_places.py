"""An object has the name that fsspec's file system has for it, by whatever settings a store got there."""

from __future__ import annotations

import inspect
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")

import obstore
from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store

from jcache.naming import Unidentifiable
from jcache.naming.identity import identify
from jcache_plugins.obspec.calls import of_get, of_head, of_range, of_ranges, understood
from jcache_plugins.obspec.places import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jcache.naming import Identity

OWN = "http://store.example:9000"
KEYS = {"access_key_id": "key", "secret_access_key": "secret"}
HTTP = {"client_options": {"allow_http": True}}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "AZURITE_")):
            monkeypatch.delenv(name)


def of(store: Any, path: str) -> Identity:
    place = place_of(store)
    assert place is not None
    name = place.path(path)
    assert name is not None
    protocol = name.partition(":")[0] if place.is_http else place.protocols[0]
    return identify(protocol, name, place.options, environ=place.environ)


def by_fsspec(protocol: str, path: str, options: Mapping[str, object] | None = None) -> Identity:
    return identify(protocol, path, options or {})


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        (KEYS, {"key": "key", "secret": "secret"}),
        ({"skip_signature": True}, {"anon": True}),
        ({"region": "eu-west-1", **KEYS}, {"client_kwargs": {"region_name": "eu-west-1"}, "key": "key"}),
        ({"region": "cn-north-1", **KEYS}, {"client_kwargs": {"region_name": "cn-north-1"}, "key": "key"}),
        ({"endpoint": OWN, **KEYS, **HTTP}, {"endpoint_url": OWN, "key": "key", "secret": "secret"}),
        ({"aws_endpoint_url": OWN, **KEYS, **HTTP}, {"endpoint_url": OWN, "key": "key"}),
        ({"endpoint": OWN, "skip_signature": True, **HTTP}, {"endpoint_url": OWN, "anon": True}),
        (
            {"endpoint": "http://bucket.store.example:9000", "virtual_hosted_style_request": True, **KEYS, **HTTP},
            {"endpoint_url": OWN, "key": "key"},
        ),
        ({"endpoint": OWN, "client_options": {"allow_http": True, "default_headers": {"User-Agent": "x"}}, **KEYS},
         {"endpoint_url": OWN, "key": "key"}),
    ],
)  # fmt: skip
def test_s3(settings: dict[str, Any], options: dict[str, Any]) -> None:
    for prefix in ("", "a/b/"):
        mine = of(S3Store("bucket", prefix=prefix or None, **settings), "c/d e%20=f.bin")
        theirs = by_fsspec("s3", f"bucket/{prefix}c/d e%20=f.bin", options)
        assert (mine, mine.owner, mine.url) == (theirs, theirs.owner, theirs.url)


def test_what_a_store_leaves_open_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    plain = by_fsspec("s3", "bucket/f", {"key": "key"})
    assert of(S3Store("bucket"), "f") == plain
    monkeypatch.setenv("AWS_ENDPOINT_URL", OWN)
    theirs = by_fsspec("s3", "bucket/f")
    mine = of(S3Store("bucket", **HTTP), "f")
    assert (mine, mine.owner) == (theirs, theirs.owner)
    assert mine != plain
    # To obstore this one goes before what it is told.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://other.example:9000")
    theirs = by_fsspec("s3", "bucket/f")
    assert of(S3Store("bucket", endpoint=OWN, **HTTP), "f") == theirs
    with pytest.raises(Exception, match=r"http://other\.example:9000/bucket/f"):
        S3Store("bucket", endpoint=OWN, retry_config={"max_retries": 0}, **HTTP).head("f")


def test_who_asks_at_an_endpoint_of_ones_own_decides_and_at_amazons_does_not() -> None:
    other = {**KEYS, "access_key_id": "other"}
    assert of(S3Store("bucket", endpoint=OWN, **KEYS, **HTTP), "f").owner
    stores = [S3Store("bucket", endpoint=OWN, **keys, **HTTP) for keys in (KEYS, other)]
    assert len({of(store, "f").owner for store in stores}) == 2
    assert of(S3Store("bucket", **KEYS), "f").owner == of(S3Store("bucket", **other), "f").owner == ""


@pytest.mark.parametrize(
    ("url", "path", "theirs"),
    [
        ("http://host.example", "a/b.bin", "http://host.example/a/b.bin"),
        ("http://host.example/", "a/b.bin", "http://host.example/a/b.bin"),
        ("https://host.example:443/dir", "a/b.bin", "https://host.example/dir/a/b.bin"),
        ("http://host.example/dir", "x=1/a+b,c.bin", "http://host.example/dir/x=1/a+b,c.bin"),
        ("http://host.example/dir", "a b?c#d%20", "http://host.example/dir/a%20b%3Fc%23d%2520"),
        ("http://user:secret@host.example/dir", "a", "http://host.example/dir/a"),
    ],
)
def test_http(url: str, path: str, theirs: str) -> None:
    store = HTTPStore(url, retry_config={"max_retries": 0}, **HTTP)
    assert of(store, path) == by_fsspec(theirs.partition(":")[0], theirs)
    assert "secret" not in repr(of(store, path))


def test_headers_decide_over_http_as_for_fsspec() -> None:
    store = HTTPStore("http://h.example", client_options={"allow_http": True, "default_headers": {"X-View": "a"}})
    assert of(store, "f") == by_fsspec("http", "http://h.example/f", {"headers": {"X-View": "a"}})
    assert of(store, "f") != by_fsspec("http", "http://h.example/f")
    place = place_of(HTTPStore("https://h.example", client_options={"default_headers": {"Authorization": "x"}}))
    assert place is not None
    assert place.is_asked_for_one


def test_azure() -> None:
    theirs = by_fsspec("abfs", "box/pre/f", {"account_name": "acc"})
    for store in (
        AzureStore("box", prefix="pre", account_name="acc", account_key="a2V5"),
        AzureStore.from_url("abfs://box@acc.dfs.core.windows.net/pre", account_key="a2V5"),
        AzureStore.from_url("https://acc.blob.core.windows.net/box/pre", skip_signature=True),
    ):
        assert of(store, "f") == theirs
    where = "http://127.0.0.1:10000/devstoreaccount1"
    theirs = by_fsspec("abfs", "box/f", {"connection_string": f"AccountName=devstoreaccount1;BlobEndpoint={where}"})
    assert of(AzureStore("box", use_emulator=True), "f") == theirs
    assert (
        of(AzureStore("box", account_name="devstoreaccount1", endpoint=where, skip_signature=True, **HTTP), "f")
        == theirs
    )


def test_gcs_has_names_of_its_own_for_what_has_other_validators() -> None:
    mine, theirs = of(GCSStore("bucket", skip_signature=True, prefix="a"), "f"), by_fsspec("gs", "bucket/a/f")
    assert mine != theirs
    assert mine.address == theirs.address  # so whoever writes it drops both
    key = {"gcs_base_url": "http://h.example:4443", "disable_oauth": True}
    key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    assert "h.example:4443" in of(GCSStore("bucket", service_account_key=json.dumps(key)), "f").url


@pytest.mark.parametrize(
    "make",
    [
        lambda: S3Store("bucket", endpoint="http://s.example", virtual_hosted_style_request=True, **KEYS, **HTTP),
        lambda: S3Store("bucket", endpoint=OWN, credential_provider=dict, **HTTP),
        lambda: S3Store("bucket", client_options={"default_headers": {"X-View": "a"}}, **KEYS),
        lambda: AzureStore("box", account_name="acc", use_fabric_endpoint=True, skip_signature=True),
        lambda: HTTPStore("https://host.example/dir?x=1"),
    ],
)
def test_where_it_cannot_be_told_nothing_is_said(make: Any) -> None:
    with pytest.raises(Unidentifiable):
        place_of(make())


def test_no_place_is_told_of_stores_that_are_not_remote_and_no_path_that_obstore_changes(tmp_path: Any) -> None:
    for store in (MemoryStore(), LocalStore(tmp_path), object()):
        assert place_of(store) is None
    place = place_of(HTTPStore("https://host.example"))
    assert place is not None
    assert [place.path(path) for path in ("", "/a", "a/", "a//b", ".", "a/../b")] == [None] * 6


@pytest.mark.parametrize(
    ("name", "spec"), [("get", of_get), ("get_range", of_range), ("get_ranges", of_ranges), ("head", of_head)]
)
def test_calls_are_understood_by_the_signatures_of_obstore(name: str, spec: Any) -> None:
    for form in (name, f"{name}_async"):
        theirs = inspect.signature(inspect.unwrap(getattr(obstore, form))).parameters.values()
        mine = inspect.signature(spec).parameters.values()
        assert [(one.name, one.kind, one.default is one.empty) for one in mine] == [
            (one.name, one.kind, one.default is one.empty) for one in theirs
        ]


def test_a_call_that_says_more_than_is_known_here_is_not_understood() -> None:
    for options in (
        {"version": "x"},
        {"if_match": "x"},
        {"head": True},
        {"range": (5, 5)},
        {"range": {"x": 1}},
        {"new": 1},
    ):
        assert understood(of_get, (None, "f"), {"options": options}) is None
    asked = understood(of_get, (None, "f"), {"options": {"if_match": None, "range": [3, 5]}})
    assert asked is not None
    assert asked.span(4) == (3, 4)
    assert asked.span(3) is None
