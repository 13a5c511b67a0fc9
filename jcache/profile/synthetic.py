"""A profile that nobody recorded: the statistics of the analysis in the seed's talk, as requests.

CHEP 2024, "JCache - embedded IO benchmarking": 1050 opens of 796 files of 976.61 GB in all, 34,056 reads of 9 GB and
10,707 vector reads of 93,611 ranges, 54 GB, in 72.48 s of 46 cores. Where the requests lay is not in it: forward, and
scattered evenly over each file, as its picture of the read pattern shows them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from jcache.counters import OPEN, READ, VECTOR
from jcache.profile.format import END, FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Statistics", "write_synthetic"]

_BLOCK_REQUESTS = 4096


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a run read, as its report says it. Sizes are in bytes."""

    files: int = 796
    opens: int = 1050
    dataset_bytes: int = 976_614_396_598
    reads: int = 34_056
    read_bytes: int = 8_976_091_232
    vectors: int = 10_707
    ranges: int = 93_611
    vector_bytes: int = 53_958_826_610
    seconds: float = 72.48
    threads: int = 46

    def scaled(self, share: float) -> Statistics:
        """Return those of a share of it, in as much time and by as many threads as it takes."""
        counts = {name: max(round(getattr(self, name) * share), 1) for name in self.__dataclass_fields__}
        counts["ranges"] = max(counts["ranges"], counts["vectors"])
        counts["opens"] = max(counts["opens"], counts["files"])
        return Statistics(**{**counts, "seconds": self.seconds * share if share < 1 else self.seconds})


def write_synthetic(out: BinaryIO, statistics: Statistics, *, base: str, seed: int = 2024) -> None:
    """Write a profile with just these statistics; the same for the same arguments.

    Args:
        out: Gets the profile.
        statistics: What it is to say.
        base: What the files' addresses begin with.
        seed: Of what is chance in it.
    """
    urls = [f"{base}{number:04}.root" for number in range(statistics.files)]
    out.write(pack_start() + pack_json(HEAD, {"appname": "synthetic", "command": "synthetic", "start_time": 0.0}))
    out.write(pack_json(FILES, urls))
    requests = sorted(_requests(statistics, random.Random(seed)), key=lambda one: (one.end_us, one.thread))
    out.writelines(
        pack_batch(Batch.of(requests[at : at + _BLOCK_REQUESTS])) for at in range(0, len(requests), _BLOCK_REQUESTS)
    )
    out.write(pack_json(END, {"end_time": statistics.seconds, "lost": 0}))


def _requests(said: Statistics, chance: random.Random) -> Iterator[Request]:
    size = said.dataset_bytes // said.files
    reads, vectors = _shares(said.reads, said.opens), _shares(said.vectors, said.opens)
    range_counts = iter(_shares(said.ranges, said.vectors))
    range_sizes = iter(_shares(said.vector_bytes, said.ranges))
    read_sizes = iter(_shares(said.read_bytes, said.reads))
    free_us = [0] * said.threads
    each_us = int(said.seconds * 1e6 * said.threads / said.opens)
    for number in range(said.opens):
        thread = min(range(said.threads), key=free_us.__getitem__)
        file = number if number < said.files else chance.randrange(said.files)
        counts = [1] * reads[number] + [next(range_counts) for _ in range(vectors[number])]
        kinds = [READ] * reads[number] + [VECTOR] * vectors[number]
        order = list(range(len(kinds)))
        chance.shuffle(order)
        lengths = [[next(read_sizes if kinds[i] == READ else range_sizes) for _ in range(counts[i])] for i in order]
        now_us, step_us = free_us[thread], each_us // (len(order) + 1)
        yield Request(OPEN, now_us + step_us // 8, step_us // 8, thread, file, [0], [size], 0, 0, 0, 0)
        total = sum(map(sum, lengths))
        gap = max(size - total, 0) // max(sum(map(len, lengths)), 1)
        at = 0
        for i, row in zip(order, lengths, strict=True):
            starts, stops = [], []
            for length in row:
                at += chance.randrange(gap + 1) if gap else 0
                starts.append(at)
                at = min(at + length, size)
                stops.append(at)
            now_us += step_us
            asked = sum(stops) - sum(starts)
            yield Request(kinds[i], now_us, step_us // 2, thread, file, starts, stops, 0, asked, 0, 0)
        free_us[thread] += each_us


def _shares(total: int, count: int) -> list[int]:
    """Return a total in so many parts, as even as may be, that add up to it."""
    return [total * (number + 1) // count - total * number // count for number in range(count)]
