"""`jcache verify` as a user runs it: lines, JSON, exit codes; over segments of a process that was killed."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from journals import REMOTE

from jcache.cli.verify import verify_command

URL = "https://example.org/data/f.root"
WRITER = """
import sys, time
from jcache.cache import Cache
from jcache.journal import Version
cache = Cache(sys.argv[1])
cache.prepare()
journal = cache.journal(cache.identify("https", sys.argv[2], {}))
data = sys.stdin.buffer.read(1 << 20)
for start in (0, 200_000, 500_000):
    journal.append(Version(1 << 20, etag='"1"'), {}, [(start, data[start : start + 100_000])])
if sys.argv[3] == "seal":
    journal.close()
print("written", flush=True)
if sys.argv[3] == "wait":
    sys.stdin.buffer.read()
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(cache, how="seal"):
    with start(cache, how) as process:
        process.communicate()
    return segments(cache)


def start(cache, how):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, cache, URL, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdin.write(REMOTE)
    process.stdin.flush()
    assert process.stdout.readline() == b"written\n"
    return process


def segments(cache):
    return sorted(cache.rglob("@*.seg"))


def verify(*arguments, code):
    result = CliRunner().invoke(verify_command, arguments)
    assert result.exit_code == code, result.output
    assert result.exc_info is None or result.exc_info[0] is SystemExit, result.exc_info
    return result.stdout


def test_a_sound_cache(cache):
    write(cache)
    for arguments in ([], [str(cache)], [URL], [f"jcache::{URL}"], [str(segments(cache)[0].parent)]):
        assert verify(*arguments, code=0).rstrip().endswith("all is well")


def test_a_copy_of_a_part_of_a_cache_is_verified(cache, tmp_path):
    write(cache)
    shutil.copytree(cache / "https", tmp_path / "copy")
    (tmp_path / "copy" / "novel.txt").write_text("not ours")
    assert (
        verify(str(tmp_path / "copy"), code=0).splitlines()[-1].startswith("1 journal, 1 segment (0 being written), ")
    )


def test_a_killed_writer_leaves_a_torn_tail_that_repair_drops(cache):
    with start(cache, "wait") as process:
        assert "1 being written" in verify(code=0), "a live writer's segment is no damage"
        process.send_signal(signal.SIGKILL)
    (path,) = segments(cache)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"JCFR that was never finished")
    output = verify(URL, code=1)
    assert f"torn        {path.name}  at {size}, 28 bytes: torn tail" in output
    assert f"orphan      {path.name}  at 0, {size + 28} bytes: never sealed" in output
    assert "--repair drops what is unusable" in output
    assert "rewritten with the 300000 bytes that are sound" in verify("--repair", code=1)
    assert "all is well" in verify(code=0)
    assert segments(cache) != [path]


def test_json(cache):
    (path,) = write(cache)
    data = bytearray(path.read_bytes())
    at = data.index(REMOTE[:100])
    data[at + 5] ^= 4
    path.write_bytes(data)
    document = json.loads(verify("--json", code=1))
    assert document["findings"] == [
        {
            "kind": "damaged",
            "wrong": True,
            "path": str(path),
            "offset": at,
            "bytes": 100_000,
            "what": "1 extent: wrong checksum",
            "repair": None,
        }
    ]
    assert (document["ok"], document["wrong"], document["repaired"]) == (False, 1, 0)
    assert document["sound_bytes"] == 200_000
    assert document["kinds"] == {"damaged": 1}
    repaired = json.loads(verify("--json", "--repair", code=1))
    assert (repaired["ok"], repaired["repaired"]) == (False, 1)
    assert json.loads(verify("--json", URL, code=0))["ok"] is True


def test_what_is_only_of_no_use_is_told_and_is_no_failure(cache):
    (path,) = write(cache)
    strange = path.parent / "a\nb\udcff"
    os.close(os.open(os.fsencode(strange), os.O_CREAT))
    output = verify(code=0)
    assert "foreign" in output
    assert "a\\0Ab\\FF" in output
    assert "nothing is wrong" in output
    assert json.loads(verify("--json", code=0))["notes"] == 1


@pytest.mark.parametrize("arguments", [["/nowhere"], ["https://example.org/never-read"], ["--wrong-option"]])
def test_wrong_arguments(cache, arguments):
    write(cache)
    verify(*arguments, code=2)


def test_no_directory(monkeypatch):
    monkeypatch.delenv("JCACHE_DIR", raising=False)
    verify(code=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_finding(cache):
    (path,) = write(cache)
    path.chmod(0)
    assert "unreadable" in verify(code=1)


def test_the_progress_bar_is_for_terminals_and_on_stderr(cache):
    write(cache)
    command = [str(Path(sys.executable).with_name("jcache")), "verify", str(cache)]
    plain = subprocess.run(command, capture_output=True, text=True, check=True)
    assert plain.stderr == ""
    master, terminal = pty.openpty()
    try:
        shown = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=terminal, check=True, env={**os.environ, "TERM": "xterm"}
        )
        assert b"verifying" in os.read(master, 1 << 16)
    finally:
        os.close(terminal)
        os.close(master)
    assert shown.stdout.decode().rstrip().endswith("all is well")
