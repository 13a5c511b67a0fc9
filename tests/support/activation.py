"""Programs that run with JCache active as a user has it: through a `.pth` file, a plug-in and the environment.

The plug-in hooks a module `faraway`, whose `read(n)` stands for n remote bytes that the journal has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 180

PTH = ROOT / "jcache" / "activate" / "jcache.pth"
"""As it is installed into site-packages."""

TRIGGER = """
def read(n, url="far://host/file"):
    return n
"""

HOOK = """
import faraway
import jcache.session

_original = faraway.read


def install():
    def read(n, url="far://host/file"):
        jcache.session.current().counters.read(n, n, 0, 0, url=url)
        return _original(n)

    faraway.read = read


def uninstall():
    faraway.read = _original
"""

ENTRY_POINTS = """[console_scripts]
far = faraway:read

[jcache.plugins]
faraway = faraway_hook:install
# a comment
faraway.deep = faraway_deep:hooks.install [extra]

[other]
nothing = nowhere:at_all
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str
    reports: list[dict[str, Any]]

    @property
    def panels(self) -> int:
        """Text reports on stderr."""
        return self.err.count("cache combined hit rate")


class Site:
    """A directory on the search path with the `.pth` file, the test's plug-in, and a cache directory beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "site"
        self.cache = path / "cache"
        self.path.mkdir()
        self.write("jcache.pth", PTH.read_text())
        # As `site` does for site-packages; where JCache is installed its own file has run before, which must do no
        # harm.
        self.write("sitecustomize.py", f"import site\nsite.addsitedir({str(self.path)!r})\n")
        self.write("faraway.py", TRIGGER)
        self.write("faraway_hook.py", HOOK)
        self.write("faraway_hook-1.0.dist-info/entry_points.txt", ENTRY_POINTS)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def environ(self, **variables: str | None) -> dict[str, str]:
        """The environment of a user who has set JCACHE_DIR; `None` unsets."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_", "COVERAGE"))}
        path = [str(self.path), *filter(None, [environ.get("PYTHONPATH")])]
        environ |= {"PYTHONPATH": os.pathsep.join(path), "JCACHE_DIR": str(self.cache)}
        for name, value in variables.items():
            environ.pop(name, None)
            if value is not None:
                environ[name] = value
        return environ

    def start(self, *args: str, has_terminal: bool = True, **variables: str | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *args],
            env=self.environ(**variables),
            cwd=self.path,
            text=True,
            start_new_session=not has_terminal,  # else it has this process's, if that has one
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, process: subprocess.Popen[str]) -> Ended:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
        return Ended(process.returncode, out, err, self.reports())

    def run(self, *args: str, **variables: str | None) -> Ended:
        return self.end(self.start(*args, **variables))

    def script(self, text: str, name: str = "job.py") -> str:
        return str(self.write(name, text))

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.cache.glob(".reports/*.json"))]
