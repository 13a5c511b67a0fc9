"""Stores of obstore, read through the journals: in place by the environment variable, or by name (`JCacheStore`)."""

# Before any module here, as in `jcache_plugins.fsspec`.
import fsspec  # noqa: F401

from jcache_plugins.obspec.hooks import install, uninstall
from jcache_plugins.obspec.places import watch
from jcache_plugins.obspec.store import JCacheStore

watch()

__all__ = ["JCacheStore", "install", "uninstall"]
