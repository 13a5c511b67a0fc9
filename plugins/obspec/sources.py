"""Where the bytes of a `get` come from: one version of an object, and what only obstore can answer."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import PreconditionError

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.journal import Version
from jcache.origin import Info
from jcache.planning.snapshot import REPLACED, agrees
from jcache.reader.validation import offline_message
from jcache.session import current
from jcache_plugins.fsspec.access import Access
from jcache_plugins.obspec.access import Object, is_here, run_here
from jcache_plugins.obspec.calls import Asked
from jcache_plugins.obspec.results import GetResult, meta_of
from jcache_plugins.origins.base import UnsizedError, nanoseconds, reaching, strong

__all__ = ["NotOursError", "ObjectSource", "beyond", "is_answer", "result_here", "result_of", "row_of"]

Function = Callable[..., Any]


class NotOursError(Exception):
    """Only obstore itself can answer."""


def is_answer(error: Exception) -> bool:
    """Whether an error is the application's, else obstore is to be asked what it makes of it."""
    session = current()
    is_known = isinstance(error, FileNotFoundError | OfflineMissError | OriginChangedError)
    return session is not None and (session.offline or (is_known and not isinstance(error, RestlessError)))


def row_of(row: bytes | Exception) -> bytes:
    """Return bytes.

    Raises:
        NotOursError: Obstore is to be asked.
        Exception: What the application is to meet.
    """
    if isinstance(row, Exception):
        if is_answer(row):
            raise row
        raise NotOursError from row
    return row


def beyond(found: Object) -> Exception:
    """Return what is raised for a range behind the end of an object: obstore says it, unless nobody is to be asked."""
    session = current()
    if session is None or not session.offline:
        return NotOursError()
    error: Exception = obstore.exceptions.GenericError(f"{found.path}: the range lies behind the end of the object")
    return error


class Request(NamedTuple):
    """What obstore itself is asked for, in place of a part of a result.

    Attributes:
        start: From where on.
        stop: Up to where.
        is_all: Whether that is the whole result: the bytes of one answer are of one version, whichever.
        etag: On what condition, if any.
        is_plain: Whether it is the whole object, which is asked for without bounds.
    """

    start: int
    stop: int
    is_all: bool
    etag: str | None
    is_plain: bool

    def options(self, *, condition: bool = True) -> dict[str, Any]:
        """Return the options of the `get`."""
        options: dict[str, Any] = {} if self.is_plain else {"range": (self.start, self.stop)}
        return options | {"if_match": self.etag} if condition and self.etag is not None else options


class ObjectSource:
    """The bytes of one version of an object, for the result of one `get`."""

    def __init__(
        self, found: Object, access: Access, info: Info, span: tuple[int, int], originals: tuple[Function, Function]
    ) -> None:
        self._found, self._access, self._info, self._span = found, access, info, span
        self._get, self._get_async = originals
        # The whole result, of an object that is another one each time that its server is asked.
        self._all: bytes | None = None

    async def read(self, start: int, stop: int) -> bytes:
        """Return the bytes in [start, stop)."""
        if start >= stop or self._all is not None:
            return self._of_all(start, stop)
        try:
            return await self._row(start, stop)
        except NotOursError as error:
            request = self._request(start, stop, error.__cause__)
        store, path = self._found.store, self._found.path
        with reaching():
            try:
                answer = await self._get_async(store, path, options=request.options())
            except PreconditionError:  # some servers refuse whatever has a condition
                answer = await self._get_async(store, path, options=request.options(condition=False))
        self._check(request, answer)
        return self._taken(request, (await answer.bytes_async()).to_bytes(), start, stop)

    def read_now(self, start: int, stop: int) -> bytes:
        """Do so in synchronous code."""
        if start >= stop or self._all is not None:
            return self._of_all(start, stop)
        rows = None
        with contextlib.suppress(Exception):  # whatever it is, the bytes are not here
            rows = self._access.try_read([(start, stop)], vector=False, version=self._info.version)
        if rows is not None and len(rows[0]) == stop - start:
            return rows[0]
        cause = None
        if not is_here():
            try:
                return run_here(self._row(start, stop))
            except NotOursError as error:
                cause = error.__cause__
        request = self._request(start, stop, cause)
        store, path = self._found.store, self._found.path
        with reaching():
            try:
                answer = self._get(store, path, options=request.options())
            except PreconditionError:  # some servers refuse whatever has a condition
                answer = self._get(store, path, options=request.options(condition=False))
        self._check(request, answer)
        return self._taken(request, answer.bytes().to_bytes(), start, stop)

    def _request(self, start: int, stop: int, cause: BaseException | None) -> Request:
        """Return what obstore is asked for where the cache cannot tell: of what never stays the same, all at once."""
        version = self._info.version
        is_all = isinstance(cause, RestlessError | UnsizedError) and start == self._span[0]
        start, stop = self._span if is_all else (start, stop)
        etag = None if is_all else version.etag
        return Request(start, stop, is_all, etag, stop - start == version.size_bytes)

    def _check(self, request: Request, answer: Any) -> None:
        """Raise an error where the answer may be of another version than the bytes before it."""
        meta, version = answer.meta, self._info.version
        now = Version(meta["size"], mtime_ns=nanoseconds(meta["last_modified"]) or None, etag=strong(meta["e_tag"]))
        is_same = now.size_bytes == version.size_bytes if request.is_all else agrees(version, now)
        if not is_same:
            raise OriginChangedError(REPLACED)

    def _taken(self, request: Request, data: bytes, start: int, stop: int) -> bytes:
        """Return a part out of an answer, which is counted as read past the cache."""
        session, nbytes = current(), len(data)
        if session is not None:
            asked = request.start, request.start + nbytes
            session.counters.read(nbytes, 0, 0, nbytes, url=self._found.identity.url, asked=asked)
            session.counters.origin(requests=1, nbytes=nbytes)
        if not request.is_all:
            return data
        self._all = data
        return self._of_all(start, stop)

    def _of_all(self, start: int, stop: int) -> bytes:
        first = self._span[0]
        return (self._all or b"")[start - first : stop - first] if start < stop else b""

    async def _row(self, start: int, stop: int) -> bytes:
        try:
            row = (await self._access.read([(start, stop)], vector=False, version=self._info.version))[0]
        except Exception as error:
            if is_answer(error):
                raise
            raise NotOursError from error
        if len(data := row_of(row)) != stop - start:
            raise NotOursError
        return data

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that the store told with the version, or tells now."""
        told = getattr(self._access.origin, "attributes", None)
        if told is None:
            session = current()
            if session is not None and session.offline:
                raise OfflineMissError(offline_message(self._found.identity.url, "its attributes are not recorded"))
            with reaching():
                told = self._get(self._found.store, self._found.path, options={"head": True}).attributes
        return dict(told)


async def result_of(found: Object, asked: Asked, originals: tuple[Function, Function]) -> GetResult:
    """Return the result of a `get`, whose version is known and whose bytes are not read yet.

    Of an object that nothing is recorded of, one request tells the version and brings the bytes.

    Raises:
        NotOursError: Obstore is to be asked.
        Exception: Whatever the application is to meet.
    """
    access = found.access(coalesce=asked.coalesce)
    try:
        info = access.open_here()
        if info is None:
            if not await access.is_known():
                access = found.access(coalesce=asked.coalesce, begins=asked.options)
            info = await access.open()
    except Exception as error:
        if is_answer(error):
            raise
        raise NotOursError from error
    return _made(found, asked, access, info, originals)


def result_here(found: Object, asked: Asked, originals: tuple[Function, Function]) -> GetResult | None:
    """Do so on the caller's thread, where the version was validated before; None where it must be asked for."""
    access, info = found.access(coalesce=asked.coalesce), None
    with contextlib.suppress(Exception):  # whatever it is, the version is not known here
        info = access.open_here()
    return None if info is None else _made(found, asked, access, info, originals)


def _made(found: Object, asked: Asked, access: Access, info: Info, originals: tuple[Function, Function]) -> GetResult:
    span = asked.span(info.version.size_bytes)
    if span is None:
        raise beyond(found)
    return GetResult(meta_of(found.path, info), span, ObjectSource(found, access, info, span, originals))
