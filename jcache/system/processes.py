"""Whether other processes of this machine live, and which those are whose numbers mean what they mean here."""

import os

__all__ = ["boot_id", "here", "host_and_space", "is_alive"]

# Loaded as every interpreter starts, so it imports nothing at its top.
_boot_ids: list[str] = []
_heres: dict[int, str] = {}


def boot_id() -> str:
    """Return which start of which machine this is; empty where the system does not say."""
    if not _boot_ids:
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
                _boot_ids.append(file.read(64).strip().hex()[:32])
        except OSError:
            _boot_ids.append("")  # not Linux, or hidden from this container
    return _boot_ids[0]


def host_and_space() -> str:
    """Return the host's name and, with a `/` before it, the number of its space of process numbers, if it tells."""
    host = os.uname().nodename
    try:
        return f"{host}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return host


def here() -> str:
    """Return a name of where process numbers mean what they mean here: the host, `__`, a hash of boot and namespace.

    Containers with PID namespaces of their own may share a host's name, and so may two machines. A number of one is
    another process in the other. Where the system tells neither boot nor namespace it is the host's name alone.
    """
    pid = os.getpid()  # a forked child may be in another namespace
    if pid not in _heres:
        import zlib

        host, _, space = host_and_space().partition("/")
        boot = boot_id()
        known = boot and space
        _heres.clear()
        _heres[pid] = f"{host[:50]}__{zlib.crc32((boot + space).encode()):08x}" if known else host
    return _heres[pid]


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
