"""What of a URL's query says who asks and for how long: the parameters of complete, known signature schemes.

Nothing else is cut from a URL. A parameter whose name only looks like a secret may be what tells two objects apart,
and then a false "same" is silently the wrong bytes; a false "different" costs a second copy. So a scheme's parameters
are cut only where all that the scheme requires is there, spelt as the scheme spells it, each once. What decides within
a signed URL is none of them: a version, a part number, response headers that are overridden.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote_plus

from jcache.naming.credentials import names


class _Scheme(NamedTuple):
    """Names of query parameters, as the scheme spells them."""

    required: frozenset[str]
    one_of: tuple[frozenset[str], ...] = ()
    """At least one of each of these has to be there, too; all of them are cut."""
    optional: frozenset[str] = frozenset()


def _prefixed(prefix: str, text: str) -> frozenset[str]:
    return frozenset(prefix + name for name in text.split())


_SCHEMES = (
    # Amazon S3 and all that speak like it.
    _Scheme(
        _prefixed("X-Amz-", "Algorithm Credential Date Signature"),
        optional=_prefixed("X-Amz-", "Expires SignedHeaders Security-Token Content-Sha256 User-Agent Checksum-Mode")
        | {"x-id"},
    ),
    _Scheme(names("AWSAccessKeyId Signature Expires"), optional=names("x-amz-security-token")),
    # Google Cloud Storage.
    _Scheme(
        _prefixed("X-Goog-", "Algorithm Credential Date Signature"),
        optional=_prefixed("X-Goog-", "Expires SignedHeaders Content-Sha256"),
    ),
    _Scheme(names("GoogleAccessId Signature Expires")),
    # Azure's shared access signatures.
    _Scheme(
        names("sv sig"),
        (names("se si"), names("sr ss")),
        names(
            "srt sp st spr sip sdd ses saoid suoid scid skoid sktid skt ske sks skv sduoid skdutid"
        ),
    ),
    # CloudFront.
    _Scheme(names("Key-Pair-Id Signature"), (names("Expires Policy"),), names("Hash-Algorithm")),
    # Alibaba's OSS.
    _Scheme(names("OSSAccessKeyId Signature Expires"), optional=names("security-token")),
    _Scheme(
        _prefixed("x-oss-", "signature-version credential date signature"),
        optional=_prefixed("x-oss-", "expires security-token additional-headers"),
    ),
    # Tencent's COS.
    _Scheme(
        _prefixed("q-", "sign-algorithm ak sign-time key-time signature"),
        optional=_prefixed("q-", "header-list url-param-list") | {"x-cos-security-token"},
    ),
)  # fmt: skip

# XRootD's and dCache's: what authorises, how to authenticate, and for whom the traffic is booked.
_XROOTD = re.compile(r"authz|scitag\.flow|cap\.(?:sym|msg)|xrd\.\w+|xrdcl\.(?!unzip\b)\w+|eos\.(?:app|ruid|rgid)")
# Akamai's: all of the signature in one parameter.
_AKAMAI = re.compile(r"(?:hdnea|hdnts|hdntl|__gda__)=(?=.*\bexp=\d)(?=.*\bhmac=[0-9a-f]{32}).*", re.DOTALL)


def split_query(query: str, *, ignore: frozenset[str] = frozenset()) -> tuple[str, str]:
    """Return what of a query decides which bytes are meant, and what is left: who asks.

    Args:
        query: What stands behind the `?`, still encoded.
        ignore: Parameters of which somebody knows that they decide nothing; `*` is all.

    Returns:
        Both as they were spelt, in their own order. They may contain secrets: hash them.
    """
    if not query:
        return "", ""
    items = query.split("&")
    named = [unquote_plus(item.partition("=")[0], errors="surrogateescape") for item in items]
    asking = _signature(named) | ignore
    kept: list[str] = []
    cut: list[str] = []
    for name, item in zip(named, items, strict=True):
        is_asking = name in asking or "*" in ignore or _XROOTD.fullmatch(name) or _AKAMAI.fullmatch(item)
        (cut if is_asking else kept).append(item)
    return "&".join(kept), "&".join(cut)


def access_key(cut: str) -> str | None:
    """Return which key of an S3 service has signed, out of what was cut from a query; None where none has."""
    for item in cut.split("&"):
        name, _, value = item.partition("=")
        if name in {"X-Amz-Credential", "AWSAccessKeyId"}:
            return unquote_plus(value, errors="surrogateescape").partition("/")[0]
    return None


def _signature(named: list[str]) -> frozenset[str]:
    """Return the names that belong to a complete signature."""
    once = {name for name in named if named.count(name) == 1} if len(set(named)) < len(named) else set(named)
    found: frozenset[str] = frozenset()
    for scheme in _SCHEMES:
        if scheme.required <= once and not any(one_of.isdisjoint(once) for one_of in scheme.one_of):
            found |= scheme.required.union(scheme.optional, *scheme.one_of) & once
    return found
