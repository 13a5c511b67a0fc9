"""One line on stderr: all that a process hears of trouble with its activation."""

import os

_TOLD = "_JCACHE_TOLD"


def say(message: str) -> None:
    """Write one line to stderr; never raises.

    Past `sys.stderr`: at exit it may be closed or replaced, and its buffer may be locked by the code that a signal
    interrupted.
    """
    line = " ".join(message.split())
    # It may name what somebody else has written: no terminal is to be told to do anything by it.
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    data = f"jcache: {line}\n".encode("utf-8", "replace")
    try:
        os.write(2, data)
    except OSError:
        pass  # stderr is closed or its reader is gone; there is nobody to tell


def say_once(message: str) -> None:
    """Write one line to stderr, unless this process or one that it descends from has written just this line before."""
    line = " ".join(message.split())
    if os.environ.get(_TOLD) != line:
        say(line)
        # A pool of 64 spawned workers has the same wrong setting as its parent, which has told the user already.
        os.environ[_TOLD] = line
