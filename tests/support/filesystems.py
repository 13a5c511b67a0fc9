"""Two remote file systems over a local directory, one synchronous, one asynchronous, that count what they serve."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from jcache.session import current
from jcache.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Seen:
    """What a file system was asked for, over all its instances."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self.calls: Counter[str] = Counter()
            self.ranges: list[tuple[str, int, int]] = []

    def call(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1

    def range(self, path: str, start: int, stop: int) -> None:
        with self._lock:
            if start < stop:
                self.ranges.append((os.path.basename(path), start, stop))

    @property
    def data_bytes(self) -> int:
        with self._lock:
            return sum(stop - start for _, start, stop in self.ranges)


seen = Seen()


def details(path: str) -> dict[str, Any]:
    if os.path.basename(path) == "hidden":
        raise PermissionError(13, "Forbidden", path)  # as S3 says of what is not there to whom it lists nothing
    status = os.stat(path)
    kind = "directory" if os.path.isdir(path) else "file"
    return {"name": path, "size": status.st_size, "type": kind, "mtime": status.st_mtime_ns / 1e9}


def piece(path: str, start: int | None, end: int | None) -> bytes:
    if os.path.basename(path) in {"refused", "hidden"}:
        raise PermissionError(path)
    size = os.path.getsize(path)
    first, stop, _ = slice(start, end).indices(size)
    with open(path, "rb") as file:
        file.seek(first)
        data = file.read(max(0, stop - first))
    seen.range(path, first, first + len(data))
    return data


class _Writer(io.BytesIO):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            with open(self._path, "wb") as file:
                file.write(self.getvalue())
        super().close()


class _Reader(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return piece(self.path, start, end)


class SlowFileSystem(AbstractFileSystem):
    """Synchronous, with nothing but what a file system must have."""

    protocol = "slow"
    cachable = True

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        seen.call("info")
        return details(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        seen.call("ls")
        path = self._strip_protocol(path)
        names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
        return [details(name) for name in names] if detail else names

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        seen.call("open")
        if mode == "rb":
            return _Reader(self, path, mode, block_size or "default", cache_type="none")
        return _Writer(path)

    def rm_file(self, path: str) -> None:
        os.unlink(self._strip_protocol(path))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        shutil.copyfile(self._strip_protocol(path1), self._strip_protocol(path2))


class AsyncSlowFileSystem(AsyncFileSystem):
    """Asynchronous, likewise. `gate` and `arrived` let a test hold reads back, `info_gate` what asks for a version."""

    protocol = "aslow"
    cachable = True
    gate: threading.Event | None = None
    info_gate: threading.Event | None = None
    arrived = threading.Semaphore(0)

    async def _held(self, gate: threading.Event | None) -> None:
        if gate is not None:
            self.arrived.release()
            await asyncio.sleep(0.001)
            while not gate.is_set():
                await asyncio.sleep(0.001)

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        seen.call("info")
        await self._held(self.info_gate)
        return details(self._strip_protocol(path))

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        seen.call("ls")
        path = self._strip_protocol(path)
        names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
        return [details(name) for name in names] if detail else names

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        seen.call("cat_file")
        await self._held(self.gate)
        return piece(self._strip_protocol(path), start, end)

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        seen.call("open")
        if mode == "rb":
            return _Reader(self, path, mode, block_size or "default", cache_type="none")
        return _Writer(path)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with open(self._strip_protocol(path), "wb") as file:
            file.write(value)

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **kwargs: Any) -> None:
        shutil.copyfile(lpath, self._strip_protocol(rpath))

    async def _get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        if os.path.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        with open(lpath, "wb") as file:
            file.write(piece(rpath, None, None))

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        os.unlink(self._strip_protocol(path))

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        shutil.copyfile(self._strip_protocol(path1), self._strip_protocol(path2))


def register() -> None:
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    fsspec.register_implementation("aslow", AsyncSlowFileSystem, clobber=True)


def settings(cache_dir: Path, **fields: Any) -> Config:
    """Settings of a session inside the test's own process, which prints and leaves nothing."""
    return Config(dir=str(cache_dir), json=str(cache_dir.parent / "reports"), summary=False, **fields)


def eventually(holds: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until a condition holds, and fail where it does not within a bounded time."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def settle() -> None:
    """Wait until all that was fetched is in the journals."""
    session = current()
    assert session is not None
    assert session.recorder.flush(60)
