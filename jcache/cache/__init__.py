"""A cache directory: which journal belongs to which remote file, and where it lies."""

from jcache.cache.directory import Cache, CacheUnusable
from jcache.cache.identity import Identifier, Identity, Unidentifiable, identify

__all__ = ["Cache", "CacheUnusable", "Identifier", "Identity", "Unidentifiable", "identify"]
