"""The recorded process: processor time of warm reads, in all threads, with whatever records them.

    python recorded.py URL PATTERN

Prints one line of JSON: seconds for the vectors of the pattern, and for as many steps of 100 bytes of a file object.
"""

import json
import sys
import time
from pathlib import Path

import fsspec

STEP, PAUSE_S = 100, 1.2


def seconds_of(read):
    """Return how long a second reading takes, with what is left to be done behind it."""
    read()
    time.sleep(PAUSE_S)  # as long as requests wait in memory
    began_s = time.process_time()
    read()
    time.sleep(PAUSE_S)
    return time.process_time() - began_s


def main():
    fs, path = fsspec.core.url_to_fs(sys.argv[1])
    (vectors,) = json.loads(Path(sys.argv[2]).read_text())["vectors"]
    columns = [list(map(list, zip(*vector, strict=True))) for vector in vectors]
    count = sum(map(len, vectors))

    def read_vectors():
        for starts, stops in columns:
            fs.cat_ranges([path] * len(starts), starts, stops)

    def read_steps():
        left = count
        while left:
            with fs.open(path) as file:
                read = file.read
                while left and read(STEP):
                    left -= 1

    seconds = {"vectors": seconds_of(read_vectors)}
    fs.cat_file(path)
    print(json.dumps(seconds | {"steps": seconds_of(read_steps)}))


if __name__ == "__main__":
    main()
