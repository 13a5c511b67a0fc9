"""Modules that have moved are found by their old names, as the same modules."""

import subprocess
import sys
from importlib import import_module

import pytest

from jcache.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_same_module(old: str) -> None:
    module = import_module(old)
    assert module is import_module(MOVED[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == MOVED[old]


def test_in_a_fresh_process_and_whichever_name_comes_first() -> None:
    program = (
        "import jcache.storage, jcache.journal.format as f\n"
        "from jcache.reader.snapshot import Snapshot\n"
        "import jcache.system.storage, jcache.segment.format, jcache.planning.snapshot\n"
        "assert jcache.storage.Storage is jcache.system.storage.Storage and f is jcache.segment.format\n"
        "assert Snapshot is jcache.planning.snapshot.Snapshot\n"
        "try:\n    import jcache.nothing\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "No module named 'jcache.nothing'\n"
