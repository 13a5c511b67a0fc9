"""JCache: a read cache for remote data that records exactly the byte ranges a job asked for."""

import jcache.moved  # noqa: F401 - modules are found by their old names, too

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_NOTEBOOK = "jcache_plugins.notebook"
"""Imported by name: IPython looks for its two functions here, in the package that is below all they need."""


def warm(what: "Any", **how: "Any") -> "Any":
    """Fill a cache before a job runs; see `jcache_plugins.replay.warming.warm`, which this calls."""
    from importlib import import_module

    return import_module("jcache_plugins.replay.warming").warm(what, **how)


def load_ipython_extension(shell: object) -> None:
    """Add `%jcache` and `%%jcache` to a notebook; called by `%load_ext jcache`."""
    from importlib import import_module

    import_module(_NOTEBOOK).load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Take them back; called by `%unload_ext jcache`."""
    from importlib import import_module

    import_module(_NOTEBOOK).unload(shell)
