"""With which status a request ends that could not be answered (RFC 9110, 15), and what it says of why."""

import asyncio
import re
from http import HTTPStatus
from typing import Any

from jcache.errors import OfflineMissError
from jcache_plugins.gateway.allowed import RefusedError
from jcache_plugins.gateway.bodies import NotCachedError
from jcache_plugins.gateway.byteranges import Unsatisfiable
from jcache_plugins.gateway.fairness import TooManyError
from jcache_plugins.gateway.targets import BadTargetError

__all__ = ["failure_of", "status_of"]

# What an origin answers that says as much of the gateway's answer; whatever else it refuses is a bad gateway.
_TOLD = {401: 403, 403: 403, 404: 404, 410: 404, 408: 504, 429: 503, 503: 503, 504: 504}
# What an XRootD server says (its protocol's error codes), which fsspec-xrootd has in the text of its errors only.
_XROOTD = re.compile(r"\[(30\d\d)\]")
_XROOTD_TOLD = {"3010": 403, "3011": 404, "3016": 404}
_OURS = (BadTargetError, RefusedError)


def failure_of(error: BaseException) -> tuple[int, str]:
    """Return the status for an error, and one line of text; of errors that are not ours nothing but their kind.

    What an origin's library puts into its messages may have addresses with secrets in it.
    """
    status = status_of(error)
    if isinstance(error, _OURS):
        return status, str(error)
    if isinstance(error, NotCachedError | OfflineMissError):
        return status, "not in the cache, and the origin is not to be asked"
    return status, HTTPStatus(status).phrase


def status_of(error: Any) -> int:
    """Return the status for an error."""
    if isinstance(error, BadTargetError):
        return 400
    if isinstance(error, RefusedError):
        return 403
    if isinstance(error, NotCachedError | OfflineMissError):
        return 504
    if isinstance(error, Unsatisfiable):
        return 416
    if isinstance(error, TooManyError):
        return 429
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return 404
    if isinstance(error, PermissionError):
        return 403
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _TOLD.get(status, 502)
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return 504
    code = _XROOTD.search(str(error)) if isinstance(error, OSError) else None
    return 502 if code is None else _XROOTD_TOLD.get(code[1], 502)
