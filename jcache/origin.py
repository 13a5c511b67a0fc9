"""What a remote file system must offer to be cached: its version, and byte ranges of one proved version.

An I/O stack implements `Origin` for one remote file. The reader above it knows no protocol; how a version is
proved (a conditional request, a stat behind the bytes) is the origin's own business.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from jcache.errors import OriginChangedError
from jcache.journal import Version
from jcache.naming.identity import Identity

__all__ = [
    "Fetched",
    "Info",
    "Origin",
    "OriginRange",
    "Sharing",
    "is_immutable",
    "is_out_of_reach",
    "renew",
    "retry_after",
]

Sharing = Literal["all", "asker", "nobody"]
"""For whom a file is that the origin gave: for all who ask for it, for who asked, or for nobody to keep."""

# Half-open [start, stop) in bytes; a stop of None means the end of the file, for asking before the size is known.
OriginRange = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Info:
    """A file's version, and what else its file system says of it.

    Attributes:
        version: Size in bytes and the strongest validators that the origin gave.
        details: The file system's own `info` dictionary; what JSON cannot hold is dropped when it is stored.
        sharing: For whom it is.
        also: What the origin called this version when it was asked in another way, which is not asked any more.
    """

    version: Version
    details: Mapping[str, Any] = field(default_factory=dict)
    sharing: Sharing = "all"
    also: Version | None = None


class Fetched(NamedTuple):
    """The answer to one vectored request.

    Attributes:
        data: For each range asked, its bytes (short only at the end of the file) or the exception it met.
        info: The one version that all the bytes are proved to be of; None where the origin cannot prove any.
        recordable: False where a later change could not be told from this version (an mtime in whole seconds
            that was still the current second when the bytes were read).
        requests: Requests sent to the origin for the bytes.
        retries: How many of them were sent again after a failure.
    """

    data: list[bytes | Exception]
    info: Info | None
    recordable: bool = True
    requests: int = 1
    retries: int = 0


class Origin(Protocol):
    """One remote file at its origin."""

    @property
    def identity(self) -> Identity:
        """Which object this is, whoever asks for it."""
        ...

    async def stat(self) -> Info:
        """Ask the origin for the file's version now.

        Returns:
            The version and the file system's `info`.

        Raises:
            Exception: Whatever the plain file system raises, FileNotFoundError first of all.
        """
        ...

    async def fetch(
        self, ranges: Sequence[OriginRange], *, known: Info | None, arrived: Callable[[], None] | None = None
    ) -> Fetched:
        """Fetch byte ranges in one vectored request.

        Args:
            ranges: What to fetch, in bytes, in any order, disjoint.
            known: The version that the caller has bytes of. Where the protocol has conditional requests the
                bytes are asked for under that condition.
            arrived: To be called once all bytes are here, where their proof takes longer: the wire is free for what
                comes next. What is returned is proved, as ever.

        Returns:
            The bytes and the version that they are proved to be of.

        Raises:
            OriginChangedError: The file is not of the known version, or changed while the ranges were read.
            Exception: Whatever the plain file system raises for the whole request.
        """
        ...


def is_immutable(origin: Origin) -> bool:
    """Whether what an origin names can have no other version, ever: what is recorded of it needs no validation."""
    return getattr(origin, "immutable", False)


def retry_after(origin: Origin, error: Exception, *, met: bool) -> float | None:
    """Return after how many seconds a request that failed may be sent again; None where that is of no use.

    Args:
        origin: Whose request it was.
        error: What it raised.
        met: Whether the origin's server has answered this process before.
    """
    if isinstance(error, OriginChangedError):
        return None
    judge: Callable[..., float | None] | None = getattr(origin, "retry_after", None)
    return None if judge is None else judge(error, met=met)


async def renew(origin: Origin, error: Exception) -> bool:
    """Whether credentials of which an error says that they are none have been replaced, and the new ones are good.

    Args:
        origin: Whose request it was.
        error: What it raised.
    """
    renewing: Callable[[Exception], Awaitable[bool]] | None = getattr(origin, "renew", None)
    return renewing is not None and await renewing(error)


async def is_out_of_reach(origin: Origin) -> bool:
    """Whether it is known, sooner than by a request, that nobody can be asked for this file."""
    reaches: Callable[[], Awaitable[bool]] | None = getattr(origin, "reaches", None)
    return reaches is not None and not await reaches()
