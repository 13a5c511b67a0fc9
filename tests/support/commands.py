"""Commands as users type them, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from analysis import CLIENT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["jcache"]


def jcache(*args: str | Path, env: dict[str, str] | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `jcache` with these words and nothing of JCache in its environment but `env`; it is to end with `code`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "jcache", *map(str, args)],
        env={**clean, **CLIENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done
