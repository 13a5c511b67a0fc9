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


# What fsspec-xrootd has listed it keeps, also where it changes it itself.
LISTED = """
import sys, fsspec
from jcache.session import current
host, base, later = sys.argv[1], sys.argv[2], len(sys.argv) > 3
changes = {CHANGES}
fs = fsspec.filesystem("root", hostid=host)

def outcome(what, *args, **options):
    try:
        return getattr(fs, what)(*args, **options)
    except Exception as error:
        return type(error).__name__

def told(b):
    for name in (b, f"{b}/d", f"{b}/e"):
        listed = outcome("ls", name, detail=False)
        yield sorted(one.rpartition("/")[2] for one in listed) if type(listed) is list else listed
    for name in ("a", "b", "d", "d/x", "e", "new"):
        info = outcome("info", f"{b}/{name}")
        yield info["type"] if type(info) is dict else info
        yield outcome("exists", f"{b}/{name}"), outcome("isdir", f"{b}/{name}")

cases = [(f"{base}{number}", name) for number, name in enumerate(changes)]
for b, _ in cases if not later else ():
    fs.makedirs(f"{b}/d"), fs.makedirs(f"{b}/e")
    for one in ("a", "b", "d/x"):
        with fs.open(f"{b}/{one}", "wb") as file:
            file.write(b"old")
for b, name in cases:
    if not later:
        list(told(b))
        try:
            exec(changes[name])
        except Exception as error:
            print(name, type(error).__name__)
    print(name, *told(b))
    if current() is not None:  # the next change would have it forgotten
        current().recorder.flush(60), current().answers.flush()
"""
LISTED_CHANGES = {
    "rm": 'fs.rm(f"{b}/a")',
    "rm_file": 'fs.rm_file(f"{b}/d/x")',
    "tree": 'fs.rm(f"{b}/d", recursive=True)',
    "rmdir": 'fs.rmdir(f"{b}/e")',
    "mkdir": 'fs.mkdir(f"{b}/new")',
    "makedirs": 'fs.makedirs(f"{b}/new/more")',
    "touch": 'fs.touch(f"{b}/new")',
    "mv": 'fs.mv(f"{b}/a", f"{b}/new")',
    "write": 'f = fs.open(f"{b}/new", "wb"); f.write(b"new"); f.close()',
}


def test_what_the_writer_itself_keeps_of_listings_is_not_recorded(
    writable_xrootd: WritableXrootd, run_python: RunPython
) -> None:
    job = LISTED.replace("{CHANGES}", repr(LISTED_CHANGES))
    plain, cached = (f"/{uuid.uuid4().hex[:12]}" for _ in range(2))
    for more in ((), ("later",)):
        expected = run_python(job, writable_xrootd.address, plain, *more, cache=None).stdout.splitlines()
        env = {"JCACHE_VALIDATE": "never"}
        assert run_python(job, writable_xrootd.address, cached, *more, env=env).stdout.splitlines() == expected
