"""Many files read whole, side by side: looked for in the cache directory many at a time, fetched many at a time.

What is there as one small segment is read with the look itself. What is not there is fetched, and waits to be recorded
as a small file. Everything else (files that are open here already, journals of several segments, parts of files, files
that turn out to be large) is read in the ordinary way, one `RemoteFile` each.
"""

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from jcache.counters import Counters
from jcache.errors import ShortReadError
from jcache.journal import JournalError
from jcache.journal.whole import WHOLE_BYTES, Whole
from jcache.naming import Identity
from jcache.origin import Info, Origin, is_immutable
from jcache.planning.snapshot import agrees
from jcache.reader.remote import RemoteFile
from jcache.reader.retrying import Retries, fetch, stat
from jcache.reader.store import ROOM_S
from jcache.reader.validation import vouched
from jcache.recording.recorder import Recorder
from jcache.recording.small import Shelf, SmallFile, SmallFiles
from jcache.recording.workers import Workers

__all__ = ["ManyHost", "read_many"]

Found = Whole | Literal["nothing", "unclear"]

# So many files are looked for by one call of a worker thread at first, then twice as many each time up to the most. It
# has the interpreter to itself while nothing is under way; while answers come in, it gets it now and then only.
FIRST_FILES, MOST_FILES = 128, 1024
# HTTP clients have no more connections than this by themselves; what waits for one costs time.
MOST_REQUESTS = 100
# After so long a look is cut short, lest the directory seems to hang; and with so many bytes in memory.
LOOK_S, LOOK_BYTES = 1.0, 16 << 20


class Files(Protocol):
    """What is known of small files in a process."""

    small: SmallFiles

    def begin_small(
        self, shelf: Shelf, identities: Sequence[Identity | None], loop: asyncio.AbstractEventLoop
    ) -> list[SmallFile | None]:
        """Begin to read files; None for those that are known already."""
        ...

    def acquire(self, identity: Identity, *, directory: str | None = None) -> RemoteFile:
        """Return the one instance for a remote file; it takes over what was begun to be read of it."""
        ...


class ManyHost(Protocol):
    """What reading many files needs of a session."""

    counters: Counters
    recorder: Recorder
    workers: Workers
    retries: Retries
    validate: str | float

    @property
    def files(self) -> Files:
        """What is known of small files."""
        ...

    def trouble(self, what: str) -> None:
        """Say once that the cache is in trouble, and count it."""
        ...


async def read_many(
    host: ManyHost,
    shelf: Shelf,
    identities: Sequence[Identity | None],
    origin_of: Callable[[int], Origin],
    otherwise: Callable[[int], Awaitable[bytes | Exception]],
    *,
    width: int,
) -> list[bytes | Exception]:
    """Read files whole.

    Args:
        host: The session.
        shelf: Where its small files lie.
        identities: The files, each once; None for what is to be read in the ordinary way.
        origin_of: Gives the origin of the file of that number.
        otherwise: Reads the file of that number in the ordinary way.
        width: How many are read at the same time.

    Returns:
        For each file its bytes, or the exception that it met.
    """
    reading = _Reading(host, shelf, identities, origin_of, otherwise)
    await reading.run(width)
    return reading.out


class _Reading:
    """One call of `read_many`."""

    def __init__(
        self,
        host: ManyHost,
        shelf: Shelf,
        identities: Sequence[Identity | None],
        origin_of: Callable[[int], Origin],
        otherwise: Callable[[int], Awaitable[bytes | Exception]],
    ) -> None:
        self._host = host
        self._shelf = shelf
        self._identities = identities
        self._origin_of = origin_of
        self._otherwise = otherwise
        self._next = 0
        self._step = FIRST_FILES
        self._ready: deque[tuple[int, SmallFile | None, Found]] = deque()
        self._looking: asyncio.Task[None] | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._width = 0
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._begun: dict[int, SmallFile] = {}
        self.out: list[bytes | Exception] = [b""] * len(identities)

    async def run(self, width: int) -> None:
        """Read all."""
        self._width = min(width, MOST_REQUESTS)
        # Of all at once: recording waits for a pause in the fetching.
        self._host.recorder.fetching(1)
        try:
            self._advance()
            await self._done
        finally:
            self._host.recorder.fetching(-1)
            # Nothing is left but after a cancellation, or a failure of ours.
            for task in (self._looking, *self._readers):
                if task is not None:
                    task.cancel()
            for file in self._begun.values():
                self._host.files.small.abandon(file)

    def _advance(self) -> None:
        """Have under way what should be: the next look, and as many readers as there may be."""
        ready, readers = self._ready, self._readers
        if self._looking is None and self._next < len(self._identities) and len(ready) < self._step // 4:
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(self._looked)
        while ready and len(readers) < self._width:
            reader = asyncio.ensure_future(self._work(*ready.popleft()))
            readers.add(reader)
            reader.add_done_callback(self._worked)
        if self._looking is None and not readers and not self._done.done():
            self._done.set_result(None)

    def _looked(self, look: "asyncio.Task[None]") -> None:
        self._looking = None
        if look.cancelled():
            return
        error = look.exception()
        if error is None:
            self._advance()
        elif not self._done.done():
            self._done.set_exception(error)

    def _worked(self, reader: "asyncio.Task[None]") -> None:
        self._readers.discard(reader)
        if not reader.cancelled() and not self._done.done():
            self._advance()

    # -- looking ------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Look for the next files until some are to be fetched."""
        while self._next < len(self._identities) and not self._ready:
            await self._look_for_some()

    async def _look_for_some(self) -> None:
        first = self._next
        begun = self._host.files.begin_small(self._shelf, self._identities[first : first + self._step], self._loop)
        self._next = first + len(begun)
        self._step = min(2 * self._step, MOST_FILES)
        files = {first + i: file for i, file in enumerate(begun) if file is not None}
        self._begun |= files
        look = functools.partial(self._shelf.look, list(files.values()), limit_s=LOOK_S, limit_bytes=LOOK_BYTES)
        found: list[Found] = ["unclear"] * len(files)
        if files:
            with contextlib.suppress(JournalError, OSError):
                found = await self._host.workers.run(look)
        for i in list(files)[len(found) :]:
            # Looked for next time.
            self._next = min(self._next, i)
            del files[i]
            self._abandon(i)
        is_trusted = self._host.validate == "never"
        for (i, file), what in zip(files.items(), found, strict=True):
            if is_trusted and isinstance(what, Whole):
                self.out[i] = self._hit(i, file, what, 0.0)
            else:
                self._ready.append((i, file, what))
        self._ready.extend((i, None, "unclear") for i in range(first, self._next) if i not in files)

    # -- reading ------------------------------------------------------------------------------------------------

    async def _work(self, i: int, file: SmallFile | None, found: Found) -> None:
        """Read a file, and others as long as there are any."""
        while True:
            try:
                self.out[i] = await (self._otherwise(i) if file is None else self._read(i, file, found))
            except Exception as error:  # noqa: BLE001 - the result of this file; the others have theirs
                self.out[i] = error
                if i in self._begun:
                    self._abandon(i)
            if not self._ready:
                return
            i, file, found = self._ready.popleft()
            if self._looking is None:
                self._advance()

    async def _read(self, i: int, file: SmallFile, found: Found) -> bytes | Exception:
        if found == "unclear" or not self._host.files.small.start(file):
            self._abandon(i)
            return await self._otherwise(i)
        if isinstance(found, Whole):
            started_s = time.monotonic()
            origin, info = self._origin_of(i), Info(found.version, found.info)
            if not is_immutable(origin):
                info = vouched(await stat(self._host, origin), self._host.validate)
            if agrees(found.version, info.version) and info.sharing == "all":
                return self._hit(i, file, Whole(info.version, info.details, found.data), time.monotonic() - started_s)
            self._abandon(i)
            return await self._otherwise(i)
        return await self._fetch(i, file)

    def _abandon(self, i: int) -> None:
        self._host.files.small.abandon(self._begun.pop(i))

    def _hit(self, i: int, file: SmallFile, found: Whole, seconds: float) -> bytes:
        """Take what the journal has, which is of the version that the origin has now, as far as that is asked."""
        size = len(found.data)
        file.hits, file.hit_bytes = 1, size
        del self._begun[i]
        self._host.files.small.found(file, Info(found.version, found.info))
        self._host.counters.file_read(file.identity.url, size, size, seconds, fetched=False)
        return found.data

    async def _fetch(self, i: int, file: SmallFile) -> bytes | Exception:
        host, origin = self._host, self._origin_of(i)
        started_s = time.monotonic()
        try:
            fetched = await fetch(host, origin, [(0, None)], known=None)
        except Exception:
            host.counters.origin(requests=1, errors=1)
            raise
        data, seconds = fetched.data[0], time.monotonic() - started_s
        if isinstance(data, Exception):
            host.counters.origin(requests=fetched.requests, errors=1, retries=fetched.retries, seconds=seconds)
            raise data
        info = None if fetched.info is None else vouched(fetched.info, host.validate)
        if info is not None and info.version.size_bytes != len(data):
            host.counters.origin(requests=fetched.requests, nbytes=len(data), errors=1, seconds=seconds)
            msg = f"origin sent {len(data)} of {info.version.size_bytes} bytes at offset 0"
            raise ShortReadError(msg)
        host.counters.file_read(file.identity.url, len(data), 0, seconds, fetched=True)
        if fetched.requests > 1 or fetched.retries:
            host.counters.origin(requests=fetched.requests - 1, retries=fetched.retries)
        if info is None or not info.version.is_provable:
            self._abandon(i)  # it is of no use to anybody else
            host.counters.uncached("the origin names nothing by which versions are told apart", len(data))
        else:
            record = self._shelf.cache.writable and (fetched.recordable or not data)
            await self._settle(i, file, info, data, record=record, room_s=max(ROOM_S, seconds))
        return data

    async def _settle(self, i: int, file: SmallFile, info: Info, data: bytes, *, record: bool, room_s: float) -> None:
        """Have recorded what was fetched, and tell who waits for it."""
        host, is_ordinary = self._host, len(data) > WHOLE_BYTES or info.sharing != "all"
        with (
            host.files.acquire(file.identity, directory=self._shelf.directory)
            if is_ordinary
            else contextlib.nullcontext()
        ):
            del self._begun[i]
            validation, opening = host.files.small.landed(file, info, data if record and not is_ordinary else None)
            if validation is not None:
                if opening is not None:
                    await validation.adopt(opening, info, data, record=record)
            elif record and not host.recorder.submit(file, timeout_s=0):
                await self._wait_for_room(file, room_s)

    async def _wait_for_room(self, file: SmallFile, room_s: float) -> None:
        taken = False
        try:
            taken = await asyncio.to_thread(self._host.recorder.submit, file, timeout_s=room_s)
        except RuntimeError:
            taken = False  # no thread to wait in: the interpreter is about to end
        finally:
            if not taken:
                self._host.files.small.recorded([file])
        if not taken:
            self._host.trouble("the cache directory is slower than the origin: some bytes were not recorded")
