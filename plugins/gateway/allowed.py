"""Which origins the gateway may reach: what patterns name, and no private address that none of them names.

A request is held against the patterns where it comes in. What its origin redirects to, and the addresses that its name
has, are held against them where the connection is made, so that neither a redirect nor a name server leads elsewhere.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from jcache_plugins.gateway.targets import BadTargetError, Forwarded, forwarded

__all__ = ["Allowed", "PatternError", "RefusedError", "address_of", "guarded_session"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# How long a connection may take to be made, and how long an origin may be silent: then the request is sent again.
CONNECT_S, SILENT_S = 10.0, 60.0
# IPv4 addresses that a translator reaches through IPv6 (RFC 6052).
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_PATTERN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9*?._-]+)(?::(?P<port>[0-9]{1,5}|\*))?(?P<path>/.*)?"
)


class PatternError(ValueError):
    """A pattern is none; the message says what to give."""


class RefusedError(Exception):
    """An origin is not allowed; the message says which. No `OSError`: it is no answer of the origin's."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """URLs that are allowed, each part on its own: a star in the host's pattern is never a part of the path."""

    scheme: str | None
    host: re.Pattern[str]
    port: int | None
    """None for the scheme's own, 0 for any."""
    path: re.Pattern[str]
    address: Address | None
    """The one that the host is, where it is written as one."""

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Return what a pattern means.

        Raises:
            PatternError: It is none.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise PatternError(f"{text!r} names no origin: give a host, an address, a network, or https://host/path*")
        host = match["host"].strip("[]").lower()
        port = match["port"]
        return cls(
            match["scheme"],
            re.compile(translate(host)),
            None if port is None else 0 if port == "*" else int(port),
            re.compile(translate(match["path"] or "/*")),
            address_of(host),
        )

    def names(self, url: Forwarded) -> bool:
        """Whether a URL is one of those."""
        port = {"http": 80, "https": 443}[url.scheme] if self.port is None else self.port
        return (
            self.scheme in (None, url.scheme)
            and (port in (0, url.port))
            and self.host.match(url.host) is not None
            and self.path.match(url.path) is not None
        )


class Allowed:
    """All that is allowed.

    Args:
        patterns: `host`, `*.host`, `host:port`, `https://host/path*`, an address, or a network (`10.1.0.0/16`). Without
            a port it is the scheme's own. A network, or an address alone, also lets names that another pattern allows
            have such addresses.
        origin: The origin that is mounted, if one is: its own host may have any address.
    """

    def __init__(self, patterns: Iterable[str] = (), *, origin: str | None = None) -> None:
        self.networks: list[Network] = []
        self.patterns: list[Pattern] = []
        for text in patterns:
            network = network_of(text)
            if network is None:
                self.patterns.append(Pattern.of(text))
            else:
                self.networks.append(network)
        self._own = None if origin is None else forwarded(origin)

    @property
    def is_nothing(self) -> bool:
        """Whether no pattern was given."""
        return not self.patterns and not self.networks

    def check(self, url: Forwarded) -> None:
        """Let a URL pass that is allowed.

        Raises:
            RefusedError: It is not.
        """
        if self._own is not None and url.origin == self._own.origin:
            return
        address = address_of(url.host)
        if address is not None and any(address in network for network in self.networks):
            return
        named = [pattern for pattern in self.patterns if pattern.names(url)]
        if not named:
            raise RefusedError(f"{url.origin} is not allowed here; what is, --allow names")
        if address is not None and not is_public(address) and all(pattern.address is None for pattern in named):
            raise RefusedError(f"{url.host} is a private address; --allow has to name it as it is")

    def check_address(self, host: str, address: str) -> None:
        """Let an address pass that a name has which is allowed.

        Raises:
            RefusedError: It is private, and no pattern names it.
        """
        found = address_of(address)
        if self._own is not None and host.lower() == self._own.host:
            return
        if found is None or (not is_public(found) and not any(found in network for network in self.networks)):
            raise RefusedError(f"{host} has a private address; --allow has to name that address, too")


def address_of(host: str) -> Address | None:
    """Return the address that a host is written as; None for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found


def network_of(text: str) -> Network | None:
    """Return the network, or the one address, that a pattern is; None where it is another pattern."""
    try:
        return ipaddress.ip_network(text.strip("[]"))
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether an address, and each one that is written into it, is of the public Internet."""
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo
        within = [address.ipv4_mapped, address.sixtofour, *(teredo or ())]
        if address in _TRANSLATED:
            within.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = [one for one in within if one is not None]
        if inner:
            return all(map(is_public, inner))
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedConnector(aiohttp.TCPConnector):  # type: ignore[misc]  # aiohttp counts as untyped
    """Makes connections to what is allowed; each request asks for one, and each hop of a redirect."""

    def __init__(self, allowed: Allowed, *, limit: int) -> None:
        super().__init__(resolver=GuardedResolver(allowed), limit=0, limit_per_host=limit)
        self._allowed = allowed

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        """Return a connection for a request.

        Raises:
            RefusedError: It is for something that is not allowed.
        """
        try:
            self._allowed.check(forwarded(str(req.url.with_fragment(None))))
        except BadTargetError:
            raise RefusedError("the origin leads to what is no URL of HTTP's, or not a safe one") from None
        return await super().connect(req, traces, timeout)


class GuardedResolver(AbstractResolver):  # type: ignore[misc]  # as above
    """Resolves names to addresses that are allowed; where one of several is not, the name is refused."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Sequence[Any]:
        """Return the addresses of a name.

        Raises:
            RefusedError: One of them is not allowed.
        """
        found: Sequence[Any] = await self._inner.resolve(host, port, family)
        for one in found:
            self._allowed.check_address(host, one["host"])
        return found

    async def close(self) -> None:
        """Close nothing."""
        await self._inner.close()


def guarded_session(allowed: Allowed, *, limit: int, headers: dict[str, str]) -> Any:
    """Return a client of HTTP that reaches what is allowed, and keeps nothing that one answer says for another.

    Args:
        allowed: What it may reach.
        limit: How many connections it may have to one host; 0 for any number.
        headers: What it sends with each request.
    """
    return aiohttp.ClientSession(
        connector=GuardedConnector(allowed, limit=limit),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
    )
