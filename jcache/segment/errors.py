"""What can go wrong with a journal. Everything here means "ask the origin instead", never "the read failed"."""

from __future__ import annotations

__all__ = ["DamagedExtent", "JournalError", "LostSegment", "UnusableSegment"]


class JournalError(Exception):
    """The journal cannot do what was asked; the origin still can.

    Attributes:
        errno: The error number that the file system gave, or None.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class DamagedExtent(JournalError):  # noqa: N818  # what was found, not what failed
    """Bytes on disk are not the bytes that were recorded. They are forgotten: the next `find` reports a gap."""


class LostSegment(JournalError):  # noqa: N818  # as above
    """A segment that was closed meanwhile cannot be opened again: it was removed, most likely, and is forgotten."""


class UnusableSegment(JournalError):  # noqa: N818  # as above
    """A file in the journal's directory that is not a segment of this journal, or no longer one."""
