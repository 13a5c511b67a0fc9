"""Macaroons (Birgisson et al. 2014) as XRootD's servers give and judge them, spelt as libmacaroons' first version."""

import base64
import hashlib
import hmac
import time

__all__ = ["SITE", "token"]

SITE = "site"
MAY = "activity:DOWNLOAD,READ_METADATA,LIST"


def token(key: bytes, who: str, *, for_s: float, path: str = "/") -> str:
    """Return a token by which somebody may read what lies below a path, until it has expired."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + for_s))
    signature = keyed(keyed(b"macaroons-key-generator".ljust(32, b"\0"), key), who.encode())
    parts = [packet("location", SITE.encode()), packet("identifier", who.encode())]
    for caveat in (MAY, f"path:{path}", f"before:{until}"):
        signature = keyed(signature, caveat.encode())
        parts.append(packet("cid", caveat.encode()))
    return base64.urlsafe_b64encode(b"".join([*parts, packet("signature", signature)])).rstrip(b"=").decode()


def keyed(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def packet(name: str, value: bytes) -> bytes:
    return b"%04x%s %s\n" % (len(name) + len(value) + 6, name.encode(), value)
