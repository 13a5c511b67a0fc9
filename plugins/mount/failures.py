"""With which error number a call of the kernel's ends that could not be answered."""

import asyncio
import errno
import re

from jcache.errors import OfflineMissError, OriginChangedError
from jcache_plugins.fsspec.answers import Absent

__all__ = ["errno_of"]

# By HTTP's status, as clients of HTTP and of object stores carry it; what an origin answers besides is EIO.
_BY_STATUS = {
    401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 407: errno.EACCES, 408: errno.ETIMEDOUT,
    410: errno.ENOENT, 412: errno.ESTALE, 504: errno.ETIMEDOUT,
}  # fmt: skip
# By the code of an XRootD server's error (its protocol's), which fsspec-xrootd has in the text of its errors only.
_XROOTD = re.compile(r"\[(30\d\d)\]")
_BY_XROOTD = {"3010": errno.EACCES, "3011": errno.ENOENT, "3016": errno.EISDIR}
# What its client says where there was no answer.
_XROOTD_TIMES_OUT = re.compile(r"operation expired|timed? ?out", re.IGNORECASE)
# What a program makes sense of where it reads a file; other numbers are of the connection, or of the cache.
_MEANT = frozenset({
    errno.EACCES, errno.EHOSTUNREACH, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENOTEMPTY, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY,
})  # fmt: skip
_UNREACHABLE = frozenset({
    errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip


def errno_of(error: BaseException) -> int:
    """Return the error number for an error, whichever library raised it.

    That a file is not there is only said where the origin said so: a program makes much of it. Nobody answered, the
    name is not known, or nothing listens there: EHOSTUNREACH. There was no answer in time: ETIMEDOUT. The file was
    replaced while it was read: ESTALE. What is not cached and must not be asked for, and all else: EIO.
    """
    if isinstance(error, OriginChangedError):
        return errno.ESTALE
    if isinstance(error, OfflineMissError):
        return errno.EIO
    if isinstance(error, UnicodeError):  # a name that the origin can have none of
        return errno.ENOENT
    cause = error.__cause__
    if isinstance(error, FileNotFoundError):
        # HTTP's file system makes one of any trouble that it meets.
        return errno.ENOENT if Absent.of(error) is not None or cause is None else errno_of(cause)
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _BY_STATUS.get(status, errno.EIO)
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return errno.ETIMEDOUT
    if not isinstance(error, OSError):
        return errno.EIO
    return _of_system(error)


def _of_system(error: OSError) -> int:
    """Return the number for an error of the operating system's kind, which others derive theirs from."""
    for kind, number in ((PermissionError, errno.EACCES), (IsADirectoryError, errno.EISDIR)):
        if isinstance(error, kind):
            return number
    if isinstance(error, NotADirectoryError):
        return errno.ENOTDIR
    if error.errno in _MEANT:
        return error.errno
    named = type(error).__name__
    if error.errno in _UNREACHABLE or named in {"gaierror", "ClientConnectorError", "ClientConnectorDNSError"}:
        return errno.EHOSTUNREACH
    text = str(error)
    code = _XROOTD.search(text)
    if code is not None:
        return _BY_XROOTD.get(code[1], errno.EIO)
    return errno.ETIMEDOUT if _XROOTD_TIMES_OUT.search(text) else errno.EIO
