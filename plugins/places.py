"""From the addresses in profiles and on command lines to file systems."""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs
from fsspec.registry import get_filesystem_class

from jcache.naming import Unidentifiable, identify
from jcache.session import current
from jcache_plugins.fsspec.access import access
from jcache_plugins.fsspec.hooks import is_remote

__all__ = ["PlaceError", "Places", "remote_place"]

# What else than its path tells an object from others; addresses in reports end with it.
_MARK = re.compile(r" ~[0-9a-f]+\Z")
# Stores whose objects are named without their endpoint, and where that is configured.
_STORES = {"s3": "s3", "s3a": "s3"}


def _identified(protocol: Any, path: str, options: Mapping[str, Any]) -> str:
    try:
        return identify(protocol, path, options).url
    except Unidentifiable:
        return ""


def _address(fs: Any, path: str) -> str:
    """Return what a file has as its address in reports; empty where that cannot be told."""
    found = access(fs, path) if current() is not None else None
    return _identified(fs.protocol, path, fs.storage_options) if found is None else found.identity.url


class PlaceError(Exception):
    """An address leads to no file system; the message is one line that names it."""


def remote_place(url: str, **options: Any) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it; it keeps no listings of its own, where it can be told so.

    What fsspec itself keeps of listings is never asked for again, and makes some miss what is there.

    Args:
        url: Of a file or a directory at a remote place.
        options: Of fsspec's instances, such as `skip_instance_cache`.

    Raises:
        PlaceError: There is no such file system here, none that is cached, or it cannot be connected to.
    """
    protocol = split_protocol(url)[0]
    try:
        known = get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise PlaceError(f"{protocol}:// is read by no file system here: {error}") from None
    if not is_remote(known):
        raise PlaceError("the origin has to be remote, such as root://host//store or https://host/path")
    try:
        try:
            fs, path = url_to_fs(url, use_listings_cache=False, **options)
        except TypeError:  # it keeps none, and hands on what it is told, as SFTP's
            fs, path = url_to_fs(url, **options)
    except OSError as error:  # it connects as it is made
        raise PlaceError(f"the origin cannot be had: {error}") from None
    return fs, path


class Places:
    """Finds the file system and path of an address, each file system once. Threads may use one instance.

    Args:
        maps: Beginnings of addresses, and what stands in their place; the first that fits holds.
        options: Of fsspec's file systems, by protocol.

    Attributes:
        queries: By address, the query without which the URL is another file's.
    """

    def __init__(
        self, maps: Sequence[tuple[str, str]] = (), options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._maps = list(maps)
        self._options = dict(options or {})
        self.queries: dict[str, str] = {}
        self._found: dict[str, tuple[Any, str]] = {}
        self._lock = threading.Lock()

    def mapped(self, address: str) -> str:
        """Return the URL by which a program opens what has an address in a report.

        Raises:
            PlaceError: It lies in a store that is not configured here.
        """
        url = _MARK.sub("", address)
        if query := self.queries.get(address):
            url += f"?{query}"
        for old, new in self._maps:
            if url.startswith(old):
                return new + url[len(old) :]
        scheme, rest = split_protocol(url)
        store = _STORES.get(scheme or "")
        if store is None:
            return url
        where, slash, path = rest.partition("/")
        options = {**conf.get(store, {}), **self._options.get(scheme, {})}
        if not slash or ("." not in where and ":" not in where):
            return url
        if _identified(store, path, options) == f"{store}://{rest}":
            return f"{scheme}://{path}"
        if ":" in where:
            raise PlaceError(f"{url}: no store {where} is configured here: AWS_ENDPOINT_URL says where it is")
        return url

    def _opened(self, address: str) -> tuple[Any, str]:
        url = self.mapped(address)
        scheme = split_protocol(url)[0]
        if scheme is None:
            raise PlaceError(f"{url} names no protocol: --map has it begin with another address")
        try:
            fs, path = url_to_fs(url, **self._options.get(scheme, {}))
        except (ValueError, ImportError, OSError) as error:
            raise PlaceError(f"{url}: {error}") from error
        mark = _MARK.search(address)
        if mark is not None and not _address(fs, path).endswith(mark[0]):
            raise PlaceError(f"{address}: {url} is another file: its query or options are not in the profile")
        return fs, path

    def find(self, address: str) -> tuple[Any, str]:
        """Return the file system, and the path in it.

        Raises:
            PlaceError: There is none.
        """
        with self._lock:
            found = self._found.get(address)
        if found is not None:
            return found
        found = self._opened(address)
        with self._lock:
            return self._found.setdefault(address, found)

    def expand(self, pattern: str) -> list[str]:
        """Return the addresses that a glob means; of what is no glob, that address itself.

        Raises:
            PlaceError: There is no such file system, or nothing that the glob means.
        """
        if not any(mark in split_protocol(pattern)[1].partition("?")[0] for mark in "*["):
            return [pattern]
        fs, path = self.find(pattern)
        found = [fs.unstrip_protocol(name) for name in fs.glob(path)]
        if not found:
            raise PlaceError(f"nothing matches {pattern}")
        return found
