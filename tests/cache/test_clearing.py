"""What is written is forgotten: whoever reads it, whatever else tells objects of its path apart, and all below it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from fsspec.spec import AbstractFileSystem

from jcache.activate import deactivate
from jcache.cache import Cache
from jcache.journal import Version
from jcache.naming import identify
from jcache.naming.identity import is_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jcache.session import Session


class Shared(AbstractFileSystem):  # type: ignore[misc]
    """A server on which each user sees the same files, and the cache cannot know that."""

    protocol = "sftp"
    cachable = False
    files: ClassVar[dict[str, tuple[bytes, int]]] = {}
    reads: ClassVar[list[str]] = []
    moment: ClassVar[list[int]] = [1_500_000_000]

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self.reads.append(path)
        return self._at(path)[0][start:end]

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self.moment[0] += 1
        self.files[path] = (value, self.moment[0])

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        data, mtime = self._at(path)
        return {"name": path, "size": len(data), "type": "file", "mtime": mtime}

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        for path in [path for path in self.files if path == path1 or path.startswith(path1 + "/")]:
            self.files[path2 + path[len(path1) :]] = self.files.pop(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in [name for name in self.files if name == path or name.startswith(path + "/")]:
            del self.files[name]

    def _at(self, path: str) -> tuple[bytes, int]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]


USERS: list[dict[str, Any]] = [{}, {"username": "u"}, {"username": "v", "odd": 3}]
DEEP = "/d/" + "/".join(["e" * 150] * 7) + "/f"
FILES = ["/d/a", "/d/b/c", "/d/a b", "/d~0123456789abcdef", "/dd/a", DEEP]


@pytest.mark.parametrize("flat", [False, True], ids=["tree", "flat"])
@pytest.mark.parametrize("validate", ["open", "never"])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("writer", USERS, ids=str)
def test_a_directory_that_is_moved_or_removed_is_forgotten_with_all_below(
    active: Callable[..., Session], validate: str, again: bool, writer: dict[str, Any], flat: bool
) -> None:
    Shared.files.clear()
    plain = Shared(host="h")
    for path in FILES:
        plain.pipe_file(path, b"OLD " + path.encode())
        plain.pipe_file(path.replace("/d", "/n", 1), b"NEW " + path.encode())

    def contents() -> list[list[bytes | None]]:
        found: list[list[bytes | None]] = []
        for user in USERS:
            fs, row = Shared(host="h", **user), list[bytes | None]()
            for path in FILES:
                try:
                    row.append(fs.cat_file(path))
                except FileNotFoundError:
                    row.append(None)
            found.append(row)
        return found

    def restart() -> None:
        if again:
            active(validate=validate, flat=flat)

    active(validate=validate, flat=flat)
    assert contents() == [[b"OLD " + path.encode() for path in FILES]] * len(USERS)
    restart()
    fs = Shared(host="h", **writer)
    fs.mv("/d", "/old")
    fs.mv("/n", "/d")
    restart()
    assert contents() == [[(b"NEW " if p.startswith("/d/") else b"OLD ") + p.encode() for p in FILES]] * len(USERS)
    fs = Shared(host="h", **writer)
    fs.rm("/d", recursive=True)
    restart()
    assert contents() == [[None if p.startswith("/d/") else b"OLD " + p.encode() for p in FILES]] * len(USERS)
    # What was not written is served from the cache, of each user's own.
    deactivate()
    active(validate="never", flat=flat)
    Shared.reads.clear()
    assert [Shared(host="h", **user).cat_file("/dd/a") for user in USERS] == [b"OLD /dd/a"] * len(USERS)
    assert Shared.reads == []


def test_the_objects_of_a_path(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.prepare()

    def of(path: str, **options: object) -> Any:
        return identify("newfs", path, options, environ={})

    one = of("h/d", region=1, password="x")
    kept = [of("h/d2"), of("h/d2/a", region=1), of("h/dd"), of("h/d~0123456789abcdef"), of("g/d")]
    gone = [
        one,
        of("h/d"),
        of("h/d", region=2),
        of("h/d/a"),
        of("h/d/a", region=1),
        of("h/d/a/b", password="y"),
        of("h/d?q"),
    ]
    for identity in (*kept, *gone):
        journal = cache.journal(identity)
        journal.append(Version(10, etag='"1"'), {}, [(0, bytes(10))])
        journal.close()
    cache.remove(one)
    for identity in (*kept, *gone):
        names = os.listdir(cache.path(identity)) if os.path.isdir(cache.path(identity)) else []
        assert any(name.startswith("@") for name in names) == (identity in kept), identity
        assert is_below(identity.url, one.address) == (identity in gone)
