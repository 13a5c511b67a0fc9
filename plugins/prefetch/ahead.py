"""A thread that fetches ahead of the application, a bounded way, for as long as that turns out to be of use."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jcache.counters import NAMED, OPEN, READ, VECTOR
from jcache.ranges import Range, normalise, subtract, total
from jcache.session import Session
from jcache.vectors import Vector
from jcache_plugins.fsspec.access import Access, access, run
from jcache_plugins.prefetch.columns import ColumnsGuide
from jcache_plugins.prefetch.guide import Guide
from jcache_plugins.prefetch.seen import Seen

if TYPE_CHECKING:
    import weakref

    from jcache.counters import Profile

__all__ = ["Places", "Prefetcher"]

# So many bytes are ahead of the application at most; so many requests, of so many bytes in all, are under way for that,
# and one asks for so much. Until a guess was right there is no more under way than one asks for: who reads something
# else waits for no longer than that takes.
WINDOW_BYTES = 16 << 20
REQUESTS, TOGETHER_BYTES = 32, 4 << 20
PIECE_BYTES = 1 << 20
# Once so many bytes were fetched ahead, the half of what is not ahead any more must have been of use.
TRIAL_BYTES = 32 << 20

Place = tuple["weakref.ref[Any]", str]
Places = dict[str, Place]
"""The file system and the path of each file, by its address."""


class Prefetcher:
    """Told of each request that has ended, as whatever records them is; see `jcache.counters.Profile`.

    Attributes:
        is_off: It has guessed wrong too often, and fetches nothing any more.
    """

    def __init__(self, session: Session, guide: Guide | None, beside: "Profile | None", *, places: Places) -> None:
        """Begin to follow a session.

        Args:
            session: The session.
            guide: What an earlier run read; None to go by the columns that this one reads.
            beside: What records requests as well.
            places: Where files are, as far as that is known.
        """
        self.is_off = False
        self._session = session
        self._seen = Seen(self._found_out)
        self._guide: Guide | ColumnsGuide = guide or ColumnsGuide(self._find, self._seen)
        self._beside = beside
        self._events: queue.SimpleQueue[tuple[str, list[Range] | None, int]] = queue.SimpleQueue()
        self._last = ""
        self._places = places
        self._fetched: dict[str, list[Range]] = {}  # or on its way
        self._total = self._used = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # -- told by readers, on their threads -----------------------------------------------------------------------

    def from_here(self) -> None:
        """See `Profile`."""
        if self._beside is not None:
            self._beside.from_here()

    def add(  # noqa: PLR0917 - as `Profile` has it
        self,
        kind: int,
        url: str | None,
        asked: Any,
        hit: int,
        miss: int,
        bypass: int,
        ahead: int,
        end_s: float,
        seconds: float,
        /,
    ) -> None:
        """See `Profile`."""
        if self._beside is not None:
            self._beside.add(kind, url, asked, hit, miss, bypass, ahead, end_s, seconds)
        if self.is_off or url is None or not self._guide.knows(url):
            return
        if kind in (READ, VECTOR):
            self._tell(url, asked, ahead)
        elif kind in (OPEN, NAMED):
            self._tell(url, None, 0)

    def _tell(self, url: str, asked: Any, ahead: int) -> None:
        ranges = [asked] if type(asked) is tuple else list(asked) if isinstance(asked, Vector) else None
        self._last = url
        self._events.put((url, ranges, ahead))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    if isinstance(self._guide, ColumnsGuide):
                        self._seen.watch()
                    self._thread = threading.Thread(target=self._run, name="jcache-prefetch", daemon=True)
                    self._thread.start()

    def _found_out(self) -> None:
        """Take note that the application knows by now where the columns of the file are that it has just read of."""
        self._events.put((self._last, None, 0))

    def place(self, url: str, fs: Any, path: str) -> None:
        """Take note of where a file is, which somebody is about to read; `fs` is a weak reference."""
        self._places.setdefault(url, (fs, path))

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.is_off:
            url, ranges, ahead = self._events.get()
            self._used += ahead
            while not self._events.empty():  # only where the application is now
                later = self._events.get()
                self._used += later[2]
                url, ranges = later[0], later[1]
            with contextlib.suppress(Exception):  # nobody has asked for it; who does will meet the error
                self._go_on(url, normalise(ranges or ()))

    def _go_on(self, url: str, read: list[Range]) -> None:
        """Fetch what comes next, until the window is full, the application asks for something, or there is no more."""
        pieces: list[Range] = []
        now, size = url, 0
        together = TOGETHER_BYTES if self._used else PIECE_BYTES
        for other, part in self._guide.behind(url, read):
            if other != now or len(pieces) >= REQUESTS or total(pieces) >= together:
                self._fetch(now, pieces)
                pieces, now = [], other
                if not self._events.empty():
                    return  # it is elsewhere by now
            if size >= WINDOW_BYTES or self._is_in_vain():
                break
            done = self._fetched.setdefault(other, [])
            for start, stop in subtract([part], done):
                for at in range(start, stop, PIECE_BYTES):
                    pieces.append((at, min(at + PIECE_BYTES, stop)))
            self._fetched[other] = normalise([*done, part])
            size += part[1] - part[0]
        self._fetch(now, pieces)

    def _fetch(self, url: str, pieces: Iterable[Range]) -> None:
        wanted = list(pieces)
        found = self._find(url) if wanted else None
        if found is None or found.excluded:
            return

        async def fetch() -> None:
            await found.stat()
            await asyncio.gather(*(found.prefetch(start, stop) for start, stop in wanted))

        self._total += total(wanted)
        run(found.origin.fs, fetch())

    def _find(self, url: str) -> Access | None:
        place = self._places.get(url) or self._beside_of(url)
        fs = None if place is None else place[0]()
        if place is None or fs is None:
            return None
        return access(fs, place[1], session=self._session)

    def _beside_of(self, url: str) -> Place | None:
        """Return where a file is of which only the address is known: near one whose place is known."""
        for known, (fs, path) in reversed(list(self._places.items())):
            tail = path.lstrip("/")
            begin = known.removesuffix(tail)
            if begin != known and url.startswith(begin):
                return fs, path[: len(path) - len(tail)] + url[len(begin) :]
        return None

    def _is_in_vain(self) -> bool:
        if self._total > TRIAL_BYTES and 2 * self._used < self._total - WINDOW_BYTES:
            self.is_off = True
        return self.is_off
