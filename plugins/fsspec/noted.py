"""Questions about names (`ls`, `info`, `exists`, ...), noted in the access profile where one is recorded."""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import Any

from jcache.counters import LISTING, STAT
from jcache.session import current
from jcache_plugins.fsspec.access import identities
from jcache_plugins.origins.base import within_origin

__all__ = ["noting"]

_LISTINGS = frozenset({"ls", "find", "glob", "walk"})

# What a question asks in turn is none of the application's.
_within: contextvars.ContextVar[bool] = contextvars.ContextVar("jcache_noted", default=False)


class Noted:
    """One question, which has begun."""

    __slots__ = ("_fs", "_kind", "_path", "_started_s", "_token")

    def __init__(self, fs: Any, kind: str, path: Any) -> None:
        self._fs, self._kind, self._path = fs, kind, path
        self._token = _within.set(True)
        self._started_s = time.monotonic()

    def end(self, *, hit: bool) -> None:
        """Note it, whatever the answer is.

        Args:
            hit: Whether it was answered without asking an origin.
        """
        with contextlib.suppress(ValueError):  # a coroutine that is dropped is closed in whatever context that happens
            _within.reset(self._token)
        session = current()
        if session is None or session.counters.profile is None:
            return
        identity = identities(self._fs, [self._path])[0] if isinstance(self._path, str) else None
        url = "" if identity is None else identity.url
        kind = LISTING if self._kind in _LISTINGS else STAT
        session.counters.asked(kind, url, seconds=time.monotonic() - self._started_s, hit=hit)


def noting(fs: Any, kind: str, path: Any) -> Noted | None:
    """Begin to note a question; None where another one, or JCache itself, puts it.

    Args:
        fs: The file system.
        kind: The method's name, without an underscore in front.
        path: What is asked about, as the file system takes it.
    """
    return None if _within.get() or within_origin() else Noted(fs, kind, path)
