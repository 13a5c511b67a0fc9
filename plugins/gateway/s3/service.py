"""S3's operations that read: objects, what is in a bucket, and which buckets there are."""

import contextlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote
from xml.etree import ElementTree as ET

from aiohttp import web

from jcache_plugins.gateway.answers import answer_file
from jcache_plugins.gateway.conditions import CacheControl, entity_tag
from jcache_plugins.gateway.exchange import Exchange
from jcache_plugins.gateway.failures import status_of
from jcache_plugins.gateway.places import Place
from jcache_plugins.gateway.s3.listings import MOST_KEYS, Listings, Wanted, key_of, token_of
from jcache_plugins.gateway.s3.signatures import Asked, Keys, RefusedSignatureError
from jcache_plugins.gateway.targets import Mounted, mounted
from jcache_plugins.origins.base import version_of

__all__ = ["Service"]

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XML = "application/xml"
# Parameters of a request for an object that ask for nothing else: what a client calls its operation, how long it waits.
IDLE = frozenset({"x-id"})
SIGNED = "X-Amz-"
MOST_PARAMETERS = 64
# How errors are called that have a status, and what clients make of others.
_CODES = {
    304: "NotModified",
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    412: "PreconditionFailed",
    416: "InvalidRange",
    501: "NotImplemented",
    502: "InternalError",
    503: "SlowDown",
    504: "ServiceUnavailable",
}
_STATUSES = {"InvalidArgument": 400, "NoSuchBucket": 404, "AuthorizationHeaderMalformed": 400}
_UNDATED = "1970-01-01T00:00:00.000Z"


class Service:
    """Answers requests of S3's clients from one place, whose directories of the first level are the buckets.

    Args:
        place: The place.
        keys: Those that may; None for all.
    """

    def __init__(self, place: Place, keys: Keys | None) -> None:
        self._place = place
        self._keys = keys
        self._listings = Listings(place)

    async def answer(self, exchange: Exchange, target: Mounted) -> web.StreamResponse:
        """Answer a request; what fails before anything is sent is told in the words of S3."""
        try:
            return await self._answer(exchange, target)
        except RefusedSignatureError as error:
            return failed(exchange, _STATUSES.get(error.code, 403), error.code, str(error))
        except Exception as error:
            status = status_of(error)
            if exchange.is_begun or (status == 502 and not isinstance(error, OSError)):
                raise
            code = _CODES.get(status, "InternalError")
            if status == 404 and not await self._is_bucket(target.names[0]):
                code = "NoSuchBucket"
            return failed(exchange, status, code)

    async def _answer(self, exchange: Exchange, target: Mounted) -> web.StreamResponse:
        request = exchange.request
        try:
            query = parse_qsl(target.query.removeprefix("?"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
        except ValueError:
            return failed(exchange, 400)
        if self._keys is not None:
            # Of a URL, which a client sends that takes the gateway for its proxy as well, the path is signed.
            self._keys.check(Asked(request.method, f"/{target.raw}", query, exchange.fields.get))
        asked = {name: value for name, value in query if name not in IDLE and not name.startswith(SIGNED)}
        bucket, *rest = target.names
        if CacheControl.of(exchange.fields).only_if_cached and (not rest or rest == [""]):
            return failed(exchange, 504)
        if not bucket:
            return await self._buckets(exchange) if not rest and not asked else failed(exchange, 501)
        if not rest or rest == [""]:
            return await self._bucket(exchange, bucket, asked)
        if set(asked) - {name for name in asked if name.startswith("response-")}:
            return failed(exchange, 501)
        if target.is_directory:
            raise FileNotFoundError
        path = self._place.path(Mounted(target.names, raw=target.raw))
        response: web.StreamResponse = await answer_file(exchange, self._place, path, empty_has_none=True)
        if response.status in {412, 416} and not response.prepared:
            kept = {name: response.headers[name] for name in ("ETag", "Content-Range") if name in response.headers}
            return failed(exchange, response.status, headers=kept)
        return response

    async def _is_bucket(self, name: str) -> bool:
        return await self._place.is_directory(mounted(quote(name)))

    async def _buckets(self, exchange: Exchange) -> web.Response:
        root = element("ListAllMyBucketsResult", {"Owner": {"ID": "jcache", "DisplayName": "jcache"}})
        buckets = ET.SubElement(root, "Buckets")
        for name, said in await self._listings.buckets():
            buckets.append(element("Bucket", {"Name": name, "CreationDate": modified_of(said)}))
        return told(exchange, root)

    async def _bucket(self, exchange: Exchange, bucket: str, asked: dict[str, str]) -> web.Response:
        if exchange.request.method == "HEAD":
            if not await self._is_bucket(bucket):
                raise FileNotFoundError
            return exchange.plain(200, headers_of(exchange) | {"x-amz-bucket-region": "us-east-1"})
        if set(asked) == {"location"}:
            if not await self._is_bucket(bucket):
                raise FileNotFoundError
            return told(exchange, element("LocationConstraint", {}))
        if set(asked) == {"versioning"}:
            return told(exchange, element("VersioningConfiguration", {}))
        known = {"list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after", "encoding-type"}
        if set(asked) - (known | {"marker", "fetch-owner"}) or asked.get("list-type", "2") != "2":
            return failed(exchange, 501)
        try:
            return told(exchange, await self._page(bucket, asked))
        except ValueError as error:
            return failed(exchange, 400, "InvalidArgument", str(error))

    async def _page(self, bucket: str, asked: Mapping[str, str]) -> ET.Element:
        token, is_second = asked.get("continuation-token"), asked.get("list-type") == "2"
        if not asked.get("max-keys", "0").isdecimal() or asked.get("encoding-type", "url") != "url":
            raise ValueError("max-keys is a number, and encoding-type is url")
        most = min(int(asked.get("max-keys", MOST_KEYS)), MOST_KEYS)
        after = key_of(token) if token else asked.get("start-after" if is_second else "marker", "")
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        goes_on = bool(token or after) if not is_second else bool(token)
        page = await self._listings.page(Wanted(bucket, prefix, delimiter, after, most, goes_on))
        spelt = quote_key if "encoding-type" in asked else str
        fields: dict[str, Any] = {"Name": bucket, "Prefix": spelt(prefix), "MaxKeys": most}
        fields |= {"Delimiter": spelt(delimiter)} if delimiter else {}
        fields |= {"EncodingType": "url"} if "encoding-type" in asked else {}
        fields["IsTruncated"] = "false" if page.last is None else "true"
        if is_second:
            fields["KeyCount"] = len(page.contents) + len(page.prefixes)
            fields |= {"ContinuationToken": token} if token else {}
            fields |= {"StartAfter": spelt(asked["start-after"])} if "start-after" in asked else {}
            fields |= {} if page.last is None else {"NextContinuationToken": token_of(page.last)}
        else:
            fields["Marker"] = spelt(after)
            fields |= {} if page.last is None else {"NextMarker": spelt(page.last)}
        root = element("ListBucketResult", fields)
        root.extend(element("Contents", content(spelt(key), said)) for key, said in page.contents)
        root.extend(element("CommonPrefixes", {"Prefix": spelt(one)}) for one in page.prefixes)
        return root


def content(key: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a listing says of an object."""
    tag = entity_tag(version_of(said))
    size = said["size"]
    return {"Key": key, "LastModified": modified_of(said), "ETag": tag, "Size": size, "StorageClass": "STANDARD"}


def modified_of(said: Mapping[str, Any]) -> str:
    """Return when something was modified, as S3 spells it; the beginning of all time where that is not known."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        mtime_ns = version_of({"size": 0, **said}).mtime_ns
        if mtime_ns is not None:
            return datetime.fromtimestamp(mtime_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return _UNDATED


def quote_key(key: str) -> str:
    """Return a key as a listing has it whose client wants it so: XML has no way to spell some."""
    return quote(key, safe="/")


def element(name: str, fields: Mapping[str, Any]) -> ET.Element:
    """Return an element with others in it, of these names and texts."""
    made = ET.Element(name)
    for field, value in fields.items():
        if isinstance(value, Mapping):
            made.append(element(field, value))
        else:
            ET.SubElement(made, field).text = printable(str(value))
    return made


def printable(text: str) -> str:
    """Return a text without what cannot be in XML."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def headers_of(exchange: Exchange) -> dict[str, str]:
    """Return the header fields of all answers to clients of S3."""
    return exchange.headers() | {"x-amz-request-id": secrets.token_hex(8)}


def told(exchange: Exchange, root: ET.Element) -> web.Response:
    """Return an answer that is a document."""
    root.set("xmlns", NAMESPACE)
    return document(exchange, 200, root, {"Cache-Control": "no-cache"})


def failed(
    exchange: Exchange,
    status: int,
    code: str | None = None,
    text: str = "",
    *,
    headers: Mapping[str, str] = {},
) -> web.Response:
    """Return an answer that says what is wrong."""
    code = code or _CODES.get(status, "InternalError")
    return document(exchange, status, element("Error", {"Code": code, "Message": text or code}), headers)


def document(exchange: Exchange, status: int, root: ET.Element, headers: Mapping[str, str]) -> web.Response:
    """Return an answer with XML in it, of which HEAD gets the header only."""
    text = '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")
    return exchange.plain(status, {**headers_of(exchange), **headers, "Content-Type": XML}, text)
