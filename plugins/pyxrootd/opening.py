"""Opening a `File`: at the server as pyxrootd does, unless its version is known already and the settings trust that."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from XRootD.client.flags import OpenFlags

from jcache.errors import OfflineMissError
from jcache.naming import Identity
from jcache.origin import Info, is_out_of_reach
from jcache.planning.snapshot import agrees
from jcache.reader.retrying import Tries
from jcache.session import current
from jcache_plugins.fsspec.access import Access, access, named, on_loop_of, run
from jcache_plugins.fsspec.answers import UNKNOWN, Question, question
from jcache_plugins.fsspec.files import usable
from jcache_plugins.fsspec.reads import find
from jcache_plugins.fsspec.writes import invalidate
from jcache_plugins.fsspec.written import being_written
from jcache_plugins.origins.logins import Login, by_connection, is_refusal
from jcache_plugins.origins.xrootd import XRootDOrigin
from jcache_plugins.pyxrootd.callbacks import answer, call_soon
from jcache_plugins.pyxrootd.plain import FILE
from jcache_plugins.pyxrootd.reading import Reading, begin, reading_of
from jcache_plugins.pyxrootd.statuses import details_of, refused, stat_of, success, version_in
from jcache_plugins.pyxrootd.systems import Place, place_of

__all__ = ["attempt", "is_alone", "open_file"]

READS = frozenset({OpenFlags.NONE, OpenFlags.READ, OpenFlags.SEQIO, OpenFlags.READ | OpenFlags.SEQIO})
WRITES = OpenFlags.DELETE | OpenFlags.NEW | OpenFlags.UPDATE | OpenFlags.WRITE | OpenFlags.FORCE
# A new file that is made of another one; newer clients have it.
DUPLICATES = getattr(OpenFlags, "DUP", 0)
# What the server tells with an open file and is asked for without a request.
PROPERTIES = ("DataServer", "LastURL")


class ToldOrigin(XRootDOrigin):
    """A file of an XRootD server of which an open file has told the version."""

    def __init__(self, fs: Any, path: str, identity: Identity, told: Info) -> None:
        """Name a file; the first arguments are those of `FileSystemOrigin`."""
        super().__init__(fs, path, identity)
        self._told = told

    async def stat(self) -> Info:
        """Return what was told."""
        return self._told


def open_file(file: Any, url: Any, how: tuple[Any, Any, Any], callback: Any, sources: tuple[Any, ...] = ()) -> Any:
    """Open a file, and have what is read of it go through the journal; of one that is written, forget what is cached.

    Args:
        file: What is opened.
        url: As `File.open` takes it.
        how: Flags, mode and timeout, likewise.
        callback: Likewise.
        sources: The `File` whose place the new one takes, for `File.openusingtemplate`.
    """
    plainly = functools.partial(FILE["openusingtemplate" if sources else "open"], file, *sources, url, *how)
    reading = reading_of(file)
    if reading is not None:  # it is open, and the client says so
        try:
            reading.open_really(file)
        except OSError as error:
            return answer(refused(error), None, callback, success())
        return plainly(callback)
    is_understood = all(isinstance(value, int) for value in how) and (not callback or callable(callback))
    flags = how[0]
    place = attempt(lambda: place_of(url)) if is_understood else None
    if place is None:
        return plainly(callback)
    if flags & (WRITES | DUPLICATES):
        attempt(lambda: make_way(place))
        return opened(plainly, callback, lambda: begin_writing(file, place))
    found = None
    if flags in READS and not on_loop_of(place.fs):
        found = attempt(lambda: find(place.fs, place.path))
    if found is not None and not sources:
        way = found
        way.begin()
        try:
            trusted = attempt(lambda: run(place.fs, known(place, way)))
        except OfflineMissError as error:
            return answer(refused(error), None, callback, success())
        if trusted is not None:
            info, told = trusted
            begin(file, Reading(place, access=way, info=info, told=told, arguments=(url, *how)))
            return answer(success(), None, callback, success())
    again = (
        None if found is None or sources or callback else functools.partial(as_renewed, file, place, found, url, how)
    )
    return opened(plainly, callback, lambda: begin_reading(file, place, found), again)


def attempt(call: Callable[[], Any]) -> Any:
    """Return what is returned, None where that fails: pyxrootd then does as it does without JCache.

    Raises:
        OfflineMissError: The server must not be asked.
    """
    try:
        return call()
    except OfflineMissError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, pyxrootd opens the file, or says why not
        session = current()
        if session is not None:
            session.trouble(f"pyxrootd is not cached here: {type(error).__name__}: {error}")
        return None


def as_renewed(  # noqa: PLR0917 - what is opened, and what came of it
    file: Any, place: Place, found: Access, url: str, how: tuple[Any, Any, Any], result: tuple[Any, Any]
) -> tuple[Any, Any]:
    """Return what opening a file gives to who was refused and has other credentials by now; else what it gave."""
    session, message, below = current(), result[0].message, getattr(file, "_File__file", None)
    if session is None or below is None or not is_refusal(message):
        return result
    if not attempt(lambda: run(place.fs, Tries(session, found.origin).again(OSError(message)))):
        return result
    session.counters.origin(requests=1, retries=1)
    file._File__file = type(below)()  # noqa: SLF001 - the client opens none again that it could not open
    opened: tuple[Any, Any] = FILE["open"](file, by_connection(url, Login.of(place.fs).numbers(0)[0]), *how)
    return opened


def opened(
    plainly: Callable[[Any], Any], callback: Any, then: Callable[[], object], again: Callable[[Any], Any] | None = None
) -> Any:
    """Open a file as pyxrootd does, and do something behind it before the application is told.

    Args:
        plainly: Opens it, given the callback.
        callback: See `open_file`.
        then: Is called once it is open.
        again: Is given the answer where it is not, and returns another one; not with callbacks.
    """
    if not callback:
        result = plainly(callback)
        if again is not None and not result[0].ok:
            result = again(result)
        if result[0].ok:
            attempt(then)
        return result

    def tell(status: Any, response: Any, hosts: Any) -> None:
        try:
            if status.ok:
                attempt(then)
        finally:
            callback(status, response, hosts)

    # Not on the client's thread, which the event loop may be waiting for.
    return plainly(lambda *answers: call_soon(lambda: tell(*answers)))


# -- reading ------------------------------------------------------------------------------------------------------


async def known(place: Place, found: Access) -> tuple[Info, dict[str, Any]] | None:
    """Count an open, and return version and what the server told of it; None where it is to be asked.

    Raises:
        OfflineMissError: It must not be asked, and nothing is known.
    """
    alone = await is_alone(found)
    if await found.stored() is None and not (alone and await found.is_known()):
        return None
    info = usable(await found.open())
    if info is None:
        return None
    ask = asked(place)
    value = UNKNOWN if ask is None else await ask.known_soon()
    told: dict[str, Any] = value if isinstance(value, dict) else {}
    if "stat" in told and not agrees(info.version, version_in(told["stat"])):
        told = {}
    if alone:
        where = {"DataServer": place.fs.hostid, "LastURL": f"root://{place.fs.hostid}/{place.path}"}
        told = {**where, **told, "stat": stat_of(info, told.get("stat"))}
    return info, told


async def is_alone(found: Access) -> bool:
    """Whether a file's server must not be asked, or cannot be where that does not matter: a bundle has the file."""
    session = current()
    if session is None or session.offline:
        return session is not None
    return session.trusts_unreachable and await is_out_of_reach(found.origin)


def asked(place: Place) -> Question | None:
    """Return the question what the server told of an open file."""
    return question("open", place.path, {}, named(*place))


def begin_reading(file: Any, place: Place, found: Access | None) -> None:
    """Begin to read a file that is open at the server; past the cache where its version is not known for sure."""
    status, told = FILE["stat"](file, False)
    info = attempt(lambda: validated(place, found, told)) if found is not None and status.ok else None
    session = current()
    if session is None:
        return
    if info is None:
        name = access(*place)
        if name is not None and name.excluded:
            return
        if name is not None and found is None:
            session.counters.file_opened(name.identity.url, told.size if status.ok else None, 0.0)
    begin(file, Reading(place, access=found, info=info))
    if info is not None and (ask := asked(place)) is not None:
        properties = {name: without_query(FILE["get_property"](file, name)) for name in PROPERTIES}
        ask.note({"stat": dict(vars(told)), **properties})


def without_query(address: Any) -> Any:
    """Return an address without what is of one request, or may be a secret."""
    return str(address or "").partition("?")[0].rpartition("@")[2]


def validated(place: Place, found: Access, told: Any) -> Info | None:
    """Count an open, and return the version of the open file as it is recorded; None where it is none to record.

    The server has told it with the file: nothing else is asked, unless this process knows another one.
    """
    fs, path = place
    version = version_in(told)
    way = found
    if type(found.origin) is XRootDOrigin:
        from fsspec_xrootd import xrootd

        info = Info(version, details_of(path, told, getattr(xrootd, "_flags_to_mode", None)))
        way = Access(ToldOrigin(fs, path, found.identity, info), found.directory, terms=found.terms)
    info = run(fs, way.open())
    session = current()
    if not agrees(info.version, version) and session is not None:
        session.files.doubt(found.identity.address)
        info = run(fs, found.stat())
    return usable(info) if agrees(info.version, version) else None


# -- writing ------------------------------------------------------------------------------------------------------


def make_way(place: Place) -> None:
    """Forget what is cached of a file, and have it closed: a server has no file written that it has open to read."""
    invalidate(*place, below=False)
    if not on_loop_of(place.fs):
        run(place.fs, asyncio.sleep(0))  # behind what closes it


def begin_writing(file: Any, place: Place) -> None:
    """Forget what is cached of a file that is open for writing, now and once it is closed; count what is read of it."""
    being_written(*place, file)
    begin(file, Reading(place, access=None, info=None))
