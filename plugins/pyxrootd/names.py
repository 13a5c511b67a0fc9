"""What `FileSystem.stat`, `dirlist` and `query` do besides: remember, and where that is enough, not ask."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from XRootD.client.flags import QueryCode
from XRootD.client.responses import StatInfo

from jcache.errors import OfflineMissError
from jcache.session import current
from jcache_plugins.fsspec.access import named, on_loop_of, run
from jcache_plugins.fsspec.answers import Question, question
from jcache_plugins.fsspec.noted import noting
from jcache_plugins.fsspec.reads import find
from jcache_plugins.pyxrootd.callbacks import answer
from jcache_plugins.pyxrootd.opening import attempt, is_alone
from jcache_plugins.pyxrootd.plain import SYSTEM, is_passed
from jcache_plugins.pyxrootd.statuses import (
    as_listing,
    as_status,
    is_said,
    listing_of,
    refused,
    stat_of,
    success,
)
from jcache_plugins.pyxrootd.systems import system_of

__all__ = ["METHODS"]

# What servers take in a vector by default, by the query for that.
LIMITS = "readv_iov_max readv_ior_max"
DEFAULT_LIMITS = b"1024\n2097136\n"


class Kind(NamedTuple):
    """One kind of question.

    Attributes:
        name: What fsspec calls it.
        values: Makes plain values of a response, one or more.
        response: Makes a response of those.
    """

    name: str
    values: Callable[[Any], list[Any]]
    response: Callable[[list[Any]], Any]


STAT = Kind("info", lambda said: [dict(vars(said))], lambda values: StatInfo(dict(values[0])))
LISTING = Kind("ls", listing_of, as_listing)
QUERY = Kind("query", lambda said: [bytes(said)], lambda values: values[0])


def stat(self: Any, path: Any, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `stat`."""
    plainly = functools.partial(SYSTEM["stat"], self, path, timeout)
    caller = sys._getframe(1)  # noqa: SLF001 - the way to one's callers
    return plainly(callback) if is_passed(caller) else told(self, STAT, path, plainly, callback)


def dirlist(self: Any, path: Any, flags: Any = 0, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `dirlist`."""
    plainly = functools.partial(SYSTEM["dirlist"], self, path, flags, timeout)
    caller = sys._getframe(1)  # noqa: SLF001 - the way to one's callers
    return plainly(callback) if is_passed(caller) else told(self, LISTING, path, plainly, callback, flags=flags)


def query(self: Any, querycode: Any, arg: Any, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `query`: how a server is set up is remembered, and nothing else that it is asked for."""
    plainly = functools.partial(SYSTEM["query"], self, querycode, arg, timeout)
    caller = sys._getframe(1)  # noqa: SLF001 - the way to one's callers
    is_ours = querycode == QueryCode.CONFIG and isinstance(arg, str) and not is_passed(caller)
    return told(self, QUERY, "/", plainly, callback, config=arg) if is_ours else plainly(callback)


def told(system: Any, kind: Kind, path: Any, plainly: Callable[[Any], Any], callback: Any, **options: Any) -> Any:
    """Answer a question about a name, without the server where that may be.

    Args:
        system: What is asked.
        kind: What the question is.
        path: The name.
        plainly: Asks, given a callback.
        callback: What is called with the answer, if anything is.
        options: What else the call says.
    """
    fs = attempt(lambda: system_of(system))
    is_ours = fs is not None and isinstance(path, str) and not (callback and not callable(callback))
    if not is_ours or on_loop_of(fs):
        return plainly(callback)
    session, is_hit = current(), False
    is_profiled = session is not None and session.counters.profile is not None
    noted = noting(fs, kind.name, path) if is_profiled else None
    try:
        ask = attempt(lambda: question(kind.name, path, {**options, "of": "pyxrootd"}, named(fs, path)))
        if ask is not None and (ask.is_offline or ask.trusts or (session is not None and session.trusts_unreachable)):
            try:
                value = attempt(lambda: run(fs, remembered(fs, kind, ask, path, options)))
            except OfflineMissError as error:
                return answer(refused(error), None, callback, success())
            if value is not None:
                is_hit = True
                status, values = value
                response = kind.response(values) if values else None
                return answer(as_status(status), response, callback, success())
        return taking_note(kind, ask, plainly, callback)
    finally:
        if noted is not None:
            noted.end(hit=is_hit)


async def remembered(
    fs: Any, kind: Kind, ask: Question, path: str, options: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]] | None:
    """Return the fields of a status, and plain values of a response; None where the server is to be asked.

    Raises:
        OfflineMissError: It must not be asked.
    """
    known = await ask.known_soon()
    status, values = (known[0], known[1:]) if isinstance(known, list) and known else (None, [])
    found = find(fs, path)
    alone = ask.is_offline or (found is not None and await is_alone(found))
    if kind is STAT and found is not None and (values or alone):
        try:
            stored = await found.stored()
            if stored is None and alone and await found.is_known():
                stored = await found.stat()
        except OfflineMissError:
            stored = None
        if stored is not None:  # it is never older than what was told
            return vars(success()), [stat_of(stored, *values)]
    if status is not None:
        return status, values
    if alone and options.get("config") == LIMITS:
        return vars(success()), [DEFAULT_LIMITS]  # nobody is there who would refuse
    if ask.is_offline:
        raise ask.missed()
    return None


def taking_note(kind: Kind, ask: Question | None, plainly: Callable[[Any], Any], callback: Any) -> Any:
    """Ask, and have the answer recorded."""

    def note(status: Any, response: Any) -> None:
        if ask is not None and is_said(status):
            ask.note([dict(vars(status)), *(kind.values(response) if status.ok else ())])

    if callback:

        def noting_callback(status: Any, response: Any, hosts: Any) -> None:
            attempt(lambda: note(status, response))
            callback(status, response, hosts)

        return plainly(noting_callback)
    status, response = plainly(None)
    attempt(lambda: note(status, response))
    return status, response


METHODS: dict[str, Callable[..., Any]] = {"stat": stat, "dirlist": dirlist, "query": query}
