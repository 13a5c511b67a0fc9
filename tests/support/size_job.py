"""A process that reads files of an origin in memory through a session with a size limit, and checks every byte."""

from __future__ import annotations

import asyncio
import json
import random
import select
import sys
import time
from typing import TYPE_CHECKING

from jcache import session
from jcache.journal import Version
from jcache.naming import identify
from jcache.origin import Fetched, Info
from jcache.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.naming import Identity
    from jcache.origin import OriginRange

BLOCK = random.Random(5).randbytes(1 << 20)


def data_of(number: int, start: int, stop: int) -> bytes:
    """The bytes of file `number`: different in each file and at each offset."""
    first, last = start >> 16, -(-stop >> 16)
    pieces = b"".join(
        number.to_bytes(8, "big") + row.to_bytes(8, "big") + BLOCK[row & 7 : (row & 7) + 65520]
        for row in range(first, last)
    )
    return pieces[start - (first << 16) : stop - (first << 16)]


class Numbers:
    """An origin whose files are numbers."""

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.info = Info(Version(size, etag=f'"{number}"'), {"size": size})
        self.identity = identity_of(number)
        self.sent = 0

    async def stat(self) -> Info:
        return self.info

    async def fetch(self, ranges: Sequence[OriginRange], *, known: Info | None) -> Fetched:
        data = [data_of(self.number, start, self.info.version.size_bytes if stop is None else stop)
                for start, stop in ranges]  # fmt: skip
        self.sent += sum(map(len, data))
        return Fetched(list(data), self.info)


def identity_of(number: int) -> Identity:
    return identify("https", f"https://host/data/f{number}.root", {})


async def read_file(number: int, size: int, step: int) -> int:
    """Read a whole file; return how many bytes came from the origin."""
    running = session.current()
    assert running is not None
    origin = Numbers(number, size)
    remote = running.files.acquire(origin.identity)
    try:
        for start in range(0, size, step):
            stop = min(start + step, size)
            (row,) = await remote.read(origin, [(start, stop)], vector=True)  # type: ignore[arg-type]
            assert row == data_of(number, start, stop), f"wrong bytes in {number} at {start}"
    finally:
        remote.release()
    return origin.sent


def main(directory: str, limit: str, numbers: str, size: str, hot: str, hot_size: str, every_s: str = "") -> None:
    """Read each of `numbers` once, and all of `hot` before each of them; or, every so often until stdin ends, `hot`."""
    running = session.start(Config(dir=directory, size=int(limit), log="info", validate="never"))
    done = {"hot": 0, "cold": 0, "checked": 0, "passes": 0}

    async def read_hot() -> None:
        for small in json.loads(hot):
            done["hot"] += await read_file(small, int(hot_size), 1 << 18)
            done["checked"] += int(hot_size)
        done["passes"] += 1

    async def job() -> None:
        for number in json.loads(numbers):
            await read_hot()
            done["cold"] += await read_file(number, int(size), 1 << 20)
            done["checked"] += int(size)

    asyncio.run(job())
    began_s = time.monotonic()
    while every_s:
        asyncio.run(read_hot())
        if done["passes"] == 2:
            print(flush=True)  # the hot set has been read again
        due_s = began_s + float(every_s) * done["passes"]
        if select.select([sys.stdin], [], [], max(due_s - time.monotonic(), 0.0))[0]:
            break
    running.close()
    snapshot = running.counters.snapshot()
    print(json.dumps({**done, "recorded": snapshot.recorded_bytes, "failures": snapshot.failures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
