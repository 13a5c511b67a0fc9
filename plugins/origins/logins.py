"""As whom the XRootD client is known to a server: its connections, and credentials that were renewed meanwhile.

The client sends its token or proxy when it connects, and keeps the connection. A server that judges them at each
request refuses from the moment at which that one has expired, though another lies in its file. So who is refused looks
there, and if there is another one, has the client connect anew.
"""

import contextlib
import functools
import hashlib
import os
import pwd
import re
from typing import Any, ClassVar, Self

from XRootD import client

__all__ = ["Login", "by_connection", "is_refusal", "system_of"]

# What servers say (kXR_NotAuthorized, kXR_AuthFailed), and what the client makes of it. Errors have nothing but words.
_REFUSED = re.compile(r"\[3010\]|\[3030\]|\[FATAL\] Auth failed")
_FILES = ("BEARER_TOKEN_FILE", "X509_USER_PROXY", "XrdSecGSIUSERPROXY")
_DEFAULTS = ("bt_u", "x509up_u")
# More than there are connections at a time.
_APART = 100


class Login:
    """As whom this process is known to one server.

    Attributes:
        count: How often it has logged in with other credentials.
    """

    _known: ClassVar[dict[str, "Login"]] = {}

    def __init__(self) -> None:
        self.count = 0
        self._held = held()
        self._tried, self._tries = self._held, 0

    @classmethod
    def of(cls, fs: Any) -> Self:
        """Return that of a file system's server."""
        known: Any = cls._known.get(fs.hostid) or cls._known.setdefault(fs.hostid, cls())
        return known  # type: ignore[no-any-return]  # it is one of these

    def numbers(self, connection: int) -> list[int]:
        """Return by which connections to ask, the first one that is not refused; with no second thoughts the first.

        The token that one more connection was made with may be worse than that of the first one, which goes on.
        """
        return list(dict.fromkeys((self.count * _APART + connection, self.count * _APART, 0)))

    def other(self, fs: Any) -> int | None:
        """Return the count of a login with what the client has by now; None where that is what it had."""
        now = held()
        if now == self._held or "@" in fs.hostid:  # a name that the user gives is his
            return None
        if now != self._tried:
            self._tried, self._tries = now, self._tries + 1
        return self._tries

    def use(self, count: int) -> None:
        """Have later requests made as who has logged in so often: the server takes those credentials."""
        if count > self.count:
            self.count = count
            if count == self._tries:
                self._held = self._tried

    def adopt(self, fs: Any) -> None:
        """Have a file system ask by the connection of the newest credentials, also for what is not cached."""
        if self.count:
            fs._myclient = system_of(fs, self.count)  # noqa: SLF001 - by which it asks


def system_of(fs: Any, count: int) -> Any:
    """Return what asks a file system's server as who has logged in so often with other credentials."""
    return client.FileSystem(by_connection(f"root://{fs.hostid}/", count * _APART))


def is_refusal(message: object) -> bool:
    """Whether an error, or the message of one, says that somebody may not."""
    return _REFUSED.search(str(message)) is not None


def held() -> str:
    """Return a hash of the tokens and proxies that the client would send now, in memory only."""
    where = [path for name in _FILES if (path := os.environ.get(name))]
    directories = [path for path in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp") if path]  # noqa: S108 - where it looks
    where += [os.path.join(path, f"{name}{os.geteuid()}") for path in directories for name in _DEFAULTS]
    state = hashlib.sha256(os.environ.get("BEARER_TOKEN", "").encode(errors="surrogateescape"))
    for path in where:
        state.update(b"\0")
        with contextlib.suppress(OSError), open(path, "rb") as file:
            state.update(file.read(1 << 20))
    return state.hexdigest()


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
