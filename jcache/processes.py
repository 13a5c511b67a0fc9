"""Whether other processes of this machine live, and which those are whose numbers mean what they mean here."""

import functools
import os
import zlib

__all__ = ["boot_id", "here", "is_alive"]


@functools.cache
def boot_id() -> str:
    """Return which start of which machine this is; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
            return file.read(64).strip().hex()[:32]
    except OSError:
        return ""  # not Linux, or hidden from this container


def here() -> str:
    """Return a name of where process numbers mean what they mean here: the host, `__`, a hash of boot and namespace.

    Containers with PID namespaces of their own may share a host's name, and so may two machines. A number of one is
    another process in the other. Where the system tells neither boot nor namespace it is the host's name alone.
    """
    return _here(os.getpid())  # a forked child may be in another namespace


@functools.lru_cache(1)
def _here(_pid: int) -> str:
    host = os.uname().nodename
    boot = boot_id()
    try:
        space = os.readlink(b"/proc/self/ns/pid")
    except OSError:
        return host
    return f"{host[:50]}__{zlib.crc32(boot.encode() + space):08x}" if boot else host


def is_alive(pid: int, *, before_s: float | None = None) -> bool:
    """Tell whether a process lives; one that has ended and was not waited for by its parent (a zombie) does not.

    Args:
        pid: Its number, on this machine and in this container.
        before_s: It must have started before this Unix time, since numbers are given again.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # somebody else's process, or a number that no process has
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            values = file.read().rpartition(b")")[2].split()
        if values[0] in (b"Z", b"X"):
            return False
        if before_s is None:
            return True
        with open("/proc/stat", "rb") as file:
            boot_s = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    except (OSError, StopIteration, ValueError, IndexError):
        return True  # no such file system, or none that tells: it exists
    return boot_s + int(values[19]) / os.sysconf("SC_CLK_TCK") <= before_s + 2  # both clocks are good to a second
