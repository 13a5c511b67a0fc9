"""The wheel: what it carries, and that installing it is all that activation needs."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("hatchling") is None or find_spec("pip") is None:
        pytest.skip("building a wheel needs hatchling and pip")
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=300)
    (path,) = out.glob("jcache-*.whl")
    return path


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("jcache.pth") == (ROOT / "jcache" / "activate" / "jcache.pth").read_bytes()
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    shared = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert shared == {
        "share/bash-completion/completions/jcache",
        "share/zsh/site-functions/_jcache",
        "share/fish/vendor_completions.d/jcache.fish",
        *(f"share/man/man1/{page.name}" for page in (ROOT / "docs" / "man").iterdir()),
    }
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name and ".data/" not in name} == {
        "jcache",
        "jcache_plugins",
        "jcache.pth",
    }
    for tree, package in (("jcache", "jcache"), ("plugins", "jcache_plugins")):
        for source in (ROOT / tree).rglob("*.py"):
            assert f"{package}/{source.relative_to(ROOT / tree)}" in names
    assert "[jcache.plugins]" in entry_points
    assert "fsspec = jcache_plugins.fsspec:install" in entry_points


def test_the_pth_file_is_one_line_of_code() -> None:
    (line,) = (ROOT / "jcache" / "activate" / "jcache.pth").read_text().splitlines()
    assert line.startswith("import os; (os.environ.get(")


def test_installing_activates(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(packages), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=300)
    assert_active(tmp_path)


def test_installing_from_a_checkout_to_edit_it_activates(wheel: Path, tmp_path: Path) -> None:
    """`pip install -e .`: its own modules are the checkout's, plug-ins included, and the `.pth` file comes along."""
    venv.create(tmp_path / "venv", with_pip=False)
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    install += ["--prefix", str(tmp_path / "venv"), "--editable", str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=300)
    assert_active(tmp_path)
    code = (
        "import importlib.metadata, importlib.util, jcache\n"
        "print(jcache.__file__, importlib.util.find_spec('jcache_plugins.settings').origin)\n"
        "print(*(entry.module for entry in importlib.metadata.entry_points(group='jcache.plugins')))\n"
    )
    run = run_python(tmp_path, "-c", code)
    first, second = run.stdout.splitlines()
    assert first.split() == [str(ROOT / "jcache" / "__init__.py"), str(ROOT / "plugins" / "settings.py")], run.stderr
    assert "jcache_plugins.fsspec" in second.split()
    assert (tmp_path / "venv" / "share" / "man" / "man1" / "jcache.1").exists()
    assert (tmp_path / "venv" / "bin" / "jcache").exists()


def assert_active(tmp_path: Path) -> None:
    code = "import sys; print('jcache.activate' in sys.modules)"
    for options, directory, expected in (
        ((), "x", "True"),
        (("-I",), "x", "True"),
        ((), "", "False"),
        (("-S",), "x", "False"),
    ):
        run = run_python(tmp_path, *options, "-c", code, directory=directory)
        assert (run.returncode, run.stdout.strip(), run.stderr) == (0, expected, "")


def run_python(tmp_path: Path, *arguments: str, directory: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), *arguments],
        env={"JCACHE_DIR": directory},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
