"""Arrays of zarr: each chunk is an object of its own, and its address says of which array it is."""

import re
from collections.abc import Collection

__all__ = ["array_of"]

# zarr v3 and v2 name chunks by their place: a/c/0/1, a/0.1, a/0/1; and shards likewise.
_CHUNK = re.compile(r"(?:/c)?/\d+(?:[./]\d+)*$|/c$")
# What there is beside the chunks of an array, or above, where it is all in one.
_BESIDE, _ABOVE = ("/.zarray", "/zarr.json"), ("/.zmetadata", "/zarr.json")


def array_of(url: str, known: Collection[str]) -> str | None:
    """Return the name of the array that an object is a chunk of; None where it is none.

    Args:
        url: The object's address.
        known: Addresses that were read, or asked for: an array's metadata are among them.
    """
    found = _CHUNK.search(url)
    if found is None:
        return None
    array = url[: found.start()]
    above = array
    names = [array + end for end in _BESIDE]
    while above.count("/") > 3:
        above = above.rpartition("/")[0]
        names += [above + end for end in _ABOVE]
    return array.rpartition("/")[2] if any(name in known for name in names) else None
