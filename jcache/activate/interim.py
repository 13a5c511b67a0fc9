"""Interim reports: for those who watch a process, and for what is left of it if it is killed.

Some are killed by whoever started them, as a matter of course: Ray's workers, say, never get to their own end.
"""

import _thread
import time

from jcache.activate.notice import say

# Here, and not in the thread: a child that is forked while a thread imports can never import that module.
from jcache.activate.reports import make_own, save_own
from jcache.system.stopwatch import acquire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jcache.activate.job import Job
    from jcache.report.model import Report
    from jcache.session import Session

SOON_S = 1.0
"""The first report comes so soon after the first read, whatever the interval: whoever watches sees that it runs."""

MOST_S = 30.0
"""Where no interval is set, each is twice as long as the one before, up to this one."""

_SHARE = 50
"""Nor is one shorter than so many times what writing took."""


class Interim:
    """Saves this process's report every `JCACHE_STATS` seconds from its first read on, until `end`.

    Where that is not set, at growing intervals, and only if anything was read since.

    The file is that of the final report, which replaces it. A thread that does not keep the process alive writes it; a
    cache directory that hangs, hangs only that thread. A forked child makes its own.

    Args:
        session: Whose counters are reported.
        job: What this process belongs to.
        times_before: User and system CPU seconds that this process had used when the session began.
    """

    def __init__(self, session: "Session", job: "Job", *, times_before: tuple[float, float]) -> None:
        self._session = session
        self._job = job
        self._times_before = times_before
        self._ended = _thread.allocate_lock()  # held until the end
        self._ended.acquire()
        self._saving = _thread.allocate_lock()
        self._over = False
        session.counters.at_first_read(self._start)

    def end(self, timeout_s: float) -> None:
        """Write no more: what is saved after this stays. Waits for a report that is just being written, not for ever.

        Args:
            timeout_s: How long to wait; a thread that hangs for longer does not come back before the process ends.
        """
        if self._over:
            return
        self._over = True
        self._ended.release()
        if acquire(self._saving, timeout_s):  # not counting for how long this process is stopped
            self._saving.release()

    def _start(self) -> None:
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            pass  # at the interpreter's end, or at a limit: the final report is enough

    def _run(self) -> None:
        stats = self._session.config.stats
        wait_s = min(SOON_S, stats or SOON_S)
        last = None
        while not self._ended.acquire(timeout=wait_s):
            started_s = time.monotonic()
            interval_s = stats or min(2 * wait_s, MOST_S)
            with self._saving:
                if self._over:
                    return
                try:
                    report = make_own(self._session, self._job, times_before=self._times_before, interval_s=interval_s)
                    if stats or last != (report.read, report.readv):
                        save_own(report, self._session.config, self._job, mark=last is None)
                        self._write_metrics(report)
                    last = report.read, report.readv
                except Exception as error:  # noqa: BLE001 - the final report may still be had
                    say(f"no interim reports: {type(error).__name__}: {error}")
                    return
            wait_s = stats or max(interval_s, _SHARE * (time.monotonic() - started_s))

    def _write_metrics(self, report: "Report") -> None:
        config = self._session.config
        if config.tells_metrics and self._job.is_root:
            from jcache.activate.metrics import beside, write_metrics

            write_metrics(config, [report, *beside(config, self._job, report)], appname=report.appname)
