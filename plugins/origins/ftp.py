"""FTP over fsspec's own file system: one transfer at a time, and versions out of the control connection."""

import functools
from collections.abc import Callable, Mapping, Sequence
from ftplib import Error, error_perm, error_proto, error_temp
from typing import Any

from jcache.journal import Version
from jcache.naming import Identity
from jcache.origin import Fetched, Info, OriginRange
from jcache.reader.remote import Span
from jcache_plugins.origins.base import FileSystemOrigin, UnsizedError, as_read, beside, nanoseconds_of, reaching
from jcache_plugins.origins.unlisted import unlisted

__all__ = ["FTPOrigin"]

# Ranges that are no further apart come in one transfer, up to about so many bytes of the file: another transfer takes
# five round trips, and brings more than that.
GAP, MOST = 64 << 10, 16 << 20
# What the control connection may meet that another one would not; a refusal (`error_perm`) is none of them.
ENDED = (EOFError, error_proto, error_temp)
LOST = (*ENDED, ConnectionError, TimeoutError)


class FTPOrigin(FileSystemOrigin):
    """One file of an FTP server.

    The version is the size and the modification time that `MLST` tells (RFC 3659), or `SIZE` and `MDTM` where the
    server has no `MLST`: one round trip before the bytes and one behind them, and no listing.
    """

    lenient = False
    transient = ENDED

    def __init__(self, fs: Any, path: str, identity: Identity) -> None:
        """Name a file; the arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        self._size_bytes = 0
        # What the listing says of the file, and what the server told of it by then.
        self._listed: tuple[Any, Mapping[str, Any]] = None, {}

    async def stat(self) -> Info:
        """Ask for the file's version now, past any listing that fsspec keeps."""
        with reaching():
            info: Info = await self._in_turn(self._state)
        return info

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch ranges, those that lie together in one transfer, and prove their version on either side of them."""
        known = known or await self.stat()  # what is no file, the file system itself is to say
        self._size_bytes = known.version.size_bytes
        return await super().fetch(ranges, known=known, arrived=arrived)

    def without_bytes(self, start: int | None, stop: int | None, size: int) -> Span | None:
        """Return a range that begins behind the end, and has none: the server is sent its beginning, and refuses it."""
        return (start, stop) if stop is None and (start or 0) > size else None

    def meant(self, start: int | None, stop: int | None, size: int) -> tuple[int, int] | None:
        """Return what fsspec's own way makes of bounds, which is taken where there is an end."""
        return None if stop is None else as_read(start, stop, size)

    async def _read(self, ranges: Sequence[OriginRange]) -> list[bytes | Exception]:
        data: list[bytes | Exception] = await self._in_turn(functools.partial(self._transfer, list(ranges)))
        return data

    async def _in_turn(self, call: Callable[[], Any]) -> Any:
        """Make a call in its turn; where the connection is lost there is another for the next one."""

        def task() -> Any:
            try:
                return call()
            except LOST:  # servers end connections on which nothing was said for a while
                self._reconnect()
                raise

        return await super()._in_turn(task)

    def _reconnect(self) -> None:
        """Begin another connection, with the first one's rights and protection."""
        self.fs.ftp.close()
        self.fs._connect()  # noqa: SLF001 - as fsspec itself does where breaking off fails
        if self.fs.tls is True:
            self.fs.ftp.prot_p()

    # -- bytes --------------------------------------------------------------------------------------------------

    def _transfer(self, ranges: list[OriginRange]) -> list[bytes | Exception]:
        data: list[bytes | Exception] = [b""] * len(ranges)
        order = sorted(range(len(ranges)), key=lambda i: ranges[i][0])
        done = 0
        while done < len(order):
            first, until = ranges[order[done]]
            end = done + 1
            while end < len(order) and until is not None and ranges[order[end]][0] <= min(until, first + MOST) + GAP:
                stop = ranges[order[end]][1]
                until, end = None if stop is None else max(until, stop), end + 1
            body = self._retrieve(first, until)
            for i in order[done:end]:
                start, stop = ranges[i]
                data[i] = body[start - first : None if stop is None else stop - first]
            done = end
        return data

    def _retrieve(self, start: int, stop: int | None) -> bytes:
        """Read [start, stop), and break off where the file has more."""
        if start >= self._size_bytes if stop is None else stop <= start:
            return b""
        ends = stop is None or stop >= self._size_bytes
        pieces: list[bytes] = []
        left = 0 if stop is None else stop - start

        def take(piece: bytes) -> None:
            nonlocal left
            pieces.append(piece if ends else piece[:left])
            left -= len(piece)
            if left <= 0 and not ends:
                raise Enough

        fs = self.fs
        try:
            fs.ftp.retrbinary(f"RETR {self.path}", take, blocksize=fs.blocksize, rest=start or None)
        except Enough:
            try:
                fs.ftp.abort()
                fs.ftp.getmultiline()
            except (Error, *LOST):
                self._reconnect()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- versions -----------------------------------------------------------------------------------------------

    def _state(self) -> Info:
        """Return what the server tells of the file now, in the words of the file system's own `info`."""
        details: Mapping[str, Any] = self._facts()
        told = details.get("size"), details.get("modify")
        if not details:
            size = self._tell("SIZE")
            told = size, size and self._tell("MDTM")
            if None in told or self._listed[0] != told:
                self._listed = told, self._info()
            details = self._listed[1]
        size, modified = told
        size = details.get("size") if size is None else size
        self.is_directory = details["type"] == "directory"
        if details["type"] != "file" or size is None or int(size) != details.get("size"):
            msg = f"{self.path}: no file, or one without a size"
            raise UnsizedError(msg)  # of a link a listing gives another size
        return Info(Version(int(size), mtime_ns=moment(modified or details.get("modify") or "")), details)

    def _facts(self) -> dict[str, Any]:
        """Return the facts of `MLST` as `info` has those of `MLSD`; nothing where the server tells none."""
        server = beside(self.fs, Server)
        if not server.has_mlst:
            return {}
        try:
            lines = self.fs.ftp.sendcmd(f"MLST {self.path}").splitlines()
        except error_perm as error:
            server.has_mlst = str(error).startswith("55")  # which is about the file
            if not server.has_mlst:
                return {}
            lines = []
        told = lines[1].strip().partition(" ")[0] if len(lines) > 1 else ""
        facts: dict[str, Any] = {key.lower(): value for key, _, value in (f.partition("=") for f in told.split(";"))}
        facts.pop("", None)
        if facts.get("type") == "file" and "size" in facts:
            return {**facts, "size": int(facts["size"]), "name": self.path}
        return self._info()  # it has its own words for all else

    def _info(self) -> dict[str, Any]:
        with unlisted(self.fs) as fs:
            return dict(fs.info(self.path))

    def _tell(self, command: str) -> str | None:
        """Return what one command tells of the file; None where the server refuses."""
        try:
            if command == "SIZE":
                self.fs.ftp.voidcmd("TYPE I")  # or it would count lines' ends twice, and many servers refuse to
            return self.fs.ftp.sendcmd(f"{command} {self.path}")[4:].strip()  # type: ignore[no-any-return]  # fsspec is untyped
        except error_perm:
            return None


class Enough(Exception):  # noqa: N818 - nothing is wrong
    """A transfer has brought what was asked for."""


class Server:
    """What is known of the server of one file system.

    Attributes:
        has_mlst: Whether it is not known to lack `MLST`.
    """

    def __init__(self, _fs: Any) -> None:
        self.has_mlst = True


def moment(text: str) -> int | None:
    """Return the time of a fact or of `MDTM`, `YYYYMMDDHHMMSS[.sss]` in UTC, as nanoseconds; None if it is none."""
    return nanoseconds_of(f"{text[:8]}T{text[8:]}+00:00") if text[:14].isdigit() and len(text) >= 14 else None
