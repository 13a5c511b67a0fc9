"""Where the bytes of a `get` come from: one version of an object, and what only obstore can answer."""

from collections.abc import Callable
from typing import Any

import obstore

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.planning.snapshot import REPLACED
from jcache.reader.validation import offline_message
from jcache.session import current
from jcache_plugins.fsspec.access import Access
from jcache_plugins.obspec.access import Object, is_here, run_here
from jcache_plugins.obspec.calls import Asked
from jcache_plugins.obspec.results import GetResult, meta_of
from jcache_plugins.origins.base import reaching

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


class ObjectSource:
    """The bytes of one version of an object, for the result of one `get`."""

    def __init__(self, found: Object, access: Access, info: Info, originals: tuple[Function, Function]) -> None:
        self._found, self._access, self._info = found, access, info
        self._get, self._get_async = originals

    async def read(self, start: int, stop: int) -> bytes:
        """Return the bytes in [start, stop)."""
        if start >= stop:
            return b""
        try:
            return await self._row(start, stop)
        except NotOursError:
            with reaching():
                answer = await self._get_async(self._found.store, self._found.path, options=self._part(start, stop))
            self._check(answer)
            data: bytes = (await answer.bytes_async()).to_bytes()
            return data

    def read_now(self, start: int, stop: int) -> bytes:
        """Do so in synchronous code."""
        if start >= stop:
            return b""
        rows = self._access.try_read([(start, stop)], vector=False, version=self._info.version)
        if rows is not None and len(rows[0]) == stop - start:
            return rows[0]
        if not is_here():
            try:
                return run_here(self._row(start, stop))
            except NotOursError:
                pass
        with reaching():
            answer = self._get(self._found.store, self._found.path, options=self._part(start, stop))
        self._check(answer)
        data: bytes = answer.bytes().to_bytes()
        return data

    def _part(self, start: int, stop: int) -> dict[str, Any]:
        return {} if stop - start == self._info.version.size_bytes else {"range": (start, stop)}

    def _check(self, answer: Any) -> None:
        if answer.meta["size"] != self._info.version.size_bytes:
            raise OriginChangedError(REPLACED)

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
    access = found.access(coalesce=asked.coalesce)
    info = access.open_here()
    return None if info is None else _made(found, asked, access, info, originals)


def _made(found: Object, asked: Asked, access: Access, info: Info, originals: tuple[Function, Function]) -> GetResult:
    span = asked.span(info.version.size_bytes)
    if span is None:
        raise beyond(found)
    return GetResult(meta_of(found.path, info), span, ObjectSource(found, access, info, originals))
