"""The measured process: reads as one workload says, in one way, and prints what that took as one line of JSON.

    python reader.py '{"kind": "vectors", "url": ..., ...}'

It imports what an analysis would and nothing of the benchmark, so that what is measured is the user's process. The
clock runs from the first call that names the file to the last byte; interpreter, imports and the connection to the
server come before it, by means of a small file that is read first.
"""

import json
import os
import resource
import sys
import time

BLOCK = 512


class Digest:
    """A checksum of all that was read, in order; off while the clock runs."""

    def __init__(self, on):
        self._hash = None
        self.nbytes = 0
        if on:
            import hashlib

            self._hash = hashlib.sha256()

    def add(self, data):
        """Take in the next bytes."""
        self.nbytes += len(data)
        if self._hash is not None:
            self._hash.update(data)

    def __str__(self):
        return "" if self._hash is None else self._hash.hexdigest()


def file_system(spec, url):
    import fsspec

    return fsspec.core.url_to_fs(url, **spec.get("options", {}))


def read_vectors(spec, digest):
    """Read each file's vectors, one after the other; a vector of one range is a plain read."""
    for url, vectors in zip(spec["urls"], spec["vectors"], strict=True):
        fs, path = file_system(spec, url)
        for vector in vectors:
            if len(vector) == 1:
                digest.add(fs.cat_file(path, start=vector[0][0], end=vector[0][1]))
                continue
            starts, stops = zip(*vector, strict=True)
            for data in fs.cat_ranges([path] * len(vector), list(starts), list(stops)):
                digest.add(data)


def read_uproot(spec, digest):
    """Read columns of each file, as an analysis would."""
    import awkward as ak
    import uproot

    for url in spec["urls"]:
        options = dict(spec.get("options", {}))
        with uproot.open({url: None}, handler=uproot.source.fsspec.FSSpecSource, **options) as file:
            events = file["Events"].arrays(spec["columns"])
        for name in spec["columns"]:
            digest.add(memoryview(ak.to_numpy(ak.flatten(events[name], axis=None))).cast("B"))


def read_stream(spec, digest):
    """Read a file from its beginning to its end, in steps of one size."""
    fs, path = file_system(spec, spec["urls"][0])
    step = spec["step"]
    with fs.open(path, "rb") as file:
        while data := file.read(step):
            digest.add(data)


def read_whole(spec, digest):
    """Read a file in one go."""
    fs, path = file_system(spec, spec["urls"][0])
    digest.add(fs.cat_file(path, start=0, end=spec["size"]))


def read_many(spec, digest):
    """Read many small files in one asynchronous call."""
    fs, root = file_system(spec, spec["urls"][0])
    found = fs.cat([f"{root.rstrip('/')}/{name}" for name in spec["names"]])
    for name in sorted(found):
        digest.add(found[name])


READS = {
    "vectors": read_vectors,
    "uproot": read_uproot,
    "stream": read_stream,
    "whole": read_whole,
    "many": read_many,
}


def warm_up(spec):
    """Pay for imports, threads and the connection before the clock runs."""
    if spec["kind"] == "uproot":
        import awkward  # noqa: F401
        import uproot  # noqa: F401
    url = spec.get("warm_up")
    if url is None:
        return
    fs, path = file_system(spec, url)
    if spec["kind"] == "stream":
        with fs.open(path, "rb") as file:
            file.read(BLOCK)
        return
    fs.cat_file(path, start=0, end=BLOCK)
    fs.cat_ranges([path] * 2, [0, 2 * BLOCK], [BLOCK, 3 * BLOCK])


def main():
    spec = json.loads(sys.argv[1] if sys.argv[1] != "-" else sys.stdin.readline())
    if "file" in spec:
        with open(spec["file"]) as file:
            spec |= json.load(file)
    read = READS[spec["kind"]]
    warm_up(spec)
    if spec.get("barrier"):
        print("ready", flush=True)
        sys.stdin.readline()
    seconds, cpu_s, digest = [], [], Digest(spec.get("digest", False))
    began = time.monotonic()
    for _ in range(spec.get("passes", 1)):
        digest.nbytes = 0
        cpu, start = time.process_time(), time.perf_counter()
        read(spec, digest)
        seconds.append(time.perf_counter() - start)
        cpu_s.append(time.process_time() - cpu)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "nbytes": digest.nbytes,
        "digest": str(digest),
        "peak_kib": peak_kib,
        "began": began,
        "ended": time.monotonic(),
        "jcache": "jcache.session" in sys.modules,
    }
    os.write(1, (json.dumps(result) + "\n").encode())


if __name__ == "__main__":
    main()
