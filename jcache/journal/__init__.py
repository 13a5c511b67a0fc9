"""The journal: segments with one writer each, and their merged view. `docs/format.md` describes the bytes."""

from jcache.journal.errors import DamagedExtent, JournalError
from jcache.journal.journal import Journal, StoredVersion
from jcache.journal.version import Version
from jcache.journal.view import Part, View

__all__ = ["DamagedExtent", "Journal", "JournalError", "Part", "StoredVersion", "Version", "View"]
