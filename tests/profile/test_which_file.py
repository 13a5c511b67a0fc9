"""What a profile says of which file was read, and of which version of it, and what is made of that."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jcache.profile.reader import Profile, Recording
from jcache.report.redact import is_open

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunPython

READ = """
import os, sys, fsspec
fs = fsspec.filesystem("http", **eval(sys.argv[1]))
if "CALL" in os.environ:
    sys.stdout.write(str(len(fs.cat_file(sys.argv[2], params={"file": "a"}))))
    sys.exit()
for url in sys.argv[2:]:
    sys.stdout.write(fs.cat_file(url, 100, 1100).hex() + fs.cat_file(url, 5000, 5200).hex() + " ")
"""


class Asked(BaseHTTPRequestHandler):
    """Gives another file for each query and each `X-Kind`."""

    protocol_version = "HTTP/1.1"
    version = b""
    log: list[str]

    def do_GET(self) -> None:
        said = f"{sorted(parse_qs(urlsplit(self.path).query).items())} {self.headers.get('X-Kind', '')}"
        body = hashlib.sha256(said.encode() + self.version).digest() * 500
        start, _, stop = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(start), min(int(stop or len(body) - 1), len(body) - 1)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("ETag", f'"{body[:8].hex()}"')
        self.end_headers()
        if self.command == "GET":
            self.log.append(f"{self.path} {last + 1 - first}")
            self.wfile.write(body[first : last + 1])

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Place:
    """A server, what it was asked for, and the places of a job that reads from it."""

    def __init__(self, server: ThreadingHTTPServer, handler: type[Asked], work: Path, run_python: RunPython) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}/q"
        self.handler, self._work, self._run = handler, work, run_python

    def read(self, cache: str, *urls: str, options: str = "{}", **env: str) -> str:
        """Read two ranges of each URL in a process of its own."""
        done = self._run(READ, options, *urls, cache=self._work / cache, env=env)
        return done.stdout

    def record(self, *urls: str, options: str = "{}") -> str:
        """Do so with a profile."""
        return self.read("recorded", *urls, options=options, JCACHE_PROFILE=os.fspath(self._work / "profiles"))

    def record_call(self) -> None:
        """Read a file that one call alone tells apart, with a profile."""
        self.read("recorded", self.url, CALL="1", JCACHE_PROFILE=os.fspath(self._work / "profiles"))

    def jcache(self, command: str, *args: str, cache: str = "recorded", more: tuple[str, ...] = ()) -> Any:
        """Run a command with the profile, in a process of its own; return exit code, parsed output and stderr."""
        words = [*command.split(), os.fspath(self._work / "profiles"), *args, "--dir", os.fspath(self._work / cache)]
        done = self._run(MAIN, *words, "--json", cache=None, check=False)
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    def profile(self) -> Profile:
        """Return the profile, read to its end."""
        found = Profile([Recording.open(path) for path in (self._work / "profiles").glob("*.jcp")])
        assert list(found.batches())
        return found


MAIN = "from jcache.cli import main; main()"


@pytest.fixture
def place(tmp_path: Path, run_python: RunPython) -> Iterator[Place]:
    handler = type("Handler", (Asked,), {"log": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Place(server, handler, tmp_path, run_python)
    server.shutdown()
    server.server_close()


def test_files_that_a_query_tells_apart_are_fetched_and_read_again_as_themselves(place: Place) -> None:
    urls = [f"{place.url}?file=a", f"{place.url}?file=b&x=%20y"]
    read = place.record(*urls)
    code, told, _ = place.jcache("warm", cache="warm")
    assert (code, told["fetched_bytes"], told["failed"]) == (0, 2400, {})
    asked = [line.partition(" ")[0] for line in place.handler.log]
    assert set(asked) == {url.removeprefix(place.url.removesuffix("/q")) for url in urls}
    assert place.read("warm", *urls, JCACHE_VALIDATE="never", JCACHE_OFFLINE="1") == read
    place.handler.log.clear()
    code, told, _ = place.jcache("replay", "--no-cache", cache="warm")
    assert (code, told["failed"]) == (0, {})
    assert {line.partition(" ")[0] for line in place.handler.log} == set(asked)


@pytest.mark.parametrize("what", ["a token", "a token in a value", "an option", "an option of a call"])
def test_what_may_not_be_written_down_is_refused_by_its_name_and_nothing_else_is_fetched(
    place: Place, tmp_path: Path, what: str
) -> None:
    query = {"a token": "?file=a&token=hush", "a token in a value": "?u=https://me:hush@h/x"}.get(what, "")
    if what == "an option of a call":
        place.record_call()
    else:
        place.record(place.url + query, options="{'headers': {'X-Kind': 'c'}}" if what == "an option" else "{}")
    place.handler.log.clear()
    code, told, _ = place.jcache("warm", cache="warm")
    (address,) = told["failed"]
    assert (code, told["fetched_bytes"]) == (1, 0)
    assert address.startswith(place.url + " ~")
    assert place.handler.log == []
    code, told, _ = place.jcache("replay", "--no-cache", cache="warm")
    assert code == 1
    assert place.handler.log == []
    assert not any(b"hush" in path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".jcp", ".json"))


def test_a_profile_says_which_version_was_read(place: Place) -> None:
    place.record(place.url)
    found = place.profile()
    assert [version.size_bytes for version in found.versions[place.url]] == [16_000]
    assert found.versions[place.url][0].etag is not None


def test_a_file_that_was_replaced_since_is_named_and_no_bundle_has_it_for_the_other(
    place: Place, tmp_path: Path
) -> None:
    read = place.record(place.url)
    place.handler.version = b"2"
    again = place.read("recorded", place.url)
    assert again != read
    bundle = tmp_path / "x.jcb"
    code, told, err = place.jcache("bundle create", "-o", os.fspath(bundle))
    # The older version may still be there.
    assert (code, told["replaced"], told["files"]) in [(1, [place.url], 0), (0, [], 1)]
    if code:
        assert f"{place.url}: the cache has another version" in err
    else:
        offline = {"JCACHE_OFFLINE": "1", "JCACHE_BUNDLES": os.fspath(bundle)}
        assert place.read("new", place.url, **offline) == read
    code, told, err = place.jcache("warm", cache="warm")
    assert (code, told["replaced"]) == (0, [place.url])
    assert f"{place.url}: it is not of the version" in err


def test_of_each_of_many_files_it_is_told_which_one_it_is(place: Place) -> None:
    """More than a process keeps open, read faster than a profile is written."""
    urls = [f"{place.url}?file={number}" for number in range(600)]
    place.record(*urls)
    found = place.profile()
    assert sorted(found.queries.values()) == sorted(url.partition("?")[2] for url in urls)
    assert all(len(versions) == 1 for versions in found.versions.values())


@pytest.mark.parametrize(
    ("query", "is_harmless"),
    [
        ("file=a", True),
        ("path=/store/nano/ttbar_0001.root&tree=Events", True),
        ("run=2018&stream=physics_Main&x=%20y", True),
        ("a", True),
        ("token=x", False),
        ("pw=hunter2", False),
        ("key=short", False),
        ("ticket=1", False),
        ("x=eyJhbGciOi", False),
        ("x=alice:secret", False),
        ("x=https%3A%2F%2Fme%3Apw%40host%2F", False),
        ("x=0123456789abcdef0123456789abcdef", False),
        ("x=Zk39dkfkdkfQQ7abcd", False),
        ("md5=abc&expires=1", False),
    ],
)
def test_which_queries_may_be_written_down(query: str, *, is_harmless: bool) -> None:
    assert is_open(query) == is_harmless
