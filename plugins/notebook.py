"""Notebooks: `%load_ext jcache`, and JCache is turned on, off and asked from the cells of IPython and Jupyter."""

from __future__ import annotations

import ast
import contextlib
import os
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display

from jcache import activate, session
from jcache.activate import past
from jcache.activate.job import Job
from jcache.counters import Counters
from jcache.report.counted import from_counters
from jcache.report.faces.display import ShownReport, shown
from jcache.report.merge import merge
from jcache.report.model import Report, ReportError
from jcache.settings.config import Config, ConfigError
from jcache_plugins.settings import checked, config_of, export, program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jcache.profile.recorder import Recorder
    from jcache.session import Session

__all__ = ["JCacheMagics", "load", "unload"]

USAGE = """%jcache on [DIR] [NAME=VALUE ...]   cache what this notebook reads, in DIR ($JCACHE_DIR by default)
%jcache off                         stop; show the report
%jcache report                      show the report up to now
%jcache                             say whether it is on
%%jcache [--profile]                run a cell and show what it read; request by request"""

_WIDTH = 120  # of a profile's tables and picture

COUNTING = (
    "read", "readv", "file_opened", "file_read", "file_size", "asked", "uncached", "origin", "recorded", "damaged",
    "failure", "bypassed", "tier",
)  # fmt: skip
"""The methods of `Counters` that count."""


def load(shell: Any) -> None:
    """Add the magics to a shell; what `%load_ext jcache` does."""
    shell.register_magics(JCacheMagics)


def unload(shell: Any) -> None:
    """Take the magics back; what is cached goes on being cached until `%jcache off`."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("jcache", None)


@magics_class
class JCacheMagics(Magics):  # type: ignore[misc]  # IPython's decorators are too loosely typed for strict mode
    """The magic `jcache`; `USAGE` says what it does."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._times = (0.0, 0.0)
        self._last: ShownReport | None = None
        # What processes that this one starts are given, and what takes it back.
        self._given: dict[str, str] = {}
        self._restore: Callable[[], None] | None = None

    @line_cell_magic  # type: ignore[untyped-decorator]  # as above
    def jcache(self, line: str, cell: str | None = None) -> ShownReport | None:
        """Turn caching on or off, show its report, or (`%%jcache`) what one cell read."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%jcache {line}: {error}") from None
        if cell is not None:
            if words not in ([], ["--profile"]):
                raise UsageError(f"%%jcache takes no arguments but --profile:\n{USAGE}")
            self._measure(cell, is_profiled=bool(words))
            return None
        match words:
            case []:
                print(_state())  # noqa: T201 - the cell's output
                return None
            case ["on", *rest]:
                self._on(rest)
                return None
            case ["off"]:
                return self._off()
            case ["report"]:
                return self._report()
        raise UsageError(f"no such command: %jcache {line}\n{USAGE}")

    def _on(self, words: list[str]) -> None:
        directory = next((word for word in words[:1] if "=" not in word), None)
        settings: dict[str, object] = {"dir": directory}
        for word in words[directory is not None :]:
            name, equals, value = word.partition("=")
            if not equals:
                raise UsageError(f"{word!r} is not NAME=VALUE, such as validate=never\n{USAGE}")
            settings[name] = value
        self._take_back()  # settings of an earlier `on` are no longer the environment's
        try:
            given = checked(settings)
            # At the kernel's end nobody is there to read a report on stderr.
            mine = checked({"appname": program(), "summary": False, **settings})
            config = config_of(mine, os.environ)
        except (ConfigError, TypeError) as error:
            self._give(self._given)
            raise UsageError(str(error)) from None
        running = session.current()
        if running is not None and running.config.dir is not None and running.config != config:
            self._off()
        running = session.current()
        if running is None or running.config.dir is None:
            activate.deactivate()
            times = os.times()
            self._times = (times.user, times.system)
            activate.activate(config).caches.get()  # so that what is wrong with it is said now
        self._give(given)
        print(_state())  # noqa: T201 - the cell's output

    def _off(self) -> ShownReport | None:
        if session.current() is None:
            print(_state())  # noqa: T201 - the cell's output
            return None
        running = _running()
        running.config = replace(running.config, summary=False)  # it is shown, and need not be printed as well
        running.close()  # what waits to be recorded is counted then
        self._last = self._report(complete=True)
        activate.deactivate()
        self._take_back()
        self._given = {}
        return self._last

    def _give(self, variables: dict[str, str]) -> None:
        """Have the processes that are started from now on cache as this one does."""
        self._given = variables
        self._restore = export(variables)

    def _take_back(self) -> None:
        """Have the processes that are started from now on run as the environment said before."""
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()

    def _report(self, *, complete: bool = False) -> ShownReport:
        running = session.current()
        if running is None:
            if self._last is None:
                raise UsageError("nothing to report: JCache has not been on, %jcache on DIR turns it on")
            return self._last
        own = self._own(running.counters, running, appname=running.config.appname or program(), complete=complete)
        others = _others(running, own)
        return shown(merge([own, *others]), [own, *others] if others else ())

    def _own(self, counters: Counters, running: Session, **fields: Any) -> Report:
        times = os.times()
        return from_counters(
            counters,
            host=os.uname().nodename,
            pid=os.getpid(),
            run=running.run_id,
            **{
                "command": sys.orig_argv,
                "user_s": max(0.0, times.user - self._times[0]),
                "sys_s": max(0.0, times.system - self._times[1]),
                **fields,
            },
        )

    def _measure(self, cell: str, *, is_profiled: bool) -> None:
        running = _running()
        before, counters, start = running.counters, Counters(), os.times()
        name = f"cell [{_number(self.shell)}]"
        recorder = _recorder(running, counters, name, cell) if is_profiled else None
        running.counters = _Both(before, counters)  # type: ignore[assignment]  # all of it that anyone uses
        try:
            _run(self.shell, cell)
        finally:
            running.counters = before
            stop = os.times()
            _add_sizes(counters, before)
            display(
                shown(
                    self._own(
                        counters,
                        running,
                        appname=name,
                        command=next((line for line in cell.splitlines() if line.strip()), ""),
                        user_s=stop.user - start.user,
                        sys_s=stop.system - start.system,
                    )
                )
            )
            passed = past.found()
            if passed is not None:
                print(f"jcache: {passed}")  # noqa: T201 - the cell's output
            if recorder is not None:
                recorder.close()
                _show_profile(recorder.path)


class _Both:
    """Counters of the session and of a cell: what is counted is counted in both, all else is the session's."""

    def __init__(self, first: Counters, second: Counters) -> None:
        self._first = first
        self.profile = second.profile if first.profile is None else first.profile
        for name in COUNTING:
            setattr(self, name, _in_both(getattr(first, name), getattr(second, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def _in_both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    def count(*args: Any, **kwargs: Any) -> None:
        first(*args, **kwargs)
        second(*args, **kwargs)

    return count


def _recorder(running: Session, counters: Counters, name: str, cell: str) -> Recorder:
    from jcache.activate.profiles import begin_profile

    directory = running.config.profile_directory or running.config.report_directory
    if directory is None:
        raise UsageError("there is no directory for a profile: %jcache on DIR")
    run = os.urandom(8).hex()
    return begin_profile(running, run=run, appname=name, directory=directory, counters=counters, command=cell)


def _show_profile(path: str) -> None:
    from jcache.profile.faces import drawn, print_profile
    from jcache.profile.reader import Profile, ProfileError, Recording
    from jcache.profile.statistics import look_at

    try:
        profile = Profile([Recording.open(path)])
        look = look_at(profile)
        print_profile(profile, look, drawn(profile, look, width=_WIDTH), sys.stdout, width=_WIDTH)
    except ProfileError:
        print("jcache: the cell read nothing, so there is no profile")  # noqa: T201 - the cell's output
    else:
        print(f"jcache: {path}")  # noqa: T201 - the cell's output


def _add_sizes(counters: Counters, session_counters: Counters) -> None:
    """Tell a cell's counters the sizes of files that were opened before it."""
    sizes: Mapping[str, int | None] = {file.url: file.size_bytes for file in session_counters.snapshot().files}
    for file in counters.snapshot().files:
        size = sizes.get(file.url)
        if file.size_bytes is None and size is not None:
            counters.file_size(file.url, size)


def _run(shell: Any, cell: str) -> None:
    """Run a cell's code as if no magic stood above it: its last expression is shown, an error is the cell's."""
    source = shell.transform_cell(cell)
    name = shell.compile.cache(source, _number(shell), raw_code=cell)
    nodes = shell.transform_ast(shell.compile.ast_parse(source, filename=name)).body
    last = [nodes.pop()] if nodes and isinstance(nodes[-1], ast.Expr) else []
    for code in (
        shell.compile(ast.Module(nodes, []), name, "exec"),
        shell.compile(ast.Interactive(last), name, "single"),  # which calls the display hook
    ):
        exec(code, shell.user_global_ns, shell.user_ns)  # noqa: S102 - the user's own code


def _number(shell: Any) -> int:
    """Return the number of the cell that runs; IPython 9 has counted `execution_count` up by then, 8 has not."""
    return len(shell.history_manager.input_hist_parsed) - 1


def _running() -> Session:
    running = session.current()
    if running is None:
        raise UsageError("JCache is not on: %jcache on DIR")
    return running


def _state() -> str:
    running = session.current()
    if running is None or running.config.dir is None:
        return "JCache is off."
    config = running.config
    reason = running.counters.snapshot().bypassed
    if reason is not None and not config.bypass:
        return f"JCache only measures: {reason}"
    chosen = [
        f"{name}={value}"
        for name in ("validate", "offline", "bypass")
        if (value := getattr(config, name)) != getattr(Config(), name)
    ]
    return f"JCache is on: {' '.join([running.config.dir, *chosen])}"


def _others(running: Session, own: Report) -> list[Report]:
    """Return the reports of processes that this one started, as far as they are written."""
    directory = running.config.report_directory
    if directory is None:
        return []
    try:
        paths = Job(running.run_id, root_pid=0, program="").reports(directory)
    except OSError:
        return []  # as when nobody had written any
    found = []
    for path in paths:
        with contextlib.suppress(ReportError):
            report = Report.load(path)
            if (report.host, report.pid) != (own.host, own.pid):  # what it had in the meantime
                found.append(report)
    return found
