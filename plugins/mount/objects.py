"""What lies at a path of a mounted origin, asked for as a job of fsspec's would ask.

A file is asked for its version, which validates its journal, so that opening it asks for nothing more. A directory is
what `info` calls one. HTTP has none: a name is one of a directory if the server sends whoever asks for it to the same
name with a slash, or if the page of the directory above has a link to it with a slash.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jcache.errors import OfflineMissError
from jcache.origin import Info
from jcache.segment.proof import clock_s
from jcache.session import Session
from jcache_plugins.fsspec.access import Access, named, run
from jcache_plugins.fsspec.answers import question
from jcache_plugins.fsspec.metadata import told
from jcache_plugins.fsspec.reads import find
from jcache_plugins.mount.names import Entry, Names
from jcache_plugins.origins.base import UnsizedError

__all__ = ["LISTED_S", "File", "Objects"]

LISTED_S = 2.0
"""So long a listing tells size and time of the names in it: what lists a directory asks for each of them next."""
# So long a name is known to be a directory's, or, over HTTP, what the directory above it lists.
DIRECTORY_S = 10.0
# Of so many directories that is known; listings may be long.
DIRECTORIES, LISTINGS = 4096, 64
_NO_FILE = (IsADirectoryError, FileNotFoundError, UnsizedError, OfflineMissError)


@dataclass(frozen=True, slots=True)
class File:
    """A file at the origin.

    Attributes:
        size: In bytes.
        mtime_ns: When it was modified; None where nobody tells.
        at_s: When the origin was asked, by the machine's own clock.
        info: Its version, as the origin gave it just now; None where a listing told, or the file has no journal.
        found: Its way to the journal; None where it is read past the cache.
    """

    size: int
    mtime_ns: int | None
    at_s: float
    info: Info | None = None
    found: Access | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """The names in a directory, and when it was asked for them."""

    entries: dict[str, Entry]
    at_s: float


class Objects:
    """What lies at the paths of a mount. Any number of threads may ask."""

    def __init__(self, session: Session, names: Names) -> None:
        """Ask for nothing yet.

        Args:
            session: Whose journals are read.
            names: The names below the URL.
        """
        self._session = session
        self.names = names
        self._lock = threading.Lock()
        self._directories: dict[str, float] = {}
        self._listed: dict[str, Listed] = {}

    def is_file(self) -> bool:
        """Whether the URL itself is a file's; what fails says no, for an origin may be out of reach for a while.

        Raises:
            FileNotFoundError: There is nothing of that name.
        """
        if self.names.says_directory:
            return False
        try:
            return self.asked("/") is not None
        except Exception as error:
            if is_absence(error) and not self.names.is_http:
                raise
            return False

    def listed(self, path: str) -> dict[str, Entry]:
        """Return what a directory lists now.

        Raises:
            Exception: Whatever the file system raises.
        """
        began_s = clock_s()
        entries = self.names.listed(path)
        with self._lock:
            put(self._listed, path, Listed(entries, began_s), most=LISTINGS)
        return entries

    def forget(self, path: str) -> None:
        """Have the origin asked for a path, whatever the directory above it listed."""
        with self._lock:
            self._listed.pop(above(path)[0], None)

    def at(self, path: str) -> File | None:
        """Return the file at a path, as it was just listed, or else as the origin says; None of a directory.

        Raises:
            Exception: There is none, or whatever the origin raises.
        """
        if path == "/" or self._is_directory(path):
            return None
        found = self._entry(path, LISTED_S)
        if found is not None:
            entry, at_s = found
            if entry.is_directory:
                return None
            if entry.size is not None and entry.mtime_ns is not None:
                return File(entry.size, entry.mtime_ns, at_s)
        return self.asked(path)

    def asked(self, path: str) -> File | None:
        """Return the file at a path as the origin says, where the settings have it asked; None of a directory.

        Raises:
            Exception: There is none, or whatever the origin raises.
        """
        file = self._by_version(path)
        if file is None:
            with self._lock:
                put(self._directories, path, clock_s(), most=DIRECTORIES)
        return file

    def _by_version(self, path: str) -> File | None:
        """Return what the version of a path's file says, or what `info` says where that tells nothing."""
        at_s = clock_s()
        where = self.names.at(path)
        found = find(self.names.fs, where)
        if found is not None:
            ask = question("info", where, {}, named(self.names.fs, where))
            is_asked = found.doubt()
            try:
                info = run(self.names.fs, found.stat())
            except Exception as error:
                if self._is_listed_directory(path, error):
                    return None
                # It may be remembered of a directory, that there is no such file.
                if not isinstance(error, _NO_FILE) or (is_absence(error) and (is_asked or self.names.is_http)):
                    raise
            else:
                if ask is not None and not self._session.offline:
                    ask.note(told(info, where))
                if is_redirected(info.details.get("url"), where, is_http=self.names.is_http):
                    return None
                return File(info.version.size_bytes, info.version.mtime_ns, at_s, info, found)
        return self._by_name(path, where, found, at_s)

    def _by_name(self, path: str, where: str, found: Access | None, at_s: float) -> File | None:
        """Return what `info` says of a path whose version cannot be had."""
        try:
            details = self.names.info(path)
        except Exception as error:
            if self._is_listed_directory(path, error):
                return None
            raise
        if details.get("type") == "directory" or is_redirected(details.get("url"), where, is_http=self.names.is_http):
            return None
        if details.get("size") is None and self._is_listed_directory(path, None):
            return None
        version = self.names.version(details)
        return File(version.size_bytes, version.mtime_ns, at_s, None, found)

    # -- directories --------------------------------------------------------------------------------------------------

    def _is_directory(self, path: str) -> bool:
        with self._lock:
            known_s = self._directories.get(path)
        return known_s is not None and clock_s() - known_s < DIRECTORY_S

    def _entry(self, path: str, age_s: float) -> tuple[Entry, float] | None:
        """Return what the directory above has listed of a path, and when, if that is not older."""
        directory, name = above(path)
        with self._lock:
            listed = self._listed.get(directory)
        if listed is None or name not in listed.entries or clock_s() - listed.at_s >= age_s:
            return None
        return listed.entries[name], listed.at_s

    def _is_listed_directory(self, path: str, error: Exception | None) -> bool:
        """Whether a name that an HTTP server gives no file of is a directory's.

        Args:
            path: The name's.
            error: What the server said instead; None where it gives something without a size.
        """
        if not self.names.is_http or (error is not None and not is_answer(error)):
            return False
        if error is not None and leads_to_slash(error):
            return True
        directory = above(path)[0]
        with self._lock:
            listed = self._listed.get(directory)
        if listed is None or clock_s() - listed.at_s >= DIRECTORY_S:
            began_s = clock_s()
            try:
                self.listed(directory)
            except Exception:  # noqa: BLE001 - it lists nothing, and is not asked again for a while
                with self._lock:
                    put(self._listed, directory, Listed({}, began_s), most=LISTINGS)
        found = self._entry(path, DIRECTORY_S)
        return found is not None and bool(found[0].is_directory)


def above(path: str) -> tuple[str, str]:
    """Return the directory that a path lies in, and its name there."""
    directory, _, name = path.rpartition("/")
    return directory or "/", name


def is_redirected(url: Any, where: str, *, is_http: bool) -> bool:
    """Whether a server sent whoever asked for a name to that of a directory."""
    return is_http and isinstance(url, str) and url.partition("?")[0].endswith("/") and not where.endswith("/")


def causes(error: BaseException | None) -> Iterator[Any]:
    """Yield an error, and what it was made of."""
    while error is not None:
        yield error
        error = error.__cause__


def is_absence(error: Exception) -> bool:
    """Whether an error says that nothing is there."""
    return isinstance(error, FileNotFoundError) and not isinstance(error, UnsizedError)


def is_answer(error: Exception) -> bool:
    """Whether the server answered, or nothing but what is remembered was asked; else it is not asked for more."""
    said = [cause for cause in causes(error) if isinstance(getattr(cause, "status", None), int)]
    return bool(said) or isinstance(error, OfflineMissError) or (is_absence(error) and error.__cause__ is None)


def leads_to_slash(error: Exception) -> bool:
    """Whether the server sent whoever asked for a name to one with a slash, and refused that."""
    asked = [cause.request_info.url for cause in causes(error) if getattr(cause, "history", None)]
    return any(str(url).endswith("/") for url in asked)


def put(known: dict[str, Any], path: str, value: Any, *, most: int) -> None:
    """Keep what is known of a path; of more than the most, forget what was noted first."""
    known.pop(path, None)
    if len(known) >= most:
        del known[next(iter(known))]
    known[path] = value
