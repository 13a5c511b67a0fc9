"""HTTP servers whose answers contradict each other: a file object has one version, and what is recorded is right."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import fsspec
import pytest

from jcache.errors import OriginChangedError
from jcache.journal import Version
from jcache_plugins.origins.base import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from conftest import RunPython
    from servers import Resource, ScriptedOrigin

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(5000), random.Random(2).randbytes(5000)


def http(**options: Any) -> Any:
    return fsspec.filesystem("http", skip_instance_cache=True, **options)


# -- HEAD names a file otherwise than GET ---------------------------------------------------------------------------


@pytest.mark.parametrize("if_match", [True, False])
@pytest.mark.parametrize("how", ["doubted", "again", "elsewhere"])
def test_the_name_that_head_has_for_a_file_is_that_of_one_version(
    active: Callable[..., Session], http_origin: ScriptedOrigin, how: str, *, if_match: bool
) -> None:
    active()
    file, url = http_origin.put("f", OLD, etag='"g1"', if_match=if_match, as_head={"etag": '"h"'}), http_origin.url("f")
    fs = http()
    with fs.open(url) as opened, fs.open(url) as other:
        assert opened.read(100) == OLD[:100]
        assert other.read(50) == OLD[:50], "it is known by either name"
        file.change(NEW, etag='"g2"')
        if how == "doubted":
            fs.invalidate_cache()
        elif how == "elsewhere":
            with pytest.raises(OriginChangedError):
                fs.cat_file(url, 4000, 4100)
        for _ in range(3):
            opened.seek(2000)
            with pytest.raises(OriginChangedError):
                opened.read(100)
        with pytest.raises(OriginChangedError):
            other.read(100)
    with fs.open(url) as anew:
        assert anew.read() == NEW


@pytest.mark.parametrize("is_known", [True, False])
def test_a_stale_head_is_no_second_name_for_what_replaced_it(
    active: Callable[..., Session], http_origin: ScriptedOrigin, *, is_known: bool
) -> None:
    """As a network in front has it that keeps answers to HEAD longer: what was read by its name was the old file."""
    session = active()
    file, url = http_origin.put("f", OLD, etag='"v1"', as_head={"etag": '"v1"'}), http_origin.url("f")
    assert http().cat_file(url, 0, 1000) == OLD[:1000]
    session = active()
    fs = http()
    with fs.open(url) as first, fs.open(url) as second:
        assert (first.read(100), second.read(100)) == (OLD[:100], OLD[:100])
        file.change(NEW, etag='"v2"')
        if not is_known:  # it is closed, since 256 others were read
            for key, remote in list(session.files._files.items()):
                del session.files._files[key]
                remote.close()
        for opened in (first, second, first, second):
            opened.seek(2000)
            with pytest.raises(OriginChangedError):
                opened.read(100)
    assert fs.open(url).read() == NEW


# -- times of modification that are the present one -----------------------------------------------------------------


def second_s() -> float:
    """Return the present second, which lasts for a while yet."""
    while time.time() % 1 > 0.4:
        time.sleep(0.01)
    return float(int(time.time()))


def test_a_file_object_that_is_opened_in_the_second_of_its_files_time_is_of_one_version(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    active()
    now_s = second_s()
    file, url = http_origin.put("f", OLD, etag=None, modified_s=now_s), http_origin.url("f")
    with http().open(url) as opened:
        got = [opened.read(100)]
        file.change(NEW, modified_s=now_s)
        opened.seek(2000)
        got.append(opened.read(100))
    assert got in [[data[:100], data[2000:2100]] for data in (OLD, NEW)]
    assert int(time.time()) == now_s, "it took longer than a second"


@pytest.mark.parametrize("is_relayed", [True, False])
def test_bytes_that_are_long_on_their_way_are_of_the_second_in_which_they_were_asked_for(
    active: Callable[..., Session], http_origin: ScriptedOrigin, *, is_relayed: bool
) -> None:
    """The server, or a cache in between that has a clock of its own, does not say when they were."""
    active()
    now_s = second_s()
    headers = {"Age": "2"} if is_relayed else {"Date": ""}
    first = {"data": OLD, "delay_s": now_s + 1.2 - time.time()}
    url = http_origin.url("f")
    http_origin.put("f", NEW, etag=None, modified_s=now_s, headers=headers, once={1: first})
    assert http().cat_file(url) == OLD
    active()
    assert http().cat_file(url) == NEW


@pytest.mark.parametrize("year", [1601, 1970, 2026, 2999])
def test_a_time_of_another_age_is_none_or_can_be_recorded(year: int) -> None:
    version = Version(1, nanoseconds(f"Thu, 01 Jan {year} 00:00:00 GMT"))
    assert Version.from_json(version.to_json()) == version


# -- asynchronous file objects ----------------------------------------------------------------------------------------

STREAMED = """
import asyncio, sys
from fsspec.implementations.http import HTTPFileSystem

async def main(url, *lengths):
    fs = HTTPFileSystem(asynchronous=True)
    session = await fs.set_session()
    for length in map(int, lengths):
        file, got = await fs.open_async(url), b""
        while piece := await file.read(length):
            got += piece
        print(got.hex())
        await file.close()
    await session.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("length", ["5000", "-1", "300"])
def test_an_asynchronous_file_is_as_long_as_what_get_sends(
    run_python: RunPython, http_origin: ScriptedOrigin, length: str, *, is_new: bool
) -> None:
    """Where HEAD says less; and where the file is another one each time that it is asked for, but for the last time."""
    pages = [b"%016d" % number for number in range(400)]

    def renew(resource: Resource) -> None:
        resource.data = pages[resource.gets]
        resource.etag = f'"{resource.gets}"'

    if is_new:
        http_origin.put("f", pages[0], if_match=False, at=dict.fromkeys(range(400), renew))
    else:
        http_origin.put("f", OLD, as_head={"data": OLD[:4993]})
    url = http_origin.url("f")
    plain = run_python(STREAMED, url, length, length, cache=None).stdout
    assert plain.count("\n") == 2
    for _ in range(2):
        told = run_python(STREAMED, url, length, length).stdout
        assert [bytes.fromhex(line) in pages for line in told.splitlines()] == [True] * 2 if is_new else told == plain
