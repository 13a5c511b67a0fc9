"""Who asks: a fingerprint of the credentials that a file system has, in memory only.

What one credential validated, another has not. So each has its own view of a remote file in a process, and a reader
whom the origin refuses is refused. A fingerprint that errs on the side of "another" costs one more question.
"""

import os
import uuid
import weakref
from collections.abc import Iterable, Mapping

from jcache.cache.credentials import TUNING
from jcache.cache.layout import digest

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
_objects: "weakref.WeakKeyDictionary[object, str]" = weakref.WeakKeyDictionary()


def who_asks(options: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """Return the fingerprint of all that may say who asks: options that are no mere tuning, and the environment's."""
    own = {name: value for name, value in options.items() if name not in TUNING or name == "anon"}
    return fingerprint((own, tuple((name, environ[name]) for name in _VARIABLES if name in environ)))


def fingerprint(value: object) -> str:
    """Return the hash of a value; empty for one that holds nothing, marked where an object in it is unknown."""
    parts: list[str] = []
    _collect(value, parts)
    if not parts:
        return ""
    mark = UNSTABLE if any(part.startswith(UNSTABLE) for part in parts) else ""
    return mark + digest(repr(parts), DIGITS)


def _collect(value: object, parts: list[str]) -> None:
    if value is None or value is False or value == "":
        return
    if isinstance(value, Mapping):
        for name, item in sorted(value.items(), key=lambda item: str(item[0])):
            before = len(parts)
            _collect(item, parts)
            if len(parts) > before:
                parts.insert(before, f"{name!s}=")
    elif isinstance(value, (str, bytes, bool, int, float, os.PathLike)):
        parts.append(repr(value))
    elif (isinstance(value, Iterable) and type(value).__module__ == "builtins") or isinstance(value, tuple):
        items = value if isinstance(value, (list, tuple)) else sorted(value, key=repr)
        for item in items:
            _collect(item, parts)
    elif callable(value) and "<" not in (name := str(getattr(value, "__qualname__", "<"))):
        parts.append(f"{value.__module__}.{name}")
    else:
        parts.append(UNSTABLE + _name_of(value))


def _name_of(unknown: object) -> str:
    """Return a name for an object that no other object gets, as long as this process lives."""
    try:
        return _objects.setdefault(unknown, uuid.uuid4().hex)
    except TypeError:  # nothing can be noted of it, so it is new each time
        return uuid.uuid4().hex
