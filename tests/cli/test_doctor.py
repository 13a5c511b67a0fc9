"""The doctor: alone, together with a second process, and over file systems that lie."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import FaultyStorage, error

from jcache.cli.doctor import doctor
from jcache.doctor.examine import examine
from jcache.doctor.meeting import ROOT_NAME, meet, workplace
from jcache.doctor.model import Check, Diagnosis, Level, Verdict
from jcache.doctor.mounts import judge
from jcache.doctor.pair import PeerLostError
from jcache.system.mounts import find_mount
from jcache.system.storage import Storage

JCACHE = str(Path(sys.executable).with_name("jcache"))


def levels(diagnosis):
    return {check.name: check.level for check in diagnosis.checks}


def finding(diagnosis, name):
    (check,) = [check for check in diagnosis.checks if check.name == name]
    return check.finding


def together(directory, first, second):
    """Run two doctors of one directory at the same time, and return what both say."""
    found = {}

    def run(number, storage):
        found[number] = examine(str(directory), storage=storage, peer_wait_s=30)

    threads = [threading.Thread(target=run, args=item) for item in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found[0], found[1]


def test_a_plain_directory_is_fit_and_left_as_it_was(tmp_path):
    (tmp_path / "mine").write_text("x")
    tmp_path.chmod(0o700)
    diagnosis = examine(str(tmp_path))
    worst = {name for name, level in levels(diagnosis).items() if level in {Level.LIMIT, Level.BAD}}
    assert worst <= {"file system", "space", "inodes"}, diagnosis  # those are the machine's
    names = {"O_EXCL", "rename", "hard links", "time stamps", "directory time stamps", "latency of create",
             "latency of stat", "latency of append 256 KiB", "latency of read 256 KiB", "latency of list",
             "flock on this node", "O_EXCL on this node", "locks of a killed process"}  # fmt: skip
    assert names <= set(levels(diagnosis))
    assert os.listdir(tmp_path) == ["mine"]


def test_every_failing_operation_is_a_finding_and_never_an_exception(tmp_path):
    counting = FaultyStorage()
    examine(str(tmp_path), storage=counting)
    seen = set()
    for number, name in enumerate(counting.calls):
        if (name, number // 150) in seen:
            continue  # measuring repeats itself
        seen.add((name, number // 150))
        storage = FaultyStorage(lambda _, at, number=number: error(errno.EIO) if at == number else None)
        try:
            examine(str(tmp_path), storage=storage)
        except OSError as problem:
            pytest.fail(f"operation {number} ({name}): {problem}")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_directory_that_cannot_be_written_is_not_fit(tmp_path, number):
    storage = FaultyStorage(lambda name, at: error(number) if name == "mkdir" else None)
    diagnosis = examine(str(tmp_path), storage=storage)
    assert diagnosis.verdict is Verdict.UNFIT
    assert diagnosis.summary == f"{tmp_path} is not fit: write"
    assert os.strerror(number) in finding(diagnosis, "write")


class Lying(Storage):
    """Locks that always succeed and exclude nobody."""

    def lock(self, fd, *, shared=False):
        pass

    def unlock(self, fd):
        pass

    def fcntl(self, fd, command, argument):
        return argument


class Lockless(Storage):
    def lock(self, fd, *, shared=False):
        raise error(errno.ENOLCK)

    def fcntl(self, fd, command, argument):
        raise error(errno.ENOSYS)


def test_locks_that_exclude_nobody_are_found_out(tmp_path):
    diagnosis = examine(str(tmp_path), storage=Lying())
    assert levels(diagnosis)["flock on this node"] is Level.LIMIT
    assert "granted to both at once" in finding(diagnosis, "flock on this node")
    assert "granted to both at once" in finding(diagnosis, "range locks on this node")
    assert diagnosis.verdict is Verdict.LIMITS, "bytes are right without locks"


def test_missing_locks_are_told(tmp_path):
    diagnosis = examine(str(tmp_path), storage=Lockless())
    assert "ENOLCK" in finding(diagnosis, "flock on this node")
    assert "ENOSYS" in finding(diagnosis, "range locks on this node")


@pytest.mark.parametrize(
    ("mode", "level", "words"),
    [
        (0o700, Level.OK, "0700, yours"),
        (0o755, Level.NOTE, "others can read"),
        (0o2770, Level.OK, "shared by its group"),
        (0o770, Level.LIMIT, "closed to others"),
        (0o2777, Level.LIMIT, "everybody can write"),
    ],
)
def test_who_may_use_the_directory_is_told(tmp_path, mode, level, words):
    tmp_path.chmod(mode)
    diagnosis = examine(str(tmp_path))
    assert levels(diagnosis)["permissions"] is level
    assert words in finding(diagnosis, "permissions")


def test_other_weaknesses_are_found_out(tmp_path):
    class Weak(Storage):
        def open(self, path, flags, mode=0o600):
            if len(os.path.basename(path)) > 143:
                raise error(errno.ENAMETOOLONG)
            return super().open(path, flags & ~os.O_EXCL, mode)

        def link(self, source, target):
            raise error(errno.EPERM)

        def utime(self, target, times_ns=None):
            super().utime(
                target, None if times_ns is None else tuple(t // 2_000_000_000 * 2_000_000_000 for t in times_ns)
            )

        def unlink(self, path):
            super().unlink(path)
            self.unlinked = True

        def pread(self, fd, size, position):
            if os.fstat(fd).st_nlink == 0:
                raise error(errno.ESTALE)
            return os.pread(fd, size, position)

    found = levels(examine(str(tmp_path), storage=Weak()))
    limited = ("O_EXCL", "names", "time stamps", "unlink while open")
    assert [found[name] for name in limited] == [Level.LIMIT] * 4
    assert found["hard links"] is Level.NOTE


def test_wrong_bytes_are_not_fit(tmp_path):
    class Wrong(Storage):
        def pread(self, fd, size, position):
            return bytes(len(os.pread(fd, size, position)))

    assert levels(examine(str(tmp_path), storage=Wrong()))["write and read"] is Level.BAD


def test_two_doctors_find_each_other_and_agree(tmp_path):
    first, second = together(tmp_path, Storage(), Storage())
    shared = [[check for check in each.checks if "between nodes" in check.name] for each in (first, second)]
    assert {check.name: check.level for check in shared[0][1:]} == {
        **dict.fromkeys(
            ["flock between nodes", "O_EXCL between nodes", "messages between nodes", "new files between nodes",
             "renamed files between nodes", "appended bytes between nodes", "removed files between nodes"], Level.OK
        ),
        "range locks between nodes": Level.OK if sys.platform.startswith("linux") else Level.LIMIT,
    }  # fmt: skip
    assert shared[0][1:] == shared[1][1:]
    assert "same machine" in shared[0][0].finding
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("liar", [0, 1])
def test_locks_that_lie_between_nodes_are_found_out_whichever_node_leads(tmp_path, liar):
    storages = [Storage(), Storage()]
    storages[liar] = Lying()
    for diagnosis in together(tmp_path, *storages):
        assert "granted to both at once" in finding(diagnosis, "flock between nodes")
        assert "granted to both at once" in finding(diagnosis, "range locks between nodes")
        assert diagnosis.verdict is Verdict.LIMITS


def test_appends_that_are_seen_late_and_wrong_are_found_out(tmp_path):
    class Stale(Storage):
        """Shows zeros first, as a client does that has the size but not yet the bytes."""

        def __init__(self):
            self.reads = {}

        def pread(self, fd, size, position):
            data = os.pread(fd, size, position)
            if size != 64 * 1024 or not data:
                return data
            self.reads[position] = self.reads.get(position, 0) + 1
            return bytes(len(data)) if self.reads[position] < 4 else data

    first, second = together(tmp_path, Stale(), Stale())
    for diagnosis in (first, second):
        assert levels(diagnosis)["appended bytes between nodes"] is Level.NOTE
        assert "60 times" in finding(diagnosis, "appended bytes between nodes")


def test_nobody_else_came(tmp_path):
    diagnosis = examine(str(tmp_path), peer_wait_s=0.2)
    assert levels(diagnosis)["between nodes"] is Level.BAD
    assert diagnosis.verdict is Verdict.UNFIT
    assert os.listdir(tmp_path) == []


def test_what_a_killed_doctor_left_stands_in_nobodys_way(tmp_path, monkeypatch):
    monkeypatch.setattr("jcache.doctor.meeting._WELCOME_S", 1.0)
    storage = Storage()
    code = (
        "import sys; from jcache.system.storage import Storage; from jcache.doctor.meeting import meet, workplace;"
        "s = Storage(); w = workplace(s, sys.argv[1]); print(w, flush=True); meet(s, w, wait_s=60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as killed:
        killed.stdout.readline()
        offer = tmp_path / ROOT_NAME / "offer"
        while not (offer.exists() and any(offer.iterdir())):
            time.sleep(0.005)
        killed.kill()
    started_s = time.monotonic()
    work = [workplace(storage, str(tmp_path)) for _ in range(2)]
    met = {}
    threads = [threading.Thread(target=lambda i=i: met.update({i: meet(storage, work[i], wait_s=60)})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {met[0].is_first, met[1].is_first} == {True, False}
    assert time.monotonic() - started_s < 55


def test_old_remains_are_removed(tmp_path):
    old = tmp_path / ROOT_NAME / "0123"
    (old / "many").mkdir(parents=True)
    (old / "many" / "f1").write_text("x")
    os.utime(old, (0, 0))
    examine(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_messages_of_any_length_pass(tmp_path):
    storage = Storage()
    work = [workplace(storage, str(tmp_path)) for _ in range(2)]
    met = {}
    threads = [threading.Thread(target=lambda i=i: met.update({i: meet(storage, work[i], wait_s=30)})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in ("", "x" * 10, os.urandom(5000).hex()):
        met[0].channel.send({"text": text})
        met[1].channel.send({"text": text, "back": True})
        assert met[1].channel.receive() == {"text": text}
        assert met[0].channel.receive() == {"text": text, "back": True}
    with pytest.raises(PeerLostError):
        met[0].channel.receive(0.05)


TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /data rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2,local_lock=none
31 27 0:41 / /data/with\\040space rw - lustre mgs@tcp:/fs rw,flock
32 27 0:42 / /data/with\\040space rw - lustre mgs@tcp:/fs rw,localflock
33 27 0:43 / /ro ro,relatime - ext4 /dev/vdb rw
34 27 0:44 / /s3 rw - fuse.mount-s3 mountpoint-s3 rw
35 27 0:45 / /gpfs rw - gpfs fs1 rw
36 27 0:46 / /ceph rw - ceph mon:/ rw
37 27 0:47 / /mem rw - tmpfs tmpfs rw
not a line of this table
38 27 0:48 / /nolock rw - nfs server:/export rw,vers=3,nolock
"""


@pytest.mark.parametrize(
    ("path", "kind", "level", "words"),
    [
        ("/home/x", "ext4", Level.OK, "not shared"),
        ("/data", "nfs4", Level.NOTE, "attribute cache"),
        ("/database", "ext4", Level.OK, ""),
        ("/data/with space/x", "lustre", Level.LIMIT, "localflock"),
        ("/ro/x", "ext4", Level.BAD, "read-only"),
        ("/s3/bucket", "fuse.mount-s3", Level.BAD, "object store"),
        ("/gpfs", "gpfs", Level.NOTE, "every node"),
        ("/ceph/x", "ceph", Level.OK, "reads ahead"),
        ("/mem", "tmpfs", Level.LIMIT, "in memory"),
        ("/nolock", "nfs", Level.LIMIT, "nolock"),
    ],
)
def test_mounts(path, kind, level, words):
    mount = find_mount(path, TABLE)
    check = judge(mount)
    assert (mount.kind, check.level) == (kind, level)
    assert words in check.finding
    assert level not in {Level.LIMIT, Level.BAD} or check.advice, "what is worse than it could be comes with advice"


def test_an_unknown_mount_is_no_verdict():
    assert judge(find_mount("/x", "")).level is Level.NOTE


def test_the_worst_finding_decides():
    def of(*found):
        return Diagnosis("/d", "h", [Check(level.value, level, "") for level in found])

    assert of(Level.OK, Level.NOTE).summary == "/d is fit"
    assert of(Level.OK, Level.LIMIT).summary == "/d is fit with limits: limit"
    assert of(Level.LIMIT, Level.BAD).summary == "/d is not fit: bad"


def test_the_command(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    run = CliRunner().invoke(doctor, [str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith(f"{tmp_path} is fit")
    document = json.loads(CliRunner().invoke(doctor, ["--json", str(tmp_path)]).stdout)
    assert document["fit"] is True
    assert document["verdict"] in {"fit", "fit with limits"}
    assert {"name", "level", "finding", "advice"} == set(document["checks"][0])
    assert CliRunner().invoke(doctor, [str(tmp_path / "missing")]).exit_code == 2
    assert CliRunner().invoke(doctor, ["--peer", "--wait", "0.2", str(tmp_path)]).exit_code == 1
    monkeypatch.delenv("JCACHE_DIR", raising=False)
    nowhere = CliRunner().invoke(doctor, [])
    assert (nowhere.exit_code, nowhere.stderr) == (
        2,
        "jcache: there is no cache directory: name one, or set JCACHE_DIR\n",
    )
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path))
    assert CliRunner().invoke(doctor, []).exit_code == 0


def test_a_terminals_lines_are_as_wide_as_it_is(tmp_path):
    ours, theirs = os.openpty()
    environ = {**os.environ, "COLUMNS": "80"}
    with subprocess.Popen(
        [JCACHE, "doctor", str(tmp_path)], stdout=theirs, stderr=subprocess.DEVNULL, env=environ
    ) as run:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while more := os.read(ours, 65536):
                shown += more
    os.close(ours)
    assert run.returncode == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert " ".join(shown.decode().split()).count("is fit") == 1
    plain = CliRunner().invoke(doctor, [str(tmp_path)]).stdout
    words = [[word for word in text.split() if word.isalpha()] for text in (shown.decode(), plain)]
    assert words[0] == words[1], "nothing is lost"


def test_two_commands_at_the_same_time(tmp_path):
    command = [JCACHE, "doctor", "--peer", "--json", "--wait", "60", str(tmp_path)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    documents = [json.loads(process.communicate(timeout=100)[0]) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    for document in documents:
        found = {check["name"]: check["level"] for check in document["checks"]}
        assert found["flock between nodes"] == found["O_EXCL between nodes"] == "ok"
    assert os.listdir(tmp_path) == []
