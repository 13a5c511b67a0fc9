"""Interim reports of a process that runs long: for those who watch it, and for what is left of it if it is killed."""

import _thread

# Here, and not in the thread: a child that is forked while a thread imports can never import that module.
from jcache.activate.reports import make_own, save_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jcache.activate.job import Job
    from jcache.session import Session

SOON_S = 1.0
"""The first report comes so soon after the first read, whatever the interval: whoever watches sees that it runs."""


class Interim:
    """Saves this process's report every `JCACHE_STATS` seconds from its first read on, until `end`.

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
        if self._saving.acquire(timeout=timeout_s):
            self._saving.release()

    def _start(self) -> None:
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            pass  # at the interpreter's end, or at a limit: the final report is enough

    def _run(self) -> None:
        interval_s = self._session.config.stats
        wait_s = min(SOON_S, interval_s)
        mark = True
        while not self._ended.acquire(timeout=wait_s):
            with self._saving:
                if self._over:
                    return
                report = make_own(self._session, self._job, times_before=self._times_before, interval_s=interval_s)
                save_own(report, self._session.config, self._job, mark=mark)
            mark, wait_s = False, interval_s
