"""What is known of kinds of file systems and their options, before anything is tried."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jcache.doctor.model import Check, Level

if TYPE_CHECKING:
    from jcache.system.mounts import Mount

__all__ = ["judge"]

_OBJECT_STORES = re.compile(r"fuse\.(s3fs|goofys|mountpoint-s3|mount-s3|gcsfuse|rclone|blobfuse2?|geesefs)|fuse\.s3.*")


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
