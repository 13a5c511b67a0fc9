"""The origins of fsspec's file systems: how each protocol is read, and how what was read is proved."""

# Before any module here, as in `jcache_plugins.fsspec`.
import fsspec  # noqa: F401
