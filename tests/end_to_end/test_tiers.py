"""A cache of several directories: the first is written, the others are asked for what it lacks before the origin is."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from analysis import CLIENT, COLUMNS, JOB, MORE_COLUMNS, write
from click.testing import CliRunner
from places import SUPPORT

from jcache.cli.group import main

if TYPE_CHECKING:
    from pathlib import Path

    from analysis import Served
    from conftest import Ran, RunPython
    from servers import Nginx

pytestmark = pytest.mark.turns("served")

READ = """
import sys, fsspec
fs = fsspec.filesystem("http")
for span in sys.argv[2:]:
    start, stop = map(int, span.split("-"))
    rows = fs.cat_ranges([sys.argv[1]] * 2, [start, 400_000], [stop, 400_000 + stop - start])
    sys.stdout.write(rows[0].hex() + "\\n")
"""
SIZE = 500_000


@pytest.fixture
def file(nginx_server: Nginx) -> bytes:
    data = os.urandom(SIZE)
    (nginx_server.directory / "f").write_bytes(data)
    os.utime(nginx_server.directory / "f", (1_600_000_000, 1_600_000_000))
    nginx_server.reset()
    return data


@pytest.fixture
def read(run_python: RunPython, nginx_server: Nginx, file: bytes) -> Any:
    def run(*spans: str, tiers: list[Path], **env: str) -> Ran:
        ran = run_python(READ, nginx_server.url("f"), *spans, env={"JCACHE_DIR": ":".join(map(str, tiers)), **env})
        for line, span in zip(ran.stdout.split(), spans, strict=True):
            start, stop = map(int, span.split("-"))
            assert bytes.fromhex(line) == file[start:stop]
        return ran

    return run


def recorded(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.seg"))


def test_what_the_first_lacks_is_read_below_and_what_all_lack_is_fetched_into_the_first(
    read: Any, nginx_server: Nginx, tmp_path: Path
) -> None:
    near, middle, far = (tmp_path / name for name in ("near", "middle", "far"))
    read("0-1000", "5000-6000", tiers=[far])
    read("5000-6000", "9000-9500", tiers=[middle])
    before = recorded(middle), recorded(far)
    nginx_server.reset()
    ran = read("0-1000", "5200-5800", "9000-9500", tiers=[near, middle, far], JCACHE_COPY="0")
    assert nginx_server.body_bytes() == 0
    report = ran.report
    assert report["readv"]["hit_bytes"] == report["readv"]["bytes"] == 2 * 2100
    places = {tier["place"]: tier["hit_bytes"] for tier in report["tiers"]}
    assert sum(places.values()) == 4200
    # What lies in both of them is read in the nearer one.
    assert places == {str(middle): 3200, str(far): 1000}
    nginx_server.reset()
    ran = read("0-1000", "20000-21000", tiers=[near, middle, far], JCACHE_COPY="0")
    assert nginx_server.body_bytes() == 1000
    assert ran.report["cache"]["recorded_bytes"] == 1000
    assert (recorded(middle), recorded(far)) == before, "they are never written"
    nginx_server.reset()
    ran = read("20000-21000", tiers=[near])
    assert nginx_server.body_bytes() == 1000, "of the other range, which lay below"


@pytest.mark.parametrize(
    ("copy", "reads"), [("1", 1), ("2", 2), pytest.param("3", 3, marks=pytest.mark.long), ("0", None)]
)
def test_what_is_read_so_often_below_is_copied_into_the_first(
    read: Any, nginx_server: Nginx, tmp_path: Path, copy: str, reads: int | None
) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    read("0-1000", tiers=[far])
    nginx_server.reset()
    for times in (1, 2, 3):
        shutil.rmtree(near, ignore_errors=True)
        ran = read(*["0-1000"] * times, tiers=[near, far], JCACHE_COPY=copy)
        copied = sum(tier["copied_bytes"] for tier in ran.report["tiers"])
        assert copied == (2000 if reads is not None and times >= reads else 0), times
    nginx_server.reset()
    read("0-1000", tiers=[near], JCACHE_VALIDATE="never")
    assert nginx_server.body_bytes() == (2000 if reads is None else 0)


# argv: URL, bytes a second that directories deliver (0: as they do).
LARGE = """
import hashlib, os, sys, time, fsspec, jcache.session
from jcache.journal import Journal
from jcache.system.storage import Storage
url, rate = sys.argv[1], int(sys.argv[2])
def pread(self, fd, size, position):
    time.sleep(size / rate)
    return os.pread(fd, size, position)
if rate:
    Storage.pread = pread
append, sizes = Journal.append, [0]
def appended(self, version, info, extents):
    sizes.append(sum(len(data) for _, data in extents))
    return append(self, version, info, extents)
Journal.append = appended
print(hashlib.sha256(fsspec.filesystem("http").cat_file(url)).hexdigest(), flush=True)
jcache.session.current().recorder.flush(1 if rate else 60)
print(max(sizes))
"""


@pytest.fixture
def large(run_python: RunPython, nginx_server: Nginx, tmp_path: Path) -> bytes:
    """A file of 64 MiB, in the lower tier."""
    data = random.Random(3).randbytes(1 << 20) * 64
    (nginx_server.directory / "large").write_bytes(data)
    os.utime(nginx_server.directory / "large", (1_600_000_000, 1_600_000_000))
    run_python(LARGE, nginx_server.url("large"), "0", cache=tmp_path / "far")
    return data


def test_a_large_read_is_copied_piece_by_piece(
    run_python: RunPython, nginx_server: Nginx, large: bytes, tmp_path: Path
) -> None:
    env = {"JCACHE_DIR": f"{tmp_path / 'near'}:{tmp_path / 'far'}", "JCACHE_COPY": "1"}
    ran = run_python(LARGE, nginx_server.url("large"), "0", env=env)
    digest, most_bytes = ran.stdout.split()
    assert digest == hashlib.sha256(large).hexdigest()
    assert ran.report["tiers"][0]["copied_bytes"] == len(large)
    assert int(most_bytes) <= 8 << 20


def test_a_large_copy_is_no_directory_that_hangs(
    run_python: RunPython, nginx_server: Nginx, large: bytes, tmp_path: Path
) -> None:
    """What is left of it is given up when the process ends: it is where it was."""
    env = {"JCACHE_DIR": f"{tmp_path / 'near'}:{tmp_path / 'far'}", "JCACHE_COPY": "1", "JCACHE_TIMEOUT": "1"}
    ran = run_python(LARGE, nginx_server.url("large"), "20_000_000", env=env)
    assert ran.stdout.split()[0] == hashlib.sha256(large).hexdigest()
    assert "did not answer" not in ran.stderr, ran.stderr
    assert 0 < ran.report["tiers"][0]["copied_bytes"] < len(large)


def test_a_newer_file_is_never_mixed_with_what_lies_below(
    read: Any, run_python: RunPython, nginx_server: Nginx, tmp_path: Path, file: bytes
) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    read("0-1000", tiers=[far])
    newer = os.urandom(SIZE)
    (nginx_server.directory / "f").write_bytes(newer)
    os.utime(nginx_server.directory / "f", (1_650_000_000, 1_650_000_000))
    env = {"JCACHE_DIR": f"{near}:{far}"}
    for _ in range(2):
        ran = run_python(READ, nginx_server.url("f"), "0-1000", env=env)
        assert bytes.fromhex(ran.stdout.strip()) == newer[:1000]
    ran = run_python(READ, nginx_server.url("f"), "0-1000", env={**env, "JCACHE_OFFLINE": "1"})
    assert bytes.fromhex(ran.stdout.strip()) == newer[:1000]


@pytest.mark.parametrize("what", ["gone", "file", "damaged", "no cache"])
def test_a_tier_that_is_of_no_use_costs_no_read(read: Any, nginx_server: Nginx, tmp_path: Path, what: str) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    read("0-1000", tiers=[far])
    if what == "gone":
        shutil.rmtree(far)
    elif what == "file":
        shutil.rmtree(far)
        far.write_text("x")
    elif what == "no cache":
        shutil.rmtree(far)
        (far / "other").mkdir(parents=True)
    else:
        for path in far.rglob("*.seg"):
            raw = bytearray(path.read_bytes())
            raw[len(raw) // 4] ^= 1
            raw[len(raw) // 2] ^= 1
            path.write_bytes(raw)
    nginx_server.reset()
    ran = read("0-1000", "0-1000", tiers=[near, far])
    assert nginx_server.body_bytes() >= 1000
    assert ("is left out" in ran.stderr) == (what in ("gone", "file"))


def test_a_first_directory_that_cannot_be_written_leaves_the_others_to_be_read(
    read: Any, nginx_server: Nginx, tmp_path: Path
) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    read("0-1000", tiers=[far])
    read("2000-3000", tiers=[near])
    near.chmod(0o500)
    nginx_server.reset()
    try:
        read("0-1000", "2000-3000", tiers=[near, far])
    finally:
        near.chmod(0o700)
    assert nginx_server.body_bytes() == 0


def test_without_a_network_all_tiers_together_are_enough(served: Served, run_python: RunPython, tmp_path: Path) -> None:
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))
    near, far = tmp_path / "near", tmp_path / "far"
    some = run_python(JOB, ",".join(COLUMNS), *urls, cache=far, env=CLIENT)
    served.reset()
    more = run_python(JOB, ",".join(MORE_COLUMNS), *urls, env={**CLIENT, "JCACHE_DIR": f"{near}:{far}"})
    assert 0 < served.data_bytes() == more.report["cache"]["recorded_bytes"]
    served.stop()
    env = {**CLIENT, "JCACHE_DIR": f"{near}:{far}", "JCACHE_OFFLINE": "1"}
    again = run_python(JOB, ",".join(MORE_COLUMNS), *urls, env=env)
    assert again.stdout == more.stdout
    assert run_python(JOB, ",".join(COLUMNS), *urls, env=env).stdout == some.stdout
    served.start()


def test_small_files_are_found_below_too(run_python: RunPython, nginx_server: Nginx, tmp_path: Path) -> None:
    code = """
import sys, fsspec
fs = fsspec.filesystem("http")
print(sum(map(len, fs.cat([sys.argv[1] + str(n) for n in range(40)]).values())))
"""
    for number in range(40):
        (nginx_server.directory / f"s{number}").write_bytes(bytes(number + 1))
        os.utime(nginx_server.directory / f"s{number}", (1_600_000_000, 1_600_000_000))
    near, far = tmp_path / "near", tmp_path / "far"
    total = sum(range(41))
    assert run_python(code, nginx_server.url("s"), cache=far).stdout == f"{total}\n"
    nginx_server.reset()
    ran = run_python(code, nginx_server.url("s"), env={"JCACHE_DIR": f"{near}:{far}", "JCACHE_VALIDATE": "never"})
    assert ran.stdout == f"{total}\n"
    assert nginx_server.body_bytes() == 0
    assert ran.report["tiers"] == [{"place": str(far), "hit_bytes": total, "copied_bytes": 0}]


# -- a tier that goes in mid-job --------------------------------------------------------------------------------------

# argv: URL, what happens behind the fourth of twelve reads, and to which directory.
GOES = f"""
import os, shutil, sys, time, fsspec
sys.path.insert(0, {os.fspath(SUPPORT)!r})
fs, (url, what, which) = fsspec.filesystem("http"), sys.argv[1:]
if what == "hangs":
    import hanging
    hanging.be_far()
for number in range(12):
    if number == 4 and what == "hangs":
        hanging.begin()
    elif number == 4 and what in ("removed", "closed"):
        if what == "closed":
            from jcache.system import descriptors
            descriptors._close_idle(0, 0)  # as where others need them
        shutil.rmtree(which) if os.path.isdir(which) else os.unlink(which)
    elif number == 4 and what == "a file":
        shutil.rmtree(which)
        open(which, "w").close()
    at = number % 6 * 70_000
    rows = fs.cat_ranges([url] * 2, [at, at + 30_000], [at + 20_000, at + 60_000])
    sys.stdout.write(b"".join(rows).hex() + "\\n")
    time.sleep(0.05)
"""


def of_twelve(file: bytes) -> list[str]:
    places = [number % 6 * 70_000 for number in range(12)]
    return [(file[at : at + 20_000] + file[at + 30_000 : at + 60_000]).hex() for at in places]


@pytest.mark.turns("copy")
@pytest.mark.parametrize("copy", ["0", "1"])
@pytest.mark.parametrize("which", ["near", "far"])
@pytest.mark.parametrize("what", ["removed", "closed", "a file", "hangs"])
def test_a_tier_that_goes_in_mid_job_costs_no_read(
    run_python: RunPython, nginx_server: Nginx, file: bytes, tmp_path: Path, what: str, which: str, copy: str
) -> None:
    url, near, far = nginx_server.url("f"), tmp_path / "near", tmp_path / "far"
    run_python(GOES, url, "nothing", "", cache=far)
    env = {"JCACHE_DIR": f"{near}:{far}", "JCACHE_COPY": copy, "JCACHE_TIMEOUT": "1", "JCACHE_JSON": None}
    ran = run_python(GOES, url, what, str(tmp_path / which), env=env, timeout_s=60)
    assert ran.stdout.split() == of_twelve(file)
    if what != "hangs":
        again = run_python(GOES, url, "nothing", "", env=env)
        assert again.stdout.split() == of_twelve(file)


def test_a_bundle_that_goes_in_mid_job_while_it_is_closed_costs_no_read(
    run_python: RunPython, nginx_server: Nginx, file: bytes, tmp_path: Path
) -> None:
    url, near, far, target = nginx_server.url("f"), tmp_path / "near", tmp_path / "far", tmp_path / "f.jcb"
    run_python(GOES, url, "nothing", "", cache=far, env={"JCACHE_PROFILE": str(tmp_path / "profiles")})
    made = CliRunner().invoke(
        main, ["bundle", "create", str(tmp_path / "profiles"), "--dir", str(far), "-o", str(target)]
    )
    assert made.exit_code == 0, made.output
    nginx_server.reset()
    env = {"JCACHE_BUNDLES": str(target), "JCACHE_COPY": "0"}
    ran = run_python(GOES, url, "closed", str(target), cache=near, env=env, timeout_s=60)
    assert ran.stdout.split() == of_twelve(file)
    assert ran.report["tiers"][0]["hit_bytes"] == 4 * 50_000


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root")
def test_a_first_tier_that_is_full_costs_no_read(
    run_python: RunPython, nginx_server: Nginx, file: bytes, tmp_path: Path
) -> None:
    url, near, far = nginx_server.url("f"), tmp_path / "near", tmp_path / "far"
    run_python(GOES, url, "nothing", "", cache=far)
    near.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "jcache-test", near], check=True)
    try:
        env = {"JCACHE_DIR": f"{near}:{far}", "JCACHE_COPY": "1"}
        nginx_server.reset()
        ran = run_python(GOES, url, "nothing", "", env=env)
        assert ran.stdout.split() == of_twelve(file)
        assert nginx_server.body_bytes() == 0, "what could not be copied is read below"
    finally:
        subprocess.run(["umount", near], check=True)


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_tier_on_a_dead_mount_costs_no_read(
    run_python: RunPython, nginx_server: Nginx, file: bytes, tmp_path: Path, dead_mount: Path, which: str
) -> None:
    url, other = nginx_server.url("f"), tmp_path / "other"
    run_python(GOES, url, "nothing", "", cache=other)
    tiers = [dead_mount / "cache", other] if which == "near" else [other, dead_mount / "cache"]
    env = {"JCACHE_DIR": ":".join(map(str, tiers)), "JCACHE_TIMEOUT": "1", "JCACHE_JSON": None}
    began_s = time.monotonic()
    ran = run_python(GOES, url, "nothing", "", env=env, timeout_s=60)
    assert ran.stdout.split() == of_twelve(file)
    assert time.monotonic() - began_s < 20


WRITE = """
import sys, fsspec
endpoint, b, what = sys.argv[1:4]
fs = fsspec.filesystem("s3", endpoint_url=endpoint)
names = ["x", "y", "d/x", "d/e/y", "new", "kept"]
def outcome(what, name):
    try: return getattr(fs, what)(f"{b}/{name}")
    except Exception as error: return type(error).__name__
def told():
    fs.invalidate_cache()
    return [[outcome("cat_file", name), outcome("exists", name)] for name in names], fs.ls(b, detail=False)
if what == "fill":
    fs.mkdir(b)
    for name in names[:4] + ["kept"]: fs.pipe_file(f"{b}/{name}", b"old " + name.encode())
    told()
if what == "write":
    fs.pipe_file(f"{b}/x", b"new"), fs.rm(f"{b}/y"), fs.rm(f"{b}/d", recursive=True), fs.pipe_file(f"{b}/new", b"new")
if what == "read":
    print(told())
"""
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def test_what_was_written_is_not_read_below(run_python: RunPython, tmp_path: Path) -> None:
    """Judge: plain fsspec."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        near, far = tmp_path / "near", tmp_path / "far"

        def run(what: str, *tiers: Path) -> str:
            cache = {"JCACHE_DIR": ":".join(map(str, tiers)), "JCACHE_VALIDATE": "never"} if tiers else {}
            return run_python(WRITE, endpoint, "bucket", what, env={**KEYS, **cache}, cache=None).stdout

        run("fill", far)
        run("write", near, far)
        expected = run("read")
        assert "b'new'" in expected
        for _ in range(2):
            assert run("read", near, far) == expected
    finally:
        server.stop()
