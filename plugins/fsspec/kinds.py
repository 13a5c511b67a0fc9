"""Of which class file objects are where the file system's own opens the file at the server as it is made."""

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fsspec.spec import AbstractBufferedFile

from jcache_plugins.fsspec.journal_cache import mixed

__all__ = ["ANY", "Kind", "kind_of"]

Method = Callable[..., Any]


class Kind(NamedTuple):
    """What a file object is that has not opened its file.

    Attributes:
        cls: Its class.
        lazy: The names of what only the file system's own object has; None where that must be asked.
        is_copied: Whether the object gets those for its own, and its class ends them.
        own: What its class does otherwise than that of a file object which reads through the journal.
        details: Makes `details` of a path and of what else `_open` was told; None for the `info` of the file.
    """

    cls: Any = AbstractBufferedFile
    lazy: tuple[str, ...] | None = None
    is_copied: bool = False
    own: Mapping[str, Any] = {}
    details: Callable[[Any, Mapping[str, Any]], dict[str, Any]] | None = None


ANY = Kind()
# Of those who read past their cache, so that another one that is put there is nothing to them.
_PAST_ITS_CACHE: dict[str, Any] = {"own_cache": property(operator.attrgetter("cache"))}


def kind_of(opening: Method) -> Kind:
    """Return the kind of the file objects that a file system's own `_open` makes."""
    make = _KINDS.get(f"{opening.__module__}.{opening.__qualname__}")
    return ANY if make is None else make(sys.modules[opening.__module__])


def _xrootd(module: Any) -> Kind:
    lazy = ("_dismissed_hosts", "_hosts", "_myFile", "metaOffset", "timeout")
    return Kind(module.XRootDFile, lazy, is_copied=True)


def _webdav(module: Any) -> Kind:
    """Describe webdav4's: it moves its stream when it is moved, and pickling makes one that no file system opened."""
    own = {**_PAST_ITS_CACHE, "seek": AbstractBufferedFile.seek, "__reduce_ex__": object.__reduce_ex__}

    def details(path: Any, said: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": path, "size": said.get("size"), "type": "file"}

    return Kind(module.WebdavFile, ("fobj", "reader"), is_copied=True, own=own, details=details)


def _sftp(module: Any) -> Kind:
    """Describe paramiko's, which is none of fsspec's: what that has and fsspec's has not is done by an opened one."""
    plain = module.paramiko.SFTPFile
    more = [name for name in dir(plain) if not name.startswith("_") and not hasattr(AbstractBufferedFile, name)]
    own: dict[str, Any] = {name: _by_the_opened(name) for name in more if callable(getattr(plain, name))}
    own |= {**_PAST_ITS_CACHE, "readlines": _lines, "seek": _seek, "xreadlines": _itself}
    lazy = ("handle", "newlines", "pipelined", "sftp")
    return Kind(mixed(AbstractBufferedFile, plain), lazy, own=own)


def _by_the_opened(name: str) -> Method:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.at_the_server(), name)(*args, **kwargs)

    method.__name__ = name
    return method


def _seek(self: Any, offset: int, whence: int = 0) -> None:
    """Set the position, and return nothing, as paramiko's does."""
    AbstractBufferedFile.seek(self, offset, whence)


def _lines(self: Any, sizehint: int | None = None) -> list[bytes]:
    """Read lines, until they have so many bytes, as paramiko does."""
    lines: list[bytes] = []
    size = 0
    for line in self:
        lines.append(line)
        size += len(line)
        if sizehint is not None and size >= sizehint:
            break
    return lines


def _itself(self: Any) -> Any:
    """Return the object, which yields its lines."""
    return self


_KINDS: dict[str, Callable[[Any], Kind]] = {
    "fsspec.implementations.sftp.SFTPFileSystem._open": _sftp,
    "fsspec_xrootd.xrootd.XRootDFileSystem._open": _xrootd,
    "webdav4.fsspec.WebdavFileSystem._open": _webdav,
}
