"""Attaching to a journal of very many extents, in a process of its own.

python attach.py fill DIRECTORY EXTENTS sealed|unsealed
python attach.py time|memory|calls DIRECTORY EXTENTS
"""

import json
import os
import sys
import time

from jcache.journal import Journal, Version
from jcache.system.storage import Storage

STEP, EXTENT_BYTES, FRAME_EXTENTS = 1600, 100, 1000


def fill(directory, count, how):
    version = Version(count * STEP, mtime_ns=1)
    journal = Journal(Storage(), directory, "bench")
    for first in range(0, count, FRAME_EXTENTS):
        rows = range(first, min(first + FRAME_EXTENTS, count))
        journal.append(version, {}, [(row * STEP, row.to_bytes(8, "big") * 12 + b"....") for row in rows])
    if how == "sealed":
        journal.close()
    else:
        journal.forget()


def first_byte(directory, count):
    version = Version(count * STEP, mtime_ns=1)
    journal = Journal(Storage(), directory, "bench")
    journal.attach()
    view = journal.view(version)
    row = count // 3
    data = view.read(view.find(row * STEP, row * STEP + EXTENT_BYTES)[0])
    assert data == row.to_bytes(8, "big") * 12 + b"...."
    return journal, view


def main():
    what, directory, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "fill":
        fill(directory, count, sys.argv[4])
        return
    out = {}
    if what == "memory":
        import tracemalloc

        tracemalloc.start()
        held = first_byte(directory, count)
        out = {"bytes_per_extent": tracemalloc.get_traced_memory()[0] / count}
        del held
    elif what == "calls":
        os.stat("/jcache-bench-begin") if os.path.exists("/jcache-bench-begin") else None
        held = first_byte(directory, count)
        os.path.exists("/jcache-bench-end")
        del held
    else:
        start = time.perf_counter()
        held = first_byte(directory, count)
        out = {"seconds": time.perf_counter() - start}
        del held
    print(json.dumps(out))


if __name__ == "__main__":
    main()
