"""The names below the URL that is mounted: how they are spelt at the origin, and what it lists.

A file system that is asynchronous is asked by many threads at once. One that is not may have a single connection: its
names are asked for over another one than its bytes, one question at a time.
"""

import posixpath
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jcache.journal import Version
from jcache_plugins.fsspec.access import named
from jcache_plugins.origins.base import version_of
from jcache_plugins.places import PlaceError, remote_place

__all__ = ["Entry", "Names"]

HTTP = frozenset({"http", "https"})
S3 = frozenset({"s3", "s3a"})
_SECOND_NS = 10**9
# What a path of a URL may have as it is (RFC 3986, 3.3).
_AS_IT_IS = "/-._~!$&'()*+,;=:@"
_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing says of a name.

    Attributes:
        is_directory: Whether it is one; None where the listing does not tell.
        size: In bytes; None where it does not tell.
        mtime_ns: When it was modified; None where it does not tell.
    """

    is_directory: bool | None
    size: int | None = None
    mtime_ns: int | None = None


class Names:
    """The file system that is mounted, and the names in it. Any number of threads may use it.

    Attributes:
        fs: The file system, by which bytes are read.
        is_http: Whether it is HTTP's, which tells directories from files by slashes, if at all.
        asked: The same, by which names are asked for, and what is read past the cache.
        turns: Held while that one is asked.
        url: What is mounted, without secrets.
    """

    def __init__(self, url: str) -> None:
        """Find the file system; it is asked for nothing, but some connect.

        Raises:
            PlaceError: There is none that could be mounted.
        """
        self.fs, base = remote_place(url)
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        self.is_http = not HTTP.isdisjoint(protocols)
        self._is_s3 = not S3.isdisjoint(protocols)
        if self.is_http and {"?", "#"} & set(base):
            raise PlaceError("an origin that is mounted has no query")
        self._says_directory = self.is_http and base.endswith("/")
        self._root = base.rstrip("/") or base[:1] or self.fs.root_marker
        self._prefix = self._root if self._root in {"", "/"} else f"{self._root}/"
        is_shared: bool = self.fs.async_impl
        self.asked = self.fs if is_shared else remote_place(url, skip_instance_cache=True)[0]
        self.turns: AbstractContextManager[Any] = nullcontext() if is_shared else threading.Lock()
        known = named(self.fs, self._root)
        self.url = self.fs.unstrip_protocol(self._root) if known is None else known[0].url

    @property
    def says_directory(self) -> bool:
        """Whether the URL itself says that it is a directory's."""
        return self._says_directory or self._root in {"", "/"}

    def at(self, path: str) -> str:
        """Return the path of a name as the file system takes it.

        Args:
            path: Below the mount, from its slash on.

        Raises:
            FileNotFoundError: The origin can have none of that name.
        """
        below = path.strip("/")
        if not below:
            return self._root
        if self.is_http:
            return self._prefix + quote(below, safe=_AS_IT_IS, errors="surrogateescape")
        if not is_plain(below):
            raise FileNotFoundError(below)
        return self._prefix + below

    def info(self, path: str) -> Mapping[str, Any]:
        """Return what the file system says of a name, which is remembered as any answer.

        Raises:
            Exception: Whatever it raises.
        """
        with self.turns:
            told: Mapping[str, Any] = self.asked.info(self.at(path))
        return told

    def listed(self, path: str) -> dict[str, Entry]:
        """Return what the file system lists in a directory.

        Raises:
            Exception: Whatever it raises.
        """
        where = self.at(path)
        where = f"{where}/" if self.is_http else where  # or it has to be redirected there
        with self.turns:
            rows = list(self.asked.ls(where, detail=True))
        return dict(self._entries(where, rows))

    def _entries(self, where: str, rows: list[Mapping[str, Any]]) -> Iterator[tuple[str, Entry]]:
        for row in rows:
            said = str(row.get("name", ""))
            name = below_url(where, said) if self.is_http else said.rstrip("/").rpartition("/")[2]
            if said.strip("/") == where.strip("/") or not is_name(name) or not (self.is_http or is_plain(name)):
                continue
            yield name, self._entry(row)

    def _entry(self, row: Mapping[str, Any]) -> Entry:
        """Return what a listing says of a name."""
        kind = row.get("type")
        if kind != "file":
            return Entry(True if kind == "directory" else None)
        try:
            version = self.version(row)
        except OSError:  # no size
            return Entry(is_directory=False)
        return Entry(is_directory=False, size=version.size_bytes, mtime_ns=version.mtime_ns)

    def version(self, told: Mapping[str, Any]) -> Version:
        """Return the version that the file system tells, of S3 in whole seconds: listings may tell more, HEAD does not.

        Raises:
            OSError: It tells no size.
        """
        version = version_of(told)
        if not self._is_s3 or version.mtime_ns is None:
            return version
        return version._replace(mtime_ns=version.mtime_ns // _SECOND_NS * _SECOND_NS)


def is_plain(name: str) -> bool:
    """Whether a name can be asked for at an origin whose file system may take what stands behind a mark otherwise."""
    return not ("?" in name or "#" in name)


def is_name(name: str) -> bool:
    """Whether a directory of this machine can have such a name."""
    is_possible = name not in {"", ".", ".."} and "/" not in name and "\0" not in name
    return is_possible and len(name.encode("utf-8", "surrogateescape")) <= _NAME_BYTES


def below_url(where: str, url: str) -> str:
    """Return the name that a link has in a directory; empty where it leads elsewhere, or is no name."""
    link, directory = urlsplit(url), urlsplit(where)
    if link.query:
        return ""  # a directory's page in another order, say
    path = posixpath.normpath(link.path)
    head, _, name = path.rpartition("/")
    is_below = decoded(head) == decoded(directory.path)
    return decoded(name) if is_below else ""


def decoded(path: str) -> str:
    """Return a part of a URL as names on this machine are spelt, without slashes at its ends."""
    return unquote(path, errors="surrogateescape").strip("/")
