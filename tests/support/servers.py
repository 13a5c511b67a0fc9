"""Real servers for tests: nginx, and an HTTP origin that misbehaves as told. The XRootD server is the demo's."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from ports import free_port

from jcache.demo import xrootd_server
from jcache.demo.xrootd_server import XrootdUnavailableError, find_xrootd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Nginx", "Resource", "ScriptedOrigin", "XrootdServer", "XrootdUnavailableError", "find_nginx", "find_xrootd"]

_NGINX_CONFIG = """
daemon off;
master_process off;
pid {work}/pid;
error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format bytes escape=json
    '{{"method":"$request_method","uri":"$uri","status":$status,"body_bytes":$body_bytes_sent,'
    '"range":"$http_range","if_match":"$http_if_match"}}';
  access_log {work}/access.log bytes;
  default_type application/octet-stream;
  keepalive_requests 1000000;
  sendfile on;
  etag on;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  {http}
  server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""
_FILES = "root {directory}; location /listed/ {{ autoindex on; }}"


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class XrootdServer(xrootd_server.XrootdServer):
    """A running XRootD server, on a port of this process's."""

    def __init__(self, directory: Path, *, port: int | None = None, **how: Any) -> None:
        super().__init__(directory, port=free_port() if port is None else port, startup_s=60.0, **how)


class WritableXrootd(XrootdServer):
    """One to which its clients may write."""

    rights = "r/w"

    def __init__(self, directory: Path) -> None:
        if os.geteuid() == 0:
            account = xrootd_server._unprivileged_account()
            os.chown(directory, account.pw_uid, account.pw_gid)
        super().__init__(directory)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    method: str
    uri: str
    status: int
    body_bytes: int
    range: str
    if_match: str


class Nginx:
    """A running nginx that serves `directory`, with ranges and ETags, and logs the bytes of every body.

    `work` is a directory of its own for configuration and logs. `server` says what it does instead, in nginx's words,
    and `http` what goes before that.
    """

    def __init__(self, directory: Path, work: Path, *, http: str = "", server: str | None = None) -> None:
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("nginx is not installed")
        self.directory = directory
        self.port = free_port()
        self._work = work
        self._log = work / "access.log"
        self._marks = 0
        self._seen = 0
        self._command = [program, "-c", os.fspath(work / "nginx.conf"), "-p", os.fspath(work)]
        does = _FILES.format(directory=directory) if server is None else server
        (work / "nginx.conf").write_text(_NGINX_CONFIG.format(work=work, port=self.port, http=http, server=does))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, name: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{urllib.parse.quote(name)}"

    def start(self) -> None:
        # -e: nginx opens its built-in error log before it reads the configuration.
        self._process = subprocess.Popen(
            [*self._command, "-e", os.fspath(self._work / "error.log")], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self._mark()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self._work / "error.log"
                    raise RuntimeError(f"nginx: {log.read_text() if log.exists() else 'no answer'}") from None
                time.sleep(0.01)
            else:
                break
        self.reset()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def requests(self) -> list[LoggedRequest]:
        """Every request that was finished since the last `reset`, in the order of the log."""
        if self._process is not None:
            self._mark()
        entries = [LoggedRequest(**json.loads(line)) for line in self._log.read_text().splitlines()]
        return [entry for entry in entries[self._seen :] if not entry.uri.startswith("/.mark-")]

    def body_bytes(self) -> int:
        """Body bytes sent with a 200 or 206 since the last `reset`."""
        return sum(entry.body_bytes for entry in self.requests() if entry.status in {200, 206})

    def reset(self) -> None:
        self._mark()
        self._seen = len(self._log.read_text().splitlines())

    def _mark(self) -> None:
        # One worker handles one event after the other: when this request is in the log, all earlier ones are.
        self._marks += 1
        mark = f".mark-{self._marks}"
        request = urllib.request.Request(self.url(mark), headers={"Connection": "close"}, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            error.close()
        deadline = time.monotonic() + 60
        while f'"/{mark}"' not in self._log.read_text():
            assert time.monotonic() < deadline, "nginx did not log a request"
            time.sleep(0.001)


@dataclass(slots=True)
class Resource:
    """One file of a `ScriptedOrigin` and how it is served; every field may be changed at any time.

    `etag` is sent as it is (`'"strong"'`, `'W/"weak"'`), or not at all; `modified_s` likewise. `ranges=False` answers a
    range request with 200 and everything; `if_match=False` ignores `If-Match`. `short_by` sends that many bytes fewer
    and says so in `Content-Length` (and not in `Content-Range`); `drop_after` closes the connection after that many
    bytes of the body that was announced; `status` answers with that and no body; `resets` resets the connection.
    """

    data: bytes
    etag: str | None = None
    modified_s: float | None = None
    ranges: bool = True
    if_match: bool = True
    # The status with which whatever has a condition is refused.
    refused: int | None = None
    head: bool = True
    head_delay_s: float = 0.0
    # Fields that hold for `HEAD` only.
    as_head: dict[str, Any] = field(default_factory=dict)
    # The entity tag of the k-th answer, from 1.
    etag_of: Callable[[int], str] | None = None
    delay_s: float = 0.0
    short_by: int = 0
    drop_after: int | None = None
    status: int | None = None
    resets: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    # Called with the resource when the k-th GET (from 1) arrives, before it is answered.
    at: dict[int, Callable[[Resource], None]] = field(default_factory=dict)
    # Fields that hold for the k-th GET only.
    once: dict[int, dict[str, Any]] = field(default_factory=dict)
    gets: int = 0
    heads: int = 0
    body_bytes: int = 0
    asked: list[str | None] = field(default_factory=list)
    if_matches: list[str | None] = field(default_factory=list)

    def change(self, data: bytes, *, etag: str | None = None, modified_s: float | None = None) -> None:
        self.data, self.etag, self.modified_s = data, etag, modified_s

    def reset(self) -> None:
        self.gets = self.heads = self.body_bytes = 0
        self.asked.clear()
        self.if_matches.clear()


class ScriptedOrigin:
    """An HTTP/1.1 server whose behaviour is set for each URL, and that counts requests and body bytes for each."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.lock = threading.Lock()
        self.connections = 0
        self.unknown = 0
        self._sockets: set[socket.socket] = set()
        self._port = free_port()
        self._server: _Listener | None = None
        self.start()

    @property
    def port(self) -> int:
        return self._port

    @property
    def body_bytes(self) -> int:
        with self.lock:
            return sum(resource.body_bytes for resource in self.resources.values())

    @property
    def requests(self) -> int:
        with self.lock:
            return sum(resource.gets + resource.heads for resource in self.resources.values())

    def put(self, name: str, data: bytes, *, etag: str | None = '"1"', **fields: Any) -> Resource:
        """Serve `data` as `/name`, with a strong ETag unless told otherwise."""
        resource = Resource(data, etag=etag, **fields)
        with self.lock:
            self.resources["/" + name] = resource
        return resource

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._port}/{urllib.parse.quote(name)}"

    def reset(self) -> None:
        with self.lock:
            self.connections = self.unknown = 0
            for resource in self.resources.values():
                resource.reset()

    def start(self) -> None:
        self._server = _Listener(self, self._port)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; `start` opens the same port again."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        self._thread.join()
        with self.lock:
            sockets = list(self._sockets)
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, origin: ScriptedOrigin, port: int) -> None:
        self.origin = origin
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # a response goes out with one flush
    server: _Listener

    def setup(self) -> None:
        super().setup()
        origin = self.server.origin
        with origin.lock:
            origin.connections += 1
            origin._sockets.add(self.connection)
            is_late = origin._server is not self.server
        if is_late:  # it was taken as `stop` began, which did not see it
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        with self.server.origin.lock:
            self.server.origin._sockets.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(get=False)

    def do_GET(self) -> None:
        self._answer(get=True)

    def _answer(self, *, get: bool) -> None:
        origin = self.server.origin
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        with origin.lock:
            resource = origin.resources.get(path)
            if resource is None:
                origin.unknown += 1
                reply = None
            else:
                reply = self._plan(resource, get)
        if reply is None:
            self._send(404)
            return
        if reply.delay_s:
            time.sleep(reply.delay_s)
        if reply.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        headers = {"Accept-Ranges": "bytes" if reply.ranges else "none", **reply.headers}
        if not get and reply.head_delay_s:
            time.sleep(reply.head_delay_s)
        if reply.etag_of is not None:
            reply.etag = reply.etag_of(reply.gets + reply.heads)
        if reply.etag is not None:
            headers["ETag"] = reply.etag
        if reply.modified_s is not None:
            headers["Last-Modified"] = formatdate(reply.modified_s, usegmt=True)
        if reply.status is not None or (not get and not reply.head):
            self._send(reply.status or 405, reply.headers)
            return
        wanted = self.headers.get("If-Match")
        if wanted is not None and reply.refused is not None:
            self._send(reply.refused)
            return
        if wanted is not None and reply.if_match and wanted != "*" and not _strongly_in(reply.etag, wanted):
            self._send(412, headers)
            return
        size = len(reply.data)
        start, stop, status = 0, size, 200
        if reply.ranges and (asked := self.headers.get("Range")):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= stop:
                self._send(416, {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        body = reply.data[start : max(start, stop - reply.short_by)]
        sent = body if reply.drop_after is None else body[: reply.drop_after]
        if get:
            with origin.lock:
                resource.body_bytes += len(sent)
        self._send(status, headers, body, sent=sent if get else b"")
        if get and reply.drop_after is not None:
            self.close_connection = True

    def _plan(self, resource: Resource, get: bool) -> Resource:
        """Count the request and return a copy of the resource as it holds for this request."""
        if not get:
            resource.heads += 1
            return replace(resource, **resource.as_head)
        resource.gets += 1
        resource.asked.append(self.headers.get("Range"))
        resource.if_matches.append(self.headers.get("If-Match"))
        if (change := resource.at.get(resource.gets)) is not None:
            change(resource)
        return replace(resource, **resource.once.get(resource.gets, {}))

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", sent: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in ({"Date": self.date_time_string()} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()


def _strongly_in(etag: str | None, wanted: str) -> bool:
    """If-Match compares strongly: a weak tag matches nothing."""
    return etag is not None and not etag.startswith("W/") and etag in [tag.strip() for tag in wanted.split(",")]
