"""The access log, in the common format, without secrets; whoever reads it slowly holds no request up."""

import collections
import errno
import os
import re
import sys
import threading
import time
from typing import TextIO
from urllib.parse import unquote

from jcache.naming.credentials import is_secret

__all__ = ["AccessLog", "shown"]

# How many lines wait for whoever reads the log; beyond that they are lost, and counted.
WAITING_LINES = 10_000
MAX_LENGTH = 2048
END_S = 2.0
_USER = re.compile(r"(//)[^/?#]*@")


def shown(target: str) -> str:
    """Return a request target as it may be kept: without secrets, a user, and control characters."""
    where, mark, query = _USER.sub(r"\1***@", target[: 2 * MAX_LENGTH]).partition("?")
    items = []
    for item in query.split("&") if mark else ():
        name, equals, _ = item.partition("=")
        items.append(f"{name}=***" if equals and is_secret(unquote(name)) else item)
    text = where + mark + "&".join(items)
    text = "".join(
        char if char.isprintable() and char.isascii() and char not in '"\\' else f"\\x{ord(char) & 0xFF:02x}"
        for char in text
    )
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


class AccessLog:
    """Writes lines from a thread of its own.

    Attributes:
        lost: How many lines could not wait any more.
    """

    def __init__(self, path: str) -> None:
        """Open a file to add to it.

        Args:
            path: The file; `-` for stdout.

        Raises:
            OSError: It cannot be opened.
        """
        self.lost = 0
        if path == "-" and sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "stdout")
        self._file: TextIO = sys.stdout if path == "-" else open(path, "a", encoding="utf-8")  # noqa: SIM115 - until `close`
        self._lines: collections.deque[str] = collections.deque()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="jcache-access-log", daemon=True)
        self._thread.start()

    def note(self, peer: str, line: str, target: str, *, status: int, nbytes: int) -> None:
        """Add a request that has ended.

        Args:
            peer: The client's address.
            line: The request line, with `{}` in the place of its target.
            target: As it stood there.
            status: Of the answer.
            nbytes: How long its body was, as far as it was sent.
        """
        if len(self._lines) >= WAITING_LINES:
            self.lost += 1
            return
        moment = time.strftime("%d/%b/%Y:%H:%M:%S %z")
        asked = shown(line).replace("{}", shown(target), 1)
        self._lines.append(f'{shown(peer)} - - [{moment}] "{asked}" {status} {nbytes or "-"}\n')
        self._wake.set()

    def close(self) -> None:
        """Write what is waiting, for a bounded time."""
        self._ended = True
        self._wake.set()
        self._thread.join(END_S)

    def _run(self) -> None:
        while not self._ended or self._lines:
            self._wake.wait()
            self._wake.clear()
            try:
                while self._lines:
                    self._file.write(self._lines.popleft())
                    self._file.flush()  # each line by one call: other processes may add to the file as well
            except (OSError, ValueError):
                self.lost += len(self._lines) + 1  # its disk is full, or nobody reads it any more
                self._lines.clear()
