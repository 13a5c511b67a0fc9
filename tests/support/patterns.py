"""The read patterns by which caches are compared: the seeds' own, and that of an AGC job."""

import hashlib
import os
import random
from itertools import pairwise

from analysis import OLD_S

SEED_FILE_BYTES = 1_000_000_000
SEED_RANGES, SEED_VECTORS, SEED_BYTES = 124, 24, 63_000_000
AGC_FILE_BYTES, AGC_FILES = 41_282_461, 4

# The ranges of one of the AGC job's files as uproot asks for them: two of the header, the tree, then baskets of seven
# branches in eight clusters, with the sizes that they have in 20,000 events of CMS open data.
AGC_HEAD = ((0, 403), (1308, 310), (1658, 734_716))
AGC_CLUSTER = (65_417, 65_586, 2785, 4713, 30_454)
AGC_CLUSTERS, AGC_CLUSTER_STEP = 8, 5_040_000


def seed_pattern():
    """24 vectors, 124 ranges of about half a megabyte, 63.0 MB in all, forward and disjoint in 1 GB."""
    rng = random.Random(24)
    sizes = [rng.randint(350_000, 660_000) for _ in range(SEED_RANGES - 1)]
    sizes.append(SEED_BYTES - sum(sizes))
    assert 100_000 < sizes[-1] < 2_000_000
    step = SEED_FILE_BYTES // SEED_RANGES
    spans = []
    for i, size in enumerate(sizes):
        start = i * step + rng.randrange(step - size)
        spans.append([start, start + size])
    cuts = [i * SEED_RANGES // SEED_VECTORS for i in range(SEED_VECTORS + 1)]
    return [spans[a:b] for a, b in pairwise(cuts)]


def agc_pattern():
    """11 requests, 43 ranges of one file."""
    vectors = [[[start, start + size]] for start, size in AGC_HEAD]
    for cluster in range(AGC_CLUSTERS):
        at = 1_129_617 + cluster * AGC_CLUSTER_STEP
        vector = []
        for size in AGC_CLUSTER:
            vector.append([at, at + size])
            at += size + 170_000
        vectors.append(vector)
    return vectors


def write_sparse(path, size_bytes, vectors, *, seed):
    """Write random bytes where the pattern reads, nothing elsewhere; return the checksum that `READ` prints."""
    rng = random.Random(seed)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start, stop in (span for vector in vectors for span in vector):
            data = rng.randbytes(stop - start)
            file.seek(start)
            file.write(data)
            digest.update(data)
    path.chmod(0o644)
    os.utime(path, (OLD_S, OLD_S))
    return digest.hexdigest()


def total(vectors):
    return sum(stop - start for vector in vectors for start, stop in vector)
