"""S3 servers for tests: moto in a process of its own, which notes every request that it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

START_S = 60
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the server got it, and the status of its answer."""

    method: str
    path: str
    query: str
    range: str
    if_match: str
    status: int

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query}"


class Moto:
    """A running moto.

    Attributes:
        url: Its endpoint.
    """

    def __init__(self, work: Path) -> None:
        self._log = work / "requests"
        self._log.touch()
        self._seen = 0
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(self._log)],
            env={**os.environ, **KEYS, "JCACHE_DIR": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()

    def requests(self) -> list[Request]:
        """Return what was asked for since the last call."""
        lines = self._log.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        return [Request(**json.loads(line)) for line in new]

    def reset(self) -> None:
        """Forget all buckets."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")):
            self.requests()


def noting(app: Callable[..., Iterable[bytes]], log: Path) -> Callable[..., Iterator[bytes]]:
    """Return an application that writes a line for each request before its answer is sent."""
    out = log.open("a", buffering=1)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        def start(status: str, *args: Any) -> Any:
            told = Request(
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                environ.get("HTTP_RANGE", ""),
                environ.get("HTTP_IF_MATCH", ""),
                int(status.split(maxsplit=1)[0]),
            )
            out.write(json.dumps({name: getattr(told, name) for name in Request.__slots__}) + "\n")
            return start_response(status, *args)

        yield from app(environ, start)

    return answer


def main(port: int, log: Path) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept, as S3 does
    app = noting(DomainDispatcherApplication(create_backend_app), log)
    server = make_server("127.0.0.1", port, app, threaded=True)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
