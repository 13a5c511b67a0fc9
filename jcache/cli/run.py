"""`jcache run`: a command with its reads cached, and one report of all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from jcache.activate.job import Job, program_name
from jcache.activate.notice import say
from jcache.cli.errors import WrongInputError
from jcache.cli.gateway import GatewayOfRun
from jcache.cli.metrics import MetricsOfRun
from jcache.cli.options import directory_option, paths
from jcache.settings.config import Config, ConfigError, absolute

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes for a command that did not run, as shells and `env` have them."""

# What others send to the process that they started and mean for the work it does.
_FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGWINCH")
    if hasattr(signal, name)
)


@click.command("run", context_settings={"allow_interspersed_args": False})
@directory_option
@click.option("--validate", metavar="open|never|SECONDS", help="How long a remote file is trusted to be unchanged.")
@click.option("--offline", is_flag=True, help="Never contact an origin; a read that the cache does not hold fails.")
@click.option("--bypass", is_flag=True, help="Measure only: nothing is served from the cache or recorded.")
@click.option("--profile", is_flag=True, help="Record every request beside the JSON reports, for 'jcache profile'.")
@click.option("--no-summary", is_flag=True, help="Print no report at the end; the JSON reports are saved as ever.")
@click.option(
    "--json",
    "json_directory",
    metavar="REPORTS",
    shell_complete=paths("dir"),
    help="Where the JSON reports go, instead of .reports in the cache.",
)
@click.option("--gateway", is_flag=True, help="Have CMD's programs read S3 through a gateway, past fsspec or not.")
@click.option(
    "--gateway-allow",
    "allow",
    multiple=True,
    metavar="PATTERN",
    help="Have them read http:// URLs of these origins through one, as 'jcache serve --allow' has it. Repeatable.",
)
@click.argument(
    "command",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="-- CMD [ARGS]...",
    shell_complete=paths("file"),
)
def run(
    *,
    directory: Path | None,
    validate: str | None,
    offline: bool,
    bypass: bool,
    profile: bool,
    no_summary: bool,
    json_directory: str | None,
    gateway: bool,
    allow: tuple[str, ...],
    command: tuple[str, ...],
) -> None:
    """Run CMD with its remote reads cached, and print one report of all its processes when it ends.

    Options stand for the environment variables of the same names and go before them.

    It works through the jcache.pth file that an installed JCache puts into its Python: each Python that CMD runs
    needs JCache installed in its own environment. A Python that was started with -S, or that has no JCache, runs as
    without it.

    Programs that read past fsspec are cached by a gateway, which lives as long as CMD. With --gateway, AWS_ENDPOINT_URL
    leads to it, and CMD has keys that nobody else has; it reads with those of the environment. It does not write.
    With --gateway-allow, http_proxy leads to it, and http:// URLs that no PATTERN names are refused.

    \b
    Examples:
      jcache run --dir /shared/jcache -- python job.py --fast
      jcache run --bypass -- make plots      measures what the I/O of a whole build is
      jcache run --profile -- python job.py  'jcache profile show' tells what it read, when
      jcache run --gateway -- python polars_job.py

    \b
    Exit codes:
      *    CMD's own; 128+n where signal n ended it
      2    an option or a setting is wrong, or there can be no gateway; CMD was not started
      126  CMD cannot be run
      127  CMD was not found
    """
    environ = dict(os.environ)
    options = {
        "JCACHE_DIR": None if directory is None else str(directory),
        "JCACHE_VALIDATE": validate,
        "JCACHE_OFFLINE": "1" if offline else None,
        "JCACHE_BYPASS": "1" if bypass else None,
        "JCACHE_PROFILE": "1" if profile else None,
        "JCACHE_SUMMARY": "0" if no_summary else None,
        "JCACHE_JSON": None if json_directory is None else os.path.abspath(json_directory),
    }
    environ.update({name: value for name, value in options.items() if value is not None})
    if not environ.get("JCACHE_DIR"):
        raise WrongInputError("there is no cache directory: give --dir DIR, or set JCACHE_DIR")
    sys.exit(run_job(command, environ, s3=gateway, allow=allow))


def run_job(command: Sequence[str], environ: dict[str, str], *, s3: bool = False, allow: Sequence[str] = ()) -> int:
    """Run a command as one job with one report, and return its exit code.

    Args:
        command: The command and its arguments.
        environ: Its environment, with a cache directory in it.
        s3: Whether clients of S3 are to read through a gateway.
        allow: Patterns of URLs that clients of HTTP are to read through one.

    Raises:
        WrongInputError: A setting is wrong; it was not started.
    """
    # The command's processes may run in other directories.
    environ["JCACHE_DIR"] = absolute(environ["JCACHE_DIR"])
    try:
        config = Config.from_environ(environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    job = Job.begin(environ, command=config.appname or _name(command))
    gateway = GatewayOfRun.start(environ, s3=s3, allow=allow) if s3 or allow else None
    metrics = MetricsOfRun(config, job)
    try:
        code = _run(command, environ if gateway is None else gateway.environ(environ))
    except OSError as error:
        say(f"cannot run {command[0]}: {error.strerror or error}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        if gateway is not None:
            gateway.end()
        metrics.end()
    _report(config, job, command)
    return code


def _name(command: Sequence[str]) -> str:
    name = os.path.basename(command[0])
    return program_name(command) if name.startswith("python") else name


def _run(command: Sequence[str], environ: dict[str, str]) -> int:
    """Run a command to its end, handing on signals; return its exit code as a shell would.

    Raises:
        OSError: It cannot be started.
    """
    early: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)  # looks first whether the child is still there to be signalled

    def interrupt(number: int, frame: FrameType | None) -> None:
        # From the terminal the command has got it as well, being in the same process group; one is enough.
        if not _in_foreground():
            forward(number, frame)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGQUIT, interrupt)
    child = subprocess.Popen(command, env=environ)  # noqa: S603 - running the user's command is what this is for
    for number in early:
        child.send_signal(number)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _in_foreground() -> bool:
    """Tell whether the terminal sends its interrupts to this process's group."""
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False  # there is no terminal: somebody sent the signal to this process alone


def _report(config: Config, job: Job, command: Sequence[str]) -> None:
    from jcache.activate.reports import keep_title, others, print_job, tidy_reports

    found = others(config, job, None)
    if found:
        print_job(config, job, None, title=keep_title(config, job, command), beside=found)
        tidy_reports(config)
    elif config.summary:
        directory = str(config.report_directory)
        if _can_write(directory):
            say(
                "no process of the command read remote data through JCache, so there is no report. If one should have: "
                "a line above names libraries that read past the cache (JCACHE_LOG=debug says what is hooked); else, "
                "is JCache installed in the Python that ran it, or was it killed within a second?"
            )
        else:
            say(f"no report: {directory} cannot be written to; --json REPORTS puts the reports elsewhere")


def _can_write(directory: str) -> bool:
    """Tell whether files can be made in a directory, which need not exist."""
    while not os.path.lexists(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)
