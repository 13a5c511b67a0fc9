"""Plays a profile: `python -m jcache_plugins.replay SPEC RESULT`, two files of JSON."""

import os
import signal
import sys

from jcache_plugins.replay.interrupts import interrupted_once

__all__: list[str] = []

if __name__ == "__main__":
    with interrupted_once():  # who has started this hands on what the terminal sends to both
        try:
            from jcache_plugins.replay.processes import main

            main(*sys.argv[1:])
        except KeyboardInterrupt:
            # Who has started this says so. Not sys.exit: that waits for threads that wait for an origin.
            os._exit(128 + signal.SIGINT)
