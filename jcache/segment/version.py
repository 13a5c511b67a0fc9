"""Which state of a remote file some bytes belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoredVersion", "Version"]

_MOST = 1 << 63  # beyond that no file system has sizes, and no calendar nanoseconds


class Version(NamedTuple):
    """One state of a remote file, as far as its origin tells states apart.

    Attributes:
        size_bytes: Size of the file.
        mtime_ns: Modification time in nanoseconds since the epoch, or None where the origin has none.
        etag: The origin's entity tag, quotes included, or None.
        checksum: The origin's checksum of the whole content with its algorithm (`adler32:1c0f...`), or None.
    """

    size_bytes: int
    mtime_ns: int | None = None
    etag: str | None = None
    checksum: str | None = None

    def same_as(self, other: Version) -> bool:
        """Tell whether both are provably one state of the file.

        The strongest field that both have decides (checksum, then ETag, then modification time), exactly: no tolerance.
        Two versions that share no field beyond the size are not the same, because nothing says that they are.

        Args:
            other: The version to compare with.

        Returns:
            True if bytes of one may be served for the other.
        """
        if self.size_bytes != other.size_bytes:
            return False
        if self.checksum is not None and other.checksum is not None:
            return self.checksum == other.checksum
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag
        if self.mtime_ns is not None and other.mtime_ns is not None:
            return self.mtime_ns == other.mtime_ns
        return False

    def tells_from(self, other: Version) -> bool | None:
        """Tell whether the other one is another state: None where nothing beyond the size is told of one of them."""
        if self.size_bytes != other.size_bytes:
            return True
        if self.same_as(other) or not (self.is_provable or other.is_provable):
            return False
        shared = any(
            mine is not None and theirs is not None
            for mine, theirs in (
                (self.checksum, other.checksum),
                (self.etag, other.etag),
                (self.mtime_ns, other.mtime_ns),
            )
        )
        return True if shared else None

    def says_more_than(self, other: Version) -> bool:
        """Tell whether this version has a stronger field than the other's strongest."""
        if self.checksum is not None:
            return other.checksum is None
        return self.etag is not None and other.checksum is None and other.etag is None

    @property
    def is_provable(self) -> bool:
        """Whether there is anything beyond the size that could tell two states apart."""
        return self.checksum is not None or self.etag is not None or self.mtime_ns is not None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known, for `from_json`."""
        fields = {
            "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns,
            "etag": self.etag,
            "checksum": self.checksum,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Version:
        """Rebuild a version from what `to_json` returned.

        Args:
            fields: The mapping; unknown members are ignored.

        Raises:
            ValueError: A member is missing or of the wrong type.
        """
        size, mtime = fields.get("size_bytes"), fields.get("mtime_ns")
        etag, checksum = fields.get("etag"), fields.get("checksum")
        # bool is an int to isinstance, and never what was written.
        if type(size) is not int or not 0 <= size < _MOST:
            raise ValueError(f"version without a size: {fields!r}")
        if mtime is not None and (type(mtime) is not int or abs(mtime) >= _MOST):
            raise ValueError(f"mtime_ns is no integer: {mtime!r}")
        if not isinstance(etag, str | None) or not isinstance(checksum, str | None):
            raise ValueError(f"etag and checksum are strings: {fields!r}")
        return cls(size, mtime, etag, checksum)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A state of the file of which the journal holds something.

    Attributes:
        version: The state.
        info: What the origin said of the file when a segment of it was begun.
        validated_ns: When it was last known to be the origin's, as far as the modification times of its segments tell:
            for people, nothing hangs on it. Nanoseconds since the epoch.
        age_s: How long ago it was known to be the origin's on this machine, in seconds; None where it was not.
    """

    version: Version
    info: Mapping[str, Any]
    validated_ns: int
    age_s: float | None = field(default=None, compare=False)
