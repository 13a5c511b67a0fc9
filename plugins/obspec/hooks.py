"""Hooks in obstore: its functions are replaced in place, which methods of stores and zarr's `ObjectStore` call, too."""

import threading
from collections.abc import Callable
from typing import Any

import obstore

from jcache_plugins.obspec.reads import READS, offline_refusal
from jcache_plugins.obspec.writes import OPENS, WRITES, asynchronous, opening, synchronous

__all__ = ["install", "uninstall"]

LISTS = ("list", "list_with_delimiter", "list_with_delimiter_async")

_lock = threading.Lock()
_undo: list[Callable[[], None]] = []


def install() -> None:
    """Have obstore's functions read through the journals, and drop what they write."""
    with _lock:
        if _undo:
            return
        for name, make in READS.items():
            now, soon = getattr(obstore, name, None), getattr(obstore, f"{name}_async", None)
            if callable(now) and callable(soon):
                for form, hooked in zip((name, f"{name}_async"), make(now, soon), strict=True):
                    _replace(form, hooked)
        for name, changes in WRITES.items():
            for form, maker in ((name, synchronous), (f"{name}_async", asynchronous)):
                if callable(original := getattr(obstore, form, None)):
                    _replace(form, maker(original, changes))
        for names, wrap in ((OPENS, opening), (LISTS, offline_refusal)):
            for name in names:
                if callable(original := getattr(obstore, name, None)):
                    _replace(name, wrap(original))


def uninstall() -> None:
    """Put every function back."""
    with _lock:
        while _undo:
            _undo.pop()()


def _replace(name: str, hooked: Any) -> None:
    original = getattr(obstore, name)
    _undo.append(lambda: setattr(obstore, name, original))
    setattr(obstore, name, hooked)
