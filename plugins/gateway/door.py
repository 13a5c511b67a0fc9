"""Who may: tokens of bearers, TLS, certificates of clients, and no page of somebody else's in a browser."""

import base64
import binascii
import functools
import hmac
import ipaddress
import os
import ssl
import time
from typing import NamedTuple, Protocol

__all__ = ["GivenLines", "KeptLines", "Lines", "Tokens", "is_name_known", "lines_of", "tls"]

# How long it may take until a token that was taken out of the file is refused.
LOOK_S = 1.0


class Lines(Protocol):
    """Who may, a line each."""

    def read(self) -> tuple[bytes, ...]:
        """Return the lines.

        Raises:
            OSError: They cannot be read.
        """
        ...


class GivenLines(NamedTuple):
    """Lines that are in no file, and do not change."""

    lines: tuple[bytes, ...]

    def read(self) -> tuple[bytes, ...]:
        """Return the lines."""
        return self.lines


class KeptLines:
    """The lines of a file that are not empty and do not begin with #, read again when it has changed.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._looked_s: float | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._lines: tuple[bytes, ...] = ()

    def read(self) -> tuple[bytes, ...]:
        """Return the lines.

        Raises:
            OSError: The file cannot be read.
        """
        if self._looked_s is None or time.monotonic() - self._looked_s >= LOOK_S:
            found = os.stat(self._path)
            self._looked_s = time.monotonic()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp != self._stamp:
                with open(self._path, "rb") as file:
                    lines = [line.strip() for line in file.read().splitlines()]
                self._lines = tuple(line for line in lines if line and not line.startswith(b"#"))
                self._stamp = stamp
        return self._lines


def lines_of(source: str | GivenLines) -> Lines:
    """Return the lines of a file, by its path, or those that were given instead of one."""
    return KeptLines(source) if isinstance(source, str) else source


class Tokens:
    """The tokens in a file, one a line.

    Args:
        source: The file, or its lines.

    Raises:
        OSError: It cannot be read.
        ValueError: It has no token.
    """

    def __init__(self, source: str | GivenLines) -> None:
        self._lines = lines_of(source)
        if not self._lines.read():
            msg = f"{source} has no token in it"
            raise ValueError(msg)

    def admit(self, said: str | None) -> bool:
        """Whether an `Authorization` field holds one of them."""
        return self.found(said) is not None

    def found(self, said: str | None) -> bytes | None:
        """Return which of them an `Authorization` field holds, as a bearer's or as a password; None for none."""
        try:
            tokens = self._lines.read()
        except OSError:
            tokens = ()  # who takes the file away lets nobody in
        scheme, _, rest = (said or "").strip().partition(" ")
        rest = rest.strip()
        if scheme.lower() == "basic":
            try:
                rest = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif scheme.lower() != "bearer":
            return None
        given = rest.encode("utf-8", "surrogateescape")
        # All of them, so that the time says nothing of which.
        return given if sum([hmac.compare_digest(given, token) for token in tokens]) > 0 else None


@functools.lru_cache(1024)
def is_name_known(host: str, names: frozenset[str]) -> bool:
    """Whether a `Host` field names the gateway by one of its names, as an address, or as this machine.

    A page of another name that has its name server say that it is on this machine sends its own: what a browser then
    reads for it is not for it.

    Args:
        host: The field.
        names: Those that the gateway has, in lower case.
    """
    name = host.strip().lower()
    name = name[: name.rfind(":")] if name.rpartition(":")[2].isdecimal() and not name.endswith("]") else name
    name = name.rstrip(".")
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def tls(cert: str, key: str | None, client_ca: str | None) -> ssl.SSLContext:
    """Return how connections are encrypted.

    Args:
        cert: A file with the certificate, and those that lead from it to its authority.
        key: A file with its key; None where that is in the same file.
        client_ca: A file with the authorities of which clients must have a certificate; None where they need none.

    Raises:
        OSError: A file cannot be read, or does not hold what it should.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
