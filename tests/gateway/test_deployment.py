"""The files with which a gateway is run: they are what systemd, Compose and Grafana take, and name what there is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from gateways import GatewayProcess
from places import ROOT

from jcache_plugins.gateway.command import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ROOT / "docs" / "howto" / "serve"
UNITS = ("jcache-serve.service", "jcache-serve.socket")


def test_systemd_takes_the_units() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "verify", "--man=no", *(str(FILES / unit) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    # It may have something to say of the units of this machine, too.
    assert [line for line in done.stderr.splitlines() if "jcache" in line] == []
    assert done.returncode == 0, done.stderr


def test_the_unit_gives_the_gateway_the_time_that_it_takes() -> None:
    unit = (FILES / UNITS[0]).read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    options = command_of(re.search(r"^ExecStart=(.+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert stop
    assert int(stop[1]) >= options["drain"] + 60
    assert options["origin"].startswith("https://")


def test_compose_starts_what_there_is() -> None:
    yaml = pytest.importorskip("yaml")
    file = yaml.safe_load((FILES / "compose.yaml").read_text())
    options = command_of(file["services"]["jcache"]["command"])
    assert (options["host"], options["port"], options["names"]) == ("0.0.0.0", 8080, ("jcache",))
    assert (FILES / file["configs"]["dashboard"]["file"]).is_file()
    assert (FILES / file["services"]["jcache"]["build"]["context"] / "pyproject.toml").resolve().is_file()
    for service in file["services"].values():
        assert {one["source"] for one in service.get("configs", ())} <= set(file["configs"])
        assert {one.partition(":")[0] for one in service.get("volumes", ())} <= set(file["volumes"])
    for config in file["configs"].values():
        assert yaml.safe_load(config.get("content", "{}")) is not None


def command_of(line: str) -> dict[str, Any]:
    """The options of a command line that starts a gateway."""
    words = shlex.split(line)
    at = words.index("jcache")
    assert words[at + 1] == "serve"
    return serve.make_context("jcache serve", words[at + 2 :]).params


def test_the_dashboard_shows_metrics_that_there_are(tmp_path: Path) -> None:
    board = json.loads((FILES / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    with GatewayProcess(tmp_path / "cache", "--allow", "data.example.org", "--workers", "2") as gateway:
        text = gateway.get("/metrics").body.decode()
    told = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    told |= {f"{name}_bucket" for name in told}
    assert len(asked) >= 20
    assert {name for one in asked for name in re.findall(r"\bjcache_\w+", one)} <= told
    # And with the labels that they have.
    labels = {
        (name, label)
        for name, said in re.findall(r"^(jcache_\w+)\{(.*)\}", text, re.MULTILINE)
        for label in names(said)
    }
    labels |= {("jcache_gateway_requests_total", "status"), ("jcache_gateway_requests_total", "method")}
    for one in asked:
        for by, name in re.findall(r"sum by \((\w+)\) \(\w+\((jcache_\w+)", one):
            assert (name, by) in labels, one
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def names(labels: str) -> Iterator[str]:
    return (one.partition("=")[0] for one in labels.split(","))
