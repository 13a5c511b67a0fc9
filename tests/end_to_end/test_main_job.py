"""The main job: an unmodified uproot analysis on real servers, cold, warm, with more columns, without the server.

Bytes are counted where they leave the server, in its own trace or log, and never by JCache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from analysis import CLIENT, COLUMNS, JOB, MORE_COLUMNS, Served, covered, disk_bytes, write

pytestmark = pytest.mark.turns("served")

NAMES = {"ttree": "ttree.root", "rntuple": "rntuple.root"}
# A row of the text report: label, number, unit.
ROW = re.compile(r"^│ ([a-z][a-z .()]*?) +: +(\S+)(?: (.*?))? *│$", re.MULTILINE)
HIT_RATES = re.compile(r"cache (combined|read|readv) hit rate *: *([\d.]+ %|-)")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The data set as TTree and as RNTuple."""
    directory = tmp_path_factory.mktemp("dataset")
    for kind, name in NAMES.items():
        write(directory / name, rntuple=kind == "rntuple")
    return directory


@pytest.fixture(scope="module")
def local(dataset):
    """What the job prints for the TTree on the local disk."""
    command = [sys.executable, "-c", JOB, ",".join(COLUMNS), dataset / NAMES["ttree"]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(params=["xrootd_server", "nginx_server"], ids=["xrootd", "nginx"])
def served(request, dataset):
    """The data set on a real server."""
    server = Served(request.getfixturevalue(request.param))
    for name in NAMES.values():
        shutil.copy2(dataset / name, server.directory / name)
    return server


def job(run_python, *urls, columns=COLUMNS, env=None, **options):
    return run_python(JOB, ",".join(columns), *urls, env={**CLIENT, **(env or {})}, **options)


def adds_up(counts):
    return counts["bytes"] == counts["hit_bytes"] + counts["miss_bytes"] + counts["bypass_bytes"]


def totals(report, what):
    assert adds_up(report["read"]), report
    assert adds_up(report["readv"]), report
    return report["read"][what] + report["readv"][what]


@pytest.mark.parametrize("kind", NAMES)
def test_cold_warm_more_and_without_the_server(served, kind, run_python, cache_dir):
    name = NAMES[kind]
    url, size = served.url(name), (served.directory / name).stat().st_size

    plain = job(run_python, url, cache=None)
    assert plain.stderr == ""
    wanted = covered(served.spans(), size)
    served.reset()
    plain_more = job(run_python, url, cache=None, columns=MORE_COLUMNS)
    wanted_more = covered(served.spans(), size)
    gap_bytes = sum(more and not old for more, old in zip(wanted_more, wanted, strict=True))
    assert 0 < gap_bytes < sum(wanted_more)

    served.reset()
    cold = job(run_python, url)
    assert cold.stdout == plain.stdout
    assert served.data_bytes() == sum(wanted) == cold.report["origin"]["bytes"] == totals(cold.report, "miss_bytes")
    assert cold.report["cache"]["recorded_bytes"] == sum(wanted)
    assert sum(wanted) < disk_bytes(cache_dir) < sum(wanted) + 16_384

    served.reset()
    warm = job(run_python, url)
    assert warm.stdout == plain.stdout
    assert served.data_bytes() == 0 == warm.report["origin"]["bytes"]
    # uproot reads a TTree's baskets as vectors, an RNTuple's pages one by one.
    readv = "100.00 %" if kind == "ttree" else "-"
    assert HIT_RATES.findall(warm.stderr) == [("combined", "100.00 %"), ("read", "100.00 %"), ("readv", readv)]
    assert totals(warm.report, "hit_bytes") == totals(warm.report, "bytes") == totals(cold.report, "bytes")

    served.reset()
    more = job(run_python, url, columns=MORE_COLUMNS)
    assert more.stdout == plain_more.stdout
    assert served.data_bytes() == gap_bytes == more.report["origin"]["bytes"] == totals(more.report, "miss_bytes")
    assert covered(served.spans(), size) == bytes(a and not b for a, b in zip(wanted_more, wanted, strict=True))

    served.stop()
    for mode in ({"JCACHE_VALIDATE": "never"}, {"JCACHE_OFFLINE": "1"}):
        alone = job(run_python, url, columns=MORE_COLUMNS, env=mode)
        assert alone.stdout == plain_more.stdout
        assert totals(alone.report, "hit_bytes") == totals(alone.report, "bytes") > 0
        assert alone.report["origin"]["requests"] == 0


def test_offline_with_an_empty_cache_says_what_to_do(served, run_python):
    url = served.url(NAMES["ttree"])
    ran = job(run_python, url, env={"JCACHE_OFFLINE": "1"}, check=False)
    assert ran.returncode == 1
    assert served.spans() == []
    error = next(line for line in ran.stderr.splitlines() if line.startswith("jcache.errors.OfflineMissError: "))
    assert url in error
    assert "JCACHE_OFFLINE is set; run once with the origin in reach and JCACHE_OFFLINE unset" in error


def test_what_is_missing_offline_is_named(served, run_python):
    url = served.url(NAMES["ttree"])
    job(run_python, url)
    served.reset()
    ran = job(run_python, url, columns=MORE_COLUMNS, env={"JCACHE_OFFLINE": "1"}, check=False)
    assert ran.returncode == 1
    assert served.spans() == []
    assert re.search(r"OfflineMissError: .*ttree\.root: bytes \d+ to \d+ are not in the journal", ran.stderr)


def percent(part, whole):
    return f"{100 * part / whole:.2f}" if whole else "-"


def expected_rows(report):
    """The rows of the text report, worked out from the JSON one."""
    read, readv, files = report["read"], report["readv"], report["files"]
    both = {what: totals(report, what) for what in ("bytes", "hit_bytes", "miss_bytes")}
    size = sum(url["size"] for url in report["urls"])
    return {
        "cache combined hit rate": percent(both["hit_bytes"], both["bytes"]),
        "cache read hit rate": percent(read["hit_bytes"], read["bytes"]),
        "cache readv hit rate": percent(readv["hit_bytes"], readv["bytes"]),
        "total bytes read": str(read["bytes"]),
        "total bytes readv": str(readv["bytes"]),
        "total iops read": str(read["ops"]),
        "total iops readv": str(readv["ops"]),
        "total iops readvread": str(readv["ranges"]),
        "avg. bytes read": f"{read['bytes'] / read['ops']:.2f}",
        "avg. bytes readv": f"{readv['bytes'] / readv['ops']:.2f}" if readv["ops"] else "-",
        "open files read": str(files["opened"]),
        "open unique f. read": str(files["unique"]),
        "time to open files (s)": f"{files['open_s']:.3f}",
        "total unique files bytes": str(size),
        "total unique files size": f"{size / 1e6:.2f}",
        "percentage dataset read": percent(both["bytes"], size),
        "app user time": f"{report['user_s']:.2f}",
        "app real time": f"{report['real_s']:.2f}",
        "app sys time": f"{report['sys_s']:.2f}",
        "app acceleration": f"{report['user_s'] / report['real_s']:.2f}x",
        "origin requests": str(report["origin"]["requests"]),
        "origin bytes": str(report["origin"]["bytes"]),
        "cache recorded bytes": str(report["cache"]["recorded_bytes"]),
    }


def test_text_and_json_say_the_same_and_what_the_server_saw(served, run_python, cache_dir, tmp_path):
    urls = [served.url(name) for name in NAMES.values()]
    job(run_python, *urls)
    served.reset()
    ran = job(run_python, *urls, columns=MORE_COLUMNS)
    report = ran.report
    rows = {label: number for label, number, _ in ROW.findall(ran.stderr)}
    assert {label: rows.get(label) for label in expected_rows(report)} == expected_rows(report)
    assert 0 < totals(report, "miss_bytes") < totals(report, "bytes")
    assert totals(report, "bypass_bytes") == 0

    assert report["origin"]["bytes"] == totals(report, "miss_bytes") == served.data_bytes()
    if not served.is_xrootd:
        assert report["origin"]["requests"] == len(served.spans())
    assert report["cache"]["recorded_bytes"] == served.data_bytes()
    assert sum(report["profile"]["hit_bytes"]) == totals(report, "hit_bytes")
    assert sum(report["profile"]["miss_bytes"]) == totals(report, "miss_bytes")
    assert sum(url["bytes"] for url in report["urls"]) == totals(report, "bytes")
    assert {url["url"]: url["size"] for url in report["urls"]} == {
        url: (served.directory / name).stat().st_size for url, name in zip(urls, NAMES.values(), strict=True)
    }
    operations = report["read"]["ops"] + report["readv"]["ops"]
    assert sum(report["requests"].values()) == operations

    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(report))
    again = subprocess.run(
        [sys.executable, "-c", "from jcache.cli import main; main()", "report", saved],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == ran.stderr


def test_bypass_measures_and_neither_writes_nor_serves(served, run_python, cache_dir):
    url = served.url(NAMES["ttree"])
    plain = job(run_python, url, cache=None)
    wanted = served.data_bytes()
    for warmed in (False, True):
        if warmed:
            job(run_python, url)
        before = {path: path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()}
        assert bool(before) == warmed
        served.reset()
        ran = job(run_python, url, env={"JCACHE_BYPASS": "1"})
        assert ran.stdout == plain.stdout
        assert served.data_bytes() == wanted == totals(ran.report, "bypass_bytes") == totals(ran.report, "bytes")
        assert ran.report["origin"]["bytes"] == wanted
        assert ran.report["cache"]["bypassed"] == "JCACHE_BYPASS is set"
        assert "cache not used: JCACHE_BYPASS is set" in ran.stderr
        assert {path: path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("code", ["pass", "import uproot"])
def test_unset_imports_nothing_of_ours(code):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "site" in done.stderr
    assert "jcache" not in done.stderr


# -- cache directories that cannot be used ------------------------------------------------------------------------


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this account may not mount: {done.stderr.strip()}")


@contextmanager
def mounted(directory, *arguments):
    directory.mkdir(exist_ok=True)
    mount(*arguments, directory)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.fixture(params=["file", "below_a_file", "proc", "read_only_mount", "full"])
def unusable(request, tmp_path):
    """A cache directory that cannot be used, and what is wrong with it."""
    path = tmp_path / "unusable"
    match request.param:
        case "file":
            path.write_text("not a directory")
            yield path, "it is a file"
        case "below_a_file":
            path.write_text("not a directory")
            yield path / "cache", "is a file"
        case "proc":
            yield Path("/proc/jcache"), ""
        case "read_only_mount":
            with mounted(path, "-t", "tmpfs", "-o", "ro", "jcache-test"):
                yield path, "read-only"
        case "full":
            with mounted(path, "-t", "tmpfs", "-o", "size=16k", "jcache-test"):
                room = os.statvfs(path)
                (path / "other").write_bytes(bytes(room.f_bavail * room.f_frsize))
                yield path, "no space left"


def warnings(ran):
    return [line for line in ran.stderr.splitlines() if line.startswith("jcache:")]


def test_unusable_directory_is_one_warning(unusable, served, run_python, local):
    directory, reason = unusable
    ran = job(run_python, served.url(NAMES["ttree"]), cache=directory)
    assert ran.stdout == local
    (warning,) = warnings(ran)
    assert str(directory) in warning
    assert reason in warning.lower()
    assert 0 < served.data_bytes() == totals(ran.report, "bypass_bytes") == totals(ran.report, "bytes")


def test_reports_that_would_go_there_are_no_second_warning(unusable, http_origin, run_python):
    http_origin.put("f", bytes(1000))
    code = "import fsspec, sys; print(len(fsspec.open(sys.argv[1]).open().read()))"
    directory, _ = unusable
    ran = run_python(code, http_origin.url("f"), cache=directory, env={"JCACHE_JSON": None})
    assert ran.stdout == "1000\n"
    (warning,) = warnings(ran)
    assert str(directory) in warning
    assert ran.stderr.count("cache combined hit rate") == 1


# The superuser is stopped by no permission, unless it gives up that privilege.
WITHOUT_PRIVILEGE = """
import os, sys
if os.geteuid() == 0 and "UNPRIVILEGED" not in os.environ:
    os.environ["UNPRIVILEGED"] = "1"
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    os.execvp("setpriv", [*drop, sys.executable, *sys.argv])
"""


def test_directory_without_permission_is_one_warning(served, run_python, tmp_path, local):
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    ran = run_python(WITHOUT_PRIVILEGE + JOB, ",".join(COLUMNS), served.url(NAMES["ttree"]), cache=locked)
    assert ran.stdout == local
    (warning,) = warnings(ran)
    assert str(locked) in warning
    assert "permission" in warning.lower()
    assert list(locked.iterdir()) == []
    assert 0 < served.data_bytes() == totals(ran.report, "bypass_bytes") == totals(ran.report, "bytes")


def test_disk_that_fills_up_is_one_warning_and_heals(served, run_python, tmp_path, local):
    url = served.url(NAMES["ttree"])
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=128k", "jcache-test") as cache:
        for _ in range(2):
            served.reset()
            ran = job(run_python, url, cache=cache)
            assert ran.stdout == local
            assert len(warnings(ran)) == 1
            assert ran.report["cache"]["failures"] >= 1
            assert served.data_bytes() == totals(ran.report, "miss_bytes") > ran.report["cache"]["recorded_bytes"]
        mount("-o", "remount,size=64m", cache)
        for _ in range(2):
            served.reset()
            ran = job(run_python, url, cache=cache)
            assert ran.stdout == local
            assert warnings(ran) == []
        assert served.data_bytes() == 0


def test_read_only_warm_cache_serves(served, run_python, cache_dir, tmp_path):
    url = served.url(NAMES["ttree"])
    cold = job(run_python, url)
    served.reset()
    with mounted(tmp_path / "view", "--bind", "-o", "ro", cache_dir) as view:
        if os.access(view, os.W_OK):
            mount("-o", "remount,bind,ro", view)
        warm = job(run_python, url, cache=view)
    assert warm.stdout == cold.stdout
    assert served.data_bytes() == 0
    assert totals(warm.report, "hit_bytes") == totals(warm.report, "bytes")
    (warning,) = warnings(warm)
    assert "what is cached is used" in warning
