"""A cache directory: which journal belongs to which remote file, and where it lies."""

from jcache.cache.directory import Cache, CacheUnusable
from jcache.cache.identity import Identity, Unidentifiable, identify

__all__ = ["Cache", "CacheUnusable", "Identity", "Unidentifiable", "identify"]
