"""Very many connections at once: those that wait are answered like those that ask all the time, in bounded memory."""

from __future__ import annotations

import asyncio
import random
import resource
from typing import TYPE_CHECKING

import pytest
from gateways import GatewayProcess, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import ScriptedOrigin

DATA = random.Random(6).randbytes(100_000)
IDLE, BUSY, TURNS = 2000, 500, 8
# Both ends of a connection are files, each of a process of its own.
FILES = IDLE + BUSY + 200
LIMIT_S = 300


@pytest.fixture
def many_files() -> Iterator[None]:
    """Leave for so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        if hard != resource.RLIM_INFINITY and hard < FILES:
            pytest.skip(f"a process may open {hard} files only")
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Client:
    """A connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, start: int, stop: int) -> bytes:
        asked = request("/a.bin", Range=f"bytes={start}-{stop - 1}", Connection="keep-alive")
        self._writer.write(asked)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206 "), head
        return await self._reader.readexactly(stop - start)

    def close(self) -> None:
        self._writer.close()


async def crowd(gateway: GatewayProcess, count: int) -> list[Client]:
    """Connect, a few at a time, and ask for something on each connection."""
    room = asyncio.Semaphore(64)

    async def one() -> Client:
        async with room:
            client = Client(*await asyncio.open_connection(gateway.host, gateway.port))
            assert await client.ask(0, 10) == DATA[:10]
            return client

    return await asyncio.gather(*(one() for _ in range(count)))


async def busy(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(TURNS):
        start, stop = sorted(chance.sample(range(len(DATA) + 1), 2))
        assert await client.ask(start, stop) == DATA[start:stop]


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_two_thousand_wait_and_five_hundred_ask(http_origin: ScriptedOrigin, cache_dir: Path, workers: str) -> None:
    psutil = pytest.importorskip("psutil")
    http_origin.put("a.bin", DATA)

    async def all_of_them(gateway: GatewayProcess) -> None:
        async with asyncio.timeout(LIMIT_S):
            first = await crowd(gateway, 1)
            process = psutil.Process(gateway.process.pid)
            before = process.memory_info().rss
            idle, asking = await crowd(gateway, IDLE), await crowd(gateway, BUSY)
            await asyncio.gather(*map(busy, asking, range(BUSY)))
            # One that waits is answered as if there were no others.
            assert await asyncio.gather(*(client.ask(5, 50) for client in idle)) == [DATA[5:50]] * IDLE
            if workers == "1":
                grown = process.memory_info().rss - before
                assert grown < 60_000 * (IDLE + BUSY), "docs/howto/serve.md says 30 kB a connection"
            for client in (*first, *idle, *asking):
                client.close()

    with GatewayProcess(cache_dir, "--origin", http_origin.url(""), "--workers", workers) as gateway:
        asyncio.run(all_of_them(gateway))
        assert gateway.stop(timeout_s=LIMIT_S) == 0
    assert "Traceback" not in gateway.stderr
