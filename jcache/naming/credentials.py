"""The one list of what is secret: names of credentials, in URLs, options, headers and command lines.

What has such a name is neither stored nor shown. That says nothing of which bytes are meant: a `session_id` may well be
the number of a recording session. So what an identity leaves out is decided elsewhere: of URLs what belongs to a
signature scheme (`signatures.py`), of options what its protocol's rule names (`protocols.py`).
"""

import itertools
import re


def names(text: str) -> frozenset[str]:
    """Return the names in a text, which white space keeps apart."""
    return frozenset(text.split())


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_SECRET_WORDS = names(
    """
    auth authn authz authorization authentication bearer cookie cookies cred creds credential credentials hmac jwt
    macaroon oauth otp totp pass passcode passphrase passwd password psk pwd sas secret secrets sig signature token
    tokens sessionid jsessionid x509 proxycert
    """
)
# `PGPASSWORD` is one word.
_SECRET_ENDS = ("password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "secretkey", "privatekey")
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("secret", "key"), ("private", "key"), ("account", "key"), ("key", "id"),
     ("key", "file"), ("subscription", "key"), ("session", "id"), ("client", "cert"), ("shared", "key"),
     ("session", "key"), ("encryption", "key"), ("customer", "key"), ("master", "key")}
)  # fmt: skip
# `page_token` and its like say where in a listing to go on.
_CURSOR_WORDS = names("page next prev previous continuation continue start sync cursor resume count max min")
_SECRET_NAMES = names(
    """
    awsaccesskeyid googleaccessid ossaccesskeyid key-pair-id x-amz-credential x-goog-credential x-oss-credential q-ak
    hdnea hdnts hdntl __gda__ cap.sym cap.msg xrd.gsiusrpxy xrd.gsiusrkey
    """
)

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

ASKING_HEADERS = names(
    """
    authorization cookie private-token proxy-authorization x-amz-security-token x-api-key x-auth-token x-ms-date
    """
)
"""Request headers that say who asks, in lower case: a server that gives each another file has to say so (`Vary`)."""

IDLE_HEADERS = names(
    """
    accept-encoding cache-control connection dnt from if-match if-modified-since if-none-match if-range
    if-unmodified-since keep-alive origin pragma priority referer scitag te traceparent tracestate
    user-agent via x-request-id x-forwarded-for
    """
)
"""Request headers that leave open which bytes are meant, unless the server says that they do not (`Vary`)."""


def is_secret(name: str) -> bool:
    """Tell whether a parameter, option, header or variable of this name holds a secret.

    Args:
        name: As it is spelt in the program or, decoded, in the URL.
    """
    lower = name.lower()
    if lower in _SECRET_NAMES:
        return True
    words = [word.lower() for word in _WORDS.findall(name)]
    if not _CURSOR_WORDS.isdisjoint(words):
        return False
    return (
        not _SECRET_WORDS.isdisjoint(words)
        or not _SECRET_PAIRS.isdisjoint(itertools.pairwise(words))
        or any(word.endswith(_SECRET_ENDS) for word in words)
    )
