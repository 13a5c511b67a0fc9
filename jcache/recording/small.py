"""Small files that were read whole: what a process keeps of each is one object, not a `RemoteFile` and its dozen.

Most of them are read once. So as long as nobody comes back to one, there is no journal in memory, no snapshot, no
interval map and no lock for it: its bytes wait here until they are recorded, and after that only its version is kept,
for a while. Who does come back gets a `RemoteFile` that takes over whatever there is by then (`hand_over`): the request
that is under way, the bytes that wait, or the version that was validated.
"""

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from jcache.cache import Cache
from jcache.journal.whole import Whole, read_whole, write_whole
from jcache.naming import Identity
from jcache.naming.identity import is_below
from jcache.origin import Info
from jcache.recording.details import storable
from jcache.segment.proof import Moment

if TYPE_CHECKING:
    from jcache.planning.snapshot import Snapshot
    from jcache.reader.validation import Opening, Validation

__all__ = ["Key", "Shelf", "SmallFile", "SmallFiles"]

# Cache directory, object, and who asks.
Key = tuple[bytes, str, str]

# Of how many small files that were read the version is kept; those of a session's idle files.
KEPT = 256


class Shelf:
    """Where the small files of one cache directory lie. Nothing changes after it was made."""

    __slots__ = ("admit", "cache", "directory", "key")

    def __init__(self, cache: Cache, directory: str, key: bytes, admit: Callable[[str, int], bool]) -> None:
        """Take note of a directory.

        Args:
            cache: The directory, prepared.
            directory: Its name, as it was given.
            key: The process's name for it, see `Caches.key`.
            admit: Tells, given a journal's directory, whether so many bytes may be recorded; see `Recording`.
        """
        self.cache = cache
        self.directory = directory
        self.key = key
        self.admit = admit

    def look(
        self, files: "Iterable[SmallFile]", *, limit_s: float, limit_bytes: int
    ) -> list[Whole | Literal["nothing", "unclear"]]:
        """Read what is recorded of files; only of the first ones, if it takes longer or is more than that."""
        until_s = time.monotonic() + limit_s
        storage = self.cache.storage
        found: list[Whole | Literal["nothing", "unclear"]] = []
        has_owned = self.cache.has_owned
        # Where the remote directory has none yet, none of its files has one.
        above, is_missing = "", False
        for file in files:
            directory = file.place.rpartition("/")[0]
            if directory != above:
                above, is_missing = directory, not storage.is_there(directory)
            what: Whole | Literal["nothing", "unclear"] = "nothing"
            if not is_missing and has_owned and self.cache.is_owned(file.identity):
                what = "unclear"
            elif not is_missing:
                what = read_whole(storage, file.place, file.stored_as)
            found.append(what)
            if isinstance(what, Whole):
                limit_bytes -= len(what.data)
            if limit_bytes <= 0 or time.monotonic() > until_s:
                break
        return found


class SmallFile:
    """One small file: being read, waiting to be recorded, or known.

    Changed under the registry's lock.

    Attributes:
        identity: Which object it is.
        place: The journal's directory.
        stored_as: The key that the journal has.
        active: Whether it is being read just now; this and the next four are also a `RemoteFile`'s.
        used_s: When it was last read.
        noted_s: When its use was last noted.
        hits: Reads that the journal served.
        hit_bytes: Bytes that it served.
        is_started: Whether it is not only about to be read.
        info: Its version, once that is known.
        data: Its bytes while they wait to be recorded.
        loop: The event loop of who reads it.
    """

    __slots__ = (
        "_opening", "_proved", "_proved_ns", "_shelf", "_snapshot", "_taken_by", "active", "data", "hit_bytes", "hits",
        "identity", "info", "is_started", "loop", "noted_s", "place", "stored_as", "used_s",
    )  # fmt: skip

    def __init__(self, shelf: Shelf, identity: Identity, loop: asyncio.AbstractEventLoop) -> None:
        self._shelf = shelf
        self._taken_by: Validation | None = None
        self._opening: Opening | None = None
        self._snapshot: Snapshot | None = None
        self._proved_ns = 0
        self._proved: Moment | None = None
        self.identity = identity
        stored = shelf.cache.stored(identity)
        self.place = shelf.cache.place(stored.parts)
        self.stored_as = stored.key
        self.active = 1
        self.used_s = 0.0
        self.noted_s = -1.0
        self.hits = self.hit_bytes = 0
        self.is_started = False
        self.info: Info | None = None
        self.data: bytes | None = None
        self.loop = loop

    @property
    def key(self) -> Key:
        """The session's name for it."""
        return self._shelf.key, self.identity.key, self.identity.asker

    @property
    def is_taken(self) -> bool:
        """Whether a `RemoteFile` has taken it over."""
        return self._taken_by is not None

    @property
    def directory(self) -> str:
        """The cache directory that it belongs to, as it was given."""
        return self._shelf.directory

    def hand_over(self, validation: "Validation") -> None:
        """Give what there is to a `RemoteFile`, for somebody else reads the file, too."""
        self._taken_by = validation
        if self.active:
            # Nobody waits for what has not begun, lest two who read many files wait for one another.
            if self.is_started:
                self._opening = validation.expect(self.loop)
        elif self.info is not None and self.data is not None:
            self._snapshot = validation.take_over(self.info, self.data)
        elif self.info is not None:
            validation.trust(self.info)

    def taken(self) -> "tuple[Validation | None, Opening | None]":
        """Return who has taken the file over while it was read, and what it waits for; only once."""
        opening, self._opening = self._opening, None
        return self._taken_by, opening

    def landed(self, info: Info, data: bytes | None) -> None:
        """Keep the version, proved now, and the bytes, if they wait to be recorded."""
        self._proved_ns, self._proved = time.time_ns(), Moment.now()
        self.used_s = time.monotonic()
        self.info = info
        self.data = data
        self.active = 0

    def let_go(self) -> Callable[[], None] | None:
        """Release the bytes: the journal has them now, or never will; return what is to be done without the lock."""
        data, self.data = self.data, None
        if self._taken_by is None or self._snapshot is None or data is None:
            return None
        return functools.partial(self._taken_by.let_go, self._snapshot, data)

    # -- recording, on the recorder's thread ------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """How many bytes wait in memory."""
        return 0 if self.data is None else len(self.data)

    def write(self) -> int:
        """Record the bytes; return how many.

        Raises:
            JournalError: They could not be recorded.
        """
        data, info, shelf = self.data, self.info, self._shelf
        if data is None or info is None or (self._snapshot is not None and self._snapshot.outdated):
            return 0
        if not shelf.admit(self.place, len(data)):
            return 0
        cache = shelf.cache
        write_whole(
            cache.storage,
            self.place,
            self.stored_as,
            Whole(info.version, storable(info.details), data),
            dir_mode=cache.dir_mode,
            file_mode=cache.file_mode,
            proved_ns=self._proved_ns,
            proved=self._proved,
        )
        return len(data)


class SmallFiles:
    """The small files of one session."""

    def __init__(self, lock: threading.Lock, note: Callable[[bytes, SmallFile], None]) -> None:
        """Make an empty collection.

        Args:
            lock: The registry's, over all that it knows of files.
            note: Told, without the lock, of each cache directory's files that were used and are now forgotten.
        """
        self._lock = lock
        self._note = note
        self._files: dict[Key, SmallFile] = {}
        self._kept: deque[SmallFile] = deque()

    # -- with the lock held by the caller -------------------------------------------------------------------------

    def begin(self, shelf: Shelf, identity: Identity, loop: asyncio.AbstractEventLoop) -> SmallFile | None:
        """Begin to read a file; None where it is known already."""
        key = (shelf.key, identity.key, identity.asker)
        if key in self._files:
            return None
        file = self._files[key] = SmallFile(shelf, identity, loop)
        return file

    def take(self, key: Key) -> SmallFile | None:
        """Return a file that is to be handed over, which is not one of these from now on."""
        return self._files.pop(key, None)

    def below(self, address: str) -> list[SmallFile]:
        """Return all files that have an address, or lie below it."""
        return [file for file in self._files.values() if is_below(file.identity.url, address)]

    def of(self, key: bytes) -> list[SmallFile]:
        """Return the files of one cache directory."""
        return [file for (where, *_), file in self._files.items() if where == key]

    # -- without ------------------------------------------------------------------------------------------------

    def start(self, file: SmallFile) -> bool:
        """Note that a file is being read from now on; False where somebody else has begun to."""
        with self._lock:
            file.is_started = not file.is_taken
            return file.is_started

    def abandon(self, file: SmallFile) -> None:
        """Forget a file that could not be read, or must be read in another way; who waits for it begins anew."""
        with self._lock:
            if self._files.get(file.key) is file:
                del self._files[file.key]
            file.active = 0
            validation, opening = file.taken()
        if validation is not None and opening is not None:
            validation.expect_no_more(opening)

    def landed(self, file: SmallFile, info: Info, data: bytes | None) -> "tuple[Validation | None, Opening | None]":
        """Note that a file was read whole.

        Args:
            file: A file that was begun.
            info: Its version, proved now.
            data: Its bytes, if they are to be recorded: they wait for that from now on.

        Returns:
            Who has taken the file over meanwhile and is to be told instead; None where nobody has. What they wait for
            is to be ended.
        """
        with self._lock:
            taken = file.taken()
            file.landed(info, data if taken[0] is None else None)
        if taken[0] is None and data is None:
            self._keep([file])
        return taken

    def found(self, file: SmallFile, info: Info) -> None:
        """Note that the journal has all of a file, of a version proved now; who waits for it goes on with that one."""
        validation, opening = self.landed(file, info, None)
        if validation is not None and opening is not None:
            validation.trust(info)
            validation.expect_no_more(opening)

    def recorded(self, files: Sequence[SmallFile]) -> None:
        """Let go of bytes that are in the journal now, or never will be."""
        for file in files:
            with self._lock:
                tell = file.let_go()
            if tell is not None:
                tell()
        self._keep(files)

    def _keep(self, files: Sequence[SmallFile]) -> None:
        kept = self._kept
        kept.extend(files)
        while len(kept) > KEPT:
            try:
                oldest = kept.popleft()
            except IndexError:
                return  # another thread was at it as well
            with self._lock:
                known = self._files.get(oldest.key) is oldest
                if known:
                    del self._files[oldest.key]
            if known:
                self._note(oldest.key[0], oldest)
