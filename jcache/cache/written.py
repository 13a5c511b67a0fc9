"""What was written to while directories lay below: what those have of it is out of date, and they are never written."""

import contextlib
import functools

from jcache.naming.identity import Identity, is_answers, upwards
from jcache.naming.layout import WHOLE_DIGITS, digest
from jcache.segment.directory import Directory, create_file
from jcache.system.storage import Storage

__all__ = ["Written"]


class Written:
    """The notes of one cache directory about paths that were written: empty files, called by hashes of addresses.

    Any thread may use it. What other processes note while this one runs, it does not see.
    """

    def __init__(self, storage: Storage, directory: str, *, dir_mode: int, file_mode: int) -> None:
        """Name the notes; nothing is touched yet.

        Args:
            storage: The cache's file system.
            directory: Where they are.
            dir_mode: Permissions of the directory, where it is made.
            file_mode: Permissions of the notes.
        """
        self._storage = storage
        self._directory = Directory(storage, directory, dir_mode=dir_mode, file_mode=file_mode)
        self._names: set[str] | None = None

    def covers(self, identity: Identity) -> bool:
        """Whether what lies below of an object is out of date: it was written, or what it is in.

        Of what was said of a directory's names, also where something in the directory was written.
        """
        known, (own, *above) = self._known(), upwards(identity.address.rstrip("/"))
        if not known:
            return False
        names = [_name("@", one) for one in (own, *above)]
        return not known.isdisjoint([*names, _name("@in-", own)] if is_answers(identity.key) else names)

    def note(self, identity: Identity) -> None:
        """Note that an object, or what is below it, is being written.

        Raises:
            OSError: It could not be noted.
        """
        place, (own, *above) = self._directory, upwards(identity.address.rstrip("/"))
        for name in [_name("@", own), *(_name("@in-", one) for one in above)]:
            if name not in self._known():
                make = functools.partial(create_file, self._storage, place.join(name), place.file_mode)
                with contextlib.suppress(FileExistsError):  # another process was faster
                    self._storage.close(place.made_for(make))
                self._known().add(name)

    def _known(self) -> set[str]:
        if self._names is None:
            found: set[str] = set()
            with contextlib.suppress(OSError):  # there are none, or nobody can tell
                found.update(self._storage.listdir(self._directory.path))
            self._names = found
        return self._names


def _name(mark: str, address: str) -> str:
    return mark + digest(address, WHOLE_DIGITS)
