"""What pyxrootd answers with: statuses, and its objects as plain values and back."""

import stat
import time
from collections.abc import Sequence
from typing import Any

from XRootD.client.flags import StatInfoFlags
from XRootD.client.responses import DirectoryList, StatInfo, VectorReadInfo, XRootDStatus

from jcache.errors import OfflineMissError
from jcache.journal import Version
from jcache.origin import Info

__all__ = [
    "as_listing",
    "as_status",
    "as_vector",
    "details_of",
    "expired",
    "is_said",
    "listing_of",
    "refused",
    "stat_of",
    "success",
    "version_in",
]

# The client's own numbers: what it exits with, an error of the system's, and data that is not what it should be.
SHELL_CODE, OS_ERROR, DATA_ERROR, ERROR_RESPONSE = 50, 12, 14, 400
NOT_FOUND = 3011


def success() -> XRootDStatus:
    """Return the status of a request that went well."""
    return as_status({
        "status": 0, "code": 0, "errno": 0, "message": "[SUCCESS] ", "shellcode": 0,
        "error": False, "fatal": False, "ok": True,
    })  # fmt: skip


def refused(error: Exception) -> XRootDStatus:
    """Return the status of what JCache itself refuses."""
    code = OS_ERROR if isinstance(error, OfflineMissError) else DATA_ERROR
    return as_status({
        "status": 1, "code": code, "errno": 0, "message": f"[ERROR] {error}", "shellcode": SHELL_CODE,
        "error": True, "fatal": False, "ok": False,
    })  # fmt: skip


def expired() -> XRootDStatus:
    """Return the status of a request that took too long."""
    return as_status({
        "status": 1, "code": 206, "errno": 0, "message": "[ERROR] Operation expired", "shellcode": 52,
        "error": True, "fatal": False, "ok": False,
    })  # fmt: skip


def as_status(fields: dict[str, Any]) -> XRootDStatus:
    """Return a status."""
    return XRootDStatus(dict(fields))


def is_said(status: XRootDStatus) -> bool:
    """Whether a server has said something of a name: what it is, or that it is not there."""
    return bool(status.ok) or (status.code == ERROR_RESPONSE and getattr(status, "errno", 0) == NOT_FOUND)


def as_vector(chunks: Sequence[tuple[int, int]], rows: Sequence[bytes]) -> VectorReadInfo:
    """Return what a vector read gives, of chunks (offset, length) and their bytes."""
    found = [
        {"offset": offset, "length": length, "buffer": row} for (offset, length), row in zip(chunks, rows, strict=True)
    ]
    return VectorReadInfo({"size": sum(map(len, rows)), "chunks": found})


# -- infos --------------------------------------------------------------------------------------------------------


def version_in(told: Any) -> Version:
    """Return the version that a `StatInfo`, or the fields of one, tells."""
    fields = told if isinstance(told, dict) else vars(told)
    return Version(fields["size"], mtime_ns=int(fields["modtime"]) * 10**9)


def details_of(path: str, told: StatInfo, mode: Any) -> dict[str, Any]:
    """Return what fsspec-xrootd's `info` makes of a `StatInfo` of a file.

    Args:
        path: As fsspec-xrootd takes it.
        told: What the server said.
        mode: What makes a mode of flags; None where that version of fsspec-xrootd has none.
    """
    details = {"name": path, "size": told.size, "type": "file", "mtime": told.modtime}
    if mode is not None:
        times = {"atime": told.modtime, "ctime": told.modtime}
        details |= {"mode": mode(told.flags), "uid": 0, "gid": 0, "nlink": 1, **times}
    return details


def stat_of(info: Info, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of a `StatInfo` of a version.

    Args:
        info: The version, and what fsspec-xrootd's `info` says of it.
        known: Those that the server told of this or of another version.
    """
    size, modified = info.version.size_bytes, (info.version.mtime_ns or 0) // 10**9
    if known is not None and (known["size"], known["modtime"]) == (size, modified):
        return known
    mode = info.details.get("mode", stat.S_IRUSR)
    flags = (StatInfoFlags.IS_READABLE if mode & 0o444 else 0) | (StatInfoFlags.IS_WRITABLE if mode & 0o222 else 0)
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(modified))
    fields = {
        "id": "0", "flags": flags, "ctime": modified, "atime": modified, "mode": f"{mode & 0o777:04o}",
        "modeoctstr": stat.filemode(mode)[1:], "owner": "", "group": "", "extended": False,
        "haschecksum": False, "checksum": "",
    }  # fmt: skip
    return {**fields, **(known or {}), "size": size, "mtime": modified, "modtime": modified, "modtimestr": when}


# -- listings -----------------------------------------------------------------------------------------------------


def listing_of(told: DirectoryList) -> list[Any]:
    """Return a listing as plain values: what is said of the directory, then its entries."""
    head = {name: value for name, value in vars(told).items() if name != "dirlist"}
    entries = []
    for entry in told.dirlist:
        info = entry.statinfo
        entries.append({**vars(entry), "statinfo": vars(info) if isinstance(info, StatInfo) else None})
    return [head, *entries]


def as_listing(values: list[Any]) -> DirectoryList:
    """Return the listing that `listing_of` made values of."""
    return DirectoryList({**values[0], "dirlist": [dict(entry) for entry in values[1:]]})
