"""What a hooked file system's writing methods do besides: what is cached of the paths is dropped, before and behind.

Which methods write is told by their names, and what they change by the names of their parameters: fsspec has a
vocabulary for both, and the classes have more methods than fsspec knows.
"""

import contextlib
import contextvars
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.core import has_magic
from fsspec.spec import AbstractFileSystem

from jcache.session import current
from jcache_plugins.fsspec import listing
from jcache_plugins.fsspec.access import behind, identities, let_go
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.origins.base import within_origin

__all__ = [
    "changing",
    "collecting",
    "doubt",
    "doubt_path",
    "invalidate",
    "named",
    "prepared",
    "within_change",
    "write",
    "writes",
]

Method = Callable[..., Any]

_COPIES = frozenset({"cp", "copy", "put", "upload", "link", "symlink"})
_MOVES = frozenset({"mv", "move", "rename"})
_REMOVALS = frozenset({"rm", "rmdir", "remove", "delete", "unlink"})
_OTHERS = frozenset({"pipe", "write", "append", "truncate", "touch", "merge", "compose", "concat", "replace"})
# What is listed changes, too.
_DIRECTORIES = frozenset({"mkdir", "mkdirs", "makedirs"})
# Some origins name another version then, or other details.
_ATTRIBUTES = frozenset({"restore", "setxattr", "setxattrs", "chmod", "chown"})
VERBS = _COPIES | _MOVES | _REMOVALS | _OTHERS | _DIRECTORIES | _ATTRIBUTES
_REMOTE = re.compile(r"(\w+_)?(r?path(s|list|[12])?|urls?|filelist|old|new|src|dst|source|destination|target)")

# What the calls that led here change, and drop: file system and path.
_changed: contextvars.ContextVar[frozenset[tuple[int, str]]] = contextvars.ContextVar("jcache_changed")

# Whether what led here is a finalizer that the garbage collector ran, in a thread that may hold any lock.
collecting: contextvars.ContextVar[bool] = contextvars.ContextVar("jcache_collecting", default=False)


async def prepared(fs: Any) -> None:
    """Have a file system's cache directory made and checked, without blocking the event loop, before it is needed."""
    session = current()
    if session is not None and not within_origin():
        if session.late:
            session.catch_up()
        await session.caches.prepare(behind(fs)[1])


def invalidate(fs: Any, *paths: Any, below: bool = True) -> None:
    """Forget what this process holds of paths that are being written, and drop it from its cache directories."""
    session = current()
    if session is None or is_idle():
        return
    session.caches.get()
    names = spelled(fs, named(paths))
    listing.doubt(names)
    let_go(fs, names, below=below)
    for identity in dict.fromkeys(filter(None, identities(fs, names, written=True))):
        for directory in session.caches.in_use():
            session.files.invalidate(identity, directory=directory, below=below)


def doubt(original: Method) -> Method:
    """Make `invalidate_cache`: who calls it wants to be told anew what there is, also of what was read already.

    What a method that writes calls it for is known without it, and so is what a file that was written does.
    """
    parameters = Parameters.of(original)

    def invalidate_cache(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if not _changed.get(frozenset()):
            doubt_path(self, next(iter((parameters.named(args, kwargs) or {}).values()), None))
        return result

    return invalidate_cache


def doubt_path(fs: Any, path: Any) -> None:
    """Have the origin asked again what there is of a path, and below it; of all paths where it is none."""
    session = current()
    if session is None or is_idle():
        return
    for identity in filter(None, identities(fs, [path], written=True)) if path else ():
        session.files.doubt(identity.address)
    if not path:
        session.files.doubt("")


def named(paths: Any) -> Iterator[str]:
    """Yield the paths in arguments that are a path, a list of paths or a dictionary by path."""
    for item in paths:
        if isinstance(item, str):
            yield item
        elif isinstance(item, os.PathLike):
            yield os.fspath(item)
        elif isinstance(item, dict | list | tuple | set | frozenset):
            yield from named(item)


def spelled(fs: Any, paths: Iterable[str]) -> list[str]:
    """Return what paths that are changed may be called: some methods take them as they are, some strip them first."""
    strip = fs._strip_protocol  # noqa: SLF001 - fsspec's own name of it
    names = dict.fromkeys(paths)
    for name in list(names):
        others = [name.rstrip("/")] if name.endswith("/") else []  # a directory may be named so
        with contextlib.suppress(ValueError):  # the method says itself what is wrong with it
            others.append(strip(name))
            if name.startswith("/") and strip(name[1:]) == name:  # FTP's, but it reads some as they are
                others.append(name[1:])
        names |= dict.fromkeys(others)
    return list(names)


def is_idle() -> bool:
    """Whether nothing is cached, or the code that runs is JCache's own."""
    session = current()
    return session is None or session.bypassed is not None or within_origin()


@contextlib.contextmanager
def changing(fs: Any, *paths: Any, below: bool = True) -> Iterator[None]:
    """Invalidate paths now, and again behind what is done here, unless a call that led here does."""
    outer = _changed.get(frozenset())
    fresh = [] if is_idle() else [path for path in named(paths) if not is_within(id(fs), path, outer)]
    if not fresh:
        yield
        return
    invalidate(fs, *fresh, below=below)
    try:
        with within_change(fs, *fresh):
            yield
    finally:
        invalidate(fs, *fresh, below=below)


@contextlib.contextmanager
def within_change(fs: Any, *paths: str) -> Iterator[None]:
    """Say that what is done here changes paths, which whoever says so invalidates."""
    token = _changed.set(_changed.get(frozenset()) | {(id(fs), path) for path in paths})
    try:
        yield
    finally:
        _changed.reset(token)


def is_within(fs: int, path: str, changed: frozenset[tuple[int, str]]) -> bool:
    """Whether a path, or a directory above it, is among those that are being changed."""
    while changed and path:
        if (fs, path) in changed:
            return True
        path = path.rpartition("/")[0]
    return False


# -- which methods write, and what -------------------------------------------------------------------------------


def verbs_of(name: str) -> frozenset[str]:
    """Return the words in a method's name that say that it writes."""
    words = name.split("_")
    return frozenset() if "cache" in words or "dircache" in words else VERBS.intersection(words)


def writes(cls: Any) -> dict[str, Callable[[Method], Method]]:
    """Return what makes the hooks of a class's own writing methods; fsspec's are made of those.

    A private method counts if it has a public twin, or is asynchronous: others work on names (`_remove_host`).
    """
    found: dict[str, Callable[[Method], Method]] = {"invalidate_cache": doubt}
    for base in cls.__mro__:
        for name, method in () if base in (AbstractFileSystem, AsyncFileSystem, object) else vars(base).items():
            if name.startswith("__") or not verbs_of(name):
                continue
            if not name.startswith("_") or hasattr(cls, name[1:]) or inspect.iscoroutinefunction(method):
                found[name] = write
    return found


def changed_by(method: Method) -> list[str]:
    """Return the parameters of a writing method that name what it changes.

    Raises:
        ValueError: None does.
    """
    verbs, names = verbs_of(method.__name__), Parameters.of(method).names
    remote = [name for name in names if _REMOTE.fullmatch(name)]
    if not remote:
        if method.__name__.startswith("_"):
            msg = f"{method.__name__} names no path"
            raise ValueError(msg)
        remote = names[:2] if verbs & (_MOVES | _COPIES) else names[:1]
    if verbs & _MOVES:
        return remote
    return remote[-1:] if verbs & _COPIES else remote[:1]


def write(original: Method) -> Method:
    """Make a method that writes, asynchronous or not.

    Raises:
        TypeError: It is no function.
        ValueError: It has no signature, or names no path.
    """
    parameters, changed = Parameters.of(original), changed_by(original)
    verbs = verbs_of(original.__name__)
    expands = bool(verbs & _REMOVALS)
    below = bool(verbs & (_MOVES | _REMOVALS | _COPIES)) and "file" not in original.__name__.split("_")

    def paths_of(args: Any, kwargs: Any) -> list[Any]:
        said = parameters.named(args, kwargs) or {}
        return [said[name] for name in changed if name in said]

    if inspect.iscoroutinefunction(original):

        async def write_soon(self: Any, *args: Any, **kwargs: Any) -> Any:
            await prepared(self)
            paths = paths_of(args, kwargs)
            for glob in globs(paths) if expands else ():
                with contextlib.suppress(Exception):  # the method says itself what is wrong with it
                    paths += await self._expand_path(glob)
            with changing(self, paths, below=below):
                return await original(self, *args, **kwargs)

        return write_soon

    def write_now(self: Any, *args: Any, **kwargs: Any) -> Any:
        paths = paths_of(args, kwargs)
        for glob in globs(paths) if expands else ():
            with contextlib.suppress(Exception):  # the method says itself what is wrong with it
                paths += self.expand_path(glob)
        with changing(self, paths, below=below):
            result = original(self, *args, **kwargs)
        return waited_for(self, paths, result) if inspect.isawaitable(result) else result

    return write_now


async def waited_for(fs: Any, paths: list[Any], result: Any) -> Any:
    """Wait for what a decorated method gave, and invalidate behind it."""
    with changing(fs, paths):
        return await result


def globs(paths: Any) -> list[str]:
    """Return the paths that are patterns."""
    return [] if is_idle() else [path for path in named(paths) if has_magic(path)]
