"""What the parts cost: packing, scanning, looking up, verifying, reporting. Run by `make bench`, not by `make test`."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jcache.counters import Counters
from jcache.journal import Journal, Version
from jcache.report.faces.text import render
from jcache.system.storage import Storage

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from report_samples import ttbar_report

if TYPE_CHECKING:
    from typing import Any

EXTENTS, EXTENT_BYTES, STEP, FRAME_EXTENTS = 100_000, 100, 1600, 1000
VERSION = Version(EXTENTS * STEP, mtime_ns=1)
LARGE = Version(1 << 30, mtime_ns=1)


def fill(directory: Path, *, sealed: bool) -> None:
    journal = Journal(Storage(), str(directory), "bench")
    for first in range(0, EXTENTS, FRAME_EXTENTS):
        journal.append(VERSION, {}, [(row * STEP, bytes(EXTENT_BYTES)) for row in range(first, first + FRAME_EXTENTS)])
    if sealed:
        journal.close()
    else:
        journal.forget()


def attached(directory: Path) -> Journal:
    journal = Journal(Storage(), str(directory), "bench")
    journal.attach()
    return journal


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: Any) -> Path:
    directory: Path = tmp_path_factory.mktemp("sealed")
    fill(directory, sealed=True)
    return directory


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: Any) -> Path:
    directory: Path = tmp_path_factory.mktemp("unsealed")
    fill(directory, sealed=False)
    return directory


def test_pack_many_small_extents(benchmark: Any, tmp_path: Path) -> None:
    extents = [(row * STEP, bytes(EXTENT_BYTES)) for row in range(FRAME_EXTENTS)]
    turn = iter(range(1 << 30))

    def append() -> int:
        journal = Journal(Storage(), str(tmp_path / str(next(turn))), "bench")
        try:
            return journal.append(VERSION, {}, extents)
        finally:
            journal.close()

    assert benchmark(append) > FRAME_EXTENTS * EXTENT_BYTES


def test_pack_a_vector_of_large_extents(benchmark: Any, tmp_path: Path) -> None:
    """Nine ranges of 0.58 MB: checksums and one write."""
    data = random.Random(1).randbytes(580_000)
    turn = iter(range(1 << 30))

    def append() -> int:
        journal = Journal(Storage(), str(tmp_path / str(next(turn) % 8)), "bench")
        try:
            return journal.append(LARGE, {}, [(i * 6_000_000, data) for i in range(9)])
        finally:
            journal.close()

    assert benchmark(append) > 9 * len(data)


def test_attach_sealed(benchmark: Any, sealed: Path) -> None:
    assert benchmark(attached, sealed).view(VERSION).find(0, EXTENT_BYTES)[0][2] is not None


def test_scan_unsealed(benchmark: Any, unsealed: Path) -> None:
    assert benchmark(attached, unsealed).view(VERSION).find(0, EXTENT_BYTES)[0][2] is not None


def test_lookup(benchmark: Any, sealed: Path) -> None:
    """A thousand lookups of one extent each."""
    journal = attached(sealed)
    view = journal.view(VERSION)
    starts = [random.Random(2).randrange(EXTENTS) * STEP for _ in range(1000)]
    find = view.find
    assert len(benchmark(lambda: [find(start, start + EXTENT_BYTES) for start in starts])) == 1000


def test_read_and_verify_small(benchmark: Any, sealed: Path) -> None:
    """A thousand reads of 100 bytes: one system call and one checksum each."""
    journal = attached(sealed)
    view = journal.view(VERSION)
    parts = [view.find(row * STEP, row * STEP + EXTENT_BYTES)[0] for row in range(1000)]
    assert len(benchmark(lambda: [view.read(part) for part in parts])) == 1000


def test_read_and_verify_large(benchmark: Any, tmp_path: Path) -> None:
    """A range of 0.58 MB, three pieces: one system call, three checksums."""
    journal = Journal(Storage(), str(tmp_path), "bench")
    data = random.Random(3).randbytes(580_000)
    journal.append(LARGE, {}, [(1000, data)])
    view = journal.view(LARGE)
    (part,) = view.find(1000, 1000 + len(data))
    assert benchmark(view.read, part) == data


def test_count(benchmark: Any) -> None:
    """What a read pays for being counted."""
    counters = Counters()
    benchmark(counters.readv, 9, 5_000_000, 5_000_000, 0, 0, url="root://host//file")
    assert counters.any_activity()


def test_report_text(benchmark: Any) -> None:
    """What the end of a job pays for its report: one of 4,000 reads of 80 files."""
    report = ttbar_report()
    printed = benchmark.pedantic(lambda: print_to_text(report), rounds=20, warmup_rounds=2)
    assert "cache combined hit rate" in printed


def print_to_text(report: Any) -> str:
    file = io.StringIO()
    render(report, file)
    return file.getvalue()
