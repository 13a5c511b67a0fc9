"""The remote files that a process has open, each once, and those that it keeps open because they may be read again."""

import contextlib
import functools
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from jcache.cache import Cache
from jcache.cache.books import Use
from jcache.cache.keeper import IDLE_S, Keeper
from jcache.caches import Caches, Directory
from jcache.journal import JournalError
from jcache.naming import Identity
from jcache.naming.asking import UNSTABLE
from jcache.naming.identity import is_below
from jcache.reader.answers import Answers
from jcache.reader.clearing import Clearing
from jcache.reader.host import Host as FileHost
from jcache.reader.remote import RemoteFile
from jcache.reader.store import Home, anything
from jcache.recording.small import Shelf, SmallFile, SmallFiles
from jcache.settings.policy import Terms

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["IDLE_FILES", "Registry"]

# How many journals stay open while nobody reads them: reopening one costs a directory listing and two reads.
IDLE_FILES = 256
# What is told of so many closed files waits for the next block of a profile.
GONE_FILES = 20_000
# How long the compaction of one journal may take behind the application's back.
COMPACT_S = 60.0

# By cache directory, object, who asks, and what holds for it: what one has validated, another has not.
FileKey = tuple[Directory, str, str, Terms | None]


class Host(FileHost, Protocol):
    """What the registry needs of the session."""

    caches: Caches
    answers: Answers


class Registry:
    """The remote files of one process. Safe to use from any thread.

    Attributes:
        small: Small files that are read whole, which nothing else is known of.
    """

    def __init__(self, host: Host) -> None:
        """Begin without any.

        Args:
            host: The session.
        """
        self._host = host
        self._lock = threading.Lock()
        self.small = SmallFiles(self._lock, self._note)
        self._files: OrderedDict[FileKey, RemoteFile] = OrderedDict()
        # By object who was the first to ask, where answers are trusted for some time.
        self._askers: dict[str, str] = {}
        self._clearings: dict[Directory, Clearing] = {}
        # Those that are about to be closed, and when they were last used as that was decided.
        self._leaving: dict[FileKey, float] = {}
        # What a profile says of those that are closed, until it asks for it.
        self._gone: dict[str, dict[str, Any]] = {}
        # Those that are being closed for good.
        self._ending: list[tuple[FileKey, RemoteFile]] = []

    # -- opening ----------------------------------------------------------------------------------------------

    def acquire(self, identity: Identity, *, directory: str | None = None, terms: Terms | None = None) -> RemoteFile:
        """Return the one instance for a remote file in this process, kept open until it is released.

        A file is also a context that releases it.

        Args:
            identity: The file.
            directory: The cache directory; JCACHE_DIR by default.
            terms: What holds for it, where that is anything but the settings.
        """
        caches = self._host.caches
        key = (caches.key(directory), identity.key, identity.asker, terms)
        with self._lock:
            remote = self._files.get(key)
            if remote is not None:
                self._files.move_to_end(key)
                remote.active += 1
                return remote
        cache = caches.get(directory)
        if cache is not None and not caches.knows_owner(cache, identity):
            cache = None
        keeper = caches.keeper(key[0])
        with self._lock:
            remote = self._files.get(key)
            if remote is None:
                remote = self._files[key] = self._new(identity, cache, keeper, terms)
                clearing = self._clearings.get(key[0])
                if clearing is not None and clearing.covers(remote.url):
                    remote.invalidate()
                small = self.small.take(key[:3])
                if small is not None:
                    small.hand_over(remote.validation)
            remote.active += 1
            idle = [(key, self._files[key]) for key in self._idle_files()]
        for key, file in idle:
            file.hand_over()
            # Behind what is queued for it: until its bytes are recorded, who comes back finds them in memory.
            if not self._host.recorder.call(functools.partial(self._retire, key), urgent=False):
                self._retire(key)
        return remote

    def _new(self, identity: Identity, cache: Cache | None, keeper: Keeper | None, terms: Terms | None) -> RemoteFile:
        """Return a remote file, of which nothing is read yet: where its bytes are kept, and what holds for it."""
        writable = cache is not None and cache.writable
        why_not, shared = "", False
        if terms is not None:
            why_not, shared = "" if cache is None else terms.why_not, terms.shared
            cache = None if terms.why_not or terms.exclude else cache
            writable = writable and terms.record
        stored = replace(identity, owner="") if shared else identity

        def home(*, asker: bool) -> Home | None:
            if cache is None:
                return None
            journal, place = cache.journal(stored, asker=asker), cache.place(cache.stored(stored, asker=asker).parts)
            below = tuple(one.directory for one in cache.below)
            return Home(journal, place, anything if keeper is None else functools.partial(keeper.admit, place), below)

        def own(make: bool) -> Home | None:
            return home(asker=True) if cache is not None and (make or cache.is_owned(stored)) else None

        remote = RemoteFile(
            self._host,
            home(asker=False),
            url=identity.url,
            writable=writable,
            local=cache is not None and cache.is_local,
            own=None if identity.asker.startswith(UNSTABLE) else own,
            shared=shared,
            why_not=why_not,
            validate=None if terms is None else terms.validate,
            query=identity.query,
            lock=self._lock,
        )
        # How old an answer is, of any process, says nothing to one who is not known to have got it.
        if isinstance(remote.validation.validate, float) and identity.asker != self._askers.setdefault(
            identity.key, identity.asker
        ):
            remote.invalidate()
        return remote

    def begin_small(
        self, shelf: Shelf, identities: Sequence[Identity | None], loop: "AbstractEventLoop"
    ) -> list[SmallFile | None]:
        """Begin to read small files on an event loop; None for those that are open, being read, or to be removed."""
        owned = {one.owner: one for one in identities if one is not None}
        caches = self._host.caches
        unknown = {owner for owner, one in owned.items() if not caches.knows_owner(shelf.cache, one)}
        with self._lock:
            clearing = self._clearings.get(shelf.key)
            return [
                None
                if identity is None
                or identity.owner in unknown
                or (clearing is not None and clearing.covers(identity.url))
                or (shelf.key, identity.key, identity.asker, None) in self._files
                else self.small.begin(shelf, identity, loop)
                for identity in identities
            ]

    # -- what changes ---------------------------------------------------------------------------------------------

    def refresh(self, identity: Identity, *, directory: str | None = None, terms: Terms | None = None) -> None:
        """Have a file fetched anew: what is recorded is removed before any of it is read again.

        Args:
            identity: The file.
            directory: The cache directory; JCACHE_DIR by default.
            terms: As for `acquire`.
        """
        if self._host.offline:
            return
        with self.acquire(identity, directory=directory, terms=terms) as remote:
            cleared = remote.validation.cleared = Future()
            self.invalidate(identity, directory=directory, below=False)
            if not self._host.recorder.call(functools.partial(cleared.set_result, None)):
                cleared.set_result(None)

    def invalidate(self, identity: Identity, *, directory: str | None = None, below: bool = True) -> None:
        """Forget what is cached of a path that is being written, and of those below it, here and in later processes.

        Whoever asks for them, and whatever else than the path tells objects apart: whatever lies there is forgotten.
        What is on disk is removed behind the application's back, and before this process ends.

        Args:
            identity: The path.
            directory: The cache directory; JCACHE_DIR by default.
            below: Whether it may be a directory, below which all is gone: in the flat layout that takes a search.
        """
        caches = self._host.caches
        cache = caches.get(directory)
        remote = self.acquire(identity, directory=directory)
        inner = self._below(identity.address)
        with self._lock:
            files = [remote, *inner]
            clearing = None
            if cache is not None and cache.writable:
                key = caches.key(directory)
                clearing = self._clearings.get(key) or self._clearings.setdefault(key, Clearing(cache))
            is_first = clearing is not None and clearing.add(identity, files, below=below)
        for file in files:
            file.invalidate()
        remote.release()
        self._host.answers.changed(identity.address.rstrip("/"))
        if is_first and clearing is not None and not self._host.recorder.call(clearing.carry_out):
            clearing.give_up()

    def doubt(self, address: str) -> None:
        """Have the origin asked again, at the next read, what version there is of an address and of all below it.

        Args:
            address: As `Identity.address` has it; all files where it is empty.
        """
        for file in self._below(address):
            file.doubt()
        if not self._host.offline:
            self._host.answers.changed(address.rstrip("/"))

    def _below(self, address: str) -> list[RemoteFile]:
        """Return the files that are known of an address, and of all below it; all that are known where it is empty."""
        address = address.rstrip("/")
        with self._lock:
            small = [(file.identity, file.directory) for file in self.small.below(address)]
        for identity, directory in small:
            self.acquire(identity, directory=directory).release()
        with self._lock:
            return [file for file in self._files.values() if is_below(file.url, address)]

    # -- what was used, and what was not ----------------------------------------------------------------------------

    def uses(self, key: Directory) -> list[Use]:
        """Return which journals of a cache directory were used since this was last asked, for the record of use."""
        with self._lock:
            return self._used(key)

    def _used(self, key: Directory) -> list[Use]:
        files = [file for (where, *_), file in self._files.items() if where == key]
        return _uses_of([*files, *self.small.of(key)])

    def _note(self, key: Directory, file: RemoteFile | SmallFile) -> None:
        keeper = self._host.caches.keepers.get(key)
        if keeper is not None:
            keeper.note(_uses_of([file]))
        if self._host.counters.profile is not None and (said := _told(file)):
            with self._lock:
                self._gone[_url(file)] = said
                while len(self._gone) > GONE_FILES:
                    del self._gone[next(iter(self._gone))]

    def drop_ahead(self) -> None:
        """Forget what was read ahead in files that nobody reads just now."""
        before_s = time.monotonic() - IDLE_S
        with self._lock:
            idle = [file for file in self._files.values() if not file.active and file.used_s < before_s]
        for file in idle:
            file.drop_ahead()

    def seal_idle(self, key: Directory) -> None:
        """Seal what a cache directory's cleaner might remove, were it not being written here."""
        before_s = time.monotonic() - IDLE_S
        with self._lock:
            files = [file for (where, *_), file in (*self._files.items(), *self._ending) if where == key]
        for file in files:
            if not file.active and file.used_s < before_s:
                with contextlib.suppress(JournalError):  # it stays unsealed, and valid
                    file.seal()

    def _idle_files(self) -> list[FileKey]:
        staying = len(self._files) - len(self._leaving)
        if staying <= IDLE_FILES or self._host.workers.hung:
            return []
        # Those that were asked for last are at the end, and those that are leaving already.
        wanted = staying - IDLE_FILES * 7 // 8
        idle = (key for key, file in self._files.items() if not file.active and key not in self._leaving)
        chosen = list(itertools.islice(idle, wanted))
        for key in chosen:
            self._leaving[key] = self._files[key].used_s
            self._files.move_to_end(key)
        return chosen

    def _retire(self, key: FileKey) -> None:
        """Close a file, unless it has been used since it was found idle."""
        with self._lock:
            used_s = self._leaving.pop(key, None)
            file = self._files.get(key)
            if file is None or file.active or file.used_s != used_s:
                return
            del self._files[key]
        self._note(key[0], file)
        file.close(compact_until_s=time.monotonic() + COMPACT_S)

    # -- the end ------------------------------------------------------------------------------------------------

    def end(self) -> list[RemoteFile]:
        """Let go of all files for good, having noted their use, and return them: they are to be closed."""
        with self._lock:
            for key, keeper in self._host.caches.keepers.items():
                keeper.note(self._used(key))
                keeper.hurry()
            self._ending = list(self._files.items())
            self._files.clear()
        return [file for _, file in self._ending]

    def told(self, urls: Container[str]) -> dict[str, dict[str, Any]]:
        """Return what an access profile says of files beside their addresses, of those of which it is known.

        Args:
            urls: Their addresses.

        Returns:
            By address `version`, as JSON has it, and `query`, which may contain secrets.
        """
        with self._lock:
            ending = [file for _, file in self._ending]
            files: list[RemoteFile | SmallFile] = [*self._files.values(), *ending, *self.small.below("")]
            found = {url: self._gone.pop(url) for url in list(self._gone) if url in urls}
        for file in files:
            if _url(file) in urls and (said := _told(file)):
                found[_url(file)] = said
        return found

    def all(self) -> list[RemoteFile]:
        """Return all that are open."""
        return list(self._files.values())


def _url(file: RemoteFile | SmallFile) -> str:
    return file.url if isinstance(file, RemoteFile) else file.identity.url


def _told(file: RemoteFile | SmallFile) -> dict[str, Any]:
    """Return what is known of a file's version and query; nothing where no version is."""
    if isinstance(file, RemoteFile):
        query, version = file.query, file.version
    else:
        query, version = file.identity.query, None if file.info is None else file.info.version
    if version is None:
        return {}
    return {"version": version.to_json()} | ({"query": query} if query else {})


def _uses_of(files: Iterable[RemoteFile | SmallFile]) -> list[Use]:
    """Return what is to be noted of files that were used since they were last asked."""
    now_s, moment_s = time.time(), time.monotonic()
    found = []
    for file in files:
        if file.place is not None and (file.active or file.used_s > file.noted_s):
            age_s = 0.0 if file.active else moment_s - file.used_s
            found.append(Use(file.place, now_s - age_s, file.hits, file.hit_bytes))
            file.hits = file.hit_bytes = 0
            file.noted_s = moment_s
    return found
