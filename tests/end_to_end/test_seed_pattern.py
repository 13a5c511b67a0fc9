"""What the cache costs on disk: the seed's read pattern and the AGC job's, and never a byte twice."""

from __future__ import annotations

import hashlib
import json
import os
import random

import pytest
from analysis import OLD_S, covered, disk_bytes, journal_bytes
from patterns import (
    AGC_FILE_BYTES,
    AGC_FILES,
    SEED_BYTES,
    SEED_FILE_BYTES,
    SEED_RANGES,
    SEED_VECTORS,
    agc_pattern,
    seed_pattern,
    total,
    write_sparse,
)

pytestmark = pytest.mark.turns("served")

# argv: file with a list of vectors of [start, stop], URLs. A vector of one range is a plain read. A checksum per file.
READ = """
import hashlib, json, sys
import fsspec

vectors = json.load(open(sys.argv[1]))
for url in sys.argv[2:]:
    fs, path = fsspec.core.url_to_fs(url)
    digest = hashlib.sha256()
    for vector in vectors:
        if len(vector) == 1:
            digest.update(fs.cat_file(path, start=vector[0][0], end=vector[0][1]))
            continue
        starts, stops = zip(*vector)
        for data in fs.cat_ranges([path] * len(vector), list(starts), list(stops)):
            digest.update(data)
    print(digest.hexdigest())
"""


@pytest.fixture
def read(run_python, tmp_path):
    """`read(vectors, *urls)` reads the same vectors of each file in a fresh process."""

    def run(vectors, *urls, **options):
        pattern = tmp_path / "pattern.json"
        pattern.write_text(json.dumps(vectors))
        return run_python(READ, str(pattern), *urls, **options)

    return run


def check_disk(served, read, cache_dir, vectors, names, expected, *, bar):
    """Read cold and warm, with the reports where users have them; hold the cache directory against the bar."""
    distinct = len(names) * total(vectors)
    urls = [served.url(name) for name in names]
    cold = read(vectors, *urls, env={"JCACHE_JSON": None})
    assert cold.stdout.split() == expected
    assert served.data_bytes() == distinct
    journals = journal_bytes(cache_dir)
    sizes = disk_bytes(cache_dir), disk_bytes(cache_dir, reports=True)
    print(f"{distinct} bytes read, on disk x {sizes[0] / distinct:.6f}, with a report x {sizes[1] / distinct:.6f}")
    assert distinct < sizes[0] < sizes[1] <= bar * distinct

    served.reset()
    warm = read(vectors, *urls)
    assert warm.stdout.split() == expected
    assert served.data_bytes() == 0
    assert warm.report["read"]["hit_bytes"] + warm.report["readv"]["hit_bytes"] == distinct
    assert journal_bytes(cache_dir) == journals
    assert disk_bytes(cache_dir) <= bar * distinct, "the record of use grows by a line"


def test_seed_pattern_costs_0_2_percent(served, read, cache_dir):
    vectors = seed_pattern()
    assert (len(vectors), sum(map(len, vectors)), total(vectors)) == (SEED_VECTORS, SEED_RANGES, SEED_BYTES)
    expected = write_sparse(served.directory / "seed.bin", SEED_FILE_BYTES, vectors, seed=1)
    check_disk(served, read, cache_dir, vectors, ["seed.bin"], [expected], bar=1.002)


def test_agc_pattern_costs_0_6_percent(served, read, cache_dir):
    vectors = agc_pattern()
    assert (AGC_FILES * len(vectors), AGC_FILES * sum(map(len, vectors))) == (44, 172)
    assert 8.3e6 < AGC_FILES * total(vectors) < 8.4e6
    names = [f"agc_{i}.root" for i in range(AGC_FILES)]
    expected = [write_sparse(served.directory / name, AGC_FILE_BYTES, vectors, seed=i) for i, name in enumerate(names)]
    check_disk(served, read, cache_dir, vectors, names, expected, bar=1.006)


def test_no_byte_is_fetched_or_kept_twice(served, read, cache_dir):
    """Repeated, overlapping, nested, split and unsorted ranges, within a vector, between vectors, between processes."""
    rng = random.Random(5)
    size = 4_000_000
    path = served.directory / "file.bin"
    path.write_bytes(content := rng.randbytes(size))
    os.utime(path, (OLD_S, OLD_S))  # a file of this very second is not recorded
    url = served.url("file.bin")
    seen: list[tuple[int, int]] = []
    for run in range(3):
        vectors = []
        for _ in range(12):
            starts = [rng.randrange(size - 70_000) for _ in range(rng.choice([1, 2, 7, 20]))]
            vector = [[start, start + rng.randint(1, 70_000)] for start in starts]
            vector += rng.sample(vector, len(vector) // 3)
            vector += rng.sample(vectors[-1], len(vectors[-1]) // 3) if vectors else []
            vectors.append(vector)
        before = sum(covered(seen, size))
        seen += [(start, stop - start) for vector in vectors for start, stop in vector]
        distinct = sum(covered(seen, size))
        served.reset()
        ran = read(vectors, url)
        flat = b"".join(content[start:stop] for vector in vectors for start, stop in vector)
        assert ran.stdout.strip() == hashlib.sha256(flat).hexdigest(), run
        assert served.data_bytes() == distinct - before == ran.report["cache"]["recorded_bytes"], run
        # Book-keeping is for each piece, and overlaps make many: far below what a second copy would take.
        assert distinct < disk_bytes(cache_dir) < distinct + 120_000, run
