"""Where a remote object is: what a program gave to name it, and what it comes to."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = [
    "LOWER", "Address", "Request", "Rule", "Unidentifiable", "endpoint", "host_port", "split_scheme", "split_url",
    "text_of", "version_mark",
]  # fmt: skip


class Unidentifiable(Exception):  # noqa: N818 (a verdict that leads to a bypass, like a miss; no failure)
    """It cannot be told safely which remote object is meant, so it must not be cached; the message says why."""


class Request(NamedTuple):
    """What a program gave to name an object."""

    scheme: str
    """The URL's, else the file system's protocol."""

    rest: str
    """The path, or what stands behind the `://` of a URL."""

    is_url: bool
    options: Mapping[str, object]
    environ: Mapping[str, str]
    ignore: frozenset[str] = frozenset()
    """Parameters of the query that a rule of the user's says decide nothing."""

    def text(self, *names: str) -> str | None:
        """Return the value that options of these names agree on, None where none is given.

        Raises:
            Unidentifiable: Two of them differ, or one is no text.
        """
        given = {value for name in names if (value := text_of(self.options, name)) is not None}
        if len(given) > 1:
            raise Unidentifiable(f"the options {', '.join(map(repr, names))} contradict each other")
        return given.pop() if given else None

    def nested(self, name: str) -> Mapping[str, object]:
        """Return an option that is a mapping itself, empty where there is none."""
        value = self.options.get(name)
        return value if isinstance(value, Mapping) else {}

    def environment(self, *names: str) -> str | None:
        """Return the first of these environment variables that is set and not empty."""
        return next((self.environ[name] for name in names if self.environ.get(name)), None)


class Address(NamedTuple):
    """Where an object is, free of credentials."""

    scheme: str
    authority: tuple[str, ...]
    """Names between the scheme and the path: a host, an endpoint, an organisation and its repository."""

    path: str
    """As the server sees it, spelt as it was given; begins with a slash unless it is relative to something unknown."""

    extra: tuple[str, ...] = ()
    """What else decides which bytes are meant. It may hold secrets that no rule knows: to be hashed."""

    used: frozenset[str] = frozenset()
    """Options that are in the address already, or have no part in the identity."""

    asking: tuple[str, ...] = ()
    """Secrets that stood in the path: who asks, not what for."""

    owning: tuple[object, ...] = ()
    """Of the credentials, those that decide which bytes are meant: whose bucket of that name it is, say. Secrets."""


Rule = Callable[[Request], Address]

LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)


def split_scheme(path: str) -> tuple[str, str]:
    """Return the scheme of a URL in lower case, empty for a plain path, and what stands behind its `://`."""
    match = _SCHEME.match(path)
    return (match[1].translate(LOWER), path[match.end() :]) if match else ("", path)


def host_port(authority: str, default_port: int | None = None) -> str:
    """Return a host and its port as one name, whatever the spelling.

    Args:
        authority: `user:password@host:port`, of which only the host must be there.
        default_port: The port that is left out; None leaves every port where it is.

    Returns:
        `host` or `host:port`, in lower case and without credentials.
    """
    host = authority.rpartition("@")[2].translate(LOWER)
    name, colon, port = host.rpartition(":")
    if not colon or not (port == "" or (port.isascii() and port.isdigit() and len(port) < 10)):
        return host
    return name if port == "" or int(port) == default_port else f"{name}:{int(port)}"


def endpoint(url: str) -> str:
    """Return the address of a service without credentials, query and `https`, which is the default.

    Args:
        url: `https://host:port/path`, or a host with or without a port.
    """
    scheme, rest = split_scheme(url.strip())
    authority, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    if scheme == "http" and not re.search(r":[0-9]+\Z", authority):
        authority += ":80"
    return host_port(authority, 443) + (slash + path).rstrip("/")


def text_of(options: Mapping[str, object], name: str) -> str | None:
    """Return an option as a text, None where there is none.

    Raises:
        Unidentifiable: It is something else.
    """
    value = options.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int)):
        raise Unidentifiable(f"option {name!r} is of type {type(value).__name__}, not a text")
    return str(value)


def split_url(rest: str) -> tuple[str, str]:
    """Return the authority and the path out of what stands behind the `://` of a URL."""
    authority, slash, path = rest.partition("/")
    return authority, slash + path


def version_mark(request: Request, *marks: str) -> tuple[str, ...]:
    """Return a mark where the path ends in a version, which only a file system that is aware of versions heeds."""
    aware = request.options.get("version_aware") and any(mark in request.rest for mark in marks)
    return ("version_aware",) if aware else ()
