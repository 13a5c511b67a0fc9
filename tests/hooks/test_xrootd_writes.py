"""What a process writes, moves and removes at a real XRootD server, read there and in later processes.

Judge: plain fsspec, which reads as JCache does here: by `open`, whose files are closed again.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import RunPython
    from servers import WritableXrootd

JOB = """
import sys, fsspec
host, base, later = sys.argv[1], sys.argv[2], len(sys.argv) > 3
changes = {CHANGES}
names = ["a", "b", "d/x", "d/e/y", "d2/x", "new"]

def instance():
    return fsspec.filesystem("root", hostid=host, skip_instance_cache=True)

def read(fs, path):
    try:
        with fs.open(path) as file:
            return file.read()
    except Exception as error:
        return type(error).__name__

def part(fs, path):
    try:
        return fs.cat_file(path, 1, 5)
    except Exception as error:
        return type(error).__name__

for number, (name, change) in enumerate(changes.items()):
    b, many = f"{base}{number}", [instance() for _ in range(3)]
    fs, other, fresh = many
    if not later:
        fs.makedirs(f"{b}/d/e", exist_ok=True)
        for one in names[:4]:
            with fs.open(f"{b}/{one}", "wb") as file:
                file.write(b"old " + one.encode())
        for one in names:
            read(fs, f"{b}/{one}"), read(other, f"{b}/{one}")
        try:
            exec(change)
        except Exception as error:
            print(name, type(error).__name__)
    for one in names:
        found = [what(each, f"{b}/{one}") for each in (fresh, fs, other) for what in (read, part)]
        print(name, one, *(found if not later else found[:1]))
"""
CHANGES = {
    "mv over": 'fs.mv(f"{b}/d/x", f"{b}/a")',
    "mv": 'fs.mv(f"{b}/a", f"{b}/new")',
    "mv by another": 'other.mv(f"{b}/d/x", f"{b}/a")',
    "mv of a directory": 'fs.mv(f"{b}/d", f"{b}/d2")',
    "rename": 'fs.rename(f"{b}/a", f"{b}/new")',
    "rm": 'fs.rm(f"{b}/a")',
    "rm by another": 'other.rm(f"{b}/a")',
    "rm_file": 'fs.rm_file(f"{b}/a")',
    "rm of a tree": 'fs.rm(f"{b}/d", recursive=True)',
    "write": 'f = fs.open(f"{b}/a", "wb"); f.write(b"new content"); f.close()',
    "write by another": 'f = other.open(f"{b}/a", "wb"); f.write(b"new content"); f.close()',
    "rm and write": 'fs.rm(f"{b}/a"); f = fs.open(f"{b}/a", "wb"); f.write(b"new content"); f.close()',
    "touch": 'fs.touch(f"{b}/a", truncate=True)',
    "put": 'open("local", "wb").write(b"new content"); fs.put_file("local", f"{b}/a")',
    "pipe": 'fs.pipe_file(f"{b}/a", b"new content")',
}


def test_what_changes_a_file_is_seen_by_all(writable_xrootd: WritableXrootd, run_python: RunPython) -> None:
    job = JOB.replace("{CHANGES}", repr(CHANGES))

    def run(base: str, *more: str, **how: object) -> list[str]:
        return run_python(job, writable_xrootd.address, base, *more, **how).stdout.splitlines()

    plain, cached = (f"/{uuid.uuid4().hex[:12]}" for _ in range(2))
    expected = run(plain, cache=None)
    assert run(cached) == expected
    assert run(cached, "later", env={"JCACHE_VALIDATE": "never"}) == run(plain, "later", cache=None)
