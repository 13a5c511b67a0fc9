"""HTTP servers that are odd: obstore gets what it gets without JCache, and what proves nothing is not kept."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from filesystems import settle

pytest.importorskip("obstore", reason="obstore is not installed")

import obstore
from obstore.store import HTTPStore

from jcache.activate import deactivate
from jcache.errors import OfflineMissError, OriginChangedError
from jcache_plugins.obspec.access import known
from jcache_plugins.obspec.hooks import install, uninstall
from jcache_plugins.obspec.reads import offline_refusal
from jcache_plugins.obspec.results import LEAST_BYTES
from jcache_plugins.obspec.sources import NotOursError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunPython
    from servers import Resource, ScriptedOrigin

    from jcache.session import Session

OLD, NEW = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
WHEN = 1_700_000_000

JOB = """
import sys
from obstore.store import HTTPStore
how = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
store = HTTPStore(sys.argv[1], **how)
for call in sys.argv[2:]:
    try:
        told = eval(call)
        told = told if isinstance(told, list) else bytes(told)
    except Exception as error:
        told = type(error).__name__, str(error).partition(" in ")[0]
    print(call, told)
"""
CALLS = (
    "store.get_range('f', start=10, end=20)",
    "store.get_ranges('f', starts=[5, 90_000], ends=[15, 90_010])",
    "store.get_ranges('f', starts=[5, 90_000], ends=[15, 90_010], coalesce=0)",
    "store.get('f').bytes()",
    "store.get('f', options={'range': {'suffix': 10}}).bytes()",
    "[str(item) for item in sorted(store.head('f').items())]",
    "[str(item) for item in sorted(store.get('f').meta.items())]",
)


def proving(**more: Any) -> dict[str, Any]:
    return {"etag": '"a"', "modified_s": WHEN} | more


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [
        (proving(), True),
        (proving(etag=None), True),
        (proving(modified_s=None), True),
        (proving(etag='W/"a"'), True),
        (proving(head=False), True),
        (proving(if_match=False), True),
        (proving(headers={"Cache-Control": "max-age=60"}), True),
        ({"etag": None}, False),
        ({"etag": 'W/"a"'}, False),
        (proving(ranges=False), False),
        (proving(headers={"Cache-Control": "no-store"}), False),
        (proving(headers={"Content-Encoding": "gzip"}), False),
        (proving(status=403), False),
        (proving(status=500), False),
        (proving(drop_after=5), False),
        (proving(resets=True), False),
    ],
    ids=str,
)
def test_it_is_the_same_with_jcache(
    http_origin: ScriptedOrigin, run_python: RunPython, fields: dict[str, Any], is_kept: bool
) -> None:
    file = http_origin.put("f", OLD, **fields)
    # Of a file that was read whole there are parts, though its server sends none.
    calls = CALLS if file.ranges else CALLS[:3]
    before = run_python(JOB, http_origin.url("").rstrip("/"), *calls, cache=None).stdout
    for _ in range(2):
        file.reset()
        assert run_python(JOB, http_origin.url("").rstrip("/"), *calls).stdout == before
    if is_kept:
        assert file.body_bytes <= 1, "but for the byte that is asked for where HEAD is refused"


def test_a_server_that_names_another_version_each_time_is_read_past_the_cache(
    http_origin: ScriptedOrigin, run_python: RunPython
) -> None:
    http_origin.put("f", OLD, etag_of='"{}"'.format)
    calls = CALLS[:5] * 2
    before = run_python(JOB, http_origin.url("").rstrip("/"), *calls, cache=None).stdout
    for _ in range(2):
        assert run_python(JOB, http_origin.url("").rstrip("/"), *calls).stdout == before


def test_a_server_that_is_gone_is_gone_and_what_it_gave_is_there_offline(
    http_origin: ScriptedOrigin, run_python: RunPython
) -> None:
    http_origin.put("f", OLD, **proving())
    url = http_origin.url("").rstrip("/")
    there = run_python(JOB, url, *CALLS).stdout
    http_origin.stop()
    before = run_python(JOB, url, *CALLS, cache=None).stdout
    assert "GenericError" in before
    assert run_python(JOB, url, *CALLS).stdout == before
    assert run_python(JOB, url, *CALLS, env={"JCACHE_OFFLINE": "1"}).stdout == there
    missing = run_python(JOB, url, "store.get('g').bytes()", "store.list()", env={"JCACHE_OFFLINE": "1"}).stdout
    assert missing.count("OfflineMissError") == 2


ASKS = """
import sys
from obstore.store import HTTPStore
options = {"allow_http": True, "default_headers": {"Authorization": sys.argv[2]}}
store = HTTPStore(sys.argv[1], client_options=options)
print(bytes(store.get_range("f", start=10, end=20)), len(store.get("f").bytes()))
"""


def test_what_is_given_to_one_who_says_who_he_is_is_kept_for_him(
    http_origin: ScriptedOrigin, run_python: RunPython
) -> None:
    """A server says in `Vary` that each gets another file, and obstore hands that on to nobody."""
    file, url = http_origin.put("f", OLD, **proving()), http_origin.url("").rstrip("/")
    for who, other in (("me", OLD), ("you", NEW)):
        file.change(other, etag='"a"', modified_s=WHEN)
        file.reset()
        before = run_python(ASKS, url, who).stdout
        assert str(other[10:20]) in before
        assert file.body_bytes
        file.reset()
        assert run_python(ASKS, url, who).stdout == before
        assert file.body_bytes == 0
    assert str(OLD[10:20]) in run_python(ASKS, url, "me").stdout
    assert file.body_bytes == 0


# -- in one process ------------------------------------------------------------------------------------------------


@pytest.fixture
def file(http_origin: ScriptedOrigin) -> Resource:
    return http_origin.put("f", OLD, **proving())


@pytest.fixture
def store(active: Callable[..., Session], http_origin: ScriptedOrigin) -> Iterator[HTTPStore]:
    active()
    install()
    yield HTTPStore(
        http_origin.url("").rstrip("/"), client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )
    uninstall()


def test_old_and_new_bytes_are_never_mixed(store: HTTPStore, file: Resource) -> None:
    assert bytes(store.get_range("f", start=0, end=10)) == OLD[:10]
    result = store.get("f")
    file.change(NEW, etag='"b"', modified_s=WHEN + 1)
    with pytest.raises(OriginChangedError):
        store.get_range("f", start=50, end=60)
    with pytest.raises(OriginChangedError):
        result.bytes()
    assert bytes(store.get_range("f", start=0, end=10)) == NEW[:10]
    assert bytes(store.get("f").bytes()) == NEW


@pytest.mark.parametrize("coalesce", [0, 1 << 20])
def test_a_vector_is_of_one_version_though_it_is_replaced_meanwhile(
    store: HTTPStore, file: Resource, coalesce: int
) -> None:
    file.at[2] = lambda resource: resource.change(NEW, etag='"b"', modified_s=WHEN + 1)
    starts, ends = [0, 30_000, 60_000], [100, 30_100, 60_100]
    rows = [bytes(row) for row in store.get_ranges("f", starts=starts, ends=ends, coalesce=coalesce)]
    assert rows in [[data[start:end] for start, end in zip(starts, ends, strict=True)] for data in (OLD, NEW)]


def test_one_result_is_of_one_version(store: HTTPStore, file: Resource) -> None:
    result = store.get("f")
    file.change(NEW, etag='"b"', modified_s=WHEN + 1)
    assert result.meta["e_tag"] == '"a"'
    with contextlib.suppress(OriginChangedError):  # unless it came at once, a server may have gone on with the new one
        assert bytes(result.bytes()) == OLD  # it was on its way
    with pytest.raises(ValueError, match="disposed"):
        result.bytes()


@pytest.mark.parametrize("fields", [{}, {"if_match": False}, {"etag": None}], ids=str)
@pytest.mark.parametrize("is_over", [False, True])
def test_chunks_that_obstore_itself_reads_are_of_the_version_of_those_before(
    store: HTTPStore, file: Resource, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, is_over: bool
) -> None:
    for name in ("WHOLE_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(f"jcache_plugins.obspec.results.{name}", 10)
    for name, value in fields.items():
        setattr(file, name, value)
    chunks = store.get("f").stream(40_000)
    assert next(chunks) == OLD[:40_000]
    if is_over:
        deactivate()
    else:

        async def fails(*_: Any) -> bytes:
            raise NotOursError

        monkeypatch.setattr("jcache_plugins.obspec.sources.ObjectSource._row", fails)
        monkeypatch.setattr("jcache_plugins.fsspec.access.Access.try_read", lambda *_, **__: None)
    assert next(chunks) == OLD[40_000:80_000]
    file.change(NEW, etag='"b"' if file.etag else None, modified_s=WHEN + 1)
    with pytest.raises(OriginChangedError):
        next(chunks)


def test_chunks_of_a_file_that_is_another_one_each_time_are_of_one_answer(
    store: HTTPStore, file: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WHOLE_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(f"jcache_plugins.obspec.results.{name}", 10)
    file.etag_of = '"{}"'.format
    result = store.get("f", options={"range": (10, 90_000)})
    assert b"".join(result.stream(40_000)) == OLD[10:90_000]


def test_a_result_can_be_read_when_its_session_has_ended(store: HTTPStore, file: Resource) -> None:
    result, other = store.get("f"), store.get("f")
    deactivate()
    assert bytes(result.bytes()) == OLD
    assert bytes(asyncio.run(other.bytes_async())) == OLD
    assert file.gets == 3


def test_what_fails_here_is_asked_of_obstore(store: HTTPStore, file: Resource, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError

    assert file.gets == 0
    for name in ("try_read", "open_here", "stored"):
        monkeypatch.setattr(f"jcache_plugins.fsspec.access.Access.{name}", fails)
    for _ in range(2):
        assert bytes(store.get_range("f", start=5, end=10)) == OLD[5:10]
        assert bytes(store.get("f").bytes()) == OLD
        assert store.head("f")["size"] == len(OLD)


@pytest.mark.parametrize("call", [CALLS[0], CALLS[3]])
def test_a_time_in_whole_seconds_is_judged_by_when_it_was_asked_for(
    http_origin: ScriptedOrigin, run_python: RunPython, call: str
) -> None:
    file, url = http_origin.put("f", OLD, etag=None, delay_s=1.1), http_origin.url("").rstrip("/")
    file.at[1] = lambda file: setattr(file, "modified_s", int(time.time()))
    before = run_python(JOB, url, call).stdout
    file.reset()
    file.at.clear()
    file.delay_s = 0
    assert run_python(JOB, url, call).stdout == before
    assert file.body_bytes >= 10


def test_what_is_not_cached_is_listed_offline(
    active: Callable[..., Session], store: HTTPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = active(offline=True)
    listed = offline_refusal(lambda _: "listed")
    with pytest.raises(OfflineMissError):
        listed(store)
    session.bypassed = "for a test"
    assert listed(store) == "listed"
    session.bypassed = None
    found = known(store, "listing")
    assert found is not None
    excluded = found._replace(terms=SimpleNamespace(exclude=True))
    monkeypatch.setattr("jcache_plugins.obspec.reads.known", lambda *_: excluded)
    assert listed(store) == "listed"


def test_near_ranges_are_one_request_and_only_what_was_asked_for_is_kept(store: HTTPStore, file: Resource) -> None:
    store.get_ranges("f", starts=[0, 500, 90_000], ends=[10, 510, 90_010], coalesce=1000)
    assert sorted(map(str, file.asked)) == ["bytes=0-509", "bytes=90000-90009"]
    settle()
    store.get_range("f", start=5, end=505)
    assert file.asked[2:] == ["bytes=10-499"]


def test_tasks_and_threads_that_want_the_same_bytes_fetch_them_once(store: HTTPStore, file: Resource) -> None:
    file.delay_s = 0.05

    async def read() -> list[bytes]:
        tasks = [store.get_range_async("f", start=10, end=5_000) for _ in range(5)]
        others = [asyncio.to_thread(store.get_range, "f", start=10, end=5_000) for _ in range(5)]
        return [bytes(row) for row in await asyncio.gather(*tasks, *others)]

    assert asyncio.run(read()) == [OLD[10:5_000]] * 10
    assert file.gets == 1


def test_an_asynchronous_call_begins_at_once_and_may_be_cancelled(store: HTTPStore, file: Resource) -> None:
    file.delay_s = 0.2

    async def read() -> bytes:
        one = obstore.get_range_async(store, "f", start=0, end=10)
        other = obstore.get_range_async(store, "f", start=0, end=20)
        await asyncio.sleep(0.01)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert bytes(await other) == bytes(await other)
        return bytes(await other)

    assert asyncio.run(read()) == OLD[:20]


def test_a_result_in_chunks(store: HTTPStore, file: Resource) -> None:
    chunks = list(store.get("f").stream(30_000))
    assert list(map(len, chunks)) == [30_000, 30_000, 30_000, 10_000]
    assert all(type(chunk) is bytes for chunk in chunks)
    assert b"".join(chunks) == OLD
    assert file.gets == 1


def test_a_large_result_in_small_chunks_is_no_request_for_each(store: HTTPStore, http_origin: ScriptedOrigin) -> None:
    data = OLD * 400
    file = http_origin.put("large", data, **proving())
    for asked, size in ((70_000, 70_000), (0, LEAST_BYTES), (1, LEAST_BYTES)):
        file.reset()
        chunks = list(store.get("large").stream(asked))
        assert {len(chunk) for chunk in chunks[:-1]} == {size}
        assert b"".join(chunks) == data
        assert file.gets + file.heads < 8


def test_what_is_uninstalled_is_as_it_was(store: HTTPStore) -> None:
    hooked = obstore.get, obstore.get_async, obstore.put, obstore.list
    uninstall()
    for one, name in zip(hooked, ("get", "get_async", "put", "list"), strict=True):
        assert getattr(obstore, name) is one.__wrapped__
        assert getattr(obstore, name) is getattr(obstore._obstore, name)
