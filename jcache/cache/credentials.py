"""Tells what says *who asks* from what says *which bytes*: names of credentials, signatures, expiry times and tuning.

The danger lies on both sides. A secret that is kept would reach the disk, and every renewed signature would start an
empty journal; a parameter that is cut although it decides the bytes would make two objects share one journal. So a name
is cut only where its meaning is certain: from a list, or by its words (`x_auth_token`, but neither `author` nor
`pageToken`), and names that are common words (`expires`, `policy`, `st`) only beside the signature that they belong
to. What is not cut enters an identity as a hash alone.
"""

import itertools
import re
from collections.abc import Iterable
from urllib.parse import unquote_plus


def names(text: str) -> frozenset[str]:
    """Return the names in a text, which white space keeps apart."""
    return frozenset(text.split())


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_SECRET_WORDS = names(
    """
    auth authn authz authorization authentication bearer cookie cookies credential credentials hmac jwt macaroon oauth
    passphrase passwd password pwd secret sig signature token tokens apikey accesskey secretkey privatekey
    sessionid jsessionid x509 proxycert
    """
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("secret", "key"), ("private", "key"), ("account", "key"), ("key", "id"),
     ("key", "file"), ("subscription", "key"), ("session", "id"), ("client", "cert"), ("shared", "key")}
)  # fmt: skip
# `page_token` and its like say where in a listing to go on, so they decide the bytes.
_CURSOR_WORDS = names("page next prev previous continuation continue start sync cursor resume count max min")

_SECRET_NAMES = names(
    """
    access_token accesstoken id_token authz authorization
    awsaccesskeyid googleaccessid ossaccesskeyid key-pair-id
    x-amz-algorithm x-amz-credential x-amz-date x-amz-expires x-amz-signedheaders x-amz-signature x-amz-security-token
    x-amz-content-sha256 x-amz-user-agent x-amz-checksum-mode x-id
    x-goog-algorithm x-goog-credential x-goog-date x-goog-expires x-goog-signedheaders x-goog-signature
    x-oss-signature x-oss-signature-version x-oss-credential x-oss-date x-oss-expires x-oss-security-token
    q-sign-algorithm q-ak q-sign-time q-key-time q-header-list q-url-param-list q-signature
    hdnea hdnts hdntl __gda__ __token__
    cap.sym cap.msg scitag.flow
    """
)
_SECRET_PREFIXES = ("xrd.", "eos.", "mgm.")

# Cut only beside the parameter on the left: alone they are ordinary words.
_COMPANIONS = {
    "sig": names(
        """
        sv ss srt sp se st spr sip sr si sdd ses saoid suoid scid skoid sktid skt ske sks skv sduoid skdutid
        rscc rscd rsce rscl rsct
        """
    ),
    "signature": frozenset({"expires", "policy", "hash-algorithm", "hashalgorithm"}),
    "token": frozenset({"expires", "expiry", "expire", "exp", "ttl"}),
    "hmac": frozenset({"expires", "expiry", "exp", "timestamp"}),
}
# Azure's overrides of response headers (rscd ...) and their kind leave the bytes alone. Content encoding does not, but
# ranges of an encoded body are no ranges of the file, and the HTTP client asks for none.

TUNING = names(
    """
    anon asynchronous batch_size block_size blocksize cache_options cache_regions cache_storage cache_type
    check_connection connect_timeout consistency default_block_size default_cache_type default_fill_cache
    default_max_num_chunks default_max_chunk_size filehandle_cache_size filehandle_cache_ttl fixed_upload_size
    listing_expiry_time listings_expiry_time loop max_concurrency max_paths max_retries nocache protocol
    read_timeout requests_timeout retries skip_instance_cache socket_timeout ssl tempdir temppath timeout trust_env
    requester_pays secure_serialize use_listings_cache use_ssl verify cache_timeout auto_mkdir
    """
)
"""Options of file systems that change how bytes are fetched, not which."""

_HEADERS = names(
    """
    accept-encoding cache-control connection dnt from if-match if-modified-since if-none-match if-range
    if-unmodified-since keep-alive origin pragma priority proxy-authorization referer scitag te traceparent tracestate
    user-agent via x-request-id x-forwarded-for
    """
)


def is_secret(name: str) -> bool:
    """Tell whether a parameter, option or header of this name says who asks, whatever else it comes with.

    Args:
        name: As it is spelt in the program or, decoded, in the URL.
    """
    lower = name.lower()
    if lower in _SECRET_NAMES or lower.startswith(_SECRET_PREFIXES):
        return True
    words = [word.lower() for word in _WORDS.findall(name)]
    if not _CURSOR_WORDS.isdisjoint(words):
        return False
    return not _SECRET_WORDS.isdisjoint(words) or not _SECRET_PAIRS.isdisjoint(itertools.pairwise(words))


def is_idle_header(name: str) -> bool:
    """Tell whether a request header of this name leaves open which bytes are meant."""
    return name.lower() in _HEADERS or is_secret(name)


def strip_query(query: str) -> list[str]:
    """Return the parameters of a query that decide which bytes are meant, in an order that does not depend on theirs.

    Args:
        query: What stands behind the `?`, still encoded.

    Returns:
        `name=value` items as they were spelt, sorted by name; in their own order where one of them is no `name=value`,
        since it may be its place that gives it a meaning. They may contain secrets that no rule knows: hash them.
    """
    items = [item for item in query.split("&") if item]
    names = [unquote_plus(item.partition("=")[0], errors="surrogateescape") for item in items]
    present = {name.lower() for name in names}
    idle = _companions(present)
    kept = [
        (name, item)
        for name, item in zip(names, items, strict=True)
        if not is_secret(name) and name.lower() not in idle
    ]
    if all("=" in item for _, item in kept):
        kept.sort(key=lambda pair: pair[0])
    return [item for _, item in kept]


def _companions(present: Iterable[str]) -> set[str]:
    idle: set[str] = set()
    for name in present:
        idle |= _COMPANIONS.get(name, frozenset())
        if name.startswith("x-") and name.endswith("-signature"):
            idle |= _COMPANIONS["signature"]
    return idle
