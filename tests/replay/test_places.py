"""From the addresses in profiles to stores that are configured here, and to no other."""

from __future__ import annotations

import pytest
from fsspec.config import conf

from jcache_plugins.places import PlaceError, Places

ADDRESS = "s3://127.0.0.1:9000/bucket/f"


@pytest.mark.parametrize("how", ["option", "nested option", "environment", "environment of S3", "argument"])
def test_a_store_with_an_endpoint_is_found_however_it_is_configured(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9000"
    given = {"option": {"endpoint_url": url}, "nested option": {"client_kwargs": {"endpoint_url": url}}}
    if how in given:
        monkeypatch.setitem(conf, "s3", given[how])
    elif how.startswith("environment"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3" if how.endswith("S3") else "AWS_ENDPOINT_URL", url)
    places = Places(options={"s3": {"endpoint_url": url}} if how == "argument" else None)
    assert places.mapped(ADDRESS) == "s3://bucket/f"
    assert places.mapped("s3://bucket/f") == "s3://bucket/f"


def test_one_that_is_not_configured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9001")
    with pytest.raises(PlaceError, match=r"no store 127\.0\.0\.1:9000 is configured here"):
        Places().find(ADDRESS)
    assert Places([("s3://127.0.0.1:9000/", "s3://")]).mapped(ADDRESS) == "s3://bucket/f"
