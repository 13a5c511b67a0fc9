"""What programs get of a mount where the origin replaces files, refuses, fails, hangs, or cannot be reached."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import s3_servers
from mounts import LIMIT_S, Mount, needs_fuse, reading

from jcache.errors import OfflineMissError, OriginChangedError
from jcache.journal import Version
from jcache.origin import Info

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import ScriptedOrigin

OLD, NEW = b"o" * 1_000_000, b"n" * 1_000_000
STALE = os.strerror(errno.ESTALE)

# Reads files whole, again and again, until stdin ends; says of each what was in it, or the error's number.
WATCHER = """
import json, os, sys, threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
print("begun", flush=True)
seen = []
while not over.is_set() or not seen:
    try:
        with open(sys.argv[1], "rb", buffering=0) as file:
            told = os.fstat(file.fileno()).st_size
            data = b""
            while piece := file.read(50_000):
                data += piece
        seen.append([sorted(set(data)), len(data), told])
    except OSError as error:
        seen.append(error.errno)
print(json.dumps(seen))
"""


@pytest.fixture
def mounted(http_origin: ScriptedOrigin, tmp_path: Path, cache_dir: Path) -> Iterator[Mount]:
    http_origin.put("f.bin", OLD)
    with Mount(tmp_path / "mount", cache_dir, http_origin.url("")) as mount:
        yield mount


def number_of(mount: Mount, name: str) -> str:
    """The name of the error that opening and reading a file gives."""
    script = (
        "import errno, sys\ntry: open(sys.argv[1], 'rb').read()\nexcept OSError as e: print(errno.errorcode[e.errno])"
    )
    return mount.run(f'$PYTHON -c "{script}" {name}').stdout.strip()


@needs_fuse
@pytest.mark.parametrize("size", [len(OLD), 700_000, 1_400_000])
def test_a_file_that_is_replaced_is_never_mixed(mounted: Mount, http_origin: ScriptedOrigin, size: int) -> None:
    """Of the same size, only the entity tag tells."""
    new = b"n" * size
    with reading(mounted.directory / "f.bin") as reader:
        assert reader.first == OLD[:10].hex()
        http_origin.put("f.bin", new, etag='"2"')
        assert reader.read(500_000) == STALE
        assert mounted.run("stat -c %s f.bin").stdout.strip() == str(len(OLD)), "as long as it is open"
    for _ in range(2):
        assert mounted.run("cat f.bin | tr -d n | wc -c; stat -c %s f.bin").stdout.split() == ["0", str(size)]
    assert mounted.stop() == 0


@needs_fuse
def test_a_file_that_was_replaced_meanwhile_is_read_anew(mounted: Mount, http_origin: ScriptedOrigin) -> None:
    """The kernel has its pages, size and time by then."""
    for k in range(4):
        data = bytes([65 + k]) * (300_000 + 4096 * (k % 2))
        http_origin.put("f.bin", data, etag=f'"{k}"')
        told = mounted.run("sha256sum < f.bin; wc -c < f.bin; stat -c %s f.bin").stdout
        assert told.split() == [hashlib.sha256(data).hexdigest(), "-", str(len(data)), str(len(data))]
    before = http_origin.body_bytes
    assert mounted.run("cat f.bin | wc -c").stdout.strip() == str(len(data))
    assert http_origin.body_bytes == before


@needs_fuse
def test_readers_of_a_file_that_is_replaced_again_and_again(mounted: Mount, http_origin: ScriptedOrigin) -> None:
    command = [sys.executable, "-c", WATCHER, os.fspath(mounted.directory / "f.bin")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    watchers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    sizes = {OLD[0]: len(OLD)}
    for watcher in watchers:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "begun\n"
    for k in range(20):
        value, size = 1 + k, 200_000 + 10_001 * (k % 7)
        sizes[value] = size
        http_origin.put("f.bin", bytes([value]) * size, etag=f'"{k + 2}"')
        mounted.run("stat f.bin >/dev/null")
    seen = [one for watcher in watchers for one in json.loads(watcher.communicate(timeout=LIMIT_S)[0].splitlines()[-1])]
    for one in seen:
        if isinstance(one, list):
            values, size, told = one
            assert len(values) == 1, values
            assert size == told == sizes[values[0]]
        else:
            assert one in {errno.ESTALE, errno.EBUSY, errno.EIO}
    assert any(isinstance(one, list) for one in seen)


@needs_fuse
def test_errors_are_those_of_files(mounted: Mount, http_origin: ScriptedOrigin) -> None:
    for status, expected in ((404, "ENOENT"), (403, "EACCES"), (401, "EACCES"), (500, "EIO"), (504, "ETIMEDOUT")):
        http_origin.put(f"{status}.bin", b"", status=status)
        assert number_of(mounted, f"{status}.bin") == expected
    assert number_of(mounted, "nothing.bin") == "ENOENT"
    http_origin.stop()
    assert number_of(mounted, "f.bin") == "EHOSTUNREACH"
    http_origin.start()
    assert mounted.run("cat f.bin | wc -c").stdout.strip() == str(len(OLD))


@needs_fuse
def test_a_file_that_hangs_holds_up_no_other(mounted: Mount, http_origin: ScriptedOrigin) -> None:
    names = [f"hangs-{k}.bin" for k in range(20)]
    for name in names:
        http_origin.put(name, OLD, once={k: {"delay_s": LIMIT_S} for k in range(1, 100)})  # its data, and not its size
    nothing: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stuck = [subprocess.Popen(["cat", mounted.directory / name], **nothing) for name in names]
    try:
        deadline = time.monotonic() + LIMIT_S
        while not all(http_origin.resources[f"/{name}"].gets for name in names):
            assert time.monotonic() < deadline, "not all of them are read"
            time.sleep(0.02)
        assert mounted.run("cat f.bin | wc -c; stat -c %s f.bin").stdout.split() == [str(len(OLD))] * 2
        assert all(program.poll() is None for program in stuck)
        assert mounted.stop() == 0
    finally:
        mounted.close()  # or they wait for it
        for program in stuck:
            program.kill()
            assert program.wait(LIMIT_S) != 0


@needs_fuse
def test_what_is_not_cached_is_an_error_offline(http_origin: ScriptedOrigin, tmp_path: Path, cache_dir: Path) -> None:
    http_origin.put("f.bin", OLD)
    with Mount(tmp_path / "online", cache_dir, http_origin.url("")) as mount:
        mount.run("head -c 4096 f.bin")
        assert mount.stop() == 0
    http_origin.stop()
    with Mount(tmp_path / "offline", cache_dir, http_origin.url(""), JCACHE_OFFLINE="1") as mount:
        assert mount.run("head -c 4096 f.bin").stdout == OLD[:4096].decode()
        assert mount.run("stat -c %s f.bin").stdout.strip() == str(len(OLD))
        assert number_of(mount, "f.bin") == "EIO"
        assert mount.stop() == 0
    assert "JCACHE_OFFLINE is set" in mount.stderr


@needs_fuse
def test_how_long_a_file_is_trusted(http_origin: ScriptedOrigin, tmp_path: Path, cache_dir: Path) -> None:
    """A file is asked for once where it is opened, and not at all where nothing is to be asked."""
    file = http_origin.put("f.bin", OLD)
    with Mount(tmp_path / "open", cache_dir, http_origin.url("")) as mount:
        mount.run("cat f.bin >/dev/null")
        asked = file.heads
        mount.run("cat f.bin >/dev/null")
        assert (file.heads - asked, file.body_bytes) == (1, len(OLD))
        assert mount.stop() == 0  # all is recorded
    for validate in ("3600", "never"):
        http_origin.reset()
        with Mount(tmp_path / validate, cache_dir, http_origin.url(""), "--validate", validate) as mount:
            for _ in range(2):
                assert mount.run("cat f.bin | wc -c; stat -c %s f.bin").stdout.split() == [str(len(OLD))] * 2
        assert (http_origin.requests, http_origin.body_bytes) == (0, 0), validate


@needs_fuse
def test_what_nothing_proves_is_read_past_the_cache(mounted: Mount, http_origin: ScriptedOrigin) -> None:
    http_origin.put("unproved.bin", OLD, etag=None)
    assert mounted.run("cat unproved.bin | tr -d o | wc -c; wc -c < unproved.bin").stdout.split() == ["0", "1000000"]
    http_origin.put("unproved.bin", NEW, etag=None)
    assert mounted.run("cat unproved.bin | tr -d n | wc -c").stdout.strip() == "0"
    assert mounted.stop() == 0
    assert mounted.report["read"]["bypass_bytes"] >= 2 * len(OLD)


# -- without the kernel ------------------------------------------------------------------------------------------------


def test_two_versions_are_not_open_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    from jcache_plugins.mount import tree

    class Origin:
        names = SimpleNamespace(fs=None, asked=None, is_http=False, at=lambda path: path)
        version = Version(10, etag='"1"')

        def asked(self, _path: str) -> Any:
            return tree.File(self.version.size_bytes, 5, time.monotonic(), Info(self.version), Found())  # type: ignore[arg-type]

        at = asked

        def forget(self, _path: str) -> None:
            pass

    class Found:
        def open_here(self) -> None:
            pass

    class Bytes:
        def __init__(self, *_: object) -> None:
            pass

        def read(self, _start: int, size: int) -> bytes:
            return b"x" * size

        def close(self) -> None:
            pass

    monkeypatch.setattr(tree, "JournalBytes", Bytes)
    monkeypatch.setattr(tree, "RELEASE_S", 0.01)
    objects: Any = Origin()
    names = tree.Tree(objects, "")
    monkeypatch.setattr(names, "_is_told", lambda *_: True)
    with pytest.raises(OSError, match=STALE):  # nobody has looked it up
        names.open("/f")
    assert names.attributes("/f").size == 10
    first, unread = names.open("/f"), names.open("/f")
    assert names.read(first, 0, 3) == b"xxx"
    second = names.open("/f")
    assert (first.keeps_pages, unread.keeps_pages, second.keeps_pages) == (False, False, True)
    names.close(unread)
    objects.version = Version(20, etag='"2"')
    assert names.attributes("/f").size == 10
    names.close(first)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        names.open("/f")
    monkeypatch.setattr(tree, "RELEASE_S", LIMIT_S)
    closing = threading.Timer(0.05, names.close, [second])
    closing.start()
    with pytest.raises(OSError, match=STALE):  # the kernel looks it up again
        names.open("/f")
    closing.join()
    assert names.attributes("/f").size == 20
    third = names.open("/f")
    assert (third.keeps_pages, third.attributes.size) == (False, 20)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def with_status(status: int) -> Exception:
    error = RuntimeError()
    error.status = status  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileNotFoundError("f"), errno.ENOENT),
        (caused(FileNotFoundError("f"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")), errno.EHOSTUNREACH),
        (caused(FileNotFoundError("f"), TimeoutError()), errno.ETIMEDOUT),
        (caused(FileNotFoundError("f"), with_status(404)), errno.ENOENT),
        (caused(FileNotFoundError("f"), with_status(502)), errno.EIO),
        (PermissionError("f"), errno.EACCES),
        (with_status(403), errno.EACCES),
        (with_status(418), errno.EIO),
        (
            OSError("File stat request failed: [ERROR] ...: [3011] No such file"),
            errno.ENOENT,
        ),
        (OSError("File did not open properly: [ERROR] ...: [3010] permission denied"), errno.EACCES),
        (OSError("[ERROR] Operation expired"), errno.ETIMEDOUT),
        (OSError(errno.ENETUNREACH, "no way"), errno.EHOSTUNREACH),
        (OSError(errno.EROFS, "of the cache directory"), errno.EIO),
        (OfflineMissError("f"), errno.EIO),
        (OriginChangedError("f"), errno.ESTALE),
        (ValueError("f"), errno.EIO),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), errno.ENOENT),
    ],
    ids=repr,
)
def test_errors_of_libraries_have_numbers(error: Exception, number: int) -> None:
    from jcache_plugins.mount.failures import errno_of

    assert errno_of(error) == number


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host/dir/a.bin", "a.bin"),
        ("http://host/dir/a%20b%23%3F.bin", "a b#?.bin"),
        ("https://host/dir/sub/", "sub"),
        ("http://host/dir/./a.bin", "a.bin"),
        ("http://host/dir/%FF", "\udcff"),
        ("http://host/dir/?C=N;O=D", ""),
        ("http://host/elsewhere/a.bin", ""),
        ("http://host/dir/sub/a.bin", ""),
        ("http://host/dir/../", ""),
    ],
)
def test_links_of_a_page_are_names_or_lead_elsewhere(url: str, name: str) -> None:
    from jcache_plugins.mount.names import below_url

    assert below_url("http://host/dir/", url) == name


# Opens a file so many times at once, and says how many have read it, and what.
CROWD = """
import os, sys, threading, time
seen, count = [], int(sys.argv[2])
gate = threading.Barrier(count)
def read():
    gate.wait()
    try:
        with open(sys.argv[1], "rb", buffering=0) as file:
            seen.append(file.read(1))
    except OSError as error:
        seen.append(error.errno)
for _ in range(count):
    threading.Thread(target=read, daemon=True).start()
deadline = time.monotonic() + 60
while len(seen) < count and time.monotonic() < deadline:
    time.sleep(0.02)
print(len(seen), set(seen), flush=True)
"""


@needs_fuse
def test_as_many_programs_as_there_are_open_a_file_that_was_replaced(
    mounted: Mount, http_origin: ScriptedOrigin
) -> None:
    """Each open looks at the mount, and so has the kernel ask once more."""
    path = mounted.directory / "f.bin"
    assert path.read_bytes()[:1] == b"o"
    http_origin.put("f.bin", NEW[:10_000], etag='"2"', head_delay_s=0.3, delay_s=0.3)
    crowd = subprocess.Popen([sys.executable, "-c", CROWD, path, "300"], stdout=subprocess.PIPE, text=True)
    try:
        assert crowd.stdout is not None
        assert crowd.stdout.readline().strip() == "300 {b'n'}"
        assert mounted.stop() == 0
    finally:
        mounted.close()  # or who waits cannot be ended
        crowd.kill()
        crowd.communicate()


@needs_fuse
def test_an_object_of_s3_has_one_time_whoever_tells_it(tmp_path: Path, cache_dir: Path) -> None:
    """Listings tell milliseconds, and nothing else does."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    (tmp_path / "moto").mkdir()
    with s3_servers.Moto(tmp_path / "moto", is_finer=True) as moto:
        boto = s3_servers.client(moto.url)
        boto.create_bucket(Bucket="bucket")
        boto.put_object(Bucket="bucket", Key="d/f", Body=OLD)
        listed = boto.list_objects_v2(Bucket="bucket")["Contents"][0]["LastModified"]
        assert listed.microsecond
        environ = {**s3_servers.KEYS, "AWS_ENDPOINT_URL": moto.url}
        with Mount(tmp_path / "mount", cache_dir, "s3://bucket", **environ) as mount:
            look = "stat -c %.9Y d/f"
            script = f"ls d >/dev/null; {look}; head -c 1 d/f >/dev/null; {look}; sleep 3; {look}"
            assert set(mount.run(script).stdout.split()) == {f"{int(listed.timestamp())}.000000000"}
            assert mount.stop() == 0
