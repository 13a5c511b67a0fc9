"""What the methods of `XRootD.client.File` do instead, by name: reads go through the journal, all else to pyxrootd."""

import asyncio
import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from XRootD.client.responses import StatInfo

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.session import current
from jcache_plugins.fsspec.access import loop_of, on_loop_of, run
from jcache_plugins.fsspec.written import ending, open_files
from jcache_plugins.pyxrootd.callbacks import answer, call_soon
from jcache_plugins.pyxrootd.lines import CHUNK_BYTES, Chunks
from jcache_plugins.pyxrootd.opening import open_file
from jcache_plugins.pyxrootd.plain import FILE, is_passed
from jcache_plugins.pyxrootd.reading import CLOSED, ExpiredError, Reading, Span, end, reading_of
from jcache_plugins.pyxrootd.statuses import as_vector, expired, refused, success

__all__ = ["METHODS", "PASSED", "passed"]

# JCache's own: what cannot be read, and must not be read as something else.
OWN = (OfflineMissError, OriginChangedError)
# What a server takes in one vector unless it says something else.
CHUNKS, CHUNK_LIMIT_BYTES = 1024, 2097136
SIZE_LIMIT, OFFSET_LIMIT = 1 << 32, 1 << 63


def open_(  # noqa: PLR0917 - as pyxrootd has it
    self: Any, url: Any, flags: Any = 0, mode: Any = 0, timeout: Any = 0, callback: Any = None
) -> Any:
    """Stand for `open`."""
    if is_passed(sys._getframe(1)):  # noqa: SLF001 - the way to one's callers
        return FILE["open"](self, url, flags, mode, timeout, callback)
    return open_file(self, url, (flags, mode, timeout), callback)


def openusingtemplate(  # noqa: PLR0917 - as pyxrootd has it
    self: Any, src_file: Any, url: Any, flags: Any = 0, mode: Any = 0, timeout: Any = 0, callback: Any = None
) -> Any:
    """Stand for `openusingtemplate`, which needs its source open at the server."""
    if is_passed(sys._getframe(1)):  # noqa: SLF001 - the way to one's callers
        return FILE["openusingtemplate"](self, src_file, url, flags, mode, timeout, callback)
    status = made_real(src_file)
    if not status.ok:
        return answer(status, None, callback, success())
    return open_file(self, url, (flags, mode, timeout), callback, (src_file,))


def clone(self: Any, locs: Any, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `clone`, which needs its sources open at the server."""
    for loc in locs if isinstance(locs, list | tuple) else ():
        status = made_real(loc.get("src_file")) if isinstance(loc, dict) else success()
        if not status.ok:
            return answer(status, None, callback, success())
    return passed(FILE["clone"])(self, locs, timeout, callback)


def close(self: Any, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `close`."""
    reading = end(self)
    if reading is not None and not reading.is_real:
        return answer(success(), None, callback, success())
    if id(self) not in open_files:
        return FILE["close"](self, timeout, callback)
    if callback:

        def closed(*answers: Any) -> None:
            with ending(self, "ask"):
                written(self, answers[0])
            callback(*answers)

        soon = (lambda *answers: call_soon(lambda: closed(*answers))) if callable(callback) else callback
        return FILE["close"](self, timeout, soon)
    with ending(self, "ask"):
        status, response = FILE["close"](self, timeout)
        written(self, status)
    return status, response


def written(file: Any, status: Any) -> None:
    """Have a file be written no more if its close went well; else its content may yet change."""
    if status.ok:
        open_files.pop(id(file), None)


def exit_(self: Any, *raised: Any) -> Any:
    """Stand for `__exit__`, of which pyxrootd takes no notice how it ends."""
    end(self)
    with ending(self, "close"):
        return FILE["__exit__"](self, *raised)


def is_open(self: Any) -> Any:
    """Stand for `is_open`."""
    reading = reading_of(self)
    return True if reading is not None and not reading.is_real else FILE["is_open"](self)


def stat(self: Any, force: Any = False, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `stat`."""
    reading = reading_of(self)
    told = None if reading is None or reading.is_real else reading.told.get("stat")
    if told is not None:
        return answer(success(), StatInfo(dict(told)), callback, success())
    return passed(FILE["stat"])(self, force, timeout, callback)


def get_property(self: Any, name: Any) -> Any:
    """Stand for `get_property`."""
    reading = reading_of(self)
    if reading is not None and not reading.is_real:
        told = reading.told.get(name) if isinstance(name, str) else None
        if told is not None:
            return told
        with contextlib.suppress(*OWN):
            reading.open_really(self)
    return FILE["get_property"](self, name)


# -- reads --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """One read that an application asks for.

    Attributes:
        plainly: Makes it as pyxrootd does, given the callback.
        spans: The ranges of the file; None where only the client, or the server, can tell what it means.
        make: Makes the response of their bytes.
        is_vector: Whether it is a vector read.
        timeout: So many seconds it may take; 0 for as long as the client has it.
    """

    plainly: Callable[[Any], Any]
    spans: Sequence[Span] | None
    make: Callable[[Sequence[bytes]], Any]
    is_vector: bool
    timeout: int


def read(self: Any, offset: Any = 0, size: Any = 0, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `read`."""
    reading = reading_of(self)
    plainly = functools.partial(FILE["read"], self, offset, size, timeout)
    if reading is None:
        return plainly(callback)
    return answered(self, reading, asked(reading, plainly, offset, size, timeout), callback)


def vector_read(self: Any, chunks: Any, timeout: Any = 0, callback: Any = None) -> Any:
    """Stand for `vector_read`."""
    reading = reading_of(self)
    plainly = functools.partial(FILE["vector_read"], self, chunks, timeout)
    if reading is None:
        return plainly(callback)
    spans = ranges_of(self, reading, chunks) if isinstance(timeout, int) else None
    make = functools.partial(as_vector, [] if spans is None else list(chunks))
    return answered(self, reading, Asked(plainly, spans, make, is_vector=True, timeout=timeout), callback)


def asked(reading: Reading, plainly: Callable[[Any], Any], offset: Any, size: Any, timeout: Any = 0) -> Asked:
    """Return a read of one range; without a size, or with one behind the end, it ends where the file does."""
    spans = None
    if all(isinstance(value, int) for value in (offset, size, timeout)):
        in_file = reading.version.size_bytes
        if 0 <= offset < OFFSET_LIMIT and 0 <= size < SIZE_LIMIT:
            spans = [(offset, max(offset, min(offset + (size or in_file % SIZE_LIMIT), in_file)))]
    return Asked(plainly, spans, lambda rows: rows[0], is_vector=False, timeout=timeout)


def ranges_of(file: Any, reading: Reading, chunks: Any) -> list[Span] | None:
    """Return the ranges of a vector read; None where there are none, or client or server refuse them."""
    if type(chunks) is not list or not chunks or reading.access is None:
        return None
    try:
        longest = max(length for _, length in chunks)
        spans = [(offset, offset + length) for offset, length in chunks]
        is_plain = all(type(chunk) is tuple and type(chunk[0]) is type(chunk[1]) is int for chunk in chunks)
        is_in_file = is_plain and max(stop for _, stop in spans) <= reading.version.size_bytes
        if not is_in_file or min(spans)[0] < 0 or any(start > stop for start, stop in spans):
            return None
    except (TypeError, ValueError):
        return None
    if len(set(chunks)) < len(chunks):  # which the client takes for a wrong answer
        return None
    if len(chunks) <= CHUNKS and longest <= CHUNK_LIMIT_BYTES:
        return spans
    most, longest_taken = limits(file, reading)
    return spans if len(chunks) <= most and longest <= longest_taken else None


def limits(file: Any, reading: Reading) -> tuple[int, int]:
    """Return how many chunks the server takes in a vector, and of how many bytes; without a server any."""
    fs = reading.place.fs
    try:
        if not on_loop_of(fs) and reading.open_really(file).ok:
            found: tuple[int, int] = run(fs, fs._get_max_chunk_info(file))  # noqa: SLF001 - fsspec-xrootd's own way
            return found
    except OfflineMissError:
        return sys.maxsize, sys.maxsize
    except Exception:  # noqa: BLE001 - the server says itself what it takes
        return CHUNKS, CHUNK_LIMIT_BYTES
    return CHUNKS, CHUNK_LIMIT_BYTES  # it is not there


def answered(file: Any, reading: Reading, asked: Asked, callback: Any) -> Any:
    """Answer a read, out of the journal where that can be, as pyxrootd does."""
    spans = asked.spans
    if callback and not callable(callback):
        return asked.plainly(callback)  # which says so
    if spans is None or reading.access is None or on_loop_of(reading.place.fs) or current() is None:
        return as_it_is(file, reading, asked, callback)
    rows = here(reading, asked)
    if rows is not None:
        return answer(success(), asked.make(rows), callback, success())
    if not callback:
        try:
            return found(file, reading, asked)
        except OWN as error:
            return refused(error), None
    reading_on = reading.read(spans, vector=asked.is_vector, timeout=asked.timeout)
    try:
        reads = asyncio.run_coroutine_threadsafe(reading_on, loop_of(reading.place.fs))
    except RuntimeError:  # the loop is closed, or of another process
        reading_on.close()
        return as_it_is(file, reading, asked, callback)
    reads.add_done_callback(lambda done: call_soon(lambda: deliver(file, reading, asked, callback, done)))
    return success()


def deliver(file: Any, reading: Reading, asked: Asked, callback: Any, done: Any) -> None:
    """Call back with what was read; where that failed, with what pyxrootd reads."""
    try:
        status, response = success(), asked.make(done.result())
    except OfflineMissError as error:
        status, response = refused(error), None
    except ExpiredError:
        status, response = expired(), None
    except Exception:  # noqa: BLE001 - pyxrootd tries
        try:
            # What was closed meanwhile may be open again, and be another file.
            is_open = reading_of(file) is reading
            status, response = past(file, reading, asked) if is_open else (refused(CLOSED), None)
        except OWN as error:
            status, response = refused(error), None
    answer(status, response, callback, None)


def here(reading: Reading, asked: Asked) -> Sequence[bytes] | None:
    """Return what the journal has, on the caller's thread; None where the server is needed."""
    spans = asked.spans or ()
    if not any(start < stop for start, stop in spans):
        return [b""] * len(spans)
    try:
        return reading.try_read(spans, vector=asked.is_vector)
    except Exception:  # noqa: BLE001 - the other ways meet it
        return None


def found(file: Any, reading: Reading, asked: Asked) -> Any:
    """Return status and response of a read, by journal and server, else as pyxrootd does it.

    Raises:
        OfflineMissError: The server must not be asked.
        OriginChangedError: The file was replaced, and bytes of its old version were delivered.
    """
    try:
        rows = reading.read_now(asked.spans or (), vector=asked.is_vector, timeout=asked.timeout)
        return success(), asked.make(rows)
    except OfflineMissError:
        raise
    except ExpiredError:
        return expired(), None if asked.is_vector else b""
    except Exception:  # noqa: BLE001 - pyxrootd tries
        return past(file, reading, asked)


def past(file: Any, reading: Reading, asked: Asked) -> Any:
    """Read as pyxrootd does, and return its status and response; raises what `Reading.read_past` does."""
    plainly = functools.partial(asked.plainly, None)
    return reading.read_past(file, plainly, vector=asked.is_vector, spans=asked.spans or (), timeout=asked.timeout)


def as_it_is(file: Any, reading: Reading, asked: Asked, callback: Any) -> Any:
    """Answer a read as pyxrootd does, which is asynchronous where there is a callback, and count it."""
    try:
        if not callback:
            return past(file, reading, asked)
        status = reading.open_really(file)
    except OWN as error:
        return answer(refused(error), None, callback, success())
    if not status.ok:
        return status

    def proved(status: Any, response: Any, hosts: Any) -> None:
        try:
            if status.ok:
                reading.prove(file, force=True, timeout=asked.timeout)
                reading.count(response, vector=asked.is_vector, spans=asked.spans or ())
        except OWN as error:
            status, response = refused(error), None
        callback(status, response, hosts)

    # Not on the client's thread, which must not wait for an answer.
    return asked.plainly(lambda *answers: call_soon(lambda: proved(*answers)))


# -- lines and chunks ---------------------------------------------------------------------------------------------


def reader(file: Any, reading: Reading) -> Callable[[int, int], bytes]:
    """Return what reads a range for a method that takes any trouble of the server's for the end of the file.

    It raises what is JCache's own: nothing is cut off that is there.
    """

    def read_range(offset: int, size: int) -> bytes:
        one = asked(reading, functools.partial(FILE["read"], file, offset, size, 0), offset, size)
        is_past = one.spans is None or reading.access is None or on_loop_of(reading.place.fs) or current() is None
        if not is_past:
            rows = here(reading, one)
            if rows is not None:
                return rows[0]
        status, response = (past if is_past else found)(file, reading, one)
        return response if status.ok else b""

    return read_range


def are_sizes(*values: Any) -> bool:
    """Whether values are offsets or sizes as the client takes them."""
    return all(isinstance(value, int) and 0 <= value < SIZE_LIMIT for value in values)


def counted(reading: Reading | None, lines: Any) -> Any:
    """Count a line, or lines, that pyxrootd has read itself."""
    if reading is not None and isinstance(lines, str | list):
        reading.count("".join(lines).encode(), vector=False)
    return lines


def readline(self: Any, offset: Any = 0, size: Any = 0, chunksize: Any = 0) -> Any:
    """Stand for `readline`."""
    reading = reading_of(self)
    if reading is None or reading.is_past or not are_sizes(offset, size, chunksize):
        return counted(reading, passed(FILE["readline"])(self, offset, size, chunksize))
    return reading.lines.readline(reader(self, reading), offset, size, chunksize)


def readlines(self: Any, offset: Any = 0, size: Any = 0, chunksize: Any = 0) -> Any:
    """Stand for `readlines`; with an offset pyxrootd reads the same line again and again."""
    reading = reading_of(self)
    if reading is None or reading.is_past or offset or not are_sizes(offset, size, chunksize):
        return counted(reading, passed(FILE["readlines"])(self, offset, size, chunksize))
    return reading.lines.readlines(reader(self, reading), size, chunksize)


def next_(self: Any) -> Any:
    """Stand for `__next__`."""
    reading = reading_of(self)
    if reading is None or reading.is_past:
        return counted(reading, FILE["__next__"](self))
    line = reading.lines.readline(reader(self, reading), 0, 0, 0)
    if not line:
        raise StopIteration
    return line


def readchunks(self: Any, offset: Any = 0, chunksize: Any = CHUNK_BYTES) -> Any:
    """Stand for `readchunks`."""
    reading = reading_of(self)
    if reading is None or not are_sizes(offset, chunksize) or not chunksize:
        return passed(FILE["readchunks"])(self, offset, chunksize)
    return Chunks(reader(self, reading), offset, chunksize)


# -- all else -----------------------------------------------------------------------------------------------------


def passed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method that is pyxrootd's own, for which the file is opened at the server."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        reading = reading_of(self)
        if reading is not None and not reading.is_real:
            status = made_real(self)
            if not status.ok:
                callback = kwargs.get("callback") or next((one for one in args if callable(one)), None)
                return answer(status, None, callback, success())
        return original(self, *args, **kwargs)

    return method


def made_real(file: Any) -> Any:
    """Have a file open at the server, whichever version it has there, and return the client's status."""
    reading = reading_of(file)
    if reading is None or reading.is_real:
        return success()
    try:
        return reading.open_really(file)
    except OfflineMissError as error:
        return refused(error)
    except OriginChangedError:
        return success()  # it is open


METHODS: dict[str, Callable[..., Any]] = {
    "open": open_,
    "openusingtemplate": openusingtemplate,
    "clone": clone,
    "close": close,
    "__exit__": exit_,
    "is_open": is_open,
    "stat": stat,
    "get_property": get_property,
    "read": read,
    "vector_read": vector_read,
    "readline": readline,
    "readlines": readlines,
    "__next__": next_,
    "readchunks": readchunks,
}
# Those that stay what they are.
PASSED = (
    "set_property",
    "fcntl",
    "visa",
    "set_xattr",
    "get_xattr",
    "del_xattr",
    "list_xattr",
    "write",
    "sync",
    "truncate",
)
