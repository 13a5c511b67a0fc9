"""What is read: files and patterns, made from nothing but a seed, once for each size."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OLD_S = 1_600_000_000  # a file of this very second would not be recorded

Vector = list[list[int]]

SEED_SHARE = 0.0644
SEED_RANGE = 580_000
SEED_VECTOR = 9
COLUMNS = ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_btagCSVV2", "Jet_mass", "Muon_pt", "Electron_pt"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each workload there is.

    Attributes:
        seed_bytes: Size of the file of which the seed pattern reads 6.44 %.
        peers: Whether the file and ranges of the peers' table are read whole or their first tenth.
        agc_files: Files of the analysis.
        agc_events: Events in each; 15,000 make 40 MB.
        tiny: Ranges of 100 bytes.
        extents: Extents of the journal that is attached to.
        stream_bytes: Size of the file that is read from front to back.
        objects: Small files.
    """

    seed_bytes: int
    peers_share: float
    agc_files: int
    agc_events: int
    tiny: int
    extents: int
    stream_bytes: int
    objects: int


SIZES = {
    "smoke": Size(40_000_000, 0.05, 1, 200, 3000, 20_000, 3 << 20, 60),
    "small": Size(1_000_000_000, 1.0, 2, 15_000, 100_000, 1_000_000, 32 << 20, 2000),
    "full": Size(1_000_000_000, 1.0, 4, 15_000, 1_000_000, 1_000_000, 128 << 20, 10_000),
}
WIDE_FILES, WIDE_BYTES, WIDE_COLUMNS, WIDE_CLUSTERS = 8, 40_000_000, 8, 8
TINY_BYTES, TINY_STEP, TINY_VECTOR = 100, 900, 1000
OBJECT_BYTES = 4096


def seed_vectors(size_bytes: int) -> list[Vector]:
    """The seed's slide: ranges of 0.58 MB, nine in a vector, forward and disjoint, 6.44 % of the file."""
    count = max(round(size_bytes * SEED_SHARE / SEED_RANGE), 2)
    return cut(scattered(size_bytes, [SEED_RANGE] * count, random.Random(644)), SEED_VECTOR)


def peers_vectors(size_bytes: int, share: float) -> list[Vector]:
    """What the peers were measured with: 63.0 MB in 124 ranges and 24 requests."""
    rng = random.Random(24)
    sizes = [rng.randint(350_000, 660_000) for _ in range(123)]
    sizes.append(63_000_000 - sum(sizes))
    sizes = sizes[: max(round(124 * share), 4)]
    return cut(scattered(size_bytes, sizes, rng), 5)


def scattered(size_bytes: int, lengths: list[int], rng: random.Random) -> Vector:
    step = size_bytes // len(lengths)
    ranges = []
    for i, length in enumerate(lengths):
        start = i * step + rng.randrange(max(step - length, 1))
        ranges.append([start, start + length])
    return ranges


def cut(ranges: Vector, count: int) -> list[Vector]:
    return [ranges[i : i + count] for i in range(0, len(ranges), count)]


def tiny_vectors(count: int) -> list[Vector]:
    """Ranges of 100 bytes, a thousand in a vector, every 900 bytes."""
    return cut([[i * TINY_STEP, i * TINY_STEP + TINY_BYTES] for i in range(count)], TINY_VECTOR)


class Data:
    """The directory that the servers export; what is there already is kept."""

    def __init__(self, directory: Path, size: Size) -> None:
        self.directory = directory
        self.size = size
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.specs = directory.parent / "patterns"
        self.specs.mkdir(exist_ok=True)

    def warm_up(self) -> str:
        """A small file that is read before the clock runs."""
        self._write("warm_up.bin", lambda file: file.write(random.Random(0).randbytes(64 << 10)))
        return "warm_up.bin"

    def vectors(self, kind: str) -> tuple[list[str], Path]:
        """Files, and the pattern in which they are read."""
        if kind == "agc":
            return self._agc_vectors()
        vectors = {
            "seed": lambda: seed_vectors(self.size.seed_bytes),
            "peers": lambda: peers_vectors(self.size.seed_bytes, self.size.peers_share),
            "tiny": lambda: tiny_vectors(self.size.tiny),
        }[kind]()
        name = f"{kind}.bin"

        def fill(file: Any) -> None:
            rng = random.Random(kind)
            if kind == "tiny":
                file.write(rng.randbytes(min(vectors[-1][-1][1] + TINY_STEP, 8 << 20)))
                block = rng.randbytes(8 << 20)
                while file.tell() < vectors[-1][-1][1]:
                    file.write(block)
                return
            file.truncate(self.size.seed_bytes)
            for start, stop in (span for vector in vectors for span in vector):
                file.seek(start)
                file.write(rng.randbytes(stop - start))

        self._write(name, fill)
        return [name], self._pattern(kind, [vectors])

    def agc(self, fmt: str) -> list[str]:
        """Files like those of the ttbar analysis, 40 MB and up."""
        from jcache.demo import dataset

        directory = self.directory / fmt
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        made = dataset.recipes(files=self.size.agc_files, events=self.size.agc_events, formats=fmt)  # type: ignore[arg-type]
        for recipe in dataset.write(directory, made):
            os.utime(directory / recipe.name, (OLD_S, OLD_S))
        return [f"{fmt}/{recipe.name}" for recipe in made]

    def wide(self, fmt: str) -> list[str]:
        """Eight files of 40 MB in eight clusters, of which a loop reads most columns; smaller ones in `smoke`."""
        import numpy as np
        import uproot

        directory = self.directory / f"wide-{fmt}"
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        entries = min(self.size.seed_bytes // 25, WIDE_BYTES) // (4 * WIDE_COLUMNS * WIDE_CLUSTERS)
        names = [f"wide-{fmt}/{number}.root" for number in range(WIDE_FILES)]
        for number, name in enumerate(names):
            rng, path = np.random.default_rng(number), self.directory / name
            if path.exists():
                continue
            partial = path.with_suffix(".partial")
            with uproot.recreate(partial, compression=None) as file:
                kinds = {f"c{column}": np.dtype("f4") for column in range(WIDE_COLUMNS)}
                tree = file.mktree("Events", kinds) if fmt == "ttree" else file.mkrntuple("Events", kinds)
                for _ in range(WIDE_CLUSTERS):
                    tree.extend({column: rng.random(entries, dtype="f4") for column in kinds})
            os.utime(partial, (OLD_S, OLD_S))
            partial.rename(path)
        return names

    def stream(self) -> str:
        """A file to be read from front to back."""

        def fill(file: Any) -> None:
            rng = random.Random(1)
            for _ in range(0, self.size.stream_bytes, 1 << 20):
                file.write(rng.randbytes(1 << 20))

        self._write("stream.bin", fill)
        return "stream.bin"

    def objects(self) -> tuple[str, list[str]]:
        """Many small files, as a zarr array has them."""
        directory = self.directory / "objects"
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        names = [f"c.{i // 100}.{i % 100}" for i in range(self.size.objects)]
        rng = random.Random(2)
        for name in names:
            body = rng.randbytes(OBJECT_BYTES)
            path = directory / name
            if not path.exists():
                path.write_bytes(body)
                os.utime(path, (OLD_S, OLD_S))
        return "objects", names

    def _agc_vectors(self) -> tuple[list[str], Path]:
        """The requests that uproot makes of the analysis' files, taken down while it reads them."""
        names = self.agc("ttree")
        path = self.specs / "agc.json"
        if not path.exists():
            self._pattern("agc", [requests_of(self.directory / name) for name in names])
        return names, path

    def _pattern(self, kind: str, vectors: list[list[Vector]]) -> Path:
        path = self.specs / f"{kind}.json"
        path.write_text(json.dumps({"vectors": vectors}))
        return path

    def _write(self, name: str, fill: Any) -> None:
        path = self.directory / name
        if path.exists():
            return
        partial = path.with_name(f".{name}")
        with partial.open("wb") as file:
            fill(file)
        partial.chmod(0o644)
        os.utime(partial, (OLD_S, OLD_S))
        partial.rename(path)


def requests_of(path: Path) -> list[Vector]:
    """Return what uproot asks a file system for when it reads the columns, one vector for each request."""
    import fsspec
    import uproot
    from fsspec.implementations.local import LocalFileSystem

    asked: list[Vector] = []

    class Watched(LocalFileSystem):  # type: ignore[misc]  # fsspec is untyped
        protocol = ("watched",)
        cachable = False

        def cat_file(self, path: Any, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
            asked.append([[start, end]])
            data: bytes = super().cat_file(path, start, end, **kwargs)
            return data

        def cat_ranges(self, paths: Any, starts: Any, ends: Any, **kwargs: Any) -> list[bytes]:  # noqa: ARG002
            asked.append([[start, end] for start, end in zip(starts, ends, strict=True)])
            return [super(Watched, self).cat_file(p, s, e) for p, s, e in zip(paths, starts, ends, strict=True)]

    fsspec.register_implementation("watched", Watched, clobber=True)
    url = f"watched://{path}"
    with uproot.open({url: None}, handler=uproot.source.fsspec.FSSpecSource) as file:
        file["Events"].arrays(COLUMNS)
    size = path.stat().st_size
    return [[[start, min(stop, size)] for start, stop in vector] for vector in asked]
