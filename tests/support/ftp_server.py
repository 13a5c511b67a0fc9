"""An FTP server in this process, which notes what it is asked for and what it sends."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
from fsspec.implementations.ftp import FTPFileSystem

handlers = pytest.importorskip("pyftpdlib.handlers", reason="pyftpdlib is not installed")

if TYPE_CHECKING:
    from pathlib import Path

OLD_S = 1_700_000_000


class Server:
    """A running server of one directory, which notes commands and the bytes of the files that it sends.

    Attributes:
        directory: Its files.
        commands: What it was asked for.
        sent: Bytes of files, for each transfer.
    """

    def __init__(self, directory: Path, *, without: str = "") -> None:
        """Start; the server does not know the commands in `without`."""
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.servers import FTPServer

        self.directory = directory
        self.commands: list[str] = []
        self.sent: list[int] = []
        self.connections: list[Any] = []
        authorizer, noted = DummyAuthorizer(), self
        authorizer.add_user("user", "secret", str(directory), perm="elradfmw")

        class Transfer(handlers.DTPHandler):  # type: ignore[misc]  # pyftpdlib is untyped
            def __init__(self, sock: socket.socket, handler: Any) -> None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # else it sends what nobody takes
                super().__init__(sock, handler)

            def close(self) -> None:
                if self.cmd == "RETR" and not self._closed:
                    noted.sent.append(self.get_transmitted_bytes())
                super().close()

        class Handler(handlers.FTPHandler):  # type: ignore[misc]  # pyftpdlib is untyped
            dtp_handler, use_sendfile, banner = Transfer, False, "ready"

            def on_connect(self) -> None:
                noted.connections.append(self)

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                noted.commands.append(cmd)
                super().pre_process_command(line, cmd, arg)

        Handler.authorizer = authorizer
        Handler.proto_cmds = {k: v for k, v in Handler.proto_cmds.items() if k not in without.split()}
        self._server = FTPServer(("127.0.0.1", 0), Handler)
        self.url = f"ftp://user:secret@127.0.0.1:{self._server.address[1]}"
        self._is_on = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._is_on:
            self._server.ioloop.loop(timeout=0.01, blocking=False)
        self._server.close_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_on = False
        self._thread.join()

    def write(self, name: str, data: bytes, modified_s: int = OLD_S) -> None:
        """Put a file in the place of what has the name."""
        path = self.directory / f".{name}"
        path.write_bytes(data)
        os.utime(path, (modified_s, modified_s))
        path.rename(self.directory / name)

    def client(self) -> FTPFileSystem:
        """Return a client with a connection of its own."""
        return FTPFileSystem("127.0.0.1", self._server.address[1], "user", "secret")

    def cut(self) -> None:
        """End all connections, as a server does on which nothing is said for a while."""
        for connection in self.connections:
            with_socket = connection.socket
            if with_socket is not None and with_socket.fileno() >= 0:
                with_socket.shutdown(socket.SHUT_RDWR)

    def noted(self) -> tuple[list[str], int]:
        """Return commands and bytes since the last call."""
        commands, sent = self.commands[:], sum(self.sent)
        self.commands.clear()
        self.sent.clear()
        return commands, sent
