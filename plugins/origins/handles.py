"""XRootD files that are open at their servers, and what these answer to requests for them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Container, Sequence
from typing import Any

from XRootD import client
from XRootD.client.flags import OpenFlags

from jcache.session import current
from jcache_plugins.origins.logins import Login, by_connection, is_refusal

__all__ = ["Answers", "OpenFile", "OpenFiles", "callback_of", "failure"]


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
        url, message = unrecovered(self.url), ""
        for address in dict.fromkeys(by_connection(url, number) for number in Login.of(fs).numbers(self.connection)):
            handle = client.File()
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            submitted = handle.open(address, OpenFlags.READ, timeout=fs.timeout, callback=callback_of(done))
            status = (await done)[0] if submitted.ok else submitted
            if status.ok:
                self.handle = handle
                return
            message = status.message
            if not is_refusal(message):
                break
        msg = f"Failed to open file: {message}"
        raise OSError(msg)

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


def unrecovered(url: str) -> str:
    """Return an address for a file that fails at once where its connection is lost, if it is opened anew then.

    The client would open it again by itself, unseen, and only when its window for connections has passed.
    """
    session = current()
    if session is None or not session.retries.most:
        return url
    return f"{url}{'&' if '?' in url else '?'}xrdcl.recover-reads=false"


def close(handle: Any) -> None:
    """Close a file without waiting for it."""

    def closed(*_: Any) -> Any:
        return handle  # which must live until then

    handle.close(callback=closed)


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
