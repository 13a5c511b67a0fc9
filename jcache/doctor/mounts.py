"""What is mounted where the directory is, and what is known of such file systems and their options."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from jcache.doctor.model import Check, Level

__all__ = ["Mount", "find_mount", "judge"]

_MOUNTINFO = "/proc/self/mountinfo"
_NETWORK = frozenset({"nfs", "nfs3", "nfs4", "ceph", "fuse.ceph-fuse", "fuse.ceph", "lustre", "gpfs", "cifs", "smb3"})
_SHARED = _NETWORK | frozenset(
    {"beegfs", "beegfs_nodev", "panfs", "wekafs", "pvfs2", "orangefs", "glusterfs", "fuse.glusterfs", "fuse.juicefs",
     "afs", "ocfs2", "gfs2", "fuse.eosxd", "fuse.eosxd3", "fuse.quobyte", "fuse.moosefs", "fuse.mfs"}
)  # fmt: skip
_OBJECT_STORES = re.compile(r"fuse\.(s3fs|goofys|mountpoint-s3|mount-s3|gcsfuse|rclone|blobfuse2?|geesefs)|fuse\.s3.*")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    kind: str
    source: str
    point: str
    options: frozenset[str]
    """Of the mount and of the file system."""

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may have the same file system."""
        return self.kind in _SHARED

    def option(self, name: str) -> str | None:
        """Return the value of an option `name=value`, empty for a bare name, or None."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def find_mount(path: str, table: str | None = None) -> Mount | None:
    """Return what is mounted where a path is, or None where the system does not tell.

    Args:
        path: Existing.
        table: The mount table in the form of Linux; the system's own by default.
    """
    if table is None:
        try:
            with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
                table = file.read()
        except OSError:
            return None
    path = os.path.realpath(path)
    best: Mount | None = None
    for line in table.splitlines():
        mount = _parse(line)
        if mount is None or not _is_below(path, mount.point):
            continue
        # Of two at one place the later hides the earlier.
        if best is None or len(mount.point) >= len(best.point):
            best = mount
    return best


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _parse(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    options = [*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ())]
    return Mount(rest[0], _unescape(rest[1]), _unescape(fields[4]), frozenset(filter(None, options)))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def judge(mount: Mount | None) -> Check:
    """Tell what is known of a file system before anything is tried on it."""
    name = "file system"
    if mount is None:
        return Check(name, Level.NOTE, "unknown: this system does not tell what is mounted")
    what = f"{mount.kind} ({mount.source}) at {mount.point}, {','.join(sorted(mount.options))}"
    for applies, level, finding, advice in _rules(mount):
        if applies:
            return Check(name, level, f"{what}: {finding}", advice)
    if mount.is_shared:
        return Check(name, Level.OK, what)
    return Check(name, Level.OK, f"{what}: not shared with other nodes, as far as is known")


def _rules(mount: Mount) -> list[tuple[bool, Level, str, str]]:
    kind, options = mount.kind, mount.options
    is_nfs, is_cifs = kind.startswith("nfs"), kind in {"cifs", "smb3"}
    local_lock = mount.option("local_lock") in {"flock", "all"}
    limit, note, bad = Level.LIMIT, Level.NOTE, Level.BAD
    return [
        ("ro" in options, bad, "mounted read-only", "mount it rw, or take another directory"),
        (_OBJECT_STORES.fullmatch(kind) is not None, bad, "an object store behind a file system cannot append to files",
         "take a local or a shared POSIX directory (CephFS, NFS 4, Lustre, GPFS)"),
        (kind.startswith("fuse.cvmfs"), bad, "read-only by nature", "take another directory"),
        (is_nfs and ("nolock" in options or local_lock), limit, "locks stay on this node (nolock, local_lock)",
         "mount it with vers=4.2, without nolock and local_lock"),
        (is_nfs, note, "what others append shows when the attribute cache expires",
         "mount it with vers=4.2; actimeo=1 makes what others wrote show after a second"),
        (kind == "lustre" and "localflock" in options, limit, "locks stay on this node (localflock)",
         "mount it with -o flock"),
        (kind == "lustre" and "flock" not in options, limit, "no locks (neither flock nor localflock)",
         "mount it with -o flock"),
        (kind == "gpfs", note, "has been known to grant one flock to every node", "try it from two nodes: --peer"),
        (is_cifs and "nobrl" in options, limit, "locks stay on this node (nobrl)", "mount it without nobrl"),
        (kind == "fuse.sshfs", limit, "no locks between nodes, and slow", "mount it with NFS 4 instead"),
        (kind in {"ceph", "fuse.ceph-fuse", "fuse.ceph"}, Level.OK,
         "reads ahead, which multiplies the traffic of scattered reads",
         "mount it with little read-ahead (kernel: rasize; ceph-fuse: client_readahead_max_bytes)"),
        (kind in {"tmpfs", "ramfs"}, limit, "in memory: it counts as such, and is gone with the node's next start",
         "fine for a trial; else take a disk or a shared file system"),
        (kind in {"overlay", "aufs"}, limit, "a container's own: it goes with the container",
         "mount a directory of the host, or a shared file system, into the container"),
        (kind in {"vfat", "msdos", "exfat"}, limit, "no permissions, coarse times", "take a POSIX file system"),
        ("sync" in options, limit, "every write waits for the disk (sync)", "mount it without sync"),
    ]  # fmt: skip
