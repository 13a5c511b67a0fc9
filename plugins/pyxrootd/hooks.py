"""Hooks in the classes of `XRootD.client`: methods are replaced in place, the classes stay what they were."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from XRootD import client

from jcache_plugins.pyxrootd import files, names, writing
from jcache_plugins.pyxrootd.plain import FILE, SYSTEM
from jcache_plugins.pyxrootd.reading import let_all_go

__all__ = ["install", "uninstall"]

Method = Callable[..., Any]

_undo: list[Callable[[], None]] = []


def install() -> None:
    """Hook the classes."""
    if _undo:
        return
    for cls, methods, kept in ((client.File, files.METHODS, FILE), (client.FileSystem, names.METHODS, SYSTEM)):
        for name, method in methods.items():
            kept[name] = vars(cls).get(name)
            _replace(cls, name, functools.partial(_always, method))
    for name in files.PASSED:
        _replace(client.File, name, files.passed)
    for cls, makers in ((client.FileSystem, writing.SYSTEMS), (client.CopyProcess, writing.COPIES)):
        for name, make in makers.items():
            _replace(cls, name, functools.partial(make, name))


def uninstall() -> None:
    """Put every method back; what is open is pyxrootd's alone from now on, and so open at the server."""
    let_all_go()
    while _undo:
        _undo.pop()()


def _always(method: Method, _original: Method) -> Method:
    return method


def _replace(cls: Any, name: str, make: Callable[[Method], Method]) -> None:
    """Put what is made of a method in its place, if there is one in this version of the client."""
    original = vars(cls).get(name)
    if not inspect.isfunction(original):
        return
    setattr(cls, name, functools.update_wrapper(make(original), original))
    _undo.append(lambda: setattr(cls, name, original))
