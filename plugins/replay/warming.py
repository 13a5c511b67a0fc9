"""Filling a cache ahead of the job: exactly the ranges that a profile names, or whole files."""

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jcache.activate import activate
from jcache.cache import Cache
from jcache.profile.reader import Profile
from jcache.profile.statistics import look_at
from jcache.ranges import Range, subtract, total
from jcache.segment.version import Version
from jcache.session import Session, current
from jcache.settings.config import Config
from jcache_plugins.columns.layout import layout_of
from jcache_plugins.fsspec.access import access, run
from jcache_plugins.places import PlaceError, Places
from jcache_plugins.replay.pace import Pace

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Need", "Progress", "Warmed", "needs_of", "warm"]

# One request has so many ranges at most.
VECTOR_RANGES = 512
# So often what the cache did not take (it was full for a moment, or could not keep up) is fetched again.
ROUNDS = 3
FLUSH_S = 60.0

Progress = Callable[[int, int], None]
"""Is told how many bytes are there, and of how many; from several threads, one at a time."""


@dataclass(frozen=True, slots=True)
class Need:
    """What is wanted of one file: half-open ranges, in order and apart; None for all of it.

    `query` is that of its URL, where the address has a mark in its place; `versions` are those that a run has read.
    """

    url: str
    ranges: list[Range] | None = None
    query: str = ""
    versions: tuple[Version, ...] = ()


@dataclass(slots=True)
class Warmed:
    """What came of it. Sizes are in bytes.

    Attributes:
        wanted_bytes: What was to be there.
        held_bytes: What had been there before.
        fetched_bytes: What was fetched.
        missing_bytes: What is not there now.
        columns: In how many files there is anything wanted of each column that was named.
        failed: Files that could not be had, and why, by address.
        replaced: Addresses of files that are of another version than the run has read; at another site (`maps`) nobody
            can tell.
    """

    files: int = 0
    wanted_bytes: int = 0
    held_bytes: int = 0
    fetched_bytes: int = 0
    missing_bytes: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all that was wanted is there."""
        return not self.failed and not self.missing_bytes and all(self.columns.values())

    def add(self, other: "Warmed") -> None:
        """Add what others did."""
        for name in ("files", "wanted_bytes", "held_bytes", "fetched_bytes", "missing_bytes", "replaced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, files in other.columns.items():
            self.columns[name] = self.columns.get(name, 0) + files
        self.failed.update(other.failed)


def needs_of(profile: Profile) -> list[Need]:
    """Return what was read of each file of a profile, in the order in which the run came to them.

    Raises:
        ProfileError: The profile cannot be read.
    """
    files = look_at(profile, gaps=()).files
    queries, versions = profile.queries, profile.versions
    return [
        Need(one.url, one.union.pieces, queries.get(one.url, ""), tuple(versions.get(one.url, ())))
        for one in files
        if one.union.pieces
    ]


def warm(
    what: Profile | Iterable[Need | str],
    *,
    cache_dir: str | None = None,
    columns: Sequence[str] | None = None,
    maps: Sequence[tuple[str, str]] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    parallel: int = 8,
    rate: float | None = None,
    progress: Progress | None = None,
    client: "Client | None" = None,
) -> Warmed:
    """Fetch what is wanted and not there yet into the cache.

    It may be ended at any time and begun again: what was fetched by then is there.

    Args:
        what: What is wanted: what was read of each file of a profile, or these; of a URL, or a glob, the whole file.
        cache_dir: The cache directory, instead of that of the session or JCACHE_DIR.
        columns: Of each file only these columns, which may be globs, and what is read to find them.
        maps: Beginnings of addresses, and what stands in their place.
        options: Of fsspec's file systems, by protocol.
        parallel: How many requests to make at a time (of each worker, where there is a `client`).
        rate: How many bytes a second to fetch at most, all together.
        progress: Is told how far it is.
        client: A Dask client, among whose workers the files are dealt out. They need JCache (`JCachePlugin`).

    Returns:
        What came of it.

    Raises:
        RuntimeError: There is no cache directory, or it cannot be used.
        PlaceError: A glob means nothing.
        ProfileError: The profile cannot be read.
    """
    places = Places(maps, options)
    needs = needs_of(what) if isinstance(what, Profile) else what
    wanted = [need if isinstance(need, Need) else Need(url) for need in needs for url in _expanded(places, need)]
    if maps:
        wanted = [replace(need, versions=()) for need in wanted]
    places.queries = {need.url: need.query for need in wanted if need.query}
    if client is not None:
        return _dealt_out(
            client, wanted, progress, columns=columns, maps=maps, options=options, parallel=parallel, rate=rate
        )
    if cache_dir is not None and current() is None:
        session = activate(Config.from_environ({"JCACHE_DIR": cache_dir}))
    else:
        session = current() or activate()
    if session is None:
        raise RuntimeError("there is no cache to fill: set JCACHE_DIR, or name a directory that can be used")
    cache = session.caches.get()
    if cache is None:
        raise RuntimeError(f"nothing can be cached: {session.bypassed or 'the cache directory cannot be used'}")
    warming = _Warming(session, cache, places, wanted, columns=columns, pace=Pace(rate, parallel), progress=progress)
    for _ in range(ROUNDS):
        warming.run(parallel)
        if not warming.again():
            break
    return warming.warmed


def _expanded(places: Places, need: Need | str) -> list[str]:
    return [need.url] if isinstance(need, Need) else places.expand(need)


class _Warming:
    """Files to be opened, and pieces of opened ones to be fetched, that several threads take one after the other."""

    def __init__(
        self,
        session: Session,
        cache: Cache,
        places: Places,
        needs: Sequence[Need],
        *,
        columns: Sequence[str] | None,
        pace: Pace,
        progress: Progress | None,
    ) -> None:
        self.warmed = Warmed(files=len(needs), columns=dict.fromkeys(columns or (), 0))
        self._session = session
        self._cache = cache
        self._places = places
        self._columns = columns
        self._todo = deque(needs)
        self._open: deque[Iterator[tuple[Any, str, list[Range]]]] = deque()
        self._opened: list[tuple[Need, Any, str, list[Range]]] = []
        # How many files are just being opened: others wait for their pieces.
        self._opening = 0
        self._lock = threading.Condition()
        self._progress = progress
        self._pace = pace
        self._expected = sum(total(need.ranges or ()) for need in needs)
        self._is_first = True

    def run(self, parallel: int) -> None:
        """Have threads work, and wait for them; who is interrupted waits no longer.

        The threads are daemons: one whose origin does not answer holds up neither that nor the end of the process.
        """
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            error = None
            try:
                self._work()
            except BaseException as raised:  # noqa: BLE001 - it belongs to whoever waits
                error = raised
            ended.put(error)

        for _ in range(parallel):
            threading.Thread(target=work, name="jcache-warm", daemon=True).start()
        try:
            for _ in range(parallel):
                if (error := ended.get()) is not None:
                    raise error
        except BaseException:
            self._pace.stop()
            raise

    def _work(self) -> None:
        """Fetch pieces, and open files where there are none left, until there are none of either."""
        while not self._pace.is_stopped:
            with self._lock:
                piece = self._next_piece()
                while piece is None and not self._todo and self._opening:
                    self._lock.wait()
                    piece = self._next_piece()
                need = self._todo.popleft() if piece is None and self._todo else None
                self._opening += need is not None
            if piece is not None:
                self._fetch(*piece)
            elif need is not None:
                try:
                    self._begin(need)
                finally:
                    with self._lock:
                        self._opening -= 1
                        self._lock.notify_all()
            else:
                return

    def _next_piece(self) -> tuple[Any, str, list[Range]] | None:
        while self._open:
            piece = next(self._open[0], None)
            if piece is not None:
                return piece
            self._open.popleft()
        return None

    def _begin(self, need: Need) -> None:
        """Find out how long a file is and what the cache has of it."""
        try:
            fs, path = self._places.find(need.url)
            found = access(fs, path, session=self._session)
            if found is None or found.excluded:
                raise PlaceError(f"{need.url} is not cached here")
            version = run(fs, found.stat()).version
            size = version.size_bytes
            is_replaced = bool(need.versions) and all(known.tells_from(version) for known in need.versions)
            wanted = [(0, size)] if need.ranges is None else _within(need.ranges, size)
            lacking: set[str] = set()
            if self._columns is not None:
                before = total(found.gaps(1))
                layout, whole = layout_of(fs, path), wanted
                wanted = _common(whole, layout.matching(self._columns))
                lacking = {name for name in self._columns if not _common(whole, layout.matching([name]))}
                self._pace.spend(before - total(found.gaps(1)))
            missing = _common(wanted, found.gaps(1))
            if missing and not self._cache.writable:
                raise PlaceError(self._cache.reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the file's; the others are fetched
            self._failed(need, error)
            return
        with self._lock:
            if self._is_first:
                self._expected += total(wanted) - total(need.ranges or ())
                self.warmed.wanted_bytes += total(wanted)
                self.warmed.held_bytes += total(wanted) - total(missing)
                self.warmed.replaced.extend([need.url] * is_replaced)
                for name in self.warmed.columns.keys() - lacking:
                    self.warmed.columns[name] += 1
            self._opened.append((need, fs, path, wanted))
            if missing:
                self._open.append(self._pieces_of(fs, path, missing))
            self._tell()

    def _pieces_of(self, fs: Any, path: str, missing: Sequence[Range]) -> Iterator[tuple[Any, str, list[Range]]]:
        """Yield what is to be fetched, of one file: in a loop over files a generator would go on with the last one."""
        return ((fs, path, piece) for piece in _pieces(missing, self._pace))

    def _fetch(self, fs: Any, path: str, ranges: list[Range]) -> None:
        if not self._pace.wait(total(ranges)):
            return
        starts, stops = (list(column) for column in zip(*ranges, strict=True))
        began_s = time.monotonic()
        try:
            rows = fs.cat_ranges([path] * len(ranges), starts, stops, on_error="raise")
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(Need(fs.unstrip_protocol(path)), error)
            return
        self._pace.took(total(ranges), time.monotonic() - began_s)
        with self._lock:
            self.warmed.fetched_bytes += sum(map(len, rows))
            self._tell()

    def _failed(self, need: Need, error: Exception) -> None:
        with self._lock:
            self.warmed.failed[need.url] = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._expected -= total(need.ranges or ())

    def _tell(self) -> None:
        if self._progress is not None:
            done = self.warmed.held_bytes + self.warmed.fetched_bytes
            self._progress(min(done, self._expected), self._expected)

    def again(self) -> bool:
        """Begin another round with what the cache has not taken; return whether there is any."""
        self._session.recorder.flush(FLUSH_S)
        self._is_first, self.warmed.missing_bytes = False, 0
        opened, self._opened = self._opened, []
        for need, fs, path, wanted in opened:
            found = access(fs, path, session=self._session)
            missing = [] if found is None else _common(wanted, found.gaps(1))
            if missing and need.url not in self.warmed.failed:
                self.warmed.missing_bytes += total(missing)
                self._open.append(self._pieces_of(fs, path, missing))
                self._opened.append((need, fs, path, wanted))
        return bool(self._opened)


def _within(ranges: Sequence[Range], size: int) -> list[Range]:
    return [(start, min(stop, size)) for start, stop in ranges if start < size]


def _common(first: Sequence[Range], second: Sequence[Range]) -> list[Range]:
    return subtract(first, subtract(first, second))


def _pieces(ranges: Iterable[Range], pace: Pace) -> Iterator[list[Range]]:
    """Cut ranges into vectors that are neither large nor long."""
    vector: list[Range] = []
    left = pace.piece_bytes
    for start, stop in ranges:
        at = start
        while at < stop:
            end = min(stop, at + left)
            vector.append((at, end))
            left -= end - at
            at = end
            if not left or len(vector) == VECTOR_RANGES:
                yield vector
                vector, left = [], pace.piece_bytes
    if vector:
        yield vector


def _dealt_out(
    client: "Client", needs: Sequence[Need], progress: Progress | None, *, rate: float | None, **how: Any
) -> Warmed:
    """Have the workers of a cluster each fetch some of the files; the largest first."""
    from distributed import as_completed

    workers = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
    shares: list[list[Need]] = [[] for _ in range(min(len(needs), workers * 4))]
    ordered = sorted(needs, key=lambda need: total(need.ranges or ()), reverse=True)
    for need, share in zip(ordered, itertools.cycle(shares), strict=False):
        share.append(need)
    each = None if rate is None else rate / workers
    done, expected = Warmed(), sum(total(need.ranges or ()) for need in needs)
    futures = client.map(_share, shares, pure=False, rate=each, **how)
    with contextlib.ExitStack() as stack:
        stack.callback(client.cancel, futures)
        for future in as_completed(futures):
            done.add(future.result())
            if progress is not None:
                progress(done.held_bytes + done.fetched_bytes, max(expected, done.wanted_bytes))
    return done


def _share(needs: list[Need], **how: Any) -> Warmed:
    return warm(needs, **how)
