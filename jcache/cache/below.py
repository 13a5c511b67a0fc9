"""What a cache directory has of an object, for the journal of a directory above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcache.cache.owners import owner_of
from jcache.journal.segments import Segments
from jcache.naming import layout
from jcache.segment.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jcache.cache.directory import Cache
    from jcache.journal.journal import Below
    from jcache.naming.identity import Identity

__all__ = ["may_have", "segments_at", "segments_of"]


def segments_of(cache: Cache, identity: Identity, *, asker: bool) -> Below:
    """Return what gives the segments of an object, which may be one of the asker's own."""
    if not owner_of(identity, asker=asker):
        return segments_at(cache, identity.parts)
    # Each directory has a key of its own, which is read where it may take its time.
    return lambda _name, tier: _Owned(cache, identity, tier, asker=asker)


def segments_at(cache: Cache, parts: tuple[bytes, ...]) -> Below:
    """Return what gives the segments of an object that has a place, for a journal of its name."""
    return lambda name, tier: Segments(cache.storage, _directory(cache, parts), name, tier=tier)


def may_have(cache: Cache, identity: Identity, answers: Iterable[tuple[bytes, ...]]) -> bool:
    """Whether there may be anything of a path, of what is below it, or in the journals of answers that are given."""
    above, name = identity.below[:-1], identity.below[-1:]
    if not name or layout.LONG in above:
        return True
    if any(cache.storage.is_there(cache.place(parts)) for parts in answers):
        return True
    try:
        return any(layout.is_variant(other, name[0]) for other in cache.names(cache.place(above)))
    except OSError:
        return True


def _directory(cache: Cache, parts: tuple[bytes, ...]) -> Directory:
    return Directory(cache.storage, cache.place(parts), dir_mode=cache.dir_mode, file_mode=cache.file_mode)


class _Owned(Segments):
    """Those of an object that is one asker's own: under which name, its directory's key decides."""

    __slots__ = ("_asker", "_cache", "_object")

    def __init__(self, cache: Cache, identity: Identity, tier: int, *, asker: bool) -> None:
        super().__init__(cache.storage, _directory(cache, identity.parts), "", tier=tier)
        self._cache, self._object, self._asker = cache, identity, asker

    def look(self) -> bool:
        """See `Segments`."""
        if not self._identity:
            if not self._cache.has_owned:
                return False
            stored = self._cache.stored(self._object, asker=self._asker)
            self._directory, self._identity = _directory(self._cache, stored.parts), stored.key
        return super().look()
