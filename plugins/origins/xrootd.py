"""XRootD over fsspec-xrootd: reads and the stat that proves them go through one open file at the data server."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from operator import itemgetter, lt
from typing import Any, ClassVar

from XRootD import client
from XRootD.client.flags import QueryCode

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.planning.snapshot import REPLACED, agrees
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.origins.base import FileSystemOrigin, adler32, all_beside, beside, is_settled, reaching
from jcache_plugins.origins.handles import Answers, OpenFile, OpenFiles, callback_of, failure
from jcache_plugins.origins.logins import Login, is_refusal, system_of
from jcache_plugins.origins.reachable import listens
from jcache_plugins.origins.unlisted import unlisted

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

    holds_open = True

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        # Whether the server opens another version than the path names: the replaced one, while somebody has it open, or
        # for a metalink the file that is named in it, while a stat is of the metalink itself.
        self.slices = False
        self._opens_another = path.endswith(METALINKS)
        self._login, self._asks_as = Login.of(fs), 0
        session = current()
        if session is not None and session.retries.most:
            hasten(session.retries.for_s)

    async def stat(self) -> Info:
        """Ask for the size and modification time of what a reader gets, past fsspec's listing cache."""
        with reaching(), unlisted(self.fs) as fs:
            details = await fs._info(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
        if details.get("type") == "directory":
            raise IsADirectoryError(self.path)
        modified = details.get("mtime")
        if modified is None:  # fsspec-xrootd before 0.5
            with reaching(), unlisted(self.fs) as fs:
                modified = await fs._modified(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
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
                    if lost(error) or is_refusal(error):
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

    async def renew(self, error: Exception) -> bool:
        """See `jcache.origin.renew`: the token or proxy has expired, and there is another one that the server takes."""
        if not is_refusal(error):
            return False
        login = self._login
        if self._asks_as >= login.count:  # else others have found that meanwhile
            count = login.other(self.fs)
            if count is None:
                return False
            try:
                with reaching():
                    await checked(system_of(self.fs, count).stat, "stat", self.path, self.fs.timeout)
            except OSError:
                return False
            login.use(count)
        self._asks_as = login.count
        login.adopt(self.fs)
        return True

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
        """Return how many chunks it takes in one vector read, and of how many bytes; asked once.

        One that does not tell is read all the same, as plain reads do, which do not ask where there is no vector.
        """
        if self._limits is None:
            try:
                self._limits = await fs._get_max_chunk_info(handle)  # noqa: SLF001 - fsspec-xrootd's own way
            except OSError as error:
                if lost(error):
                    raise
                self._limits = fs.default_max_num_chunks, fs.default_max_chunk_size
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


def lost(error: Exception) -> str:
    """Return the client's words for a server that it has lost, or cannot reach; empty where an error is another."""
    if isinstance(error, ValueError):
        return CLOSED if str(error) == CLOSED else ""
    match = LOST.search(str(error)) if isinstance(error, OSError) else None
    return match[1] if match else ""


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
