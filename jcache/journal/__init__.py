"""The journal: segments with one writer each, and their merged view. `docs/format.md` describes the bytes."""

from jcache.journal.journal import Journal, StoredVersion
from jcache.journal.leases import Contended, Lease
from jcache.journal.turns import Sole, Turns
from jcache.segment.errors import DamagedExtent, JournalError, LostSegment
from jcache.segment.version import Version
from jcache.segment.view import Part, View

__all__ = [
    "Contended",
    "DamagedExtent",
    "Journal",
    "JournalError",
    "Lease",
    "LostSegment",
    "Part",
    "Sole",
    "StoredVersion",
    "Turns",
    "Version",
    "View",
]
