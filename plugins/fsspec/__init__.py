"""Hooks in fsspec's remote file systems: their reads go through the journal, the classes stay what they were."""

__all__ = ["install", "uninstall"]


def install() -> None:
    """Put the hooks in place."""
    from jcache_plugins.fsspec import hooks

    hooks.install()


def uninstall() -> None:
    """Take the hooks away."""
    from jcache_plugins.fsspec import hooks

    hooks.uninstall()


# Before any module here: once fsspec is imported the hooks are installed, and their modules have to be whole for that.
import fsspec  # noqa: E402, F401
