"""Fixtures that several test files share."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest
from proxy import CountingProxy
from servers import Nginx, ScriptedOrigin, WritableXrootd, XrootdServer, XrootdUnavailableError, find_nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from activation import Site
    from analysis import Served

    from jcache.session import Session

# Scripts of packages lie beside pytest's own, and one of Impacket's has the name of the package that SMB is read with.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(sys.executable)]

# A shell that starts this in the background has it ignore interrupts, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The servers of Python and of moto send head and body apart, and the body waits 40 ms for the head's acknowledgement.
socketserver.StreamRequestHandler.disable_nagle_algorithm = True


# How long an example takes is the machine's affair; the same ones each time, unless there is time for more.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=not os.environ.get("JCACHE_TEST_LONG"))
hypothesis.settings.load_profile("suite")


# Modules of few tests that take long. They begin first, or the last one would end alone.
LONGEST = (
    "test_conformance.py",
    "test_demo.py",
    "test_filesystem_contract.py",
    "test_mount.py",
    "test_odd_servers.py",
    "test_bench.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long has a target of its own; so has one of two servers, where they take turns."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONGEST, -sizes[item.path]))  # modules stay together: see below
    if os.environ.get("JCACHE_TEST_LONG"):
        return
    functions: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.skip(reason="it takes long: make test-long"))
        turns = item.get_closest_marker("turns")
        params = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        if turns is None or turns.args[0] not in params:
            continue
        servers, cases = functions.setdefault(item.nodeid.partition("[")[0], ({}, {}))
        server = servers.setdefault(repr(params.pop(turns.args[0])), len(servers))
        case = cases.setdefault(repr(sorted(params.items())), len(cases))
        # Of two parameters, each value has a turn with each server; and every other function begins with the other one.
        if (server + case.bit_count() + len(functions)) % 2:
            item.add_marker(pytest.mark.skip(reason="it runs over another server; over each: make test-long"))


def pytest_collection_finish() -> None:
    """What pytest compiles is kept, what tests start compiles nothing: they write modules twice within a second."""
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="module", autouse=True)
def left_as_found() -> Iterator[None]:
    """What libraries change in this process stays with the module whose tests made them.

    Dask's nanny sets variables before it starts a worker, the C library's among them, and keeps them; clients that
    overlap leave their scheduler in its configuration.
    """
    # Nor do objects: many tests collect garbage, and walking through all that was imported took most of their time.
    gc.collect()
    gc.freeze()
    environ = dict(os.environ)
    yield
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)
    if dask_config := sys.modules.get("dask.config"):
        dask_config.refresh()


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache directory that does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def active(cache_dir: Path) -> Iterator[Callable[..., Session]]:
    """`active(validate=...)` begins a session in this process; called again, it ends the one before."""
    import filesystems
    from fsspec.implementations.http import HTTPFileSystem

    from jcache.activate import activate, deactivate
    from jcache_plugins.filesystem import JCacheFileSystem

    filesystems.register()
    filesystems.seen.reset()

    def begin(**fields: Any) -> Session:
        deactivate()
        return activate(filesystems.settings(cache_dir, **fields))

    yield begin
    deactivate()
    filesystems.AsyncSlowFileSystem.gate = filesystems.AsyncSlowFileSystem.info_gate = None
    for cls in (filesystems.SlowFileSystem, filesystems.AsyncSlowFileSystem, HTTPFileSystem, JCacheFileSystem):
        cls.clear_instance_cache()


@pytest.fixture
def export_dir() -> Iterator[Path]:
    """A directory that every account can read: the XRootD daemon does not run as root."""
    directory = Path(tempfile.mkdtemp(prefix="jcache-export-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def xrootd_server(export_dir: Path) -> Iterator[XrootdServer]:
    """A running XRootD server; write files to its `directory`."""
    pytest.importorskip("XRootD", reason="the XRootD client for Python is not installed")
    pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")
    try:
        server = XrootdServer(export_dir)
    except XrootdUnavailableError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def writable_xrootd(export_dir: Path) -> Iterator[WritableXrootd]:
    """A running XRootD server that may be written to."""
    pytest.importorskip("fsspec_xrootd", reason="fsspec-xrootd is not installed")
    try:
        server = WritableXrootd(export_dir)
    except XrootdUnavailableError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def nginx_server(tmp_path: Path) -> Iterator[Nginx]:
    """A running nginx; write files to its `directory`."""
    if find_nginx() is None:
        pytest.skip("nginx is not installed")
    directory, work = tmp_path / "nginx-files", tmp_path / "nginx-work"
    directory.mkdir()
    work.mkdir()
    server = Nginx(directory, work)
    yield server
    server.stop()


@pytest.fixture(params=["xrootd_server", "nginx_server"], ids=["xrootd", "nginx"])
def served(request: pytest.FixtureRequest) -> Served:
    """A real server, of each kind."""
    from analysis import Served

    return Served(request.getfixturevalue(request.param))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """What a user has installed, in a directory of its own."""
    from activation import Site

    return Site(tmp_path)


@pytest.fixture
def http_origin() -> Iterator[ScriptedOrigin]:
    """An HTTP server whose answers are scripted."""
    origin = ScriptedOrigin()
    yield origin
    origin.stop()


@pytest.fixture
def counting_proxy() -> Iterator[Callable[..., CountingProxy]]:
    """`counting_proxy(port, xrootd=False, delay_s=0.0)` starts a proxy in front of a local port."""
    proxies: list[CountingProxy] = []

    def start(port: int, **options: Any) -> CountingProxy:
        proxies.append(CountingProxy(port, **options))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a finished Python process left."""

    returncode: int
    stdout: str
    stderr: str
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        """The only report."""
        assert len(self.reports) == 1, (len(self.reports), self.stderr)
        return self.reports[0]


class RunPython(Protocol):
    def __call__(
        self,
        code: str,
        *args: str,
        cache: Path | None = ...,
        env: Mapping[str, str | None] | None = ...,
        check: bool = ...,
        timeout_s: float = ...,
    ) -> Ran: ...


@pytest.fixture
def run_python(cache_dir: Path, tmp_path: Path) -> RunPython:
    """`run_python(code, *args, cache=..., env={...})` runs `code` in a fresh interpreter, as a user would run a script.

    The code is written to a file and gets `args` as `sys.argv[1:]`. `JCACHE_DIR` is `cache` (the fixture `cache_dir`
    unless given; None leaves it unset) and `JCACHE_JSON` a new directory, whose reports come back parsed, oldest
    first. Other `JCACHE_*` variables of this process are not passed on. `env` adds variables; a value of
    None removes one. With `check` (the default) a non-zero exit code fails the test.
    """
    count = 0

    def run(
        code: str,
        *args: str,
        cache: Path | None = cache_dir,
        env: Mapping[str, str | None] | None = None,
        check: bool = True,
        timeout_s: float = 120,
    ) -> Ran:
        nonlocal count
        count += 1
        work = tmp_path / f"run-{count}"
        work.mkdir()
        script, json_dir = work / "script.py", work / "reports"
        script.write_text(code)
        variables: dict[str, str | None] = {
            k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))
        }
        variables["JCACHE_JSON"] = os.fspath(json_dir)
        if cache is not None:
            variables["JCACHE_DIR"] = os.fspath(cache)
        variables.update(env or {})
        done = subprocess.run(
            [sys.executable, os.fspath(script), *args],
            check=False,
            env={k: v for k, v in variables.items() if v is not None},
            cwd=work,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check:
            assert done.returncode == 0, done.stderr
        found = sorted(json_dir.glob("*.json"), key=lambda path: path.stat().st_mtime_ns) if json_dir.exists() else []
        return Ran(done.returncode, done.stdout, done.stderr, [json.loads(path.read_text()) for path in found])

    return run


@pytest.fixture
def check(run_python: RunPython, nginx_server: Nginx) -> Callable[..., list[Ran]]:
    """`check(code, *args)` runs `code` without the cache, cold and warm, and compares what it prints and fetches.

    With `offline` it runs once more, with the server stopped and JCACHE_OFFLINE set. `read_status`: answers whose
    bodies are read to their end; of one that the client drops, the server has sent more or less by chance.
    """

    def bodies(read_status: tuple[int, ...]) -> tuple[int, int]:
        """Body bytes of the answers that are read, and how many answers are dropped."""
        answers = [
            answer for answer in nginx_server.requests() if answer.status in {200, 206} and answer.method == "GET"
        ]
        read = [answer.body_bytes for answer in answers if answer.status in read_status]
        return sum(read), len(answers) - len(read)

    def run(code: str, *args: str, read_status: tuple[int, ...] = (200, 206), offline: bool = False) -> list[Ran]:
        for path in nginx_server.directory.rglob("*"):
            # What was modified just now could change within the same second, and is not recorded.
            os.utime(path, (1_700_000_000, 1_700_000_000))
        plain = run_python(code, *args, cache=None)
        plain_bytes, plain_dropped = bodies(read_status)
        nginx_server.reset()
        cold = run_python(code, *args)
        cold_bytes, cold_dropped = bodies(read_status)
        nginx_server.reset()
        warm = run_python(code, *args)
        assert plain.stdout
        assert plain.stdout == cold.stdout == warm.stdout
        assert cold_bytes <= plain_bytes * 1.05 + (256 << 10), "no more than without the cache"
        assert cold_dropped <= plain_dropped, "no more than without the cache"
        assert cold_bytes > 0
        assert nginx_server.body_bytes() == 0, nginx_server.requests()
        for ran in (cold, warm):
            assert "jcache:" not in ran.stderr, ran.stderr
        hit = miss = bypass = 0
        for report in warm.reports:
            for kind in ("read", "readv"):
                hit += report[kind]["hit_bytes"]
                miss += report[kind]["miss_bytes"]
                bypass += report[kind]["bypass_bytes"]
        assert (miss, bypass) == (0, 0)
        assert hit > 0
        assert "cache combined hit rate" in warm.stderr
        assert "100.00" in warm.stderr
        assert sum(report["origin"]["bytes"] for report in cold.reports) == cold_bytes
        if offline:
            nginx_server.stop()
            alone = run_python(code, *args, env={"JCACHE_OFFLINE": "1"})
            assert alone.stdout == plain.stdout
        return [plain, cold, warm]

    return run


@pytest.fixture
def dead_mount(tmp_path: Path) -> Iterator[Path]:
    """A FUSE file system whose daemon never answers, not even that it is there."""
    path = tmp_path / "dead"
    path.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"/dev/fuse cannot be used: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"jcache-test", os.fsencode(path), b"fuse.jcache-test", 0, options.encode()):
        os.close(device)
        pytest.skip(f"a FUSE file system cannot be mounted: {os.strerror(ctypes.get_errno())}")
    yield path
    os.close(device)
    subprocess.run(["umount", "-l", path], check=True)
