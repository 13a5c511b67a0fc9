"""Which version is the newest, and how long ago that was known, hang on no machine's clock and on no file's times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

import jcache.segment.proof
from jcache.cache.tree import look_into, useless
from jcache.cache.verify import Kind, verify
from jcache.journal import Journal, Version
from jcache.segment.format import parse_metadata
from jcache.segment.proof import Moment
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW, THIRD = (Version(100, etag=f'"{number}"') for number in range(3))


def attached(directory: Path) -> Journal:
    journal = Journal(Storage(), str(directory), "url:https/h/f")
    journal.attach()
    return journal


def seen(directory: Path) -> list[Version]:
    return [stored.version for stored in attached(directory).versions()]


def record(directory: Path, version: Version) -> None:
    journal = attached(directory)
    journal.append(version, {}, [(0, b"abc")])
    journal.close()


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, by_s: float) -> Iterator[None]:
    """This machine's clock is wrong."""
    real = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: real() + int(by_s * 1e9))
        patch.setattr(time, "time", lambda: (real() + int(by_s * 1e9)) / 1e9)
        yield


@pytest.mark.parametrize("ahead_s", [3600, -3600, 1e8])
@pytest.mark.parametrize("touched", [False, True])
def test_the_newest_version_is_the_one_that_superseded_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, touched: bool
) -> None:
    with clock(monkeypatch, ahead_s):
        record(tmp_path, OLD)
    record(tmp_path, NEW)
    with clock(monkeypatch, -ahead_s):
        record(tmp_path, THIRD)
    if touched:
        for path in tmp_path.iterdir():
            back_s = 1e9 if THIRD.etag in path.read_bytes().decode("latin1") else 2e9
            os.utime(path, (back_s, back_s))
    assert seen(tmp_path)[0] == THIRD
    assert {part.metadata.version for part in useless(look_into(Storage(), str(tmp_path))) if part.metadata} == {
        OLD,
        NEW,
    }
    findings = [item for item in verify(Storage(), str(tmp_path)) if getattr(item, "kind", None) is Kind.SUPERSEDED]
    assert len(findings) == 2


def test_an_origin_that_comes_back_to_an_old_version(tmp_path: Path) -> None:
    for version in (OLD, NEW):
        record(tmp_path, version)
    reader = attached(tmp_path)
    reader.touch(OLD, keep_time=False)  # all that is wanted of it is there
    assert seen(tmp_path)[0] == OLD
    assert attached(tmp_path).view(OLD).covered() == 3
    assert attached(tmp_path).compact(at_least=2) == 2
    assert seen(tmp_path)[0] == OLD
    record(tmp_path, THIRD)
    assert seen(tmp_path)[0] == THIRD


def test_what_others_recorded_meanwhile_makes_a_late_record_no_newer(tmp_path: Path) -> None:
    slow, other = attached(tmp_path), attached(tmp_path)
    slow.view(OLD)  # the origin has just named it
    record(tmp_path, OLD)
    other.refresh()
    other.append(NEW, {}, [(0, b"abc")])
    slow.refresh()
    slow.append(OLD, {}, [(10, b"abc")])
    slow.close()
    assert seen(tmp_path)[0] == NEW


def test_a_validation_is_noted_once_and_known_to_others(tmp_path: Path) -> None:
    record(tmp_path, OLD)
    time.sleep(0.3)
    began_s = time.time()
    for _ in range(3):
        attached(tmp_path).touch(OLD)
    assert len(list(tmp_path.iterdir())) == 2
    (stored,) = attached(tmp_path).versions()
    assert stored.age_s is not None
    assert stored.age_s < time.time() - began_s + 0.1


def test_what_another_machine_or_another_start_noted_is_no_ground_for_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, OLD)
    assert attached(tmp_path).versions()[0].age_s is not None
    monkeypatch.setattr(jcache.segment.proof, "boot_id", lambda: "another")
    assert attached(tmp_path).versions()[0].age_s is None
    monkeypatch.setattr(jcache.segment.proof, "boot_id", lambda: "")
    assert Moment.now() is None
    assert attached(tmp_path).versions()[0].age_s is None
    record(tmp_path, OLD)


@pytest.mark.parametrize("copy", ["cp -r", "cp -a", "tar"])
def test_a_copy_is_not_fresh_and_says_the_same_of_versions(tmp_path: Path, copy: str) -> None:
    place, other = tmp_path / "a", tmp_path / "b"
    record(place, OLD)
    record(place, NEW)
    if copy == "tar":
        other.mkdir()
        subprocess.run(f"tar -C {place} -c . | tar -C {other} -x", shell=True, check=True)
    else:
        subprocess.run([*copy.split(), place, other], check=True)
    assert [(stored.version, stored.age_s) for stored in attached(other).versions()] == [(NEW, None), (OLD, None)]
    attached(other).compact(at_least=1)
    assert attached(other).versions()[0].age_s is None, "merging a copy proves nothing"
    # An old copy on top of what has gone on since.
    record(place, THIRD)
    subprocess.run(["cp", "-r", f"{other}/.", place], check=True)
    assert seen(place)[0] == THIRD


def test_a_moved_cache_stays_fresh_and_one_whose_times_were_set_back_does_not(tmp_path: Path) -> None:
    record(tmp_path / "a", OLD)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert attached(tmp_path / "b").versions()[0].age_s is not None
    for path in (tmp_path / "b").iterdir():
        os.utime(path, (1e9, 1e9))
    assert attached(tmp_path / "b").versions()[0].age_s is None


def test_segments_without_generations_are_read() -> None:
    old = b'{"identity":"x","version":{"size_bytes":1,"etag":"1"},"info":{},"host":"h","pid":1,"created_ns":5}'
    about = parse_metadata(old)
    assert about is not None
    assert (about.generation, about.proved) == (0, None)
    assert about.pack() == old
    again = parse_metadata(about._replace(generation=3, proved=Moment("b", 1.5, 7)).pack())
    assert again == about._replace(generation=3, proved=Moment("b", 1.5, 7))


# -- as users see it ------------------------------------------------------------------------------------------------

_JOB = """
import sys, time, fsspec
if len(sys.argv) > 2:
    real_ns, real = time.time_ns, time.time
    time.time_ns, time.time = lambda: real_ns() + int(sys.argv[2]) * 10**9, lambda: real() + int(sys.argv[2])
print(fsspec.filesystem("http").cat_file(sys.argv[1], 0, 3).decode())
"""


class _Origin(ThreadingHTTPServer):
    content, asked = "old", 0


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Origin

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(206 if self.command == "GET" else 200)
        self.send_header("ETag", f'"{self.server.content}"')
        self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
        self.send_header("Content-Length", "3")
        if self.command == "GET":
            self.send_header("Content-Range", "bytes 0-2/3")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.server.content.encode())

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[_Origin]:
    server = _Origin(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def job(origin: _Origin, cache: Path, *clock_s: int, **env: str) -> str:
    url = f"http://127.0.0.1:{origin.server_address[1]}/f"
    environ = {name: value for name, value in os.environ.items() if "JCACHE" not in name}
    environ |= {
        "JCACHE_DIR": str(cache),
        "JCACHE_SUMMARY": "0",
        **{f"JCACHE_{name}": value for name, value in env.items()},
    }
    command = [sys.executable, "-c", _JOB, url, *map(str, clock_s)]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("clock_s", [3600, -3600])
def test_offline_and_never_serve_the_newest_whatever_the_clocks_say(
    tmp_path: Path, origin: _Origin, clock_s: int
) -> None:
    assert job(origin, tmp_path / "c", clock_s) == "old"
    origin.content = "new"
    assert job(origin, tmp_path / "c") == "new"
    asked = origin.asked
    assert job(origin, tmp_path / "c", OFFLINE="1") == "new"
    assert job(origin, tmp_path / "c", -clock_s, VALIDATE="never") == "new"
    assert origin.asked == asked
    origin.content = "old"  # back again, and all of it is there
    assert job(origin, tmp_path / "c") == "old"
    assert job(origin, tmp_path / "c", OFFLINE="1") == "old"


def test_seconds_of_trust(tmp_path: Path, origin: _Origin) -> None:
    cache = tmp_path / "c"
    assert job(origin, cache) == "old"
    asked, origin.content = origin.asked, "new"
    assert job(origin, cache, VALIDATE="3600") == "old", "as any process of this machine was told less than an hour ago"
    assert job(origin, cache, -7200, VALIDATE="3600") == "old"
    assert job(origin, cache, 7200, VALIDATE="3600") == "old"
    assert origin.asked == asked
    subprocess.run(["cp", "-r", cache, tmp_path / "copy"], check=True)
    assert job(origin, tmp_path / "copy", VALIDATE="3600") == "new"
    assert job(origin, cache, VALIDATE="0.01") == "new"
    asked = origin.asked
    assert job(origin, cache, VALIDATE="3600") == "new"
    assert origin.asked == asked
