"""Makes the requests of a recorded run anew, side by side as they were, at their times or as fast as may be."""

import contextlib
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jcache.counters import LISTING, NAMED, OPEN, READ, STAT
from jcache.profile.reader import Profile
from jcache.ranges import total
from jcache_plugins.places import PlaceError, Places
from jcache_plugins.replay.schedule import Call, calls

__all__ = ["Played", "Player"]

# So many requests are dealt out ahead of their times.
DEALT = 1 << 14
# So many files are left open.
OPEN_FILES = 256


@dataclass(slots=True)
class Played:
    """What was done. Times are in seconds.

    Attributes:
        short_bytes: What ranges have that was asked for and did not come.
        skipped: Requests of which the profile does not say what they asked for.
        failed: How many requests failed, by what they raised.
        late_s: By how much the last request of all was made after its time.
    """

    requests: int = 0
    ranges: int = 0
    read_bytes: int = 0
    short_bytes: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    late_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"failed": dict(self.failed)}

    def add(self, other: "Played") -> None:
        """Add what another process did at the same time."""
        for name in ("requests", "ranges", "read_bytes", "short_bytes", "skipped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed.update(other.failed)
        self.wall_s, self.late_s = max(self.wall_s, other.wall_s), max(self.late_s, other.late_s)


class Player:
    """Plays one profile.

    Args:
        profile: The profile, or those recordings of it that this process is to play.
        places: Where its files are now.
        speed: How much faster than it was recorded; None for as fast as may be.
        workers: So many threads make all requests in their order, instead of one for each that was made at a time.
        plain: Whether nothing is read ahead: past the cache, fsspec's file objects would, by blocks of their own.
    """

    def __init__(
        self,
        profile: Profile,
        places: Places,
        *,
        speed: float | None = 1.0,
        workers: int | None = None,
        plain: bool = False,
    ) -> None:
        self._profile = profile
        self._places = places
        self._speed = speed
        self._workers = workers
        self.open_options = {"cache_type": "none"} if plain else {}
        self._dealt = threading.Semaphore(DEALT)
        self.open = _OpenFiles()
        self._lock = threading.Lock()
        self._begin_s = 0.0
        self.played = Played()

    def prepare(self) -> None:
        """Load what takes time and is none of the run's: modules, file systems."""
        self._places.queries = self._profile.look_ahead()
        for recording in self._profile.recordings:
            for url in recording.files:
                with contextlib.suppress(PlaceError):
                    self._places.find(url)

    def play(self, begin_s: float | None = None) -> Played:
        """Make all requests; return what was done.

        Args:
            begin_s: When the run begins, by the monotonic clock; now, if that is None.

        Raises:
            ProfileError: The profile cannot be read.
        """
        self._begin_s = time.monotonic() if begin_s is None else begin_s
        shared: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        lanes = {number: _Lane(self, shared) for number in range(self._workers or 0)}
        try:
            for call in calls(self._profile):
                if call.kind == NAMED:
                    continue
                self._dealt.acquire()
                number = call.lane if self._workers is None else 0
                if number not in lanes:
                    lanes[number] = _Lane(self, queue.SimpleQueue())
                lanes[number].todo.put(call)
        finally:
            for lane in lanes.values():
                lane.todo.put(None)
        for lane in lanes.values():
            lane.join()
        self.open.close()
        self.played.wall_s = max(time.monotonic() - self._begin_s, 0.0)
        return self.played

    def wait_for(self, call: Call) -> float:
        """Wait until a request is to be made; return by how many seconds that is over."""
        if self._speed is None:
            return 0.0
        ahead_s = self._begin_s + call.start_us / 1e6 / self._speed - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        return max(-ahead_s, 0.0)

    def url(self, call: Call) -> str:
        """The address of what a request is about."""
        return self._profile.files[call.file]

    def place(self, call: Call) -> tuple[Any, str]:
        """The file system and path of what a request is about.

        Raises:
            PlaceError: There is none.
        """
        return self._places.find(self.url(call))

    def done(self, one: Played) -> None:
        """Take note of a request that was made."""
        self._dealt.release()
        with self._lock:
            self.played.add(one)


@dataclass(slots=True)
class _Open:
    """A file that was opened, by which lane, and who reads it now."""

    file: Any
    lane: threading.Thread
    lock: threading.Lock = field(default_factory=threading.Lock)


class _OpenFiles:
    """Files that the recorded processes had open: read by whoever opened them, or else by others of the process."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], list[_Open]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, call: Call, file: Any) -> None:
        """Take a file that was opened in the place of the one that the same lane had open."""
        me = threading.current_thread()
        with self._lock:
            opened = self._files.setdefault((call.process, call.file), [])
            self._files.move_to_end((call.process, call.file))
            gone = [one for one in opened if one.lane is me]
            opened[:] = [one for one in opened if one.lane is not me]
            opened.append(_Open(file, me))
            if len(self._files) > OPEN_FILES:
                gone += self._files.popitem(last=False)[1]
        _close(gone)

    def find(self, call: Call) -> _Open | None:
        """Return the file that a request reads."""
        me = threading.current_thread()
        with self._lock:
            opened = self._files.get((call.process, call.file), [])
            return next((one for one in opened if one.lane is me), opened[-1] if opened else None)

    def close(self) -> None:
        """Close all."""
        _close([one for opened in self._files.values() for one in opened])


def _close(opened: Sequence[_Open]) -> None:
    for one in opened:
        with one.lock, contextlib.suppress(Exception):
            one.file.close()


class _Lane(threading.Thread):
    """Makes requests one after the other."""

    def __init__(self, player: Player, todo: "queue.SimpleQueue[Call | None]") -> None:
        super().__init__(name="jcache-replay", daemon=True)
        self.todo = todo
        self._player = player
        self.start()

    def run(self) -> None:
        while (call := self.todo.get()) is not None:
            one = Played(late_s=self._player.wait_for(call))
            try:
                self._make(call, one)
            except Exception as error:  # noqa: BLE001 - whatever it is, the recorded application met it or not
                one.failed[f"{type(error).__name__}: {error}".partition("\n")[0]] += 1
            self._player.done(one)

    def _make(self, call: Call, one: Played) -> None:
        if call.kind == READ and len(call.ranges) != 1:
            one.skipped = 1
            return
        one.requests = 1
        fs, path = self._player.place(call)
        if call.kind == OPEN:
            self._player.open.add(call, fs.open(path, "rb", **self._player.open_options))
        elif call.kind == STAT:
            fs.info(path)
        elif call.kind == LISTING:
            fs.ls(path, detail=True)
        else:
            one.ranges = len(call.ranges)
            one.read_bytes = self._read(call, fs, path)
            one.short_bytes = max(total(call.ranges) - one.read_bytes, 0)

    def _read(self, call: Call, fs: Any, path: str) -> int:
        """Read as the application did: of a file that it has open, by that, else by its name."""
        if call.kind != READ:
            rows = fs.cat_ranges([path] * len(call.ranges), call.ranges.starts, call.ranges.stops, on_error="raise")
            return sum(map(len, rows))
        (start, stop), opened = call.ranges[0], self._player.open.find(call)
        if opened is None:
            return len(fs.cat_file(path, start=start, end=stop))
        with opened.lock:
            if opened.file.tell() != start:
                opened.file.seek(start)
            return len(opened.file.read(stop - start))
