"""Which columns a recorded run read, of all its files together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from jcache.profile.reader import Profile
from jcache.profile.statistics import look_at
from jcache_plugins.columns.layout import Use, layout_of
from jcache_plugins.columns.zarr import array_of
from jcache_plugins.places import Places

__all__ = ["Share", "Shares", "shares_of"]


@dataclass(slots=True)
class Share:
    """What was read of a column. Sizes are in bytes.

    Attributes:
        name: Its name; empty for what is of no column.
        size_bytes: How long it is, in the files of which anything of it was read.
        pieces: In how many pieces it was read: baskets, pages, chunks, or parts of them.
    """

    name: str
    read_bytes: int = 0
    size_bytes: int = 0
    pieces: int = 0
    files: int = 0


@dataclass(slots=True)
class Shares:
    """Columns, the one of which most was read first; and files whose columns cannot be told, and why."""

    columns: list[Share]
    files: int
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        columns = [{name: getattr(one, name) for name in Share.__dataclass_fields__} for one in self.columns]
        return {"columns": columns, "files": self.files, "failed": self.failed}


def shares_of(
    profile: Profile,
    *,
    maps: Sequence[tuple[str, str]] = (),
    pattern: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Shares:
    """Return which columns a run read. The metadata of each of its files is read for that, but for chunks of zarr.

    Args:
        profile: The profile of the run.
        maps: Beginnings of addresses, and what stands in their place.
        pattern: Only files whose address this matches.
        progress: Is told how many files were looked at, and of how many.

    Raises:
        ProfileError: The profile cannot be read.
    """
    places = Places(maps)
    chosen = [one for one in look_at(profile, gaps=()).files if pattern is None or fnmatchcase(one.url, pattern)]
    places.queries = profile.queries
    found, shares, known = Shares([], 0), dict[str, Share](), set(profile.files)
    for number, one in enumerate(chosen):
        progress(number, len(chosen))
        if not one.union.pieces:
            continue
        array = array_of(one.url, known)
        if array is not None:
            uses = {array: Use(one.distinct_bytes, one.extent, len(one.union.pieces))}
            found.files += 1
            _add(shares, uses)
            continue
        try:
            layout = layout_of(*places.find(one.url))
        except Exception as error:  # noqa: BLE001 - whatever a file system makes of it; the others are looked at
            found.failed[one.url] = f"{error}".partition("\n")[0] or type(error).__name__
            continue
        found.files += 1
        _add(shares, layout.used(one.union.pieces))
    found.columns = sorted(shares.values(), key=lambda one: (-one.read_bytes, one.name))
    return found


def _add(shares: dict[str, Share], uses: Mapping[str, Use]) -> None:
    for name, use in uses.items():
        share = shares.setdefault(name, Share(name))
        share.read_bytes += use.read_bytes
        share.size_bytes += use.size_bytes
        share.pieces += use.pieces
        share.files += 1
