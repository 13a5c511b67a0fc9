"""XRootD over fsspec-xrootd: reads and the stat that proves them go through one open file at the data server."""

import asyncio
import contextlib
import functools
import os
import pwd
import re
import time
from collections.abc import Callable, Container, Sequence
from operator import itemgetter, lt
from typing import Any, ClassVar

from XRootD import client
from XRootD.client.flags import OpenFlags, QueryCode

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.snapshot import REPLACED, agrees
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.origins.base import FileSystemOrigin, adler32, all_beside, beside, is_settled, reaching
from jcache_plugins.origins.reachable import listens

__all__ = ["XRootDOrigin"]

# What the client says of a server that it has lost, or cannot reach. Errors have nothing but these words.
NOBODY = frozenset({"Connection error", "Invalid address"})
LOST = re.compile(
    r"\[(?:ERROR|FATAL)\] (Connection error|Socket (?:error|timeout|disconnected)|Stream disconnect"
    r"|Invalid (?:address|session)|Operation (?:expired|interrupted)|TLS error|Hand shake failed|Internal error)"
)
PORT = 1094
METALINKS = (".meta4", ".metalink")
CLOSED = "I/O operation on closed file"
# How long and how often the client tries to connect: as it comes, and so that it looks sooner and takes as long in all.
CLIENT = {"ConnectionWindow": (120, 5), "ConnectionRetry": (5, 120)}
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
        # Whether the server opens another version than the path names: the replaced one, while somebody has it open, or
        # for a metalink the file that is named in it, while a stat is of the metalink itself.
        self.slices = False
        self._opens_another = path.endswith(METALINKS)
        session = current()
        if session is not None and session.retries.most:
            hasten(session.retries.for_s)

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
            files = beside(self.fs, OpenFiles)
            file = await files.take(self.fs, self.path)
            try:
                version = await self._state(file, force=True)
            finally:
                files.give_back(file)
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
        files = beside(self.fs, OpenFiles)
        with reaching():
            file = await files.take(self.fs, self.path)
            try:
                before = None if known is None else known.version
                started_s = time.time()
                try:
                    before = before or await self._state(file, force=False)
                    data, after = await self._read_open(file, clamped(ranges, before.size_bytes), arrived)
                except (OSError, ValueError) as error:
                    if lost(error):
                        file.is_stale = True  # whoever asks again opens the file anew
                        raise
                    if before is None:
                        raise
                    # A file that was cut short in place cannot be read where it is known to have bytes.
                    self._check(file, known, before, await self._state(file, force=True))
                    raise
                self._check(file, known, before, after)
            finally:
                files.give_back(file)
        return Fetched(data, known or self._as_info(after), recordable=is_settled(after, started_s), requests=1)

    def meant(self, start: int | None, stop: int | None, size: int) -> None:
        """Leave bounds that are no ranges to the file system: no byte is the rest of the file, but not in vectors."""

    async def reaches(self) -> bool:
        """Whether its server can be connected to: the client tries for ten minutes where it cannot."""
        return await listens(self.identity.url, PORT)

    @classmethod
    def let_go(cls, paths: Sequence[str], *, below: bool) -> None:
        """See `FileSystemOrigin`: as long as a file is open, its server opens the same one by the name that it had."""
        for files in all_beside(OpenFiles):
            files.let_go(paths, below=below)

    async def checksum(self) -> str | None:
        """Ask for the one that the server keeps, or makes."""
        try:
            answer = await checked(self.fs._myclient.query, "query", QueryCode.CHECKSUM, self.path)  # noqa: SLF001 - as it asks
        except OSError:
            return None
        name, _, value = bytes(answer).rstrip(b"\0\n").decode(errors="replace").partition(" ")
        return adler32(name, value)

    def retry_after(self, error: Exception, *, met: bool) -> float | None:
        """Return 0 where the client has lost its server, None for what the server has said."""
        if words := lost(error):
            return 0.0 if met or words not in NOBODY else None
        return super().retry_after(error, met=met)

    def _check(self, file: "OpenFile", known: Info | None, before: Version, after: Version) -> None:
        if not agrees(before, after):
            self._opens_another = file.is_new and known is not None
            file.is_stale = True  # the next read opens what the path names by then
            raise OriginChangedError(REPLACED)

    def _as_info(self, version: Version) -> Info:
        seconds = (version.mtime_ns or 0) // 10**9
        details = {"name": self.path, "size": version.size_bytes, "type": "file", "mtime": seconds}
        return Info(version, details)

    async def _state(self, file: "OpenFile", *, force: bool) -> Version:
        """Return the open file's version: as told when it was opened, or (force) as the server has it now."""
        answers = Answers(file.handle, file)
        answers.ask("stat", force, self.fs.timeout)
        return as_version(*await answers.all())

    async def _read_open(
        self, file: "OpenFile", ranges: Vector, arrived: Callable[[], None] | None
    ) -> tuple[list[bytes | Exception], Version]:
        """Return the ranges' bytes, and the version that the open file still had behind them."""
        wanted = ranges if all(map(lt, ranges.starts, ranges.stops)) else Vector.of(r for r in ranges if r[0] < r[1])
        handle = file.handle
        server = Server.of(handle)
        max_chunks, max_chunk_bytes = await server.limits(self.fs, handle)
        bodies: list[Any] = []
        proof: Answers | None = None
        proofs: list[Any] = []
        if len(wanted) == 1 and wanted[0][1] - wanted[0][0] > max_chunk_bytes:
            start, stop = wanted[0]
            bodies = [await checked(handle.read, "read", start, stop - start, self.fs.timeout)]
        elif wanted:
            chunks, counts = cut(wanted, max_chunk_bytes)
            vectors, in_order = requests_of(chunks, max_chunks), server.answers_in_order()
            answers = Answers(handle, file)
            for vector in vectors:
                answers.ask("vector_read", vector, self.fs.timeout)
            if in_order:
                # Awaited together, unless somebody is to know when the bytes are here.
                proof = answers if arrived is None else Answers(handle, file)
                proof.ask("stat", True, self.fs.timeout)
                if proof is not answers:
                    file.leave(proof)  # where the bytes are refused nobody waits for it
            contents = await answers.all()
            contents, proofs = contents[: len(vectors)], contents[len(vectors) :]
            # The client answers in the order in which it was asked.
            bodies = joined([chunk["buffer"] for content in contents for chunk in content["chunks"]], counts)
        if arrived is not None:
            arrived()
        if proof is None:
            after = await self._state(file, force=True)
        else:
            after = as_version(*(proofs or await proof.all()))
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

    __slots__ = ("_address", "_is_in_order", "_limits", "_system")

    _known: ClassVar[dict[str, "Server"]] = {}

    def __init__(self, address: str) -> None:
        self._address = address
        self._system: Any = None
        self._is_in_order = False
        self._limits: tuple[int, int] | None = None

    @classmethod
    def of(cls, handle: Any) -> "Server":
        """Return the server that has a file open."""
        address = handle.get_property("DataServer")
        return cls._known.get(address) or cls._known.setdefault(address, cls(address))

    async def limits(self, fs: Any, handle: Any) -> tuple[int, int]:
        """Return how many chunks it takes in one vector read, and of how many bytes; asked once."""
        if self._limits is None:
            self._limits = await fs._get_max_chunk_info(handle)  # noqa: SLF001 - fsspec-xrootd's own way
        return self._limits

    def answers_in_order(self) -> bool:
        """Whether it carries out a vector read and a stat of one connection in the order in which they are sent.

        Asked at the first read; until the answer is there, nothing is assumed.
        """
        if os.environ.get("XRD_SUBSTREAMSPERCHANNEL", "1") != "1":
            return False
        if self._system is None:
            address = client.URL(self._address)
            self._system = client.FileSystem(f"{address.protocol}://{address.hostid}/")
            self._system.query(QueryCode.CONFIG, "version", callback=self._answered)
        return self._is_in_order

    def _answered(self, status: Any, answer: Any, _hosts: Any) -> None:
        """Take note whether it names its version as servers of the XRootD framework do; on a thread of the client's."""
        self._is_in_order = bool(status.ok) and re.match(rb"v\d+\.", answer) is not None


class OpenFile:
    """A file open at its server, for as many reads at once as there are; what fsspec-xrootd keeps between them.

    Attributes:
        url: Its address.
        connection: Which one to its server it takes.
        handle: The client's file; None until it is open.
        accessed: When the last read ended, for fsspec-xrootd.
        opening: Opens it; None for a file that was open already.
        is_new: Whether it was opened for the read that has it now.
        is_stale: Whether it is to be closed behind its last reader, and opened anew by the next.
        left: What was asked of it, and may be under way when nobody waits for it any more.
    """

    __slots__ = ("accessed", "connection", "handle", "is_new", "is_stale", "left", "opening", "readers", "url")

    def __init__(self, url: str, handle: Any) -> None:
        self.url = url
        self.connection = 0
        self.handle = handle
        self.accessed = 0.0
        self.opening: asyncio.Task[None] | None = None
        self.is_new = handle is None
        self.is_stale = False
        self.left: list[Answers] = []
        self.readers = 0

    async def open(self, fs: Any) -> None:
        """Open it for a file system."""
        handle = client.File()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        submitted = handle.open(
            by_connection(unrecovered(self.url), self.connection),
            OpenFlags.READ,
            timeout=fs.timeout,
            callback=callback_of(done),
        )
        status = (await done)[0] if submitted.ok else submitted
        if not status.ok:
            msg = f"Failed to open file: {status.message}"
            raise OSError(msg)
        self.handle = handle

    def leave(self, answers: "Answers") -> None:
        """Take note of requests that may be under way when the file is needed no more."""
        self.left = [*(one for one in self.left if one.is_under_way), answers]


class OpenFiles:
    """The files of one file system that are being read.

    fsspec-xrootd keeps the files that it opened, and closes the oldest when there are too many, also one that is being
    read. So what is read here is taken out of its keeping, and given back behind the last reader. Used on the file
    system's event loop only.
    """

    def __init__(self, fs: Any) -> None:
        self._keeping = fs._readonly_filehandle_cache  # noqa: SLF001 - see the class
        self._files: dict[str, OpenFile] = {}
        self._kept: dict[str, Any] = self._keeping._cache  # noqa: SLF001 - see the class
        self._loop: asyncio.AbstractEventLoop | None = None

    async def take(self, fs: Any, path: str) -> OpenFile:
        """Have a file of the file system open, until it is given back."""
        self._loop = asyncio.get_running_loop()
        url = fs.unstrip_protocol(path)
        file = self._files.get(url)
        if file is None:
            kept = self._kept.pop(url, None)
            file = kept if isinstance(kept, OpenFile) else OpenFile(url, None if kept is None else kept.handle)
            if file.handle is None:
                file.connection = self._free_connection()
            self._files[url] = file
            if file.handle is None:
                file.opening = asyncio.ensure_future(file.open(fs))
        file.readers += 1
        if file.handle is None and file.opening is not None:
            try:
                # One reader's cancellation must not reach the others that wait for the same file.
                await asyncio.shield(file.opening)
            except BaseException:
                self.give_back(file)
                raise
        return file

    def _free_connection(self) -> int:
        """Return the first connection that no file takes that is being read, if there may be as many."""
        session, taken = current(), [file.connection for file in self._files.values()]
        return min(range(1 if session is None else session.config.connections), key=taken.count)

    def give_back(self, file: OpenFile) -> None:
        """Need a file no more."""
        file.is_new = False
        file.readers -= 1
        if (file.is_stale or not file.readers) and self._files.get(file.url) is file:
            del self._files[file.url]
        if not file.readers:
            self._keep(file)

    def let_go(self, paths: Sequence[str], *, below: bool) -> None:
        """Close what is open of paths, or below them, as soon as nobody reads it; on any thread."""
        names = {within(path) for path in paths}

        def work() -> None:
            for url in [url for url in (*self._kept, *self._files) if is_among(within(url), names, below=below)]:
                file = self._kept.pop(url, None)
                if file is not None:
                    close(file.handle)
                if (read := self._files.pop(url, None)) is not None:
                    read.is_stale = True

        with contextlib.suppress(RuntimeError):  # its loop is closed
            if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - None where there is none
                work()
            elif self._loop is not None:
                self._loop.call_soon_threadsafe(work)

    def _keep(self, file: OpenFile) -> None:
        opening, kept = file.opening, self._kept
        if opening is not None:
            if not opening.done():
                opening.add_done_callback(lambda _: self._keep(file))  # all who waited were cancelled
                return
            if opening.cancelled() or opening.exception() is not None:
                return
            file.opening = None
        for answers in file.left:
            if answers.is_under_way:
                # The client closes no file of which something is under way: it is never fsspec-xrootd's to close.
                file.is_stale = True
                answers.afterwards(lambda: self._keep(file))
                return
        if file.is_stale or file.url in kept or file.url in self._files:
            close(file.handle)
            return
        file.accessed = time.monotonic()
        kept[file.url] = file
        limit = getattr(self._keeping, "_max_items", None)
        while limit and len(kept) > limit:
            close(kept.pop(min(kept, key=lambda name: kept[name].accessed)).handle)


def within(path: str) -> str:
    """Return what of a path, or of a URL, is the server's: the same by whichever name it is reached."""
    _, is_url, rest = path.partition("://")
    return (rest.partition("/")[2] if is_url else path).partition("?")[0].strip("/")


def is_among(name: str, names: Container[str], *, below: bool) -> bool:
    """Whether a path, or one above it, is among others."""
    while name not in names:
        if not below or not name:
            return False
        name = name.rpartition("/")[0]
    return True


def lost(error: Exception) -> str:
    """Return the client's words for a server that it has lost, or cannot reach; empty where an error is another."""
    if isinstance(error, ValueError):
        return CLOSED if str(error) == CLOSED else ""
    match = LOST.search(str(error)) if isinstance(error, OSError) else None
    return match[1] if match else ""


def unrecovered(url: str) -> str:
    """Return an address for a file that fails at once where its connection is lost, if it is opened anew then.

    The client would open it again by itself, unseen, and only when its window for connections has passed.
    """
    session = current()
    if session is None or not session.retries.most:
        return url
    return f"{url}{'&' if '?' in url else '?'}xrdcl.recover-reads=false"


def by_connection(url: str, number: int) -> str:
    """Return an address that has the client make a connection of that number, beside the first one.

    It has one for each name of a user, which is nothing else: who somebody is tell the credentials. A name that is
    there already stays.
    """
    protocol, _, rest = url.partition("://")
    if not number or "@" in rest.partition("/")[0]:
        return url
    return f"{protocol}://{user()[:6]}.{number}@{rest}"  # the server is told eight characters of it


@functools.cache
def user() -> str:
    """Return the name that the client gives to servers."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "jcache"


def hasten(for_s: float) -> None:
    """Have the client, where it is set up as it comes, look sooner whether a server is back, but wait as long in all.

    Args:
        for_s: How long requests are sent again. A client that gives up before must not refuse to connect from then on.
    """
    for name, (default, ours) in CLIENT.items():
        if client.EnvGetInt(name) == default:
            client.EnvPutInt(name, ours)
    if client.EnvGetInt("ConnectionWindow") * client.EnvGetInt("ConnectionRetry") < for_s:
        client.EnvPutInt("StreamErrorWindow", 0)  # refused where the environment sets it, as the others are


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
    """Return a stat's answer, as the client has it below its layer of objects, as a version."""
    return Version(state["size"], mtime_ns=int(state["modtime"]) * 10**9)


async def checked(method: Any, what: str, *args: Any, **kwargs: Any) -> Any:
    """Await a callback-style call of the XRootD client; raise what plain fsspec-xrootd raises."""
    done: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
    submitted = method(*args, **kwargs, callback=callback_of(done))
    status, content = await done if submitted.ok else (submitted, None)
    if not status.ok:
        raise failure(what, status.message)
    return content


def failure(what: str, message: str) -> OSError:
    """Return the error for a request that was refused."""
    return OSError(f"File did not {what} properly: {message.strip()}")


def callback_of(done: "asyncio.Future[tuple[Any, Any]]") -> Any:
    """Return what the XRootD client is to call, on a thread of its own, to resolve a future."""
    loop = done.get_loop()

    def deliver(status: Any, content: Any) -> None:
        if not done.done():
            done.set_result((status, content))

    def callback(status: Any, content: Any, _hosts: Any) -> None:
        # Where the loop is closed nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, status, content)

    return callback


class Answers:
    """What the server of an open file answers to requests that are sent one right behind the other.

    They are awaited together, so that the event loop is woken once, or by the first one that is refused: the others
    may take as long as the client tries to reach the server. Where the client's layout is the known one it is
    asked below the layer that makes objects of what comes: for ranges of 100 bytes that layer takes as long as the
    client and the server together.
    """

    __slots__ = ("_afterwards", "_asked", "_count", "_done", "_file", "_got", "_is_below", "_open")

    def __init__(self, handle: Any, file: OpenFile) -> None:
        below = getattr(handle, "_File__file", None)
        self._is_below = below is not None
        self._file = below if self._is_below else handle
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: list[str] = []
        self._got: dict[int, tuple[Any, Any]] = {}
        self._count = -1
        self._open = file
        self._afterwards: Callable[[], None] | None = None

    def ask(self, what: str, *args: Any) -> None:
        """Send a request: a method of the client's file, and what it takes."""
        number = len(self._asked)
        self._asked.append(what)
        loop = self._done.get_loop()

        def callback(status: Any, content: Any, _hosts: Any) -> None:
            self._got[number] = (status, content)
            # Whoever is last finds all there: this thread, or the one that waits, as it begins to.
            if len(self._got) == self._count or not self._is_ok(status):
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._end)

        submitted = getattr(self._file, what)(*args, callback)
        if not self._is_ok(submitted):
            self._got[number] = (submitted, None)
            self._end()

    def _is_ok(self, status: Any) -> bool:
        return bool(status["ok"] if self._is_below else status.ok)

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._afterwards is not None and not self.is_under_way:
            call, self._afterwards = self._afterwards, None
            call()

    @property
    def is_under_way(self) -> bool:
        """Whether an answer has not come yet."""
        return len(self._got) < len(self._asked)

    def afterwards(self, call: Callable[[], None]) -> None:
        """Have something called on this event loop once all answers have come."""
        self._afterwards, self._count = call, len(self._asked)
        self._done.get_loop().call_soon(self._end)

    async def all(self) -> list[Any]:
        """Return all answers, in the order of the requests, as the client has them below its layer of objects.

        Raises:
            OSError: One was refused: as plain fsspec-xrootd says it.
        """
        self._count = len(self._asked)
        try:
            if len(self._got) < self._count:
                await self._done
        finally:
            if len(self._got) < self._count:
                self._open.leave(self)
        got = sorted(self._got.copy().items())  # in one step: where one was refused, others may still come
        for number, (status, _) in got:
            if not self._is_ok(status):
                raise failure(self._asked[number], status["message"] if self._is_below else status.message)
        return [content if self._is_below else plain(content) for _, (_, content) in got]


def plain(content: Any) -> Any:
    """Return what one of the client's objects was made of."""
    if content is None:
        return None
    return {**vars(content), "chunks": list(map(vars, getattr(content, "chunks", ())))}
