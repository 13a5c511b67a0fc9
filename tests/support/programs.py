"""Programs that work on a journal in processes of their own, and are told when to go on."""

import subprocess
import sys
import textwrap

from places import SUPPORT

PRELUDE = f"""
import os, random, sys
sys.path.insert(0, {str(SUPPORT)!r})
from journals import *
directory, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
"""


def start(program: str, directory, seed: int = 0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(directory), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"the process ended with {process.wait()}"
    return line


def tell(process: subprocess.Popen, line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
