"""The access profile of this process, or of a part of what it does: begun where that was asked for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jcache.activate.notice import say_once

# Here, and not in a thread: a child that is forked while a thread imports can never import that module.
from jcache.profile.format import SUFFIX
from jcache.profile.recorder import Recorder
from jcache.report.model import file_stem
from jcache.report.redact import is_open, redact

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Any

    from jcache.counters import Counters
    from jcache.session import Session

__all__ = ["begin_profile"]


def begin_profile(
    session: Session,
    *,
    run: str,
    appname: str,
    directory: str,
    counters: Counters | None = None,
    command: Sequence[str] | str | None = None,
) -> Recorder:
    """Have the requests recorded that are counted from now on.

    Args:
        session: Whose they are.
        run: What all processes of the job have in common.
        appname: Name of the program.
        directory: Where the file goes, beside others; its name is that of the process's report.
        counters: What counts them; by default the session's.
        command: What the profile says that it is of; by default this process's command line.

    Returns:
        What records: to be closed.
    """
    counters = session.counters if counters is None else counters
    host, pid, start_time = os.uname().nodename, os.getpid(), counters.start_time
    head = {
        "run": run,
        "appname": appname,
        "host": host,
        "pid": pid,
        "command": redact(sys.orig_argv if command is None else command),
        "start_time": start_time,
    }
    path = os.path.join(directory, file_stem(appname, host, pid, start_time) + SUFFIX)

    def told(urls: Container[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = session.files.told(urls)
        for said in found.values():
            if not is_open(said.get("query", "")):
                del said["query"]
        return found

    recorder = counters.profile = Recorder(path, head, trouble=say_once, told=told)
    return recorder
