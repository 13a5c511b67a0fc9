"""Modules that have moved since 0.1.0: who imports one by its old name gets it. Old names go with version 0.3."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["MOVED", "Finder"]

_FOLDERS = (
    ("jcache", "jcache.system", "storage locks mounts processes descriptors stopwatch allocator"),
    ("jcache", "jcache.settings", "config values rules"),
    ("jcache.cache", "jcache.naming", "identity protocols address amazon asking signatures credentials layout"),
    ("jcache.journal", "jcache.segment", "errors proof version format table segment view writer directory copying"),
    ("jcache.reader", "jcache.planning", "flight held intervals lent plan snapshot waiting"),
    ("jcache.reader", "jcache.recording", "recorder small workers details exact"),
    ("jcache.report", "jcache.report.faces", "columns compare display html plot rows savings svg tables text units"),
)
MOVED = {f"{old}.{name}": f"{new}.{name}" for old, new, names in _FOLDERS for name in names.split()}
"""By its old name, what a module is called now."""


class Finder:
    """Finds modules by their old names, behind all other finders."""

    @staticmethod
    def find_spec(name: str, *_: object) -> "ModuleSpec | None":
        """Return how a module is loaded that has moved; None for any other."""
        if name not in MOVED:
            return None
        # Python's class of loaders would cost an import at each start.
        return type(__spec__)(name, Loader(MOVED[name]))  # type: ignore[arg-type]


class Loader:
    """Loads one module that has moved: as what it is by its new name."""

    def __init__(self, name: str) -> None:
        """Load this one."""
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, _: object) -> "ModuleType":
        """Return the module."""
        __import__(self._name)
        module = sys.modules[self._name]
        self._spec = module.__spec__
        return module

    def exec_module(self, module: "ModuleType") -> None:
        """Leave it as it is."""
        module.__spec__ = self._spec


sys.meta_path.append(Finder)
