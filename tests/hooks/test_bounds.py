"""Bounds of ranges that mean nothing to a server: what plain fsspec makes of them, JCache does."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import fsspec

if TYPE_CHECKING:
    from pathlib import Path

    from servers import ScriptedOrigin

SIZE = 1000
BOUNDS = (None, 0, 3, 7, SIZE - 5, SIZE, SIZE + 10, 10**12, -3, -5, -SIZE, -SIZE - 7, True, False, 2.0, "1")


def told(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what a call gives, or what it raises, as JSON can hold it."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:
        result = error
    return [as_told(one) for one in result] if isinstance(result, list) else as_told(result)


def as_told(one: Any) -> Any:
    return one.hex() if isinstance(one, bytes) else [type(one).__name__, getattr(one, "status", None)]


def main(base: str) -> None:
    fs = fsspec.filesystem("http")
    urls = [f"{base}/{name}" for name in ("file", "empty", "none")]
    found = {}
    for start, end in itertools.product(BOUNDS, BOUNDS):
        found[f"{start!r}:{end!r}"] = [
            *(told(fs.cat_file, url, start, end) for url in urls),
            told(fs.cat_ranges, urls, start, end),
            told(fs.cat_ranges, [urls[0]] * 2, [start, 1], [end, 5]),
            told(fs.cat_ranges, urls, start, end, on_error="raise"),
        ]
    found["iterators"] = told(fs.cat_ranges, urls[:1], iter([1]), iter([2]))
    print(json.dumps(found))


def client(base: str, cache: Path | None) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE", "_JCACHE"))}
    env |= {"JCACHE_SUMMARY": "0"} | ({} if cache is None else {"JCACHE_DIR": str(cache)})
    done = subprocess.run([sys.executable, __file__, base], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_any_bounds_mean_what_they_mean_to_plain_fsspec(http_origin: ScriptedOrigin, tmp_path: Path) -> None:
    http_origin.put("file", os.urandom(SIZE))
    http_origin.put("empty", b"")
    base = http_origin.url("")[:-1]
    plain = client(base, None)
    for run in ("cold", "warm"):
        got = client(base, tmp_path / "cache")
        wrong = [f"{run} {name}: {got[name]}, plain {plain[name]}" for name in plain if got[name] != plain[name]]
        assert not wrong, "\n".join([f"{len(wrong)} of {len(plain)} differ", *wrong[:20]])


if __name__ == "__main__":
    main(sys.argv[1])
