"""What a hooked file system's `info`, `ls`, `exists`, ... do besides: remember, and where that is enough, not ask."""

import contextlib
import contextvars
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jcache.errors import OfflineMissError
from jcache.journal import Version
from jcache.origin import Info
from jcache.reader.retrying import Tries
from jcache.session import current
from jcache_plugins.fsspec import listing
from jcache_plugins.fsspec.access import Access, named, on_loop_of, require, run
from jcache_plugins.fsspec.answers import UNKNOWN, Absent, Question, is_idle, is_past, missing, question
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.fsspec.noted import noting
from jcache_plugins.fsspec.reads import find
from jcache_plugins.fsspec.writes import prepared
from jcache_plugins.origins.base import within_origin

__all__ = ["ASYNC", "MIRRORED", "SYNC", "served", "serving", "stored_info", "told"]

Method = Callable[..., Any]

# What calls say besides that asks the origin anew, whatever a file system has cached.
_ANEW = frozenset({"refresh", "invalidate_cache"})
_HTTP = "fsspec.implementations.http.HTTPFileSystem."
_XROOTD = "fsspec_xrootd.xrootd.XRootDFileSystem."
# The answers that hang on which links in a page HTTP's file system heeds.
_LISTING = frozenset({"ls", "find", "isdir"})


async def stored_info(found: Access, path: Any) -> dict[str, Any] | None:
    """Return what `info` says of a file, out of the journal; None where the origin is to be asked.

    Raises:
        OfflineMissError: The origin must not be asked.
    """
    stored = await found.stored()
    if stored is None:
        return None
    return told(stored, name_of(found, path))


def name_of(found: Access, path: Any) -> Any:
    """Return what the file system's `info` names a path."""
    return found.origin.fs._strip_protocol(undirected(path))  # noqa: SLF001 - as file systems do it


def told(info: Info, path: Any) -> dict[str, Any]:
    """Return what `info` says of a file of this version, in the origin's order where it was asked: hashes heed that."""
    details = {**({} if "name" in info.details else {"name": None}), **info.details}
    if details["name"] is None:  # only its place is recorded
        details["name"] = undirected(path)
    return {**details, "type": details.get("type", "file"), "size": info.version.size_bytes}


# What `info` says of one path of one file system to whoever is called with that.
_served: contextvars.ContextVar[tuple[Any, Any, Info] | None] = contextvars.ContextVar("jcache_served", default=None)


@contextlib.contextmanager
def serving(fs: Any, path: Any, info: Info) -> Iterator[None]:
    """Have `info` of a path, asked for inside, say what is known of it already: the origin is not asked again."""
    token = _served.set((fs, path, info))
    try:
        yield
    finally:
        _served.reset(token)


def served(fs: Any, parameters: Parameters, args: Any, kwargs: Any) -> dict[str, Any] | None:
    """Return what is known of the path that a call is about, where `serving` covers it; else None."""
    known = _served.get()
    if known is None or known[0] is not fs or (args[0] if args else kwargs.get(parameters.first)) != known[1]:
        return None
    return told(known[2], known[1])


_WITHOUT_READING = frozenset({"exists", "isdir", "ls"})


async def without_reading(found: Access, kind: str, ask: Question | None) -> tuple[Any, Version | None]:
    """Return what a stat tells of a file of which something is recorded; `UNKNOWN` where that is not enough.

    For file systems that ask for the whole file, as HTTP's does for `exists`, and to find links in a page of HTML;
    others ask as `stat` does, or less. Of a file without a type it is remembered that a version of it has no links.

    Returns:
        The answer; and, where there is none, the version that the file system's own answer is going to be of.
    """
    if not found.origin.exists_by_reading or not await found.is_known():
        return UNKNOWN, None
    if kind != "exists" and found.origin.path.endswith("/"):
        return UNKNOWN, None  # where nothing is below it, what it is without the slash is looked at
    try:
        info = await (found.origin.stat() if await found.is_got() else found.origin.stat_by_reading())
    except Exception:  # noqa: BLE001 - the file system's own method says what that means
        return UNKNOWN, None
    if info is None:
        return UNKNOWN, None
    if kind == "exists":
        return True, None
    nothing: Any = False if kind == "isdir" else []
    if info.details.get("mimetype") not in (None, "text/html"):
        return nothing, None
    if "mimetype" in info.details or info.version.etag is None or ask is None:
        return UNKNOWN, None
    if await ask.has_nothing(info.version):
        return nothing, None
    return UNKNOWN, info.version if kind == "ls" else None  # of which `isdir` is made


async def note_nothing(found: Access, ask: Question, version: Version) -> None:
    """Have recorded that there are no links in a version, if the file is still of that."""
    try:
        info = await found.origin.stat()
    except Exception:  # noqa: BLE001 - the answer is here
        return
    if info.version.etag == version.etag:
        ask.note_nothing(version)


class Again:
    """Whether a question that failed is put once more: within the bound that reads have, and not by JCache itself."""

    def __init__(self, fs: Any, path: Any) -> None:
        self._fs, self._path = fs, path
        self._tries: Tries | None = None

    async def may(self, error: Exception) -> bool:
        """Wait until it is to be put again, and return True; False where the error is the answer."""
        if self._tries is None:
            found = find(self._fs, self._path) if isinstance(self._path, str) else None
            if found is None:
                return False
            self._tries = Tries(require(), found.origin)
        cause = error.__cause__  # HTTP's file system makes an absence of any trouble that it meets
        trouble = cause if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) else error
        if not await self._tries.again(trouble):
            return False
        require().counters.origin(retries=1)
        return True


async def refusal(fs: Any, path: Any) -> Exception | None:
    """Return what the origin says of a name that is said not to be there, if that is something else."""
    found = find(fs, path) if isinstance(path, str) else None
    try:
        if found is not None:
            await found.origin.stat()
    except Exception as error:  # noqa: BLE001 - who asks judges it
        return None if is_absence(error) else error
    return None


def is_absence(error: Exception) -> bool:
    """Whether an error of XRootD's says that a name is not there (kXR_NotFound)."""
    return "[3011]" in str(error)


def path_of(kind: str, parameters: Parameters, args: Any, kwargs: Any) -> Any:
    """Return the path that a call is about; None where it says something else, too, of which the answer depends."""
    said = parameters.said(args, kwargs)
    if said is not None and kind == "ls":
        said.pop("detail", None)  # of a file without links it is the same
    return None if said is None or len(said) != 1 else said.get(parameters.first)


async def _recorded(found: Access | None, path: Any, kind: str, answer: Any) -> Any:
    """Return what a file's journal, where there is one, and the last answer together say; `UNKNOWN` for nothing.

    What is recorded of a file is never older than what was said of its name before it was read.
    """
    try:
        stored = None if found is None else await found.stored()
    except OfflineMissError:
        stored = None
    if found is None or stored is None:
        return answer
    if kind != "info":
        return True if not found.origin.exists_by_reading or await found.is_got() else answer
    if answer is not UNKNOWN and answer.get("type") == "file" and answer.get("size") == stored.version.size_bytes:
        return answer
    return told(stored, name_of(found, path))


_OF_FILES = frozenset({"info", "exists", "isfile"})


async def remembered(fs: Any, kind: str, ask: Question, path: Any) -> Any:
    """Return what is known of a name without the origin; `UNKNOWN` where it is to be asked.

    Raises:
        Exception: It was not there, or might not be read.
        OfflineMissError: Nothing is known, and the origin must not be asked.
    """
    try:
        answer = await ask.known_soon()
    except Exception as error:
        answer = UNKNOWN
        if (
            Absent.of(error) is None
            or kind not in _OF_FILES
            or path is None
            or await _recorded(find(fs, path), path, kind, UNKNOWN) is UNKNOWN
        ):
            raise
    if kind in _OF_FILES and path is not None:
        answer = await _recorded(find(fs, path), path, kind, answer)
    if answer is UNKNOWN and ask.is_offline:
        raise ask.missed()
    return answer


def asked(fs: Any, kind: str, parameters: Parameters, args: Any, kwargs: Any) -> tuple[Question | None, bool]:
    """Return the question that a call puts, and whether it wants a new answer of the origin.

    Raises:
        OfflineMissError: The origin must not be asked, and no answer to that is ever remembered.
    """
    said = parameters.said(args, kwargs)
    if said is None:
        return None, False
    listing.note(fs)
    path = said.pop(parameters.first, None)
    anew = any({name: said.pop(name) for name in _ANEW & said.keys()}.values())
    if kind in _LISTING and getattr(fs, "simple_links", True) is False:
        said["simple_links"] = False
    known = named(fs, path) if isinstance(path, str) and not is_idle() else None
    found = question(kind, path, said, known)
    if found is not None:
        found.is_doubtful = listing.is_doubtful(fs, path)
    session = current()
    is_let_through = is_idle() or (known is not None and is_past(known[1]))
    if found is None and session is not None and session.offline and not is_let_through:
        msg = f"{kind} of {type(fs).__name__}: it cannot be told what this call means, and JCACHE_OFFLINE is set"
        raise OfflineMissError(msg)
    return found, anew


def learn(fs: Any, path: str, ask: Question, value: Any) -> None:
    """Have an answer recorded; where a write has overtaken it, what the file system keeps of it is out of date, too."""
    if ask.is_overtaken:
        listing.doubt([path], of=fs)
    ask.note(value)


def async_answer(original: Method) -> Method:
    """Make a method that answers a question about a name, of an asynchronous file system."""
    parameters, kind = Parameters.of(original), original.__name__.lstrip("_")
    has_strict = _name_of(original) == _HTTP + "_exists" and parameters.defaults.get("strict") is False

    is_vague = _name_of(original) == _XROOTD + "_exists"

    async def answer(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = served(self, parameters, args, kwargs) if kind == "info" else None
        if known is not None:
            return known
        session, is_hit = current(), False
        found, version, value = None, None, UNKNOWN
        is_profiled = session is not None and session.counters.profile is not None
        noted = noting(self, kind, args[0] if args else kwargs.get(parameters.first)) if is_profiled else None
        try:
            await prepared(self)
            ask, anew = asked(self, kind, parameters, args, kwargs)
            path = path_of(kind, parameters, args, kwargs)
            if ask is not None and (ask.is_offline or (ask.trusts and not anew)):
                is_hit = True
                value = await remembered(self, kind, ask, path)
                if value is not UNKNOWN:
                    return value
                is_hit = False
            elif kind in _WITHOUT_READING and path is not None:
                found = find(self, path)
                if found is not None:
                    value, version = await without_reading(found, kind, ask)
                if value is not UNKNOWN:
                    if ask is not None:
                        ask.note(value)
                    return value
            # HTTP's `exists` takes any trouble for an absence, unless it is told not to.
            is_strict = has_strict and ask is not None and path is not None
            again = Again(self, path)
            while True:
                try:
                    value = await (original(self, path, strict=True) if is_strict else original(self, *args, **kwargs))
                    # XRootD's takes whatever the server says for an absence: that one may not, say.
                    trouble = await refusal(self, path) if is_vague and value is False else None
                    if trouble is None:
                        break
                    if await again.may(trouble):
                        continue
                    if ask is not None:
                        ask.note_doubtful(value)
                    return value
                except Exception as error:
                    if await again.may(error):
                        continue
                    if ask is not None:
                        ask.note_error(error, made_of_it=False if is_strict else None)
                    if is_strict and isinstance(error, sys.modules["aiohttp"].ClientError):
                        return False
                    raise
            if ask is not None:
                learn(self, args[0] if args else kwargs[parameters.first], ask, value)
                if found is not None and version is not None and not value:
                    await note_nothing(found, ask, version)
            return value
        finally:
            if noted is not None:
                noted.end(hit=is_hit)

    return answer


def sync_answer(original: Method) -> Method:
    """Make a method that answers a question about a name, of a synchronous file system."""
    parameters, kind = Parameters.of(original), original.__name__

    def answer(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = served(self, parameters, args, kwargs) if kind == "info" else None
        if known is not None:
            return known
        session, is_hit = current(), False
        is_profiled = session is not None and session.counters.profile is not None
        noted = noting(self, kind, args[0] if args else kwargs.get(parameters.first)) if is_profiled else None
        try:
            ask, anew = (None, False) if on_loop_of(self) else asked(self, kind, parameters, args, kwargs)
            if ask is not None and (ask.is_offline or (ask.trusts and not anew)):
                is_hit = True
                value = run(self, remembered(self, kind, ask, path_of(kind, parameters, args, kwargs)))
                if value is not UNKNOWN:
                    return value
                is_hit = False
            again = Again(self, path_of(kind, parameters, args, kwargs))
            while True:
                try:
                    value = original(self, *args, **kwargs)
                    break
                except Exception as error:
                    if not on_loop_of(self) and run(self, again.may(error)):
                        continue
                    if ask is not None:
                        ask.note_error(error)
                    raise
            if ask is not None:
                learn(self, args[0] if args else kwargs[parameters.first], ask, value)
            return value
        finally:
            if noted is not None:
                noted.end(hit=is_hit)

    return answer


# -- what fsspec makes of those, and where it swallows their errors -------------------------------------------------


@contextlib.contextmanager
def honest() -> Iterator[None]:
    """Raise what was swallowed inside: that nothing is known where the origin must not be asked is no answer."""
    if not is_alone():
        yield
        return
    misses: list[OfflineMissError] = []
    with missing(misses):
        yield
    if misses:
        raise misses[-1]


def is_alone() -> bool:
    """Whether the origin must not be asked."""
    session = current()
    return session is not None and session.offline and not within_origin()


def is_composed(original: Method) -> bool:
    """Whether a method is fsspec's own, which is made of others that are hooked."""
    return original.__module__ in ("fsspec.asyn", "fsspec.spec") or _name_of(original) == _HTTP + "_isfile"


def _name_of(original: Method) -> str:
    return f"{original.__module__}.{original.__qualname__}"


def async_made(original: Method) -> Method:
    """Make a method that may be made of others: then those remember, and this one says what they could not."""
    if not is_composed(original):
        return async_answer(original)

    async def made(self: Any, *args: Any, **kwargs: Any) -> Any:
        with honest():
            return await original(self, *args, **kwargs)

    return made


def sync_made(original: Method) -> Method:
    """Do as `async_made` does, for synchronous file systems."""
    if not is_composed(original):
        return sync_answer(original)

    def made(self: Any, *args: Any, **kwargs: Any) -> Any:
        with honest():
            return original(self, *args, **kwargs)

    return made


_END: Any = object()


def walk(original: Method) -> Method:
    """Make `walk`, which leaves out what it cannot list; that is raised behind what it can."""

    def honestly(found: Iterator[Any]) -> Iterator[Any]:
        misses: list[OfflineMissError] = []
        while True:
            with missing(misses):  # and not of what the caller asks in between
                item = next(found, _END)
            if item is _END:
                break
            yield item
        if misses:
            raise misses[-1]

    def walk_hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        return honestly(found) if is_alone() else found

    return walk_hooked


def async_walk(original: Method) -> Method:
    """Make `_walk`; see `walk`."""
    if not inspect.isasyncgenfunction(original):
        return original

    async def walk_hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        misses: list[OfflineMissError] = []
        found = original(self, *args, **kwargs)
        is_honest = is_alone()
        while True:
            with missing(misses):
                item = await anext(found, _END)
            if item is _END:
                break
            yield item
        if misses and is_honest:
            raise misses[-1]

    return walk_hooked


def mirrored_info(fs: Any, plain: Method) -> Method:
    """Make the `info` that fsspec binds to an asynchronous instance: for `serving` it never crosses to the loop."""
    parameters = Parameters.of(getattr(type(fs), "_info"))  # noqa: B009 - fsspec's asynchronous interface

    def info(*args: Any, **kwargs: Any) -> Any:
        known = served(fs, parameters, args, kwargs)
        return plain(*args, **kwargs) if known is None else known

    return info


# -- connections --------------------------------------------------------------------------------------------------


class Unconnected:
    """Stands where a connection would be while the origin must not be asked."""

    def close(self) -> None:
        """Close nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        msg = f"{name}: JCACHE_OFFLINE is set, and this is not in the cache"
        raise OfflineMissError(msg)


def connect(original: Method) -> Method:
    """Make `_connect` of a file system that connects as it is made: not where the origin must not be asked."""

    def _connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = current()
        if session is None or not session.offline or session.bypassed is not None or session.caches.get() is None:
            return original(self, *args, **kwargs)
        self.ftp = self.client = Unconnected()
        return None

    return _connect


ASYNC: dict[str, Callable[[Method], Method]] = {
    **dict.fromkeys(("_info", "_ls"), async_answer),
    **dict.fromkeys(("_exists", "_isfile", "_isdir", "_find"), async_made),
    "_glob": lambda original: async_made(original) if is_composed(original) else original,
    "_walk": async_walk,
}
SYNC: dict[str, Callable[[Method], Method]] = {
    **dict.fromkeys(("info", "ls"), sync_answer),
    **dict.fromkeys(("exists", "isfile", "isdir", "find"), sync_made),
    "glob": lambda original: sync_made(original) if is_composed(original) else original,
    "walk": walk,
    "_connect": connect,
}
MIRRORED: dict[str, Callable[[Any, Method], Method]] = {"info": mirrored_info}
