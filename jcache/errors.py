"""What JCache raises to the application: each one an OSError, so that code written for plain files handles it."""

__all__ = ["OfflineMissError", "OriginChangedError", "RestlessError", "ShortReadError"]


class OriginChangedError(OSError):
    """The remote file was replaced while this process read it; its old and new bytes are not mixed.

    Reading again starts over with the new version.
    """


class RestlessError(OriginChangedError):
    """The remote file is another one each time that its origin is asked; no byte of it was delivered."""


class OfflineMissError(OSError):
    """JCACHE_OFFLINE is set and the journal does not hold the bytes (or the file's size)."""


class ShortReadError(OSError):
    """The origin answered with fewer bytes than the file has there."""
