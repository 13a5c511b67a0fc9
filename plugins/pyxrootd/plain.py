"""pyxrootd's own methods, as they were before they were hooked, and who calls them past the hooks."""

from collections.abc import Callable
from types import FrameType
from typing import Any

from jcache_plugins.origins.base import within_origin

__all__ = ["FILE", "SYSTEM", "is_passed"]

# By name, of `File` and of `FileSystem`.
FILE: dict[str, Callable[..., Any]] = {}
SYSTEM: dict[str, Callable[..., Any]] = {}

# fsspec-xrootd's file system is hooked itself.
_PASSED = frozenset({"fsspec_xrootd", "jcache_plugins"})


def is_passed(caller: FrameType) -> bool:
    """Whether a call is JCache's own, or fsspec-xrootd's."""
    return str(caller.f_globals.get("__name__")).partition(".")[0] in _PASSED or within_origin()
