"""Threads that call back what the application hands to asynchronous requests, as the XRootD client's threads do.

The client's own are not to wait for the event loop, which waits for them in turn; and neither is the loop to run what
is not JCache's.
"""

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from XRootD.client.responses import HostList

__all__ = ["answer", "call_soon"]

# As many as the client has unless it is told otherwise.
THREADS = 3


def threads() -> int:
    """Return how many threads call back."""
    said = os.environ.get("XRD_WORKERTHREADS", "")
    return max(int(said), 1) if said.isascii() and said.isdigit() else THREADS


class _Callers:
    """The threads of one process; those of a forked child are its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.count, self.most = 0, threads()

    def put(self, task: Callable[[], object]) -> None:
        self.tasks.put(task)
        if self.count < self.most and not self._is_joined():
            with contextlib.suppress(queue.Empty):
                while True:
                    self._do(self.tasks.get_nowait())

    def _is_joined(self) -> bool:
        """Start one more thread; whether there is any then: none is to be had where memory ends, or the process."""
        with self.lock:
            if self.count < self.most:
                thread = threading.Thread(target=self._work, name=f"jcache-callbacks-{self.count + 1}", daemon=True)
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self.count += 1
            return self.count > 0

    def _work(self) -> None:
        while True:
            self._do(self.tasks.get())

    @staticmethod
    def _do(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException:  # noqa: BLE001 - the application's; the client prints it, too
            sys.excepthook(*sys.exc_info())


_callers = _Callers()


def call_soon(task: Callable[[], object]) -> None:
    """Have something called on another thread, on this one only where there can be no other."""
    global _callers  # noqa: PLW0603 - one per process
    if _callers.pid != os.getpid():
        _callers = _Callers()
    _callers.put(task)


def answer(status: Any, response: Any, callback: Any, submitted: Any) -> Any:
    """Return what a method returns that has an answer: the pair, or with a callback the status that it was taken.

    Args:
        status: Of the request.
        response: Its response.
        callback: What is called with both, and with no hosts, on another thread; None where nothing is.
        submitted: What is returned then.
    """
    if not callback:
        return status, response
    call_soon(lambda: callback(status, response, HostList([])))
    return submitted
