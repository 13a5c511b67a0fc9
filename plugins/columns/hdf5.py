"""Data sets of HDF5, by h5py."""

from typing import Any

import h5py

from jcache.ranges import Range

__all__ = ["GAP_BYTES", "of_file", "of_path"]

GAP_BYTES = 0


def of_path(fs: Any, path: str) -> dict[str, list[Range]]:
    """Return what `of_file` does."""
    with fs.open(path, "rb") as file:
        return of_file(file)


def of_file(remote: Any) -> dict[str, list[Range]]:
    """Return the byte ranges of chunks, by the path of their data set."""
    columns: dict[str, list[Range]] = {}

    def look(name: str, node: object) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        ranges = columns.setdefault(name, [])
        if node.chunks is None:
            at = node.id.get_offset()
            if at is not None:
                ranges.append((at, at + node.id.get_storage_size()))
            return
        for number in range(node.id.get_num_chunks()):
            chunk = node.id.get_chunk_info(number)
            ranges.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

    with h5py.File(remote, "r") as file:
        file.visititems(look)
    return columns
