"""Who asks: a fingerprint of the credentials that a file system has, in memory only.

What one credential validated, another has not. So each has its own view of a remote file in a process, and a reader
whom the origin refuses is refused. A fingerprint that errs on the side of "another" costs one more question.
"""

import os
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path

from jcache.naming.credentials import TUNING
from jcache.naming.layout import digest

__all__ = ["UNSTABLE", "fingerprint", "who_asks"]

DIGITS = 32
UNSTABLE = "?"
"""What a fingerprint begins with that means nothing in another process."""

_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_DEFAULT_PROFILE", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "BEARER_TOKEN", "BEARER_TOKEN_FILE",
    "GITHUB_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "KRB5CCNAME", "X509_USER_CERT", "X509_USER_KEY",
    "X509_USER_PROXY", "XrdSecPROTOCOL", "XrdSecGSIUSERPROXY",
)  # fmt: skip
_IDLE = TUNING - {"anon"}
_objects: "weakref.WeakKeyDictionary[object, str]" = weakref.WeakKeyDictionary()


def who_asks(options: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """Return the fingerprint of all that may say who asks: options that are no mere tuning, and the environment's."""
    told = options, tuple((name, environ[name]) for name in _VARIABLES if name in environ)
    logins = _logins(options, environ)
    return fingerprint((*told, logins) if logins else told)


def _logins(options: Mapping[str, object], environ: Mapping[str, str]) -> bytes:
    """Return the file of logins that an HTTP client reads where it is told to; empty where there is none."""
    client = options.get("client_kwargs")
    if not isinstance(client, Mapping) or not client.get("trust_env"):
        return b""
    try:
        return (
            Path(environ.get("NETRC") or os.path.join(environ.get("HOME") or "~", ".netrc")).expanduser().read_bytes()
        )
    except (OSError, RuntimeError):
        return b""


def fingerprint(value: object) -> str:
    """Return the hash of a value; empty for one that holds nothing, marked where an object in it is unknown."""
    unknown: list[object] = []
    told = _told(value, unknown)
    if told is None:
        return ""
    return (UNSTABLE if unknown else "") + digest(repr(told), DIGITS)


def _told(value: object, unknown: list[object]) -> object:
    """Return what a value says, in a form whose `repr` is the same in every process; None where that is nothing.

    Args:
        value: Any.
        unknown: Gets the objects of which that cannot be said.
    """
    if value is None or value is False or value == "":
        return None
    if isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        named = ((str(name), _told(item, unknown)) for name, item in value.items() if name not in _IDLE)
        return tuple(sorted((pair for pair in named if pair[1] is not None), key=lambda pair: pair[0])) or None
    if isinstance(value, (list, tuple)):
        items = tuple(_told(item, unknown) for item in value)
        return items if any(item is not None for item in items) else None
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(repr(_told(item, unknown)) for item in value)) or None
    if callable(value) and "<" not in (name := str(getattr(value, "__qualname__", "<"))):
        return f"{value.__module__}.{name}"
    unknown.append(value)
    return _name_of(value)


def _name_of(unknown: object) -> str:
    """Return a name for an object that no other object gets, as long as this process lives."""
    try:
        return _objects.setdefault(unknown, uuid.uuid4().hex)
    except TypeError:  # nothing can be noted of it, so it is new each time
        return uuid.uuid4().hex
