"""What a hooked file system does instead of `open`: its own file objects, whose reads go through the journal.

A file object that reads is made by the file system's own method, which finds the version that was validated in the
place of an `info` of its own. Its class then becomes a subclass of its own, of the same name, and its cache one that
reads through the journal. Where opening would ask the origin for more, the object is made without that method.
"""

import contextlib
import functools
import operator
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fsspec.caching import AllBytes, caches
from fsspec.spec import AbstractBufferedFile

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.session import current
from jcache_plugins.fsspec.access import NO_OPTIONS, Access, access, on_loop_of, run
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.fsspec.directories import OPENED, Reading, given_again
from jcache_plugins.fsspec.journal_cache import JournalCache, JournalReader, mixed
from jcache_plugins.fsspec.kinds import ANY, Kind, kind_of
from jcache_plugins.fsspec.metadata import serving, told
from jcache_plugins.fsspec.reads import asks_origin, find, may_ask, measured, one_range
from jcache_plugins.fsspec.writes import within_change
from jcache_plugins.fsspec.written import opened_for_writing, opening
from jcache_plugins.origins.base import reaching, within_origin

__all__ = ["ASYNC", "SYNC", "asked", "known_version", "open_journaled", "options_of", "usable", "version_of"]

Method = Callable[..., Any]

# What is read at a time to find the end of a line.
LINES_BYTES = 64 << 10
# Options of `open` that say how to read, not what.
OPEN_OPTIONS = frozenset({
    *("autocommit", "block_size", "cache_options", "cache_type", "fill_cache", "size", "kwargs", "tempdir"),
})  # fmt: skip
# Methods whose file objects ask the origin for nothing but `info` when they are made.
HTTP_OPEN = "fsspec.implementations.http.HTTPFileSystem._open"
QUIET = frozenset({
    HTTP_OPEN,
    "fsspec.spec.AbstractFileSystem._open",
    "fsspec.implementations.ftp.FTPFileSystem._open",
    "fsspec.implementations.webhdfs.WebHDFS._open",
    "fsspec.implementations.dbfs.DatabricksFileSystem._open",
    "s3fs.core.S3FileSystem._open",
    "gcsfs.core.GCSFileSystem._open",
    "adlfs.spec.AzureBlobFileSystem._open",
})  # fmt: skip

# The names of what file objects have, by the class of their file system.
_names_of: dict[type, frozenset[str]] = {}


# -- file objects whose reads go through the journal --------------------------------------------------------------


class JournaledFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """What a class of file objects does otherwise where a file's reads go through the journal.

    Like any file object it belongs to one thread at a time. It holds no descriptor of its own: closing it releases
    memory, and what it read stays with the process's session.
    """

    journal: JournalReader
    own_cache: JournalCache
    loc: int
    size: int
    # What `readuntil` has read and not handed out.
    _block = b""
    _block_start = 0

    def read(self, length: Any = -1) -> bytes:
        """Read up to `length` bytes, to the end of the file where it is negative."""
        journal = self.journal
        try:
            length = operator.index(length)
        except TypeError:
            return super().read(length)  # type: ignore[no-any-return]
        if self.closed:
            msg = "I/O operation on closed file."
            raise ValueError(msg)
        if self.cache is not self.own_cache:  # another one was put there, which what reads a whole file would pass by
            return super().read(self.size - self.loc if length < 0 else length)  # type: ignore[no-any-return]
        start: int = self.loc
        if length < 0 and not start and hasattr(self, "_fetch_all"):
            return self._read_all()
        stop = self.size if length < 0 else min(start + length, self.size)
        if stop <= start:
            return b""
        data: bytes = journal.read(start, stop)
        if stop == self.size and hasattr(self, "_fetch_all") and journal.ends_as_said():
            rest = self._whole()[start : start + length if length >= 0 else None]
            data = rest if rest.startswith(data) else data
        self.loc = start + len(data)
        return data

    def _read_all(self) -> bytes:
        """Read all of a file, however long it turns out to be, also where the server refuses a part of it."""
        data: Any = None
        try:
            data = self.journal.read(0, self.size)
        except (OfflineMissError, OriginChangedError):
            raise
        except Exception:
            if not may_ask() or self.journal.has_delivered:
                raise  # what is there by now may be of another version than what was delivered
        if data is None or len(data) != self.size or not self.journal.is_as_long():
            data = self._whole()
        self.loc = self.size
        return data  # type: ignore[no-any-return]  # bytes

    def _whole(self) -> bytes:
        """Read the file by one request for all of it, and have it for whatever is read next."""
        way = self.journal.access
        try:
            data: Any = run(self.fs, one_range(way, (None, None)))
        except FileNotFoundError as error:
            raise way.origin.of_open_file(error) from None
        if isinstance(data, bytes):
            self.cache = AllBytes(size=len(data), data=data)
        else:
            started_s = time.monotonic()
            with reaching():
                self._fetch_all()
                data = measured(self.fs, self.path, self.cache.data, seconds=time.monotonic() - started_s)
        self.size = len(data)
        return data  # type: ignore[no-any-return]  # bytes

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.journal.fetch_exactly(start, end)

    def readuntil(self, char: bytes = b"\n", blocks: int | None = None) -> bytes:
        """Return the bytes up to and with the next `char`, or to the end of the file.

        Args:
            char: What to look for, one byte or more.
            blocks: How much to read at a time, in bytes.
        """
        if self.cache is not self.own_cache:
            return super().readuntil(char, blocks)  # type: ignore[no-any-return]
        line = b""
        while True:
            at = self.loc - self._block_start
            if not 0 <= at < len(self._block):
                self._block, self._block_start, at = self.read(blocks or LINES_BYTES), self.loc, 0
                self._block_start -= len(self._block)
            if not self._block:
                return line
            found = -1 if line else self._block.find(char, at)
            if found >= 0:
                self.loc = self._block_start + found + len(char)
                return self._block[at : found + len(char)]
            searched = max(len(line) - len(char) + 1, 0)
            line += self._block[at:]
            found = line.find(char, searched)
            if found >= 0:
                self.loc = self._block_start + len(self._block) - (len(line) - found - len(char))
                return line[: found + len(char)]
            self.loc = self._block_start + len(self._block)

    def close(self) -> None:
        """Close the file; what was read ahead and never asked for is dropped."""
        super().close()
        if self.closed:
            self._block = b""
            self.journal.close()

    def __del__(self) -> None:
        """Close a file that was never closed, without waiting for a lock."""
        journal = self.__dict__.get("journal")
        if journal is not None:  # else it was never made
            journal.close_soon()
            super().__del__()


class UnopenedFile(JournaledFile):
    """A file object that was made without opening the file at the server, which it does once somebody needs that."""

    opened: Callable[[], Any]
    kind = ANY

    def __getattr__(self, name: str) -> Any:
        kind = type(self).kind
        if name not in (self._names(name) if kind.lazy is None else kind.lazy) or is_offline():
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        plain = self.at_the_server()
        if kind.is_copied:  # what it has not, it has not without JCache either
            self.__dict__.update({own: vars(plain)[own] for own in kind.lazy or () if own in vars(plain)})
        return getattr(plain, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(type(self).kind.lazy or ())]

    def _names(self, name: str) -> frozenset[str]:
        """Return the names that file objects of this file system have, if one must be opened to know of this one."""
        kind = type(vars(self).get("fs"))
        if kind not in _names_of and not name.startswith("_") and asks_origin():
            with contextlib.suppress(Exception):  # then it is as if there were none
                _names_of[kind] = frozenset(dir(self.at_the_server()))
        return _names_of.get(kind, frozenset())

    def at_the_server(self) -> Any:
        """Return the file object that the file system itself makes.

        Raises:
            OfflineMissError: The origin must not be asked.
        """
        if "_plain" not in vars(self):
            if is_offline():
                msg = f"{self.path}: this is only at the server, and JCACHE_OFFLINE is set"
                raise OfflineMissError(msg)
            self._plain = self.__dict__["opened"]()
        return self._plain

    def close(self) -> None:
        """Close the file, at the server too if it was opened there."""
        plain = vars(self).get("_plain")
        if plain is not None and type(self).kind.is_copied:
            super().close()
        elif not self.closed:
            AbstractBufferedFile.close(self)
            self.journal.close()
            if plain is not None:
                plain.close()

    def __del__(self) -> None:
        """Close a file that was never closed; what the file system itself made ends as it does without JCache."""
        if not type(self).kind.is_copied:
            self.__dict__.pop("_plain", None)
        super().__del__()


def is_offline() -> bool:
    """Whether the settings have the origin never asked."""
    session = current()
    return session is not None and session.offline


class MeasuredFile:
    """What a class of file objects does otherwise where a file's reads go past the cache: they are counted."""

    # File system, path, and the options that it was opened with.
    measured_as: tuple[Any, Any, Mapping[str, Any] | None]

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read as the file object does."""
        started_s = time.monotonic()
        with reaching():
            data = super().read(*args, **kwargs)  # type: ignore[misc]  # the class that it is mixed into
        if not isinstance(data, bytes):
            return data
        fs, path, options = self.measured_as
        stop = getattr(self, "loc", None)  # as fsspec's file objects have it
        spans = [(stop - len(data), stop)] if isinstance(stop, int) else []
        return measured(fs, path, data, options=options, spans=spans, seconds=time.monotonic() - started_s)


# -- opening --------------------------------------------------------------------------------------------------------


def open_file(original: Method) -> Method:
    """Make `_open`."""
    name = f"{original.__module__}.{original.__qualname__}"
    parameters = Parameters.of(original)

    def _open(self: Any, *args: Any, **kwargs: Any) -> Any:
        said = parameters.said(args, kwargs)
        path, mode = asked(parameters, said)
        if said is None or mode != "rb":
            with opening(self, path):
                file = original(self, *args, **kwargs)
            return opened_for_writing(self, path, file)
        found = None if on_loop_of(self) else find(self, path, options_of(said))
        path = undirected(path)
        try:
            info = None if found is None else version_of(self, found)
        except OfflineMissError as error:
            opened_before(self, found, error)
            info = None
        if found is None or info is None:
            if found is not None and name not in QUIET and not may_ask():
                run(self, found.stat())  # what it met before, if that is remembered
            reading = Reading()
            try:
                file = original(self, *args, **kwargs)
            except OfflineMissError:
                if found is not None:
                    run(self, found.stat())
                raise
            except Exception as error:
                reading.gave(found, OPENED, error)
                raise
            reading.gave(found, OPENED, name in QUIET)
            return watched(self, path, file, options=options_of(said), is_counted=found is not None)
        block_size = said.get("block_size")
        cache = said.get("cache_type"), said.get("cache_options")
        if name not in QUIET or not info.version.size_bytes:
            opened = functools.partial(past_the_cache, original, self, *args, **kwargs)
            kind = kind_of(original)
            file = open_journaled(self, path, found, info, block_size=block_size, cache=cache, kind=kind, opened=opened)
            if kind.details is not None:
                file._details = kind.details(path, said)  # noqa: SLF001 - fsspec's own name; to set it sets `size`
            return file
        # No other cache: one may begin to fetch as it is made.
        none = {"cache_type": "none", "cache_options": None}
        file = made_at_once(name, self, path, said, info)
        if file is None:
            with serving(self, path, info), within_change(self, path):  # it may drop what is known, to ask anew
                file = original(self, **(parameters.named(args, kwargs) or {}) | none)
        if not isinstance(file, AbstractBufferedFile) or getattr(file, "size", None) is None:
            return watched(self, path, file, is_counted=True)  # a stream
        return journaled(file, JournaledFile, found, info, cache=cache)

    return _open


def opened_before(fs: Any, found: Access | None, error: OfflineMissError) -> None:
    """Return where a name is a directory that the file system opens without the origin, as it did before.

    Raises:
        OSError: What it met then; the error where nothing is known of the name.
    """
    told = error if found is None else run(fs, given_again(found, OPENED, error))
    if isinstance(told, Exception):
        raise told from None


def made_at_once(name: str, fs: Any, path: Any, said: Mapping[str, Any], info: Info) -> Any:
    """Make the file object that HTTP's own `_open` makes, which crosses to the event loop for a session that is there.

    Returns:
        None where that method is to make it.
    """
    block_size = said.get("block_size")
    block_size = getattr(fs, "block_size", None) if block_size is None else block_size
    session = getattr(fs, "_session", None)
    if (
        name != HTTP_OPEN
        or session is None
        or not block_size
        or not said.keys() <= {"block_size", "cache_type", "cache_options"}
        or not info.details.get("partial", True)
    ):
        return None
    how = {**fs.kwargs, "asynchronous": fs.asynchronous, "loop": fs.loop, "session": session, "cache_type": "none"}
    return sys.modules[HTTP_OPEN.rpartition(".HTTP")[0]].HTTPFile(
        fs, path, block_size=block_size, size=info.version.size_bytes, **how
    )


def open_written(original: Method) -> Method:
    """Make `_open` of a class whose reads stay as they are."""
    parameters = Parameters.of(original)

    def _open(self: Any, *args: Any, **kwargs: Any) -> Any:
        path, mode = asked(parameters, parameters.said(args, kwargs))
        if mode == "rb":
            return original(self, *args, **kwargs)
        with opening(self, path):
            file = original(self, *args, **kwargs)
        return opened_for_writing(self, path, file)

    return _open


def asked(parameters: Parameters, said: dict[str, Any] | None) -> tuple[Any, str]:
    """Return of a call of `open` which path was to be opened, and how."""
    said = said or {}
    return said.pop(parameters.first, None), said.pop("mode", "rb")


def options_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a call of `open` said that may decide which bytes are meant, and that it is one."""
    options = {name: value for name, value in said.items() if name not in OPEN_OPTIONS and value is not None}
    return {**options, "mode": "rb"} if options else options


def version_of(fs: Any, found: Access) -> Info | None:
    """Do as `known_version` does, on the caller's thread where nothing is to be asked."""
    found.begin()
    info = found.open_here()
    return run(fs, known_version(found)) if info is None else usable(info)


async def known_version(found: Access) -> Info | None:
    """Count an open by the application, and return the version to read.

    Returns:
        None where the file system is to open the file as it does without JCache: where it gives no version, or it is
        that method which has to say what is wrong.
    """
    try:
        return usable(await found.open())
    except RestlessError:
        return None
    except (OfflineMissError, OriginChangedError):
        raise
    except Exception:  # noqa: BLE001 - the file system itself meets it, and says it in its own words
        return None


def usable(info: Info) -> Info | None:
    """Return a version if what is read of it can be held against it."""
    # Servers say that files are empty which are not.
    return info if info.version.is_provable and (info.version.size_bytes or not asks_origin()) else None


def open_journaled(
    fs: Any,
    path: Any,
    found: Access,
    info: Info,
    *,
    block_size: Any = None,
    cache: tuple[Any, Any] = (None, None),
    kind: Kind = ANY,
    opened: Callable[[], Any] | None = None,
) -> Any:
    """Return a file object whose reads go through the journal, made without asking the origin for anything.

    Args:
        fs: The file system that it belongs to; pickling reopens it there.
        path: As that file system takes it.
        found: The path's way to the journal and the origin.
        info: The version to read.
        block_size: Kept for callers that look at `blocksize`; it bounds nothing.
        cache: Which cache it would have, by name, and that cache's options.
        kind: Of which class it is to be, and what of it is what `opened` returns.
        opened: Opens the file at the server.
    """
    file = kind.cls.__new__(kind.cls)
    size = info.version.size_bytes
    AbstractBufferedFile.__init__(file, fs, path, "rb", block_size or "default", cache_type="none", size=size)
    file._details = told(info, path)  # noqa: SLF001 - fsspec's own name for what `details` returns
    file.opened = opened
    return journaled(file, UnopenedFile, found, info, cache=cache, **{**kind.own, "kind": kind})


def journaled(
    file: Any, mixin: Any, found: Access, info: Info, *, cache: tuple[Any, Any] = (None, None), **more: Any
) -> Any:
    """Have a file object read through the journal."""
    fs, blocksize, (name, options) = file.fs, file.blocksize, cache
    name = name or getattr(fs, "default_cache_type", None) or getattr(fs, "cache_type", None) or "readahead"
    has_parts = name == "parts"
    journal = file.journal = JournalReader(fs, file.path, found, info)
    caching = JournalCache.instead_of(name)
    file.cache = file.own_cache = caching(journal, blocksize=blocksize, options={} if has_parts else options or {})
    if has_parts:  # the caller has read these, and has them
        file.cache = caches[name](blocksize, journal.fetch_exactly, file.size, **options or {})
    file.__class__ = mixed(mixin, type(file), **more)
    return file


def past_the_cache(original: Method, fs: Any, *args: Any, **kwargs: Any) -> Any:
    """Open a file as the file system does it."""
    with reaching():
        return original(fs, *args, **kwargs)


def watched(
    fs: Any, path: Any, file: Any, *, options: Mapping[str, Any] | None = NO_OPTIONS, is_counted: bool = False
) -> Any:
    """Count what is read from a file object that goes past the cache."""
    session = current()
    if session is None or within_origin():
        return file
    named = access(fs, path)
    if named is not None and named.excluded:
        return file
    if named is not None and not is_counted:
        session.counters.file_opened(named.identity.url, getattr(file, "size", None), 0.0)
    try:
        file.measured_as = fs, path, options
        file.__class__ = mixed(MeasuredFile, type(file))
    except (AttributeError, TypeError):
        return file  # an object of the interpreter's own
    return file


ASYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file}
SYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file}
