"""Branches of TTree, and fields of RNTuple, by uproot."""

from typing import Any

import uproot
from uproot.source.coalesce import DEFAULT_CONFIG

from jcache.ranges import Range

__all__ = ["GAP_BYTES", "of_file", "of_path", "of_tree"]

GAP_BYTES = DEFAULT_CONFIG.max_range_gap


def of_path(fs: Any, path: str) -> dict[str, list[Range]]:
    """Return what `of_file` does. The file is opened as a job does: what that reads to find its way is read here."""
    return of_file({fs.unstrip_protocol(path): None}, **dict(fs.storage_options or {}))


def of_file(source: Any, **options: Any) -> dict[str, list[Range]]:
    """Return the byte ranges of baskets and pages, by `tree/branch`, or `branch` where there is one tree only."""
    found: dict[str, dict[str, list[Range]]] = {}
    with uproot.open(source, **options) as file:
        for name, kind in file.classnames(cycle=False).items():
            if kind in {"ROOT::RNTuple", "TTree", "TNtuple", "TNtupleD"}:
                found[name] = of_tree(file[name])
    if len(found) == 1:
        return next(iter(found.values()))
    return {f"{tree}/{name}": ranges for tree, columns in found.items() for name, ranges in columns.items()}


def of_tree(tree: Any) -> dict[str, list[Range]]:
    """Return the byte ranges of a tree's baskets by branch, or of an n-tuple's pages by field."""
    return _fields(tree) if hasattr(tree, "page_link_list") else _branches(tree)


def _branches(tree: Any) -> dict[str, list[Range]]:
    columns = {}
    for name, branch in tree.iteritems(recursive=True):
        count = int(branch.member("fWriteBasket"))
        seeks, sizes = branch.member("fBasketSeek")[:count], branch.member("fBasketBytes")[:count]
        columns[name] = [
            (int(seek), int(seek) + int(size)) for seek, size in zip(seeks, sizes, strict=True) if seek and size
        ]
    return columns


def _fields(ntuple: Any) -> dict[str, list[Range]]:
    columns: dict[str, list[Range]] = {}
    names = [_name(ntuple, record.field_id) for record in ntuple.column_records]
    for cluster in ntuple.page_link_list:
        for name, pages in zip(names, cluster, strict=False):
            ranges = columns.setdefault(name, [])
            for page in pages.pages if hasattr(pages, "pages") else pages:
                where = page.locator
                # The checksum of a page lies behind it.
                ranges.append((where.offset, where.offset + where.num_bytes + (8 if page.has_checksum else 0)))
    return columns


def _name(ntuple: Any, field: int) -> str:
    """Return the name of the field at the top that a field is of."""
    records = ntuple.field_records
    while records[field].parent_field_id != field:
        field = records[field].parent_field_id
    name: str = records[field].field_name
    return name
