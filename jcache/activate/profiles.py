"""The access profile of this process: begun with its session, where that was asked for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jcache.activate.job import program_name
from jcache.activate.notice import say_once

# Here, and not in a thread: a child that is forked while a thread imports can never import that module.
from jcache.profile.format import SUFFIX
from jcache.profile.recorder import Recorder
from jcache.report.model import file_stem
from jcache.report.redact import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.activate.job import Job
    from jcache.session import Session

__all__ = ["begin_profile"]


def begin_profile(
    session: Session, job: Job, *, directory: str, command: Sequence[str] | str | None = None
) -> Recorder:
    """Have a session's requests recorded from now on.

    Args:
        session: The session.
        job: What this process belongs to.
        directory: Where the file goes, beside others; its name is that of the process's report.
        command: What the profile says that it is of; by default this process's command line.

    Returns:
        What records: to be closed.
    """
    name = program_name()
    appname = session.config.appname or (job.program if name == "python" else name)
    start_time = session.counters.start_time
    stem = file_stem(appname, os.uname().nodename, os.getpid(), start_time)
    head = {
        "run": job.run,
        "appname": appname,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "command": redact(sys.orig_argv if command is None else command),
        "start_time": start_time,
    }
    recorder = Recorder(os.path.join(directory, stem + SUFFIX), head, trouble=say_once)
    session.counters.profile = recorder
    return recorder
