"""What is in a bucket: names in the order of S3, page by page, out of what file systems list."""

import asyncio
import base64
import binascii
import bisect
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from jcache_plugins.gateway.places import Place
from jcache_plugins.gateway.targets import mounted

__all__ = ["Listings", "Page", "Wanted", "key_of", "token_of"]

MOST_KEYS = 1000
# Who asks for the next page of a listing gets it of the same, of so many, for so long.
KEPT, KEPT_S = 16, 60.0
# So many names of a page are asked for their size at once, where the listing does not tell it.
AT_ONCE = 32
# What a name is, by its name, in the order of names.
Named = Sequence[tuple[str, Mapping[str, Any]]]


class Wanted(NamedTuple):
    """Which page of a bucket is wanted.

    Attributes:
        bucket: Its name.
        prefix: Of the keys.
        delimiter: Where keys are cut; what they have in common up to it is told once. Empty for nowhere.
        after: The key, or what keys have in common, behind which the page begins.
        most: How many keys and prefixes.
        goes_on: Whether a page was there before.
    """

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    most: int = MOST_KEYS
    goes_on: bool = False


class Page(NamedTuple):
    """A page of a bucket.

    Attributes:
        contents: Keys, each with what the file system says of it.
        prefixes: What keys have in common.
        last: The last one of both, where there is more behind it.
    """

    contents: list[tuple[str, Mapping[str, Any]]]
    prefixes: list[str]
    last: str | None


class Listings:
    """Lists buckets of a place, which are the directories in its first level.

    Args:
        place: Where they are.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept: dict[tuple[str, bool], tuple[float, Named]] = {}

    async def buckets(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the names of all buckets, in order.

        Raises:
            Exception: Whatever the file system raises.
        """
        top = mounted("")
        below = relative(await self._place.entries(top), self._place.path(top), urls=self._place.is_http)
        return sorted((name.rstrip("/"), said) for name, said in below if said.get("type") == "directory")

    async def page(self, wanted: Wanted) -> Page:
        """Return a page of a bucket.

        Raises:
            FileNotFoundError: There is no such bucket.
            Exception: Whatever the file system raises.
        """
        named = await self._named(wanted, wanted.prefix.rpartition("/")[0], deep=wanted.delimiter != "/")
        page = cut(named, wanted)
        return page._replace(contents=await self._sized(page.contents, wanted.bucket))

    async def _named(self, wanted: Wanted, directory: str, *, deep: bool) -> Named:
        bucket = f"{wanted.bucket}/"
        key = f"{bucket}{directory}/" if directory else bucket, deep
        kept = self._kept.get(key)
        if wanted.goes_on and kept is not None and time.monotonic() - kept[0] < KEPT_S:
            return kept[1]
        # An index page is one by its slash; XRootD's would have it twice in the names below.
        target = mounted(quote(key[0] if self._place.is_http else key[0].rstrip("/")))
        try:
            found = await (self._place.below(target) if deep else self._place.entries(target))
        except (FileNotFoundError, NotADirectoryError):
            if not directory or not await self._place.is_directory(mounted(quote(wanted.bucket))):
                raise
            found = []
        if not found and not directory and not await self._place.is_directory(mounted(quote(wanted.bucket))):
            raise FileNotFoundError(wanted.bucket)
        base = self._place.path(mounted(quote(bucket)))
        named = sorted(relative(found, base, urls=self._place.is_http), key=itemgetter(0))
        self._kept[key] = time.monotonic(), named
        while len(self._kept) > KEPT:
            self._kept.pop(next(iter(self._kept)))
        return named

    async def _sized(
        self, contents: Sequence[tuple[str, Mapping[str, Any]]], bucket: str
    ) -> list[tuple[str, Mapping[str, Any]]]:
        """Return keys with their sizes, without those that have none."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def sized(key: str, said: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
            if isinstance(said.get("size"), int):
                return key, said
            async with limit:
                try:
                    told = await self._place.told(mounted(quote(f"{bucket}/{key}")))
                except OSError:
                    return None
            return (key, told) if isinstance(told.get("size"), int) else None

        found = await asyncio.gather(*(sized(*one) for one in contents))
        return [one for one in found if one is not None]


def relative(found: Iterable[Mapping[str, Any]], base: str, *, urls: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return what a file system lists by the names that it has below a base, with a slash behind a directory's."""
    base = unquote(urlsplit(base).path) if urls else base
    base = base.strip("/")
    for said in found:
        name = str(said.get("name", ""))
        name = (unquote(urlsplit(name).path) if urls else name).strip("/")
        if base and not name.startswith(f"{base}/"):
            continue
        name = name[len(base) + 1 :] if base else name
        if name:
            yield (f"{name}/" if said.get("type") == "directory" else name), said


def cut(named: Named, wanted: Wanted) -> Page:
    """Return a page out of names that are in order."""
    contents: list[tuple[str, Mapping[str, Any]]] = []
    prefixes: list[str] = []
    last: str | None = None
    begin = bisect.bisect_left(named, max(wanted.prefix, wanted.after), key=itemgetter(0))
    for name, said in itertools.islice(named, begin, None):
        if not name.startswith(wanted.prefix):
            break
        end = name.find(wanted.delimiter, len(wanted.prefix)) if wanted.delimiter else -1
        shown = name if end < 0 else name[: end + len(wanted.delimiter)]
        if (shown if wanted.goes_on else name) <= wanted.after or (prefixes and shown == prefixes[-1]):
            continue
        if end < 0 and name.endswith("/"):
            continue  # a directory is no key
        if len(contents) + len(prefixes) == wanted.most:
            return Page(contents, prefixes, last)
        if end < 0:
            contents.append((name, said))
        else:
            prefixes.append(shown)
        last = shown
    return Page(contents, prefixes, None)


def token_of(key: str) -> str:
    """Return the token of a page that begins behind a key."""
    return base64.urlsafe_b64encode(key.encode("utf-8", "surrogateescape")).decode()


def key_of(token: str) -> str:
    """Return behind which key a token's page begins.

    Raises:
        ValueError: It is none.
    """
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, UnicodeError):
        raise ValueError("the continuation token is none of this gateway's") from None
