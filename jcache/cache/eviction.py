"""The cleaner: makes room in a cache by removing what was not used for longest.

One process cleans at a time, the one that has the cleaner's lock. In this order, until what is left is small enough:
leftovers, orphans and superseded versions of journals that were written to since the last time; then whole journals,
by the record of use that processes keep (`jcache.cache.usage`), in the order of `jcache.cache.policy`; then, if that
was not enough, what a walk through the tree finds beyond. Never what is pinned, what a living process is writing, or
what is not ours.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcache.cache import usage
from jcache.cache.books import Head
from jcache.cache.pins import Pins, read_pins
from jcache.cache.policy import eviction_order, times_read_again
from jcache.cache.tree import Part, State, look_into, prune, remove_directory, remove_parts, useless, walk
from jcache.cache.usage import Entry, Index, Walk, cleaner_lock
from jcache.naming.identity import names_of
from jcache.system.locks import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.system.storage import Storage

__all__ = ["Cleaned", "Cleaner", "Pace", "Removed"]

WALK_EVERY_S = 7 * 86400.0
"""How often to measure anew."""

LIVE_S = 10.0
"""How long a journal is left alone that was looked at: what somebody was writing then he most likely still is."""

_WALK_AGAIN_S = 600.0
_MOST_DOUBT = 1 / 32
_SAVE_EVERY_S = 30.0
_COUNT_EVERY_S = 0.2
_TELL_EVERY_S, _TELL_BYTES = 0.05, 64 << 20


class Pace:
    """Leaves most of the processor, and of the interpreter's lock, to others: works 1 ms, then pauses."""

    __slots__ = ("_began_s", "_pause_s", "_stopped")

    def __init__(self, *, pause_s: float, stopped: Callable[[float], bool]) -> None:
        """Set the pace.

        Args:
            pause_s: How long to pause after 1 ms of work.
            stopped: Waits for so many seconds, and tells whether the work is to be given up.
        """
        self._pause_s = pause_s
        self._stopped = stopped
        self._began_s = time.perf_counter()

    def __call__(self) -> None:
        """Pause if it is time to.

        Raises:
            StoppedError: The work is to be given up.
        """
        if time.perf_counter() - self._began_s >= 0.001:
            if self._stopped(self._pause_s):
                raise StoppedError
            self._began_s = time.perf_counter()


class StoppedError(Exception):
    """The process is about to end; what is done so far stays done."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A journal that is gone, or parts of it that were of no use."""

    path: str
    name: str
    freed_bytes: int
    why: str


@dataclass(slots=True)
class Cleaned:
    """What a cleaner did."""

    freed_bytes: int = 0
    journals: int = 0
    """Removed whole."""
    left_bytes: int = 0
    """What the cache holds now."""
    pinned: int = 0
    """Journals that would have been removed but for their pins."""
    live: int = 0
    """Journals that would have been removed but for those who write to them."""
    failed: list[str] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to go, of what is not pinned: whatever meets all that is said here."""

    to_bytes: int | None = None
    """As much as it takes until the cache holds no more than this."""
    unused_since_s: float | None = None
    """What was not used since this Unix time."""
    pattern: Pins | None = None
    """What one of these patterns matches."""
    spares: bool = False
    """Nothing that was read again as long as anything else is there that will do when its writer is done with it."""


class Cleaner:
    """Cleans one cache directory, once. Used by one thread."""

    def __init__(
        self,
        storage: Storage,
        root: str,
        *,
        dir_mode: int = 0o700,
        file_mode: int = 0o600,
        look_s: float = math.inf,
        dry_run: bool = False,
        keep_names: bool = False,
        pace: Callable[[], object] = lambda: None,
        freed: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare to clean.

        Args:
            storage: The cache's file system; counts what is removed.
            root: The cache's root.
            dir_mode: Permissions of directories below it.
            file_mode: Permissions of files below it.
            look_s: How long it may take to look for what is of no use; the rest of it is left to the next cleaning.
            dry_run: Whether to tell only.
            keep_names: Whether to tell which journals were removed.
            pace: Called again and again, to leave the processor to others.
            freed: Called soon after something was removed, to let others know.
        """
        storage.keep_inside(root)
        self._storage = storage
        self._root = root
        self._dir_mode, self._file_mode = dir_mode, file_mode
        self._look_s = look_s
        self._dry_run = dry_run
        self._keep_names = keep_names
        self._pace = pace
        self._freed = freed
        self._index = Index()
        self._is_alone = False  # as far as locks can tell
        self._pins = Pins(())
        self._skip: set[str] = set()
        self._counted, self._count_at_s = 0, 0.0
        self._told, self._tell_at_s = 0, 0.0
        self._above: set[str] = set()  # directories in which journals were
        self.done = Cleaned()

    def run(self, wish: Wish, *, measure: bool = False, timeout_s: float = 0.0) -> Cleaned | None:
        """Do what is wished.

        Args:
            wish: What is to go.
            measure: Whether to walk through the tree first, which finds what nobody has noted.
            timeout_s: How long to wait for another cleaner to end.

        Returns:
            What was done; None where another one is cleaning.

        Raises:
            OSError: The cache directory cannot be read or written.
            StoppedError: The pace said so.
        """
        with cleaner_lock(
            self._storage, self._root, dir_mode=self._dir_mode, file_mode=self._file_mode, timeout_s=timeout_s
        ) as outcome:
            if outcome is Outcome.HELD:
                return None
            self._is_alone = outcome is Outcome.TAKEN
            self._load()
            if measure:
                self._index.walk = None
            if measure or self._index.offset_bytes is None or self._index.walk is not None or self._doubts(wish):
                self._walk()
            try:
                self._clean(wish)
                if self._walked_before_s() > WALK_EVERY_S:
                    self._walk()
            finally:
                self._tell()
                prune(self._storage, self._root, self._above, pace=self._pace_gently)
                self._finish()
            self.done.left_bytes = self._total()
        return self.done

    def fold(self) -> bool:
        """Take finished books into the index; False where somebody else is cleaning.

        Raises:
            OSError: The cache directory cannot be read or written.
        """
        with cleaner_lock(self._storage, self._root, dir_mode=self._dir_mode, file_mode=self._file_mode) as outcome:
            if outcome is Outcome.HELD:
                return False
            self._is_alone = outcome is Outcome.TAKEN
            self._load()
            self._finish()
            return True

    def _load(self) -> None:
        self._index = usage.load(self._storage, self._root, pace=self._pace)
        usage.take_over(self._storage, self._root, self._index, pace=self._pace)

    def _finish(self) -> None:
        self._save()
        usage.drop(self._storage, self._root, self._index, is_alone=self._is_alone)

    def _total(self) -> int:
        assert self._index.offset_bytes is not None
        total = self._index.offset_bytes + usage.claimed(self._storage, self._root, self._index).claim_bytes
        return max(total - (self.done.freed_bytes if self._dry_run else 0), 0)

    def _walked_before_s(self) -> float:
        """Return how long ago the last walk ended; more than ever where the clock was set back since."""
        age_s = time.time() - self._index.walked_s
        return age_s if age_s >= 0 else 2 * WALK_EVERY_S

    def _doubts(self, wish: Wish) -> bool:
        """Whether killed processes have claimed so much that measuring is better than removing for nothing."""
        if wish.to_bytes is None or self._walked_before_s() < _WALK_AGAIN_S:
            return False
        return self._index.folded.ahead_bytes > _MOST_DOUBT * wish.to_bytes

    # -- measuring ------------------------------------------------------------------------------------------

    def _walk(self) -> None:
        """Measure what the cache holds, from where a former walk was interrupted; and find journals nobody noted."""
        index, storage, root = self._index, self._storage, self._root
        if index.walk is None:
            index.walk = Walk(before_bytes=usage.claimed(storage, root, index).added_bytes)
        progress, saved_s = index.walk, time.monotonic()
        try:
            for found in walk(storage, root, after=progress.cursor, pace=self._pace):
                progress.found_bytes += found.size_bytes
                progress.cursor = found.path
                entry = index.entries.get(found.path)
                if entry is None:
                    entry = index.entries[found.path] = Entry(found.used_s)
                elif entry.is_gone:
                    entry.used_s = max(entry.used_s, found.used_s)
                entry.check |= found.size_bytes != entry.size_bytes
                entry.size_bytes = found.size_bytes
                if time.monotonic() - saved_s >= _SAVE_EVERY_S:
                    self._save()
                    saved_s = time.monotonic()
        except StoppedError:
            self._save()
            raise
        # What was added behind the walk's back may be counted twice, until the next walk; never not at all. What was
        # removed by now has not been found: told later, it would be counted off.
        self._tell()
        removed_bytes = usage.claimed(storage, root, index).removed_bytes
        index.offset_bytes = progress.found_bytes - progress.before_bytes + removed_bytes
        index.offset_bytes += index.folded.added_bytes - index.folded.removed_bytes
        index.folded = Head()
        index.walk, index.walked_s = None, time.time()
        self._save()

    def _save(self) -> None:
        usage.save(self._storage, self._root, self._index, file_mode=self._file_mode, pace=self._pace_gently)

    def _pace_gently(self) -> None:
        """Pause now and then in what is not to be left half done."""
        with contextlib.suppress(StoppedError):
            self._pace()

    # -- removing -------------------------------------------------------------------------------------------

    def _clean(self, wish: Wish) -> None:
        self._pins = Pins(read_pins(self._storage, self._root))
        for _ in range(2):
            entries = usage.uses(self._storage, self._root, self._index, pace=self._pace)
            if wish.to_bytes is not None:
                self._remove_useless(wish.to_bytes, entries)
            first, last = eviction_order(entries, wish.to_bytes or 0)
            order = deque(first)
            while order or last:
                self._pace()
                if wish.to_bytes is not None and self._total_soon() <= wish.to_bytes:
                    break
                if not order:
                    if wish.spares and self.done.live:
                        return
                    order, last = deque(last), []
                path = order.popleft()
                if wish.unused_since_s is not None and entries[path].used_s >= wish.unused_since_s:
                    continue
                if not self._remove(path, wish, entries[path]):
                    order.append(path)
            # All that is known did not do: there may be journals that nobody has noted.
            recent = self._walked_before_s() < _WALK_AGAIN_S
            if wish.to_bytes is None or recent or self._total() <= wish.to_bytes:
                return
            self._walk()

    def _total_soon(self) -> int:
        """Return the total as of the last count, less what was removed since: a count for each journal is too many."""
        now_s = time.monotonic()
        if now_s >= self._count_at_s:
            self._tell()
            self._counted, self._count_at_s = self._total() + self.done.freed_bytes, now_s + _COUNT_EVERY_S
        return self._counted - self.done.freed_bytes

    def _tell(self) -> None:
        """Let others know what was removed; whoever counts must have done so before."""
        if self._told != self.done.freed_bytes:
            self._told, self._tell_at_s = self.done.freed_bytes, time.monotonic() + _TELL_EVERY_S
            self._freed()

    def _remove_useless(self, to_bytes: int, entries: dict[str, Entry]) -> None:
        """Remove what is of no use in journals that were written to; on the way, learn how large they are."""
        until_s = time.monotonic() + self._look_s
        since_s = time.time() - LIVE_S if self._look_s < math.inf else math.inf
        chosen = [path for path, entry in entries.items() if entry.check and entry.looked_s < since_s]
        for path in sorted(chosen, key=lambda path: entries[path].used_s):
            self._pace()
            if self._total_soon() <= to_bytes or time.monotonic() >= until_s:
                return
            parts = look_into(self._storage, os.path.join(self._root, path))
            of_no_use = useless(parts)
            if of_no_use and not self._is_pinned(parts):
                parts = self._take(path, parts, of_no_use, "of no use")
            self._note(path, entries[path], parts)

    def _note(self, path: str, entry: Entry, parts: list[Part]) -> None:
        """Keep in mind how large a journal is, or that it is gone."""
        known = self._index.entries.get(path)
        if known is None:
            # What books say of it that are not in the index yet is still to come.
            known = self._index.entries[path] = Entry(entry.used_s, check=False)
        for each in (entry,) if self._dry_run else (entry, known):
            each.look(sum(part.size_bytes for part in parts), check=any(part.state is State.LIVE for part in parts))

    def _remove(self, path: str, wish: Wish, entry: Entry) -> bool:
        """Remove a journal if that may be; False where its turn is later, as its size shows."""
        if path in self._skip:
            return True
        parts = look_into(self._storage, os.path.join(self._root, path))
        if not parts:
            self._note(path, entry, parts)
            if not self._dry_run:
                self._remove_directory(path)
            return True
        if wish.to_bytes is not None and not entry.size_bytes:
            entry.size_bytes = sum(part.size_bytes for part in parts)
            if times_read_again(entry):
                return False
        if wish.pattern is not None and not wish.pattern.match(*_names(parts)):
            return True
        if self._is_pinned(parts):
            self.done.pinned += 1
            self._skip.add(path)
            return True
        chosen = [part for part in parts if part.state not in {State.LIVE, State.FOREIGN}]
        if any(part.state is State.LIVE for part in parts):
            self.done.live += 1
            self._skip.add(path)
        if chosen:
            self._note(path, entry, self._take(path, parts, chosen, "journal"))
        return True

    def _take(self, path: str, parts: list[Part], chosen: list[Part], why: str) -> list[Part]:
        """Remove parts of a journal; return what is left of it."""
        whole = len(chosen) == len(parts)
        left = [part for part in parts if part not in chosen]
        freed = sum(part.size_bytes for part in chosen)
        if not self._dry_run:
            try:
                freed = remove_parts(self._storage, chosen)
                if whole:
                    self._remove_directory(path)
            except OSError as error:
                self.done.failed.append(f"{os.path.join(self._root, path)}: {error.strerror or error}")
                self._skip.add(path)
                return parts
        self.done.freed_bytes += freed
        if whole:
            self.done.journals += 1
            self._skip.add(path)
        if self._keep_names:
            self.done.removed.append(Removed(path, next(iter(_names(parts)), path), freed, why))
        if time.monotonic() >= self._tell_at_s or self.done.freed_bytes - self._told >= _TELL_BYTES:
            self._tell()
        return parts if self._dry_run else left

    def _remove_directory(self, path: str) -> None:
        remove_directory(self._storage, os.path.join(self._root, path))
        self._above.add(os.path.dirname(path))

    def _is_pinned(self, parts: list[Part]) -> bool:
        return bool(self._pins) and self._pins.match(*_names(parts))


def _names(parts: list[Part]) -> list[str]:
    """Return what a journal is called: addresses first, then keys."""
    keys = list(dict.fromkeys(part.metadata.identity for part in parts if part.metadata is not None))
    return [*(name for key in keys for name in names_of(key)), *keys]
