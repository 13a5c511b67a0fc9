"""Dask: cache in every worker of a cluster, and one report of all of them.

    from jcache_plugins.dask import JCachePlugin, jcache_report

    client.register_plugin(JCachePlugin(cache_dir="/shared/jcache"))
    ...
    jcache_report(client)

The plug-in carries a run's name to the workers. Their reports bear it, interim ones too, so that those of workers that
have died are found in the directory of reports; workers that live are asked over the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from distributed import Client, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from jcache import activate, session
from jcache.activate.job import VARIABLE, Job
from jcache.report.counted import from_counters
from jcache.report.faces.display import ShownReport, shown
from jcache.report.job import JobTitle
from jcache.report.merge import merge
from jcache.report.model import Report, ReportError
from jcache.report.redact import redact
from jcache.settings.config import Config, ConfigError
from jcache_plugins.settings import checked, config_of, export, program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["JCachePlugin", "jcache_report"]

INTERVAL_S = 10.0
"""What a killed worker loses of its counts at most, unless `stats` says otherwise."""

ASK_S = 10.0
ASK_AT_CLOSE_S = 2.0  # Dask gives the clients that are left at the interpreter's end few seconds

_log = logging.getLogger("distributed.jcache")


class JCachePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed for strict mode
    """Caches in every worker that a Dask cluster has and gets, without a restart of any.

    Registered again it goes on with the new settings, and the report of its client stays one. Unregistered
    (`client.unregister_worker_plugin("jcache")`) it leaves the workers uncached. When the client that registered it
    closes, the report of all workers is printed on stderr, or shown in a notebook; not with `summary=False`.

    Works with processes and threads, with nannies and without. JCache has to be installed where the workers are.

    Args:
        cache_dir: The cache directory as the workers see it, `$JCACHE_DIR` by default. `~` and a `$NAME` that it
            begins with are what they are on each worker: `$_CONDOR_SCRATCH_DIR/jcache`.
        stats: Seconds between interim reports: what a worker that is killed loses of its counts at most.
        summary: Whether to print the report when the client closes.
        settings: Any other setting, by the name that it has in `jcache.toml`: `validate="never"`, `json="/shared/r"`.

    Raises:
        ConfigError: A value is wrong, or there is no cache directory.
        TypeError: There is no such setting.
    """

    name = "jcache"

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        stats: float = INTERVAL_S,
        summary: bool = True,
        **settings: object,
    ) -> None:
        directory = cache_dir or os.environ.get("JCACHE_DIR") or None
        if directory is None and not settings.get("config"):
            raise ConfigError("there is no cache directory: give cache_dir=, or set JCACHE_DIR")
        chosen = {"appname": program(), **settings, "dir": directory, "stats": stats}
        self.variables = checked(chosen)
        self.summary = summary
        self.run = os.urandom(8).hex()
        self.client = (os.uname().nodename, os.getpid())

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """What two plug-ins have in common that need not replace each other."""
        return self.run, frozenset(self.variables.items())

    async def setup(self, worker: Worker) -> None:
        """Begin caching in the process of a worker; its event loop never waits for a disk."""
        config = await asyncio.to_thread(_process.make_way, self)
        # Here, where that is the main thread: SIGTERM can be caught in no other.
        _process.enter(self, config, worker.address)

    async def teardown(self, worker: Worker) -> None:
        """End it there, if no other worker of this process goes on; writes the process's report."""
        await asyncio.to_thread(_process.leave, self.key, worker.address)


def jcache_report(client: Client, *, timeout_s: float = ASK_S) -> ShownReport | Awaitable[ShownReport]:
    """Return one report of all workers that a `JCachePlugin` has had on a client's cluster, until now.

    Counts of a worker that ended or died are those of its last report in the directory of reports, which has to be
    within this process's reach. `print` it, or let a notebook show it. It can be asked for after the client's end.

    Args:
        client: Of the cluster, the one that registered the plug-in or another.
        timeout_s: How long workers that live may take to answer; those that do not count as if they were dead.

    Returns:
        The report; of an asynchronous client, what to await for it.

    Raises:
        LookupError: The cluster has no such plug-in, as far as can be seen.
    """
    if client.status == "closed":
        return _merged(_registered.get(client), {})
    report: ShownReport | Awaitable[ShownReport] = client.sync(_gather, client, timeout_s)
    return report


# -- in the workers ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Process:
    """What plug-ins have done in this process, which may hold several workers."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    run: str = ""
    key: object = None
    """Of the plug-in that caches here, or did last."""
    workers: set[str] = field(default_factory=set)
    owned: bool = False
    """Whether the session was begun here, and is to be ended here."""
    times: tuple[float, float] = (0.0, 0.0)
    restore: Callable[[], None] | None = None
    """Puts the environment back."""

    def make_way(self, plugin: JCachePlugin) -> Config:
        """Return a plug-in's settings on this worker, and end the session of what it replaces: the parts with I/O.

        Raises:
            ConfigError: They are wrong here, or the process caches already for somebody else, elsewhere.
        """
        config = replace(config_of(plugin.variables, os.environ), summary=False)
        with self.lock:
            if not self._is_in(plugin):
                self._end()  # what a plug-in began that this one replaces
                if self._users_own(plugin, config) is None:
                    running = session.current()
                    if running is not None:  # begun by the environment
                        running.config = replace(running.config, summary=False)
                    activate.deactivate()
        return config

    def enter(self, plugin: JCachePlugin, config: Config, worker: str) -> None:
        """Begin a session for a worker, unless one goes on that will do."""
        with self.lock:
            if self._is_in(plugin):
                self.workers.add(worker)
                return
            if self._users_own(plugin, config) is None:
                self._begin(plugin, config)
            self.run, self.key = plugin.run, plugin.key
            self.workers = {worker}

    def _is_in(self, plugin: JCachePlugin) -> bool:
        return self.key == plugin.key and bool(self.workers)

    def _users_own(self, plugin: JCachePlugin, config: Config) -> session.Session | None:
        """Return the session of the user's own process, where the workers are threads of it; it is theirs."""
        running = session.current()
        at_home = (os.uname().nodename, os.getpid()) == plugin.client
        if not at_home or self.owned or running is None or running.config.dir is None:
            return None
        if running.config.dir != config.dir:
            raise ConfigError(f"this process caches in {running.config.dir} already; it cannot in {config.dir} as well")
        return running

    def _begin(self, plugin: JCachePlugin, config: Config) -> None:
        # Processes that tasks start cache as well. They belong to a job without a root, which prints nothing here: the
        # client has the report.
        before = os.environ.get(VARIABLE)
        put_back = export(plugin.variables)
        os.environ[VARIABLE] = f"{plugin.run} command - 0 0 {config.appname}"

        def restore() -> None:
            put_back()
            if before is None:
                os.environ.pop(VARIABLE, None)
            else:
                os.environ[VARIABLE] = before

        self.restore = restore
        times = os.times()
        self.times = (times.user, times.system)
        activate.activate(config)
        self.owned = True

    def leave(self, key: object, worker: str) -> None:
        with self.lock:
            if self.key != key:
                return  # replaced
            self.workers.discard(worker)
            if not self.workers:
                self._end()

    def _end(self) -> None:
        if not self.owned:
            return
        self.owned = False
        activate.deactivate()
        restore, self.restore = self.restore, None
        if restore is not None:
            restore()


_process = _Process()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker says of its process."""

    run: str
    key: object
    directory: str | None
    report: Report | None


def _answer() -> _Answer | None:
    """Return the state of this process; None where no plug-in caches in it."""
    running = session.current()
    if not _process.workers or running is None:
        return None
    report = None
    if running.counters.any_activity():
        times = os.times()
        report = from_counters(
            running.counters,
            appname=running.config.appname or program(),
            host=os.uname().nodename,
            pid=os.getpid(),
            command=sys.orig_argv,
            user_s=max(0.0, times.user - _process.times[0]),
            sys_s=max(0.0, times.system - _process.times[1]),
            run=running.run_id,
            complete=False,
        )
    return _Answer(_process.run, _process.key, running.config.report_directory, report)


# -- in the client ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Registration:
    """What a client has registered, all under one run, and the last that its workers said."""

    run: str
    directories: set[str] = field(default_factory=set)
    summary: bool = True
    reports: dict[str, Report] = field(default_factory=dict)


_registered: WeakKeyDictionary[Any, _Registration] = WeakKeyDictionary()


def _register(client: Any, plugin: JCachePlugin, name: str, idempotent: bool) -> Any:
    """Register the plug-in as any other, and have the client print the report when it closes."""
    known = _registered.get(client)
    if known is None:
        known = _registered[client] = _Registration(plugin.run)
        client._close = _closing(client._close, client)  # noqa: SLF001 - of this client alone; `close` has no hook
    plugin.run = known.run
    known.summary = plugin.summary
    return client.sync(_register_changed, client, plugin, known, name, idempotent)


async def _register_changed(
    client: Any, plugin: JCachePlugin, known: _Registration, name: str, idempotent: bool
) -> Any:
    with contextlib.suppress(ConfigError):  # what it stands for is known to the workers
        config = await asyncio.to_thread(config_of, plugin.variables, os.environ)
        if config.report_directory is not None:
            known.directories.add(config.report_directory)
    answers = await _ask(client, ASK_S)
    if answers and all(answer is not None and answer.key == plugin.key for answer in answers.values()):
        return {worker: {"status": "OK"} for worker in answers}  # the same once more: no session has to end for it
    # What `register_plugin` would have called without this module.
    return await client._register_worker_plugin(plugin=plugin, name=name, idempotent=idempotent)  # noqa: SLF001


async def _ask(client: Any, timeout_s: float) -> dict[str, _Answer | None]:
    """Return what each worker says; of none anything where one does not answer, or the scheduler is gone."""
    try:
        async with asyncio.timeout(timeout_s):
            answers: dict[str, _Answer | None] = await client.run(_answer, on_error="ignore")
    except Exception as error:  # noqa: BLE001 - whatever it is, there are their files
        _log.info("workers do not answer: %s", error)
        return {}
    return answers


_dispatch: Any = getattr(Client, "_register_plugin", None)
if hasattr(_dispatch, "register") and hasattr(Client, "_register_worker_plugin"):
    _dispatch.register(JCachePlugin)(_register)
# else another version of Dask: the plug-in works as any other, without a report when its client closes.


def _closing(close: Any, client: Any) -> Any:
    """Return a client's `_close` that prints the report first. Nothing that goes wrong with it stops the closing."""

    async def _close(*args: Any, **kwargs: Any) -> None:
        known = _registered.get(client)
        if known is not None:
            client._close = close  # noqa: SLF001 - once
            try:
                report = await _gather(client, ASK_AT_CLOSE_S)
                if known.summary and report.requested_bytes:
                    _show(report)
            except Exception as error:  # noqa: BLE001 - a client's end is never held up by its report
                _log.warning("no JCache report: %s: %s", type(error).__name__, error)
        await close(*args, **kwargs)

    return _close


def _show(report: ShownReport) -> None:
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        ipython.display.display(report)
    else:
        print(report, file=sys.stderr)  # noqa: T201 - the report


async def _gather(client: Any, timeout_s: float) -> ShownReport:
    found = [answer for answer in (await _ask(client, timeout_s)).values() if answer is not None]
    known = _registered.get(client)
    if known is None and found:
        known = _Registration(found[0].run)  # registered by another client
    live: dict[str, Report] = {}
    for answer in found:
        if known is not None and answer.run == known.run:
            if answer.directory is not None:
                known.directories.add(answer.directory)
            if answer.report is not None:
                live[answer.report.filename] = answer.report
    return await asyncio.to_thread(_merged, known, live)


def _merged(known: _Registration | None, live: dict[str, Report]) -> ShownReport:
    """Put what workers said and what they left in files together, of each process the latest."""
    if known is None:
        raise LookupError("no JCachePlugin on this cluster: client.register_plugin(JCachePlugin(cache_dir=...)) first")
    known.reports.update(live)
    reports = dict(known.reports)
    for directory in known.directories:
        for report in _saved(known.run, directory):
            other = reports.get(report.filename)
            if other is None or (report.complete, report.end_time) > (other.complete, other.end_time):
                reports[report.filename] = report
    title = JobTitle(known.run, program(), os.uname().nodename, os.getpid(), redact(sys.orig_argv))
    for directory in known.directories if reports else ():
        with contextlib.suppress(OSError):  # `jcache report` calls the job by the name of its first worker then
            title.save(directory)
    members = list(reports.values())
    return shown(title.entitle(merge(members) if members else _nothing(known.run)), members)


def _saved(run: str, directory: str) -> Iterable[Report]:
    try:
        paths = Job(run, root_pid=0, program="").reports(directory)
    except OSError as error:
        _log.warning("the workers' reports in %s cannot be read: %s", directory, error)
        return
    for path in paths:
        try:
            yield Report.load(path)
        except ReportError as error:
            _log.warning("a worker's report cannot be read: %s", error)


def _nothing(run: str) -> Report:
    """Return the report of workers that have read nothing."""
    import time

    now = time.time()
    return Report("", "", 0, "", now, now, complete=False, real_s=0.0, user_s=0.0, sys_s=0.0, run=run)
