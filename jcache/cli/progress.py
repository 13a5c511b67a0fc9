"""How far a command is, on stderr, where that is a terminal and it takes its time."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jcache.profile.reader import Recording

__all__ = ["PATIENCE_S", "progress", "reading", "size_of"]

PATIENCE_S = 2.0
"""What takes longer shows how far it is."""


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is to be told how many bytes are done, and of how many; it shows them and the time left."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    shape = TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    bars = Progress(*shape, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = bars.add_task("")
    begun_s = time.monotonic()

    def tell(done: int, of: int) -> None:
        bars.update(task, completed=done, total=of)
        if time.monotonic() - begun_s >= PATIENCE_S:
            bars.start()

    try:
        yield tell
    finally:
        if bars.live.is_started:
            bars.stop()


@contextlib.contextmanager
def reading(what: str, recordings: Sequence[Recording]) -> Iterator[None]:
    """Show how much of some recordings is read."""
    of, done = sum(map(size_of, recordings)), 0
    with progress(what) as tell:

        def read(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            tell(done, of)

        for one in recordings:
            one.on_read = read
        try:
            yield
        finally:
            for one in recordings:
                one.on_read = None


def size_of(recording: Recording) -> int:
    """Return the size of its file in bytes; 0 where that is gone."""
    try:
        return os.path.getsize(recording.path)
    except OSError:
        return 0
