"""Questions about names (`ls`, `info`, `exists`, ...), noted in the access profile where one is recorded."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any, Self

from jcache.counters import LISTING, STAT
from jcache.session import current
from jcache_plugins.fsspec.access import identities
from jcache_plugins.origins.base import within_origin

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["noted"]

_LISTINGS = frozenset({"ls", "find", "glob", "walk"})

# What a question asks in turn is none of the application's.
_within: contextvars.ContextVar[bool] = contextvars.ContextVar("jcache_noted", default=False)


class Noted:
    """One question; notes itself as it is left.

    Attributes:
        hit: Whether it was answered without asking an origin.
    """

    __slots__ = ("_fs", "_kind", "_path", "_started_s", "_token", "hit")

    def __init__(self, fs: Any, kind: str, path: Any) -> None:
        self._fs, self._kind, self._path = fs, kind, path
        self.hit = False

    def __enter__(self) -> Self:
        """Begin."""
        self._token = _within.set(True)
        self._started_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note it, whatever the answer is."""
        _within.reset(self._token)
        session = current()
        if session is None or session.counters.profile is None:
            return
        identity = identities(self._fs, [self._path])[0] if isinstance(self._path, str) else None
        url = "" if identity is None else identity.url
        kind_of = LISTING if self._kind in _LISTINGS else STAT
        session.counters.asked(kind_of, url, seconds=time.monotonic() - self._started_s, hit=self.hit)


class Unnoted:
    """Stands for a question where no profile is recorded."""

    hit = False

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


_UNNOTED = Unnoted()


def noted(fs: Any, kind: str, path: Any) -> Noted | Unnoted:
    """Return what notes a question while it is answered.

    Args:
        fs: The file system.
        kind: The method's name, without an underscore in front.
        path: What is asked about, as the file system takes it.
    """
    session = current()
    if session is None or session.counters.profile is None or _within.get() or within_origin():
        return _UNNOTED
    return Noted(fs, kind, path)
