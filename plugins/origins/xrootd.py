"""XRootD over fsspec-xrootd: reads and the stat that proves them go through one open file at the data server."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter, lt
from typing import Any, ClassVar

from XRootD import client
from XRootD.client.flags import OpenFlags, QueryCode

from jcache.cache import Identity
from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.origin import Fetched, Info, OriginRange
from jcache.reader.snapshot import REPLACED, agrees
from jcache.vectors import Vector
from jcache_plugins.origins.base import FileSystemOrigin, is_settled, reaching

__all__ = ["XRootDOrigin"]

BUFFER = itemgetter("buffer")
# A vector is sent in requests of so much or more, and in so many at most.
PIECE_BYTES, PIECES = 1 << 20, 8


class XRootDOrigin(FileSystemOrigin):
    """One file of an XRootD server.

    The protocol has no conditional requests. The version before the bytes is the one that the server told with the
    open file or that the last stat proved; the one behind them is a stat of the *open file*: if the path was replaced
    meanwhile, the file that is open keeps its old content, and what was read is the old version throughout.

    The stat is sent right behind the vector read, on the same connection, so proof costs no round trip. That it is
    also carried out behind it holds for servers of the XRootD framework, which carry out vector reads and stats of one
    connection one after the other; others (and clients told to use several connections) are asked when the bytes
    have come.
    """

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        # Whether the server opens another version than the path names: the replaced one, while somebody has it open.
        self._opens_another = False

    async def stat(self) -> Info:
        """Ask for the size and modification time of what a reader gets, past fsspec's listing cache."""
        with reaching():
            self._forget_listing()
            details = await self.fs._info(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
        if details.get("type") == "directory":
            raise IsADirectoryError(self.path)
        modified = details.get("mtime")
        if modified is None:  # fsspec-xrootd before 0.5
            with reaching():
                modified = await self.fs._modified(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
        info = Info(Version(details["size"], mtime_ns=int(modified) * 10**9), details)
        if self._opens_another:
            async with OpenFiles.of(self.fs).file(self.fs.unstrip_protocol(self.path)) as file:
                version = await self._state(file.handle, force=True)
            self._opens_another = not agrees(info.version, version)
            if self._opens_another:
                return self._as_info(version)
        return info

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges in one vector read (several where the server's limits want it) and prove their version."""
        if getattr(self.fs, "_readonly_filehandle_cache", None) is None:
            return await super().fetch(ranges, known=known, arrived=arrived)  # an fsspec-xrootd built otherwise
        with reaching():
            async with OpenFiles.of(self.fs).file(self.fs.unstrip_protocol(self.path)) as file:
                before = known.version if known is not None else await self._state(file.handle, force=False)
                started_s = time.time()
                try:
                    data, after = await self._read_open(file.handle, clamped(ranges, before.size_bytes), arrived)
                except OSError:
                    # A file that was cut short in place cannot be read where it is known to have bytes.
                    self._check(file, known, before, await self._state(file.handle, force=True))
                    raise
                self._check(file, known, before, after)
        return Fetched(data, known or self._as_info(after), recordable=is_settled(after, started_s), requests=1)

    def _check(self, file: "OpenFile", known: Info | None, before: Version, after: Version) -> None:
        if not agrees(before, after):
            self._opens_another = file.is_new and known is not None
            file.is_stale = True  # the next read opens what the path names by then
            raise OriginChangedError(REPLACED)

    def _as_info(self, version: Version) -> Info:
        seconds = (version.mtime_ns or 0) // 10**9
        details = {"name": self.path, "size": version.size_bytes, "type": "file", "mtime": seconds}
        return Info(version, details)

    async def _state(self, handle: Any, *, force: bool) -> Version:
        """Return the open file's version: as told when it was opened, or (force) as the server has it now."""
        return as_version(await checked(handle.stat, "stat", force=force, timeout=self.fs.timeout))

    async def _read_open(
        self, handle: Any, ranges: Vector, arrived: Callable[[], None] | None
    ) -> tuple[list[bytes | Exception], Version]:
        """Return the ranges' bytes, and the version that the open file still had behind them."""
        wanted = ranges if all(map(lt, ranges.starts, ranges.stops)) else Vector.of(r for r in ranges if r[0] < r[1])
        max_chunks, max_chunk_bytes = await self.fs._get_max_chunk_info(handle)  # noqa: SLF001 - asked once per server
        proof: asyncio.Future[Any] | None = None
        if len(wanted) == 1 and wanted[0][1] - wanted[0][0] > max_chunk_bytes:
            start, stop = wanted[0]
            bodies = [await checked(handle.read, "read", start, stop - start, self.fs.timeout)]
        elif wanted:
            in_order = await Server.of(handle).answers_in_order()
            chunks, counts = cut(wanted, max_chunk_bytes)
            vectors = requests_of(chunks, max_chunks)
            reading = [vector_read(handle, vector, self.fs.timeout) for vector in vectors]
            if in_order:
                proof = submit(handle.stat, "stat", force=True, timeout=self.fs.timeout)
            try:
                answers = [await answer for answer in reading]
            except BaseException:
                for unwanted in [*reading, *([] if proof is None else [proof])]:
                    unwanted.cancel()
                raise
            # The client answers in the order in which it was asked.
            buffers = answers[0] if len(answers) == 1 else [buffer for answer in answers for buffer in answer]
            bodies = joined(buffers, counts)
        else:
            bodies = []
        if arrived is not None:
            arrived()
        after = await self._state(handle, force=True) if proof is None else as_version(await proof)
        if wanted is ranges and list(map(len, bodies)) == ranges.lengths():
            return bodies, after
        rest = iter(bodies)
        data: list[bytes | Exception] = []
        for start, stop in ranges:
            body = next(rest) if start < stop else b""
            if len(body) != stop - start:
                msg = f"{self.path}: got {len(body)} of {stop - start} bytes at offset {start}"
                raise ShortReadError(msg)
            data.append(body)
        return data, after


class Server:
    """What is known of a data server in this process."""

    __slots__ = ("_asking", "_url")

    _known: ClassVar[dict[str, "Server"]] = {}

    def __init__(self, url: str) -> None:
        self._url = url
        self._asking: asyncio.Task[bool] | None = None

    @classmethod
    def of(cls, handle: Any) -> "Server":
        """Return the server that has a file open."""
        address = client.URL(handle.get_property("DataServer"))
        url = f"{address.protocol}://{address.hostid}/"
        return cls._known.setdefault(url, cls(url))

    async def answers_in_order(self) -> bool:
        """Whether it carries out a vector read and a stat of one connection in the order in which they are sent.

        Asked in the background at the first read; until the answer is there, nothing is assumed.
        """
        if os.environ.get("XRD_SUBSTREAMSPERCHANNEL", "1") != "1":
            return False
        asking = self._asking
        if asking is None or (asking.done() and asking.cancelled()):
            self._asking = asyncio.ensure_future(self._ask())
            return False
        return asking.done() and asking.result()

    async def _ask(self) -> bool:
        """Whether it names its version as servers of the XRootD framework do."""
        try:
            answer = await checked(client.FileSystem(self._url).query, "query", QueryCode.CONFIG, "version")
        except OSError:
            return False
        return re.match(rb"v\d+\.", answer) is not None


@dataclass(slots=True)
class Kept:
    """An open file that nobody reads, as fsspec-xrootd keeps it."""

    accessed: float
    handle: Any


class OpenFile:
    """A file open at its server, for as many reads at once as there are.

    Attributes:
        handle: The client's file.
        is_new: Whether it was opened for the read that has it now.
        is_stale: Whether it is to be closed behind its last reader, and opened anew by the next.
    """

    __slots__ = ("handle", "is_new", "is_stale", "opening", "readers")

    def __init__(self, opening: "asyncio.Task[Any]") -> None:
        self.opening = opening
        self.handle: Any = None
        self.is_new = True
        self.is_stale = False
        self.readers = 0


class OpenFiles:
    """The files of one file system that are being read.

    fsspec-xrootd keeps the files that it opened, and closes the oldest when there are too many, also one that is being
    read. So what is read here is taken out of its keeping, and given back behind the last reader. Used on the file
    system's event loop only.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._files: dict[str, OpenFile] = {}

    @classmethod
    def of(cls, fs: Any) -> "OpenFiles":
        """Return the one instance of a file system."""
        known: OpenFiles = fs.__dict__.get("_jcache_files") or fs.__dict__.setdefault("_jcache_files", cls(fs))
        return known

    @asynccontextmanager
    async def file(self, url: str) -> AsyncIterator[OpenFile]:
        """Have a file open for as long as the context lasts."""
        file = self._files.get(url)
        if file is None:
            file = self._files[url] = OpenFile(asyncio.ensure_future(self._open(url)))
        file.readers += 1
        try:
            # One reader's cancellation must not reach the others that wait for the same file.
            file.handle = await asyncio.shield(file.opening)
            yield file
        finally:
            file.is_new = False
            file.readers -= 1
            if file.is_stale and self._files.get(url) is file:
                del self._files[url]
            if not file.readers:
                if self._files.get(url) is file:
                    del self._files[url]
                self._release(url, file)

    async def _open(self, url: str) -> Any:
        item = self._kept().pop(url, None)
        if item is not None:
            self._files[url].is_new = False
            return item.handle
        handle = client.File()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        submitted = handle.open(url, OpenFlags.READ, timeout=self._fs.timeout, callback=callback_of(done))
        status = (await done)[0] if submitted.ok else submitted
        if not status.ok:
            msg = f"Failed to open file: {status.message}"
            raise OSError(msg)
        return handle

    def _release(self, url: str, file: OpenFile) -> None:
        if not file.opening.done():
            file.opening.add_done_callback(lambda _: self._release(url, file))  # all who waited were cancelled
            return
        if file.opening.cancelled() or file.opening.exception() is not None:
            return
        handle, kept = file.opening.result(), self._kept()
        if file.is_stale or url in kept or url in self._files:
            close(handle)
            return
        kept[url] = Kept(time.monotonic(), handle)
        limit = getattr(self._fs._readonly_filehandle_cache, "_max_items", None)  # noqa: SLF001 - see the class
        while limit and len(kept) > limit:
            close(kept.pop(min(kept, key=lambda name: kept[name].accessed)).handle)

    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = self._fs._readonly_filehandle_cache._cache  # noqa: SLF001 - see the class
        return kept


def close(handle: Any) -> None:
    """Close a file without waiting for it."""

    def closed(*_: Any) -> Any:
        return handle  # which must live until then

    handle.close(callback=closed)


def clamped(ranges: Sequence[OriginRange], size_bytes: int) -> Vector:
    """Return ranges cut at the end of the file."""
    if isinstance(ranges, Vector) and max(ranges.stops, default=0) <= size_bytes:
        return ranges
    size = size_bytes
    return Vector.of((start, max(start, size if stop is None else min(stop, size))) for start, stop in ranges)


def cut(ranges: Vector, most_bytes: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Return ranges as chunks (offset, size) that a server takes, and how many chunks each range has become."""
    lengths = ranges.lengths()
    if max(lengths) <= most_bytes:
        return list(zip(ranges.starts, lengths, strict=True)), [1] * len(ranges)
    chunks: list[tuple[int, int]] = []
    counts: list[int] = []
    for start, stop in ranges:
        before = len(chunks)
        chunks += [(at, min(most_bytes, stop - at)) for at in range(start, stop, most_bytes)]
        counts.append(len(chunks) - before)
    return chunks, counts


def requests_of(chunks: list[tuple[int, int]], most: int) -> list[list[tuple[int, int]]]:
    """Return chunks as the vectors that are sent, one right behind the other, each of at most so many.

    While the client makes bytes objects of one answer it receives the next. What comes in one piece is all received
    before any of it is copied.
    """
    total_bytes = sum(map(itemgetter(1), chunks))
    count = max(-(-len(chunks) // most), min(total_bytes // PIECE_BYTES, PIECES, len(chunks)), 1)
    each = -(-len(chunks) // count)
    return [chunks[i : i + each] for i in range(0, len(chunks), each)]


def joined(buffers: list[bytes], counts: Sequence[int]) -> list[bytes]:
    """Return one body for each range out of those of its chunks."""
    if len(buffers) == len(counts):
        return buffers
    bodies: list[bytes] = []
    at = 0
    for count in counts:
        bodies.append(buffers[at] if count == 1 else b"".join(buffers[at : at + count]))
        at += count
    return bodies


def as_version(state: Any) -> Version:
    """Return a stat's answer as a version."""
    return Version(state.size, mtime_ns=int(state.modtime) * 10**9)


async def checked(method: Any, what: str, *args: Any, **kwargs: Any) -> Any:
    """Await a callback-style call of the XRootD client; raise what plain fsspec-xrootd raises."""
    return await submit(method, what, *args, **kwargs)


def submit(method: Any, what: str, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
    """Make a callback-style call of the XRootD client at once; its answer, or OSError, is awaited."""
    done: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
    submitted = method(*args, **kwargs, callback=callback_of(done))

    async def answer() -> Any:
        status, content = await done if submitted.ok else (submitted, None)
        if not status.ok:
            msg = f"File did not {what} properly: {status.message.strip()}"
            raise OSError(msg)
        return content

    return asyncio.ensure_future(answer())


def vector_read(handle: Any, chunks: list[tuple[int, int]], timeout: Any) -> "asyncio.Task[list[bytes]]":
    """Send one vector read at once; its buffers, or OSError, are awaited.

    Where the client's layout is the known one it is asked below the layer that makes two objects of each chunk: for
    ranges of 100 bytes that layer takes as long as the client and the server together.
    """
    below = getattr(getattr(handle, "_File__file", None), "vector_read", None)
    if below is None:
        return asyncio.ensure_future(_buffers(submit(handle.vector_read, "vector_read", chunks, timeout)))
    done: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
    submitted: Any = below(chunks, timeout, callback_of(done))

    async def answer() -> list[bytes]:
        nothing: Any = {}
        status, content = await done if submitted["ok"] else (submitted, nothing)
        if not status["ok"]:
            msg = f"File did not vector_read properly: {status['message'].strip()}"
            raise OSError(msg)
        return list(map(BUFFER, content["chunks"]))

    return asyncio.ensure_future(answer())


async def _buffers(answer: "asyncio.Task[Any]") -> list[bytes]:
    return [chunk.buffer for chunk in await answer]


def callback_of(done: "asyncio.Future[tuple[Any, Any]]") -> Any:
    """Return what the XRootD client is to call, on a thread of its own, to resolve a future."""
    loop = done.get_loop()

    def deliver(status: Any, content: Any) -> None:
        if not done.done():
            done.set_result((status, content))

    def callback(status: Any, content: Any, _hosts: Any) -> None:
        try:
            loop.call_soon_threadsafe(deliver, status, content)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    return callback
