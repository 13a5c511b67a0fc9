"""A thread for what may hang for good: whoever waits for it waits for a bounded time."""

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Helper:
    """One thread that runs one task after the other, none behind one that hangs.

    For the end of a process, where Python 3.12 and later start no thread any more: `start` it before. One thread uses
    it at a time. A forked child makes its own.
    """

    def __init__(self) -> None:
        self._go = _thread.allocate_lock()
        self._go.acquire()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._task: Callable[[], object] | None = None
        self._runs = False
        self._hangs = False

    def start(self) -> None:
        """Have the thread wait for its first task; without a thread, tasks are run by who asks, without a limit."""
        if not self._runs:
            try:
                _thread.start_new_thread(self._run, ())
                self._runs = True
            except RuntimeError:
                pass

    def run(self, task: "Callable[[], object]", limit_s: float) -> bool:
        """Run a task that raises nothing.

        Args:
            task: What may hang.
            limit_s: How long to wait for it.

        Returns:
            Whether it was done in time. Where it was not, nothing more is run.
        """
        if self._hangs:
            return False
        self.start()
        if not self._runs:
            task()
            return True
        self._task = task
        self._go.release()
        self._hangs = not self._done.acquire(timeout=limit_s)
        return not self._hangs

    def _run(self) -> None:
        while self._go.acquire():
            try:
                if self._task is not None:
                    self._task()
            except BaseException:  # noqa: BLE001, S110 - the process is ending, and this thread must not tell twice
                pass
            self._task = None
            self._done.release()
