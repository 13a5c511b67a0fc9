"""One journal, many processes at once: each byte from the origin once, and the right bytes whatever others do to it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from analysis import OLD_S, Served
from sharing import Crew, digests_of, once
from test_seed_pattern import SEED_BYTES, SEED_FILE_BYTES, seed_pattern, total, write_sparse

PROCESSES = 8


@pytest.fixture(params=["xrootd_server", "nginx_server"], ids=["xrootd", "nginx"])
def served(request):
    return Served(request.getfixturevalue(request.param))


@pytest.mark.parametrize("seeds", [[0] * PROCESSES, list(range(1, PROCESSES + 1))], ids=["one order", "eight orders"])
def test_eight_processes_start_cold_together(served, seeds, cache_dir, tmp_path):
    vectors = seed_pattern()
    assert total(vectors) == SEED_BYTES
    write_sparse(served.directory / "seed.bin", SEED_FILE_BYTES, vectors, seed=1)
    url = served.url("seed.bin")
    expected = digests_of(served.directory / "seed.bin", vectors)
    with Crew(tmp_path, url, vectors, [cache_dir] * PROCESSES, seeds=seeds) as crew:
        served.reset()
        began_s = time.monotonic()
        crew.go()
        results = crew.results()
    took_s = time.monotonic() - began_s
    sent = served.data_bytes()
    print(f"{PROCESSES} processes, {took_s:.1f} s: {sent / SEED_BYTES:.4f} x the distinct bytes from the origin")
    for result in results:
        assert result.digests == expected
        assert result.hit + result.miss == SEED_BYTES
        assert not result.bypass
        assert "jcache: " not in result.stderr
    assert sent == sum(result.miss for result in results)
    assert SEED_BYTES <= sent <= 1.05 * SEED_BYTES
    served.reset()
    with Crew(tmp_path, url, vectors, [cache_dir]) as crew:
        crew.go()
        assert [(result.digests, result.miss) for result in crew.results()] == [(expected, 0)]
    assert served.data_bytes() == 0
