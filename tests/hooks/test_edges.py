"""At the edges of files JCache makes of any bounds and of any name what plain fsspec makes of them, cold and warm."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pickle
import random
import re
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import settle

from jcache.activate import deactivate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Nginx, ScriptedOrigin, XrootdServer

    from jcache.session import Session

    Place = tuple[Callable[[bool], Any], Callable[[str], str]]

DATA = b"\n".join(random.Random(4).randbytes(9) for _ in range(10)) + b"\n"
SIZE = len(DATA)
BOUNDS = (None, -SIZE - 7, -5, 0, 7, SIZE, SIZE + 10)
FEW = (-5, 7)
NAMES = ("file", "none", "empty", "dir")
OLD_S = 1_600_000_000
TEXT = {"mode": "r", "encoding": "latin-1", "newline": ""}
STEPS = ((0, -1), (0, 5), (1, 200), (1, -300), (2, -5), (2, -500), (2, 7), (3, 1), (0, SIZE), (0, SIZE + 9))


def told(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or the name of what it raises."""
    try:
        result = call()
    except Exception as error:
        return type(error).__name__
    if isinstance(result, list):
        return [type(one).__name__ if isinstance(one, Exception) else one for one in result]
    return result


def steps(file: Any) -> list[Any]:
    """Read from places in a file and beside it, in all the ways in which files are read."""
    buffer = bytearray(4)
    ways: list[Callable[[], Any]] = [functools.partial(file.read, size) for size in (0, 3, -1, 10**9)]
    for whence, to in STEPS:
        seek = functools.partial(file.seek, to, whence)
        ways += [seek, file.readline, lambda: [file.readinto(buffer), bytes(buffer)], seek, file.readlines]
        ways += [seek, lambda: file.readuntil(b"\n", 3), lambda: file.readuntil(DATA[20:22])]
        ways += [seek, *ways[:4]]
    return [(told(way), file.tell()) for way in ways]


def used(fs: Any, path: str, use: Callable[[Any], Any], **options: Any) -> Any:
    with fs.open(path, **options) as file:
        return use(file)


def calls(fs: Any, path: Callable[[str], str], bounds: tuple[Any, ...]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All that is asked of a file system, by name."""
    paths = [path(name) for name in NAMES]
    for start, end in itertools.product(bounds, bounds):
        span = f"{start}:{end}"
        for name, where in zip(NAMES, paths, strict=True):
            yield f"cat_file {name} {span}", lambda w=where, s=start, e=end: fs.cat_file(w, start=s, end=e)
        for how in ("return", "raise"):
            all_, files = paths if how == "return" else paths[:3:2], paths[:3:2] * 2
            yield f"ranges {span} {how}", lambda p=all_, s=start, e=end, h=how: fs.cat_ranges(p, s, e, on_error=h)
        yield f"vectors {span}", lambda p=files, s=start, e=end: fs.cat_ranges(p, [s, s, 1, 1], [e, e, 3, 3])
    yield "gap", lambda: fs.cat_ranges(paths[:1] * 2, [0, 10], [5, 20], max_gap=50)
    yield "uneven", lambda: fs.cat_ranges(paths[:2], [0], [5])
    yield "no list", lambda: fs.cat_ranges(paths[0], 0, 5)
    yield "no paths", lambda: fs.cat_ranges([], [], [])
    for name, where in zip(NAMES, paths, strict=True):
        yield f"cat {name}", lambda w=where: fs.cat(w)
        yield f"opened {name}: steps", lambda w=where: used(fs, w, steps)
        yield f"opened {name}: text", lambda w=where: used(fs, w, lambda file: file.readlines(), **TEXT)
        for offset, length, end in itertools.product((0, 7, SIZE + 10), (None, 0, 30), (None, b"\n")):
            way = f"opened {name}: read_block {offset} {length} {end}"
            yield way, lambda w=where, o=offset, n=length, d=end: fs.read_block(w, o, n, d)
        for size in (0, 5, -5, 1000):
            yield f"opened {name}: head {size}", lambda w=where, n=size: fs.head(w, n)
            yield f"opened {name}: tail {size}", lambda w=where, n=size: fs.tail(w, n)


def lay(directory: Path) -> None:
    (directory / "dir").mkdir()
    for name, data in (("file", DATA), ("empty", b""), ("dir/x", b"x")):
        (directory / name).write_bytes(data)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (OLD_S, OLD_S))


def memory(_request: pytest.FixtureRequest, _directory: Path, _stack: contextlib.ExitStack) -> Place:
    fs = fsspec.filesystem("memory")
    for name, data in (("file", DATA), ("empty", b""), ("dir/x", b"x")):
        fs.pipe_file(f"/edges/{name}", data)
    return lambda on: fsspec.filesystem("jcache", target_protocol="memory") if on else fs, lambda name: f"/edges/{name}"


def slow(_request: pytest.FixtureRequest, directory: Path, _stack: contextlib.ExitStack) -> Place:
    import filesystems

    filesystems.register()

    def make(on: bool) -> Any:
        return fsspec.filesystem("jcache", target_protocol="slow") if on else fsspec.filesystem("slow")

    return make, lambda name: f"{directory}/{name}"


def http(request: pytest.FixtureRequest, _directory: Path, _stack: contextlib.ExitStack) -> Place:
    server: Nginx = request.getfixturevalue("nginx_server")
    lay(server.directory)
    return lambda _: fsspec.filesystem("http", skip_instance_cache=True), server.url


def s3(_request: pytest.FixtureRequest, directory: Path, stack: contextlib.ExitStack) -> Place:
    import s3_servers

    server = stack.enter_context(s3_servers.Moto(directory))
    client = s3_servers.client(server.url)
    client.create_bucket(Bucket="bucket")
    for name, data in (("file", DATA), ("empty", b""), ("dir/x", b"x")):
        client.put_object(Bucket="bucket", Key=name, Body=data)
    how = {"key": "key", "secret": "secret", "endpoint_url": server.url, "skip_instance_cache": True}
    return lambda _: fsspec.filesystem("s3", **how), lambda name: f"bucket/{name}"


def ftp(_request: pytest.FixtureRequest, directory: Path, stack: contextlib.ExitStack) -> Place:
    from ftp_server import Server

    server = stack.enter_context(Server(directory))
    return lambda _: server.client(), lambda name: f"/{name}"


def sftp(_request: pytest.FixtureRequest, directory: Path, stack: contextlib.ExitStack) -> Place:
    from generic_servers import Sftp

    server = stack.enter_context(Sftp(directory))
    how = {"host": "127.0.0.1", "port": server.port, "username": "user", "password": "secret"}
    return lambda _: fsspec.filesystem("sftp", skip_instance_cache=True, **how), lambda name: f"/{name}"


def xrootd(request: pytest.FixtureRequest, _directory: Path, _stack: contextlib.ExitStack) -> Place:
    server: XrootdServer = request.getfixturevalue("xrootd_server")
    lay(server.directory)
    return lambda _: fsspec.filesystem("root", hostid=server.address, skip_instance_cache=True), lambda n: f"//{n}"


# Where JCache gets further than the plain file system does, and what would only be slow.
NOT_ASKED = {
    ("http", "never"): "opened empty",  # plain sends a stream, which cannot seek; nothing is asked of the server here
    "s3": r"opened (none|empty|dir)|opened \w+: (text|head|read_block)|ranges .*raise",
    "sftp": r"opened \w+: (steps|read_block)",  # its files are none of fsspec's
    # It has no `cat`, and takes lists of bounds only.
    "xrootd": r"ranges|cat |opened dir|vectors .*None",
}


@pytest.mark.parametrize("place", [memory, slow, http, s3, ftp, sftp, xrootd], ids=lambda place: place.__name__)
def test_the_edges_of_files_are_those_of_plain_fsspec(
    place: Any, active: Callable, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    directory, bounds = tmp_path / "served", FEW if place is s3 else BOUNDS
    directory.mkdir()
    lay(directory)
    with contextlib.ExitStack() as stack:
        make, path = place(request, directory, stack)

        def outcomes(run: str) -> dict[str, Any]:
            kinds = (place.__name__, (place.__name__, run))
            past = "|".join(NOT_ASKED[kind] for kind in kinds if kind in NOT_ASKED) or "(?!)"
            fs = make(run != "plain")
            return {name: told(call) for name, call in calls(fs, path, bounds) if not re.match(past, name)}

        deactivate()
        plain, wrong = outcomes("plain"), []
        for run in ("cold", "warm", "never"):
            session = active(validate="never") if run == "never" else active()
            got = outcomes(run)
            wrong += [f"{run} {name}: {got[name]}, plain {plain[name]}" for name in got if got[name] != plain[name]]
            settle()
        assert not wrong, "\n".join([f"{len(wrong)} of {3 * len(plain)} differ", *wrong])
        assert place is memory or session.counters.snapshot().readv_hit


def changes(fs: Any, path: Callable[[str], str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Ways to write, by name, each followed by what is there then."""

    def write(name: str, mode: str, data: Any, *, fails: bool = False, **options: Any) -> Any:
        with fs.open(path(name), mode, **options) as file:
            count = file.write(data)
            if fails:
                raise KeyError(name)
        return count

    def over(name: str) -> bytes:
        with fs.open(path(name), "r+b") as file:
            file.seek(2)
            file.write(b"ZZ")
            file.seek(0)
            return file.read()

    def together(name: str, *, fails: bool) -> None:
        with fs.transaction:
            write(name, "wb", b"all of it", fails=fails)

    def apart(name: str, end: str) -> None:
        file = fs.open(path(name), "wb", autocommit=False)
        file.write(end.encode())
        file.close()
        getattr(file, end)()

    ways: list[tuple[str, str, Any]] = [("a", "wb", functools.partial(write, "a", "wb", b"hello\nworld\n"))]
    for how in ({"newline": "\r\n"}, {"encoding": "utf-16"}, {"encoding": "ascii", "errors": "replace"}):
        ways.append(("t", f"text {how}", functools.partial(write, "t", "w", "h\u00e9llo\nworld\n", **how)))
        ways.append(("t", f"lines {how}", functools.partial(used, fs, path("t"), list, mode="r", **how)))
    for name, mode in (("x", "xb"), ("x", "xb"), ("a", "ab"), ("new", "ab")):
        ways.append((name, mode, functools.partial(write, name, mode, b"more")))
    for codec in ("gzip", "bz2", "infer"):
        ways.append(("c.gz", codec, functools.partial(write, "c.gz", "wt", "c\n" * 100, compression=codec)))
        read = functools.partial(used, fs, path("c.gz"), list, mode="rt", compression=codec)
        ways += [("c.gz", f"{codec} read", read)]
    ways.append(("a", "r+b", functools.partial(over, "a")))
    for name, mode in itertools.product(("a", "failed"), ("wb", "ab")):
        ways.append((name, f"{mode} fails", functools.partial(write, name, mode, b"partial", fails=True)))
    for name in ("a", "late"):
        ways += [(name, end, functools.partial(apart, name, end)) for end in ("discard", "commit")]
        ways += [(name, f"together {no}", functools.partial(together, name, fails=no)) for no in (True, False)]
    ways.append(("a", "create", lambda: fs.pipe_file(path("a"), b"z", mode="create")))
    for i, (name, way, call) in enumerate(ways):
        yield f"{i} {way} {name}", call
        if name != "c.gz":  # which has the time in it
            yield f"{i} {way} {name} then", lambda name=name: fs.cat_file(path(name))


@pytest.mark.parametrize("place", [memory, s3, ftp, sftp], ids=lambda place: place.__name__)
def test_what_is_written_is_what_plain_fsspec_writes(
    place: Any, active: Callable, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    directory = tmp_path / "served"
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        make, path = place(request, directory, stack)

        def outcomes(name: str, *, on: bool) -> dict[str, Any]:
            if place in (ftp, sftp):
                (directory / name).mkdir()
            return {way: told(call) for way, call in changes(make(on), lambda file: path(f"{name}/{file}"))}

        deactivate()
        plain = outcomes("plain", on=False)
        active()
        got = outcomes("cached", on=True)
        deactivate()
        cat = make(False).cat_file
        make(False).pipe_file(path("plain/spare"), b"")  # a class that was written to with JCache
        names = ("a", "t", "x", "new", "failed")
        there = [[told(functools.partial(cat, path(f"{run}/{name}"))) for name in names] for run in ("plain", "cached")]
    assert {way: (got[way], plain[way]) for way in plain if got[way] != plain[way]} == {}
    assert there[0] == there[1]
    assert b"world" in there[0][1]


def test_a_file_of_another_kind_has_what_it_has_plain(active: Callable[..., Session], tmp_path: Path) -> None:
    from generic_servers import Sftp

    lay(tmp_path)
    with Sftp(tmp_path) as server:
        how = {"host": "127.0.0.1", "port": server.port, "username": "user", "password": "secret"}

        def seen() -> Any:
            fs = fsspec.filesystem("sftp", skip_instance_cache=True, **how)
            with fs.open("/file") as file:
                head = file.read(3)
                file.prefetch()
                ranges = list(file.readv([(0, 3), (20, 5)]))
                file.seek(3)
                return head, ranges, file.stat().st_size, file.read(), hasattr(file, "name")

        deactivate()
        plain = seen()
        session = active()
        for _ in ("cold", "warm"):
            assert seen() == plain
        assert session.counters.snapshot().read_hit


@pytest.mark.parametrize("place", [slow, http, s3, ftp, xrootd], ids=lambda place: place.__name__)
def test_a_file_object_is_carried_to_another_process_and_read_there_through_the_cache(
    place: Any, active: Callable[..., Session], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    directory = tmp_path / "served"
    directory.mkdir()
    lay(directory)
    with contextlib.ExitStack() as stack:
        make, path = place(request, directory, stack)

        def seen(*, on: bool) -> Any:
            with make(on).open(path("file")) as file:
                file.seek(5)
                with pickle.loads(pickle.dumps(file)) as again:
                    return again.tell(), again.read(), again == file, hash(again) == hash(file), again.blocksize

        deactivate()
        plain = seen(on=False)
        session = active()
        for hit in (0, SIZE - 5):
            assert seen(on=True) == plain
            assert session.counters.snapshot().read_hit >= hit
        assert not session.counters.snapshot().read_bypass


def test_a_vector_with_a_range_without_bytes_is_counted_once(active: Any, http_origin: ScriptedOrigin) -> None:
    http_origin.put("f", bytes(2000))
    url = http_origin.url("f")
    for hit in (0, 1000):
        session = active()
        fs, _ = fsspec.url_to_fs(url, skip_instance_cache=True)
        assert fs.cat_ranges([url] * 2, [0, 500], [1000, 500]) == [bytes(1000), b""]
        counted = session.counters.snapshot()
        assert (counted.readv_ops, counted.readv_ranges) == (1, 2)
        assert (counted.readv_hit, counted.readv_miss) == (hit, 1000 - hit)
        settle()
