"""Scattered reads of a file object over a server that is far away: how many requests, for how many bytes.

The oracle is fsspec's own file object with its default cache, and what was asked for. Requests count, and bytes: a
distance makes each request dear, and time follows from both.
"""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import eventually, settle
from fsspec.implementations.http import HTTPFileSystem

from jcache.activate import deactivate
from jcache.settings.config import WHOLE_BYTES
from jcache_plugins.fsspec.ahead import BLOCK_BYTES, BLOCKS, SPARE_BYTES, SPARE_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Resource, ScriptedOrigin

    from jcache.session import Session

    Job = Callable[[Any], None]

h5py = pytest.importorskip("h5py")
np = pytest.importorskip("numpy")

PLAIN_BLOCK = 5 << 20


def made(directory: Path, *, datasets: int, values: int) -> bytes:
    """Return a file of HDF5 with chunked datasets in groups."""
    rng = np.random.default_rng(1)
    with h5py.File(directory / "f.h5", "w") as file:
        for i in range(datasets):
            data = rng.random((20, values), dtype="f4")
            file.require_group(f"g{i % 4}").create_dataset(f"v{i}", data=data, chunks=(1, values)).attrs["u"] = (
                "x" * 200
            )
    return (directory / "f.h5").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory.mktemp("small"), datasets=12, values=12_000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory.mktemp("large"), datasets=12, values=30_000)


def metadata(file: Any) -> None:
    with h5py.File(file) as h5:
        h5.visititems(lambda _, one: dict(one.attrs))


def datasets(file: Any) -> None:
    with h5py.File(file) as h5:
        for i in (1, 5, 9):
            h5[f"g{i % 4}/v{i}"][...]


def slabs(file: Any) -> None:
    with h5py.File(file) as h5:
        for i in range(12):
            h5[f"g{i % 4}/v{i}"][3:5]


def anywhere(file: Any) -> None:
    rng = random.Random(1)
    for _ in range(40):
        file.seek(rng.randrange(file.size - 5000))
        file.read(5000)


class Asked(io.BytesIO):
    """Notes which bytes are read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = len(data)
        self.seen = bytearray(len(data))
        self.reads = 0

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.reads += 1
        self.seen[start : start + len(data)] = b"\1" * len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture
def measured(active: Callable[..., Session], http_origin: ScriptedOrigin) -> Callable[..., dict[str, int]]:
    """Run a job plain, cold and warm: requests of each, bytes of each, and bytes that it asks for."""

    def measure(data: bytes, job: Job, **settings: Any) -> dict[str, int]:
        asked = Asked(data)
        job(asked)
        resource: Resource = http_origin.put("f", data)
        found = {"asked": asked.seen.count(1), "reads": asked.reads}
        for name in ("plain", "cold", "warm"):
            deactivate()
            session = None if name == "plain" else active(**settings)
            HTTPFileSystem.clear_instance_cache()
            http_origin.reset()
            with fsspec.open(http_origin.url("f")) as file:
                job(file)
            if session is not None:
                settle()
                found[f"{name} recorded"] = session.counters.snapshot().recorded_bytes
            found[name], found[f"{name} bytes"] = resource.gets, resource.body_bytes
        return found

    return measure


@pytest.mark.parametrize("job", [metadata, datasets, slabs, anywhere])
def test_a_small_file_that_is_read_here_and_there_is_fetched_once_and_recorded_as_asked(
    measured: Callable[..., dict[str, int]], small: bytes, job: Job
) -> None:
    assert len(small) > 2 * PLAIN_BLOCK, "or plain fsspec has it in one block"
    found = measured(small, job)
    assert found["cold"] <= max(1.1 * found["plain"], 6), found
    assert found["cold bytes"] <= len(small), "each byte once"
    assert found["cold recorded"] == found["asked"], "and none that nobody asked for"
    assert (found["warm"], found["warm bytes"]) == (0, 0)


@pytest.mark.parametrize("job", [metadata, datasets, slabs, anywhere])
def test_of_a_larger_file_no_more_than_a_share_is_fetched_in_vain(
    measured: Callable[..., dict[str, int]], large: bytes, job: Job
) -> None:
    assert len(large) > WHOLE_BYTES
    found = measured(large, job)
    assert found["cold bytes"] <= found["asked"] * (1 + 1 / SPARE_SHARE) + SPARE_BYTES, found
    assert found["cold recorded"] == found["asked"]
    assert found["cold"] <= found["reads"] * (1 if job is anywhere else 0.6), found
    assert (found["warm"], found["warm bytes"]) == (0, 0)


def test_blocks_that_serve_nothing_are_read_no_more(measured: Callable[..., dict[str, int]], large: bytes) -> None:
    found = measured(large, anywhere)
    assert found["cold"] == 40
    assert found["cold bytes"] - found["asked"] <= BLOCKS * BLOCK_BYTES


def test_streams_that_take_turns_are_read_once(
    active: Callable[..., Session], http_origin: ScriptedOrigin, large: bytes
) -> None:
    session = active()
    resource = http_origin.put("f", large)
    step = 100_000
    with fsspec.open(http_origin.url("f")) as file:
        for i in range(60):
            for begin in (1 << 20, 9 << 20, 18 << 20):
                file.seek(begin + i * step)
                assert file.read(step) == large[begin + i * step : begin + (i + 1) * step]
    settle()
    asked = 3 * 60 * step
    assert resource.body_bytes <= asked * (1 + 1 / SPARE_SHARE) + SPARE_BYTES
    assert session.counters.snapshot().recorded_bytes == asked

    def adds_up() -> bool:
        counts = session.counters.snapshot()
        return counts.prefetch_unused_bytes == counts.origin_bytes - asked

    eventually(adds_up)  # what had not landed as the file was closed is counted by the loop, in its own time


def test_how_large_a_file_may_be_that_is_fetched_whole_is_a_setting(
    measured: Callable[..., dict[str, int]], small: bytes
) -> None:
    found = measured(small, anywhere, whole=0)
    assert found["cold bytes"] - found["asked"] <= BLOCKS * BLOCK_BYTES


def test_two_reads_bring_what_they_ask_for_and_nothing_else(
    active: Callable[..., Session], http_origin: ScriptedOrigin, small: bytes
) -> None:
    active()
    resource = http_origin.put("f", small)
    with fsspec.open(http_origin.url("f")) as file:
        file.seek(-8, 2)
        assert file.read() == small[-8:]
        file.seek(1_000_000)
        assert file.read(20_000) == small[1_000_000:1_020_000]
    settle()
    assert resource.body_bytes == 20_008
