"""Plays a profile: `python -m jcache_plugins.replay SPEC RESULT`, two files of JSON."""

import os
import signal
import sys
from types import FrameType

__all__: list[str] = []


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Interrupt once: a second one would interrupt the ending, and who started this hands on what it gets itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        from jcache_plugins.replay.processes import main

        main(*sys.argv[1:])
    except KeyboardInterrupt:
        # Who has started this says so. Not sys.exit: that waits for threads that wait for an origin.
        os._exit(128 + signal.SIGINT)
