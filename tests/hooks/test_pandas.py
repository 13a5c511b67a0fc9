"""pandas over HTTP as it is without JCache: cold, warm, with no question asked."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pandas", reason="pandas is not installed")

if TYPE_CHECKING:
    from conftest import RunPython
    from servers import ScriptedOrigin

TABLE = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(2000))
ENCODED = {"headers": {"Content-Encoding": "gzip"}}
JOB = """
import sys, pandas as pd
for call in sys.argv[2:]:
    for _ in range(2):
        try:
            name, _, options = call.partition(" ")
            told = pd.read_csv(sys.argv[1] + name, **eval(f"dict({options})")).b.sum()
        except Exception as error:
            told = repr(error)
        print(call, told)
"""


def test_what_a_server_compresses_is_unpacked_once(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    packed = gzip.compress(TABLE)
    files: dict[str, tuple[bytes, dict[str, Any]]] = {
        "plain.csv": (TABLE, {}),
        "file.csv.gz": (packed, {}),
        "sent.csv": (packed, ENCODED),
        "stored.csv.gz": (packed, ENCODED),
        "twice.csv.gz": (gzip.compress(packed), ENCODED),
        "untold.csv.gz": (packed, {**ENCODED, "etag": None, "ranges": False}),
    }
    for name, (data, fields) in files.items():
        http_origin.put(name, data, **fields)
    calls = (*files, "sent.csv compression='gzip'", "plain.csv compression='gzip'", "missing.csv")
    before = run_python(JOB, http_origin.url(""), *calls, cache=None).stdout
    assert "stored.csv.gz 2664667000" in before
    for env in ({}, {"JCACHE_VALIDATE": "never"}):
        http_origin.reset()
        assert run_python(JOB, http_origin.url(""), *calls, env=env).stdout.splitlines() == before.splitlines()
    assert not http_origin.resources["/plain.csv"].gets
