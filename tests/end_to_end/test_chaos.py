"""A short run of `tests/support/chaos.py`; for minutes of it: `python tests/support/chaos.py --seed N --kills 300`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from places import SUPPORT
from servers import find_nginx


@pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_processes_killed_at_random_moments_leave_no_wrong_byte(seed):
    done = subprocess.run(
        [sys.executable, SUPPORT / "chaos.py", "--seed", str(seed), "--kills", "12"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrong bytes: 0 reads; hit rate two runs after the last kill: 100.00 %" in done.stdout
