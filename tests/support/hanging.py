"""Makes the cache directory of this process hang, call by call, as a mount does whose server is gone.

For scripts that a test starts: import it before anything is read.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from jcache.cache import directory
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

# `keep_inside` asks nothing of the file system.
OPERATIONS = [name for name in vars(Storage) if not name.startswith("_") and name != "keep_inside"]

hanging = threading.Event()
_never = threading.Event()
_when: Callable[[str, tuple[Any, ...]], bool] = lambda name, args: False  # noqa: E731


def begin() -> None:
    """From now on no operation on the cache directory returns."""
    hanging.set()


def begin_when(condition: Callable[[str, tuple[Any, ...]], bool]) -> None:
    """Begin with the first operation, by name and arguments, for which this is true."""
    global _when  # noqa: PLW0603 - one process has one cache directory that hangs
    _when = condition


def path_of(target: object) -> str:
    """The path of what an operation was called with, a path or a descriptor."""
    return os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)  # type: ignore[call-overload]


def _hang_in(name: str) -> None:
    original = getattr(Storage, name)
    is_static = isinstance(vars(Storage)[name], staticmethod)

    def operation(*args: Any, **options: Any) -> Any:
        if not hanging.is_set() and _when(name, args if is_static else args[1:]):
            hanging.set()
        if hanging.is_set():
            _never.wait()
        return original(*args, **options)

    setattr(Storage, name, staticmethod(operation) if is_static else operation)


for _name in OPERATIONS:
    _hang_in(_name)


def be_far() -> None:
    """Be a directory of which nobody promises that it answers, wherever it is."""
    directory.find_mount = lambda path: None  # type: ignore[assignment]
