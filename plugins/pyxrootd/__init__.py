"""Hooks in pyxrootd: what `XRootD.client` reads goes through the journal, and is the same file as fsspec-xrootd's."""

import importlib.util
import sys

__all__ = ["install", "uninstall"]


def install() -> None:
    """Put the hooks in place, if there is fsspec-xrootd, through which the files are read; else load nothing."""
    if importlib.util.find_spec("fsspec_xrootd") is None:
        return
    from jcache_plugins.pyxrootd import hooks

    hooks.install()


def uninstall() -> None:
    """Take the hooks away."""
    hooks = sys.modules.get("jcache_plugins.pyxrootd.hooks")
    if hooks is not None:
        hooks.uninstall()
