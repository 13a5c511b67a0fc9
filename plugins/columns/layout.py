"""The columns of a file, by its own metadata, whichever format it is of."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from jcache.ranges import Range, normalise, subtract, total

__all__ = ["ColumnError", "Layout", "Use", "layout_in", "layout_of"]

# What files begin with, and which module reads the columns of such a file.
_FORMATS = {b"root": "root", b"PAR1": "parquet", b"\x89HDF": "hdf5"}


class ColumnError(Exception):
    """The columns of a file cannot be told; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Use:
    """What was read of one column: bytes, of how many, in how many pieces."""

    read_bytes: int
    size_bytes: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a file lie.

    Attributes:
        columns: The run of each column's bytes, by its name as the file's own library has it.
        gap_bytes: What lies between two ranges and is no longer than this, that library reads with them.
    """

    columns: Mapping[str, Sequence[Range]]
    gap_bytes: int = 0

    def used(self, read: Sequence[Range]) -> dict[str, Use]:
        """Return what was read of each column of which anything was; of what is no column as "".

        Args:
            read: A run of what was read of the file.
        """
        uses: dict[str, Use] = {}
        rest = list(read)
        for name, ranges in self.columns.items():
            common = subtract(ranges, subtract(ranges, read))
            if common:
                uses[name] = Use(total(common), total(ranges), len(common))
                rest = subtract(rest, ranges)
        if rest:
            uses[""] = Use(total(rest), total(rest), len(rest))
        return uses

    def matching(self, patterns: Iterable[str]) -> list[Range]:
        """Return the run of the bytes of those columns that any pattern matches, by name or by its last part.

        With what lies between them, as far as whoever reads them all at once reads that, too.
        """
        wanted = normalise(
            part
            for name, ranges in self.columns.items()
            if any(fnmatchcase(word, pattern) for pattern in patterns for word in (name, name.rpartition("/")[2]))
            for part in ranges
        )
        between = [
            (stop, start) for (_, stop), (start, _) in itertools.pairwise(wanted) if start - stop <= self.gap_bytes
        ]
        return normalise([*wanted, *between])


def layout_of(fs: Any, path: str) -> Layout:
    """Return where the columns of a file lie; it has none where it is of no format that has any.

    Args:
        fs: The file system that has it.
        path: As that takes it.

    Raises:
        ColumnError: The library that reads its format is not installed, or cannot read it.
        OSError: The file cannot be read.
    """
    url = fs.unstrip_protocol(path)
    return _layout(fs.cat_file(path, start=0, end=4), url, lambda module: module.of_path(fs, path))


def layout_in(file: Any, url: str) -> Layout:
    """Return what `layout_of` does, of a file that is open; it raises the same.

    Args:
        file: A binary file, at its beginning.
        url: Its address, for messages.
    """
    begin = file.read(4)
    file.seek(0)
    return _layout(begin, url, lambda module: module.of_file(file))


def _layout(begin: bytes, url: str, read: Callable[[Any], dict[str, list[Range]]]) -> Layout:
    kind = _FORMATS.get(begin)
    if kind is None:
        return Layout({})
    try:
        module: Any = import_module(f"jcache_plugins.columns.{kind}")
    except ModuleNotFoundError as error:
        raise ColumnError(f"the columns of {url} are read with the Python package '{error.name}'") from None
    try:
        found = read(module)
    except OSError:
        raise
    except Exception as error:
        raise ColumnError(f"{url}: {type(error).__name__}: {error}".partition("\n")[0]) from error
    return Layout({name: normalise(ranges) for name, ranges in found.items()}, module.GAP_BYTES)
