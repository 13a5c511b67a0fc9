"""An XRootD server with TLS that judges tokens: it takes them at login (`ztn`), as macaroons, and at each request."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from macaroons import SITE, token
from servers import XrootdServer, XrootdUnavailableError

from jcache.demo import xrootd_server

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TokenServer"]

_SETTINGS = """
xrd.tls {work}/cert.pem {work}/key.pem
xrd.tlsca noverify
xrootd.tls capable all
xrootd.seclib libXrdSec.so
sec.protocol ztn -tokenlib libXrdMacaroons.so -expiry optional
ofs.authorize 1
ofs.authlib libXrdMacaroons.so
macaroons.secretkey {work}/secret
all.sitename {site}
acc.authdb {work}/authdb
macaroons.trace all
"""


class TokenServer(XrootdServer):
    """A running XRootD server that gives its files to who has a token of it."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            raise XrootdUnavailableError("openssl is not installed")
        self.key = os.urandom(64)
        super().__init__(directory)

    @property
    def cert(self) -> Path:
        """What clients take its word by."""
        return self._work / "cert.pem"

    def token(self, who: str, *, for_s: float = 600.0, path: str = "/") -> str:
        """Return a token that opens what lies below a path, until it has expired."""
        return token(self.key, who, for_s=for_s, path=path)

    def logins(self) -> int:
        """Return how many connections it has taken a token of."""
        return self.log().count(" login as ")

    def _problem(self, port: int) -> str:
        return ""  # it answers nobody without a token: what it logs is enough

    def _settings(self) -> list[str]:
        work = self._work
        named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        made = ["-newkey", "rsa:2048", "-keyout", work / "key.pem", "-out", self.cert, *named]
        if not self.cert.exists():
            subprocess.run(["openssl", "req", "-x509", "-nodes", *made], check=True, capture_output=True)
            (work / "secret").write_bytes(base64.encodebytes(self.key))
            (work / "authdb").write_text("u nobody /nothing rl\n")  # nothing goes without a token
        for name in ("key.pem", "secret"):
            (work / name).chmod(0o600)
            if os.geteuid() == 0:
                account = xrootd_server._unprivileged_account()
                os.chown(work / name, account.pw_uid, account.pw_gid)
        return [*super()._settings(), *_SETTINGS.format(work=work, site=SITE).splitlines()]
