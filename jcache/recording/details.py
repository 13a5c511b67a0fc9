"""What of a file system's `info` may be written to disk."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["storable"]

# Of what a file system's `info` says besides the version.
DETAILS_BYTES = 8 << 10


def storable(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a file system's `info` what may be written to disk: JSON, of bounded size, and no address.

    Addresses may have passwords or signatures in them, those that a server redirected to as well. Of the file's own
    name its place is kept, where that is not the first.
    """
    kept: dict[str, Any] = {}
    room = DETAILS_BYTES
    for name, value in details.items():
        if name == "name" and kept:
            kept[name] = None
        if name in {"name", "url"}:
            continue
        try:
            text = json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            continue
        if "://" not in text and len(text) <= room:
            kept[name] = value
            room -= len(text)
    return kept
