"""`jcache mount` as a process of its own, mounted by the kernel, and programs that read there."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# However busy the machine is; nothing takes so long.
LIMIT_S = 300


def why_not() -> str | None:
    """Say why nothing can be mounted here; None where it can."""
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be used: {error.strerror}"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    try:
        import mfusepy  # noqa: F401 - it looks for libfuse
    except (AttributeError, OSError) as error:
        return f"libfuse cannot be used: {error}"
    return None


needs_fuse = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def is_mounted(directory: Path) -> bool:
    """Whether the kernel has a mount there, dead or not."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[1] == os.fspath(directory) for line in table)


def wait_until_unmounted(directory: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while is_mounted(directory):
        assert time.monotonic() < deadline, f"{directory} is still mounted"
        time.sleep(0.02)


class Mount:
    """A running `jcache mount`, in a directory of its own; `stop` ends it, and returns its exit code.

    Attributes:
        directory: Where it is mounted.
        stderr: What it has said.
    """

    def __init__(
        self, work: Path, cache: Path, url: str, *args: str, directory: Path | None = None, **environ: str
    ) -> None:
        self.directory = directory or work / "mounted"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._reports = work / "reports"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
        clean |= {"JCACHE_DIR": os.fspath(cache), "JCACHE_JSON": os.fspath(self._reports), "JCACHE_RETRIES": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jcache", "mount", url, os.fspath(self.directory), *args],
            env={**clean, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stderr = ""
        self._is_mounted = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._is_mounted.wait(LIMIT_S) or " at " not in self.stderr:
            self.close()
            raise RuntimeError(f"no mount: {self.stderr}")
        assert f" at {self.directory}\n" in self.stderr, self.stderr

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line
            if line.startswith("jcache: mounted "):
                self._is_mounted.set()
        self._is_mounted.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End it whatever happens, and have nothing mounted."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)
        if is_mounted(self.directory):
            subprocess.run(["fusermount3", "-uz", "--", self.directory], check=False, capture_output=True)
        self._reader.join(LIMIT_S)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a user does."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return code

    @property
    def report(self) -> dict[str, Any]:
        """What it has read, once it has ended."""
        (path,) = self._reports.glob("*.json")
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def run(self, script: str, *, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell's there."""
        return run(script, self.directory, check=check, **environ)


def run(script: str, directory: Path, *, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell's in a directory, as programs that know nothing of JCache."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env={**clean, "PYTHON": sys.executable, "LC_ALL": "C.UTF-8", **environ},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=LIMIT_S,
        check=False,
    )
    assert not check or done.returncode == 0, (script, done.stdout, done.stderr)
    return done


# Has a file open, says what it got of it, and reads on when it is told to: what it gets then, or the error's number.
READER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print(os.read(file, 10).hex(), flush=True)
for line in sys.stdin:
    try:
        print(len(os.pread(file, 65536, int(line))), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


class Reader:
    """A program that has a file open."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, os.fspath(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def read(self, position: int) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{position}\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.communicate(timeout=LIMIT_S)


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    reader = Reader(path)
    try:
        yield reader
    finally:
        reader.close()


def abandoned(directory: Path) -> Iterator[Path]:
    """Have a FUSE file system there whose process is no more."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    failed = libc.mount(b"jcache-test", os.fsencode(directory), b"fuse.jcache-test", 0, options.encode())
    number = ctypes.get_errno()
    os.close(device)
    if failed:
        pytest.skip(f"a FUSE file system cannot be mounted by hand: {os.strerror(number)}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)
