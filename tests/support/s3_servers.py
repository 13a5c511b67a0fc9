"""S3 servers for tests: moto in a process of its own, which notes every request that it gets; and Ceph's gateway."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cephfs import CLUSTER, Cluster, wait_for
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

START_S = 60
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


def client(url: str) -> Any:
    """Return a client that is not s3fs's, for what others do to a server's objects."""
    import boto3

    keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the server got it, and the status of its answer."""

    method: str
    path: str
    query: str
    range: str
    if_match: str
    status: int
    # The access key by which it was signed.
    key: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query}"


class Moto:
    """A running moto.

    Attributes:
        url: Its endpoint.
    """

    def __init__(self, work: Path, *, is_finer: bool = False) -> None:
        """Start it; its listings may tell fractions of seconds."""
        self._log = work / "requests"
        self._log.touch()
        self._seen = 0
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(self._log), *(["finer"] if is_finer else [])],
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


class Gateway(Cluster):
    """The S3 gateway of a Ceph cluster, the server that most sites of particle physics run.

    Needs the programs of Debian's packages radosgw, ceph-mon, ceph-mgr, ceph-osd and ceph-common.

    Attributes:
        url: Its endpoint.
    """

    programs = (*CLUSTER, "radosgw", "radosgw-admin")

    def __init__(self, work: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.more = f"""
mon_max_pg_per_osd = 1000
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
ms_mon_client_mode = crc
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {work}/rgw
"""
        super().__init__(work)

    @classmethod
    def missing(cls) -> list[str]:
        """Return the programs that are not installed."""
        return [program for program in cls.programs if shutil.which(program) is None]

    def requests(self) -> list[Request]:
        """Return nothing: it notes them in ways of its own."""
        return []

    def reset(self) -> None:
        """Remove all buckets."""
        s3 = client(self.url)
        for bucket in s3.list_buckets()["Buckets"]:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket["Name"]):
                for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    s3.delete_object(Bucket=bucket["Name"], Key=one["Key"], VersionId=one["VersionId"])
            s3.delete_bucket(Bucket=bucket["Name"])

    def _start(self) -> None:
        super()._start()
        (self._work / "rgw").mkdir()
        keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"]]
        self._run("radosgw-admin", "user", "create", "--uid", "user", "--display-name", "user", *keys)
        self._daemon("radosgw", "gateway")
        wait_for(self._answers, START_S, "the gateway")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=60).close()
        except OSError:
            return False
        return True


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
                environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0],
            )
            out.write(json.dumps({name: getattr(told, name) for name in Request.__slots__}) + "\n")
            return start_response(status, *args)

        yield from app(environ, start)

    return answer


def finer(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterator[bytes]]:
    """Return an application whose listings tell times in milliseconds, as those of MinIO and of Ceph's gateway do."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        for part in app(environ, start_response):
            yield part.replace(b".000Z</LastModified>", b".123Z</LastModified>")

    return answer


def main(port: int, log: Path, *how: str) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept, as S3 does
    app = DomainDispatcherApplication(create_backend_app)
    app = noting(finer(app) if "finer" in how else app, log)
    server = make_server("127.0.0.1", port, app, threaded=True)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
