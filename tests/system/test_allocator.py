"""Memory that readers give back is kept for the next results: a warm pass takes no page from the kernel."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

import pytest

from jcache.system import allocator

if TYPE_CHECKING:
    from conftest import RunPython
    from servers import Nginx

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
pytest.importorskip("numpy", reason="numpy, whose ctypes is used, is not installed")

# Two vectors of fifteen ranges of 500 kB (more than imports leave free), twenty times; prints the page faults of ten.
READ = """
import resource, sys
import numpy
import fsspec
fs = fsspec.filesystem("http")
vectors = [[(15 * i + j) << 19 for j in range(15)] for i in range(2)]

def read():
    for starts in vectors:
        kept.append(fs.cat_ranges([sys.argv[1]] * 15, starts, [start + 500_000 for start in starts]))
        del kept[0]

kept = [None]
for _ in range(10):
    read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(run_python: RunPython, nginx_server: Nginx, **env: str) -> int:
    path = nginx_server.directory / "f"
    if not path.exists():
        path.write_bytes(bytes(range(256)) * (64 << 10))
    url = nginx_server.url("f")
    unchosen = dict.fromkeys(allocator.CHOSEN)
    return int(run_python(READ, url, env={**unchosen, "JCACHE_VALIDATE": "never", **env}).stdout)


def test_a_warm_pass_takes_no_memory_from_the_kernel(run_python: RunPython, nginx_server: Nginx) -> None:
    faults(run_python, nginx_server)  # cold
    kept, as_it_is = faults(run_python, nginx_server), faults(run_python, nginx_server, JCACHE_MALLOC="0")
    assert kept < 1000 < as_it_is


@pytest.mark.parametrize("name", allocator.CHOSEN)
def test_who_has_chosen_an_allocator_keeps_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in allocator.CHOSEN:
        monkeypatch.delenv(other, raising=False)
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda library: asked.append(library) or Library())
    assert allocator.keep(1 << 20)
    assert len(asked) == 1
    monkeypatch.setenv(name, "131072")
    assert not allocator.keep(1 << 20)
    assert len(asked) == 1


class Library:
    """A C library that does as it is told."""

    def gnu_get_libc_version(self) -> int:
        return 0

    def mallopt(self, option: int, value: int) -> int:
        assert option < 0 < value
        return 1
