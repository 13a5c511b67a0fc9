"""A profile as tables for other programs: CSV, Parquet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TextIO

from jcache.profile.format import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcache.profile.reader import Profile

__all__ = ["COLUMNS", "to_csv", "to_parquet"]

COLUMNS = (
    "process",
    "thread",
    "start_us",
    "duration_us",
    "kind",
    "url",
    "offsets",
    "lengths",
    "hit_bytes",
    "miss_bytes",
    "bypass_bytes",
    "ahead_bytes",
)
"""Of both; times are in microseconds since the first process of the run began."""

_ROWS = 1 << 16


def _rows(profile: Profile) -> Iterator[tuple[Any, ...]]:
    for process, one in profile.requests():
        lengths = [stop - start for start, stop in zip(one.starts, one.stops, strict=True)]
        yield (
            process,
            one.thread,
            max(one.end_us - one.duration_us, 0),
            one.duration_us,
            KINDS[one.kind],
            profile.files[one.file],
            list(one.starts),
            lengths,
            one.hit,
            one.miss,
            one.bypass,
            one.ahead,
        )


def to_csv(profile: Profile, file: TextIO) -> int:
    """Write a line for each request, those of all processes in the order of their ends; return how many.

    Offsets and lengths of a request's ranges are separated by semicolons.

    Raises:
        ProfileError: A profile cannot be read.
        OSError: The file does not take it.
    """
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for row in _rows(profile):
        writer.writerow([";".join(map(str, cell)) if isinstance(cell, list) else cell for cell in row])
        count += 1
    return count


def to_parquet(profile: Profile, path: str) -> int:
    """Write a row for each request, as `to_csv` does, with ranges as lists; return how many.

    Raises:
        ProfileError: A profile cannot be read.
        OSError: The file cannot be written.
        ModuleNotFoundError: There is no pyarrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole, numbers, text = pa.int64(), pa.list_(pa.int64()), pa.dictionary(pa.int32(), pa.string())
    types = {
        "process": pa.int32(),
        "thread": pa.int32(),
        "kind": text,
        "url": text,
        "offsets": numbers,
        "lengths": numbers,
    }
    schema = pa.schema([(name, types.get(name, whole)) for name in COLUMNS])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[tuple[Any, ...]] = []

        def write() -> None:
            columns = list(zip(*waiting, strict=True)) or [()] * len(COLUMNS)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        for row in _rows(profile):
            waiting.append(row)
            count += 1
            if len(waiting) >= _ROWS:
                write()
        write()
    return count
