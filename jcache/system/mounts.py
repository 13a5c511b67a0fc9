"""What is mounted where a directory is."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = ["Mount", "find_mount"]

_MOUNTINFO = "/proc/self/mountinfo"
_NETWORK = frozenset({"nfs", "nfs3", "nfs4", "ceph", "fuse.ceph-fuse", "fuse.ceph", "lustre", "gpfs", "cifs", "smb3"})
_SHARED = _NETWORK | frozenset(
    {"beegfs", "beegfs_nodev", "panfs", "wekafs", "pvfs2", "orangefs", "glusterfs", "fuse.glusterfs", "fuse.juicefs",
     "afs", "ocfs2", "gfs2", "fuse.eosxd", "fuse.eosxd3", "fuse.quobyte", "fuse.moosefs", "fuse.mfs"}
)  # fmt: skip
# Their disks are this machine's: a read may take long, but does not wait for another machine.
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "tmpfs", "ramfs", "overlay"})


class Mount(NamedTuple):
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

    @property
    def is_local(self) -> bool:
        """Whether no other machine, and no program, stands between this one and the files."""
        return self.kind in _LOCAL

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
