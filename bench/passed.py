"""The counted process: what a vector of two ranges passes of JCache, in all threads, and what a second read takes.

    python passed.py URL

Prints one line of JSON. Counts carry over from machine to machine, unlike times.
"""

import json
import resource
import sys
import threading
import time
from pathlib import Path

import fsspec
from fsspec.asyn import sync

import jcache
import jcache_plugins

OURS = tuple(str(Path(package.__file__).parent) for package in (jcache, jcache_plugins))
LENGTH, STEP, FLOW, PAUSE_S = 50_000, 200_000, 24, 0.2


class Passed:
    """A profile function that counts the calls of JCache's functions while it is on."""

    def __init__(self):
        self.on = False
        self.calls = []

    def note(self, frame, event, _):
        """Take note of what the interpreter does."""
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith(OURS):
            self.calls.append((code.co_filename, code.co_qualname))

    async def watch(self):
        """Watch the event loop's thread as well."""
        sys.setprofile(self.note)

    def during(self, read):
        """Return how many calls, functions and modules a read passes, and what it leaves to be done behind it."""
        time.sleep(PAUSE_S)  # until nothing of the reads before is left to be done
        self.calls.clear()
        self.on = True
        read()
        time.sleep(PAUSE_S)
        self.on = False
        return {
            "calls": len(self.calls),
            "functions": len(set(self.calls)),
            "modules": len({name for name, _ in self.calls}),
        }


def main():
    passed = Passed()
    threading.setprofile(passed.note)  # for the threads that begin from here on
    fs, path = fsspec.core.url_to_fs(sys.argv[1])

    def read(i):
        start = i * STEP
        fs.cat_ranges([path] * 2, [start, start + 2 * LENGTH], [start + LENGTH, start + 3 * LENGTH])

    seconds = []
    for i in range(FLOW):
        began_s = time.perf_counter()
        read(i)
        seconds.append(time.perf_counter() - began_s)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for i in range(FLOW, 2 * FLOW):
        read(i)
    after = resource.getrusage(resource.RUSAGE_SELF)
    switches = after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw
    sys.setprofile(passed.note)
    sync(fs.loop, passed.watch)
    read(2 * FLOW)
    cold = passed.during(lambda: read(2 * FLOW + 1))
    warm = passed.during(lambda: read(0))
    sys.setprofile(None)
    print(json.dumps({"cold": cold, "warm": warm, "switches": switches / FLOW, "seconds": seconds}))


if __name__ == "__main__":
    main()
