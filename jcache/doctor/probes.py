"""What the cache asks of a directory, tried by one process."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import statistics
import time
from typing import TYPE_CHECKING

from jcache.doctor.model import Check, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcache.system.storage import Storage

__all__ = ["check_directory", "latencies", "read_file", "tries", "write_file"]

_LITTLE_BYTES = 1_000_000_000
_LEAST_BYTES = 10_000_000
_FEW_INODES = 10_000
_COMPONENT_BYTES = 200  # the longest name that the cache's tree uses
_SAMPLES = 60
_SAMPLE_BYTES = 256 * 1024
_BUDGET_S = 2.0
_SLOW_READ_S, _SLOW_CREATE_S = 0.02, 0.2


def write_file(storage: Storage, path: str, data: bytes, flags: int = os.O_CREAT | os.O_EXCL) -> None:
    """Write a file in one go.

    Raises:
        OSError: It was not written, or not all of it.
    """
    fd = storage.open(path, os.O_RDWR | flags)
    try:
        if storage.pwritev(fd, [data], 0) != len(data):
            raise OSError(28, os.strerror(28), path)
    finally:
        storage.close(fd)


def read_file(storage: Storage, path: str, size: int = 1 << 20) -> bytes:
    """Return what a file has, at most `size` bytes of it."""
    fd = storage.open(path, os.O_RDONLY)
    try:
        return storage.pread(fd, size, 0)
    finally:
        storage.close(fd)


def check_directory(storage: Storage, directory: str) -> Iterator[Check]:
    """Look at space, inodes and permissions; nothing is written."""
    try:
        status = storage.stat(directory)
        space = storage.statvfs(directory)
    except OSError as error:
        yield Check("access", Level.BAD, f"cannot be looked at: {error.strerror}")
        return
    free = space.f_bavail * space.f_frsize
    finding = f"{free / 1e9:.1f} GB free of {space.f_blocks * space.f_frsize / 1e9:.1f} GB"
    level = Level.BAD if free < _LEAST_BYTES else Level.LIMIT if free < _LITTLE_BYTES else Level.OK
    yield Check("space", level, finding, "" if level is Level.OK else "make room, or take another directory")
    if 0 <= space.f_favail <= space.f_files != 0:  # some say -1 where there is no limit
        level = Level.BAD if not space.f_favail else Level.LIMIT if space.f_favail < _FEW_INODES else Level.OK
        yield Check("inodes", level, f"{space.f_favail} free of {space.f_files}")
    else:
        yield Check("inodes", Level.OK, "no limit is told")
    mode = stat.S_IMODE(status.st_mode)
    owner = "yours" if status.st_uid == os.geteuid() else f"of user {status.st_uid}"
    if mode & stat.S_IWOTH:
        yield Check(
            "permissions", Level.LIMIT, f"{mode:04o}, {owner}: everybody can write",
            "whoever can is trusted with the bytes: chmod o-w; to share it with a group, chmod 2770"
        )  # fmt: skip
    elif mode & stat.S_IWGRP and not mode & stat.S_ISGID:
        yield Check(
            "permissions", Level.LIMIT, f"{mode:04o}, {owner}: what a member of its group makes is closed to others",
            "chmod g+s, before it is filled: what is made in it is then of its group"
        )  # fmt: skip
    elif mode & stat.S_IWGRP:
        yield Check("permissions", Level.OK, f"{mode:04o}, {owner}: shared by its group")
    elif mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IXOTH):
        yield Check("permissions", Level.NOTE, f"{mode:04o}, {owner}: others can read what is made readable to them")
    else:
        yield Check("permissions", Level.OK, f"{mode:04o}, {owner}")


def tries(storage: Storage, work: str) -> Iterator[Check]:
    """Try out, in an empty directory, what the cache does with files; what fails is a finding.

    Args:
        storage: The file system.
        work: Where to try. Files stay there, for the caller to remove.
    """
    attempts: tuple[tuple[str, Level, Callable[[Storage, str], Check]], ...] = (
        ("write and read", Level.BAD, _try_write),
        ("O_EXCL", Level.LIMIT, _try_exclusive),
        ("rename", Level.LIMIT, _try_rename),
        ("hard links", Level.NOTE, _try_link),
        ("unlink while open", Level.LIMIT, _try_unlink),
        ("names", Level.LIMIT, _try_names),
        ("time stamps", Level.LIMIT, _try_times),
        ("directory time stamps", Level.LIMIT, _try_directory_times),
    )
    for name, level, attempt in attempts:
        try:
            yield attempt(storage, os.path.join(work, secrets.token_hex(4)))
        except OSError as error:
            yield Check(name, level, f"fails: {error.strerror or error}")


def _try_write(storage: Storage, path: str) -> Check:
    name = "write and read"
    blocks = [secrets.token_bytes(5000) for _ in range(4)]
    fd = storage.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        for number, block in enumerate(blocks):
            if storage.pwritev(fd, [block[:2000], block[2000:]], 5000 * number) != len(block):
                return Check(name, Level.BAD, "less is written than asked for", "is there a quota?")
        storage.ftruncate(fd, 17_000)
        size = storage.fstat(fd).st_size
    finally:
        storage.close(fd)
    data = read_file(storage, path)
    if size != 17_000 or data != b"".join(blocks)[:17_000]:
        return Check(name, Level.BAD, "what is read is not what was written")
    return Check(name, Level.OK, "what was written is read")


def _try_exclusive(storage: Storage, path: str) -> Check:
    write_file(storage, path, b"first")
    try:
        write_file(storage, path, b"second")
    except FileExistsError:
        return Check("O_EXCL", Level.OK, "a file is created once")
    return Check("O_EXCL", Level.LIMIT, "a file that exists is created again", "names are random, so bytes are safe")


def _try_rename(storage: Storage, path: str) -> Check:
    write_file(storage, path, b"old")
    write_file(storage, f"{path}.new", b"new")
    storage.rename(f"{path}.new", path)
    names = storage.listdir(os.path.dirname(path))
    if read_file(storage, path) != b"new" or os.path.basename(path) + ".new" in names:
        return Check("rename", Level.LIMIT, "a renamed file is not seen under its new name")
    return Check("rename", Level.OK, "a renamed file replaces another at once")


def _try_link(storage: Storage, path: str) -> Check:
    write_file(storage, path, b"x")
    try:
        storage.link(path, f"{path}.link")
    except OSError as error:
        return Check("hard links", Level.NOTE, f"none: {error.strerror}")
    return Check("hard links", Level.OK, "work")


def _try_unlink(storage: Storage, path: str) -> Check:
    write_file(storage, path, b"still there")
    fd = storage.open(path, os.O_RDONLY)
    try:
        storage.unlink(path)
        data = storage.pread(fd, 100, 0)
    except OSError as error:
        return Check(
            "unlink while open", Level.LIMIT, f"what is removed cannot be read any more: {error.strerror}",
            "readers fall back to the origin when files are removed"
        )  # fmt: skip
    finally:
        storage.close(fd)
    if data != b"still there":
        return Check("unlink while open", Level.LIMIT, "what is removed reads as something else")
    return Check("unlink while open", Level.OK, "what is removed stays readable to who has it open")


def _try_names(storage: Storage, path: str) -> Check:
    long = os.path.join(os.path.dirname(path), "n" * _COMPONENT_BYTES)
    try:
        write_file(storage, long, b"x")
        write_file(storage, f"{path}@%é~=,:+", b"x")
    except OSError as error:
        return Check(
            "names", Level.LIMIT, f"not all names are taken: {error.strerror}",
            "remote files whose names are long or unusual are not cached; JCACHE_FLAT=1 shortens paths"
        )  # fmt: skip
    write_file(storage, f"{path}.case", b"x")
    try:
        storage.stat(f"{path}.CASE")
    except FileNotFoundError:
        return Check("names", Level.OK, f"{_COMPONENT_BYTES} bytes, upper and lower case apart")
    return Check(
        "names", Level.NOTE, "upper and lower case are one: some journals share a directory, which is harmless"
    )


def _try_times(storage: Storage, path: str) -> Check:
    write_file(storage, path, b"x")
    before_s = time.time()
    storage.utime(path)
    skew_s = storage.stat(path).st_mtime_ns / 1e9 - before_s
    precise_ns = 1_234_567_891_123_456_789  # odd seconds: FAT keeps even ones
    storage.utime(path, (precise_ns, precise_ns))
    lost_ns = abs(storage.stat(path).st_mtime_ns - precise_ns)
    grain = "1 ns" if not lost_ns else f"{_grain(lost_ns) / 1e9:g} s"
    finding = f"kept to {grain}; the file system's clock differs by {skew_s:+.3f} s"
    if abs(skew_s) > 5:
        return Check(
            "time stamps", Level.LIMIT, finding, "set the clocks (NTP); JCACHE_VALIDATE in seconds is off by that"
        )
    if lost_ns > 1_000_000_000:
        return Check("time stamps", Level.LIMIT, finding, "what others publish may be noticed late")
    return Check("time stamps", Level.OK, finding)


def _grain(lost_ns: int) -> int:
    """Return the grain that a loss suggests: a power of ten, or FAT's two seconds."""
    return 2_000_000_000 if lost_ns >= 1_000_000_000 else int(10 ** len(str(lost_ns)))


def _try_directory_times(storage: Storage, path: str) -> Check:
    name = "directory time stamps"
    storage.mkdir(path)
    for waited_s in (0.02, 1.1, 2.1):
        first = storage.stat(path).st_mtime_ns
        time.sleep(waited_s)  # the grain of the stamps
        write_file(storage, os.path.join(path, f"{waited_s}"), b"x")
        if storage.stat(path).st_mtime_ns != first:
            return Check(name, Level.OK, f"change with every new file (waited {waited_s:g} s)")
    return Check(
        name,
        Level.LIMIT,
        "do not change when a file is created",
        "what others publish is noticed by new processes only",
    )


def latencies(storage: Storage, work: str) -> Iterator[Check]:
    """Measure how long each kind of operation takes; at most two seconds each."""
    data = secrets.token_bytes(_SAMPLE_BYTES)
    path = os.path.join(work, "latency")
    directory = os.path.join(work, "many")
    storage.mkdir(directory)
    fd = storage.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def create(number: int) -> None:
        storage.close(storage.open(os.path.join(directory, f"f{number}"), os.O_RDWR | os.O_CREAT | os.O_EXCL))

    operations: tuple[tuple[str, Callable[[int], object], float], ...] = (
        ("create", create, _SLOW_CREATE_S),
        ("stat", lambda number: storage.stat(os.path.join(directory, f"f{number % created}")), _SLOW_READ_S),
        ("append 256 KiB", lambda number: storage.pwritev(fd, [data], number * _SAMPLE_BYTES), _SLOW_CREATE_S),
        (
            "read 256 KiB",
            lambda number: storage.pread(fd, _SAMPLE_BYTES, number % appended * _SAMPLE_BYTES),
            _SLOW_READ_S,
        ),
        ("list", lambda _number: storage.listdir(directory), _SLOW_CREATE_S),
    )
    created = appended = 1
    try:
        for name, operation, slow_s in operations:
            times = _time(operation)
            if name == "create":
                created = len(times)
            elif name.startswith("append"):
                appended = len(times)
            yield _judge_times(name, times, slow_s)
    except OSError as error:
        yield Check("latency", Level.BAD, f"fails: {error.strerror or error}")
    finally:
        with contextlib.suppress(OSError):
            storage.close(fd)


def _time(operation: Callable[[int], object]) -> list[float]:
    times: list[float] = []
    deadline_s = time.perf_counter() + _BUDGET_S
    while len(times) < _SAMPLES and (len(times) < 2 or time.perf_counter() < deadline_s):
        started_s = time.perf_counter()
        operation(len(times))
        times.append(time.perf_counter() - started_s)
    return times


def _judge_times(name: str, times: list[float], slow_s: float) -> Check:
    median_s = statistics.median(times)
    high_s = statistics.quantiles(times, n=20, method="inclusive")[-1]
    finding = f"median {median_s * 1e3:.3f} ms, 95 % within {high_s * 1e3:.3f} ms ({len(times)} times)"
    if median_s > slow_s:
        return Check(
            f"latency of {name}", Level.LIMIT, finding, "slower than many origins: is the network or server busy?"
        )
    return Check(f"latency of {name}", Level.OK, finding)
