"""Where a command writes a file that must be whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jcache.cli.errors import WrongInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["whole_file"]


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """Give a file to write, which takes its place at the end of the block, unless that raises.

    A link is followed. What is there and no plain file, such as a pipe or a device, is written into, and stays.

    Raises:
        WrongInputError: It cannot be written.
    """
    if not path:
        raise WrongInputError("-o: an empty name is none of a file")
    target = Path(os.path.realpath(path))
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # by the name as it is: what stdout is has no other
            with open(path, "wb", opener=_existing) as file:
                yield file
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WrongInputError(f"cannot write {path}: {error.strerror or error}") from None


def _existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)
