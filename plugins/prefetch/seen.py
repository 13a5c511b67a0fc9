"""What the application's own uproot has read of a file: where its baskets and pages are is known then, at no cost."""

import contextlib
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from jcache.ranges import normalise
from jcache_plugins.columns.layout import Layout

__all__ = ["Seen"]

# The trees of so many files are kept in mind, for as long as the application has them.
MOST_FILES = 64


class Seen:
    """Trees and n-tuples, by the path of their file. Noted by any thread, looked up by one.

    Attributes:
        is_watching: What uproot reads is noted.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        """Begin without any.

        Args:
            told: Called where one was read.
        """
        self._told = told
        self._files: OrderedDict[str, list[weakref.ref[Any]]] = OrderedDict()
        self._lock = threading.Lock()
        self.is_watching = False

    def watch(self) -> None:
        """Begin to note what uproot reads, if the application has that."""
        if self.is_watching or "uproot" not in sys.modules:
            return
        self.is_watching = True
        if not _watching:
            import uproot

            tree: Any = uproot.behaviors.TTree.TTree
            ntuple: Any = uproot.models.RNTuple.Model_ROOT_3a3a_RNTuple
            _told_after(tree, "postprocess")
            _told_after(ntuple, "page_link_list")
        _watching[:] = [weakref.ref(self)]

    def note(self, found: Any) -> None:
        """Take note of a tree, or of an n-tuple whose pages are known."""
        path = found.file.source.file_path
        with self._lock:
            trees = self._files.setdefault(path, [])
            if any(tree() is found for tree in trees):
                return
            trees.append(weakref.ref(found))
            self._files.move_to_end(path)
            if len(self._files) > MOST_FILES:
                self._files.popitem(last=False)
        self._told()

    def layout(self, path: str) -> Layout | None:
        """Return where the columns of a file lie; None where nothing of it was read."""
        from jcache_plugins.columns import root

        with self._lock:
            trees = [found for tree in self._files.get(path, ()) if (found := tree()) is not None]
        if not trees:
            return None
        columns = {f"{tree.name}/{name}": ranges for tree in trees for name, ranges in root.of_tree(tree).items()}
        return Layout({name: normalise(ranges) for name, ranges in columns.items()}, root.GAP_BYTES)


# Who is told of what uproot reads; nobody was, where there is none, and uproot is as it was.
_watching: list[weakref.ref[Seen]] = []


def _told_after(cls: Any, name: str) -> None:
    """Have who is watching told of an object of a class when a method of it, or a property, has returned."""
    known = vars(cls)[name]
    plain: Any = known.fget if isinstance(known, property) else known

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain(self, *args, **kwargs)
        seen = _watching[0]()
        if seen is not None:
            with contextlib.suppress(Exception):  # it is the application's read, and nothing of ours may break it
                seen.note(self)
        return result

    setattr(cls, name, property(method, doc=known.__doc__) if isinstance(known, property) else method)
