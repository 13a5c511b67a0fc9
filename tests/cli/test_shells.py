"""What is installed for shells: completion in bash, zsh and fish, and the manual pages."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from manual import PAGES, pages
from places import ROOT

SCRIPTS = ROOT / "jcache" / "cli" / "completion"
BIN = Path(sys.executable).parent
CASES = [
    ("jcache rep", {"replay", "report"}),
    ("jcache --ver", {"--version"}),
    ("jcache report --com", {"--compare"}),
    ("jcache ls --sort hi", {"hits"}),
    ("jcache clean ", set()),
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The user's, with the `jcache` that is under test; another directory, of two directories and a file."""
    if not (BIN / "jcache").exists():
        pytest.skip("the jcache command is not installed beside this Python")
    (tmp_path / "here" / "cache one").mkdir(parents=True)
    (tmp_path / "here" / "cache-two").mkdir()
    (tmp_path / "here" / "cable.txt").touch()
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash_completes(environ: dict[str, str], line: str, expected: set[str]) -> None:
    script = f"""
. {SCRIPTS}/jcache.bash
COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_jcache_completion jcache
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p jcache
"""
    command = [shell("bash"), "--norc", "--noprofile", "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    *offered, registered = done.stdout.split("\n")[:-1]
    assert set(filter(None, offered)) == expected
    assert registered.endswith("-F _jcache_completion jcache")


@pytest.mark.parametrize(("line", "expected"), [*CASES, ("jcache ls --dir ca", {"cache one/", "cache-two/"})])
def test_fish_completes(environ: dict[str, str], tmp_path: Path, line: str, expected: set[str]) -> None:
    fish, script = shell("fish"), f"source {SCRIPTS}/jcache.fish; complete -C '{line}'"
    done = subprocess.run(
        [fish, "-c", script], env=environ, cwd=tmp_path / "here", capture_output=True, text=True, timeout=60, check=True
    )
    offered = {row.partition("\t")[0] for row in done.stdout.splitlines()}
    assert offered == (expected or {"cache one/", "cache-two/"})


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("jcache repo", b"rt "),
        ("jcache report --comp", b"are "),
        ("jcache ls --dir cache-", b"two/"),
        ("jcache run pri", b"nce.sh "),
    ],
)
def test_zsh_completes(environ: dict[str, str], tmp_path: Path, line: str, added: bytes) -> None:
    """By its key, in a terminal: zsh offers completions nowhere else."""
    zsh = shell("zsh")
    (tmp_path / "here" / "prince.sh").touch()
    shutil.copy(SCRIPTS / "jcache.zsh", tmp_path / "_jcache")  # the name that zsh looks for
    setup = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -D; PS1='ready> '\n"
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path / "here")
        os.execve(zsh, [zsh, "-f", "-i"], environ)
    try:
        os.write(terminal, setup.encode())
        read_until(terminal, b"\rready> ")
        os.write(terminal, line.encode())
        read_until(terminal, line.encode())
        os.write(terminal, b"\t")
        read_until(terminal, added)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def read_until(terminal: int, wanted: bytes) -> None:
    seen, limit = b"", time.monotonic() + 30
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], limit - time.monotonic())
        assert ready, seen
        seen += os.read(terminal, 4096)


def test_the_manual_says_what_the_commands_say() -> None:
    """After a change of a command: `make man`."""
    assert {path.name: path.read_text() for path in PAGES.iterdir()} == pages()


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_manual_page_is_shown(name: str, environ: dict[str, str]) -> None:
    man = shell("man")
    if not shutil.which("groff") and not shutil.which("nroff"):
        pytest.skip("man has no groff here")
    environ |= {"MANWIDTH": "80", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"}
    command = [man, "--warnings", "-l", str(PAGES / name)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert ("--help" in done.stdout, "SEE ALSO" in done.stdout) == (True, True)
