"""Questions about names (`ls`, `info`, `exists`, ...), and what of their answers is remembered and served again."""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import functools
from typing import TYPE_CHECKING, Any

from jcache.errors import OfflineMissError
from jcache.reader.validation import offline_message
from jcache.recording.exact import decode
from jcache.session import Session, current
from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.origins.base import within_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jcache.journal import Version
    from jcache.naming import Identity
    from jcache.reader.answers import Answer
    from jcache.settings.policy import Terms

__all__ = ["UNKNOWN", "Absent", "NoFile", "Question", "is_idle", "is_past", "missing", "question"]

UNKNOWN: Any = object()
_PLAIN = (str, int, bool, float, type(None))
_FORBIDDEN, _GONE = 403, (404, 410)
_REFUSALS = frozenset({"absent", "hidden", "refused", "forbidden", "doubtful", "no file"})
# What answers with many names. Of few, and of none, the answer is kept with those about the name itself, so that asking
# whether a thousand files are directories makes no thousand journals.
_LISTINGS = frozenset({"ls", "find"})
_FEW = 8
_MANY = ("many",)
# Where it is noted that nothing was known and the origin must not be asked: callers may swallow the error.
_misses: contextvars.ContextVar[list[OfflineMissError] | None] = contextvars.ContextVar("jcache_misses", default=None)


@contextlib.contextmanager
def missing(misses: list[OfflineMissError]) -> Iterator[None]:
    """Have noted what questions met that are put inside, wherever they are carried out."""
    token = _misses.set(misses)
    try:
        yield
    finally:
        _misses.reset(token)
        outer = _misses.get()
        if outer is not None:
            outer += misses


class NoFile:
    """That the file system does not read a name since it is a directory, in an error of the interpreter's own.

    It is only served where the origin must not be asked.
    """

    def __init__(self, error: OSError) -> None:
        self._error = error

    def encoded(self) -> Any:
        """Return what is recorded."""
        return ("no file", [type(self._error).__name__, *self._error.args], self._error.filename)

    @staticmethod
    def decoded(name: Any, *args: Any) -> OSError:
        """Return the error that was recorded, but for its `filename`.

        Raises:
            ValueError: None was: this comes from somewhere else.
        """
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, OSError)):
            msg = f"{name!r} is no error of an operating system"
            raise ValueError(msg)
        return kind(*args)


class Absent:
    """That a name is not there, or may not be read, as the file system said it.

    Some origins say the second for the first: S3 does to whom it lists nothing. But it may also be a token that has
    expired. So it is only served where the origin must not be asked.
    """

    def __init__(self, error: Exception, *, kind: str) -> None:
        self.error, self._kind = error, kind

    @classmethod
    def of(cls, error: Exception) -> Absent | None:
        """Return what an error says of a name; None where it says nothing: nobody answered, or with other trouble."""
        if isinstance(error, FileNotFoundError):
            cause = error.__cause__  # HTTP's file system makes one of any trouble that it meets
            status = getattr(cause, "status", None)
            if status == _FORBIDDEN:
                return cls(error, kind="hidden")
            is_trouble = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
            is_trouble = is_trouble or type(cause).__module__.startswith("aiohttp.")
            is_said = not is_trouble if status is None else status in _GONE
            return cls(error, kind="absent") if is_said else None
        if isinstance(error, PermissionError):
            return cls(error, kind="refused")
        return cls(error, kind="forbidden") if getattr(error, "status", None) == _FORBIDDEN else None

    def encoded(self) -> Any:
        """Return what is recorded."""
        if self._kind == "forbidden":
            return (self._kind, [str(getattr(self.error, "message", ""))], None)
        return (self._kind, list(self.error.args), getattr(self.error, "filename", None))


def _refusal(kind: str, args: list[Any], filename: Any, url: str) -> Exception:
    """Return the error that `Absent` recorded."""
    if kind == "forbidden":
        from aiohttp import ClientResponseError, RequestInfo
        from multidict import CIMultiDict, CIMultiDictProxy
        from yarl import URL

        asked = RequestInfo(URL(url), "GET", CIMultiDictProxy(CIMultiDict()), URL(url))
        forbidden: Exception = ClientResponseError(asked, (), status=_FORBIDDEN, message=args[0])
        return forbidden
    error: OSError
    if kind == "no file":
        error = NoFile.decoded(*args)
    else:
        error = PermissionError(*args) if kind == "refused" else FileNotFoundError(*args)
    if filename is not None:
        error.filename = filename
    return error


class Question:
    """One question to one file system about one name, under the settings of one session.

    Attributes:
        is_doubtful: Whether the file system may answer out of what it keeps, which is out of date.
        epoch: Before which changes it was put.
        url: The name's.
    """

    __slots__ = ("_directory", "_identity", "_key", "_lists", "_session", "_validate", "epoch", "is_doubtful", "url")

    def __init__(self, session: Session, identity: Identity, terms: Terms | None, kind: str, key: str) -> None:
        """Ask.

        Args:
            session: The current one.
            identity: The name.
            terms: What holds for it.
            kind: The method's name, without an underscore in front.
            key: What is asked, in all.
        """
        from jcache.naming.layout import WHOLE_DIGITS, digest

        self._session = session
        self._validate = session.validate if terms is None or terms.validate is None else terms.validate
        self._identity, self._lists = identity, kind in _LISTINGS
        directory = identity.answers(above=True) or identity.answers()  # of a root all is kept in one place
        is_kept = directory is not None and not directory.asker.startswith("?")
        self._directory = directory if is_kept and (terms is None or (terms.record and not terms.why_not)) else None
        self._key = digest(key, WHOLE_DIGITS)
        self.is_doubtful = False
        self.epoch = session.answers.epoch
        self.url = identity.url

    @property
    def is_offline(self) -> bool:
        """Whether the origin must not be asked."""
        return self._session.offline

    @property
    def trusts(self) -> bool:
        """Whether what is remembered is served without asking the origin."""
        return self._directory is not None and (self._session.offline or self._validate != "open")

    @property
    def is_overtaken(self) -> bool:
        """Whether the name, or what is above or below it, was written to since the question was put."""
        return self._session.answers.is_overtaken(self._identity.address, self.epoch)

    async def known_soon(self) -> Any:
        """Return what is remembered and may be served; `UNKNOWN` where there is nothing.

        Raises:
            Exception: The name was not there, or might not be read.
        """
        if not self.trusts or self._directory is None:
            return UNKNOWN
        value = self._served(await self._session.answers.find(self._directory, self._key))
        if value != _MANY:
            return value
        own = self._identity.answers()
        value = UNKNOWN if own is None else self._served(await self._session.answers.find(own, self._key))
        return UNKNOWN if value == _MANY else value

    async def has_nothing(self, version: Version) -> bool:
        """Whether it is remembered that nothing is below the name as long as it is a file of a version."""
        if self._directory is None:
            return False
        found = await self._session.answers.find(self._directory, self._key_of(version))
        return found is not None and found.value is False

    def note_nothing(self, version: Version) -> None:
        """Have recorded that nothing is below the name as long as it is a file of a version."""
        if self._directory is None or self.is_doubtful or current() is not self._session:
            return
        self._session.answers.note(self._directory, self._key_of(version), False, epoch=self.epoch)

    def _key_of(self, version: Version) -> str:
        from jcache.naming.layout import WHOLE_DIGITS, digest

        return digest(repr(("links", self._identity.key, version.etag, version.size_bytes)), WHOLE_DIGITS)

    async def is_absent(self) -> bool:
        """Whether it is remembered, and may be trusted, that the name was not there."""
        try:
            await self.known_soon()
        except Exception as error:
            if Absent.of(error) is None:
                raise
            return True
        return False

    def _served(self, answer: Answer | None) -> Any:
        if answer is None:
            return UNKNOWN
        trusted = self._validate
        if not self._session.offline and isinstance(trusted, float) and not answer.is_younger_than(trusted):
            return UNKNOWN
        try:
            value = decode(answer.value)
        except ValueError:
            return UNKNOWN
        if type(value) is not tuple or len(value) != 3 or value[0] not in _REFUSALS:
            return value
        if value[0] != "absent" and not self._session.offline:
            return UNKNOWN
        if value[0] == "doubtful":
            return value[1][0]
        try:
            error = _refusal(*value, self.url)
        except (TypeError, ValueError):
            return UNKNOWN
        raise error

    def missed(self) -> OfflineMissError:
        """Return the error that says that nothing is known and the origin must not be asked."""
        error = OfflineMissError(offline_message(self.url, "what the origin says of this name is not in the cache"))
        misses = _misses.get()
        if misses is not None:
            misses.append(error)
        return error

    def note_error(self, error: Exception, *, made_of_it: Any = None) -> None:
        """Have recorded what an error of the origin says of the name, if it says anything, or what is made of that."""
        told = Absent.of(error)
        if made_of_it is not None and getattr(error, "status", None) in _GONE:
            self.note(made_of_it)
        elif told is not None:
            self.note(told) if made_of_it is None else self.note_doubtful(made_of_it)

    def note_doubtful(self, value: Any) -> None:
        """Have an answer recorded that another token may change: it is served where the origin must not be asked."""
        self.note(("doubtful", [value], None))

    def note(self, value: Any) -> None:
        """Have an answer recorded that the origin gave just now."""
        if self._directory is None or self._session.offline or self.is_doubtful or current() is not self._session:
            return
        renew = isinstance(self._validate, float)
        told = value.encoded() if isinstance(value, Absent | NoFile) else value
        note = functools.partial(self._session.answers.note, question=self._key, epoch=self.epoch, renew=renew)
        if self._lists and isinstance(value, list | dict) and len(value) > _FEW:
            own = self._identity.answers()
            if own != self._directory:
                if own is not None:
                    note(own, value=told)
                told = _MANY
        note(self._directory, value=told)


def is_idle() -> bool:
    """Whether nothing is cached here just now, or what calls is JCache itself."""
    session = current()
    return session is None or session.bypassed is not None or within_origin() or session.caches.get() is None


def question(
    kind: str, path: Any, options: Mapping[str, Any], known: tuple[Identity, Terms | None] | None
) -> Question | None:
    """Return a question, None where the call is none of ours: it is JCache's own, or what is asked is not cached.

    Args:
        kind: The method's name, without an underscore in front.
        path: As the file system takes it.
        options: What else the call says.
        known: Which object the path means, and what holds for it; None where that cannot be told.
    """
    session = current()
    if session is None or known is None or is_past(known[1]) or is_idle():
        return None
    if not isinstance(path, str) or not all(isinstance(value, _PLAIN) for value in options.values()):
        return None
    identity, terms = known
    # A name with a query may have a secret in it; its identity has none.
    spelt = "" if "?" in path or "@" in path else undirected(path)
    key = repr((kind, identity.key, spelt, sorted((name, repr(value)) for name, value in options.items())))
    return Question(session, identity, terms, kind, key)


def is_past(terms: Terms | None) -> bool:
    """Whether a name is asked about past the cache, because settings or program say so."""
    return terms is not None and bool(terms.exclude or terms.why_not)
