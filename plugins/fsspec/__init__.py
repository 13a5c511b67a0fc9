"""Hooks in fsspec's remote file systems: their reads go through the journal, the classes stay what they were."""

from jcache_plugins.fsspec.hooks import install, is_remote, uninstall

__all__ = ["install", "is_remote", "uninstall"]
