"""A cache directory: what lies in it, who used it, what stays and what goes."""

from jcache.cache.directory import Cache, CacheUnusable

__all__ = ["Cache", "CacheUnusable"]
