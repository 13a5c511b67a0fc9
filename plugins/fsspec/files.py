"""What a hooked file system does instead of `open`: its own file objects, whose reads go through the journal.

A file object that reads is made by the file system's own method, which finds the version that was validated in the
place of an `info` of its own. Its class then becomes a subclass of its own, of the same name, and its cache one that
reads through the journal. Where opening would ask the origin for more, the object is made without that method.
"""

import functools
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fsspec.caching import caches
from fsspec.spec import AbstractBufferedFile

from jcache.errors import OfflineMissError, OriginChangedError, RestlessError
from jcache.origin import Info
from jcache.session import current
from jcache_plugins.fsspec.access import NO_OPTIONS, Access, access, on_loop_of, run
from jcache_plugins.fsspec.calls import Parameters
from jcache_plugins.fsspec.directives import undirected
from jcache_plugins.fsspec.directories import OPENED, Reading, given_again
from jcache_plugins.fsspec.file_objects import JournaledFile, MeasuredFile, UnopenedFile
from jcache_plugins.fsspec.journal_cache import JournalCache, JournalReader, mixed
from jcache_plugins.fsspec.kinds import ANY, Kind, kind_of
from jcache_plugins.fsspec.metadata import serving, told
from jcache_plugins.fsspec.reads import asks_origin, find, may_ask
from jcache_plugins.fsspec.writes import within_change
from jcache_plugins.fsspec.written import opened_for_writing, opening
from jcache_plugins.origins.base import is_settled, reaching, within_origin

__all__ = [
    "ASYNC",
    "SYNC",
    "asked",
    "known_version",
    "lasting",
    "open_journaled",
    "options_of",
    "usable",
    "version_of",
    "watched",
]

Method = Callable[..., Any]

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
# Of those that ask for something else than of the file, the base whose file objects they make.
QUIETER = {"gcsfs.extended_gcsfs.ExtendedGcsFileSystem._open": ("gcsfs.core", "GCSFileSystem")}
# What methods take and do not look at.
IGNORED = {
    "fsspec.implementations.ftp.FTPFileSystem._open": frozenset({"cache_type"}),
    "fsspec.implementations.sftp.SFTPFileSystem._open": frozenset({"cache_type", "cache_options", "size"}),
    "webdav4.fsspec.WebdavFileSystem._open": frozenset({"size"}),  # but to tell it
}


def open_file(original: Method) -> Method:
    """Make `_open`."""
    name = f"{original.__module__}.{original.__qualname__}"
    parameters, making, ignored = Parameters.of(original), original, IGNORED.get(name, frozenset())
    is_quiet = name in QUIET or name in QUIETER
    if name in QUIETER:
        module, cls = QUIETER[name]
        making = inspect.unwrap(getattr(sys.modules[module], cls)._open)  # noqa: SLF001 - fsspec's own name

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
        how = {name: value for name, value in said.items() if name not in ignored}
        cache = how.get("cache_type") or parameters.defaults.get("cache_type"), how.get("cache_options")
        if not is_quiet or not info.version.size_bytes:
            opened = functools.partial(past_the_cache, original, self, *args, **kwargs)
            kind, block_size = kind_of(original), said.get("block_size")
            file = open_journaled(self, path, found, info, block_size=block_size, cache=cache, kind=kind, opened=opened)
            file.size = file.size if how.get("size") is None else how["size"]
            if kind.details is not None:
                file._details = kind.details(path, said)  # noqa: SLF001 - fsspec's own name; to set it sets `size`
            return file
        # No other cache: one may begin to fetch as it is made.
        none = {"cache_type": "none", "cache_options": None}
        file = made_at_once(name, self, path, said, info)
        if file is None:
            with serving(self, path, info), within_change(self, path):  # it may drop what is known, to ask anew
                file = making(self, **(parameters.named(args, kwargs) or {}) | none)
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
        or not said.keys() <= {"autocommit", "block_size", "cache_type", "cache_options"}
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
    return run(fs, known_version(found)) if info is None else lasting(found, info)


async def known_version(found: Access) -> Info | None:
    """Count an open by the application, and return the version to read.

    Returns:
        None where the file system is to open the file as it does without JCache: where it gives no version, or it is
        that method which has to say what is wrong.
    """
    try:
        return lasting(found, await found.open())
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


def lasting(found: Access, info: Info) -> Info | None:
    """Return a version as `usable` does, unless another file may have it by and by: in the second of its time."""
    is_last = found.origin.holds_open or is_settled(info.version, time.time()) or not asks_origin()
    return usable(info) if is_last else None


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
    name = name or getattr(fs, "default_cache_type", None) or getattr(fs, "cache_type", None) or default_of(file)
    has_parts = name == "parts"
    journal = file.journal = JournalReader(fs, file.path, found, info)
    caching = JournalCache.instead_of(name)
    file.cache = file.own_cache = caching(journal, blocksize=blocksize, options={} if has_parts else options or {})
    if has_parts:  # the caller has read these, and has them
        file.cache = caches[name](blocksize, journal.fetch_exactly, file.size, **options or {})
    if "cache_type" in vars(file):
        file.cache_type = name
    file.__class__ = mixed(mixin, type(file), **more)
    return file


def default_of(file: Any) -> str:
    """Return which cache the class of a file object takes where nobody says one."""
    module = sys.modules[type(file).__module__]
    resolve = getattr(module, "_get_prefetcher_and_cache_config", None)  # gcsfs's
    return "readahead" if resolve is None else str(resolve()[0])


def past_the_cache(original: Method, fs: Any, *args: Any, **kwargs: Any) -> Any:
    """Open a file as the file system does it."""
    with reaching():
        return original(fs, *args, **kwargs)


def watched(
    fs: Any,
    path: Any,
    file: Any,
    *,
    options: Mapping[str, Any] | None = NO_OPTIONS,
    is_counted: bool = False,
    mixin: Any = MeasuredFile,
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
        file.__class__ = mixed(mixin, type(file))
    except (AttributeError, TypeError):
        return file  # an object of the interpreter's own
    return file


ASYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file}
SYNC: dict[str, Callable[[Method], Method]] = {"_open": open_file}
