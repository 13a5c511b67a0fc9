"""One session per process: its settings, counters and recorder; it begins, forks and ends with the process."""

import _thread
import contextlib
import functools
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable

from jcache.cache.keeper import most_at_once
from jcache.caches import Caches
from jcache.counters import Counters
from jcache.journal import JournalError
from jcache.journal.leases import LEASE_LIMIT_S
from jcache.naming import Identity
from jcache.naming.identity import names_of
from jcache.planning.held import Room
from jcache.planning.waiting import Patience
from jcache.reader.answers import Answers
from jcache.reader.retrying import Retries
from jcache.recording.recorder import FRAME_BYTES, Recorder
from jcache.recording.small import Shelf
from jcache.recording.workers import Workers
from jcache.registry import Registry
from jcache.settings.config import Config
from jcache.settings.policy import Directives, Policy, Terms
from jcache.settings.watch import Watch
from jcache.system import allocator
from jcache.system.stopwatch import acquire

__all__ = ["Session", "current", "ensure", "start", "stop"]

# Fetched bytes that wait to be recorded.
PENDING_BYTES = 256 << 20
# What was read ahead in all files and nobody has asked for yet.
AHEAD_BYTES = 256 << 20
POOL_THREADS = 4
# How long the compaction of all journals may take as the process ends.
COMPACT_AT_EXIT_S = 5.0

# What has files of a directory that hangs, for good: to let go of them is to call that directory once more.
_kept: list[object] = []

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
        caches: The cache directories.
        files: The remote files.
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
        self.files = Registry(self)
        self.caches = Caches(self, uses=self.files.uses, seal_idle=self.files.seal_idle, opened=self._began)
        self.recorder = Recorder(
            limit_bytes=PENDING_BYTES,
            recorded=self._recorded,
            failed=self._failed,
            # What is small enough by itself is not refused for what it happens to wait with.
            frame_bytes=min(FRAME_BYTES, FRAME_BYTES if self.config.size is None else most_at_once(self.config.size)),
            small_recorded=self.files.small.recorded,
        )
        self._watch = Watch(self.config, changed=self._take, trouble=self.trouble)
        self.patience = Patience(LEASE_LIMIT_S)
        self.ahead = Room(AHEAD_BYTES, make=self.files.drop_ahead)
        self.retries = Retries(self.config.retries, self.config.retry_for)
        self.copy_up = self.config.copy
        self.trusts_unreachable = bool(self.config.bundles)
        # Told where a file is, by whom and by which path, before it is read for the first time.
        self.places: Callable[[str, object, str], None] | None = None
        self.workers = Workers(threads=POOL_THREADS, limit_s=self.config.timeout, on_hung=self._hung)
        self.answers = Answers(self, self.caches.answers_home)
        self._lock = threading.Lock()
        self._closed = False
        self.bypassed: str | None = None

    # -- what holds -----------------------------------------------------------------------------------------

    def terms(self, identity: Identity, said: Directives | None = None) -> Terms | None:
        """Return what holds for a remote file that is opened now; None where nothing but the settings does.

        Args:
            identity: The file.
            said: What the program says of it.
        """
        if said is None and self.policy.is_plain:
            return None
        return self.policy.terms((identity.url, *names_of(identity.key)), said)

    def shelf(self, directory: str | None = None) -> Shelf | None:
        """Return where small files are looked for and recorded; None where each file needs to be looked at by itself.

        Args:
            directory: The cache directory; JCACHE_DIR by default.
        """
        # How old an answer is, is told from all segments of a journal.
        is_plain = self.policy.is_plain and not self.offline and not isinstance(self.validate, float)
        return None if self.workers.hung or not is_plain else self.caches.shelf(directory)

    def _began(self) -> None:
        """Do what the use of a cache directory calls for."""
        self._watch.start()
        if not self._keeps_memory:
            self._keeps_memory = True
            allocator.keep(self.config.malloc)  # when the application has loaded what it works with, as a rule

    def _take(self, config: Config) -> None:
        """Have settings that have changed hold for what is opened from now on."""
        self.policy = Policy.of(config, validate=self.validate)

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

    # -- trouble --------------------------------------------------------------------------------------------

    def bypass(self, reason: str) -> None:
        """Run uncached from now on: reads are measured and go to the origin."""
        self.bypassed = reason
        self.counters.bypassed(reason)

    def trouble(self, what: str, *, silent: bool | None = None) -> None:
        """Count a failure of the cache; say the first one of this process on stderr, with JCACHE_LOG=info all.

        Args:
            what: What there is to say.
            silent: Whether it is only counted; by default where the session has ended.
        """
        self.counters.failure()
        talkative = self.config.log in ("debug", "info")
        silent = (self._closed if silent is None else silent) or self.config.log in ("error", "critical")
        if (talkative or not self._warned) and not silent:
            self._warned = True
            # As in `jcache.activate.notice`: it may name what somebody else has written.
            what = "".join(char if char.isprintable() else repr(char)[1:-1] for char in what)
            print(f"jcache: {what}", file=sys.stderr)  # noqa: T201 - the one warning that the user gets

    def _recorded(self, nbytes: int) -> None:
        self.counters.recorded(nbytes)

    def _hung(self, limit_s: float) -> None:
        self.recorder.give_up()
        # Also when the process is about to end: it is why the end of the recording is missing.
        what = "what was not recorded by then is lost" if self._closed else "reads go to the origin from now on"
        self.trouble(f"the cache directory did not answer within {limit_s:.3g} s; {what}", silent=False)

    def _failed(self, error: JournalError) -> None:
        # Also at the end, when most is recorded: it is why something is missing.
        self.trouble(f"{error}; reads go on without recording", silent=False)

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
        files = self.files.end()
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
        self.caches.close()
        self.workers.close()
        return True

    def forget(self) -> None:
        """In a forked child: drop what is the parent's without writing or unlocking it, and start from zero."""
        self._apart.clear()
        bypassed = self.bypassed
        if self.workers.hung:
            _kept.append(self.files.all())
        else:
            for file in self.files.all():
                file.forget()
            self.answers.forget()
            self.caches.forget()
        self._reset()
        if bypassed is not None:
            self.bypass(bypassed)
