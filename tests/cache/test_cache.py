"""A cache directory: private or shared as asked, marked, probed with real writes, of use even where it is read-only."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jcache.cache import Cache, CacheUnusable
from jcache.cache.directory import TAG, _why
from jcache.journal import Version
from jcache.system.storage import Storage

URL = "https://h/data/Run2012B.root"
VERSION = Version(size_bytes=100, etag="1")


class Failing(Storage):
    """A file system on which one operation fails from now on."""

    def __init__(self, operation: str, number: int, *, when: Callable[..., bool] = lambda *_: True) -> None:
        self.error = OSError(number, os.strerror(number))
        self.when = when
        setattr(self, operation, self.fail(getattr(super(), operation)))

    def fail(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if self.when(*args, **more):
                raise self.error
            return real(*args, **more)

        return call


def writes(path: str, flags: int, *_: Any) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def prepared(path: Path, **more: Any) -> Cache:
    cache = Cache(path, **more)
    cache.prepare()
    return cache


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def record(cache: Cache, url: str = URL) -> Path:
    identity = cache.identify("https", url, {})
    journal = cache.journal(identity)
    journal.append(VERSION, {}, [(10, b"abc")])
    journal.close()
    return Path(cache.path(identity))


def recorded(cache: Cache, url: str = URL) -> int:
    journal = cache.journal(cache.identify("https", url, {}))
    journal.attach()
    covered = journal.view(VERSION).covered()
    journal.close()
    return covered


def test_made_private_and_marked(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "cache"
    old = os.umask(0)
    try:
        cache = prepared(root)
        where = record(cache)
    finally:
        os.umask(old)
    assert cache.writable
    assert cache.reason is None
    assert [path.name for path in root.iterdir() if path.is_file()] == ["CACHEDIR.TAG"]
    assert (root / "CACHEDIR.TAG").read_bytes() == TAG
    assert where == root / "https" / "h" / "data" / "Run2012B.root"
    for path in [tmp_path / "a", *(tmp_path / "a").rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert recorded(prepared(root)) == 3


def test_signature_of_the_convention() -> None:
    assert TAG.startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")


@pytest.mark.parametrize(
    ("root_mode", "dir_mode", "file_mode"),
    [
        (0o700, 0o700, 0o600),
        (0o755, 0o700, 0o600),
        (0o770, 0o770, 0o660),
        (0o775, 0o775, 0o664),
        (0o2770, 0o770, 0o660),
        (0o2750, 0o750, 0o640),
        (0o1777, 0o777, 0o666),
    ],
)
def test_sharing_is_asked_for_by_the_roots_mode(tmp_path: Path, root_mode: int, dir_mode: int, file_mode: int) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(root_mode)
    cache = prepared(root)
    assert (cache.dir_mode, cache.file_mode) == (dir_mode, file_mode)
    assert mode(root) == root_mode
    old = os.umask(0)
    try:
        where = record(cache)
    finally:
        os.umask(old)
    assert mode(where) & 0o777 == dir_mode
    assert bool(mode(where) & stat.S_ISGID) == bool(root_mode & stat.S_ISGID)
    assert {mode(file) for file in where.iterdir()} == {file_mode}


def test_a_directory_with_other_things_is_used_but_not_marked(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert prepared(tmp_path).writable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_settings_and_reports_do_not_hide_that_it_is_a_cache(tmp_path: Path) -> None:
    (tmp_path / "jcache.toml").write_text("")
    (tmp_path / ".reports").mkdir()
    prepared(tmp_path)
    assert (tmp_path / "CACHEDIR.TAG").exists()


def test_prepared_many_times_at_once(tmp_path: Path) -> None:
    caches = [Cache(tmp_path / "x" / "cache") for _ in range(8)]
    barrier = threading.Barrier(len(caches))

    def prepare(cache: Cache) -> None:
        barrier.wait()
        cache.prepare()

    threads = [threading.Thread(target=prepare, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(cache.writable for cache in caches)
    assert [path.name for path in (tmp_path / "x" / "cache").iterdir()] == ["CACHEDIR.TAG"]


def test_plain_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("mine")
    for path in (plain, plain / "below"):
        with pytest.raises(CacheUnusable, match="file") as refused:
            prepared(path)
        assert str(path) in str(refused.value)
    assert plain.read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSYS])
@pytest.mark.parametrize("operation", ["mkdir", "open", "pwritev"])
def test_a_new_directory_that_cannot_be_written(tmp_path: Path, operation: str, number: int) -> None:
    storage = Failing(operation, number, when=writes if operation == "open" else lambda *_: True)
    with pytest.raises(CacheUnusable) as refused:
        prepared(tmp_path / "cache", storage=storage)
    message = str(refused.value)
    assert message.isprintable()
    assert message.startswith(f"the cache directory {str(tmp_path / 'cache')!r} cannot be used: ")
    assert message.endswith(f": {_why(storage.error)}")
    assert not list(tmp_path.rglob("*.TAG"))
    assert not list(tmp_path.rglob(".probe*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("operation", ["open", "pwritev"])
def test_a_cache_that_can_only_be_read_still_serves(tmp_path: Path, operation: str, number: int) -> None:
    record(prepared(tmp_path / "cache"))
    storage = Failing(operation, number, when=writes if operation == "open" else lambda *_: True)
    cache = prepared(tmp_path / "cache", storage=storage)
    assert not cache.writable
    assert cache.reason is not None
    assert str(tmp_path / "cache") in cache.reason
    assert recorded(cache) == 3


def test_a_short_write_means_a_full_disk(tmp_path: Path) -> None:
    class Short(Storage):
        def pwritev(self, fd: int, buffers: Any, position: int) -> int:
            return super().pwritev(fd, [buffers[0][:5]], position)

    with pytest.raises(CacheUnusable, match="no space left"):
        prepared(tmp_path / "cache", storage=Short())
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_parent_that_may_not_be_written_does_not_hide_the_cache(tmp_path: Path) -> None:
    prepared(tmp_path / "cache")
    assert prepared(tmp_path / "cache", storage=Failing("mkdir", errno.EROFS)).writable


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary directory that other users may enter; pytest's own are below a private one."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for below in [path, *path.rglob("*")]:
            below.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="root may write anywhere")
def test_real_permissions(open_path: Path) -> None:
    """As a user without rights, in a process of its own."""
    paths = [str(open_path / name) for name in ("full", "shut", "new")]
    for path, permissions in ((paths[0], 0o555), (paths[1], 0o000)):
        os.mkdir(path)
        record(prepared(Path(path)))
        for below in Path(path).rglob("*"):
            below.chmod(0o555 if below.is_dir() else 0o444)
        os.chmod(path, permissions)
    open_path.chmod(0o555)
    script = (
        "import sys\n"
        "from jcache.cache import Cache, CacheUnusable\n"
        "for path in sys.argv[1:]:\n"
        "    cache = Cache(path)\n"
        "    try: cache.prepare()\n"
        "    except CacheUnusable as error: print(error.reason)\n"
        "    else: print(cache.writable, cache.reason)\n"
    )
    drop = ["/usr/bin/setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    if drop and subprocess.run([*drop, sys.executable, "-c", "import jcache.journal"], check=False).returncode:
        pytest.skip("another user may not run this interpreter")
    run = subprocess.run([*drop, sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        f"False nothing can be written to {paths[0]!r}: permission denied",
        "it cannot be read: permission denied",
        "it cannot be made: permission denied",
    ]


def test_layouts(tmp_path: Path) -> None:
    tree = Cache(tmp_path)
    flat = Cache(tmp_path, flat=True)
    based = Cache(tmp_path, basepath="/data")
    path = {cache: cache.path(cache.identify("https", URL, {})) for cache in (tree, flat, based)}
    assert path[tree] == f"{tmp_path}/https/h/data/Run2012B.root"
    assert path[based] == f"{tmp_path}/data/Run2012B.root"
    assert os.path.dirname(path[flat]) == str(tmp_path)
    assert os.path.basename(path[flat]).startswith("Run2012B.root~")


def test_objects_below_an_object(tmp_path: Path) -> None:
    cache = prepared(tmp_path / "cache")
    for url in (URL, f"{URL}/inner", f"{URL}/", f"{URL}?v=1"):
        assert recorded(cache, url) == 0
        record(cache, url)
        assert recorded(cache, url) == 3


def test_two_objects_that_a_file_system_takes_for_one(tmp_path: Path) -> None:
    """What happens to names that differ only in case where case does not count: one directory, two journals."""
    cache = prepared(tmp_path / "cache")
    upper, lower = (cache.identify("https", f"https://h/{name}", {}) for name in ("A", "a"))
    journal = cache.journal(upper)
    journal.append(VERSION, {}, [(10, b"abc")])
    journal.close()
    Path(cache.path(upper)).rename(cache.path(lower))
    journal = cache.journal(lower)
    journal.attach()
    assert journal.versions() == []
    journal.close()


def test_a_root_that_is_not_utf8(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    cache = prepared(root)
    record(cache)
    assert recorded(cache) == 3


class Counting(Storage):
    """Notes which files are opened for reading, and which directories are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if not flags & os.O_CREAT:
            self.looked.append(path)
        return super().open(path, flags, mode)

    def listdir(self, path: str) -> list[str]:
        self.looked.append(path)
        return super().listdir(path)


def test_a_key_that_is_not_there_is_not_looked_for_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("jcache.cache.directory.time.monotonic", lambda: now[0])
    storage = Counting()
    cache = prepared(tmp_path, storage=storage)
    identity = cache.identify("https", URL, {})
    storage.looked.clear()
    assert not any(cache.is_owned(identity) for _ in range(100))
    assert storage.looked == [str(tmp_path / ".key")]
    other = prepared(tmp_path)
    mine = other.stored(identity, asker=True)
    Path(other.place(mine.parts)).mkdir(parents=True)
    now[0] += 1.0
    assert cache.is_owned(identity), "of another process, which has made the key since"
    assert cache.stored(identity, asker=True) == mine
    late = prepared(tmp_path / "late")
    assert not late.has_owned
    assert late.stored(identity, asker=True) == prepared(tmp_path / "late").stored(identity, asker=True)


def test_in_the_flat_layout_journals_are_asked_once_whose_they_are(tmp_path: Path) -> None:
    storage = Counting()
    cache = prepared(tmp_path, storage=storage, flat=True)
    for number in range(20):
        record(cache, f"https://h/d/{number}/f")
    storage.looked.clear()
    record(cache, "https://h/d/new")
    cache.remove(cache.identify("https", "https://h/d/new", {}), below=False)
    assert len(storage.looked) < 5, "no directory: journals of other names are left alone"
    cache.remove(cache.identify("https", "https://h/d/3", {}))
    assert not list(Path(cache.path(cache.identify("https", "https://h/d/3/f", {}))).glob("@*.seg"))
    assert len(storage.looked) < 50
    storage.looked.clear()
    cache.remove(cache.identify("https", "https://h/d/4", {}), cache.identify("https", "https://h/d/5", {}))
    assert len(list(tmp_path.glob("*/@*.seg"))) == 17
    assert len(storage.looked) < 10, storage.looked


@pytest.mark.parametrize("turn", range(20))
def test_all_who_make_the_key_at_once_have_the_one_that_stays(tmp_path: Path, turn: int) -> None:
    caches = [Cache(str(tmp_path)) for _ in range(3)]
    for cache in caches:
        cache.prepare()
    with ThreadPoolExecutor(9) as pool:
        found = list(pool.map(lambda i: caches[i % 3]._keyed(f"who {i % 2}"), range(18)))
    later = Cache(str(tmp_path))
    assert found == [later._keyed(f"who {i % 2}") for i in range(18)]
    assert not list(tmp_path.glob(".probe-*"))


def test_a_key_that_is_none_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".key").write_bytes(b"short")
    cache = Cache(str(tmp_path))
    cache.prepare()
    assert cache._keyed("who") == Cache(str(tmp_path))._keyed("who")
    assert (tmp_path / ".key").stat().st_size == 32
