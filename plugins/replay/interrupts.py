"""An interrupt ends what takes long once: a second one would interrupt the ending, and leave processes behind."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["interrupted_once"]


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Have interrupts raise KeyboardInterrupt once, if they raise it at all; catch it inside. For the main thread."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _ignore)
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike `SIG_IGN`: of a signal that comes just as that is set, Python complains on stderr."""
