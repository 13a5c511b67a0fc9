"""Where the workloads run: servers, wires and cache directories; and how one measured process is run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from daemons import ROOT, XCACHE, Link, Xrootd
from workloads import CACHED, Family, Workload

from jcache.demo.wire import Wire
from jcache.demo.xrootd_server import XrootdServer

sys.path.append(str(ROOT / "tests" / "support"))
from servers import Nginx

if TYPE_CHECKING:
    from data import Data

READER = ROOT / "bench" / "reader.py"
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measured process took.

    Attributes:
        first: Seconds of its first pass, from the first call that names the file.
        steady: Median seconds of the passes after that; of the first where there was one only.
        cpu: Processor seconds of the first pass.
        exit: Seconds from the last byte to the end of the process.
        process: Seconds of the whole process.
    """

    first: float
    steady: float
    cpu: float
    exit: float
    process: float
    nbytes: int
    digest: str
    peak_kib: int


class Stage:
    """Servers, started when they are first needed, and directories; all gone at the end."""

    def __init__(self, data: Data, work: Path) -> None:
        self.data = data
        self.work = work
        self._stack = ExitStack()
        self._made: dict[Any, Any] = {}
        self._caches = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def plain(self) -> Xrootd:
        """The origin of the timed runs."""
        return self._once("plain", lambda: self._stack.enter_context(Xrootd(self.data.directory)))  # type: ignore[no-any-return]

    @property
    def counting(self) -> XrootdServer:
        """The origin of the runs whose bytes are counted: its trace has a line for each range."""
        return self._once("counting", lambda: self._stack.enter_context(XrootdServer(self.data.directory)))  # type: ignore[no-any-return]

    @property
    def nginx(self) -> Nginx:
        """The HTTP origin, which logs what it sends."""

        def start() -> Nginx:
            work = Path(tempfile.mkdtemp(prefix="jcache-bench-nginx-"))
            self._stack.callback(shutil.rmtree, work, ignore_errors=True)
            server = Nginx(self.data.directory, work)
            self._stack.callback(server.stop)
            return server

        return self._once("nginx", start)  # type: ignore[no-any-return]

    def port(self, protocol: str, link: Link | None, *, counted: bool) -> int:
        """Port of the origin, or of the wire before it."""
        server = self.nginx if protocol == "http" else self.counting if counted else self.plain
        if link is None or counted:
            return server.port
        key = (server.port, link)
        return self._once(key, lambda: self._stack.enter_context(Wire(server.port, link.rtt_ms, link.gbit_s))).port  # type: ignore[no-any-return]

    def xcache(self, link: Link | None, *, counted: bool) -> tuple[int, Path]:
        """Port and directory of a proxy cache before the origin."""
        origin = self.port("xrootd", link, counted=counted)

        def start() -> tuple[int, Path]:
            directory = Path(tempfile.mkdtemp(prefix="jcache-bench-xcache-"))
            directory.chmod(0o755)
            self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
            server = self._stack.enter_context(Xrootd(directory, XCACHE, origin=origin))
            return server.port, directory

        return self._once(("xcache", origin), start)  # type: ignore[no-any-return]

    def new_cache(self) -> Path:
        """A directory for one cold run and the warm one after it."""
        self._caches += 1
        return self.work / "caches" / str(self._caches)

    def spec(self, workload: Workload, family: Family, *, cache: Path | None, counted: bool) -> dict[str, Any]:
        """Return what the measured process is to do."""
        spec: dict[str, Any] = {"kind": workload.kind, "passes": workload.passes}
        names = self._files(workload, spec)
        if family == "whole":
            spec["kind"] = "whole"
        prefix = ""
        port = self.port(workload.protocol, workload.link, counted=counted)
        if family == "local":
            base = f"file://{self.data.directory}/"
        elif family == "xcache":
            assert cache is not None
            base = f"root://127.0.0.1:{self.xcache(workload.link, counted=counted)[0]}//"
            names = [self._again(cache, name) for name in names]
        else:
            base = f"root://127.0.0.1:{port}//" if workload.protocol == "xrootd" else f"http://127.0.0.1:{port}/"
            if family in {"blockcache", "filecache"}:
                prefix = f"{family}::"
                spec["options"] = {family: {"cache_storage": str(cache)}}
        spec["urls"] = [f"{prefix}{base}{name}" for name in names]
        if not counted:
            spec["warm_up"] = f"{prefix}{base}{self.data.warm_up()}"
        return spec

    def _files(self, workload: Workload, spec: dict[str, Any]) -> list[str]:
        data = self.data
        if workload.kind == "vectors":
            names, pattern = data.vectors(workload.data)
            spec["file"] = str(pattern)
            return names
        if workload.kind == "uproot":
            from data import COLUMNS

            spec["columns"] = COLUMNS
            return data.agc(workload.data)
        if workload.kind == "many":
            root, objects = data.objects()
            spec["names"] = objects
            return [root]
        spec |= {"step": workload.step, "size": data.size.stream_bytes}
        return [data.stream()]

    def _again(self, cache: Path, name: str) -> str:
        """Another name for a file, which the proxy cache has never heard of."""
        other = f"again-{cache.name}/{name}"
        target = self.data.directory / other
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            for parent in (target.parent, self.data.directory / f"again-{cache.name}"):
                parent.chmod(0o755)
            os.link(self.data.directory / name, target)
        return other

    def run(self, spec: dict[str, Any], *, jcache: Path | None = None, env: dict[str, str] | None = None) -> Sample:
        """Run one measured process."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, os.fspath(READER), "-"],
            input=json.dumps(spec) + "\n",
            env=environment(jcache) | (env or {}),
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        ended = time.monotonic()
        if done.returncode != 0:
            raise RuntimeError(f"{spec['kind']} {spec['urls'][:1]}:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout)
        if result["jcache"] != (jcache is not None):
            raise RuntimeError("JCache is not installed, or active where it should not be")
        seconds = result["seconds"]
        later = sorted(seconds[1:]) or seconds
        return Sample(
            first=seconds[0],
            steady=later[len(later) // 2],
            cpu=result["cpu_s"][0],
            exit=ended - result["ended"],
            process=ended - started,
            nbytes=result["nbytes"],
            digest=result["digest"],
            peak_kib=result["peak_kib"],
        )

    def family(
        self, workload: Workload, family: Family, *, counted: bool = False
    ) -> dict[str, tuple[Sample, int, int]]:
        """Run a workload in one way, cold and then warm where it caches.

        Returns:
            For each way the sample, the data bytes that the origin sent (if `counted`) and those on disk.
        """
        cache = self.new_cache() if family in CACHED else None
        if cache is not None:
            cache.mkdir(parents=True)
        jcache = cache if family in {"jcache", "trusted"} else None
        env = {"JCACHE_VALIDATE": "never"} if family == "trusted" else None
        out = {}
        try:
            for temperature in ("cold", "warm") if cache is not None else ("",):
                spec = self.spec(workload, family, cache=cache, counted=counted)
                if temperature == "cold":
                    spec["passes"] = 1
                if counted:
                    spec |= {"passes": 1, "digest": True}
                before = self._sent(workload) if counted else 0
                sample = self.run(spec, jcache=jcache, env=env)
                sent = self._sent(workload) - before if counted else 0
                where = self.xcache(workload.link, counted=counted)[1] if family == "xcache" else cache
                out[f"{family}-{temperature}".rstrip("-")] = (sample, sent, disk_bytes(where, cache) if counted else 0)
        finally:
            if cache is not None:
                shutil.rmtree(cache, ignore_errors=True)
                shutil.rmtree(self.data.directory / f"again-{cache.name}", ignore_errors=True)
                if family == "xcache":
                    shutil.rmtree(self.xcache(workload.link, counted=counted)[1] / f"again-{cache.name}", True)
        return out

    def _sent(self, workload: Workload) -> int:
        return self.nginx.body_bytes() if workload.protocol == "http" else self.counting.sent_bytes()


def environment(jcache: Path | None) -> dict[str, str]:
    """The environment of a measured process: a user's, with or without JCache."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
    # An installed package has its bytecode; a developer's setting must not have all of it compiled at each start.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    if jcache is not None:
        variables["JCACHE_DIR"] = os.fspath(jcache)
    return variables


def disk_bytes(directory: Path | None, cache: Path | None) -> int:
    """Bytes of the files below a cache directory: their length, or what is allocated where that is less."""
    if directory is None or cache is None:
        return 0
    if directory != cache:
        directory /= f"again-{cache.name}"
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if path.is_file() and ".reports" not in path.parts:
                total += min(status.st_size, status.st_blocks * BLOCK)
    return total


BLOCK = 512
