"""Hooks in fsspec's remote file systems: their reads go through the journal, the classes stay what they were.

The first instance of a class, however it comes about, has the class hooked: methods are replaced in place on the
class that defines them, so that `isinstance`, pickling, `fs.protocol` and the mirrored synchronous methods keep
working. `uninstall` puts everything back.
"""

import functools
import gc
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.asyn import AsyncFileSystem, mirror_sync_methods, sync_wrapper
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem, _Cached

from jcache.activate.notice import say
from jcache.session import current
from jcache_plugins.fsspec import boto, downloads, files, metadata, reads, streams, vector_reads, writes, written
from jcache_plugins.fsspec.directives import bare, directed

__all__ = ["install", "is_remote", "uninstall"]

ABSTRACT = (AbstractFileSystem, AsyncFileSystem, object)
# File systems that are local, that keep what they read themselves, or that read through another one, which is hooked.
NOT_REMOTE = (LocalFileSystem, MemoryFileSystem, ChainedFileSystem, AbstractArchiveFileSystem)
NOT_REMOTE_PROTOCOLS = frozenset(
    {"file", "local", "memory", "data", "reference", "generic", "dir", "jcache", "zip", "tar", "libarchive", "git"}
    | {"asyncwrapper", "async_wrapper"}
)

GROUPS: tuple[Any, ...] = (reads, vector_reads, files, streams, downloads, metadata)
_lock = threading.RLock()
_undo: list[Callable[[], None]] = []
# What a class is hooked for without `install` stays.
_no_undo: list[Callable[[], None]] = []
# Classes that were looked at, and whether they were hooked.
_hooked: dict[type, bool] = {}
# Those of which only the writing methods were, since `jcache::` reads from them.
_writing: set[type] = set()
# Instances by address, for a file system equals every other one that was made with the same arguments.
_instances: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


def install() -> None:
    """Hook file-system classes as they are instantiated, and those that were."""
    if _undo:
        return
    session = current()
    if session is not None and session.config.prefetch != "off":
        from jcache_plugins.prefetch.begin import begin

        begin(session)
    instantiate = _Cached.__call__

    @functools.wraps(instantiate)
    def instantiate_hooked(cls: Any, *args: Any, **kwargs: Any) -> Any:
        is_hooked = hook(cls)
        said = kwargs.pop("jcache", None) if kwargs else None
        make = instantiate if said is None else functools.partial(directed, instantiate, said=said)
        instance = make(cls, *args, **kwargs)
        if is_hooked and id(instance) not in _instances:
            _instances[id(instance)] = instance
            shorten(instance)
        return instance

    _Cached.__call__ = instantiate_hooked
    _undo.append(lambda: setattr(_Cached, "__call__", instantiate))
    # fsspec alone brings no remote class: where there is none, nothing was made before, and the search is spared.
    remote = {cls for cls in _subclasses(AbstractFileSystem) if is_remote(cls)}
    if remote:
        # The collector does not tell of what was frozen (`gc.freeze`), fsspec only of what it keeps.
        kept = [instance for cls in remote for instance in getattr(cls, "_cache", {}).values()]
        for instance in itertools.chain(gc.get_objects(), kept):
            if type(instance) in remote and id(instance) not in _instances:
                hook(type(instance))
                _mirror_again(instance)
                _instances[id(instance)] = instance
                shorten(instance)


def uninstall() -> None:
    """Put every method back."""
    while _undo:
        _undo.pop()()
    written.forget_classes()
    for instance in list(_instances.values()):
        _mirror_again(instance)
    _instances.clear()
    _hooked.clear()


def is_remote(cls: type) -> bool:
    """Whether a file-system class reads from somewhere that is worth caching, and is not itself a cache."""
    if not issubclass(cls, AbstractFileSystem) or cls in ABSTRACT or issubclass(cls, NOT_REMOTE):
        return False
    names = protocols(cls)
    if not names or names & NOT_REMOTE_PROTOCOLS or "abstract" in names:
        return False
    session = current()
    chosen = None if session is None else session.config.protocols
    return not chosen or bool(names & set(chosen))


def protocols(cls: Any) -> set[str]:
    """Return the protocol names of a file-system class; none where each instance has its own."""
    names = cls.protocol
    if isinstance(names, str):
        return {names}
    return set(names) if isinstance(names, tuple | list) else set()


def hook(cls: Any) -> bool:
    """Replace the read and write methods of a remote file-system class, wherever it inherits them from.

    A method that is not of fsspec's kind (no coroutine function where fsspec has one, say) is left as it is: its reads
    go past the cache.

    Returns:
        Whether it is a remote one.
    """
    known = _hooked.get(cls)
    if known is None:
        with _lock:
            known = _hooked.get(cls)
            if known is None:
                known = is_remote(cls)
                hooked = _hook_methods(cls, {**writes.writes(cls), **_reading(cls)}, _undo) if known else []
                boto.watch(lambda client, name, call: _replace(client, name, _like(call, vars(client)[name]), _undo))
                _hooked[cls] = known
                _explain(cls, hooked)
    return known


def _explain(cls: Any, hooked: list[str]) -> None:
    """With JCACHE_LOG=debug, say what of a class is hooked."""
    session = current()
    if session is not None and session.config.log == "debug":
        name = f"{cls.__module__}.{cls.__qualname__}"
        say(f"{name}: hooked {', '.join(hooked)}" if hooked else f"{name}: not hooked, it reads nothing remote itself")


def hook_writes(cls: Any) -> None:
    """Have a class that `jcache::` reads from drop what is cached of what it writes, also where it is not remote."""
    with _lock:
        if not (_undo and hook(cls)) and cls not in _writing:
            _writing.add(cls)
            _hook_methods(cls, {**writes.writes(cls), "_open": files.open_written}, _no_undo)


def hook_reads(cls: Any) -> None:
    """Have a class read through the journal for good."""
    _hook_methods(cls, _reading(cls), _no_undo)


def _reading(cls: Any) -> dict[str, Callable[[Any], Any]]:
    found: dict[str, Callable[[Any], Any]] = {}
    for group in GROUPS:
        found.update(group.ASYNC if cls.async_impl else group.SYNC)
    return found


def _hook_methods(cls: Any, makers: dict[str, Callable[[Any], Any]], undo: list[Callable[[], None]]) -> list[str]:
    """Replace what a class has, or inherits, of these methods; return their names."""
    names = []
    for name, make in makers.items():
        owner: Any = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is None:
            continue
        original = vars(owner)[name]
        if isinstance(original, staticmethod | classmethod) or getattr(original, "_jcache", False):
            continue
        try:
            given = bare(original)
            hooked = make(given)
        except (TypeError, ValueError):
            continue  # no function, or one without a signature
        if hooked is not given and inspect.iscoroutinefunction(hooked) == inspect.iscoroutinefunction(original):
            # What a class that is not remote has of its own stays as it is.
            place = owner if owner not in ABSTRACT and is_remote(owner) else cls
            _replace(place, name, _like(hooked, original), undo)
            names.append(name)
            hooked._jcache = make is not files.open_written  # noqa: SLF001 - reads may yet be hooked around that
            for alias, function in list(vars(place).items()) if inspect.iscoroutinefunction(original) else ():
                # A synchronous name that was bound in the body of the class.
                if alias != name and getattr(function, "__wrapped__", None) is original:
                    _replace(place, alias, _like(sync_wrapper(hooked), function), undo)
    return names


def _like(hooked: Any, original: Any) -> Any:
    functools.update_wrapper(hooked, original)
    hooked._jcache = True  # noqa: SLF001 - our own mark
    return hooked


def _replace(cls: Any, name: str, hooked: Any, undo: list[Callable[[], None]]) -> None:
    if name in vars(cls):
        original = vars(cls)[name]
        undo.append(lambda: setattr(cls, name, original))
    else:
        undo.append(lambda: delattr(cls, name))
    setattr(cls, name, hooked)


def shorten(instance: Any) -> None:
    """Shorten the way of the synchronous methods that fsspec bound to an instance whose class is hooked."""
    for name, make in (reads.MIRRORED | vector_reads.MIRRORED | metadata.MIRRORED).items():
        plain = vars(instance).get(name)
        if plain is not None and getattr(type(instance), f"_{name}", None) is getattr(
            getattr(plain, "__wrapped__", None), "__func__", None
        ):
            made = make(instance, plain)
            if made is not plain:
                setattr(instance, name, _like(made, plain))


def _mirror_again(instance: Any) -> None:
    """Renew the synchronous methods that fsspec bound to an instance when it made it."""
    if not (type(instance).async_impl and instance.mirror_sync_methods):
        return
    for name in list(vars(instance)):
        if getattr(vars(instance)[name], "__wrapped__", None) is not None and hasattr(type(instance), f"_{name}"):
            delattr(instance, name)
    mirror_sync_methods(instance)


def _subclasses(cls: type) -> list[Any]:
    direct: list[type] = cls.__subclasses__()
    return [found for subclass in direct for found in (subclass, *_subclasses(subclass))]
