"""What origins say of names, listings and absences included: remembered, and served where they are not asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunPython
    from servers import Nginx

OFFLINE, NEVER = {"JCACHE_OFFLINE": "1"}, {"JCACHE_VALIDATE": "never"}

# All questions that fsspec has about names.
ASK = """
import sys
import fsspec
fs, root = fsspec.url_to_fs(sys.argv[1])
def said(name, *args, **kwargs):
    try:
        got = getattr(fs, name)(*args, **kwargs)
        got = list(got) if name == "walk" else got
        print(name, args, kwargs, repr(got))
    except Exception as error:
        print(name, args, kwargs, type(error).__name__, error)
for path in (root, root + "/sub", root + "/a.bin", root + "/none", root + "/none/x"):
    for name in ("info", "exists", "isdir", "isfile"):
        said(name, path)
for path in (root, root + "/sub"):
    said("ls", path)
    said("ls", path, detail=False)
    said("find", path)
    said("find", path, detail=True)
    said("walk", path)
said("glob", root + "/*.bin")
said("glob", root + "/**")
said("cat_file", root + "/none/x", start=0, end=10)
said("cat_file", root + "/a.bin", start=2, end=10)
"""


@pytest.fixture
def tree(nginx_server: Nginx) -> str:
    """A directory that nginx lists; its URL."""
    root = nginx_server.directory / "listed" / "d"
    (root / "sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "sub/c.bin"):
        (root / name).write_bytes(name.encode() * 20)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    return nginx_server.url("listed/d")


def test_all_questions_are_answered_alike_cold_warm_never_and_offline(
    run_python: RunPython, nginx_server: Nginx, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # fsspec lists what HTTP servers give out of a set
    plain = run_python(ASK, tree, cache=None)
    asked = len(nginx_server.requests())
    nginx_server.reset()
    cold = run_python(ASK, tree)
    assert len(nginx_server.requests()) <= asked, "no more than plain"
    nginx_server.reset()
    warm = run_python(ASK, tree)
    assert len(nginx_server.requests()) <= asked
    nginx_server.reset()
    never = run_python(ASK, tree, env=NEVER)
    assert nginx_server.requests() == []
    nginx_server.stop()
    offline = run_python(ASK, tree, env=OFFLINE)
    assert "a.bin" in plain.stdout
    assert plain.stdout == cold.stdout == warm.stdout == never.stdout == offline.stdout
