"""What pyxrootd's writing methods do besides: what is cached of the paths is dropped, before and behind."""

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jcache_plugins.fsspec.writes import changing, invalidate
from jcache_plugins.pyxrootd.callbacks import call_soon
from jcache_plugins.pyxrootd.opening import attempt
from jcache_plugins.pyxrootd.plain import is_passed
from jcache_plugins.pyxrootd.systems import Place, place_of, system_of

__all__ = ["COPIES", "SYSTEMS"]

Method = Callable[..., Any]


class Change(NamedTuple):
    """What a method of `FileSystem` changes: parameters that are its paths, or URLs, and whether what is below, too."""

    paths: tuple[str, ...] = ("path",)
    urls: tuple[str, ...] = ()
    below: bool = False


CHANGES = {
    "copy": Change(paths=(), urls=("target",)),
    "mv": Change(paths=("source", "dest"), below=True),
    "truncate": Change(),
    "rm": Change(),
    "mkdir": Change(),
    "rmdir": Change(below=True),
    "chmod": Change(),
}


def write(name: str, original: Method) -> Method:
    """Make a method of `FileSystem` that writes."""
    signature, change = inspect.signature(original), CHANGES[name]

    def places(system: Any, said: dict[str, Any]) -> Iterator[Place]:
        fs = system_of(system) if change.paths else None
        if fs is not None:
            yield from (Place(fs, said[name]) for name in change.paths if isinstance(said.get(name), str))
        yield from filter(None, (place_of(said.get(name)) for name in change.urls))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            said = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return original(self, *args, **kwargs)  # which says so
        is_ours = not is_passed(sys._getframe(1))  # noqa: SLF001 - the way to one's callers
        changed = attempt(lambda: list(places(self, said))) if is_ours else None
        if not changed:
            return original(self, *args, **kwargs)
        callback = said.get("callback")
        if callback and callable(callback):

            def done(*answers: Any) -> None:
                forget(changed, below=change.below)
                callback(*answers)

            bound = signature.bind(self, *args, **kwargs)
            bound.arguments["callback"] = lambda *answers: call_soon(lambda: done(*answers))
            forget(changed, below=change.below)
            return original(*bound.args, **bound.kwargs)
        fs = changed[0].fs
        with changing(fs, *(place.path for place in changed), below=change.below):
            return original(self, *args, **kwargs)

    return method


def forget(places: list[Place], *, below: bool) -> None:
    """Forget what is cached of places."""
    for place in places:
        attempt(functools.partial(invalidate, place.fs, place.path, below=below))


# -- copies -------------------------------------------------------------------------------------------------------

# What the jobs write that were added.
_targets: "weakref.WeakKeyDictionary[Any, list[Place]]" = weakref.WeakKeyDictionary()


def add_job(_name: str, original: Method) -> Method:
    """Make `CopyProcess.add_job`."""
    signature = inspect.signature(original)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        target = attempt(lambda: place_of(signature.bind(self, *args, **kwargs).arguments.get("target")))
        if target is not None:
            _targets.setdefault(self, []).append(target)
        return result

    return method


def copy_all(_name: str, original: Method) -> Method:
    """Make `CopyProcess.run`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        targets = _targets.get(self, [])
        forget(targets, below=True)  # a target may be a directory
        try:
            return original(self, *args, **kwargs)
        finally:
            forget(targets, below=True)

    return method


SYSTEMS: dict[str, Callable[[str, Method], Method]] = dict.fromkeys(CHANGES, write)
COPIES: dict[str, Callable[[str, Method], Method]] = {"add_job": add_job, "run": copy_all}
