"""Columns of Parquet, by pyarrow."""

from typing import Any

import pyarrow.parquet

from jcache.ranges import Range

__all__ = ["GAP_BYTES", "of_file", "of_path"]

GAP_BYTES = 0


def of_path(fs: Any, path: str) -> dict[str, list[Range]]:
    """Return what `of_file` does."""
    with fs.open(path, "rb") as file:
        return of_file(file)


def of_file(file: Any) -> dict[str, list[Range]]:
    """Return the byte ranges of column chunks, by the path in the schema: `a`, or `a.list.element`."""
    columns: dict[str, list[Range]] = {}
    metadata = pyarrow.parquet.ParquetFile(file).metadata
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            start = min(at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at)
            columns.setdefault(chunk.path_in_schema, []).append((start, start + chunk.total_compressed_size))
    return columns
