"""The cache directories that a process uses, each made and checked at its first use, and kept within its size."""

import functools
import threading
from collections.abc import Callable
from typing import Protocol

from jcache.cache import Cache, CacheUnusable
from jcache.cache.books import Use
from jcache.cache.keeper import Keeper
from jcache.cache.meter import MeteredStorage
from jcache.counters import Counters
from jcache.naming import Identity
from jcache.reader.store import Home
from jcache.recording.small import Shelf
from jcache.recording.workers import CacheHungError, Workers
from jcache.settings.config import Config
from jcache.settings.rules import naming

__all__ = ["Caches", "Directory"]

# A cache directory's name, as the file system spells it.
Directory = bytes


class Host(Protocol):
    """What cache directories need of the session."""

    config: Config
    counters: Counters
    workers: Workers
    bypassed: str | None

    def trouble(self, what: str, *, silent: bool | None = None) -> None:
        """Say once that the cache is in trouble, and count it."""
        ...


class Caches:
    """The cache directories of one process; safe to use from any thread.

    Attributes:
        keepers: Of those that may be written to, what keeps each within its size.
    """

    def __init__(
        self,
        host: Host,
        *,
        uses: Callable[[Directory], list[Use]],
        seal_idle: Callable[[Directory], None],
        opened: Callable[[], None],
    ) -> None:
        """Begin without any.

        Args:
            host: The session.
            uses: Returns which journals of a directory were used since it was last asked.
            seal_idle: Seals what a directory's cleaner might remove, were it not being written here.
            opened: Called after each directory's first use.
        """
        self.keepers: dict[Directory, Keeper] = {}
        self._host = host
        self._uses, self._seal_idle, self._opened = uses, seal_idle, opened
        self._lock = threading.Lock()
        self._known: dict[Directory, Cache | None] = {}
        self._shelves: dict[Directory, Shelf] = {}

    def key(self, directory: str | None) -> Directory:
        """Return the name of a directory; of JCACHE_DIR for None."""
        return str(directory or self._host.config.dir or "").encode(errors="surrogateescape")

    def get(self, directory: str | None = None) -> Cache | None:
        """Return a cache directory, made and checked at its first use; None where it cannot be used.

        Args:
            directory: Which one; JCACHE_DIR by default.
        """
        path = directory or self._host.config.dir
        if path is None or self._host.bypassed is not None:
            return None
        key = self.key(path)
        if key not in self._known:
            cache, metered = self._new(path)
            try:
                self._host.workers.call(functools.partial(self._prepare, cache))
            except (CacheUnusable, CacheHungError) as error:
                self._keep(key, cache, error, metered)
            else:
                self._keep(key, cache, None, metered)
        return self._known[key]

    async def prepare(self, directory: str | None = None) -> None:
        """Make and check a cache directory before `get` is asked for it, without blocking the event loop.

        Args:
            directory: Which one; JCACHE_DIR by default.
        """
        path = directory or self._host.config.dir
        key = self.key(path)
        if path is None or self._host.bypassed is not None or key in self._known:
            return
        cache, metered = self._new(path)
        try:
            await self._host.workers.run(functools.partial(self._prepare, cache))
        except (CacheUnusable, CacheHungError) as error:
            self._keep(key, cache, error, metered)
        else:
            self._keep(key, cache, None, metered)

    def in_use(self) -> list[str]:
        """Return the cache directories that this process uses."""
        return [key.decode(errors="surrogateescape") for key, cache in list(self._known.items()) if cache is not None]

    def _new(self, path: str) -> tuple[Cache, MeteredStorage]:
        metered, config = MeteredStorage(), self._host.config
        names = naming(config.rules, flat=config.flat, basepath=config.basepath)
        cache = Cache(path, storage=metered, **names)
        if path == config.dir:
            cache.below = tuple(Cache(tier, **names) for tier in config.tiers)
            if config.bundles:
                from jcache.bundle.reader import Bundle  # few have any

                cache.below += tuple(Bundle(path, trouble=self._host.trouble) for path in config.bundles)
        return cache, metered

    def _prepare(self, cache: Cache) -> None:
        cache.prepare()
        found = []
        for one in cache.below:
            try:
                one.look_at()
            except CacheUnusable as error:
                self._host.trouble(f"{error}; it is left out")
            else:
                found.append(one)
        cache.below = tuple(found)
        # Whatever hangs there, nobody waits for it on a thread of his own.
        cache.is_local = cache.is_local and all(one.is_local for one in found)

    def _keep(self, key: Directory, cache: Cache, error: Exception | None, metered: MeteredStorage) -> None:
        host = self._host
        with self._lock:
            if key in self._known:
                return  # another thread was faster
            self._known[key] = cache if error is None else None
            if error is None and cache.writable:
                self.keepers[key] = Keeper(
                    cache,
                    metered,
                    limit_bytes=host.config.size,
                    collect=functools.partial(self._uses, key),
                    seal_idle=functools.partial(self._seal_idle, key),
                    # Also at the end, when most is recorded: it is why something is missing.
                    trouble=functools.partial(host.trouble, silent=False),
                )
        self._opened()
        if error is not None:
            host.trouble(f"{error}; nothing is cached")
            host.counters.bypassed(str(error))
        elif not cache.writable:
            host.trouble(f"{cache.reason}; what is cached is used, nothing is added")

    def keeper(self, key: Directory) -> Keeper | None:
        """Return what keeps a directory within its size, at work; None for one that may not be written to."""
        keeper = self.keepers.get(key)
        if keeper is not None:
            keeper.start()
        return keeper

    def shelf(self, directory: str | None = None) -> Shelf | None:
        """Return where small files of a directory are looked for and recorded; None where it cannot be used.

        Args:
            directory: Which one; JCACHE_DIR by default.
        """
        key = self.key(directory)
        shelf, cache = self._shelves.get(key), self.get(directory)
        if cache is not None and cache.below:
            return None  # a look there finds small files in one place only
        if shelf is None and cache is not None:
            keeper = self.keeper(key)
            admit = (lambda *_: True) if keeper is None else keeper.admit
            shelf = self._shelves[key] = Shelf(cache, str(directory or self._host.config.dir), key, admit)
        return None if cache is None else shelf

    def answers_home(self, directory: Identity) -> Home | None:
        """Return the journal of what was said to one asker of a directory's names; it may touch the cache directory."""
        cache = self.get()
        if cache is None:
            return None
        asker = bool(directory.asker)
        place = cache.place(cache.stored(directory, asker=asker).parts)
        keeper = self.keeper(self.key(None))
        admit = (lambda *_, **__: False) if keeper is None else functools.partial(keeper.admit, place)
        return Home(cache.journal(directory, asker=asker), place, admit)

    def knows_owner(self, cache: Cache, identity: Identity) -> bool:
        """Have a cache directory asked, in time, for what it takes to store an object that is one asker's own."""
        if not cache.knows(identity):
            try:
                self._host.workers.call(functools.partial(cache.stored, identity))
            except CacheHungError:
                return False
        return True

    def close(self) -> None:
        """Have it written down what was used, and whatever else the directories' keepers have to say."""
        for keeper in self.keepers.values():
            keeper.close()

    def forget(self) -> None:
        """Drop, in a forked child, what is the parent's without writing or unlocking it."""
        for keeper in self.keepers.values():
            keeper.forget()
        for cache in self._known.values():
            if cache is not None:
                cache.forget()
