import errno
import os
import subprocess
import sys

import pytest

from jcache.system.storage import Storage

storage = Storage()


def test_descriptors_are_not_inherited(tmp_path):
    fd = storage.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
    assert not os.get_inheritable(fd)
    storage.close(fd)


def test_a_fifo_does_not_hang_who_opens_it_for_reading(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    storage.close(storage.open(str(tmp_path / "fifo"), os.O_RDONLY))


def test_files_are_private_by_default(tmp_path):
    old = os.umask(0)
    try:
        storage.close(storage.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT | os.O_EXCL))
        storage.mkdir(str(tmp_path / "d"))
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_positioned_reads_and_writes(tmp_path):
    fd = storage.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
    assert storage.pwritev(fd, [b"ab", memoryview(b"cd"), bytearray(b"ef")], 3) == 6
    assert storage.pread(fd, 100, 4) == b"bcdef"
    storage.ftruncate(fd, 5)
    storage.fsync(fd)
    assert storage.fstat(fd).st_size == storage.stat(str(tmp_path / "f")).st_size == 5
    storage.utime(fd, (1, 2))
    assert storage.fstat(fd).st_mtime_ns == 2
    storage.utime(str(tmp_path / "f"))
    assert storage.fstat(fd).st_mtime_ns > 2
    storage.close(fd)


def test_names(tmp_path):
    path = str(tmp_path)
    storage.close(storage.open(f"{path}/a", os.O_WRONLY | os.O_CREAT))
    storage.link(f"{path}/a", f"{path}/b")
    with pytest.raises(FileExistsError):
        storage.link(f"{path}/a", f"{path}/b")
    storage.rename(f"{path}/a", f"{path}/c")
    assert sorted(storage.listdir(path)) == ["b", "c"]
    storage.unlink(f"{path}/b")
    storage.mkdir(f"{path}/d")
    storage.rmdir(f"{path}/d")
    assert storage.listdir(path) == ["c"]


def test_a_lock_excludes_another_process_until_the_holder_dies(tmp_path):
    path = str(tmp_path / "f")
    program = (
        "import os, sys; from jcache.system.storage import Storage; s = Storage();"
        f"fd = s.open({path!r}, os.O_RDWR | os.O_CREAT); s.lock(fd); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        fd = storage.open(path, os.O_RDWR)
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the number is looked at below
            storage.lock(fd)
        assert caught.value.errno in {errno.EAGAIN, errno.EACCES}
        holder.kill()
        holder.wait()
    storage.lock(fd)
    storage.close(fd)


def test_locking_what_cannot_be_locked_is_an_oserror():
    fd = os.open("/", os.O_PATH) if hasattr(os, "O_PATH") else -1
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on the system
        storage.lock(fd)
    if fd >= 0:
        os.close(fd)
