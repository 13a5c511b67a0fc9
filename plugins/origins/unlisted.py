"""A file system without the listings that it keeps: what it is asked, it asks its server."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from fsspec.dircache import DirCache

__all__ = ["unlisted"]

# Where an asynchronous file system has the one without listings, for what is made there, and ends with that.
KEPT = "_jcache_unlisted"
_NONE = DirCache(use_listings_cache=False)
_classes: dict[type, Any] = {}
_listings: contextvars.ContextVar[Any] = contextvars.ContextVar("jcache_listings")


@contextlib.contextmanager
def unlisted(fs: Any) -> Iterator[Any]:
    """Give a file system that is the same one, but for what was listed before.

    The application's keeps that: what it is asked about names, it answers as without JCache. All other attributes are
    one and the same, so that a session or a connection that is made here is there as well.
    """
    found = vars(fs).get(KEPT)
    if found is None:
        cls = fs.__class__  # of what a proxy stands for
        known = _classes.get(cls)
        if known is None:
            # Of what is made meanwhile some ends later, and finds none.
            listings = property(lambda _: _listings.get(_NONE), lambda _, new: _listings.set(new) and None)
            names = {"dircache": listings, "__module__": cls.__module__, "__del__": lambda _: None}
            known = _classes[cls] = type(cls)(cls.__name__, (cls,), names)
        found = object.__new__(known)
        found.__dict__ = vars(fs)
        found = vars(fs).setdefault(KEPT, found) if fs.async_impl else found
    token = _listings.set(DirCache())
    try:
        yield found
    finally:
        _listings.reset(token)
