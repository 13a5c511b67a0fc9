"""What systemd does for a service: it passes sockets on (sd_listen_fds(3)), and is told of its state (sd_notify(3))."""

import contextlib
import os
import socket

__all__ = ["passed", "tell"]

FIRST = 3
"""The first descriptor that is passed; the others follow it."""


def passed() -> list[socket.socket]:
    """Return the sockets that were passed to this process, once; they are no affair of its children.

    Raises:
        OSError: One of them takes no connections of TCP.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for number in range(FIRST, FIRST + int(count)):
        os.set_inheritable(number, False)
        found.append(socket.socket(fileno=number))
    for one in found:
        is_tcp = one.family in {socket.AF_INET, socket.AF_INET6} and one.type == socket.SOCK_STREAM
        if not is_tcp or not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("systemd passes a socket that is none of TCP, or a connection: ListenStream=PORT, Accept=no")
    return found


def tell(state: str) -> None:
    """Tell systemd the state of the service, such as `READY=1`, where it wants to know."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if where[:1] not in {"/", "@"}:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
        telling.sendto(state.encode(), "\0" + where[1:] if where[0] == "@" else where)
