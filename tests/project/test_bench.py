"""Workloads and costs of the benchmark run, at a size that says nothing, and every bar is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from places import ROOT
from servers import find_nginx

BENCH = ROOT / "bench"
XROOTD = (
    "seed",
    "seed-lan",
    "peers",
    "agc-ranges",
    "agc",
    "tiny",
    "stream-8k-xrootd",
    "attach",
    "calls",
    "passed",
    "profile",
    "two",
    "replay",
    "warm",
)
HTTP = ("stream-8k", "stream-256k", "small-files", "small-files-lan", "start", "ahead", "serving", "whatif")


def run(tmp_path, names, ways="origin,whole,local,jcache"):
    results = tmp_path / "results.json"
    env = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    done = subprocess.run(
        [sys.executable, os.fspath(BENCH), "--only", ",".join(names), "--ways", ways, "--rounds", "1",
         "--size", "smoke", "--json", os.fspath(results), "--svg", os.fspath(tmp_path / "bench.svg")],
        env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(results.read_text()), done.stdout


def check(report, names):
    """Each way returned the origin's bytes (the benchmark would have failed) and none was fetched twice."""
    for name, ways in report["workloads"].items():
        for way, result in ways.items():
            assert result["first"], (name, way)
            assert min(result["first"]) > 0
            if way == "jcache-warm":
                assert result["origin_bytes"] == 0, name
                cold = ways["jcache-cold"]
                assert cold["origin_bytes"] == ways["origin"]["origin_bytes"], name
                assert cold["disk_bytes"] > cold["origin_bytes"], name
    assert {*report["workloads"], *report["costs"]} == set(names)


@pytest.mark.slow
@pytest.mark.long
def test_workloads_over_xrootd(tmp_path, xrootd_server):
    report, shown = run(tmp_path, XROOTD)
    check(report, XROOTD)
    bars = {bar["bar"] for bar in report["checks"]}
    assert len(bars) >= 14
    assert "seed, cold, loopback / origin" in bars
    assert all(bar["measured"] is not None for bar in report["checks"])
    assert "what must hold" in shown
    assert (tmp_path / "bench.svg").read_text().startswith("<svg")


@pytest.mark.slow
@pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")
@pytest.mark.long
def test_workloads_over_http(tmp_path):
    report, _ = run(tmp_path, HTTP)
    check(report, HTTP)


def test_results_can_be_shown_again(tmp_path):
    report = {
        "workloads": {}, "costs": {},
        "checks": [{"bar": "a bar", "limit": 1.0, "measured": 2.0, "text": "2.00", "at_least": False, "met": False}],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(report))
    done = subprocess.run(
        [sys.executable, os.fspath(BENCH), "--show", os.fspath(tmp_path / "results.json")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "a bar" in done.stdout
    assert "missed" in done.stdout
