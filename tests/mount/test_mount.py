"""Programs that know nothing of JCache read a mount as a directory of this machine: plain, cold, warm, offline."""

from __future__ import annotations

import os
import random
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import analysis
import pytest
import s3_servers
from mounts import Mount, needs_fuse, run
from servers import Nginx, find_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

WHEN = 1_700_000_000
ODD = ["with a blank", "100%25 é ü", "plus+and&equals=;,", 'it\'s "quoted"', "[brackets] {braces} $dollar", "~tilde:@"]

MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    print(len(data), data[5], bytes(data[70_000:70_005]), data.rfind(data[-3:]), hash(bytes(data)))
"""
HDF5 = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    print(file["ints"][::97].sum(), file["ints"].shape, list(file.attrs))
"""


def python(script: str, *args: str) -> str:
    return f"PYTHONHASHSEED=0 $PYTHON -c {shlex.quote(script)} {shlex.join(args)}"


PROGRAMS = {
    "cat": "cat a.bin sub/deep/b.bin | sha256sum",
    "sha256sum": "find . -type f -print0 | sort -z | xargs -0 sha256sum",
    "dd": "dd if=a.bin bs=1000 skip=1234 count=77 status=none | sha256sum",
    "tail": "tail -c 333 a.bin | sha256sum",
    "cp": 'rm -rf "$COPY"; cp -r --preserve=timestamps . "$COPY"; cd "$COPY"; find . -type f -print0 | sort -z |'
    " xargs -0 sha256sum; find . -type f -printf '%P %s %Ts\\n' | sort",
    "find": "find . | sort; find . -type f -size +100k -newermt @1600000000 | sort",
    "ls": "ls -1 . sub; ls -l --time-style=+%s a.bin sub/deep | awk '{ print $5, $6, $7 }' | grep -v '^ *$'",
    "stat": "stat -c '%n %s %Y %F' a.bin sub sub/deep/b.bin",
    "absent": "! cat nothing; ! ls nothing/at/all; ! cat a.bin/below",
    "mmap": python(MAP, "a.bin"),
    "uproot": python(analysis.JOB, ",".join(analysis.COLUMNS), "events.root"),
    "h5py": python(HDF5, "data.h5"),
}


class Origin(Protocol):
    """A server with the files of a directory."""

    url: str
    environ: dict[str, str]

    def stop(self) -> None: ...


def fill(directory: Path, odd: list[str]) -> None:
    import h5py
    import numpy as np

    (directory / "sub" / "deep").mkdir(parents=True)
    rng = random.Random(7)
    (directory / "a.bin").write_bytes(rng.randbytes(3_000_000))
    (directory / "sub" / "deep" / "b.bin").write_bytes(rng.randbytes(200_001))
    (directory / "sub" / "empty").write_bytes(b"")
    (directory / "sub" / "one page").write_bytes(rng.randbytes(4096))
    for name in odd:
        (directory / "sub" / name).write_bytes(name.encode())
    analysis.write(directory / "events.root", rntuple=False)
    with h5py.File(directory / "data.h5", "w") as file:
        file["ints"] = np.arange(100_000)
        file.attrs["unit"] = "mm"
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (WHEN, WHEN))


class NginxOrigin:
    def __init__(self, directory: Path, work: Path) -> None:
        if find_nginx() is None:
            pytest.skip("nginx is not installed")
        (directory / "listed").mkdir()
        work.mkdir()
        self.files = directory / "listed"
        fill(self.files, ODD)
        self._server = Nginx(directory, work)
        self.url, self.environ = self._server.url("listed"), {}

    def stop(self) -> None:
        self._server.stop()


class XrootdOrigin:
    def __init__(self, server: Any) -> None:
        self.files = server.directory
        fill(self.files, ODD)
        self._server = server
        self.url, self.environ = f"root://localhost:{server.port}//", dict(analysis.CLIENT)

    def stop(self) -> None:
        self._server.stop()


class S3Origin:
    def __init__(self, directory: Path, moto: s3_servers.Moto) -> None:
        self.files = directory
        fill(directory, ODD)
        self._server = moto
        boto = s3_servers.client(moto.url)
        boto.create_bucket(Bucket="bucket")
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                boto.put_object(Bucket="bucket", Key=f"data/{path.relative_to(directory)}", Body=path.read_bytes())
        self.url, self.environ = "s3://bucket/data", {**s3_servers.KEYS, "AWS_ENDPOINT_URL": moto.url}

    def stop(self) -> None:
        self._server.__exit__()


class SftpOrigin:
    def __init__(self, directory: Path) -> None:
        from generic_servers import Sftp

        self.files = directory
        fill(directory, ODD)
        server = Sftp(directory)
        server.wait()
        self.url, self.environ = f"sftp://user:secret@127.0.0.1:{server.port}/", {}
        self._server: Sftp | None = server

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.__exit__()


@pytest.fixture(params=["nginx", "xrootd", "s3", "sftp"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    files = tmp_path / "files"
    files.mkdir()
    with ExitStack() as stack:
        if request.param == "nginx":
            found: Any = NginxOrigin(files, tmp_path / "nginx")
        elif request.param == "xrootd":
            found = XrootdOrigin(request.getfixturevalue("xrootd_server"))
        elif request.param == "s3":
            pytest.importorskip("s3fs")
            found = S3Origin(files, stack.enter_context(s3_servers.Moto(tmp_path)))
        else:
            found = SftpOrigin(files)
        stack.callback(found.stop)
        yield found


def outputs(directory: Path, copy: Path, *, times: bool) -> dict[str, str]:
    told = {name: run(script, directory, COPY=os.fspath(copy)).stdout for name, script in PROGRAMS.items()}
    if not times:  # S3 has those of its own
        told["cp"] = "\n".join(line for line in told["cp"].splitlines() if "  ./" in line)
        del told["ls"], told["stat"]
    for name in ("stat", "ls"):  # directories have sizes and times of their own
        if name in told:
            told[name] = "\n".join(line for line in told[name].splitlines() if "directory" not in line)
    return told


@pytest.mark.parametrize(
    "origin",
    ["nginx", *(pytest.param(name, marks=pytest.mark.long) for name in ("xrootd", "s3", "sftp"))],
    indirect=True,
)
def test_every_program_reads_what_the_origin_has(origin: Any, tmp_path: Path, cache_dir: Path) -> None:
    times = not isinstance(origin, S3Origin)
    plain = outputs(origin.files, tmp_path / "copy", times=times)
    for phase in ("cold", "warm", "offline"):
        if phase == "offline":
            origin.stop()
        environ = {**origin.environ, **({"JCACHE_OFFLINE": "1"} if phase == "offline" else {})}
        with Mount(tmp_path / phase, cache_dir, origin.url, **environ) as mount:
            told = outputs(mount.directory, tmp_path / "copy", times=times)
            for name, text in plain.items():
                assert told[name] == text, (phase, name)
            assert mount.stop() == 0
            assert "Traceback" not in mount.stderr, mount.stderr
            assert "secret" not in mount.stderr
            report = mount.report
        assert report["cache"]["failures"] == 0
        if phase == "cold":
            assert report["origin"]["bytes"] > 3_000_000
        else:
            read = report["read"]
            assert (report["origin"]["bytes"], read["miss_bytes"], read["bypass_bytes"]) == (0, 0, 0), phase
            assert read["hit_bytes"] > 3_000_000


@pytest.fixture
def nginx_mount(nginx_server: Nginx, tmp_path: Path, cache_dir: Path) -> Iterator[Mount]:
    """A mount of nginx, whose directory `listed` it lists, and no other one."""
    fill(nginx_server.directory, [])
    (nginx_server.directory / "listed").mkdir()
    (nginx_server.directory / "listed" / "c.bin").write_bytes(b"c")
    with Mount(tmp_path / "mount", cache_dir, nginx_server.url()) as mount:
        yield mount


def test_what_is_not_listed_is_found_by_its_name(nginx_mount: Mount, nginx_server: Nginx) -> None:
    assert "ermission denied" in nginx_mount.run("ls", check=False).stderr
    assert nginx_mount.run("ls listed; cat listed/c.bin").stdout == "c.bin\nc"
    name = "sub/deep/b.bin"
    assert nginx_mount.run(f"cat {name} | cmp - {shlex.quote(str(nginx_server.directory / name))}").stdout == ""
    assert "No such file" in nginx_mount.run("cat sub/nothing", check=False).stderr


def test_the_ranges_of_programs_are_recorded_in_whole_pages(nginx_mount: Mount) -> None:
    nginx_mount.run("dd if=a.bin bs=100 skip=5000 count=1 status=none | wc -c")
    nginx_mount.run("dd if=a.bin bs=65536 skip=32 count=1 status=none | wc -c")
    assert nginx_mount.stop() == 0
    read, page = nginx_mount.report["read"], os.sysconf("SC_PAGESIZE")
    asked = -(-500_100 // page) * page - 500_000 // page * page + 65536
    assert read["miss_bytes"] == asked
    assert nginx_mount.report["origin"]["bytes"] == asked


def test_eight_readers_at_once_fetch_each_byte_once(nginx_mount: Mount, nginx_server: Nginx) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sha256sum a.bin & done; wait"
    found = nginx_mount.run(script).stdout.split("\n")[:-1]
    expected = run("sha256sum a.bin", nginx_server.directory).stdout.strip()
    assert found == [expected] * 8
    assert nginx_mount.stop() == 0
    assert nginx_mount.report["origin"]["bytes"] == 3_000_000


def test_nothing_can_be_written(nginx_mount: Mount) -> None:
    scripts = ("echo > a.bin", "echo >> a.bin", "touch new", "rm a.bin", "mkdir new", "mv a.bin b", "chmod 600 a.bin")
    for script in (*scripts, "ln a.bin b", "ln -s a.bin b", "truncate -s 0 a.bin", "touch -d @0 a.bin"):
        done = nginx_mount.run(script, check=False)
        assert done.returncode != 0, script
        assert "Read-only file system" in done.stderr, (script, done.stderr)
    options = run(f"grep -F {shlex.quote(str(nginx_mount.directory))} /proc/self/mounts", nginx_mount.directory).stdout
    assert {"ro", "nosuid", "nodev", "noatime", "default_permissions"} <= set(options.split(" ")[3].split(","))
    assert options.split(" ")[2] == "fuse.jcache"
