"""From the URLs that pyxrootd is given to fsspec's file system of their server, and to the path in it."""

import os
from typing import Any, NamedTuple

from XRootD import client

from jcache_plugins.fsspec.hooks import is_remote

__all__ = ["Place", "place_of", "system_of"]

# What the client takes for one protocol. fsspec-xrootd has no TLS (`roots`).
PROTOCOLS = frozenset({"root", "xroot"})

# By process and server: a forked child has an event loop of its own.
_systems: dict[tuple[int, str], Any] = {}


class Place(NamedTuple):
    """A file system of fsspec's, and a path in it."""

    fs: Any
    path: str


def place_of(url: Any) -> Place | None:
    """Return the place that a URL means; None where fsspec-xrootd does not read it."""
    address = client.URL(url) if isinstance(url, str) else None
    fs = None if address is None else _system(address)
    return None if fs is None or address is None else Place(fs, address.path_with_params.rstrip("/") or "/")


def system_of(system: Any) -> Any:
    """Return fsspec's file system of the server that one of pyxrootd's asks; None where there is none."""
    return _system(system.url)


def _system(address: Any) -> Any:
    if address.protocol not in PROTOCOLS or not address.hostid or not address.is_valid():
        return None
    key = os.getpid(), address.hostid
    fs = _systems.get(key)
    if fs is None:
        from fsspec_xrootd import XRootDFileSystem

        # Its own, which keeps no file open that an application closes.
        fs = _systems.setdefault(key, XRootDFileSystem(hostid=address.hostid, skip_instance_cache=True))
    return fs if is_remote(type(fs)) else None
