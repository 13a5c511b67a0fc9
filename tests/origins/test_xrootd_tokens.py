"""Tokens at a real XRootD server: who has one reads, who has none is refused, and one that was renewed is sent.

Judge: the same script in a process without JCache.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import macaroons
import pytest
from token_server import TokenServer

from jcache.demo.xrootd_server import XrootdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Ran, RunPython

pytest.importorskip("XRootD", reason="the XRootD client for Python is not installed")
pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")

NAMES = ("f", "g", "h", "i")
DATA = {name: random.Random(name).randbytes(400_000) for name in NAMES}
LONG_AGO_S = 1_600_000_000

PRELUDE = """
import hashlib, json, os, sys, time
import fsspec
from XRootD import client

port, given = os.environ["PORT"], json.loads(os.environ["GIVEN"])

def have(token):
    os.environ.pop("BEARER_TOKEN", None)
    if token is not None:
        os.environ["BEARER_TOKEN"] = token

def tried(call):
    try:
        found = call()
        return hashlib.sha256(found).hexdigest()[:12] if isinstance(found, bytes) else found
    except Exception as error:
        return type(error).__name__, str(error)

def file_system(who=""):
    host = f"{who}@localhost:{port}" if who else f"localhost:{port}"
    return fsspec.filesystem("root", hostid=host, skip_instance_cache=True)

def opened(fs, path):
    with fs.open(path) as file:
        file.seek(200_000)
        return file.read(1000)

def by_fsspec(fs, path):
    def ranges():
        return b"".join(fs.cat_ranges([path] * 2, [5, 300_000], [500, 300_500], on_error="raise"))
    calls = (ranges, lambda: fs.cat_file(path, 10, 20_000), lambda: opened(fs, path), lambda: fs.info(path)["size"])
    return [tried(call) for call in calls]

def by_pyxrootd(url):
    file = client.File()
    found = []
    for call, *args in ((file.open, url), (file.read, 7, 1000), (file.vector_read, [(0, 10), (1000, 2000)])):
        try:
            status, value = call(*args)
        except ValueError as error:
            found.append(str(error))
            continue
        chunks = [chunk.buffer for chunk in value.chunks] if hasattr(value, "chunks") else [value or b""]
        found.append((status.ok, status.code, status.errno, status.message, tried(lambda: b"".join(chunks))))
    file.close()
    return found
"""


@pytest.fixture(scope="module")
def server() -> Iterator[TokenServer]:
    with tempfile.TemporaryDirectory(prefix="jcache-tokens-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        for name, data in DATA.items():
            (directory / name).write_bytes(data)
            (directory / name).chmod(0o644)
            os.utime(directory / name, (LONG_AGO_S, LONG_AGO_S))
        try:
            server = TokenServer(directory)
        except XrootdUnavailableError as error:
            pytest.skip(f"no server that judges tokens: {error}")
        with server:
            yield server


class Job:
    """A script that runs plain and with JCache, as whoever has the tokens that it is given."""

    def __init__(self, server: TokenServer, run_python: RunPython) -> None:
        self._server, self._run = server, run_python
        # The client tries for ten minutes what it cannot reach.
        self._env = {"PORT": str(server.port), "X509_CERT_FILE": str(server.cert), "XRD_CONNECTIONWINDOW": "5"}

    def __call__(self, code: str, given: Any, *args: str, **env: str) -> tuple[Ran, Ran]:
        """Return what it did plain, and with the cache."""
        return self.plain(code, given, *args, **env), self.cached(code, given, *args, **env)

    def plain(self, code: str, given: Any, *args: str, **env: str) -> Ran:
        return self._run(PRELUDE + code, *args, cache=None, env=self._env | {"GIVEN": json.dumps(given)} | env)

    def cached(self, code: str, given: Any, *args: str, **env: str) -> Ran:
        return self._run(PRELUDE + code, *args, env=self._env | {"GIVEN": json.dumps(given)} | env)


@pytest.fixture
def job(server: TokenServer, run_python: RunPython) -> Job:
    return Job(server, run_python)


EACH = """
for who, token, schemes in given:
    have(token)
    print(who, by_fsspec(file_system(who), "/f"))
    for scheme in schemes:
        print(scheme, by_pyxrootd(f"{scheme}://{who}@localhost:{port}//f"))
"""


def test_who_has_a_token_reads_and_who_has_none_or_anothers_is_refused(job: Job, server: TokenServer) -> None:
    alice = ["alice", server.token("alice")]
    others = [
        ["bob", server.token("bob", path="/g")],
        ["nobody", None],
        ["late", server.token("late", for_s=-5)],
        ["odd", "no token"],
    ]

    def asking(schemes: list[str], *each: list[Any]) -> list[Any]:
        return [[*one, schemes] for one in each]

    # What somebody else has validated in this process, or recorded, is given to nobody whom the server refuses.
    plain, cold = job(EACH, asking(["root", "roots"], alice, *others, alice))
    assert cold.stdout == plain.stdout
    assert plain.stdout.count("permission denied") > 1
    assert plain.stdout.count("Auth failed") > 3
    assert hashlib.sha256(DATA["f"][10:20_000]).hexdigest()[:12] in plain.stdout
    plain = job.plain(EACH, asking(["root"], *others, ["carol", server.token("carol")], *others))
    sent = server.sent_bytes()
    warm = job.cached(EACH, asking(["root"], *others, ["carol", server.token("carol")], *others))
    assert warm.stdout == plain.stdout
    assert server.sent_bytes() == sent
    assert warm.report["readv"]["hit_bytes"] > 0


IN_URL = """
for url in sys.argv[1:]:
    fs, path = fsspec.url_to_fs(url)
    print(tried(lambda: fsspec.open(url).open().read()), by_fsspec(fs, path), by_pyxrootd(url))
"""


def test_a_token_in_the_url_is_no_part_of_the_identity_and_is_kept_nowhere(
    job: Job, server: TokenServer, cache_dir: Path, tmp_path: Path
) -> None:
    def url(token: str) -> str:
        return f"root://localhost:{server.port}//f?authz=Bearer%20{token}"

    guest = {"BEARER_TOKEN": server.token("guest", path="/i")}
    secrets = [server.token(who) for who in ("alice", "carol")]
    bob = server.token("bob", path="/g")
    plain, cold = job(IN_URL, None, url(secrets[0]), url(bob), **guest)
    assert cold.stdout == plain.stdout
    assert plain.stdout.count("permission denied") > 1
    assert cold.report["read"]["miss_bytes"] == len(DATA["f"])
    plain = job.plain(IN_URL, None, url(bob), url(secrets[1]), url(bob), **guest)
    sent = server.sent_bytes()
    warm = job.cached(IN_URL, None, url(bob), url(secrets[1]), url(bob), **guest)
    assert warm.stdout == plain.stdout
    assert server.sent_bytes() == sent
    for ran in (cold, warm):
        assert not any(token in json.dumps(ran.reports) + ran.stderr for token in (*secrets, bob))
    kept = [path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()]
    kept += [path.read_bytes() for path in tmp_path.glob("run-*/reports/*")]
    assert kept
    for token in (*secrets, bob, guest["BEARER_TOKEN"]):
        assert not any(token[-40:].encode() in data for data in kept)
        assert not any(token[-40:] in str(path) for path in cache_dir.rglob("*"))


HOURS = """
sys.path.append(os.environ["SUPPORT"])
from macaroons import token

kept = os.path.abspath("token")
os.environ["BEARER_TOKEN_FILE"] = kept
fs, root = file_system(), f"root://localhost:{port}/"

def hour(for_s, path="/"):
    with open(os.open(kept, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(token(bytes.fromhex(given), f"for-{for_s}", for_s=for_s, path=path))

def some(name):
    print(tried(lambda: fs.cat_file(name, 10, 20_000)))
"""
EXPIRED = """
until = int(time.time()) + 2
hour(2)
some("/f")
time.sleep(until + 1.1 - time.time())
some("/g")
"""
USED = """
print(by_pyxrootd(root + "/h"))
for name in "gh":
    print(by_fsspec(fs, "/" + name))
print(by_fsspec(file_system(), "/i"), tried(lambda: len(fs.ls("/"))), tried(lambda: fs.cat_file("/f", 50_000, 60_000)))
print(by_pyxrootd(root + "/g"))
"""
AT_ONCE = """
print(tried(lambda: b"".join(fs.cat_ranges([f"/{name}" for name in "fghi"], [5] * 4, [50] * 4, on_error="raise"))))
"""
SUPPORT = {"SUPPORT": str(Path(macaroons.__file__).parent)}


def test_a_token_file_that_is_replaced_is_read_again_when_its_token_has_expired(job: Job, server: TokenServer) -> None:
    key = server.key.hex()
    plain = job.plain(HOURS + "hour(600)" + USED + AT_ONCE, key, **SUPPORT).stdout.splitlines()
    logins = server.logins()
    # The first one that replaces it is good for nothing of that.
    ran = job.cached(HOURS + EXPIRED + "hour(600, '/nothing'); some('/g'); hour(600)" + USED + AT_ONCE, key, **SUPPORT)
    first, *refused = ran.stdout.splitlines()[:3]
    assert first == hashlib.sha256(DATA["f"][10:20_000]).hexdigest()[:12]
    assert all("permission denied" in line for line in refused)
    assert ran.stdout.splitlines()[3:] == plain
    assert 0 < ran.report["origin"]["retries"] <= 12
    assert server.logins() - logins <= 8
    sent = server.sent_bytes()
    assert job.cached(HOURS + "hour(600)" + USED + AT_ONCE, key, **SUPPORT).stdout.splitlines() == plain
    assert server.sent_bytes() == sent


def test_where_nothing_is_sent_again_what_has_expired_is_refused_as_plain(job: Job, server: TokenServer) -> None:
    code = HOURS + EXPIRED + "hour(600)" + USED
    plain, ran = job(code, server.key.hex(), **SUPPORT, JCACHE_RETRIES="0")
    assert ran.stdout == plain.stdout
    assert plain.stdout.count("permission denied") > 8


def test_a_connection_of_jcaches_own_that_is_refused_costs_no_read(job: Job, server: TokenServer) -> None:
    """The token has become a worse one, but the first connection is as good as it was."""
    code = HOURS + "hour(600)\nsome('/f')\nhour(600, '/nothing')" + AT_ONCE + "hour(-5)" + AT_ONCE.replace("5]", "9]")
    plain, ran = job(code, server.key.hex(), **SUPPORT)
    assert ran.stdout == plain.stdout
    assert "Error" not in plain.stdout


EXISTS = """
print([tried(lambda: file_system().exists(f"/{name}")) for name in ("f", "nothing")])
"""


def test_what_may_not_be_seen_is_nothing_that_is_not_there(job: Job, server: TokenServer, tmp_path: Path) -> None:
    """fsspec-xrootd's `exists` says of both that they are not."""
    kept = tmp_path / "token"
    kept.touch(0o600)
    kept.write_text(server.token("early", path="/g"))
    plain, cold = job(EXISTS, None, BEARER_TOKEN_FILE=str(kept))
    assert cold.stdout == plain.stdout == "[False, False]\n"
    assert job.cached(EXISTS, None, BEARER_TOKEN_FILE=str(kept), JCACHE_OFFLINE="1").stdout == plain.stdout
    kept.write_text(server.token("later"))
    plain = job.plain(EXISTS, None, BEARER_TOKEN_FILE=str(kept))
    ran = job.cached(EXISTS, None, BEARER_TOKEN_FILE=str(kept), JCACHE_VALIDATE="never")
    assert ran.stdout == plain.stdout == "[True, False]\n"
