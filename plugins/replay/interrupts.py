"""An interrupt ends what takes long once: a second one would interrupt the ending, and leave processes behind."""

import signal
from types import FrameType

__all__ = ["interrupt_once"]


def interrupt_once() -> None:
    """Have interrupts raise KeyboardInterrupt once, if they raise it at all; the main thread calls this."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _ignore)
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike `SIG_IGN`: of a signal that comes just as that is set, Python complains on stderr."""
