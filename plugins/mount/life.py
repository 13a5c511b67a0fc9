"""The life of a mount: it begins when the kernel asks, and ends by a signal, or when somebody else unmounts it.

libfuse answers in threads of its own, so the main thread only waits. If the process is killed, fusermount3 unmounts,
which libfuse has started for that (`auto_unmount`): it waits for the end of the process, and then looks whether what
is mounted there is dead.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from select import select
from typing import Any

import mfusepy

from jcache_plugins.mount.operations import Operations

__all__ = ["MountError", "check", "mount", "unmounter"]

DRAIN_S = 10.0
"""So long programs may go on to read what they have open, once the mount is to end."""
# The kernel looks a name up each time that somebody opens it; what it was told then, it tells others.
LOOKUP_S, ATTRIBUTES_S = 0, 1
# Whoever opens, lists or reads something waits in a thread, and an open may look at the mount itself (`Tree`), which
# another one answers: if they were all taken by opens, nothing would ever be answered. Those that are idle are ended.
THREADS, IDLE_THREADS = 10_000, 8
_STARTED, _ENDED = b"\xfe", b"\xff"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_UNMOUNTERS = ("fusermount3", "fusermount")


class MountError(Exception):
    """It cannot be mounted there; the message says why."""


def unmounter() -> str:
    """Return the program that unmounts for who is not root, and after the process was killed.

    Raises:
        MountError: There is none, or no FUSE at all.
    """
    if not os.path.exists("/dev/fuse"):
        raise MountError("there is no /dev/fuse: the kernel has no FUSE here, or the container has no right to it")
    found = next(filter(None, map(shutil.which, _UNMOUNTERS)), None)
    if found is None:
        raise MountError("there is no fusermount3: install your system's package fuse3")
    return found


def check(directory: str) -> None:
    """Ensure that something can be mounted at a directory.

    Raises:
        MountError: It is none, it has something in it, or there is a mount already, which may be dead.
    """
    try:
        if os.path.ismount(directory):
            raise MountError(f"{directory}: something is mounted there already")
        names = os.listdir(directory)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(
                f"{directory}: a mount is there whose process is no more; 'fusermount3 -uz {directory}' removes it"
            ) from None
        raise MountError(f"{directory}: {error.strerror}; it has to be a directory that is there and empty") from None
    if names:
        raise MountError(f"{directory}: there is something in it; it has to be empty")


class _Ending:
    """Tells the main thread what happens: signals, by the interpreter's own way, and what the other thread says."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Whether there is nothing yet that has to be ended in order.
        self.is_early = True

    def tell(self, what: bytes) -> None:
        """Tell the main thread something; for any thread."""
        os.write(self._writer, what)

    def wait(self, limit_s: float | None = None) -> bytes:
        """Return what happened next; nothing where that takes longer."""
        ready = select([self._reader], [], [], limit_s)[0]
        return os.read(self._reader, 1) if ready else b""

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Have signals told inside, and no more than that; while it is early, they end the process.

        Once it is not, the process ends behind this, with its report: signals that come yet change nothing.
        """

        def heard(number: int, _frame: object) -> None:
            if self.is_early:
                raise SystemExit(128 + number)

        before = {number: signal.signal(number, heard) for number in _SIGNALS}
        theirs = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(theirs)
            for number, handler in before.items() if self.is_early else ():
                signal.signal(number, handler)


def mount(
    directory: str,
    make: Callable[[Callable[[], None]], tuple[Operations, str]],
    *,
    allow_other: bool,
    started: Callable[[str], None],
) -> None:
    """Mount, answer the kernel, and return when it is unmounted: by a signal or by somebody else. For the main thread.

    Args:
        directory: Where.
        make: Makes what answers, of what is to be called when the kernel asks; and names what is mounted.
        allow_other: Whether other users may read.
        started: Called with that name once whoever reads is answered.

    Raises:
        MountError: It cannot be mounted.
        Exception: Whatever `make` raises.
    """
    program, ending = unmounter(), _Ending()
    with ending.signals():
        operations, name = make(lambda: ending.tell(_STARTED))
        options = _options(name, allow_other=allow_other)
        thread = threading.Thread(target=_answer, args=(operations, directory, options, ending), daemon=True)
        ending.is_early = False
        thread.start()
        is_mounted = is_over = False
        while not (is_mounted and is_over) and (told := ending.wait()) != _ENDED:
            if told == _STARTED:
                is_mounted = True
                started(name)
            elif told[0] in _SIGNALS:
                is_over = True
        if is_mounted and is_over:
            _unmount(program, directory)
            _drain(ending)
        elif not is_mounted:
            raise MountError(f"{directory}: it cannot be mounted; libfuse says above why")


def _options(name: str, *, allow_other: bool) -> dict[str, Any]:
    escaped = name.replace("\\", "\\\\").replace(",", "\\,")
    flags = ("ro", "nosuid", "nodev", "noatime", "default_permissions", "auto_unmount")
    options: dict[str, Any] = dict.fromkeys(flags, True)
    options |= {"fsname": escaped, "subtype": "jcache", "entry_timeout": LOOKUP_S, "attr_timeout": ATTRIBUTES_S}
    if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12):  # before, it has as many as it needs
        options |= {"max_threads": THREADS, "max_idle_threads": IDLE_THREADS}
    return options | ({"allow_other": True} if allow_other else {})


def _answer(operations: Operations, directory: str, options: dict[str, Any], ending: _Ending) -> None:
    """Answer the kernel until it is unmounted."""
    try:
        mfusepy.FUSE(operations, directory, raw_fi=True, foreground=True, **options)
    except RuntimeError:
        pass  # libfuse has said it
    finally:
        ending.tell(_ENDED)


def _unmount(program: str, directory: str) -> None:
    """Unmount; where a program has something open, or stands there, it may go on, and nobody else gets in."""
    for how in ("-u", "-uz"):
        done = subprocess.run([program, how, "--", directory], capture_output=True, check=False)  # noqa: S603 - ours
        if done.returncode == 0:
            return


def _drain(ending: _Ending) -> None:
    """Wait until all programs have closed what they have open, for a while, or until another signal comes.

    Those that have not get an error as the process ends.
    """
    ending.wait(DRAIN_S)
