"""The metrics of a run, while its command goes on: `jcache run` is the job's root, and has no session of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jcache.activate.interim import MOST_S, SOON_S
from jcache.activate.metrics import beside, write_metrics

if TYPE_CHECKING:
    from jcache.activate.job import Job
    from jcache.settings.config import Config

__all__ = ["MetricsOfRun"]


class MetricsOfRun:
    """Writes the metrics of a command that this process runs, as often as its processes save interim reports.

    Args:
        config: What is set.
        job: The command's.
    """

    def __init__(self, config: Config, job: Job) -> None:
        self._config, self._job = config, job
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jcache-metrics", daemon=True)
        if config.tells_metrics and config.stats != 0:
            self._thread.start()

    def end(self) -> None:
        """Write no more, but what is being written; wait for that, not for ever."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(self._config.timeout)

    def _run(self) -> None:
        stats = self._config.stats
        wait_s = stats or SOON_S
        while not self._ended.wait(wait_s):
            found = beside(self._config, self._job)
            if found:
                write_metrics(self._config, found, appname=self._config.appname or self._job.program)
            wait_s = stats or min(2 * wait_s, MOST_S)
