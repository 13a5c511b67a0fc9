"""The gateway of a run: started before its command, the way of the command's programs to the cache, ended after it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from jcache.activate.notice import say
from jcache.cli.errors import WrongInputError
from jcache.settings.policy import GATEWAY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["GatewayOfRun"]

_PROGRAM = "jcache_plugins.gateway.beside"
# It saves its report within 30 s, however slow the cache directory is.
_END_S = 60.0
_REGION = "us-east-1"
# What leads clients of S3 past an endpoint, or past the keys that are for it.
_MISLEADING = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_NO_SIGN_REQUEST",
    "AWS_SKIP_SIGNATURE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)


class GatewayOfRun:
    """A gateway that serves the processes of one command.

    It is a process in a session of its own, which no signal of a terminal reaches. It ends when this process does, even
    if that is killed.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], told: Mapping[str, str], *, s3: bool, is_proxy: bool) -> None:
        """Take over a process that has told where it listens; see `start`."""
        self.url = told["url"]
        self._process, self._told = process, told
        self._s3, self._is_proxy = s3, is_proxy

    @classmethod
    def start(cls, environ: Mapping[str, str], *, s3: bool, allow: Sequence[str]) -> Self:
        """Start a gateway and wait until it takes connections.

        Args:
            environ: The job's environment, which is the gateway's: its endpoint and keys of S3 are the origin's.
            s3: Whether it serves clients of S3.
            allow: Patterns of the URLs that it forwards to, as a proxy.

        Raises:
            WrongInputError: It cannot serve that; it has said why.
        """
        options = [*(["--s3"] if s3 else []), *(f"--allow={pattern}" for pattern in allow)]
        process = subprocess.Popen(  # noqa: S603 - a module of ours
            [sys.executable, "-m", _PROGRAM, *options],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
        if not line:
            process.wait()
            raise WrongInputError("the gateway could not be started, nor was the command")
        return cls(process, json.loads(line), s3=s3, is_proxy=bool(allow))

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return a job's environment with this gateway as what its command reads S3 and HTTP through."""
        made = {name: value for name, value in environ.items() if not self._s3 or name not in _MISLEADING}
        address = urlsplit(self.url).netloc
        made[GATEWAY_VARIABLE] = address
        if self._s3:
            region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _REGION
            made |= {
                "AWS_ACCESS_KEY_ID": self._told["key"],
                "AWS_SECRET_ACCESS_KEY": self._told["secret"],
                "AWS_ENDPOINT_URL": self.url,
                "AWS_ENDPOINT_URL_S3": self.url,
                "AWS_REGION": region,
                "AWS_DEFAULT_REGION": region,
                "AWS_ALLOW_HTTP": "true",  # polars, obstore and others of Rust's
                "DUCKDB_S3_ENDPOINT": address,
                "DUCKDB_S3_USE_SSL": "false",
                "AWS_S3_ENDPOINT": address,  # this and the next two are GDAL's
                "AWS_HTTPS": "NO",
                "AWS_VIRTUAL_HOSTING": "FALSE",
            }
        if self._is_proxy:
            made["http_proxy"] = f"http://{self._told['user']}:{self._told['token']}@{address}"
            made.pop("HTTP_PROXY", None)  # some ask for this name first; DuckDB, which asks for no other, takes no user
        else:  # a proxy of the user's own does not know it
            host = address.rpartition(":")[0]
            for name in ("no_proxy", "NO_PROXY"):
                made[name] = ",".join(filter(None, [environ.get(name) or environ.get(name.swapcase()), host]))
        return made

    def end(self) -> None:
        """End it, and wait until its report is saved."""
        process = self._process
        code = process.poll()
        if code is not None:
            say(f"the gateway ended before the command did, with {code}: what came after it was read from nowhere")
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            say(f"the gateway did not end within {_END_S:g} s: its part of the report is missing")
            process.kill()
            process.wait()
