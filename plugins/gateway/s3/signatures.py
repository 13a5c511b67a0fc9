"""Who may: requests that are signed with a key of the gateway's own (AWS Signature Version 4), in a field or a URL."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from jcache_plugins.gateway.door import GivenLines, lines_of

__all__ = ["Asked", "Keys", "RefusedSignatureError"]

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
# How far a client's clock may be off, and how long a signed URL may hold.
SKEW_S, LONGEST_S = 15 * 60, 7 * 24 * 3600
_FIELD = re.compile(
    rf"{ALGORITHM}\s+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]{{64}})"
)
_SCOPE = re.compile(r"(?P<key>.+)/(?P<scope>(?P<date>\d{8})/(?P<region>[^/]*)/(?P<service>[^/]*)/aws4_request)")
_STAMP = "%Y%m%dT%H%M%SZ"
# What decides what a request means has to be signed with it, as AWS demands.
_ALWAYS_SIGNED = "host"


class RefusedSignatureError(PermissionError):
    """A request is not signed as it has to be.

    Attributes:
        code: Why, in the words of S3.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Asked(NamedTuple):
    """What of a request is signed.

    Attributes:
        method: In upper case.
        path: As it was sent.
        query: Its parameters, decoded, in the order in which they were sent.
        field: Returns a header field by its name, those of one name joined by commas; None where there is none.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    field: Callable[[str], str | None]


class Signature(NamedTuple):
    """What a request says of how it was signed."""

    credential: str
    signed: str
    signature: str
    stamp: str
    payload: str
    holds_s: float | None


class Keys:
    """The keys in a file, one a line: an access key, a space, and its secret; read again when it has changed.

    Args:
        source: The file, or its lines.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is none, or there is no key.
    """

    def __init__(self, source: str | GivenLines) -> None:
        self._lines = lines_of(source)
        if not self._known():
            msg = f"{source} has no key in it"
            raise ValueError(msg)

    def check(self, asked: Asked) -> str:
        """Return the access key that a request is signed with.

        Raises:
            RefusedSignatureError: It is signed with none of them, for another request, or for another time.
        """
        said = said_of(asked)
        scope = _SCOPE.fullmatch(said.credential)
        if scope is None or scope["service"] != "s3" or not said.stamp.startswith(scope["date"]):
            raise RefusedSignatureError("AuthorizationHeaderMalformed", "the credential is none of S3's")
        names = said.signed.split(";")
        if _ALWAYS_SIGNED not in names:
            raise RefusedSignatureError("AccessDenied", "the Host field has to be signed")
        check_time(said)
        try:
            secret = self._known().get(scope["key"])
        except (OSError, ValueError):
            secret = None  # who takes the file away, or spoils it, lets nobody in
        # Of a key that is not known the same is computed, so that the time does not say which are.
        key = signing_key(secret or "", scope["date"], scope["region"])
        text = "\n".join((ALGORITHM, said.stamp, scope["scope"], digest(canonical(asked, names, said.payload))))
        right = hmac.digest(key, encoded(text), "sha256").hex()
        is_right = hmac.compare_digest(right.encode(), encoded(said.signature))
        if secret is None:
            raise RefusedSignatureError("InvalidAccessKeyId", "the access key is not known here")
        if not is_right:
            raise RefusedSignatureError("SignatureDoesNotMatch", "the signature is not the one of this request")
        return scope["key"]

    def _known(self) -> dict[str, str]:
        pairs = [line.decode().split() for line in self._lines.read()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("a line of the keys' file is not an access key and its secret")
        return dict(pairs)


def said_of(asked: Asked) -> Signature:
    """Return how a request says that it was signed.

    Raises:
        RefusedSignatureError: It does not say so.
    """
    parameters = dict(asked.query)
    if "X-Amz-Signature" in parameters:
        try:
            holds_s = float(parameters["X-Amz-Expires"])
            return Signature(
                parameters["X-Amz-Credential"],
                parameters["X-Amz-SignedHeaders"],
                parameters["X-Amz-Signature"],
                parameters["X-Amz-Date"],
                UNSIGNED,
                holds_s,
            )
        except (KeyError, ValueError):
            raise RefusedSignatureError("AuthorizationQueryParametersError", "the signed URL lacks something") from None
    field = asked.field("Authorization")
    if field is None:
        raise RefusedSignatureError("AccessDenied", "the request has to be signed")
    match = _FIELD.fullmatch(field.strip())
    stamp = asked.field("X-Amz-Date")
    if match is None or stamp is None:
        raise RefusedSignatureError("AuthorizationHeaderMalformed", "the Authorization field is none of version 4")
    payload = asked.field("X-Amz-Content-SHA256") or digest("")
    return Signature(match[1], match[2], match[3], stamp, payload, None)


def check_time(said: Signature) -> None:
    """Check that a signature is of this time.

    Raises:
        RefusedSignatureError: It is not.
    """
    try:
        age_s = time.time() - datetime.strptime(said.stamp, _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise RefusedSignatureError("AccessDenied", "the time of the signature is none") from None
    if said.holds_s is None:
        if abs(age_s) > SKEW_S:
            raise RefusedSignatureError("RequestTimeTooSkewed", "the clocks of client and gateway differ by too much")
    elif not 0 < said.holds_s <= LONGEST_S or not -SKEW_S <= age_s <= said.holds_s:
        raise RefusedSignatureError("AccessDenied", "the signed URL has expired, or holds for too long")


def canonical(asked: Asked, names: Sequence[str], payload: str) -> str:
    """Return a request in the form that is signed, whichever way the client has spelt it."""
    query = sorted((escaped(name), escaped(value)) for name, value in asked.query if name != "X-Amz-Signature")
    fields = ((name, asked.field(name)) for name in names)
    return "\n".join((
        asked.method,
        escaped(unquote(asked.path), safe="/"),
        "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{' '.join((value or '').split())}" for name, value in fields),
        "",
        ";".join(names),
        payload,
    ))  # fmt: skip


def escaped(text: str, safe: str = "") -> str:
    """Return a text as URLs have it that are signed."""
    return quote(text, safe=f"{safe}-_.~", errors="surrogateescape")


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(encoded(text)).hexdigest()


def encoded(text: str) -> bytes:
    """Return the bytes of a text, which a client may have made of any."""
    return text.encode("utf-8", "surrogateescape")


def signing_key(secret: str, date: str, region: str) -> bytes:
    """Return the key of a day and a region."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, encoded(part), "sha256")
    return key
