"""The demonstration: its data set, its server, its analysis, and the whole of it as a user runs it."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import awkward as ak
import pytest
import uproot

import jcache.demo
from jcache.demo import dataset, job, schema
from jcache.demo.http_server import HttpServer
from jcache.demo.runner import Outcome, Run
from jcache.demo.wire import Wire
from jcache.demo.xrootd_server import XrootdServer, XrootdUnavailableError, stat_problem

JOB = Path(jcache.demo.__file__).with_name("job.py")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A TTree and an RNTuple file of 3000 events: two clusters each."""
    directory = tmp_path_factory.mktemp("dataset")
    wanted = dataset.recipes(files=2, events=3000, formats="both")
    assert {recipe.format for recipe in dataset.write(directory, wanted)} == {"ttree", "rntuple"}
    return directory


def run_job(*arguments):
    command = [sys.executable, "-P", JOB, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["ttbar_0.root", pytest.param("ttbar_1.root", marks=pytest.mark.long)])
def test_dataset_has_947_columns_in_several_clusters(small, name):
    with uproot.open(small / name) as file:
        events = file["Events"]
        names = set(events.keys())
        assert len(names) == schema.COLUMN_COUNT == 947
        assert events.num_entries == 3000
        assert {*job.COLUMNS, *job.MORE_COLUMNS, "nJet", "HLT_IsoMu24"} <= names
        arrays = events.arrays([*job.COLUMNS, "nJet", "HLT_IsoMu24", "Jet_nConstituents"])
        if name == "ttbar_0.root":
            assert events["Jet_pt"].num_baskets == 2
    assert ak.all(ak.num(arrays.Jet_pt) == arrays.nJet)
    assert ak.all(ak.num(arrays.Jet_mass) == arrays.nJet)
    assert 4 < ak.mean(arrays.nJet) < 7
    assert ak.type(arrays.HLT_IsoMu24).content.primitive == "bool"
    assert ak.min(arrays.Jet_pt) >= 15


def test_dataset_is_sparse_for_the_analysis(small):
    path = small / "ttbar_0.root"
    with uproot.open(path) as file:
        wanted = sum(file["Events"][name].compressed_bytes for name in job.COLUMNS)
        everything = sum(branch.uncompressed_bytes for branch in file["Events"].branches)
    assert 0.01 < wanted / path.stat().st_size < 0.10
    assert 1.2 < everything / path.stat().st_size < 4


@pytest.mark.long
def test_dataset_is_reproducible_and_depends_on_the_seed(small, tmp_path):
    dataset.write_file(tmp_path, dataset.Recipe("again.root", 3000, "ttree", 0))
    dataset.write_file(tmp_path, dataset.Recipe("other.root", 3000, "ttree", 9))
    first, again, other = (
        run_job(path)["columns"] for path in (small / "ttbar_0.root", tmp_path / "again.root", tmp_path / "other.root")
    )
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_dataset_is_written_again_only_when_it_differs(tmp_path):
    wanted = dataset.recipes(files=1, events=100, formats="rntuple")
    list(dataset.write(tmp_path, wanted))
    written = (tmp_path / "ttbar_0.root").stat().st_mtime_ns
    assert list(dataset.write(tmp_path, wanted)) == wanted
    assert (tmp_path / "ttbar_0.root").stat().st_mtime_ns == written
    list(dataset.write(tmp_path, [replace(wanted[0], events=200)]))
    with uproot.open(tmp_path / "ttbar_0.root") as file:
        assert file["Events"].num_entries == 200


def test_analysis_is_plain_uproot_and_selects_something(small):
    # Its command line is all that the runner adds.
    assert "jcache" not in JOB.read_text().lower()
    files = [small / "ttbar_0.root", small / "ttbar_1.root"]
    base, more = run_job(*files), run_job("--more", *files)
    assert base["result"] == more["result"]
    assert base["result"]["events"] == 6000
    assert 0 < base["result"]["selected"] < 6000
    assert sum(base["result"]["mass"]) > 0.8 * base["result"]["selected"]
    assert set(more["columns"]) - set(base["columns"]) == set(job.MORE_COLUMNS)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a.bin").write_bytes(random.Random(2).randbytes(50_000))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.bin").write_bytes(b"b")
    with HttpServer(tmp_path) as running:
        yield running


def ask(client, method="GET", path="/a.bin", **headers):
    client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = client.getresponse()
    return response.status, response.headers, response.read()


def test_http_server_answers_and_counts(server):
    data = (server.directory / "a.bin").read_bytes()
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    status, headers, body = ask(client, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "50000", b"")
    etag = headers["ETag"]
    assert etag.startswith('"')
    assert ask(client)[::2] == (200, data)
    assert ask(client, Range="bytes=0-9")[::2] == (206, data[:10])
    assert ask(client, Range="bytes=49990-60000", If_Match=etag)[::2] == (206, data[49_990:])
    assert ask(client, Range="bytes=-7")[::2] == (206, data[-7:])
    assert ask(client, Range="bytes=49000-")[::2] == (206, data[49_000:])
    assert ask(client, Range="bytes=0-1,5-6")[::2] == (200, data)
    assert ask(client, Range="bytes=50000-")[::2] == (416, b"")
    assert ask(client, If_Match='"other"')[::2] == (412, b"")
    for path in ("/none", "/", "/sub/b.bin", "/../a.bin", "/%2e%2e/a.bin", "/.hidden"):
        assert ask(client, path=path)[0] == 404
    client.close()
    assert server.sent_bytes() == 2 * len(data) + 10 + 10 + 7 + 1000


def test_http_server_changes_etag_with_the_file(server):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    first = ask(client, "HEAD")[1]["ETag"]
    path = server.directory / "a.bin"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert ask(client, "HEAD")[1]["ETag"] != first
    client.close()


def test_http_server_stops_with_connections_open(server):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    assert ask(client)[0] == 200
    server.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client)
    client.close()


def test_xrootd_that_cannot_be_had_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("jcache.demo.xrootd_server.shutil.which", lambda *args, **kwargs: None)
    with pytest.raises(XrootdUnavailableError, match="xrootd is not installed"):
        XrootdServer(tmp_path)


def test_xrootd_that_cannot_serve_says_why(xrootd_server):
    with pytest.raises(XrootdUnavailableError, match="no such file"):
        XrootdServer(xrootd_server.directory, probe="none.root")
    with pytest.raises(XrootdUnavailableError, match=f"port {xrootd_server.port}: Address already in use"):
        XrootdServer(xrootd_server.directory, port=xrootd_server.port)


@pytest.mark.parametrize("takes_a_socket", [True, False])
def test_xrootd_serves_this_machine_only(xrootd_server, monkeypatch, takes_a_socket):
    """Where its build takes no socket (as conda's), it has to listen everywhere, and turns others away."""
    elsewhere = other_address()
    if not takes_a_socket:
        monkeypatch.setattr("jcache.demo.xrootd_server._WITH_SOCKET", 'exec "$@" 3<&0 0</dev/null')
    with XrootdServer(xrootd_server.directory) as server:
        assert stat_problem("127.0.0.1", server.port, "/") == ""
        with pytest.raises(ConnectionRefusedError if takes_a_socket else ConnectionError):
            stat_problem(elsewhere, server.port, "/")


def other_address():
    """An address of this machine that others reach it by; the kernel names it without a packet being sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has the loopback interface only")
        return probe.getsockname()[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="another account matters only to root")
def test_xrootd_under_a_closed_directory_says_which(xrootd_server, export_dir):
    closed = export_dir / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(XrootdUnavailableError, match=f"{closed} is closed to others"):
        XrootdServer(closed / "below")


@pytest.mark.parametrize(("rtt_ms", "gbit_s", "least_s"), [(40, 0, 0.04), (0, 0.1, 0.08), (0, 0, 0)])
def test_a_wire_delays_and_is_no_wider_than_it_says(server, rtt_ms, gbit_s, least_s):
    (server.directory / "large.bin").write_bytes(bytes(1_000_000))
    with Wire(server.port, rtt_ms, gbit_s) as wire:
        client = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=30)
        client.connect()
        started_s = time.monotonic()
        assert ask(client, path="/large.bin")[::2] == (200, bytes(1_000_000))
        assert least_s <= time.monotonic() - started_s < least_s + 5
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", wire.port))


def test_outcome_names_every_problem():
    good = Run("no cache"), Run("cold", equal=True, origin_bytes=5), Run("warm", equal=True)
    outcome = Outcome("http", "the server", "", 1, good)
    assert (outcome.problems, outcome.to_json()["ok"]) == ([], True)
    bad = good[0], replace(good[1], equal=False), replace(good[2], origin_bytes=7, problem="exit code 1: no")
    outcome = replace(outcome, runs=bad)
    assert outcome.problems == [
        "warm: exit code 1: no",
        "cold: results differ from those without JCache",
        "warm: 7 bytes came from the origin",
    ]
    assert outcome.to_json()["ok"] is False


def demo(*arguments, **environment):
    command = [sys.executable, "-c", "from jcache.cli import main; main()", "demo", *arguments]
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "form"),
    [
        pytest.param("http", "ttree", id="http"),
        pytest.param("http", "both", id="http-both", marks=pytest.mark.long),
        pytest.param("xrootd", "ttree", id="xrootd", marks=pytest.mark.long),
    ],
)
def test_demo_succeeds(origin, form, request, tmp_path):
    if origin == "xrootd":
        request.getfixturevalue("xrootd_server")  # skips, with the reason, where there is none
        keep = request.getfixturevalue("export_dir")
    else:
        keep = tmp_path
    less = ("--events", "3000", "--files", "2", "--format", form)  # 947 fields of an RNTuple take a second to open
    done = demo(*less, "--origin", origin, "--keep", str(keep), "--json")
    outcome = json.loads(done.stdout)
    assert (done.returncode, outcome["problems"]) == (0, []), done.stderr
    runs = {run["run"]: run for run in outcome["runs"]}
    plain, cold, warm, more = (runs[name] for name in ("no cache", "cold", "warm", "warm, more columns"))
    assert outcome["origin"] == origin
    assert all(run["equal"] for run in (cold, warm, more, runs["warm, origin stopped"]))
    assert plain["origin_bytes"] >= cold["origin_bytes"] == cold["report"]["origin"]["bytes"] > 0
    assert (warm["origin_bytes"], warm["hit_rate"]) == (0, 1.0)
    assert 0 < more["origin_bytes"] < runs["no cache, more columns"]["origin_bytes"] / 2
    assert cold["disk_bytes"] <= warm["disk_bytes"] < 1.05 * cold["origin_bytes"]
    assert warm["disk_bytes"] < 1.001 * cold["disk_bytes"], "a warm run adds to the record of use only"
    written = keep / "jcache-demo" / "data" / "ttbar_0.root"
    read = {"file": written.name, "bytes": written.stat().st_size, "equal": True}
    assert outcome["curl"] == (None if shutil.which("curl") is None else read)
    # Where the daemon has no plug-in for HTTP, it is none.
    assert outcome["xrdcp"] == (None if shutil.which("xrdcp") is None or outcome["xrdcp"] is None else read)


@pytest.mark.long
def test_demo_shows_table_and_report():
    done = demo("--events", "300", "--files", "1", "--format", "ttree", "--origin", "http")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from http, over a wire of 20 ms (--rtt)" in done.stdout
    assert "cache combined hit rate" in done.stdout
    assert "100.00 %" in done.stdout
    assert max(len(line) for line in done.stdout.split("The warm run's report")[1].splitlines()) <= 80


def test_demo_refuses_an_unreachable_directory_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = demo("--keep", str(tmp_path / "file" / "below"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
