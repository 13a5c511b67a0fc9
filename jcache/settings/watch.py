"""The file of settings, looked at again and again: what it says by then holds for what is opened from then on."""

import threading
from collections.abc import Callable

from jcache.settings.config import Config, ConfigError, File

__all__ = ["LOOK_S", "Watch"]

LOOK_S = 5.0
"""How often it is read. Whole, since a time stamp may stay what it was; and open, since that has NFS ask its server."""


class Watch:
    """Reads a file of settings again, on a thread of its own that hangs where the file does.

    A forked child makes its own.
    """

    def __init__(self, config: Config, *, changed: Callable[[Config], None], trouble: Callable[[str], None]) -> None:
        """Take note of settings; nothing is read yet.

        Args:
            config: With the file.
            changed: Takes settings of which some are others than the last ones.
            trouble: Told what is wrong with the file; the settings stay as they are.
        """
        self._config = config
        self._changed = changed
        self._trouble = trouble
        self._seen: bytes | str | None = None
        self._over = threading.Event()
        self._is_running = False

    def start(self) -> None:
        """Begin to look, once; not where no file is known or no thread can be had."""
        if self._config.file is not None and not self._is_running and not self._over.is_set():
            self._is_running = True
            try:
                threading.Thread(target=self._run, name="jcache-settings", daemon=True).start()
            except RuntimeError:
                return

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Read the file now."""
        file = self._config.read_file()
        if self._is_known(file):
            return
        try:
            found = self._config.with_file(file)
        except ConfigError as error:
            self._trouble(f"{error}; the settings stay as they were")
            return
        if found.ignored not in ("", self._config.ignored):
            self._trouble(found.ignored)
        before, self._config = self._config, found
        if found != before and not self._over.is_set():
            self._changed(found)

    def _is_known(self, file: File) -> bool:
        seen = repr(file)
        known, self._seen = self._seen == seen, seen
        return known
