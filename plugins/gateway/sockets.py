"""The sockets that a gateway listens on: passed by systemd, handed over by the gateway before it, or its own."""

import errno
import os
import socket
from typing import Any

from jcache_plugins.gateway import handover, systemd

__all__ = ["BACKLOG", "address_of", "have_standard_streams", "listen"]

BACKLOG = 1024
"""How many connections may wait to be taken."""

STDERR = 2


def have_standard_streams() -> None:
    """Open stdin, stdout and stderr where they are closed: a socket with one's number would be taken for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def listen(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Return sockets that listen: those that systemd passes, or else one for each address of a host.

    Args:
        host: The host; empty for all of this machine's addresses.
        port: The port; 0 for any that is free.
        reuse_port: Whether a gateway of the same user may listen there as well. If one does, its sockets are taken
            over: then no connection is lost that waits in them when it closes them.

    Raises:
        OSError: It cannot listen there.
    """
    if found := systemd.passed():
        return found
    asked = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, where) for family, _, _, _, where in asked))
    if reuse_port and port and (found := handover.take(port, {(str(where[0]), port) for _, where in places})):
        return found
    made: list[socket.socket] = []
    failure: OSError | None = None
    for family, where in places:
        try:
            made.append(
                bound(family, (where[0], port or (made[0].getsockname()[1] if made else 0), *where[2:]), reuse_port)
            )
        except OSError as error:
            failure = error
            # A name may have an address of a family that this machine does not speak.
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                break
    else:
        if made:
            return made
    for one in made:
        one.close()
    assert failure is not None, "a name has an address"
    raise failure


def bound(family: int, where: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        OSError: There can be none.
    """
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def address_of(listener: socket.socket) -> tuple[str, int]:
    """Return the address and the port of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return str(host), int(port)
