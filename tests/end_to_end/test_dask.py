"""Dask: a running cluster is made to cache, by one line, and reports as one; whatever becomes of its workers."""

from __future__ import annotations

import ast
import asyncio
import getpass
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from analysis import COLUMNS, MORE_COLUMNS, disk_bytes, write
from places import ROOT
from ports import free_port
from servers import Nginx, find_nginx

import jcache.session
from jcache.report.faces.display import ShownReport
from jcache.report.merge import merge
from jcache.report.model import Report
from jcache.settings.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("distributed", reason="dask's distributed is not installed")

import dask
import dask_job
from distributed import Client, LocalCluster

from jcache_plugins.dask import JCachePlugin, jcache_report

LIMIT_S = 120.0
OFTEN_S = 0.2


@pytest.fixture(scope="module", autouse=True)
def unprofiled() -> Iterator[None]:
    """No worker looks at the stacks of this process's threads.

    Before Python 3.13, `sys._current_frames` may collect garbage with the interpreter's list of threads locked; where a
    callback of the collector is written in Python, as hypothesis's is, who begins a thread then waits for ever.
    """
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        yield


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The analysis's files, and one of random bytes, on a real server."""
    if find_nginx() is None:
        pytest.skip("nginx is not installed")
    server = Nginx(tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("nginx"))
    for number in range(3):
        write(server.directory / f"{number}.root", rntuple=False, seed=number)
    data = server.directory / "data"
    data.write_bytes(random.Random(1).randbytes(100_000))
    os.utime(data, (1_600_000_000, 1_600_000_000))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with quiet(), LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as started:
        yield started


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of processes that do not cache (any more)."""
    with Client(cluster) as made:
        yield made
        if made.status == "running" and "jcache" in plugins_of(made):
            made.unregister_worker_plugin("jcache")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Dask says about a worker that was killed."""
    loggers = [logging.getLogger(name) for name in ("distributed.nanny", "distributed.worker", "distributed.scheduler")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def plugins_of(client: Client) -> set[str]:
    return client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.worker_plugins))


def urls(nginx: Nginx) -> list[str]:
    return [nginx.url(f"{number}.root") for number in range(3)]


def run(client: Client, nginx: Nginx, columns: tuple[str, ...] = COLUMNS, workers: Any = None) -> list[str]:
    """Run the analysis, a task for each file; return its results."""
    tasks = [client.submit(dask_job.digest, url, columns, pure=False, workers=workers) for url in urls(nginx)]
    return [found for _, found in client.gather(tasks)]


def expected(nginx: Nginx, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    return [dask_job.digest(str(nginx.directory / f"{number}.root"), columns)[1] for number in range(3)]


def wait_until(enough: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not enough():
        assert time.monotonic() < limit
        time.sleep(0.02)


def wait_for_recording(client: Client) -> None:
    """What is fetched is recorded behind the application's back, and another worker would be too early for it."""

    def all_recorded() -> bool:
        report = jcache_report(client)
        return report.cache.recorded_bytes == report.origin.bytes > 0

    wait_until(all_recorded)


def saved(cache: Path) -> list[Report]:
    return [Report.load(path) for path in sorted(cache.glob(".reports/jcache.*.json"))]


def test_one_line_caches_in_workers_that_run_and_the_report_is_of_all(
    client: Client, nginx: Nginx, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = expected(nginx)
    client.run(dask_job.make_file_system, nginx.url("data"))
    pids = client.run(os.getpid)
    nginx.reset()

    client.register_plugin(JCachePlugin(cache_dir=cache_dir))
    assert run(client, nginx) == wanted
    cold = jcache_report(client)
    assert isinstance(cold, ShownReport)
    sent = nginx.body_bytes()
    assert 0 < sent == cold.origin.bytes == cold.read.miss_bytes + cold.readv.miss_bytes

    wait_for_recording(client)
    nginx.reset()
    for worker in pids:  # each reads all files, wherever it read which before
        assert run(client, nginx, workers=[worker]) == wanted
    assert nginx.body_bytes() == 0
    warm = jcache_report(client)
    assert warm.requested_bytes == 3 * cold.requested_bytes
    assert warm.hit_bytes == warm.requested_bytes - sent
    assert (warm.processes, warm.incomplete, warm.files.unique) == (2, 2, 3)

    # A file system that was made, and had read, before there was a plug-in.
    data = (nginx.directory / "data").read_bytes()
    for _ in range(2):
        found = client.run(dask_job.read_with_it, nginx.url("data"), 500, 900)
        assert set(found.values()) == {data[500:900]}
    assert 400 <= nginx.body_bytes() <= 800  # both workers may be first
    assert client.run(os.getpid) == pids  # none was restarted

    # Told again, nothing changes; unregistered, nothing is cached, and the reports are final.
    client.register_plugin(JCachePlugin(cache_dir=cache_dir))
    before = jcache_report(client)
    client.unregister_worker_plugin("jcache")
    assert {directory for _, directory, _ in client.run(dask_job.state).values()} == {None}
    nginx.reset()
    assert run(client, nginx) == wanted
    assert nginx.body_bytes() == sent
    after = jcache_report(client)
    assert after.requested_bytes == before.requested_bytes
    assert (after.processes, after.complete) == (2, True)
    parts = saved(cache_dir)
    total = merge(parts)
    assert {report.pid for report in parts} == set(pids.values())
    assert (after.read, after.readv, after.origin, after.cache) == (total.read, total.readv, total.origin, total.cache)
    assert (sum(after.profile.hit_bytes), sum(after.profile.miss_bytes)) == (
        sum(sum(report.profile.hit_bytes) for report in parts),
        sum(sum(report.profile.miss_bytes) for report in parts),
    )

    capsys.readouterr()
    client.close()
    printed = capsys.readouterr().err
    assert printed.count("cache combined hit rate") == 1
    assert "sum of 2 processes" in printed
    assert printed.strip() == str(jcache_report(client)).strip()  # also after the client's end


def test_settings_are_the_workers_and_can_be_changed(client: Client, nginx: Nginx, cache_dir: Path) -> None:
    client.register_plugin(JCachePlugin(cache_dir, validate="never", stats=1000, summary=False))
    assert {state[1:] for state in client.run(dask_job.state).values()} == {(str(cache_dir), "never")}
    first = run(client, nginx)
    client.register_plugin(JCachePlugin(cache_dir, validate=60, protocols=["http", "https"], summary=False))
    assert {state[1:] for state in client.run(dask_job.state).values()} == {(str(cache_dir), 60.0)}
    assert run(client, nginx) == first
    report = jcache_report(client)
    assert report.hit_bytes == report.requested_bytes / 2  # under both settings
    with pytest.raises(ConfigError, match="validate='sometimes' is wrong: give open, never or a number of seconds"):
        JCachePlugin(cache_dir, validate="sometimes")
    with pytest.raises(TypeError, match=r"no setting 'size_gb'; there are .*size"):
        JCachePlugin(cache_dir, size_gb=3)
    client.unregister_worker_plugin("jcache")
    with pytest.raises(ConfigError, match=r"JCACHE_DIR='\$NOWHERE_AT_ALL/x': there is no such environment variable on"):
        client.register_plugin(JCachePlugin("$NOWHERE_AT_ALL/x", summary=False))


def test_processes_that_tasks_start_cache_and_count(client: Client, nginx: Nginx, cache_dir: Path) -> None:
    before = client.run(lambda: dict(os.environ))
    client.register_plugin(JCachePlugin(cache_dir, validate="never", summary=False))
    nginx.reset()
    for _ in range(2):
        assert client.submit(dask_job.read_in_another_process, nginx.url("data"), 700, pure=False).result() == ""
    assert nginx.body_bytes() == 700
    report = jcache_report(client)
    assert (report.processes, report.requested_bytes, report.hit_bytes) == (2, 1400, 700)
    client.unregister_worker_plugin("jcache")
    assert client.run(lambda: dict(os.environ)) == before


def test_settings_that_take_long_to_read_hold_up_no_event_loop(client: Client, cache_dir: Path) -> None:
    cache_dir.mkdir()
    (cache_dir / "jcache.toml").touch()
    place = str(cache_dir)
    client.run(lambda: os.environ.update(PLACE_OF_WORKERS=place))  # so that no other process reads it
    client.run(dask_job.read_settings_slowly, place)
    with ThreadPoolExecutor(1) as pool:
        plugin = JCachePlugin("$PLACE_OF_WORKERS", timeout=LIMIT_S, summary=False)
        registered = pool.submit(client.register_plugin, plugin)
        while not (cache_dir / "reading").exists():
            time.sleep(0.01)
        # A worker reads its settings, until it may go on. All answer meanwhile.
        assert len(client.run(os.getpid)) == 2
        assert not registered.done()
        (cache_dir / "go").touch()
        registered.result()
    assert {state[1] for state in client.run(dask_job.state).values()} == {place}


def test_workers_that_come_later_cache_and_the_killed_count_up_to_their_last_interim_report(
    client: Client, cluster: LocalCluster, nginx: Nginx, cache_dir: Path
) -> None:
    wanted = expected(nginx, MORE_COLUMNS)
    client.register_plugin(JCachePlugin(cache_dir, stats=OFTEN_S, summary=False))
    victim, _ = client.run(os.getpid)
    pid = client.run(os.getpid)[victim]
    assert run(client, nginx, MORE_COLUMNS, workers=[victim]) == wanted
    wait_for_recording(client)
    counted = jcache_report(client)
    # The interval has passed once its file says as much as the worker did.
    wait_until(lambda: [r.requested_bytes for r in saved(cache_dir)] == [counted.requested_bytes])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: victim not in client.scheduler_info()["workers"])
    left = jcache_report(client)
    assert (left.read, left.readv, left.origin.bytes) == (counted.read, counted.readv, counted.origin.bytes)
    assert (left.processes, left.incomplete) == (1, 1)

    # The nanny's new worker has had no plug-in registered for it; nor has the cluster's third.
    cluster.scale(3)
    client.wait_for_workers(3, timeout=LIMIT_S)
    nginx.reset()
    workers = set(client.scheduler_info(n_workers=-1)["workers"]) - {victim}
    assert len(workers) == 3
    for worker in sorted(workers):
        assert run(client, nginx, MORE_COLUMNS, workers=[worker]) == wanted
    # What the killed worker had recorded is there for all.
    assert nginx.body_bytes() == 0
    report = jcache_report(client)
    assert (report.processes, report.requested_bytes) == (4, 4 * counted.requested_bytes)
    assert report.origin.bytes == counted.origin.bytes
    cluster.scale(2)
    wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2)
    # The one that was closed has left its final report.
    wait_until(lambda: sum(part.complete for part in saved(cache_dir)) == 1)
    assert jcache_report(client).requested_bytes == report.requested_bytes


def test_workers_that_cannot_write_reports_are_asked(
    client: Client, nginx: Nginx, cache_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    client.register_plugin(JCachePlugin(cache_dir, json=tmp_path / "file" / "no", stats=OFTEN_S, summary=False))
    wanted = expected(nginx)
    assert run(client, nginx) == wanted
    report = jcache_report(client)
    assert report.files.unique == 3
    assert [member.requested_bytes > 0 for member in report.members] == [True] * report.processes
    client.unregister_worker_plugin("jcache")
    assert jcache_report(client).requested_bytes == report.requested_bytes  # as they were asked last


def test_workers_that_are_threads_share_one_session(nginx: Nginx, cache_dir: Path, tmp_path: Path) -> None:
    wanted = expected(nginx)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    before = dict(os.environ)
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.register_plugin(JCachePlugin(cache_dir, summary=False))
        assert jcache.session.current() is not None
        assert run(client, nginx) == wanted
        report = jcache_report(client)
        assert (report.processes, report.files.unique) == (1, 3)
        assert report.origin.bytes == report.requested_bytes
        client.register_plugin(JCachePlugin(tmp_path / "other", summary=False))
        assert {state[1] for state in client.run(dask_job.state).values()} == {str(tmp_path / "other")}
        client.unregister_worker_plugin("jcache")
        assert jcache.session.current() is None
        assert dict(os.environ) == before
        assert jcache_report(client).requested_bytes == report.requested_bytes
    assert disk_bytes(tmp_path / "other") == 0


# argv: the cache directory, a URL.
BOTH = """
import sys
import fsspec
from distributed import Client, LocalCluster
from jcache_plugins.dask import JCachePlugin, jcache_report

def read(url, start):
    return len(fsspec.filesystem("http").cat_file(url, start, start + 100))

def main():
    directory, url = sys.argv[1:]
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        read(url, 0)
        client.submit(read, url, 1000).result()
        client.register_plugin(JCachePlugin(directory, appname="mine"))
        client.submit(read, url, 2000).result()
        report = jcache_report(client)
        print(report.appname, report.processes, report.read.bytes)

if __name__ == "__main__":
    main()
"""


def test_in_a_job_that_caches_by_its_environment_each_read_is_in_one_report(
    run_python: Any, nginx: Nginx, cache_dir: Path
) -> None:
    ran = run_python(BOTH, os.fspath(cache_dir), nginx.url("data"), env={"JCACHE_JSON": None})
    assert ran.stdout.split() == ["script", "1", "100"]
    # The workers' own, when the client closes, and then the user's process's with what workers had read before.
    workers, rest = ran.stderr.split("╭─ JCache")[1:]
    assert "total bytes read          :             100 " in workers
    assert "total bytes read          :             200 " in rest
    assert "sum of 2 processes" in rest
    assert sorted((part.appname, part.complete, part.requested_bytes) for part in saved(cache_dir)) == [
        ("mine", True, 100),
        ("script", True, 100),
        ("script", True, 100),
    ]


def test_an_asynchronous_client(nginx: Nginx, cache_dir: Path) -> None:
    async def main() -> ShownReport:
        options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
        async with (
            LocalCluster(**options, asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await client.register_plugin(JCachePlugin(cache_dir, summary=False))
            await client.submit(dask_job.digest, nginx.url("0.root"), COLUMNS)
            return await jcache_report(client)

    assert asyncio.run(main()).files.unique == 1
    assert jcache.session.current() is None


def test_a_cluster_without_the_plug_in_says_so(client: Client) -> None:
    with pytest.raises(LookupError, match=r"no JCachePlugin on this cluster: client\.register_plugin"):
        jcache_report(client)


# -- over ssh -------------------------------------------------------------------------------------------------------


@contextmanager
def sshd(directory: Path) -> Iterator[dict[str, Any]]:
    """An ssh daemon of this test alone, on loopback; yields what to connect with."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("sshd is not installed")
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    directory.chmod(0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    port = free_port()
    shutil.copy(directory / "user.pub", directory / "authorized")
    (directory / "known").write_text(f"[127.0.0.1]:{port} {(directory / 'host.pub').read_text()}")
    (directory / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {directory}/host\nPidFile {directory}/pid\n"
        f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        f'SetEnv "PYTHONPATH={os.environ.get("PYTHONPATH", "")}"\n'  # as for processes that are started without ssh
    )
    # As root, Debian's asks for an empty directory that its service would have made.
    place = Path("/run/sshd")
    made = os.geteuid() == 0 and not place.exists()
    if made:
        place.mkdir(mode=0o755)
    log = (directory / "log").open("wb")
    process = subprocess.Popen([program, "-D", "-e", "-f", directory / "config"], stderr=log)
    try:
        limit = time.monotonic() + LIMIT_S
        while b"Server listening" not in (directory / "log").read_bytes():
            if process.poll() is not None or time.monotonic() > limit:
                pytest.skip(f"sshd does not start: {(directory / 'log').read_text().strip()}")
            time.sleep(0.02)
        yield {
            "port": port,
            "username": getpass.getuser(),
            "client_keys": [str(directory / "user")],
            "known_hosts": str(directory / "known"),
            "config": None,  # nothing of the user's own
            "agent_path": None,
        }
    finally:
        process.terminate()
        process.wait(LIMIT_S)
        log.close()
        if made:
            place.rmdir()


def test_the_documented_batch_systems_get_a_job_that_starts_workers() -> None:
    jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    text = (ROOT / "docs" / "howto" / "dask.md").read_text()
    blocks = map(textwrap.dedent, re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE))
    calls = [
        node
        for block in blocks
        if "from dask_jobqueue import" in block
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Cluster")
    ]
    scripts = {}
    for call in calls:
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        scheduler = {"dashboard_address": None, "host": "127.0.0.1", "port": 0}
        with getattr(jobqueue, call.func.id)(**options, scheduler_options=scheduler) as cluster:
            scripts[call.func.id] = cluster.job_script()
    assert set(scripts) == {"HTCondorCluster", "SLURMCluster"}
    assert all("/shared/venv/bin/python -m distributed.cli.dask_worker" in script for script in scripts.values())
    assert 'MY.JobFlavour = "workday"' in scripts["HTCondorCluster"]
    assert "#SBATCH -t 02:00:00" in scripts["SLURMCluster"]
    assert "--nworkers 8 --nanny --death-timeout 60 --lifetime 110m --lifetime-stagger 5m" in scripts["SLURMCluster"]


@pytest.mark.slow
def test_workers_over_ssh(nginx: Nginx, cache_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("asyncssh", reason="asyncssh is not installed")
    from distributed import SSHCluster

    wanted = expected(nginx)
    keys = tmp_path / "ssh"
    keys.mkdir()
    with (
        sshd(keys) as options,
        SSHCluster(
            ["127.0.0.1"] * 3,
            connect_options=options,
            worker_class="distributed.Worker",  # without a nanny
            worker_options={"nthreads": 1, "host": "127.0.0.1"},
            scheduler_options={"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
            remote_python=sys.executable,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=LIMIT_S)
        pids = client.run(os.getpid)
        assert len(pids) == 2
        client.upload_file(dask_job.__file__)
        nginx.reset()
        client.register_plugin(JCachePlugin(cache_dir, stats=OFTEN_S))
        for worker in pids:
            assert run(client, nginx, workers=[worker]) == wanted
            wait_for_recording(client)
        report = jcache_report(client)
        assert report.processes == 2
        assert nginx.body_bytes() == report.origin.bytes == report.requested_bytes / 2 == report.hit_bytes
        victim = next(iter(pids))
        wait_until(lambda: sum(part.requested_bytes for part in saved(cache_dir)) == report.requested_bytes)
        os.kill(pids[victim], signal.SIGKILL)
        wait_until(lambda: victim not in client.scheduler_info()["workers"])
        left = jcache_report(client)
        assert (left.read, left.readv, left.processes) == (report.read, report.readv, 2)
    assert capfd.readouterr().err.count("cache combined hit rate") == 1
