"""From the addresses in profiles and on command lines to file systems."""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fsspec.config import conf
from fsspec.core import split_protocol, url_to_fs

from jcache.naming.address import endpoint

__all__ = ["PlaceError", "Places"]

# What else than its path tells an object from others; addresses in reports end with it.
_MARK = re.compile(r" ~[0-9a-f]+\Z")
# Stores whose objects are named without their endpoint, and where that is configured.
_STORES = {"s3": "s3", "s3a": "s3"}


class PlaceError(Exception):
    """An address leads to no file system; the message is one line that names it."""


class Places:
    """Finds the file system and path of an address, each file system once. Threads may use one instance.

    Args:
        maps: Beginnings of addresses, and what stands in their place; the first that fits holds.
        options: Of fsspec's file systems, by protocol.
    """

    def __init__(
        self, maps: Sequence[tuple[str, str]] = (), options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._maps = list(maps)
        self._options = dict(options or {})
        self._found: dict[str, tuple[Any, str]] = {}
        self._lock = threading.Lock()

    def mapped(self, address: str) -> str:
        """Return the URL by which a program opens what has an address in a report."""
        url = _MARK.sub("", address)
        for old, new in self._maps:
            if url.startswith(old):
                return new + url[len(old) :]
        scheme, rest = split_protocol(url)
        store = _STORES.get(scheme or "")
        if store is None:
            return url
        where, slash, path = rest.partition("/")
        given = {**conf.get(store, {}), **self._options.get(scheme, {})}.get("endpoint_url")
        return f"{scheme}://{path}" if slash and given and endpoint(str(given)) == where else url

    def find(self, address: str) -> tuple[Any, str]:
        """Return the file system, and the path in it.

        Raises:
            PlaceError: There is none.
        """
        with self._lock:
            found = self._found.get(address)
        if found is not None:
            return found
        url = self.mapped(address)
        scheme = split_protocol(url)[0]
        try:
            if scheme is None:
                raise PlaceError(f"{url} names no protocol: --map has it begin with another address")
            found = url_to_fs(url, **self._options.get(scheme, {}))
        except (ValueError, ImportError, OSError) as error:
            raise PlaceError(f"{url}: {error}") from error
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
