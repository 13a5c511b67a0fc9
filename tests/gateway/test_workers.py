"""Several workers on one port, and a gateway in the place of another one: no request fails, and all are counted."""

from __future__ import annotations

import contextlib
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, cast

import pytest
from gateways import GatewayProcess, reply, request
from ports import free_port
from servers import ScriptedOrigin

from jcache_plugins.gateway import handover, serving, sockets, systemd
from jcache_plugins.gateway.channel import Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = 24 << 20
DATA = random.Random(5).randbytes(20_000)
# So long that no test is too slow for it.
PATIENT = ("--drain", "1200")
# A program that starts another one as systemd does, with a socket.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[ScriptedOrigin]:
    made = ScriptedOrigin()
    made.put("a.bin", DATA)
    made.put("large.bin", bytes(LARGE))
    yield made
    made.stop()


def wait_until(is_so: Callable[[], bool], timeout_s: float = 300) -> None:
    limit = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)


def metric(gateway: GatewayProcess, name: str) -> float:
    """The sum of a metric over its labels."""
    answer = gateway.get("/metrics")
    assert answer.status == 200, answer
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.body.decode(), re.MULTILINE))


def children(gateway: GatewayProcess) -> list[int]:
    psutil = pytest.importorskip("psutil")
    return [child.pid for child in psutil.Process(gateway.process.pid).children()]


class Clients:
    """Clients that send requests without end, some over one connection as long as it lasts; `failures` stays empty."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, count: int = 4) -> None:
        self.failures: list[str] = []
        self.answers = [0] * count
        self._port, self._tls, self._stop = port, tls, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        if self._tls is not None:
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=300, context=self._tls)
        while not self._stop.wait(0.005):  # a little room for the gateways to start in
            try:
                if number % 2:
                    connection.close()
                start = random.randrange(len(DATA))
                connection.request("GET", "/a.bin", headers={"Range": f"bytes={start}-"})
                answer = connection.getresponse()
                if (answer.status, answer.read()) != (206, DATA[start:]):
                    self.failures.append(f"status {answer.status}")
            except OSError as error:
                self.failures.append(repr(error))
                connection.close()
            except http.client.HTTPException as error:
                self.failures.append(repr(error))
                connection.close()
            self.answers[number] += 1
        connection.close()

    def go_on(self) -> None:
        """Wait until each has had some answers more."""
        before = list(self.answers)
        wait_until(lambda: all(now >= then + 3 for now, then in zip(self.answers, before, strict=True)))


# -- one gateway in the place of another -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "tls"),
    [
        pytest.param("1", False, id="1", marks=pytest.mark.long),
        pytest.param("2", False, id="2"),
        pytest.param("1", True, id="tls"),
    ],
)
def test_a_gateway_is_replaced_and_no_request_fails(
    origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path, workers: str, *, tls: bool
) -> None:
    port = free_port()
    args = ["--origin", origin.url(""), "--port", str(port), "--reuse-port", "--workers", workers, *PATIENT]
    if tls:
        certified(tmp_path)
        args += ["--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem")) if tls else None
    gateway = GatewayProcess(cache_dir, *args)
    try:
        with Clients(port, context) as clients:
            for _ in range(2):
                clients.go_on()
                following = GatewayProcess(cache_dir, *args)
                gateway, old = following, gateway
                clients.go_on()
                assert old.stop(timeout_s=300) == 0  # a second signal would end at once what is drained
                assert "Traceback" not in old.stderr
            clients.go_on()
        assert clients.failures == []
    finally:
        assert gateway.stop(timeout_s=300) == 0


def certified(path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = ["-keyout", f"{path}/key.pem", "-out", f"{path}/cert.pem", "-subj", "/CN=here", "-days", "2"]
    made += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-nodes", *made], check=True, capture_output=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_is_about_to_send_a_request_is_answered_and_told_that_it_is_the_last(
    origin: ScriptedOrigin, cache_dir: Path, workers: str
) -> None:
    """On a connection that is new, on one that was used, and on one whose answer began before."""
    with GatewayProcess(cache_dir, "--origin", origin.url(""), "--workers", workers, *PATIENT) as gateway:
        used, new, busy = (gateway.connect() for _ in range(3))
        streams = [connection.makefile("rb") for connection in (used, new, busy)]
        for connection in (used, new, busy):
            connection.settimeout(120)
        used.sendall(request("/a.bin", Connection="keep-alive"))
        assert reply(streams[0])["Connection"] != "close"
        busy.sendall(request("/large.bin", Connection="keep-alive"))
        assert streams[2].readline() == b"HTTP/1.1 200 OK\r\n"
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(gateway.is_refusing)
        used.sendall(request("/a.bin", Connection="keep-alive"))
        new.sendall(request("/a.bin", Connection="keep-alive"))
        for stream in streams[:2]:
            answer = reply(stream)
            assert (answer.body, answer["Connection"]) == (DATA, "close")
            assert stream.read() == b""
        while streams[2].readline() != b"\r\n":
            pass
        assert streams[2].read(LARGE) == bytes(LARGE)
        busy.sendall(request("/a.bin", Connection="keep-alive"))
        assert (reply(streams[2]).body, streams[2].read()) == (DATA, b"")
        assert gateway.process.wait(120) == 0  # there is no connection to wait for
        for connection in (used, new, busy):
            connection.close()


def test_only_who_was_started_with_it_may_be_replaced(origin: ScriptedOrigin, cache_dir: Path) -> None:
    with (
        GatewayProcess(cache_dir, "--origin", origin.url("")) as gateway,
        pytest.raises(RuntimeError, match="no gateway: 1"),
    ):
        GatewayProcess(cache_dir, "--origin", origin.url(""), "--port", str(gateway.port), "--reuse-port")


def test_sockets_are_handed_over_for_their_own_addresses_only() -> None:
    import asyncio

    async def ask() -> tuple[list[socket.socket], ...]:
        offer = handover.Offer(offered)
        other = {("127.0.0.2", port)}
        try:
            return tuple(
                [await asyncio.to_thread(handover.take, port, asked) for asked in (other, {("127.0.0.1", port)})]
            )
        finally:
            offer.close()

    offered = sockets.listen("127.0.0.1", 0, reuse_port=True)
    port = offered[0].getsockname()[1]
    none, taken = asyncio.run(ask())
    assert none == []
    assert handover.take(port, {("127.0.0.1", port)}) == []  # nobody offers them any more
    (one,) = taken
    for listener in offered:
        listener.close()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:  # it listens still
        accepted, where = one.accept()
        assert where == connection.getsockname()
        accepted.close()
    one.close()


# -- systemd -----------------------------------------------------------------------------------------------------------


def activated(cache: Path, listener: socket.socket, *args: str, **environ: str) -> GatewayProcess:
    """A gateway that was started as systemd would."""
    descriptor = listener.fileno()
    start = (sys.executable, "-c", ACTIVATE, str(descriptor))
    return GatewayProcess(cache, *args, start=start, pass_fds=(descriptor,), **environ)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_keeps_the_socket_and_is_told_the_state(
    origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path, workers: str
) -> None:
    with socket.socket() as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        notified.bind(os.fspath(tmp_path / "notify"))
        notified.settimeout(120)
        args = ("--origin", origin.url(""), "--workers", workers)
        told = {"NOTIFY_SOCKET": os.fspath(tmp_path / "notify")}
        for _ in range(2):
            # It waits in the socket while no gateway runs.
            with socket.create_connection(listener.getsockname(), timeout=120) as waiting:
                waiting.sendall(request("/a.bin"))
                with activated(cache_dir, listener, *args, **told) as gateway:
                    assert gateway.port == listener.getsockname()[1]
                    assert notified.recv(100) == b"READY=1"
                    assert reply(waiting.makefile("rb")).body == DATA
                    assert gateway.get("/a.bin").body == DATA
                    assert gateway.stop(timeout_s=120) == 0
                    assert notified.recv(100) == b"STOPPING=1"


def test_a_socket_for_all_addresses_has_no_name_of_this_machine_alone() -> None:
    """Systemd passes it; that --host says otherwise, by default, is of no meaning."""
    known: list[tuple[str, int]] = []
    gateway = types.SimpleNamespace(is_at=lambda *where: known.append(where))
    passed: Any = types.SimpleNamespace(getsockname=lambda: ("0.0.0.0", 80))
    life = serving._Life(cast("Any", gateway), serving.Listening(), [passed], Orders(), lambda _: None, None)
    life._tell_where()
    assert known == [("0.0.0.0", 80)]


def test_a_signal_ends_workers_that_have_not_begun(cache_dir: Path) -> None:
    """Their origin takes connections, and says nothing."""
    pytest.importorskip("paramiko")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"sftp://user:secret@127.0.0.1:{silent.getsockname()[1]}/"
        command = [sys.executable, "-m", "jcache", "serve", "--port", "0", "--workers", "2", "--origin", url]
        environ = {**os.environ, "JCACHE_DIR": os.fspath(cache_dir), "JCACHE_SUMMARY": "0"}
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        silent.settimeout(120)
        with silent.accept()[0]:
            process.terminate()
            assert process.wait(60) == 0
        assert "serving at" not in process.communicate()[1]


def test_sockets_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    for pid in (None, "1", str(os.getppid())):
        if pid is not None:
            monkeypatch.setenv("LISTEN_PID", pid)
        assert systemd.passed() == []
        assert "LISTEN_FDS" not in os.environ
        monkeypatch.setenv("LISTEN_FDS", "1")


def test_systemds_own_tool_starts_it(origin: ScriptedOrigin, cache_dir: Path) -> None:
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is not installed")
    port = free_port()
    command = [tool, "-l", f"127.0.0.1:{port}", sys.executable, "-m", "jcache", "serve", "--dir", os.fspath(cache_dir)]
    path = [f"-EPYTHONPATH={os.environ['PYTHONPATH']}"] if "PYTHONPATH" in os.environ else []
    command[1:1] = [*path, "-EJCACHE_SUMMARY=0"]
    process = subprocess.Popen([*command, "--origin", origin.url("")], stderr=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 120) as one:
                one.sendall(request("/a.bin"))
                return reply(one.makefile("rb")).body == DATA
            return False

        wait_until(answers)
        process.terminate()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()


# -- several workers ---------------------------------------------------------------------------------------------------


def test_several_workers_are_one_gateway(origin: ScriptedOrigin, cache_dir: Path) -> None:
    """Each has its own session and report; what they count is the sum, also of those that are no more."""
    reports = cache_dir.parent / "reports"
    args = ("--origin", origin.url(""), "--workers", "3", *PATIENT)
    with GatewayProcess(cache_dir, *args, JCACHE_JSON=os.fspath(reports)) as gateway:
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 3)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: gateway.get("/a.bin").body == DATA, range(100)))
        before = metric(gateway, "jcache_gateway_sent_bytes_total")
        assert before >= 100 * len(DATA)
        origin_bytes = metric(gateway, "jcache_origin_bytes_total")
        victim = children(gateway)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: metric(gateway, "jcache_gateway_workers_died_total") == 1)
        assert metric(gateway, "jcache_gateway_sent_bytes_total") >= before
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 3)
        assert victim not in children(gateway)
        # One that is told to end by itself ends what it has begun, and another one takes its place.
        os.kill(children(gateway)[0], signal.SIGTERM)
        wait_until(lambda: len(set(children(gateway))) == 3 and metric(gateway, "jcache_gateway_workers") == 3)
        assert gateway.get("/a.bin").body == DATA
        assert metric(gateway, "jcache_gateway_workers_died_total") == 1
        assert gateway.stop(timeout_s=120) == 0
    assert "a worker has died (SIGKILL); another one begins" in gateway.stderr
    found = [json.loads(path.read_text()) for path in reports.glob("jcache.jcache-serve.*.json")]
    assert 1 <= len(found) <= 4
    assert sum(report["origin"]["bytes"] for report in found) <= origin_bytes <= 2 * len(DATA)


def test_a_worker_that_is_stopped_is_counted_with_what_it_told(origin: ScriptedOrigin, cache_dir: Path) -> None:
    with GatewayProcess(cache_dir, "--origin", origin.url(""), "--workers", "2") as gateway:
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 2)
        for _ in range(20):
            gateway.get("/a.bin")
        before = metric(gateway, "jcache_gateway_sent_bytes_total")
        stopped = children(gateway)[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            wait_until(lambda: set(states(stopped)) == {"T"})  # else it might take the next connection yet
            assert metric(gateway, "jcache_gateway_sent_bytes_total") >= before
        finally:
            os.kill(stopped, signal.SIGCONT)


def states(pid: int) -> Iterator[str]:
    """The states of all threads of a process."""
    for stat in glob.glob(f"/proc/{pid}/task/*/stat"):
        with open(stat, encoding="ascii", errors="replace") as file:
            yield file.read().rpartition(")")[2].split()[0]


def test_a_signal_that_reaches_all_processes_drains_and_a_second_one_ends(
    origin: ScriptedOrigin, cache_dir: Path
) -> None:
    """As a terminal sends it: to the parent, and to the workers as well."""

    def all_get(number: int) -> None:
        for pid in [*children(gateway), gateway.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    for second in (False, True):
        with GatewayProcess(cache_dir, "--origin", origin.url(""), "--workers", "2", *PATIENT) as gateway:
            wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 2)
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
                connection.settimeout(120)
                connection.connect((gateway.host, gateway.port))
                connection.sendall(request("/large.bin"))
                stream = connection.makefile("rb")
                assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
                all_get(signal.SIGINT)
                wait_until(gateway.is_refusing)
                if second:
                    all_get(signal.SIGINT)
                    assert gateway.process.wait(120) == 0  # long before what is drained
                else:
                    rest = stream.read()
                    assert rest.endswith(bytes(LARGE))
                    assert gateway.process.wait(120) == 0
        assert "Traceback" not in gateway.stderr


def test_a_worker_that_cannot_begin_is_tried_again_after_longer_and_longer_pauses(
    origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path
) -> None:
    log, away = tmp_path / "logs" / "log", tmp_path / "away"
    log.parent.mkdir()
    args = ("--origin", origin.url(""), "--workers", "2", "--access-log", str(log))
    with GatewayProcess(cache_dir, *args) as gateway:
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 2)
        log.parent.rename(away)  # who has it open goes on
        os.kill(children(gateway)[0], signal.SIGKILL)
        wait_until(lambda: "(exit code 1); another one begins in 0.5 s" in gateway.stderr)
        assert gateway.get("/a.bin").body == DATA
        away.rename(log.parent)
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 2)
        assert gateway.stop(timeout_s=120) == 0


def test_the_parent_loads_nothing_that_reads() -> None:
    code = "import sys; import jcache_plugins.gateway.workers as _; print({'aiohttp', 'fsspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "set()\n"


def test_workers_end_when_their_parent_is_killed(origin: ScriptedOrigin, cache_dir: Path) -> None:
    psutil = pytest.importorskip("psutil")
    with GatewayProcess(cache_dir, "--origin", origin.url(""), "--workers", "2") as gateway:
        wait_until(lambda: metric(gateway, "jcache_gateway_workers") == 2)
        workers = [psutil.Process(pid) for pid in children(gateway)]
        gateway.process.kill()
        wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers))


def shell(redirected: str) -> tuple[str, ...]:
    """How to start Python so that a stream is closed."""
    return ("sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable)


def test_workers_have_their_sockets_where_a_stream_is_closed(origin: ScriptedOrigin, cache_dir: Path) -> None:
    args = ("--origin", origin.url(""), "--workers", "2")
    for redirected in ("<&-", "<&- >&-"):
        with GatewayProcess(cache_dir, *args, start=shell(redirected)) as gateway:
            wait_until(lambda gateway=gateway: metric(gateway, "jcache_gateway_workers") == 2)
            assert gateway.get("/a.bin").body == DATA
            assert "a worker has died" not in gateway.stderr
            assert gateway.stop() == 0


def test_a_log_that_cannot_be_written_is_named(origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no gateway: 1: jcache: stdout: Bad file descriptor\n$"):
        GatewayProcess(cache_dir, "--origin", origin.url(""), "--access-log", "-", start=shell(">&-"))
    nowhere = tmp_path / "nowhere" / "log"
    with pytest.raises(RuntimeError, match=f"no gateway: 1: jcache: {nowhere}: No such file or directory\n$"):
        GatewayProcess(cache_dir, "--origin", origin.url(""), "--access-log", str(nowhere))


def test_what_workers_cannot_serve_is_said_once(origin: ScriptedOrigin, cache_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    wrong = ("--token-file", str(tmp_path / "tokens"))
    for args, code, said in ((wrong, 2, "has no token in it"), (("--port", str(origin.port)), 1, "in use")):
        with pytest.raises(RuntimeError, match=f"no gateway: {code}: jcache: [^\n]*{said}[^\n]*\n$"):
            GatewayProcess(cache_dir, "--origin", origin.url(""), "--workers", "2", *args)


# -- clients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [False, True])
def test_a_greedy_client_holds_no_other_one_up(cache_dir: Path, tmp_path: Path, *, tokens: bool) -> None:
    """It would have all of what may be asked of the origin at once; as it is, its requests wait for each other."""
    blocked = threading.Event()
    origin = ScriptedOrigin()

    def etag(_: int) -> str:
        blocked.wait(600)
        return '"1"'

    for i in range(12):
        origin.put(f"{i}.bin", DATA, etag_of=etag)
    origin.put("a.bin", DATA)
    (tmp_path / "tokens").write_text("greedy\nmodest\n")
    limits = ("--per-client", "2", "--origin-requests", "4")
    who = ("--token-file", str(tmp_path / "tokens")) if tokens else ()
    with GatewayProcess(cache_dir, "--origin", origin.url(""), *limits, *who) as gateway:

        def ask(name: str, *, host: str, client: str) -> bytes:
            source = ("127.0.0.1" if tokens else host, 0)
            with socket.create_connection((gateway.host, gateway.port), timeout=600, source_address=source) as one:
                one.sendall(request(f"/{name}", Authorization=f"Bearer {client}"))
                return reply(one.makefile("rb")).body

        def seen(name: str) -> float:
            data = gateway.send(request("/metrics", Authorization="Bearer modest")).body.decode()
            return sum(float(value) for value in re.findall(rf"^{name} (\S+)$", data, re.MULTILINE))

        with ThreadPoolExecutor(12) as pool:
            greedy = [pool.submit(ask, f"{i}.bin", host="127.0.0.1", client="greedy") for i in range(12)]
            try:
                wait_until(lambda: seen("jcache_gateway_waiting") == 10)
                assert ask("a.bin", host="127.0.0.2", client="modest") == DATA
                assert not any(one.done() for one in greedy)
            finally:
                blocked.set()
            assert [one.result(600) for one in greedy] == [DATA] * 12
        assert seen("jcache_gateway_waiting") == 0
    origin.stop()


def test_a_request_waits_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from jcache_plugins.gateway import failures, fairness

    async def ask() -> list[object]:
        queues = fairness.Queues(1)
        order: list[object] = []

        async def one(client: str, number: int, end: asyncio.Event) -> None:
            async with queues.turn(client):
                order.append((client, number))
                await end.wait()

        end = asyncio.Event()
        tasks = [asyncio.ensure_future(one("a", i, end)) for i in range(3)] + [asyncio.ensure_future(one("b", 0, end))]
        await asyncio.sleep(0)
        assert (order, queues.waiting) == ([("a", 0), ("b", 0)], 2)
        tasks[1].cancel()  # a client that goes away
        monkeypatch.setattr(fairness, "WAIT_S", 0.0)
        with pytest.raises(fairness.TooManyError) as raised:
            await one("a", 3, end)
        assert failures.failure_of(raised.value) == (429, "Too Many Requests")
        end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (queues.waiting, queues._queues) == (0, {})
        return order

    assert asyncio.run(ask()) == [("a", 0), ("b", 0), ("a", 2)]


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (None, ""),
    ],
)
def test_who_is_one_client(address: str | None, client: str) -> None:
    from jcache_plugins.gateway.fairness import client_at

    assert client_at(address) == client
