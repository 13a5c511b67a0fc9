"""Hooks in pyxrootd: what `XRootD.client` reads goes through the journal, and is the same file as fsspec-xrootd's."""

__all__ = ["install", "uninstall"]


def install() -> None:
    """Put the hooks in place."""
    from jcache_plugins.pyxrootd import hooks

    hooks.install()


def uninstall() -> None:
    """Take the hooks away."""
    from jcache_plugins.pyxrootd import hooks

    hooks.uninstall()
