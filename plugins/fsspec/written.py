"""Files that are open for writing: the file system's own objects, untouched; their class tells when one ends."""

import contextlib
import copy
import functools
import inspect
import io
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jcache.session import current
from jcache_plugins.fsspec.access import identities
from jcache_plugins.fsspec.writes import collecting, invalidate, named, within_change

__all__ = [
    "being_written",
    "ending",
    "forget_classes",
    "is_being_written",
    "open_files",
    "opened_for_writing",
    "opening",
]

Method = Callable[..., Any]

# What makes visible what was written, and what ends the writing of a file.
STEPS = ("_upload_chunk", "close", "commit", "discard")

_OURS = frozenset({"jcache", "jcache_plugins"})


class Written(NamedTuple):
    """A file that is, or was, open for writing, and the path that is written."""

    file: "weakref.ref[Any]"
    fs: Any
    path: Any
    addresses: frozenset[str]


# By address: many file objects hash by their content, or not at all.
open_files: dict[int, Written] = {}
_undo: dict[type, list[Callable[[], None]]] = {}


class Opening:
    """Stands for a file that is being opened for writing."""


@contextlib.contextmanager
def opening(fs: Any, path: Any) -> Iterator[None]:
    """Have a path read past the cache while it is opened for writing inside.

    What opens it may look whether it is there, read it to append to it, make it or cut it; and do so where it fails.
    """
    if current() is None:
        yield
        return
    stand_in = Opening()
    being_written(fs, path, stand_in)
    try:
        with within_change(fs, *named([path])):
            yield
    except BaseException:
        open_files.pop(id(stand_in), None)
        invalidate(fs, path, below=False)
        raise
    open_files.pop(id(stand_in), None)


def opened_for_writing(fs: Any, path: Any, file: Any) -> Any:
    """Invalidate a path now, and once more each time that the file object which writes it is closed or committed.

    The object gets nothing that refers to itself: it uploads and goes when the application's last reference goes.
    Where the garbage collector finds it in a cycle, no reference is left when its finalizer closes it, and nothing is
    known of what its thread is at, and which locks that holds: then what is read next invalidates first.
    """
    if current() is None:
        return file  # a class that `jcache::` wrote to stays hooked
    being_written(fs, path, file)
    _watch(type(file))
    return file


def being_written(fs: Any, path: Any, file: Any) -> None:
    """Invalidate a path now, and have it read past the cache until what writes it is `ending`, or goes."""
    invalidate(fs, path, below=False)
    for key in [key for key, known in list(open_files.items()) if known.file() is None]:
        open_files.pop(key, None)
    addresses = frozenset(one.address for one in identities(fs, list(named([path])), written=True) if one is not None)
    with contextlib.suppress(TypeError):  # an object of the interpreter's own that has no weak references
        reference = weakref.ref(file, lambda _: invalidate_late(fs, path))
        open_files[id(file)] = Written(reference, fs, path, addresses)


def is_being_written(address: str) -> bool:
    """Whether a file is open for writing here: what is read of it meanwhile is only the file system's to say."""
    for key, known in list(open_files.items()):
        file = known.file()
        if file is not None and getattr(file, "closed", False) and is_final(file):
            open_files.pop(key, None)  # of a class that cannot tell
            invalidate(known.fs, known.path, below=False)
        elif file is not None and address in known.addresses:
            return True
    return False


def is_final(file: Any) -> bool:
    """Whether what a file object wrote is there once it is closed."""
    return bool(getattr(file, "autocommit", not hasattr(file, "commit")))


def invalidate_late(fs: Any, path: Any) -> None:
    """Have a path invalidated before anything is read next, or this process ends; takes no lock."""
    session = current()
    if session is not None:
        session.late.append(functools.partial(invalidate, fs, path, below=False))


def _watch(cls: Any) -> None:
    """Have a class of file objects tell when one of them ends."""
    if cls in _undo:
        return
    _undo[cls] = []
    for name in STEPS:
        original = getattr(cls, name, None)
        if inspect.isfunction(original):
            put_back: Callable[[], None] = functools.partial(delattr, cls, name)
            if name in vars(cls):
                put_back = functools.partial(setattr, cls, name, original)
            with contextlib.suppress(TypeError):  # a class of the interpreter's own
                setattr(cls, name, _telling(name, original))
                _undo[cls].append(put_back)


def _telling(name: str, original: Method) -> Method:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def end_and_wait(self: Any, *args: Any, **kwargs: Any) -> Any:
            with ending(self, name):
                return await original(self, *args, **kwargs)

        return end_and_wait

    @functools.wraps(original)
    def end(self: Any, *args: Any, **kwargs: Any) -> Any:
        def work() -> Any:
            with ending(self, name):
                return original(self, *args, **kwargs)

        # It uploads on the event loop, which may wait for a lock that the code below holds, into which the garbage
        # collector came.
        session = current()
        if name == "close" and session is not None and _is_collected(self) and _is_within_ours() and _rescue(self):
            return session.do_apart(work)
        return work()

    return end


def _rescue(file: Any) -> bool:
    """Keep what a file has yet to write from the garbage collector, which closes that next; whether it can be."""
    buffer = getattr(file, "buffer", None)
    if type(buffer) is not io.BytesIO or buffer.closed:
        return False
    file.buffer = copy.copy(buffer)
    return True


def _is_collected(file: Any) -> bool:
    """Whether the garbage collector has found a file that is open for writing: no weak reference leads to it then."""
    known = open_files.get(id(file))
    return known is not None and known.file() is None


def _is_within_ours() -> bool:
    """Whether code of JCache's is under way in this thread, beside what this module's caller asked for."""
    frame: Any = sys._getframe(2)  # noqa: SLF001 - the way to one's callers
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def ending(file: Any, step: str) -> Iterator[None]:
    """Have a file that is open for writing take one of `STEPS` inside: what it writes is invalidated."""
    known = open_files.get(id(file))
    referent = None if known is None else known.file()
    if known is None or (referent is not None and referent is not file):
        yield  # it had the address of another one, which is no more
        return
    token = collecting.set(referent is None)
    try:
        with within_change(known.fs, *named([known.path])):
            yield
    finally:
        collecting.reset(token)
        _ended(file, step, known)


def _ended(file: Any, step: str, known: Written) -> None:
    if step in {"commit", "discard"} or (step == "close" and is_final(file) and getattr(file, "closed", True)):
        open_files.pop(id(file), None)
    if known.file() is None:
        invalidate_late(known.fs, known.path)
    else:
        invalidate(known.fs, known.path, below=False)


def forget_classes() -> None:
    """Put the methods of all classes back."""
    for undo in _undo.values():
        for put_back in undo:
            put_back()
    _undo.clear()
    open_files.clear()
