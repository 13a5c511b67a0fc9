"""What the workers of the Dask tests run; a file of its own, to be uploaded to those on other hosts."""

from __future__ import annotations

import os


def digest(url: str, columns: tuple[str, ...]) -> tuple[int, str]:
    """Read columns with plain uproot; the process that did it, and a digest of the values."""
    import hashlib

    import awkward as ak
    import uproot

    with uproot.open(url) as file:
        events = file["Events"].arrays(list(columns))
    found = hashlib.sha256()
    for name in columns:
        found.update(ak.to_numpy(ak.flatten(events[name], axis=None)).tobytes())
    return os.getpid(), found.hexdigest()


def make_file_system(url: str) -> int:
    """Make a file system, and keep it, before the plug-in is there."""
    import fsspec

    import jcache.session

    assert jcache.session.current() is None
    fsspec.keep = fsspec.filesystem("http")
    return len(fsspec.keep.cat_file(url, 0, 10))


def read_with_it(url: str, start: int, stop: int) -> bytes:
    import fsspec

    return fsspec.keep.cat_file(url, start, stop)


def read_in_another_process(url: str, stop: int) -> str:
    """Read the beginning of a file in a process of its own; what it wrote on stderr."""
    import subprocess
    import sys

    code = f"import fsspec; fsspec.filesystem('http').cat_file({url!r}, 0, {stop})"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr


def state() -> tuple[int, str | None, object]:
    """Process, cache directory and validation of this process's session."""
    import jcache.session

    running = jcache.session.current()
    return (os.getpid(), None, None) if running is None else (os.getpid(), running.config.dir, running.validate)


def read_settings_slowly(directory: str) -> None:
    """Have this process say that it reads a cache directory's settings, and wait until it may go on."""
    import time

    from jcache.settings import config

    judged = config._judged

    def wait(path: str) -> config._File:
        with open(os.path.join(directory, "reading"), "w"):
            pass
        while not os.path.exists(os.path.join(directory, "go")):
            time.sleep(0.01)
        return judged(path)

    config._judged = wait
