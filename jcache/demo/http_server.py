"""An HTTP server on the loopback interface that serves one directory and counts what it sends."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import socket
import threading
import urllib.parse
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from pathlib import Path

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class HttpServer:
    """A running server for the files of one directory, with byte ranges, strong ETags and persistent connections.

    Args:
        directory: Its files are served; what is below its subdirectories is not.

    Safe to use from several threads. It runs in threads of this process, so it must not be forked.
    """

    kind = "http"
    counted = "the server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._sent_bytes = 0
        self._connections: set[socket.socket] = set()
        self._server: _Listener | None = _Listener(self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, name: str, port: int | None = None) -> str:
        """URL of a file in the served directory; through another port, if something is in front of the server."""
        return f"http://127.0.0.1:{port or self.port}/{urllib.parse.quote(name)}"

    def sent_bytes(self) -> int:
        """Return the bytes of response bodies sent so far."""
        with self._lock:
            return self._sent_bytes

    def stop(self) -> None:
        """Close the port and every connection. Does nothing when the server is stopped."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        self._thread.join()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # the client may have closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Same as :meth:`stop`."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def count(self, nbytes: int) -> None:
        """Add to the bytes sent."""
        with self._lock:
            self._sent_bytes += nbytes

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, so that :meth:`stop` can close it."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: HttpServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a client that closes its connection in the middle of a response is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener
    # A file's bytes never change while the demo runs, so its suffix decides nothing and one type will do.
    common_headers: ClassVar[dict[str, str]] = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}

    def setup(self) -> None:
        super().setup()
        self.server.owner.opened(self.connection)

    def finish(self) -> None:
        self.server.owner.closed(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)[1:]
        if not name or "/" in name or name.startswith("."):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            file = (self.server.owner.directory / name).open("rb")
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            status = os.fstat(file.fileno())
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            if self.headers.get("If-Match", etag) not in {etag, "*"}:
                self._refuse(HTTPStatus.PRECONDITION_FAILED)
                return
            span = _span(self.headers.get("Range"), status.st_size)
            if span is None:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{status.st_size}"})
                return
            start, stop, partial = span
            self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
            for header, value in self.common_headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{status.st_size}")
            self.end_headers()
            if body:
                # Counted before they go out: whoever has received the last byte sees it counted.
                self.server.owner.count(stop - start)
                file.seek(start)
                if stop - start == status.st_size:
                    shutil.copyfileobj(file, self.wfile)
                else:
                    self.connection.sendfile(file, start, stop - start)

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing."""


def _span(header: str | None, size_bytes: int) -> tuple[int, int, bool] | None:
    """Return start, stop and whether it is a partial answer, or None where the range lies outside the file.

    Several ranges in one header are answered as RFC 9110 allows: with the whole file.
    """
    match = _RANGE.match(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size_bytes, False
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
    return (start, stop, True) if start < stop else None
