"""The wheel: what it carries, and that installing it is all that activation needs."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
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
    assert line.startswith("import os; os.environ.get(")


def test_installing_activates(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(packages), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=300)
    python = str(tmp_path / "venv" / "bin" / "python")
    code = "import sys; print('jcache.activate' in sys.modules)"
    for options, directory, expected in (
        ((), "x", "True"),
        (("-I",), "x", "True"),
        ((), "", "False"),
        (("-S",), "x", "False"),
    ):
        run = subprocess.run(
            [python, *options, "-c", code],
            env={"JCACHE_DIR": directory},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (run.returncode, run.stdout.strip(), run.stderr) == (0, expected, "")
