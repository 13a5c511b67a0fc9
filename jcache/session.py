"""One session per process: its settings, counters, recorder, cache directories and open remote files."""

import _thread
import contextlib
import functools
import itertools
import sys
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from jcache.cache import Cache, CacheUnusable
from jcache.cache.books import Use
from jcache.cache.keeper import Keeper
from jcache.cache.meter import MeteredStorage
from jcache.counters import Counters
from jcache.journal import JournalError
from jcache.journal.leases import LEASE_LIMIT_S
from jcache.naming import Identity
from jcache.naming.identity import is_below, names_of
from jcache.opening import open_file
from jcache.planning.held import Room
from jcache.planning.waiting import Patience
from jcache.reader.answers import Answers
from jcache.reader.clearing import Clearing
from jcache.reader.remote import RemoteFile
from jcache.reader.retrying import Retries
from jcache.reader.store import Home
from jcache.recording.recorder import Recorder
from jcache.recording.small import Shelf, SmallFile, SmallFiles
from jcache.recording.workers import CacheHungError, Workers
from jcache.settings.config import Config
from jcache.settings.policy import Directives, Policy, Terms
from jcache.settings.rules import naming
from jcache.settings.watch import Watch
from jcache.system import allocator
from jcache.system.stopwatch import acquire

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Session", "current", "ensure", "start", "stop"]

# How many journals stay open while nobody reads them: reopening one costs a directory listing and two reads.
IDLE_FILES = 256
# Fetched bytes that wait to be recorded.
PENDING_BYTES = 256 << 20
# What was read ahead in all files and nobody has asked for yet.
AHEAD_BYTES = 256 << 20
POOL_THREADS = 4
# How long a file must not have been used until its segment is sealed, where the cache is nearly full, and what was read
# ahead in it dropped, where others have no room for that.
IDLE_S = 0.5
# How long the compaction of one journal may take behind the application's back, and of all of them as the process ends.
COMPACT_S = 60.0
COMPACT_AT_EXIT_S = 5.0

# What has files of a directory that hangs, for good: to let go of them is to call that directory once more.
_kept: list[object] = []

FileKey = tuple[bytes, str, str, Terms | None]

_current: "Session | None" = None


def current() -> "Session | None":
    """Return the session of this process, or None where JCache is not active."""
    return _current


def start(config: Config, *, run_id: str | None = None) -> "Session":
    """Make a session with these settings the current one of this process."""
    global _current  # noqa: PLW0603 - one per process is what a session is
    _current = Session(config, run_id=run_id)
    return _current


def stop() -> None:
    """Close the current session, if there is one."""
    global _current
    session, _current = _current, None
    if session is not None:
        session.close()


def ensure() -> "Session":
    """Return the current session; without one (no JCACHE_DIR), start one that caches only where it is told to."""
    return _current or start(Config())


class Session:
    """What one process knows of its caching.

    Safe to use from any thread. A forked child calls `forget` first.

    Attributes:
        config: The settings.
        counters: What the report is made of.
        run_id: Shared by all processes of one job.
        policy: What holds for the files that are opened from now on.
    """

    def __init__(self, config: Config, *, run_id: str | None = None) -> None:
        self.config = config
        self.run_id = run_id or uuid.uuid4().hex[:16]
        self.validate: str | float = config.validate
        self.offline = config.offline
        self.policy = Policy.of(config)
        self._warned = False
        self._keeps_memory = False
        # What finalizers want done, which may run in any thread at any point, also where that holds a lock.
        self.late: deque[Callable[[], None]] = deque()
        self._apart: deque[_thread.LockType] = deque()
        self._reset()
        if config.bypass:
            self.bypass("JCACHE_BYPASS is set")

    def _reset(self) -> None:
        self.counters = Counters()
        self._lock = threading.Lock()
        self.small = SmallFiles(self._lock, self._note)
        self.recorder = Recorder(
            limit_bytes=PENDING_BYTES,
            recorded=self._recorded,
            failed=self._failed,
            small_recorded=self.small.recorded,
        )
        self._watch = Watch(self.config, changed=self._take, trouble=self.trouble)
        # By cache directory, object, who asks, and what holds for it: what one has validated, another has not.
        self._files: OrderedDict[FileKey, RemoteFile] = OrderedDict()
        # By object who was the first to ask, where answers are trusted for some time.
        self._askers: dict[str, str] = {}
        self._clearings: dict[bytes, Clearing] = {}
        # Those that are about to be closed, and when they were last used as that was decided.
        self._leaving: dict[FileKey, float] = {}
        self._caches: dict[bytes, Cache | None] = {}
        self._shelves: dict[bytes, Shelf] = {}
        self._keepers: dict[bytes, Keeper] = {}
        self.patience = Patience(LEASE_LIMIT_S)
        self.ahead = Room(AHEAD_BYTES, make=self._drop_ahead)
        self.retries = Retries(self.config.retries, self.config.retry_for)
        self.workers = Workers(threads=POOL_THREADS, limit_s=self.config.timeout, on_hung=self._hung)
        self.answers = Answers(self)
        # Those that are being closed for good.
        self._ending: list[tuple[FileKey, RemoteFile]] = []
        self._closed = False
        self.bypassed: str | None = None

    # -- files ----------------------------------------------------------------------------------------------

    def cache(self, directory: str | None = None) -> Cache | None:
        """Return a cache directory, made and checked at its first use; None where it cannot be used.

        Args:
            directory: Which one; JCACHE_DIR by default.
        """
        path = directory or self.config.dir
        if path is None or self.bypassed is not None:
            return None
        key = str(path).encode(errors="surrogateescape")
        if key not in self._caches:
            cache, metered = self._new_cache(path)
            try:
                self.workers.call(cache.prepare)
            except (CacheUnusable, CacheHungError) as error:
                self._keep(key, cache, error, metered)
            else:
                self._keep(key, cache, None, metered)
        return self._caches[key]

    def directories(self) -> list[str]:
        """Return the cache directories that this process uses."""
        return [key.decode(errors="surrogateescape") for key, cache in list(self._caches.items()) if cache is not None]

    async def prepare(self, directory: str | None = None) -> None:
        """Make and check a cache directory before `cache` is asked for it, without blocking the event loop.

        Args:
            directory: Which one; JCACHE_DIR by default.
        """
        path = directory or self.config.dir
        key = str(path).encode(errors="surrogateescape")
        if path is None or self.bypassed is not None or key in self._caches:
            return
        cache, metered = self._new_cache(path)
        try:
            await self.workers.run(cache.prepare)
        except (CacheUnusable, CacheHungError) as error:
            self._keep(key, cache, error, metered)
        else:
            self._keep(key, cache, None, metered)

    def _new_cache(self, path: str) -> tuple[Cache, MeteredStorage]:
        metered = MeteredStorage()
        config = self.config
        return Cache(path, storage=metered, **naming(config.rules, flat=config.flat, basepath=config.basepath)), metered

    def _keep(self, key: bytes, cache: Cache, error: Exception | None, metered: MeteredStorage) -> None:
        with self._lock:
            if key in self._caches:
                return  # another thread was faster
            self._caches[key] = cache if error is None else None
            if error is None and cache.writable:
                self._keepers[key] = Keeper(
                    cache,
                    metered,
                    limit_bytes=self.config.size,
                    collect=functools.partial(self._uses, key),
                    seal_idle=functools.partial(self._seal_idle, key),
                    # Also at the end, when most is recorded: it is why something is missing.
                    trouble=functools.partial(self._trouble, silent=False),
                )
        self._watch.start()
        if error is not None:
            self.trouble(f"{error}; nothing is cached")
            self.counters.bypassed(str(error))
        elif not cache.writable:
            self.trouble(f"{cache.reason}; what is cached is used, nothing is added")

    def acquire(self, identity: Identity, *, directory: str | None = None, terms: Terms | None = None) -> RemoteFile:
        """Return the one instance for a remote file in this process, kept open until it is released.

        Args:
            identity: The file.
            directory: The cache directory; JCACHE_DIR by default.
            terms: What holds for it, where that is anything but the settings.
        """
        path = directory or self.config.dir or ""
        key = (str(path).encode(errors="surrogateescape"), identity.key, identity.asker, terms)
        with self._lock:
            remote = self._files.get(key)
            if remote is not None:
                self._files.move_to_end(key)
                remote.active += 1
                return remote
        cache = self.cache(directory)
        if cache is not None and not self._knows_owner(cache, identity):
            cache = None
        with self._lock:
            remote = self._files.get(key)
            if remote is None:
                remote = self._files[key] = self._new_file(identity, cache, self._keepers.get(key[0]), terms)
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
            if not self.recorder.call(functools.partial(self._retire, key), urgent=False):
                self._retire(key)
        return remote

    def shelf(self, directory: str | None = None) -> Shelf | None:
        """Return where small files are looked for and recorded; None where each file needs to be looked at by itself.

        Args:
            directory: The cache directory; JCACHE_DIR by default.
        """
        path = directory or self.config.dir
        cache = self.cache(directory)
        if path is None or cache is None or self.workers.hung or self.offline or not self.policy.is_plain:
            return None
        if isinstance(self.validate, float):
            return None  # how old an answer is, is told from all segments of a journal
        key = str(path).encode(errors="surrogateescape")
        shelf = self._shelves.get(key)
        if shelf is None:
            keeper = self._keepers.get(key)
            if keeper is not None:
                keeper.start()
            shelf = Shelf(cache, path, key, (lambda *_: True) if keeper is None else keeper.admit)
            self._shelves[key] = shelf
        return shelf

    def begin_small(
        self, shelf: Shelf, identities: Sequence[Identity | None], loop: "AbstractEventLoop"
    ) -> list[SmallFile | None]:
        """Begin to read small files on an event loop; None for those that are open already, or being read."""
        owned = {one.owner: one for one in identities if one is not None}
        unknown = {owner for owner, one in owned.items() if not self._knows_owner(shelf.cache, one)}
        with self._lock:
            return [
                None
                if identity is None
                or identity.owner in unknown
                or (shelf.key, identity.key, identity.asker, None) in self._files
                else self.small.begin(shelf, identity, loop)
                for identity in identities
            ]

    def answers_home(self, directory: Identity) -> Home | None:
        """Return the journal of what was said to one asker of a directory's names; it may touch the cache directory."""
        cache = self.cache()
        if cache is None:
            return None
        asker = bool(directory.asker)
        place = cache.place(cache.stored(directory, asker=asker).parts)
        keeper = self._keepers.get(str(self.config.dir).encode(errors="surrogateescape"))
        if keeper is not None:
            keeper.start()
        admit = (lambda *_, **__: False) if keeper is None else functools.partial(keeper.admit, place)
        return Home(cache.journal(directory, asker=asker), place, admit)

    def _knows_owner(self, cache: Cache, identity: Identity) -> bool:
        """Have a cache directory asked, in time, for what it takes to store an object that is one asker's own."""
        if not cache.knows(identity):
            try:
                self.workers.call(functools.partial(cache.stored, identity))
            except CacheHungError:
                return False
        return True

    def _new_file(
        self, identity: Identity, cache: Cache | None, keeper: Keeper | None, terms: Terms | None
    ) -> RemoteFile:
        if keeper is not None:
            keeper.start()
        if not self._keeps_memory:
            self._keeps_memory = True
            allocator.keep(self.config.malloc)  # when the application has loaded what it works with, as a rule
        remote, validate = open_file(self, identity, cache, keeper, terms)
        if isinstance(validate, float):
            # How old an answer is, of any process, says nothing to one who is not known to have got it.
            first = self._askers.setdefault(identity.key, identity.asker)
            if first != identity.asker:
                remote.invalidate()
        return remote

    def terms(self, identity: Identity, said: Directives | None = None) -> Terms | None:
        """Return what holds for a remote file that is opened now; None where nothing but the settings does.

        Args:
            identity: The file.
            said: What the program says of it.
        """
        if said is None and self.policy.is_plain:
            return None
        return self.policy.terms((identity.url, *names_of(identity.key)), said)

    def _take(self, config: Config) -> None:
        """Have settings that have changed hold for what is opened from now on."""
        self.policy = Policy.of(config, validate=self.validate)

    def _uses(self, key: bytes) -> list[Use]:
        """Return which journals of a cache directory were used since this was last asked, for the record of use."""
        with self._lock:
            return self._used(key)

    def _used(self, key: bytes) -> list[Use]:
        files = [file for (where, *_), file in self._files.items() if where == key]
        return _uses_of([*files, *self.small.of(key)])

    def _note(self, key: bytes, file: RemoteFile | SmallFile) -> None:
        keeper = self._keepers.get(key)
        if keeper is not None:
            keeper.note(_uses_of([file]))

    def _drop_ahead(self) -> None:
        """Forget what was read ahead in files that nobody reads just now."""
        before_s = time.monotonic() - IDLE_S
        with self._lock:
            idle = [file for file in self._files.values() if not file.active and file.used_s < before_s]
        for file in idle:
            file.drop_ahead()

    def _seal_idle(self, key: bytes) -> None:
        """Seal what a cache directory's cleaner might remove, were it not being written here."""
        before_s = time.monotonic() - IDLE_S
        with self._lock:
            files = [file for (where, *_), file in (*self._files.items(), *self._ending) if where == key]
        for file in files:
            if not file.active and file.used_s < before_s:
                with contextlib.suppress(JournalError):  # it stays unsealed, and valid
                    file.seal()

    def release(self, remote: RemoteFile) -> None:
        """Allow a file that was acquired to be closed once it is the one not used for longest."""
        with self._lock:
            remote.active -= 1
            remote.used_s = time.monotonic()

    def refresh(self, identity: Identity, *, directory: str | None = None, terms: Terms | None = None) -> None:
        """Have a file fetched anew: what is recorded is removed before any of it is read again.

        Args:
            identity: The file.
            directory: The cache directory; JCACHE_DIR by default.
            terms: As for `acquire`.
        """
        if self.offline:
            return
        remote = self.acquire(identity, directory=directory, terms=terms)
        cleared = remote.validation.cleared = Future()
        self.invalidate(identity, directory=directory, below=False)
        if not self.recorder.call(functools.partial(cleared.set_result, None)):
            cleared.set_result(None)
        self.release(remote)

    def invalidate(self, identity: Identity, *, directory: str | None = None, below: bool = True) -> None:
        """Forget what is cached of a path that is being written, and of those below it, here and in later processes.

        Whoever asks for them, and whatever else than the path tells objects apart: whatever lies there is forgotten.
        What is on disk is removed behind the application's back, and before this process ends.

        Args:
            identity: The path.
            directory: The cache directory; JCACHE_DIR by default.
            below: Whether it may be a directory, below which all is gone: in the flat layout that takes a search.
        """
        cache = self.cache(directory)
        remote = self.acquire(identity, directory=directory)
        inner = self._below(identity.address)
        with self._lock:
            files = [remote, *inner]
            key = str(directory or self.config.dir).encode(errors="surrogateescape")
            clearing = None
            if cache is not None and cache.writable:
                clearing = self._clearings.get(key) or self._clearings.setdefault(key, Clearing(cache))
            is_first = clearing is not None and clearing.add(identity, files, below=below)
        for file in files:
            file.invalidate()
        self.release(remote)
        self.answers.changed(identity.address.rstrip("/"))
        if is_first and clearing is not None and not self.recorder.call(clearing.carry_out):
            clearing.give_up()

    def doubt(self, address: str) -> None:
        """Have the origin asked again, at the next read, what version there is of an address and of all below it.

        Args:
            address: As `Identity.address` has it; all files where it is empty.
        """
        for file in self._below(address):
            file.doubt()
        if not self.offline:
            self.answers.changed(address.rstrip("/"))

    def _below(self, address: str) -> list[RemoteFile]:
        """Return the files that are known of an address, and of all below it; all that are known where it is empty."""
        address = address.rstrip("/")
        with self._lock:
            small = [(file.identity, file.directory) for file in self.small.below(address)]
        for known in small:
            self.release(self.acquire(known[0], directory=known[1]))
        with self._lock:
            return [file for file in self._files.values() if is_below(file.url, address)]

    def catch_up(self) -> None:
        """Do what finalizers left to be done."""
        with contextlib.suppress(IndexError):
            while True:
                self.late.popleft()()

    def do_apart(self, work: Callable[[], object]) -> None:
        """Do in a thread of its own what a finalizer must not wait for; takes no lock, and `close` waits for it.

        Whatever thread the garbage collector runs in may hold a lock of JCache's, for which others wait that the work
        needs: the event loop, say.
        """
        done = _thread.allocate_lock()
        done.acquire()

        def run() -> None:
            try:
                work()
            finally:
                done.release()

        self._apart.append(done)
        try:
            _thread.start_new_thread(run, ())
        except RuntimeError:
            run()  # there are no more threads, and at the end of the interpreter no locks in use
        while self._apart and not self._apart[0].locked():
            self._apart.popleft()

    def _idle_files(self) -> list[FileKey]:
        staying = len(self._files) - len(self._leaving)
        if staying <= IDLE_FILES or self.workers.hung:
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

    # -- trouble --------------------------------------------------------------------------------------------

    def bypass(self, reason: str) -> None:
        """Run uncached from now on: reads are measured and go to the origin."""
        self.bypassed = reason
        self.counters.bypassed(reason)

    def trouble(self, what: str) -> None:
        """Count a failure of the cache; say the first one of this process on stderr, with JCACHE_LOG=info all."""
        self._trouble(what, silent=self._closed)

    def _trouble(self, what: str, *, silent: bool) -> None:
        self.counters.failure()
        talkative = self.config.log in ("debug", "info")
        silent = silent or self.config.log in ("error", "critical")
        if (talkative or not self._warned) and not silent:
            self._warned = True
            print(f"jcache: {what}", file=sys.stderr)  # noqa: T201 - the one warning that the user gets

    def _recorded(self, nbytes: int) -> None:
        self.counters.recorded(nbytes)

    def _hung(self, limit_s: float) -> None:
        self.recorder.give_up()
        # Also when the process is about to end: it is why the end of the recording is missing.
        what = "what was not recorded by then is lost" if self._closed else "reads go to the origin from now on"
        self._trouble(f"the cache directory did not answer within {limit_s:.3g} s; {what}", silent=False)

    def _failed(self, error: JournalError) -> None:
        self.trouble(f"{error}; reads go on without recording")

    # -- life -----------------------------------------------------------------------------------------------

    def close(self, timeout_s: float = 30.0) -> bool:
        """Record what is waiting, seal the segments and stop the threads; more calls do nothing.

        Args:
            timeout_s: How long the cache directory may take for all of it; for one step it has JCACHE_TIMEOUT.

        Returns:
            Whether all was recorded and sealed in time.
        """
        began_s, step_s = time.monotonic(), self.config.timeout
        while self._apart and acquire(self._apart[0], max(began_s + timeout_s - time.monotonic(), 0.0)):
            self._apart.popleft()
        self.catch_up()
        with self._lock:
            if self._closed:
                return True
            self._closed = True
            self._watch.end()
            files = list(self._files.values())
            for key, keeper in self._keepers.items():
                keeper.note(self._used(key))
                keeper.hurry()
            self._ending = list(self._files.items())
            self._files.clear()
        for file in files:
            file.hand_over()
            self.recorder.call(file.seal)
        self.recorder.call(self.answers.close)
        done = self.recorder.flush(timeout_s, stall_s=step_s)
        left_s = began_s + timeout_s - time.monotonic()
        if done:
            compact_s = min(timeout_s / 4, COMPACT_AT_EXIT_S)
            until_s = time.monotonic() + compact_s
            for file in files:
                self.recorder.call(functools.partial(file.close, compact_until_s=until_s))
            done = self.recorder.close(left_s, stall_s=step_s + compact_s)
        if not done:
            self.workers.give_up(min(step_s, timeout_s))
        if self.workers.hung:
            _kept.append((self, files))
            return False
        for keeper in self._keepers.values():
            keeper.close()
        return True

    def forget(self) -> None:
        """In a forked child: drop what is the parent's without writing or unlocking it, and start from zero."""
        self._apart.clear()
        bypassed = self.bypassed
        self._watch.end()
        if self.workers.hung:
            _kept.append(list(self._files.values()))
        else:
            for file in self._files.values():
                file.forget()
            self.answers.forget()
            for keeper in self._keepers.values():
                keeper.forget()
            for cache in self._caches.values():
                if cache is not None:
                    cache.forget()
        self._reset()
        if bypassed is not None:
            self.bypass(bypassed)


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
