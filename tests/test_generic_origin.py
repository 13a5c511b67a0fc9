"""File systems without a way to the origin of their own, each against a server: what plain gives, and what it costs."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from generic_servers import SERVERS, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunPython
    from proxy import CountingProxy

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_500_000)
OLD_S = 1_700_000_000
READ = """
import hashlib, json, sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1], **json.loads(sys.argv[2]))
said = []
def say(data):
    said.append((len(data), hashlib.sha256(data).hexdigest()[:12]))
with fs.open(path) as file:
    while data := file.read(50_000):
        said.append(len(data))
        if len(said) % 7 == 0:
            said.append(fs.exists(path))  # over the one connection that there may be
    file.seek(1_000)
    say(file.read(10))
    file.seek(900_000)
    say(file.read(5_000))
say(fs.cat_file(path))
say(fs.cat_file(path, 10, 20))
for data in fs.cat_ranges([path] * 4, [5, 400_000, 1_200, 1_499_990], [9, 400_100, 1_300, 1_500_000]):
    say(data)
told = fs.info(path)
print(said, told["size"], told["type"], fs.isdir(path))
"""


@pytest.fixture(params=SERVERS, ids=lambda cls: cls.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "files"
    directory.mkdir()
    with request.param(directory) as started:
        started.write(OLD, OLD_S)
        yield started


def test_plain_cold_warm_offline_and_replaced(
    run_python: RunPython, server: Server, counting_proxy: Callable[..., CountingProxy]
) -> None:
    proxy = counting_proxy(server.port)
    args = server.url.format(port=proxy.port), json.dumps(server.options(proxy.port))

    def read(env: dict[str, str] | None = None, **options: Any) -> tuple[str, int, int]:
        proxy.reset()
        ran = run_python(READ, *args, env={**server.variables, **(env or {})}, **options)
        return ran.stdout, proxy.bytes_to_client, proxy.turns

    plain, plain_bytes, plain_turns = read(cache=None)
    cold, cold_bytes, cold_turns = read()
    assert cold == plain
    assert cold_bytes <= plain_bytes
    assert cold_turns <= plain_turns + 8  # some read megabytes at once before anybody asks for them
    warm, warm_bytes, warm_turns = read()
    assert warm == plain
    assert warm_bytes < 10_000  # a greeting, and one `info` for each question
    assert warm_turns < plain_turns
    assert read({"JCACHE_OFFLINE": "1"}) == (plain, 0, 0)
    server.write(NEW, OLD_S + 1)
    new, new_bytes, _ = read()
    assert hashlib.sha256(NEW).hexdigest()[:12] in new
    assert len(NEW) < new_bytes <= plain_bytes
