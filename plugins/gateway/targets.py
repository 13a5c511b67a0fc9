"""What a request line asks for: a file of the mounted origin, a URL to be forwarded, or something of the gateway's own.

Nothing here touches a file system. What is returned has no dot segments, no separator and no control character in any
name, however often it is decoded: what was refused cannot come back as a path.
"""

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

__all__ = ["BadTargetError", "Forwarded", "Mounted", "Target", "mounted", "parse"]

# The whole of a target: visible ASCII characters, each percent sign with two digits behind it (RFC 3986, 2).
_TARGET = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]*)(?P<path>[^?]*)(?P<query>\?.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?")
# What makes a host an address of IPv4 to those who resolve it, however it is spelt.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORWARDED = ("/http://", "/https://")
_PORTS = {"http": 80, "https": 443}
# Servers differ in how often they decode: a name is looked at as each of so many would see it.
_DECODINGS = 3


class BadTargetError(ValueError):
    """The request line names nothing that could be served; the message says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A path below the mounted origin.

    Attributes:
        names: The names in the path, decoded, the last one empty where it names a directory.
        query: The query as it was sent, with its question mark; empty where there is none.
        raw: The path as it was sent, without its first slash.
    """

    names: tuple[str, ...]
    query: str = ""
    raw: str = field(default="", compare=False)

    @property
    def is_directory(self) -> bool:
        """Whether the path ends with a slash."""
        return self.names[-1] == ""

    @property
    def below(self) -> str:
        """The last name as an address that is relative to this one, of a directory."""
        return f"./{quote(self.names[-1])}/"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A URL of another server.

    Attributes:
        scheme: `http` or `https`.
        host: In lower case, an IPv6 address without its brackets.
        port: Always a number.
        path: As it was sent, from its first slash on.
        query: As it was sent, with its question mark; empty where there is none.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> str:
        """Scheme and authority, without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.origin}{self.path}{self.query}"


Target = Mounted | Forwarded


@functools.lru_cache(1024)
def parse(raw: str) -> Target:
    """Return what a request target means (RFC 9112, 3.2): in origin form, or in absolute form as proxies get it.

    Args:
        raw: The target as it stands in the request line.

    Raises:
        BadTargetError: It is none, or one that would leave the place that it names.
    """
    if not _TARGET.fullmatch(raw) or "#" in raw or "\\" in raw:
        raise BadTargetError("the request target is no path and no URL")
    if raw.startswith("/"):
        return forwarded(raw[1:]) if raw.lower().startswith(_FORWARDED) else mounted(raw[1:])
    return forwarded(raw)


def mounted(path: str) -> Mounted:
    """Return a path below the mounted origin, without its first slash.

    Raises:
        BadTargetError: It would lead elsewhere.
    """
    path, mark, query = path.partition("?")
    return Mounted(names_in(path), mark + query, path)


def forwarded(url: str) -> Forwarded:
    """Return a URL that is to be forwarded.

    Raises:
        BadTargetError: It is none of HTTP's, has a user name in it, or a path that would lead elsewhere.
    """
    match = _URL.fullmatch(url)
    authority = None if match is None else _AUTHORITY.fullmatch(match["authority"].lower())
    if match is None or authority is None:
        raise BadTargetError("only http:// and https:// URLs with a host and without a user are forwarded")
    scheme = match["scheme"].lower()
    port = int(authority["port"] or _PORTS[scheme])
    if not 0 < port < 1 << 16:
        raise BadTargetError("the URL has no port that there could be")
    host = authority["host"].strip("[]")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and not is_canonical(host):
        raise BadTargetError("the URL has a number for its host, which is spelt in no usual way")
    path = match["path"] or "/"
    names_in(path[1:])
    return Forwarded(scheme, host, port, path, match["query"] or "")


def is_canonical(host: str) -> bool:
    """Whether a host that ends with a number is an address as everybody reads it."""
    try:
        return str(ipaddress.ip_address(host)) == host or ":" in host
    except ValueError:
        return False


def names_in(path: str) -> tuple[str, ...]:
    """Return the names in a path, decoded.

    Raises:
        BadTargetError: One of them, however often it is decoded, is a dot segment, or has a separator or a control
            character in it.
    """
    names = []
    for quoted in path.split("/"):
        seen = quoted
        for decoding in range(_DECODINGS):
            try:
                seen = unquote(seen, errors="strict")
            except UnicodeDecodeError:
                raise BadTargetError("a name in the path is not in UTF-8") from None
            if decoding == 0:
                names.append(seen)
            if seen in {".", ".."} or not seen.isprintable() or "/" in seen or "\\" in seen:
                raise BadTargetError("a name in the path leads elsewhere, or cannot be one")
    return tuple(names)
