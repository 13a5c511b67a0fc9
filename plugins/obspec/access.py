"""One path of one store, read through the session."""

import contextlib
import contextvars
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from jcache.naming import Identity, Unidentifiable
from jcache.naming.asking import who_asks
from jcache.naming.identity import identify
from jcache.reader.remote import Span
from jcache.session import Session, current
from jcache.settings.policy import Terms
from jcache.settings.rules import naming
from jcache_plugins.fsspec.access import Access, on_loop_of, run
from jcache_plugins.fsspec.answers import Question, question
from jcache_plugins.obspec.origin import NoFileSystem, StoreOrigin
from jcache_plugins.obspec.places import Place, place_of
from jcache_plugins.origins.base import FileSystemOrigin, UnsizedError, beside, within_origin

__all__ = ["Object", "find", "find_soon", "is_here", "known", "run_here", "shortened", "through"]

T = TypeVar("T")

# How many paths of one store keep what was worked out for them.
PATHS = 4096

# The cache directory by which code that is under way reads; None for JCACHE_DIR.
_directory: contextvars.ContextVar[str | None] = contextvars.ContextVar("jcache_obspec_directory", default=None)


@contextlib.contextmanager
def through(directory: str | None) -> Iterator[None]:
    """Have reads from stores that are made inside go through a cache directory; JCACHE_DIR for None."""
    token = _directory.set(directory)
    try:
        yield
    finally:
        _directory.reset(token)


class Object(NamedTuple):
    """One object of a store, and what holds for it."""

    store: Any
    place: Place
    path: str
    identity: Identity
    terms: Terms | None
    directory: str | None

    def access(self, *, coalesce: int = 0, begins: Any = None) -> Access:
        """Return the way to it for one call; the arguments are those of `StoreOrigin`."""
        origin = StoreOrigin(self.store, self.place, self.path, self.identity, coalesce=coalesce, begins=begins)
        return StoreAccess(cast("FileSystemOrigin", origin), self.directory, terms=self.terms)

    def question(self, kind: str) -> Question | None:
        """Return a question about its name; None where no answer to it is remembered."""
        if self.directory is not None:
            return None
        return question(kind, self.path, {}, (self.identity, self.terms))


class StoreAccess(Access):
    """The way to one object, for one call."""

    __slots__ = ()

    def _note_absent(self, error: Exception, epoch: int) -> None:
        super()._note_absent(shortened(error), epoch)

    async def read_past(self, spans: Sequence[Span]) -> list[bytes | Exception]:  # noqa: ARG002 - as its base
        """Leave it to who reads: one result may have been given bytes of one version already.

        Raises:
            UnsizedError: Always.
        """
        raise UnsizedError(self.identity.url)


def shortened(error: Exception) -> Exception:
    """Return an error of obstore's as it may be recorded: without the server's answer, and the URL that was asked."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(str(error).partition(": Error performing")[0])
    return error


class _Known:
    """What was worked out for the paths of one store, under the settings of one session."""

    def __init__(self, store: Any) -> None:
        self.place: Place | None = None
        self.policy: object = None
        self.paths: dict[str, tuple[Identity, Terms | None] | None] = {}
        try:
            self.place = place_of(store)
        except Exception as error:  # noqa: BLE001 - whatever is odd about a store, it is read as it is
            if (session := current()) is not None:
                what = error if isinstance(error, Unidentifiable) else f"{type(store).__name__}: {error!r}"
                session.trouble(f"{what}; such objects are not cached")

    def look_up(self, session: Session, path: str) -> tuple[Identity, Terms | None] | None:
        """Return which object a path means, and what holds for it; None where that cannot be told."""
        if self.policy is not session.policy:
            self.policy, self.paths = session.policy, {}
        try:
            return self.paths[path]
        except KeyError:
            found = self._work_out(session, path)
        if len(self.paths) >= PATHS:
            self.paths.clear()
        self.paths[path] = found
        return found

    def _work_out(self, session: Session, path: str) -> tuple[Identity, Terms | None] | None:
        place, chosen = self.place, session.config.protocols
        name = None if place is None else place.path(path)
        if place is None or name is None or (chosen and set(chosen).isdisjoint(place.protocols)):
            return None
        protocol = name.partition(":")[0] if place.is_http else place.protocols[0]
        config = session.config
        try:
            identity = identify(
                protocol,
                name,
                place.options,
                environ=place.environ,
                asker=who_asks(place.options, place.environ),
                **naming(session.policy.rules, flat=config.flat, basepath=config.basepath),
            )
        except Unidentifiable as error:
            session.trouble(f"{error}; such files are not cached")
            return None
        return identity, session.terms(identity)


def known(store: Any, path: Any) -> Object | None:
    """Return the object that a path means, whether or not it is cached just now; None where it cannot be told."""
    session = current()
    if session is None or not isinstance(path, str):
        return None
    try:
        of_store = beside(store, _Known)
    except TypeError:
        return None  # nothing can be noted of it: none of obstore's own
    found = of_store.look_up(session, path)
    if found is None or of_store.place is None:
        return None
    return Object(store, of_store.place, path, *found, _directory.get())


def find(store: Any, path: Any) -> Object | None:
    """Return the object that a call is about; None where the call goes past the cache."""
    session = current()
    if session is None or within_origin():
        return None
    if session.counters.profile is not None:
        session.counters.profile.from_here()
    if session.bypassed is not None:
        return None
    if session.late:
        session.catch_up()
    found = known(store, path)
    if found is None or (found.terms is not None and found.terms.exclude):
        return None
    return None if session.caches.get(found.directory) is None else found


async def find_soon(store: Any, path: Any) -> Object | None:
    """Do as `find` does, without blocking the event loop while the cache directory is made and checked."""
    session = current()
    if session is not None and not within_origin():
        await session.caches.prepare(_directory.get())
    return find(store, path)


def is_here() -> bool:
    """Whether the caller runs on the very loop that would have to do the work: it must not wait for it."""
    return on_loop_of(NoFileSystem)


def run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from synchronous code, and wait for it."""
    return run(NoFileSystem, coroutine)
