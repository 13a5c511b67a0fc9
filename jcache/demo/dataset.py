"""Write the demonstration's data set: NanoAOD-like files, as TTree or RNTuple, from nothing but a seed."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Literal

import awkward as ak
import numpy as np
import uproot

from jcache.demo.schema import COLLECTIONS, Collection, event_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Format = Literal["ttree", "rntuple"]

CLUSTER_EVENTS = 2500
# Part of the manifest: change it when the same recipe writes other bytes.
_WRITER = 1
_MANIFEST = "manifest.json"
_WORKERS = 2
# NanoAOD keeps ten bits of a float's mantissa; the zeros are what makes it compress.
_MANTISSA_MASK = np.uint32(0xFFFFE000)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one file holds.

    Attributes:
        events: Number of events.
        format: How ROOT stores them.
        seed: Equal recipes give equal values.
    """

    name: str
    events: int
    format: Format
    seed: int


def recipes(*, files: int, events: int, formats: Literal["ttree", "rntuple", "both"]) -> list[Recipe]:
    """Return the recipes of a data set; with ``both`` the last file is an RNTuple and the others are TTrees."""
    made = []
    for index in range(files):
        rntuple = formats == "rntuple" or (formats == "both" and index == files - 1)
        made.append(Recipe(f"ttbar_{index}.root", events, "rntuple" if rntuple else "ttree", index))
    return made


def write(directory: Path, wanted: list[Recipe]) -> Iterator[Recipe]:
    """Write a data set, two files at a time, and yield each recipe when its file is there.

    A directory that already holds exactly this data set is left as it is. Files appear under their names only when they
    are whole.

    Raises:
        OSError: The directory cannot be written.
    """
    manifest = directory / _MANIFEST
    text = json.dumps({"writer": _WRITER, "files": [asdict(recipe) for recipe in wanted]}, indent=1)
    if manifest.exists() and manifest.read_text() == text and all((directory / r.name).exists() for r in wanted):
        yield from wanted
        return
    manifest.unlink(missing_ok=True)
    # Spawned: the parent may have threads (progress, servers), which do not survive a fork.
    with ProcessPoolExecutor(min(_WORKERS, len(wanted)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(write_file, directory, recipe): recipe for recipe in wanted}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    manifest.write_text(text)


def write_file(directory: Path, recipe: Recipe) -> None:
    """Write one file of the data set."""
    rng = np.random.default_rng(recipe.seed)
    partial = directory / f".{recipe.name}.part"
    with uproot.recreate(partial, compression=uproot.ZSTD(3)) as file:
        target: Any = None
        for first in range(0, recipe.events, CLUSTER_EVENTS):
            count = min(CLUSTER_EVENTS, recipe.events - first)
            columns = _cluster(rng, first, count, flat=recipe.format == "rntuple")
            if target is not None:
                target.extend(columns)
            elif recipe.format == "rntuple":
                target = file.mkrntuple("Events", columns)
            else:
                types = {
                    name: column.dtype if isinstance(column, np.ndarray) else column.type
                    for name, column in columns.items()
                }
                target = file.mktree("Events", types)
                target.extend(columns)
    partial.chmod(0o644)
    partial.rename(directory / recipe.name)


def _cluster(rng: np.random.Generator, first: int, count: int, *, flat: bool) -> dict[str, Any]:
    """Return the columns of some events.

    Args:
        rng: Source of all values.
        first: Number of the first event.
        count: Number of events.
        flat: Whether a collection's columns stand by themselves, beside a column of its lengths, or together in a
            record, for which uproot writes the lengths.
    """
    columns: dict[str, Any] = {}
    for name, kind in event_columns():
        columns[name] = (
            np.arange(first, first + count, dtype=np.uint64) if kind == "event" else _values(rng, kind, count)
        )
    for collection in COLLECTIONS:
        lengths = rng.poisson(collection.mean, count)
        offsets = ak.index.Index64(np.concatenate(([0], np.cumsum(lengths))))
        contents = _objects(rng, collection, int(lengths.sum()))
        if flat:
            columns[f"n{collection.name}"] = lengths.astype(np.uint32)
            for name, values in contents.items():
                content = ak.contents.NumpyArray(values)
                columns[f"{collection.name}_{name}"] = ak.Array(ak.contents.ListOffsetArray(offsets, content))
        else:
            record = ak.contents.RecordArray([ak.contents.NumpyArray(v) for v in contents.values()], list(contents))
            columns[collection.name] = ak.Array(ak.contents.ListOffsetArray(offsets, record))
    return columns


def _objects(rng: np.random.Generator, collection: Collection, count: int) -> dict[str, NDArray[Any]]:
    return {name: _values(rng, kind, count) for name, kind in collection.columns}


def _values(rng: np.random.Generator, kind: str, count: int) -> NDArray[Any]:  # one line for each kind
    match kind:
        case "pt":
            return _rounded(15 + rng.exponential(35, count))
        case "eta":
            return _rounded(rng.normal(0, 1.5, count))
        case "phi":
            return _rounded(rng.uniform(-np.pi, np.pi, count))
        case "mass":
            return _rounded(rng.gamma(3, 3, count))
        case "sum":
            return _rounded(rng.gamma(2, 60, count))
        case "score":
            return _rounded(rng.beta(0.5, 0.7, count))
        case "small":
            return _rounded(rng.normal(0, 0.05, count))
        case "index":
            return (rng.poisson(0.4, count) - 1).astype(np.int32)
        case "id":
            return rng.poisson(2, count).astype(np.int32)
        case "count":
            return rng.poisson(3, count).astype(np.uint8)
        case "often":
            return rng.random(count, dtype=np.float32) < 0.7
        case "rare":
            return rng.random(count, dtype=np.float32) < 0.03
        case "const":
            return np.ones(count, dtype=np.int32)
        case _:
            raise AssertionError(kind)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (values.astype(np.float32).view(np.uint32) & _MANTISSA_MASK).view(np.float32)
