"""One `File` that is open for reading: which version it reads, by which way, and what of it the server has open."""

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.journal import Version
from jcache.origin import Info
from jcache.planning.snapshot import REPLACED, agrees
from jcache.reader.validation import offline_message
from jcache.session import current
from jcache_plugins.fsspec.access import Access, run
from jcache_plugins.fsspec.reads import measured
from jcache_plugins.origins.base import beside
from jcache_plugins.origins.handles import OpenFiles
from jcache_plugins.pyxrootd.lines import Lines
from jcache_plugins.pyxrootd.plain import FILE
from jcache_plugins.pyxrootd.statuses import refused, success, version_in
from jcache_plugins.pyxrootd.systems import Place

__all__ = ["CLOSED", "ExpiredError", "Reading", "begin", "end", "let_all_go", "reading_of"]

Span = tuple[int, int]

CLOSED = ValueError("I/O operation on closed file")


class ExpiredError(Exception):
    """A read has taken longer than the application would wait."""


class Reading:
    """What JCache keeps of an open `File`; it does not refer to it.

    Attributes:
        place: The file.
        access: The way to the journal; None where reads go past the cache, and are counted.
        info: The version that is read; of no meaning without `access`.
        is_past: Whether it is read past the cache from the beginning, and counted.
        told: What the server told of the file when it was open: properties by name, and `stat`.
        is_real: Whether it is open at the server; else it is opened there once somebody needs that.
        lines: Where reading by lines is.
    """

    __slots__ = (
        "_arguments",
        "_is_ended",
        "_is_served",
        "_lock",
        "access",
        "info",
        "is_past",
        "is_real",
        "lines",
        "place",
        "told",
    )

    def __init__(
        self,
        place: Place,
        *,
        access: Access | None,
        info: Info | None,
        told: dict[str, Any] | None = None,
        arguments: tuple[Any, ...] | None = None,
    ) -> None:
        """Begin.

        Args:
            place: See the class.
            access: Likewise.
            info: Likewise.
            told: Likewise.
            arguments: What opens it at the server; None where it is open there.
        """
        self.place = place
        self.access = None if info is None else access
        self.is_past = self.access is None
        self.info = info
        self.told = told or {}
        self.is_real = arguments is None
        self._arguments = arguments or ()
        self._is_ended = self._is_served = False
        self._lock = threading.Lock()
        self.lines = Lines()

    @property
    def version(self) -> Version:
        """The version that is read."""
        return Version(0) if self.info is None else self.info.version

    def open_really(self, file: Any) -> Any:
        """Have the file open at the server, and return the client's status; one that was closed stays closed.

        Raises:
            OfflineMissError: The server must not be asked.
            OriginChangedError: It has another version by now, and bytes of this one were delivered.
        """
        with self._lock:
            if self._is_ended:
                return refused(CLOSED)
            if self.is_real:
                return success()
            session = current()
            if session is not None and session.offline and session.bypassed is None and self.access is not None:
                url = self.access.identity.url
                raise OfflineMissError(offline_message(url, "what was asked of this file is not in the cache"))
            status = FILE["open"](file, *self._arguments)[0]
            if status.ok:
                self.is_real = True
                self.prove(file, force=False)
            return status

    def end(self) -> None:
        """Open it no more: whatever the `File` is from now on, it is another one."""
        with self._lock:
            self._is_ended = True

    def prove(self, file: Any, *, force: bool, timeout: int = 0) -> None:
        """Hold the version against the one that is open at the server; go past the cache where it is another one.

        Args:
            file: What is open.
            force: Whether to ask the server, or only what it said when it opened the file.
            timeout: So many seconds that may take; 0 for as long as the client has it.

        Raises:
            OriginChangedError: It is another one, and bytes of this one were delivered.
        """
        if self.access is None:
            return
        status, told = FILE["stat"](file, force, timeout)
        if status.ok and agrees(self.version, version_in(told)):
            return
        if self._is_served:
            raise OriginChangedError(REPLACED)
        self.access = None

    # -- through the journal --------------------------------------------------------------------------------

    def try_read(self, spans: Sequence[Span], *, vector: bool) -> list[bytes] | None:
        """Read what the journal has, on the caller's thread; None where the server is needed."""
        access = self.access
        if access is None or current() is None:
            return None
        rows = access.try_read(spans, vector=vector, version=self.version)
        return rows if rows is not None and self._is_whole(spans, rows) else None

    async def read(self, spans: Sequence[Span], *, vector: bool, timeout: int = 0) -> list[bytes]:  # noqa: ASYNC109 - pyxrootd's
        """Read from journal and server.

        Raises:
            ExpiredError: It would take longer than `timeout` seconds; 0 is for as long as the client has it.
            Exception: What a range met.
        """
        access = self.access
        assert access is not None, "asked only of what is read through the journal"
        try:
            async with asyncio.timeout(timeout or None) as limit:
                rows = await access.read(spans, vector=vector, version=self.version)
        except TimeoutError:
            if limit.expired():
                raise ExpiredError from None
            raise
        found = [row for row in rows if isinstance(row, bytes)]
        if len(found) < len(rows):
            raise next(row for row in rows if isinstance(row, Exception))
        if not self._is_whole(spans, found):
            raise OriginChangedError(REPLACED)
        return found

    def read_now(self, spans: Sequence[Span], *, vector: bool, timeout: int = 0) -> list[bytes]:
        """Do as `read` does, from synchronous code."""
        return run(self.place.fs, self.read(spans, vector=vector, timeout=timeout))

    def _is_whole(self, spans: Sequence[Span], rows: Sequence[bytes]) -> bool:
        if any(len(row) != stop - start for (start, stop), row in zip(spans, rows, strict=True)):
            return False
        self._is_served = self._is_served or any(rows)
        return True

    # -- past it ----------------------------------------------------------------------------------------------

    def read_past(
        self, file: Any, plainly: Callable[[], Any], *, vector: bool, spans: Sequence[Span] = (), timeout: int = 0
    ) -> Any:
        """Read as pyxrootd does, and return its status and response; what is no read of the same version is none.

        Args:
            file: What is open.
            plainly: Reads it.
            vector: Whether that is a vector read.
            spans: Which ranges it reads, where that is known.
            timeout: That of `prove`.

        Raises:
            OfflineMissError: The server must not be asked.
            OriginChangedError: It has another version by now, and bytes of this one were delivered.
        """
        status = self.open_really(file)
        if not status.ok:
            return status, None
        started_s = time.monotonic()
        status, response = plainly()
        if status.ok:
            self.prove(file, force=True, timeout=timeout)
            self.count(response, vector=vector, spans=spans, seconds=time.monotonic() - started_s)
        return status, response

    def count(self, response: Any, *, vector: bool, spans: Sequence[Span] = (), seconds: float = 0.0) -> None:
        """Count what was read past the cache."""
        data = response or b""
        if vector:
            data = [chunk.buffer for chunk in response.chunks]
        ranges = len(data) if vector else 0
        measured(self.place.fs, self.place.path, data, ranges=ranges, spans=spans, seconds=seconds)


# By address: a subclass may be no key of a dictionary.
_readings: dict[int, tuple["weakref.ref[Any]", Reading]] = {}


def begin(file: Any, reading: Reading) -> None:
    """Have a file read so until it is closed, or goes."""
    key = id(file)
    _readings[key] = weakref.ref(file, lambda gone: _forget(key, gone)), reading


def _forget(key: int, gone: Any) -> None:
    known = _readings.get(key)
    if known is not None and known[0] is gone:
        _readings.pop(key, None)


def reading_of(file: Any) -> Reading | None:
    """Return how a file is read; None where pyxrootd has it for itself."""
    known = _readings.get(id(file))
    return known[1] if known is not None and known[0]() is file else None


def end(file: Any) -> Reading | None:
    """Keep nothing more of a file, at the server neither, and return what was kept."""
    reading = reading_of(file)
    if reading is not None:
        _readings.pop(id(file), None)
        reading.end()
        place = reading.place
        others = (other.place for _, other in list(_readings.values()))
        if not reading.is_past and not any(other.path == place.path and other.fs is place.fs for other in others):
            beside(place.fs, OpenFiles).let_go([place.path], below=False)
    return reading


def let_all_go() -> None:
    """Keep nothing more of any file, and have those open at the server that an application has open."""
    for reference, reading in list(_readings.values()):
        file = reference()
        if file is not None and not reading.is_real:
            with contextlib.suppress(Exception):  # it must not be asked, or is not there
                reading.open_really(file)
    _readings.clear()
