"""One cache directory: made, tagged, probed, and cut into one directory for each journal."""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from jcache.cache.catalogue import key_of
from jcache.cache.owners import keyed, owner_of
from jcache.naming import identity as identities
from jcache.naming import layout
from jcache.naming.identity import Identity
from jcache.system.mounts import find_mount
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from jcache.cache.written import Written
    from jcache.journal import Journal, Turns
    from jcache.journal.journal import Below

TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# This file marks a directory that JCache fills: what is in it can be had again from where it came.\n"
    b"# Backup programs skip such directories, see https://bford.info/cachedir/\n"
)
"""What the convention asks of a cache directory; the first line is its signature, byte by byte."""

_PROBE_PREFIX = ".probe-"
# No component of an object's path begins with it.
_SEGMENT_PREFIX = "@"
KEY_NAME = ".key"
"""What the hashes of those are made with who have journals of their own."""

_KEY_BYTES = 32
# So long it is not looked for again where there is none: not once for each of many files.
_KEY_ABSENT_S = 1.0
_OURS = frozenset({"jcache.toml", ".reports", ".usage", KEY_NAME})
_PRIVATE_DIR = 0o700
_REASONS = {
    errno.ENOTDIR: "it, or something on the way to it, is a file",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is exhausted",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its symbolic links go round in a circle",
    errno.ESTALE: "the server of its file system has forgotten it",
    errno.ENOTCONN: "its file system is not connected",
    errno.EIO: "its file system fails",
}

# What another member of a group may have left in the tag's place: a file of his own, a link, a FIFO, a directory.
_NO_TAG = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ESPIPE, errno.EISDIR, errno.ENXIO}


class CacheUnusable(Exception):  # noqa: N818 (a verdict: the job runs without a cache; no failure of what was asked)
    """The directory is of no use as a cache; the message is one sentence that says why."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(f"the cache directory {directory!r} cannot be used: {reason}")
        self.directory = directory
        self.reason = reason


class Tier(Protocol):
    """Where else than in a cache directory the segments of its journals may lie, to be read only."""

    directory: str
    is_local: bool

    def look_at(self) -> None:
        """Find out whether it can be used; nothing is made or written.

        Raises:
            CacheUnusable: It cannot.
        """
        ...

    def segments_of(self, identity: Identity, *, asker: bool) -> "Below":
        """Return what gives the segments of an object, which may be one of the asker's own, for its journal above."""
        ...

    def is_owned(self, identity: Identity) -> bool:
        """Whether anything of an object is stored for who asks alone."""
        ...

    def may_have(self, identity: Identity) -> bool:
        """Whether there may be anything of a path, of what is below it, or of the names in what it is in."""
        ...


class Cache:
    """A directory of journals, one for each remote object.

    Whoever may write to the directory is trusted with the bytes that all its users get, and whoever may read it may
    read those bytes. So it is private: what is made in it is open to its owner alone, unless the root existed already
    and lets a group write or has the set-group-id bit, which is how sharing is asked for: then its own permissions are
    followed. (The mode that `mkdir` leaves by itself, 0755, asks for nothing.)

    Nothing changes after `prepare`, so threads need no lock, and a forked child can go on with it.

    Attributes:
        directory: Absolute path of the root.
        storage: The file system that it is on.
        writable: Whether journals can be written; if not, what is there can still be read.
        is_local: Whether the directory is on this machine's own disks or in its memory.
        reason: Why not, as one sentence, else None.
        dir_mode: Permissions of directories below the root.
        file_mode: Permissions of files below the root.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        storage: Storage | None = None,
        flat: bool = False,
        basepath: str | None = None,
        ignored: identities.IgnoredQuery | None = None,
        same: identities.SameFile | None = None,
    ) -> None:
        """Name a cache directory; nothing is touched before `prepare`.

        Args:
            directory: Its root.
            storage: The file system that it is on; the operating system's by default.
            flat: One directory for each journal right below the root, instead of a tree like the remote one.
            basepath: Where paths contain these directories, what lies before them does not matter (see `identify`).
            ignored: Tells which parameters of a query decide nothing (see `identify`).
            same: Tells by which address a file is known that several endpoints have (see `identify`).
        """
        self.directory = os.path.abspath(directory)
        self.writable = False
        self.is_local = False
        self.reason: str | None = None
        self.dir_mode = _PRIVATE_DIR
        self.file_mode = _PRIVATE_DIR & 0o666
        self.storage = Storage() if storage is None else storage
        self.storage.keep_inside(self.directory)
        self._turns: Turns | None = None
        self._key, self._no_key_until = b"", 0.0
        self._key_lock = threading.Lock()
        # Keyed hashes of who asks, by fingerprint.
        self._owners: dict[str, str] = {}
        self._flat = flat
        # Of journals that are called by hashes of them, by path: so they never change.
        self._keys_known: dict[str, str] = {}
        self._basepath = basepath
        self._ignored = ignored
        self._same = same
        # Others, which are read only, for what this one lacks.
        self.below: tuple[Tier, ...] = ()
        self._written: Written | None = None

    def look_at(self) -> None:
        """Find out whether there is a cache that can be read; nothing is made or written.

        Raises:
            CacheUnusable: There is none.
        """
        try:
            mode = self.storage.stat(self.directory).st_mode
        except OSError as error:
            raise CacheUnusable(self.directory, f"it cannot be read: {_why(error)}") from error
        if not stat.S_ISDIR(mode):
            raise CacheUnusable(self.directory, "it is a file")
        mount = find_mount(self.directory)
        self.is_local = mount is not None and mount.is_local

    def prepare(self) -> None:
        """Make the root where there is none, mark it as a cache, and find out whether it can be written.

        A directory that held other things before is used, but not marked: backup programs skip what is marked.

        Raises:
            CacheUnusable: It can be neither written nor, being no cache yet, read with any use.
        """
        try:
            made = self._make(self.directory)
            mode = self.storage.stat(self.directory).st_mode
        except OSError as error:
            raise CacheUnusable(self.directory, f"it cannot be made: {_why(error)}") from error
        mount = find_mount(self.directory)
        self.is_local = mount is not None and mount.is_local
        if not stat.S_ISDIR(mode):
            raise CacheUnusable(self.directory, "it is a file")
        if not made and mode & (stat.S_ISGID | stat.S_IWGRP):
            # Other bits need no place here: set-group-id is inherited, and sticky is for the root alone.
            self.dir_mode = _PRIVATE_DIR | (mode & 0o077)
            self.file_mode = self.dir_mode & 0o666
        try:
            tagged = self._has_tag()
        except OSError as error:
            raise CacheUnusable(self.directory, f"it cannot be read: {_why(error)}") from error
        try:
            self._probe(mark=not tagged and self._is_ours())
        except OSError as error:
            self.reason = f"nothing can be written to {self.directory!r}: {_why(error)}"
            if not tagged:
                raise CacheUnusable(self.directory, f"nothing can be written to it: {_why(error)}") from error
        else:
            self.writable = True

    def identify(
        self, protocol: str | tuple[str, ...] | list[str], path: str, options: Mapping[str, object]
    ) -> Identity:
        """Return the identity of a remote object, with its place in this cache.

        Raises:
            Unidentifiable: It cannot be told safely which object this is, so it must not be cached.
        """
        return identities.identify(
            protocol, path, options, basepath=self._basepath, flat=self._flat, ignored=self._ignored, same=self._same
        )

    def stored(self, identity: Identity, *, asker: bool = False) -> Identity:
        """Return the identity under which an object is stored here.

        Mostly its own. Where who asks decides which object that is, it has a keyed hash of who that is: keyed, since
        from a bare hash a credential that is short could be guessed.

        Args:
            identity: The object.
            asker: Whether the origin has said that it gives each who asks another file.
        """
        owner = owner_of(identity, asker=asker)
        return identity.of(self._keyed(owner)) if owner else identity

    def knows(self, identity: Identity) -> bool:
        """Whether `stored` takes no look at the directory."""
        return not identity.owner or identity.owner in self._owners

    @property
    def has_owned(self) -> bool:
        """Whether anything here may be stored for one asker alone."""
        return bool(self.key)

    @property
    def key(self) -> bytes:
        """What the hashes of those are made with who have objects of their own; empty where nobody has yet."""
        return self._read_key()

    def adopt(self, key: bytes) -> bool:
        """Take another cache's key, unless there is one; whether it is this cache's now."""
        return (self._read_key() or self._make_key(key)) == key

    def is_owned(self, identity: Identity) -> bool:
        """Whether anything of an object is stored for who asks alone, here or below."""
        if self.has_owned and self.storage.is_there(self.place(self.stored(identity, asker=True).parts)):
            return True
        return any(one.is_owned(identity) for one in self.below)

    def _keyed(self, who: str) -> str:
        if (known := self._owners.get(who)) is None:
            self._no_key_until = 0.0  # another process's key must not be replaced
            key = self._read_key() or self._make_key()
            known = self._owners[who] = keyed(who, key)
        return known

    def _read_key(self) -> bytes:
        if not self._key and time.monotonic() >= self._no_key_until:
            key = b""
            with contextlib.suppress(OSError):
                fd = self.storage.open(os.path.join(self.directory, KEY_NAME), os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    key = self.storage.pread(fd, _KEY_BYTES, 0)
                finally:
                    self.storage.close(fd)
            if len(key) == _KEY_BYTES:
                self._key = key
            else:  # now, and not before: another thread asks meanwhile
                self._no_key_until = time.monotonic() + _KEY_ABSENT_S
        return self._key

    def _make_key(self, key: bytes = b"") -> bytes:
        """Make the key that all who share the directory use; one for this process alone where that cannot be.

        The first one stays, of several threads and of several processes that make one at once.
        """
        with self._key_lock:
            if self._key:
                return self._key
            key = key or os.urandom(_KEY_BYTES)
            name = os.path.join(self.directory, f"{_PROBE_PREFIX}{os.urandom(8).hex()}")
            with contextlib.suppress(OSError):
                if self.writable:
                    self._write(name, key)
                    self._publish_key(name)
                    self._no_key_until = 0.0
                    key = self._read_key() or key
            self._remove(name)
            self._key = key
        return key

    def _publish_key(self, name: str) -> None:
        """Give a file the key's name, unless there is a key by now."""
        target = os.path.join(self.directory, KEY_NAME)
        try:
            self.storage.link(name, target)
        except FileExistsError:
            self._no_key_until = 0.0
            if not self._read_key():  # it is none
                self.storage.rename(name, target)
        except OSError:  # a file system without links
            self.storage.rename(name, target)

    def path(self, identity: Identity) -> str:
        """Return the directory of an object's journal, whether or not it exists."""
        return self.place(self.stored(identity).parts)

    def place(self, parts: tuple[bytes, ...]) -> str:
        """Return the directory of a journal, by its components."""
        return os.path.join(self.directory, *map(os.fsdecode, parts))

    def journal(self, identity: Identity, *, asker: bool = False) -> "Journal":
        """Return the journal of an object, which may be one of the asker's own; nothing is read or made yet."""
        from jcache.cache.books import USAGE_NAME, make_directory
        from jcache.journal import Journal, Turns

        stored = self.stored(identity, asker=asker)
        if self._turns is None:
            directory = os.path.join(self.directory, USAGE_NAME)
            self._turns = Turns(
                self.storage,
                os.path.join(directory, "@turns"),
                mode=self.file_mode,
                prepare=lambda: make_directory(self.storage, directory, self.dir_mode),
            )
        return Journal(
            self.storage,
            self.place(stored.parts),
            stored.key,
            dir_mode=self.dir_mode,
            file_mode=self.file_mode,
            turns=self._turns if self.writable else None,
            below=[one.segments_of(identity, asker=asker) for one in self.below if not self.written.covers(identity)],
        )

    @property
    def written(self) -> "Written":
        """What was written to while others lay below."""
        if self._written is None:
            from jcache.cache.books import USAGE_NAME
            from jcache.cache.written import Written

            directory = os.path.join(self.directory, USAGE_NAME, "@written")
            self._written = Written(self.storage, directory, dir_mode=self.dir_mode, file_mode=self.file_mode)
        return self._written

    def may_have(self, identity: Identity) -> bool:
        """See `Tier`."""
        from jcache.cache.below import may_have

        return may_have(self, identity, above_answers(identity))

    def segments_of(self, identity: Identity, *, asker: bool) -> "Below":
        """See `Tier`."""
        from jcache.cache.below import segments_of

        return segments_of(self, identity, asker=asker)

    def forget(self) -> None:
        """In a forked child: let go of what the parent has locked."""
        self._key_lock = threading.Lock()
        if self._turns is not None:
            self._turns.forget()

    def remove(self, *gone: Identity, below: bool = True) -> None:
        """Remove what is recorded of paths, and of what is below them; readers that have it open keep it.

        What lies in directories below this one stays there, and is passed over from then on.

        Whoever recorded it, and whatever else than the path tells objects apart: where that does so for what is given,
        others of its path go, too. In the flat layout all journals are asked whose they are, once in a process.

        Args:
            gone: The objects.
            below: Whether they may be directories; if not, less is asked in the flat layout.

        Raises:
            OSError: Something could not be removed.
        """
        for identity in gone if self.below else ():
            if not self.written.covers(identity) and any(one.may_have(identity) for one in self.below):
                self.written.note(identity)
        listed: dict[tuple[bytes, ...], list[bytes]] = {}
        keys: dict[tuple[tuple[bytes, ...], bytes], dict[str, str]] = {}
        for identity in gone:
            stored = self.stored(identity)
            found = {stored.parts, identity.below or stored.parts}
            if identity.below and stored.parts != identity.below:
                above, name = identity.below[:-1], identity.below[-1]
                if above not in listed:
                    listed[above] = self.names(self.place(above))
                found |= {(*above, other) for other in listed[above] if layout.is_variant(other, name)}
            for parts in found | above_answers(identity):
                self._remove_below(self.place(parts))
            where = (*identity.below[:2], layout.LONG) if identity.below else ()
            begins = b"" if below or where else identity.parts[-1].rpartition(b"~")[0] + b"~"
            if (where, begins) not in keys:
                keys[where, begins] = self._keys(where, begins, listed)
            for path, key in keys[where, begins].items():
                if identities.is_below(identities.address_of(key), identity.address.rstrip("/")):
                    self._remove_below(path)

    def _keys(
        self, above: tuple[bytes, ...], begins: bytes, listed: dict[tuple[bytes, ...], list[bytes]]
    ) -> dict[str, str]:
        """Return the keys of the journals in a directory that are called by hashes of their keys, by path.

        Args:
            above: The directory; without components the root, with the answers of the flat layout.
            begins: How the names begin.
            listed: Names in directories, as far as they are known.
        """
        paths = []
        for parts in [above] if above or begins else [(), (layout.ANSWERS,)]:
            if parts not in listed:
                listed[parts] = self.names(self.place(parts))
            paths += [self.place((*parts, name)) for name in listed[parts] if name.startswith(begins)]
        found = {}
        for path in filter(layout.is_hashed, paths):
            key = self._keys_known.get(path)
            if key is None:  # a journal, or the directory of journals that differ by who asked
                key = key_of(self.storage, path)
                inner = () if key is not None else map(os.fsdecode, self.names(path))
                for name in inner:
                    key = key or key_of(self.storage, os.path.join(path, name))
            if key is not None:
                found[path] = key
        self._keys_known |= found
        return found

    def names(self, directory: str) -> list[bytes]:
        """Return what is in a directory; nothing where there is none."""
        try:
            return [os.fsencode(name) for name in self.storage.listdir(directory)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _remove_below(self, directory: str) -> None:
        left = [directory]
        while left:
            directory = left.pop()
            try:
                found = self.storage.entries(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
                    continue  # a symbolic link, or deeper than JCache goes: nothing of ours is there
                raise
            for name, is_directory in found:
                path = os.path.join(directory, name)
                if is_directory and not name.startswith(_SEGMENT_PREFIX):
                    left.append(path)
                elif name.startswith(_SEGMENT_PREFIX) and not is_directory:
                    with contextlib.suppress(FileNotFoundError):  # another process was faster
                        self.storage.unlink(path)

    def _make(self, path: str) -> bool:
        """Make a directory and those above it, private ones; False if it, or anything else, is there already."""
        try:
            self.storage.mkdir(path, _PRIVATE_DIR)
        except FileExistsError:
            return False
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if parent == path:
                raise
            self._make(parent)
            try:
                self.storage.mkdir(path, _PRIVATE_DIR)
            except FileExistsError:  # another process was faster
                return False
        except OSError:
            # A read-only file system, an automounter or a parent that may not be written to says so first, even where
            # the directory is there.
            if self._is_directory(path):
                return False
            raise
        return True

    def _is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self.storage.stat(path).st_mode)
        except OSError:  # the error that led here says more
            return False

    def _has_tag(self) -> bool:
        path = os.path.join(self.directory, layout.TAG_NAME)
        try:
            fd = self.storage.open(path, os.O_RDONLY)
            try:
                signature = TAG.partition(b"\n")[0]
                return self.storage.pread(fd, len(signature), 0) == signature
            finally:
                self.storage.close(fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_TAG:
                raise
            self.storage.lstat(path)  # fails where the directory is closed to us, and not only what has the tag's name
            return False

    def _is_ours(self) -> bool:
        """Tell whether the root holds nothing but what a cache that is not marked yet may hold."""
        try:
            names = self.storage.listdir(self.directory)
        except (
            OSError
        ):  # a directory that can be entered but not listed serves as a cache; that it is ours, nobody knows
            return False
        return all(name in _OURS or name.startswith((_PROBE_PREFIX, _SEGMENT_PREFIX)) for name in names)

    def _probe(self, *, mark: bool) -> None:
        """Write a file as every journal has to, and leave it as the tag if asked, or remove it.

        Permission bits do not tell: not on NFS with squashed users, nor on a full disk.
        """
        name = os.path.join(self.directory, f"{_PROBE_PREFIX}{os.urandom(8).hex()}")
        try:
            self._write(name, TAG)
            if mark:
                # The tag appears whole; two processes that do this at once write the same.
                self.storage.rename(name, os.path.join(self.directory, layout.TAG_NAME))
                return
        except OSError:
            self._remove(name)
            raise
        self._remove(name)

    def _write(self, name: str, data: bytes) -> None:
        """Write a new file, which is for all who share the cache, whatever the umask."""
        fd = self.storage.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.file_mode)
        try:
            if self.file_mode & 0o077:
                with contextlib.suppress(OSError):  # a file system with an idea of its own
                    self.storage.fchmod(fd, self.file_mode)
            if self.storage.pwritev(fd, [data], 0) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        finally:
            self.storage.close(fd)

    def _remove(self, name: str) -> None:
        try:
            self.storage.unlink(name)
        except OSError:  # what is left is one small file, which says nothing about the use of the directory
            return


def above_answers(identity: "Identity") -> set[tuple[bytes, ...]]:
    """Return where lies what was said of names in the directories above an object, whoever asked."""
    below = identity.below
    if below:
        return {(*below[:end], layout.ANSWERS) for end in range(2, len(below))}
    key = identity.key.partition("\\~")[0].rstrip("/")
    found: set[tuple[bytes, ...]] = {(layout.ANSWERS, layout.digest(key, layout.WHOLE_DIGITS).encode())}
    while key.count("/") > 1:
        key = key.rpartition("/")[0]
        found.add((layout.ANSWERS, layout.digest(key, layout.WHOLE_DIGITS).encode()))
    return found


def _why(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or type(error).__name__
