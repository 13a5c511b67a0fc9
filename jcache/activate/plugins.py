"""Plug-ins: found through entry points, installed once the module that they hook has been imported.

A plug-in is an entry point of the group `jcache.plugins`. Its *name* is the module whose import triggers it, its
value a callable without arguments, `install`, called once, after that module has been imported and with a session
running (`jcache.session.current()`). The module that holds it may offer `uninstall`, also without arguments, which
undoes it.

wrapt calls back after an import, but importing wrapt loads asyncio and `importlib.metadata`: 50 ms, six times an
interpreter's start, in processes that never read a remote byte. Hence a finder that only compares names and brings in
wrapt when one of them is about to be imported; fsspec needs nearly all that wrapt loads, so that there it costs 1 ms.
For the same reason entry points are read here and not by `importlib.metadata` (30 ms), and not before a module that
is not Python's own is imported, when the `.pth` files have all been read and the search path is complete.
"""

import os
import sys

from jcache.activate import past
from jcache.activate.notice import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

GROUP = "jcache.plugins"

# Tried by every interpreter when it starts; they say nothing about what the program will do.
_START_UP = frozenset({"sitecustomize", "usercustomize"})


class PluginHooks:
    """Watches imports and installs plug-ins after the modules that trigger them.

    Imports happen in any thread; a plug-in is installed in the one that imported its trigger, under Python's lock of
    that module, before the import statement returns.

    Args:
        begin: Begins the session where none runs; returns whether there is one. Called before each plug-in.
    """

    def __init__(self, begin: "Callable[[], bool]") -> None:
        self._begin = begin
        self._finder = _Finder(self)
        self._active = False
        self._scanned: list[str] | None = None
        self._directories: set[str] = set()
        self._waiting: dict[str, list[str]] = {}
        self._known: set[tuple[str, str]] = set()
        self._installed: list[tuple[str, str]] = []
        self._watched: set[str] = set()

    def install(self) -> None:
        """Start watching. Triggers that were imported before are found by the next `scan`."""
        self._active = True
        sys.meta_path.insert(0, self._finder)

    def uninstall(self) -> None:
        """Stop watching and undo the plug-ins that can be undone, in reverse order."""
        self._active = False
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        while self._installed:
            name, value = self._installed.pop()
            try:
                undo = getattr(sys.modules.get(value.partition(":")[0]), "uninstall", None)
                if undo is not None:
                    undo()
            except Exception as error:  # noqa: BLE001 - third parties' code; the others are still to be undone
                say(f"plug-in {value} for {name} cannot be removed: {type(error).__name__}: {error}")

    def scan(self) -> None:
        """Read the entry points on what is new of the search path, and install those whose trigger is imported."""
        if self._scanned == sys.path:
            return
        self._scanned = list(sys.path)
        for name, value in _entry_points(self._scanned, self._directories):
            if (name, value) in self._known:
                continue  # the same distribution, twice on the path
            self._known.add((name, value))
            if name in sys.modules:
                self._install(name, value)
            else:
                self._waiting.setdefault(name, []).append(value)

    def about_to_import(self, name: str) -> bool:
        """Tell whether `name` is a trigger; if so, its plug-ins are installed after its import."""
        if name.partition(".")[0] not in sys.stdlib_module_names and name not in _START_UP and name[0] != "_":
            self.scan()
        if name in past.NATIVE and self._active:
            past.imported(name)
        values, watch = self._waiting.pop(name, ()), past.WATCHED.get(name) if self._active else None
        if not values and watch is None:
            return False
        import wrapt

        def installs(module: "ModuleType") -> None:
            if watch is not None and name not in self._watched:
                self._watched.add(name)
                watch(module)
            for value in values:
                self._install(name, value)

        wrapt.register_post_import_hook(installs, name)
        return True

    def _install(self, name: str, value: str) -> None:
        if not self._active or not self._begin():
            return
        try:
            module_name, _, attribute = value.partition(":")
            found: object = __import__(module_name, fromlist=["_"])
            for part in attribute.split("."):
                found = getattr(found, part)
            found()  # type: ignore[operator]  # by the definition of the group
        except Exception as error:  # noqa: BLE001 - third parties' code; the application's import must not fail for it
            say(f"plug-in {value} failed, {name} is not cached: {type(error).__name__}: {error}")
            return
        self._installed.append((name, value))


class _Finder:
    """Finds nothing by itself: steps aside for the other finders, wrapt's in front of them for a trigger."""

    def __init__(self, hooks: PluginHooks) -> None:
        self._hooks = hooks

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        try:
            if not self._hooks.about_to_import(fullname):
                return None
        except Exception as error:  # noqa: BLE001 - an application's import never fails because of the cache
            say(f"{fullname} is not cached: {type(error).__name__}: {error}")
            return None
        # The import system walks the list of finders that wrapt has just put its own into, and would pass it by.
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
            if spec is not None:
                return spec
        return None


def _entry_points(path: "Sequence[str]", seen: set[str]) -> "list[tuple[str, str]]":
    """Return `(name, value)` of the group's entry points in directories that are not in `seen`, and add these there."""
    found: list[tuple[str, str]] = []
    for directory in path:
        if directory in seen:
            continue
        seen.add(directory)
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue  # a zip file, or an entry that does not exist; Python ignores it too
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(directory, name, "entry_points.txt"), encoding="utf-8") as file:
                        text = file.read()
                except (OSError, ValueError):
                    continue  # most distributions have none
                if GROUP in text:
                    found += _parse(text)
    return found


def _parse(text: str) -> "list[tuple[str, str]]":
    """Return `(name, value)` of the group's entries in an `entry_points.txt`."""
    found = []
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == GROUP and "=" in line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found.append((name.strip(), value.partition("[")[0].strip()))
    return found
