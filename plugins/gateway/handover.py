"""How one gateway takes over the sockets of another one, which goes on with them until it is told to end.

With sockets of its own at the same port (SO_REUSEPORT), the new gateway would not have the connections that wait in
those of the old one: they are reset when it closes them. So each gateway that may have a successor offers its sockets
under a name in the abstract namespace of Unix sockets, which belongs to the network as its ports do, to processes of
its own user.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence

__all__ = ["Offer", "offer", "take"]

# So long it may take until a gateway that runs has handed its sockets over.
LIMIT_S = 5.0
# One for each address of a host.
MOST = 64
LISTENS = "00010000"


class Offer:
    """Hands sockets over to whoever asks, until it is closed; on the running event loop.

    Args:
        sockets: They all have the same port.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._descriptors = [one.fileno() for one in sockets]
        self._loop = asyncio.get_running_loop()
        self._asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._asked.setblocking(False)
        port = sockets[0].getsockname()[1]
        # Several may offer the same sockets: who has taken them over, and who has not ended yet.
        self._asked.bind(f"\0{prefix(port)}{os.getpid()}:{secrets.token_hex(4)}")
        self._asked.listen(8)
        self._loop.add_reader(self._asked.fileno(), self._hand_over)

    def close(self) -> None:
        """Offer them no more."""
        self._loop.remove_reader(self._asked.fileno())
        self._asked.close()

    def _hand_over(self) -> None:
        with contextlib.suppress(OSError):
            asking, _ = self._asked.accept()
            with asking:
                asking.setblocking(False)
                if user_of(asking) == os.geteuid():
                    socket.send_fds(asking, [b"\0"], self._descriptors)


def offer(sockets: Sequence[socket.socket]) -> Offer | None:
    """Return an offer of sockets; None where the system knows no such thing."""
    with contextlib.suppress(AttributeError, OSError):
        return Offer(sockets) if socket.SO_PEERCRED else None
    return None


def take(port: int, addresses: set[tuple[str, int]]) -> list[socket.socket]:
    """Return the sockets of a gateway of this user that listens at these addresses, and nowhere else; none without one.

    Args:
        port: The port.
        addresses: The addresses, each with the port.
    """
    for name in offered(port):
        found: list[socket.socket] = []
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(LIMIT_S)
            asking.connect(name)
            if user_of(asking) == os.geteuid():
                for number in socket.recv_fds(asking, 1, MOST)[1]:
                    os.set_inheritable(number, False)
                    found.append(socket.socket(fileno=number))
        with contextlib.suppress(OSError):
            if found and {one.getsockname()[:2] for one in found} == addresses:
                return found
        for one in found:
            one.close()
    return []


def prefix(port: int) -> str:
    """Return with what the name of an offer begins."""
    return f"jcache-serve:{port}:"


def offered(port: int) -> Iterator[str]:
    """Yield the names of offers for a port (proc_net_unix, in proc(5))."""
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split()
            if len(fields) == 8 and fields[3] == LISTENS and fields[7].startswith(f"@{prefix(port)}"):
                yield "\0" + fields[7][1:]


def user_of(connection: socket.socket) -> int:
    """Return the user of whoever is at the other end of a connection."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)
