"""XRootD over fsspec-xrootd: reads and the stat that proves them go through one open file at the data server."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.origin import Fetched, Info, OriginRange
from jcache.reader.snapshot import REPLACED, agrees
from jcache_plugins.origins import FileSystemOrigin, is_settled, reaching

__all__ = ["XRootDOrigin"]


class XRootDOrigin(FileSystemOrigin):
    """One file of an XRootD server.

    The protocol has no conditional requests. The version before the bytes is the one that the server told with the
    open file or that the last stat proved; the one behind them is a stat of the *open file*: if the path was replaced
    meanwhile, the file that is open keeps its old content, and what was read is the old version throughout.
    """

    async def stat(self) -> Info:
        """Ask for the path's size and modification time, past fsspec's listing cache."""
        with reaching():
            self._forget_listing()
            details = await self.fs._info(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
        if details.get("type") == "directory":
            raise IsADirectoryError(self.path)
        modified = details.get("mtime")
        if modified is None:  # fsspec-xrootd before 0.5
            with reaching():
                modified = await self.fs._modified(self.path)  # noqa: SLF001 - fsspec's asynchronous interface
        return Info(Version(details["size"], mtime_ns=int(modified) * 10**9), details)

    async def fetch(self, ranges: Sequence[OriginRange], *, known: Info | None) -> Fetched:
        """Fetch ranges in one vector read (several where the server's limits want it) and prove their version."""
        handles = getattr(self.fs, "_readonly_filehandle_cache", None)
        if handles is None:  # an fsspec-xrootd built otherwise: its public interface will do
            return await super().fetch(ranges, known=known)
        with reaching():
            url = self.fs.unstrip_protocol(self.path)
            handle = await handles._open(url, self.fs.timeout)  # noqa: SLF001 - the file that fsspec itself reads
            before = known.version if known is not None else await self._state(handle, force=False)
            started_s = time.time()
            data = await self._read_open(handle, clamped(ranges, before.size_bytes))
            after = await self._state(handle, force=True)
        if not agrees(before, after):
            await self._close(handles, url)
            raise OriginChangedError(REPLACED)
        return Fetched(data, known or self._as_info(after), recordable=is_settled(after, started_s), requests=1)

    def _as_info(self, version: Version) -> Info:
        seconds = (version.mtime_ns or 0) // 10**9
        details = {"name": self.path, "size": version.size_bytes, "type": "file", "mtime": seconds}
        return Info(version, details)

    async def _state(self, handle: Any, *, force: bool) -> Version:
        """Return the open file's version: as told when it was opened, or (force) as the server has it now."""
        state = await checked(handle.stat, "stat", force=force, timeout=self.fs.timeout)
        return Version(state.size, mtime_ns=int(state.modtime) * 10**9)

    async def _read_open(self, handle: Any, ranges: Sequence[tuple[int, int]]) -> list[bytes | Exception]:
        wanted = [part for part in ranges if part[0] < part[1]]
        if len(wanted) == 1:
            start, stop = wanted[0]
            bodies = [await checked(handle.read, "read", start, stop - start, self.fs.timeout)]
        elif wanted:
            bodies = await self._vector_read(handle, wanted)
        else:
            bodies = []
        rest = iter(bodies)
        data: list[bytes | Exception] = []
        for start, stop in ranges:
            body = next(rest) if start < stop else b""
            if len(body) != stop - start:
                msg = f"{self.path}: got {len(body)} of {stop - start} bytes at offset {start}"
                raise ShortReadError(msg)
            data.append(body)
        return data

    async def _vector_read(self, handle: Any, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        max_chunks, max_chunk_bytes = await self.fs._get_max_chunk_info(handle)  # noqa: SLF001 - asked once per server
        chunks: list[tuple[int, int]] = []
        counts: list[int] = []
        for start, stop in ranges:
            before = len(chunks)
            chunks += [(at, min(max_chunk_bytes, stop - at)) for at in range(start, stop, max_chunk_bytes)]
            counts.append(len(chunks) - before)
        vectors = [chunks[i : i + max_chunks] for i in range(0, len(chunks), max_chunks)]
        answers = await asyncio.gather(
            *(checked(handle.vector_read, "vector_read", vector, self.fs.timeout) for vector in vectors)
        )
        buffers = [chunk.buffer for answer in answers for chunk in answer]
        if len(buffers) == len(ranges):
            return buffers
        bodies: list[bytes] = []
        at = 0
        for count in counts:
            bodies.append(buffers[at] if count == 1 else b"".join(buffers[at : at + count]))
            at += count
        return bodies

    async def _close(self, handles: Any, url: str) -> None:
        """Close the file that was replaced, so that the next read opens the new one."""
        try:
            await handles._close(url, self.fs.timeout)  # noqa: SLF001 - its synchronous form would block the loop
        except OSError:
            return  # the handle is out of the cache, which is what matters


def clamped(ranges: Sequence[OriginRange], size_bytes: int) -> list[tuple[int, int]]:
    """Return ranges cut at the end of the file."""
    return [(start, max(start, size_bytes if stop is None else min(stop, size_bytes))) for start, stop in ranges]


async def checked(method: Any, what: str, *args: Any, **kwargs: Any) -> Any:
    """Await a callback-style call of the XRootD client; raise what plain fsspec-xrootd raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, Any]] = loop.create_future()

    def deliver(status: Any, content: Any) -> None:
        if not done.done():
            done.set_result((status, content))

    def callback(status: Any, content: Any, _hosts: Any) -> None:
        try:
            loop.call_soon_threadsafe(deliver, status, content)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    submitted = method(*args, **kwargs, callback=callback)
    if not submitted.ok:
        msg = f"File did not {what} properly: {submitted.message.strip()}"
        raise OSError(msg)
    status, content = await done
    if not status.ok:
        msg = f"File did not {what} properly: {status.message.strip()}"
        raise OSError(msg)
    return content
