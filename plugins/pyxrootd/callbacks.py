"""Threads that call back what the application hands to asynchronous requests, as the XRootD client's threads do.

The client's own are not to wait for the event loop, which waits for them in turn; and neither is the loop to run what
is not JCache's.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from XRootD.client.responses import HostList

__all__ = ["answer", "call_soon"]

# As many as the client has.
THREADS = 3


class _Callers:
    """The threads of one process; those of a forked child are its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.count = 0

    def put(self, task: Callable[[], object]) -> None:
        self.tasks.put(task)
        if self.count < THREADS:
            with self.lock:
                if self.count < THREADS:
                    self.count += 1
                    threading.Thread(target=self._work, name=f"jcache-callbacks-{self.count}", daemon=True).start()

    def _work(self) -> None:
        while True:
            task = self.tasks.get()
            try:
                task()
            except BaseException:  # noqa: BLE001 - the application's; the client prints it, too
                sys.excepthook(*sys.exc_info())
            del task


_callers = _Callers()


def call_soon(task: Callable[[], object]) -> None:
    """Have something called on another thread."""
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
