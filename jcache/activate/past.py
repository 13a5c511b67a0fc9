"""Which libraries of this process read remote data past the cache, so that nobody has to wonder why a hit rate is low.

Those that show in Python are watched where they begin to read. Native ones tell nobody; but whoever has read through a
connection keeps it for a while, and Python has no socket object for it. So the process looks at its own sockets, once,
when it ends, and only if such a library was imported. Either way one line at the end names the library.
"""

import os
import sys

from jcache.activate.notice import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_FSSPEC = "give it file objects of fsspec.open(...)"
# By the module whose import says that native code may read remote data: what it is called, and how it is cached.
NATIVE = {
    "icechunk": ("icechunk", "start the job with jcache run --gateway"),
    "lance": ("lance", "there is no way yet"),
    "deltalake": ("deltalake", "there is no way yet"),
    "ROOT": ("ROOT", "read the file with uproot, or through jcache serve --xrootd"),
    "XRootD.client": ("pyxrootd", "install fsspec-xrootd"),
}
# Of polars, what opens a URL by itself.
_POLARS = ("read_parquet", "scan_parquet", "scan_csv", "scan_ipc", "scan_ndjson")
# Whose endpoint, or whose proxy, `jcache run --gateway` has set.
_BY_GATEWAY = frozenset({"boto3", "obstore", "polars", "pyarrow"})
_PAGE = "docs/ecosystem.md"
_STATES = frozenset({"01", "08"})  # ESTABLISHED, CLOSE_WAIT

_seen: set[str] = set()
_noted: dict[str, str] = {}
_armed = False


def imported(name: str) -> None:
    """Note that a module of `NATIVE` is being imported: at the process's end its connections are looked at."""
    _seen.add(name)
    _arm()


def note(name: str, how: str) -> None:
    """Note that a library was seen to read past the cache.

    Args:
        name: What it is called.
        how: What to do to have it cached.
    """
    _noted[name] = how
    _arm()


def _arm() -> None:
    global _armed
    if not _armed:
        _armed = True
        import threading

        # Before exit handlers, in which these libraries close what they have open.
        at_end: Callable[[Callable[[], None]], None] | None = getattr(threading, "_register_atexit", None)
        if at_end is not None:
            at_end(tell)


def tell() -> None:
    """Say, in one line on stderr, what read past the cache since this was last asked; never raises."""
    try:
        line = found()
    except Exception as error:  # noqa: BLE001 - a process's end must not fail for a remark
        line = f"whether anything was read past the cache cannot be told: {type(error).__name__}: {error}"
    if line:
        say(line)


def found() -> str | None:
    """Return what to say of the libraries that read past the cache since this was last asked; None for nothing."""
    how = dict(_noted)
    gateway = os.environ.get("_JCACHE_GATEWAY")
    if gateway:
        how = {name: way for name, way in how.items() if name not in _BY_GATEWAY}
    where: list[str] = []
    _noted.clear()
    native = _seen - ({"XRootD.client"} if sys.modules.get("fsspec_xrootd") is not None else set())
    if native:
        where = [address for address in _connections() if address != gateway]
        if where:
            how |= dict(NATIVE[name] for name in native)
    if not how:
        return None
    names = " or ".join(how)
    places = f" ({', '.join(sorted(set(where))[:3])})" if where else ""
    ways = "; ".join(f"{name}: {way}" for name, way in how.items())
    return f"{names} read remote data past the cache{places}. To have it cached, {ways}. See {_PAGE}"


def _connections() -> list[str]:
    """Return where the sockets of this process are connected that are none of Python's."""
    inodes: dict[str, int] = {}
    try:
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes[target[8:-1]] = int(name)
    except OSError:
        return []  # no Linux
    connected: dict[int, str] = {}
    for family in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{family}", encoding="ascii") as table:
                rows = [row.split() for row in table][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] in _STATES and row[9] in inodes:
                connected[inodes[row[9]]] = _address(row[2])
    python = _python_descriptors() if connected else set()
    return [where for descriptor, where in connected.items() if descriptor not in python]


def _address(text: str) -> str:
    host, _, port = text.partition(":")
    parts = bytes.fromhex(host)
    words = [parts[i : i + 4][::-1] for i in range(0, len(parts), 4)]  # each word in the machine's order
    if len(words) == 1 or b"".join(words[:3]) == bytes(10) + b"\xff\xff":
        return ".".join(str(byte) for byte in words[-1]) + f":{int(port, 16)}"
    whole = b"".join(words).hex()
    return "[" + ":".join(whole[i : i + 4] for i in range(0, 32, 4)) + f"]:{int(port, 16)}"


def _python_descriptors() -> set[int]:
    import gc
    import socket

    return {item.fileno() for item in gc.get_objects() if isinstance(item, socket.socket)}


def _watch_pyarrow(module: "ModuleType") -> None:
    """Watch what file systems pyarrow's readers are given, or make of a URL, pandas' own among them."""
    import functools

    local = (module.LocalFileSystem, module.PyFileSystem)

    def watched(original: "Callable[..., Any]") -> "Callable[..., Any]":
        @functools.wraps(original)
        def resolve(*args: "Any", **kwargs: "Any") -> "Any":
            result = original(*args, **kwargs)
            fs = result[0] if isinstance(result, tuple) else result
            if isinstance(fs, module.SubTreeFileSystem):
                fs = fs.base_fs
            if isinstance(fs, module.FileSystem) and not isinstance(fs, local):
                note("pyarrow", "give it filesystem=fsspec.filesystem(...), and pandas storage_options={}")
            return result

        return resolve

    for name in ("_ensure_filesystem", "_resolve_filesystem_and_path"):
        if callable(getattr(module, name, None)):
            setattr(module, name, watched(getattr(module, name)))


def _watch_polars(module: "ModuleType") -> None:
    """Watch what polars is given to read, if it is a URL."""

    def is_remote(source: "Any") -> bool:
        first = source[0] if isinstance(source, list) and source else source
        return isinstance(first, str) and "://" in first and not first.startswith("file:")

    for name in _POLARS:
        _watch(module, name, is_remote, ("polars", _FSSPEC))


def _watch_obstore(module: "ModuleType") -> None:
    """Watch what its file objects are opened of; what its functions return is hooked."""

    def is_remote(store: "Any") -> bool:
        # Its file system of fsspec's kind is hooked like any other.
        return "obstore.fsspec" not in sys.modules and type(store).__name__ not in {"LocalStore", "MemoryStore"}

    for name in ("open_reader", "open_reader_async"):
        _watch(module, name, is_remote, ("obstore", "read by get, get_range or get_ranges"))


def _watch(module: "ModuleType", name: str, is_remote: "Callable[[Any], bool]", library: tuple[str, str]) -> None:
    """Note a library where a function of it is called with a first argument that is remote."""
    import functools

    original = getattr(module, name, None)
    if not callable(original):
        return

    @functools.wraps(original)
    def watched(*args: "Any", **kwargs: "Any") -> "Any":
        if is_remote(args[0] if args else next(iter(kwargs.values()), None)):
            note(*library)
        return original(*args, **kwargs)

    setattr(module, name, watched)


def _watch_botocore(module: "ModuleType") -> None:
    """Watch the objects that boto3's clients get; those of aiobotocore, which s3fs has, are other classes."""
    import functools

    call = module.BaseClient._make_api_call  # noqa: SLF001 - where all calls pass

    @functools.wraps(call)
    def make_api_call(self: "Any", operation_name: str, api_params: "Any") -> "Any":
        if operation_name == "GetObject":
            note("boto3", "use s3fs")
        return call(self, operation_name, api_params)

    module.BaseClient._make_api_call = make_api_call  # noqa: SLF001 - as above


# By the module that is watched, once it has been imported.
WATCHED = {
    "pyarrow.fs": _watch_pyarrow,
    "polars": _watch_polars,
    "obstore": _watch_obstore,
    "botocore.client": _watch_botocore,
}
