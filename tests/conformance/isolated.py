"""Run a command where only loopback is: `python isolated.py COMMAND ...`.

Upstream suites use fixed ports, and some of their servers listen on all interfaces. In a network namespace of its own
a suite meets neither another one nor the world. Where the kernel allows none, the command runs as it is.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def isolate() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    isolate()
    os.execvp(sys.argv[1], sys.argv[1:])
