"""ROOT itself, from its wheel, through `jcache serve --xrootd`: plain, cold and warm."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gateways import GatewayProcess, by_door, door
from libraries import needs
from servers import XrootdServer, XrootdUnavailableError, find_xrootd

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Nginx

pytestmark = pytest.mark.long  # ROOT itself takes long to download, and to start

WHEN = 1_700_000_000
LIMIT_S = 300
COLUMNS, ROWS, PARTS = "abcdef", 5000, 6

JOB = """
import os, sys, warnings
warnings.simplefilter("ignore")  # of an alpha, it says
import ROOT
# Else it looks for the files of a server of this machine on this machine.
ROOT.gEnv.SetValue("TFile.ForceRemote", 1)
where = sys.argv[1]
file = ROOT.TFile.Open(where + "/tree.root")
tree = file.Get("tree")
print(type(file).__name__, file.GetSize(), tree.GetEntries())
tree.SetBranchStatus("*", 0)
tree.SetBranchStatus("b", 1)
total = 0
for i in range(tree.GetEntries()):
    tree.GetEntry(i)
    total += tree.b
print(total)
file.Close()
for frame in (ROOT.RDataFrame("tree", where + "/tree.root"), ROOT.RDataFrame("ntuple", where + "/ntuple.root")):
    some = frame.Filter("c % 6 == 0")
    wanted = [some.Sum("d"), some.Sum("a"), frame.Sum("f")]
    print([one.GetValue() for one in wanted])
try:
    print(bool(ROOT.TFile.Open(where + "/none.root")))
except OSError:
    print("no such file")
sys.stdout.flush()
os._exit(0)
"""


def write(directory: Path) -> None:
    uproot = pytest.importorskip("uproot")
    rng = np.random.default_rng(7)
    made = [{name: rng.integers(0, 1 << 40, ROWS) for name in COLUMNS} for _ in range(PARTS)]
    for name, kind in (("tree", "mktree"), ("ntuple", "mkrntuple")):
        with uproot.recreate(directory / f"{name}.root") as file:
            writer = getattr(file, kind)(name, dict.fromkeys(COLUMNS, np.int64))
            for part in made:
                writer.extend(part)
    for path in directory.iterdir():
        os.utime(path, (WHEN, WHEN))
        path.chmod(0o644)


@pytest.mark.slow
def test_trees_and_ntuples(nginx_server: Nginx, cache_dir: Path, export_dir: Path) -> None:
    """Judged by an xrootd that serves the files themselves; RDataFrame reads many ranges in one request."""
    needs("ROOT")
    try:
        find_xrootd()
    except XrootdUnavailableError as error:
        pytest.skip(str(error))
    write(nginx_server.directory)
    shutil.copytree(nginx_server.directory, export_dir, dirs_exist_ok=True)
    export_dir.chmod(0o755)
    with XrootdServer(export_dir) as plain:
        expected = by_door(JOB, f"root://{plain.address}/")
    size = (nginx_server.directory / "tree.root").stat().st_size
    assert expected.startswith(f"TNetXNGFile {size} {ROWS * PARTS}\n")
    assert expected.endswith("no such file\n")
    args = ("--origin", nginx_server.url(), "--xrootd", "0", "--validate", "3600")
    with GatewayProcess(cache_dir, *args) as gateway:
        where = "root://{}:{}/".format(*door(gateway))
        nginx_server.reset()
        assert by_door(JOB, where) == expected
        total = sum(path.stat().st_size for path in nginx_server.directory.iterdir())
        assert 0 < nginx_server.body_bytes() <= total
        nginx_server.reset()
        assert by_door(JOB, where) == expected
        assert nginx_server.body_bytes() == 0, nginx_server.requests()
    assert "Traceback" not in gateway.stderr
