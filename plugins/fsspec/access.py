"""One path of one file system, read through the session."""

import asyncio
import inspect
import os
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from fsspec.asyn import get_loop, sync

from jcache.errors import OriginChangedError, RestlessError
from jcache.journal import Version
from jcache.naming import Identifier, Identity, Unidentifiable
from jcache.origin import Info
from jcache.planning.lent import Lent
from jcache.reader.assembly import GapError
from jcache.reader.remote import RemoteFile, Span
from jcache.session import Session, current
from jcache.settings.policy import Directives, Terms
from jcache.settings.rules import naming, replicas_of
from jcache.vectors import Vector
from jcache_plugins.fsspec.answers import Absent, Question, question
from jcache_plugins.fsspec.directives import MARK, directives_of, split, undirected
from jcache_plugins.origins.base import FileSystemOrigin, UnsizedError, beside
from jcache_plugins.origins.replicas import Replicas

__all__ = ["Access", "access", "identities", "named", "on_loop_of", "origin_of", "run"]

T = TypeVar("T")

# How many paths of one file system instance keep what was worked out for them.
PATHS = 4096
NO_OPTIONS: Mapping[str, Any] = {}
# What a range meets where nobody knows how long the file is.
_UNSIZED = frozenset({UnsizedError, GapError})
_ORIGINS = {
    "fsspec.implementations.ftp.FTPFileSystem": ("jcache_plugins.origins.ftp", "FTPOrigin"),
    "fsspec.implementations.http.HTTPFileSystem": ("jcache_plugins.origins.http", "HttpOrigin"),
    "fsspec_xrootd.xrootd.XRootDFileSystem": ("jcache_plugins.origins.xrootd", "XRootDOrigin"),
    "webdav4.fsspec.WebdavFileSystem": ("jcache_plugins.origins.webdav", "WebDavOrigin"),
    "s3fs.core.S3FileSystem": ("jcache_plugins.origins.s3", "S3Origin"),
}


class Access:
    """One path of one file system: its origin, and its reads through whichever session is current."""

    __slots__ = ("_is_fresh", "directory", "excluded", "identity", "origin", "terms")

    def __init__(
        self, origin: FileSystemOrigin, directory: str | None, *, terms: Terms | None = None, refreshes: bool = False
    ) -> None:
        self.origin = origin
        # Which object the path means.
        self.identity = origin.identity
        self.directory = directory
        self.terms = terms
        self.excluded = terms is not None and terms.exclude
        # Whether what was recorded has just been dropped; None where opening the file drops nothing.
        self._is_fresh: bool | None = None
        if refreshes:
            self._refresh()
            self._is_fresh = True

    def _refresh(self) -> None:
        require().files.refresh(self.identity, directory=self.directory, terms=self.terms)

    def begin(self) -> None:
        """Take note that the file is opened: where it is to be fetched anew, it is so once more."""
        if self._is_fresh is False:
            self._refresh()
        elif self._is_fresh:
            self._is_fresh = False

    def _file(self) -> RemoteFile:
        return require().files.acquire(self.identity, directory=self.directory, terms=self.terms)

    def try_read(
        self, spans: Sequence[Span], *, vector: bool, version: Version | None = None, whole: bool = False
    ) -> list[bytes] | None:
        """Read from the journal on the caller's thread; None where the origin is needed.

        That is also where `read` must tell what a range without bytes means; with `whole`, wherever there is one.
        """
        with self._file() as remote:
            return remote.try_read(spans, vector=vector, version=version, whole=whole or not self.origin.lenient)

    def read_here(self, spans: Sequence[Span], *, vector: bool) -> list[bytes] | None:
        """Read as `try_read` does, each range having a byte, and having found out the version if that must come first.

        The first read of a file in a process then crosses to the event loop for that alone, and not from there to a
        worker thread for bytes that this thread can read.
        """
        with self._file() as remote:
            rows = remote.try_read(spans, vector=vector, whole=True)
            if rows is None and not remote.is_ready:
                run(self.origin.fs, remote.make_ready(self.origin))
                rows = remote.try_read(spans, vector=vector, whole=True)
            return rows

    async def read(
        self, spans: Sequence[Span], *, vector: bool, ahead_bytes: int = 0, version: Version | None = None
    ) -> list[bytes | Exception]:
        """Read from journal and origin; each range's bytes or the exception that it met."""
        session = require()
        epoch = session.answers.epoch
        try:
            with self._file() as remote:
                if session.validate != "open" or session.offline or self.terms is not None:
                    await self._look_whether_absent(remote)
                rows = await remote.read(self.origin, spans, vector=vector, ahead_bytes=ahead_bytes, version=version)
                kinds = set(map(type, rows))
                if kinds != {bytes}:
                    error = next((row for row in rows if isinstance(row, Exception)), None)
                    if error is not None:
                        self._note_absent(error, epoch)
                if not kinds.isdisjoint(_UNSIZED) or (version is None and remote.is_end_unproved(spans)):
                    raise UnsizedError(self.identity.url)
                if not self.origin.lenient and not all(rows):
                    await self._ask_of_empty(remote, rows, spans, vector=vector, version=version)
                return rows
        except OriginChangedError as error:
            if version is None and len(spans) == 1 and (isinstance(error, RestlessError) or is_whole(spans[0])):
                raise UnsizedError(self.identity.url) from error  # one request gives one version, whichever
            told = None if version is None else self.origin.replaced(version)
            if told is None:
                raise
            raise told from error
        except UnsizedError:
            if version is None:
                raise
            return await self.read_past(spans)  # a file object goes on with what there is
        except Exception as error:
            self._note_absent(error, epoch)
            raise

    @property
    def tells_of_replacing(self) -> bool:
        """Whether the file system's own file objects raise where a file was replaced since they were opened."""
        return self.origin.replaced(Version(0)) is not None

    def give_up(self) -> None:
        """Take the file for another one each time that it is asked for, for some time."""
        with self._file() as remote:
            remote.validation.restless()

    async def read_past(self, spans: Sequence[Span]) -> list[bytes | Exception]:
        """Read from the origin, whichever version it has, and record nothing."""
        session = require()
        rows = (await self.origin.fetch([(start or 0, stop) for start, stop in spans], known=None)).data
        total = sum(len(row) for row in rows if isinstance(row, bytes))
        session.counters.read(total, 0, 0, total, url=self.identity.url, asked=delivered(session, spans, rows))
        session.counters.origin(requests=len(rows), nbytes=total)
        return rows

    async def _ask_of_empty(
        self,
        remote: RemoteFile,
        rows: list[bytes | Exception],
        spans: Sequence[Span],
        *,
        vector: bool,
        version: Version | None,
    ) -> None:
        """Put in place of no bytes what the file system makes of a range in which the file has none."""
        session = require()
        size = (await remote.stat(self.origin)).version.size_bytes
        for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
            meant = None if row else self.origin.without_bytes(*span, size)
            if isinstance(meant, Exception):
                rows[i] = meant
            elif meant is not None and (session.offline or (remote.validation.validate == "never" and meant != span)):
                rows[i] = (await remote.read(self.origin, [meant], vector=vector, version=version))[0]
            elif meant is not None:
                rows[i] = answer = await self.origin.ask(*span)
                if isinstance(answer, bytes):
                    asked, nbytes = delivered(session, [span], [answer]), len(answer)
                    session.counters.read(nbytes, 0, 0, nbytes, url=self.identity.url, asked=asked)

    def peek(self, start: int, stop: int, *, version: Version | None = None) -> bytes:
        """Return what the journal has from `start` on, uncounted."""
        with self._file() as remote:
            return remote.peek(start, stop, version=version)

    def count_read(self, start: int, stop: int) -> None:
        """Count a read that was served from what `peek` returned."""
        counters, nbytes = require().counters, stop - start
        counters.read(nbytes, nbytes, 0, 0, url=self.identity.url, asked=(start, stop))

    def lend(self, start: int, last: Lent | None, *, version: Version | None = None) -> Lent | None:
        """Return what was read ahead from `start` on, to be taken in small steps, having handed back the last piece."""
        with self._file() as remote:
            if last is not None and last.is_ours:
                remote.hand_back(last)
            return remote.lend(start, version=version)

    def hand_back(self, lent: Lent) -> None:
        """Have recorded what was taken of a piece that was lent."""
        session = current()
        if session is None or not lent.is_ours:
            return  # went with its session
        with self._file() as remote:
            remote.hand_back(lent)

    def count_ahead(self, start: int, nbytes: int) -> None:
        """Count a read that was served from what was read ahead."""
        asked = start, start + nbytes
        require().counters.read(nbytes, 0, nbytes, 0, url=self.identity.url, asked=asked, ahead=nbytes)

    async def prefetch(self, start: int, stop: int, *, arrived: Callable[[], None] | None = None) -> None:
        """Read [start, stop) ahead of the application; `arrived` is called once its bytes are here, proved or not."""
        with self._file() as remote:
            await remote.prefetch(self.origin, start, stop, arrived=arrived)

    def is_alone(self) -> bool:
        """Whether nobody in this process reads the file just now."""
        with self._file() as remote:
            return remote.active == 1

    def gaps(self, least_bytes: int) -> list[tuple[int, int]]:
        """Return what neither journal nor memory has of the file, but for what is shorter than this."""
        with self._file() as remote:
            return remote.gaps(least_bytes)

    def drop_ahead(self, start: int, stop: int) -> int:
        """Forget what was read ahead in [start, stop) and not asked for; return how many bytes that were."""
        session = current()
        if session is None:
            return 0  # went with its session
        with self._file() as remote:
            return remote.drop_ahead(start, stop)

    async def stat(self) -> Info:
        """Return the file's version and info as this process holds them."""
        epoch = require().answers.epoch
        try:
            with self._file() as remote:
                await self._look_whether_absent(remote)
                return await remote.stat(self.origin)
        except Exception as error:
            self._note_absent(error, epoch)
            raise

    def _absence(self) -> Question | None:
        is_elsewhere = self.directory is not None
        return None if is_elsewhere else question("read", self.origin.path, {}, (self.identity, self.terms))

    async def _look_whether_absent(self, remote: RemoteFile) -> None:
        """Raise that there is no file, where that is remembered and the origin need not be asked.

        What is recorded of a file counts for more: that it is there.
        """
        session = require()
        if session.validate == "open" and not session.offline and self.terms is None:
            return
        if remote.known() is not None:  # it may be ready without: then the first bytes tell
            return
        ask = self._absence()
        if ask is not None and ask.trusts and not await remote.is_known():
            await ask.known_soon()

    def _note_absent(self, error: Exception, epoch: int) -> None:
        told = Absent.of(error)
        ask = None if told is None else self._absence()
        if ask is not None:
            ask.epoch = epoch
            ask.note(told)

    async def stored(self) -> Info | None:
        """Return the file's version and info where they may be had without asking the origin, else None."""
        with self._file() as remote:
            return await remote.stored(self.origin)

    async def is_known(self) -> bool:
        """Whether anything of the file is recorded, or was validated in this process."""
        with self._file() as remote:
            return await remote.is_known()

    async def is_got(self) -> bool:
        """Whether the origin gave bytes of the file to this process or, what is recorded, to others."""
        if self.origin.is_got:
            return True
        with self._file() as remote:
            return await remote.is_recorded()

    def is_as_long(self, nbytes: int) -> bool:
        """Whether the file is known to be so long, and that was not only said."""
        with self._file() as remote:
            return remote.is_proved_as_long(nbytes)

    def doubt(self) -> bool:
        """Have the origin asked once more, where the settings have it asked at each open; return whether they do."""
        with self._file() as remote:
            is_asked = remote.validation.validate == "open" and not require().offline
            if is_asked:
                remote.doubt()
            return is_asked

    def open_here(self) -> Info | None:
        """Do as `open` does, where the version was validated before; None else."""
        with self._file() as remote:
            info = remote.known()
            if info is not None:
                remote.opened(0.0)
            return info

    async def open(self) -> Info:
        """Return the file's version and info, and count an open of it by the application."""
        started_s = time.perf_counter()
        info = await self.stat()
        with self._file() as remote:
            remote.opened(time.perf_counter() - started_s)
        return info

    def kept(self, fs: Any, details: Mapping[str, Any]) -> "Access | None":
        """Return the way to the version that `details` are of, where the origin keeps it beside later ones."""
        name = self.origin.kept(details)
        return None if name is None else access(fs, name)


def is_whole(span: Span) -> bool:
    """Whether a range is the whole file, however long it is."""
    return not span[0] and span[1] is None


def delivered(session: Session, spans: Iterable[Span], rows: Iterable[bytes | Exception]) -> Vector | None:
    """Return the ranges that were delivered past the cache, for the profile; None where nobody asks, or can tell."""
    if session.counters.profile is None:
        return None
    asked = Vector.of(
        (start or 0, (start or 0) + (len(row) if isinstance(row, bytes) else 0))
        for (start, _), row in zip(spans, rows, strict=False)
    )
    return None if min(asked.starts, default=0) < 0 else asked


def require() -> Session:
    """Return the current session."""
    session = current()
    assert session is not None, "hooks work only while a session is current"
    return session


class _Known(dict[tuple[Any, ...], Access | None]):
    """What was worked out for the paths of one file system instance, under the settings of one session.

    It is kept beside the instance, whose attributes are the application's, and knows it only weakly, so that it goes
    with it: origins ask a proxy, which whoever reads keeps alive.
    """

    __slots__ = ("directory", "fs", "identifier", "origin_class", "policy", "said", "target")

    def __init__(self, session: Session, fs: Any) -> None:
        super().__init__()
        key = id(fs)
        self.fs = weakref.ref(fs, lambda _: _instances.pop(key, None))
        # A session's own: each has another one, and another one again when its settings change.
        self.policy = session.policy
        target, self.directory = behind(fs)
        self.said = directives_of(fs)
        self.target = weakref.proxy(target)
        self.identifier = _identifier(session, target)
        self.origin_class = _origin_class(type(target))


# What is known of the paths of file systems, by their addresses.
_instances: dict[int, _Known] = {}


def behind(fs: Any) -> tuple[Any, str | None]:
    """Return the file system that has the files, and the cache directory for its reads (None: JCACHE_DIR)."""
    return (fs.fs, fs.cache_dir) if getattr(fs, "reads_for_another", False) is True else (fs, None)


def access(
    fs: Any, path: Any, options: Mapping[str, Any] = NO_OPTIONS, *, session: Session | None = None
) -> Access | None:
    """Return the access to a path, worked out once per path, file system instance and session.

    Args:
        fs: The file system.
        path: As it takes it.
        options: Of the call, but those that leave open which bytes are meant.
        session: The current one, of who has it at hand.

    Returns:
        None where it cannot be told which object is meant.
    """
    session = session or require()
    known = _known(session, fs)
    if known is None:
        return None
    key = (path, *options.items()) if options else path
    try:
        return known[key]
    except KeyError:
        pass
    except TypeError:
        return None  # not a path at all: the file system says so better
    if not isinstance(path, str):
        return None
    found = _work_out(session, known, path, options)
    if len(known) >= PATHS:
        known.clear()
    known[key] = found
    return found


def named(fs: Any, path: str) -> tuple[Identity, Terms | None] | None:
    """Return which object a path means, and what holds for it; None where that cannot be told."""
    identity = identities(fs, [path])[0]
    session = require()
    known = _known(session, fs)
    return None if identity is None or known is None else (identity, session.terms(identity, said_of(known, path)))


def identities(fs: Any, paths: Sequence[str], *, written: bool = False) -> list[Identity | None]:
    """Return which objects paths mean, without a trace of each; None where that cannot be told.

    Args:
        fs: The file system.
        paths: As it takes them.
        written: Whether the objects are those that change where the paths are written; nothing is said of others then.
    """
    session = require()
    known = _known(session, fs)
    if known is None:
        return [None] * len(paths)
    found: list[Identity | None] = []
    for path in map(undirected, paths):
        try:
            origin = known.origin_class
            named = origin.written(path) if written else origin.named(known.target, path, NO_OPTIONS)
            found.append(None if named is None else known.identifier.identify(named))
        except Unidentifiable as error:
            if not written:
                session.trouble(f"{error}; such files are not cached")
            found.append(None)
    return found


def let_go(fs: Any, paths: Sequence[str], *, below: bool) -> None:
    """Have nothing used any more that is open of paths, or below them, which are being written."""
    known = _known(require(), fs)
    if known is not None:
        known.origin_class.let_go(list(map(undirected, paths)), below=below)


def origin_of(fs: Any, path: str, identity: Identity) -> FileSystemOrigin:
    """Return a way to the origin of an object."""
    known = _known(require(), fs)
    assert known is not None, "an object of it is known already"
    return known.origin_class(behind(fs)[0], path, identity)


def _known(session: Session, fs: Any) -> _Known | None:
    """Return what is known of a file system; None while it is being made, and nobody knows which objects it means."""
    known = _instances.get(id(fs))
    if known is None or known.policy is not session.policy:
        if not hasattr(fs, "storage_options"):
            return None
        known = _instances[id(fs)] = _Known(session, fs)
    return known


def _work_out(session: Session, known: _Known, path: Any, options: Mapping[str, Any]) -> Access | None:
    said = said_of(known, path)
    named = known.origin_class.named(known.target, undirected(path), options)
    if named is None:
        return None
    try:
        identity = known.identifier.identify(named)
    except Unidentifiable as error:
        session.trouble(f"{error}; such files are not cached")
        return None
    origin = known.origin_class(known.target, named, identity)
    rules = session.policy.rules
    if rules and (others := replicas_of(rules, url := known.target.unstrip_protocol(named), identity.url)):
        origin = cast("FileSystemOrigin", Replicas(origin, url, others, _origin))
    if session.places is not None:
        session.places(identity.url, known.fs, named)
    refreshes = said is not None and said.refresh
    return Access(origin, known.directory, terms=session.terms(identity, said), refreshes=refreshes)


def said_of(known: _Known, path: str) -> Directives | None:
    """Return what the program says of a path, by the path itself or by its file system."""
    if MARK not in path:
        return known.said
    said, wrong = split(path)[1:]
    if wrong:
        require().trouble(f"{wrong}; it changes nothing")
    return said.within(known.said)


def _identifier(session: Session, fs: Any) -> Identifier:
    options = positional(fs) | dict(fs.storage_options or {})
    options.pop("jcache", None)
    for name in ("hostid", "host", "port", "endpoint_url"):
        value = fs.__dict__.get(name)
        if value is not None:
            options.setdefault(name, value)
    config = session.config
    names = naming(session.policy.rules, flat=config.flat, basepath=config.basepath)
    return Identifier(fs.protocol, options, environ=beside(fs, _environment), **names)


def _environment(fs: Any) -> Mapping[str, str]:
    """Return the environment that a file system lives by: it looks there when it is made, or when it connects."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return os.environ if "gs" in protocols else dict(os.environ)  # gcsfs looks each time


def positional(fs: Any) -> dict[str, Any]:
    """Return by name the options that a file system was given by position: they may decide which bytes a path means."""
    args = getattr(fs, "storage_args", ())
    if not args:
        return {}
    try:
        bound = inspect.signature(type(fs)).bind_partial(*args)
    except (TypeError, ValueError):
        return {"args": args}
    return dict(bound.arguments)


def _origin_class(cls: type) -> type[FileSystemOrigin]:
    for base in cls.__mro__:
        known = _ORIGINS.get(f"{base.__module__}.{base.__qualname__}")
        if known is not None and not _reads_otherwise(cls, base):
            module = __import__(known[0], fromlist=[known[1]])
            found: type[FileSystemOrigin] = getattr(module, known[1])
            return found
    return FileSystemOrigin


def _origin(fs: Any, path: str, identity: Identity) -> FileSystemOrigin:
    return _origin_class(type(fs))(fs, path, identity)


def _reads_otherwise(cls: Any, base: Any) -> bool:
    """Whether a subclass has its own way to bytes or versions, which an origin made for its base would pass by."""
    names = ("_cat_file", "_cat_ranges", "_info", "_open", "encode_url", "unstrip_protocol")
    unwrap: Callable[[Any], Any] = inspect.unwrap  # the hooks may be in place already
    return any(unwrap(getattr(cls, name, None)) is not unwrap(getattr(base, name, None)) for name in names)


def loop_of(fs: Any) -> Any:
    """Return the event loop on which a file system is asked."""
    return fs.loop if fs.async_impl else get_loop()


def on_loop_of(fs: Any) -> bool:
    """Whether the caller runs on the very loop that would have to do the work: it must not wait for it."""
    try:
        return asyncio.get_running_loop() is loop_of(fs)
    except RuntimeError:
        return False


def run(fs: Any, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a file system's loop from synchronous code, and wait for it."""

    async def awaited() -> T:
        return await coroutine

    try:
        result: T = sync(loop_of(fs), awaited)
    finally:
        # One that has begun belongs to the loop, also where the caller was interrupted while it waited.
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()
    return result


def unwrapped(result: bytes | Exception) -> bytes:
    """Return bytes; raise an exception."""
    if isinstance(result, Exception):
        raise result
    return result
