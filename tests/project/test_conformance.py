"""Parts of the test suites of other projects, without JCache and with it: what passes without it passes with it.

All of them, cold and warm, by `make conformance`. Each part runs cold here: the servers of the suites begin empty in
each run, so that warm runs differ little.
"""

from __future__ import annotations

import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "tests" / "conformance"))

import runner
from suites import SUITES

LONG = {"universal_pathlib", "dask.bytes", "fsspec-xrootd"}
QUICK = [
    pytest.param(suite, id=suite.name, marks=[pytest.mark.long] * (suite.name in LONG))
    for suite in SUITES
    if suite.quick is not None
]


@pytest.mark.parametrize("suite", QUICK)
def test_what_passes_without_passes_with(suite: runner.Suite) -> None:
    why = runner.missing(suite)
    if why is not None:
        pytest.skip(why)
    seen = runner.compare(suite, quick=True, modes=("plain", "cold"))
    assert seen.runs["plain"].passed, seen.runs["plain"].end
    lost = seen.lost("cold")
    assert not lost, "\n".join(
        f"{test}: {outcome}\n{seen.runs['cold'].texts.get(test, '')}" for test, outcome in lost.items()
    )
    assert seen.runs["cold"].said == []
