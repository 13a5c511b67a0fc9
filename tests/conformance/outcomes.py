"""A pytest plug-in that writes each test's outcome as it comes, so that a run that dies or hangs leaves what it had."""

import functools
import json
import os
import sys
import time
from typing import Any

FILE = "CONFORMANCE_OUTCOMES"


def note(name: str, outcome: str, seconds: float, text: str = "") -> None:
    line = json.dumps({"test": name, "outcome": outcome, "s": round(seconds, 3), "text": text[-4000:]})
    with open(os.environ[FILE], "a", encoding="utf-8") as file:
        file.write(line + "\n")


def pytest_collection_finish() -> None:
    """Have botocore parse its descriptions of services once: suites make a session for each test, 0.2 s of parsing."""
    if session := sys.modules.get("botocore.session"):
        session.create_loader = functools.cache(session.create_loader)  # type: ignore[attr-defined]


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    note(nodeid, "started", time.time())


def pytest_runtest_logreport(report: Any) -> None:
    """Note a test by its call; a failing set-up or teardown fails it, and a skip stands for itself."""
    if report.when == "call" or report.outcome != "passed":
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        if report.when != "call" and outcome == "failed":
            outcome = f"failed in {report.when}"
        note(report.nodeid, outcome, report.duration, "" if outcome == "passed" else report.longreprtext)
