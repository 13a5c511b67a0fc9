"""A thread for what may hang for good: whoever waits for it waits for a bounded time."""

import _thread

from jcache.activate.notice import say
from jcache.system.stopwatch import acquire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Helper:
    """One thread that runs one task after the other, none behind one that hangs.

    For the end of a process, where Python 3.12 and later start no thread any more: `start` it before. One thread uses
    it at a time. A forked child makes its own.

    Attributes:
        hangs: Whether a task has not come back in time: nothing more is run.
    """

    def __init__(self) -> None:
        self._go = _thread.allocate_lock()
        self._go.acquire()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._task: Callable[[], object] | None = None
        self._runs = self._has_ended = False
        self.hangs = False

    def start(self) -> None:
        """Have the thread wait for its first task; without a thread, tasks are run by who asks, without a limit."""
        if not self._runs:
            try:
                _thread.start_new_thread(self._run, ())
                self._runs, self._has_ended = True, False
            except RuntimeError:
                pass

    def run(self, task: "Callable[[], object]", limit_s: float) -> bool:
        """Run a task; one that raises is told of in one line on stderr.

        Args:
            task: What may hang.
            limit_s: How long to wait for it.

        Returns:
            Whether it was done in time. Where it was not, nothing more is run.
        """
        if self.hangs:
            return False
        self.start()
        if not self._runs:
            _do(task)
            return True
        self._task = task
        self._go.release()
        self.hangs = not acquire(self._done, limit_s)
        return not self.hangs

    def end(self) -> None:
        """Have the thread end: nothing more is run."""
        if self._runs and not self.hangs:
            self._runs, self._has_ended = False, True
            self._go.release()

    def _run(self) -> None:
        while self._go.acquire() and not self._has_ended:
            if self._task is not None:
                _do(self._task)
            self._task = None
            self._done.release()


def _do(task: "Callable[[], object]") -> None:
    try:
        task()
    except BaseException as error:  # noqa: BLE001 - the process is ending; one line is all there is to do
        say(f"no report, or not all of it: {type(error).__name__}: {error}")
