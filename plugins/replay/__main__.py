"""Plays a profile: `python -m jcache_plugins.replay SPEC RESULT`, two files of JSON."""

import sys

from jcache_plugins.replay.processes import main

__all__: list[str] = []

if __name__ == "__main__":
    main(*sys.argv[1:])
