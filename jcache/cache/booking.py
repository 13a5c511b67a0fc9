"""What a command adds to a cache and removes, booked like what a job does, so that jobs know how much there is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jcache.cache import usage
from jcache.cache.books import Book, Head
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.cache.directory import Cache
    from jcache.cache.meter import MeteredStorage

__all__ = ["booked"]


@contextlib.contextmanager
def booked(cache: Cache, metered: MeteredStorage) -> Iterator[Callable[[], None]]:
    """Book all that goes through a storage until the end of the block; errors do not matter, the next walk measures.

    Args:
        cache: The cache, prepared.
        metered: What the command writes and removes through.

    Yields:
        What to call between the steps of a long work, for those who wait for room.
    """
    book = Book(
        Storage(cache.directory),
        usage.directory_of(cache.directory),
        dir_mode=cache.dir_mode,
        file_mode=cache.file_mode,
        sync=not cache.is_local,
    )

    def tell() -> None:
        added, removed = metered.tally()
        head = Head(added, removed)
        if head != book.head:
            with contextlib.suppress(OSError):
                book.claim(head)

    try:
        yield tell
    finally:
        tell()
        with contextlib.suppress(OSError):
            book.close(added_bytes=book.head.added_bytes, removed_bytes=book.head.removed_bytes)
