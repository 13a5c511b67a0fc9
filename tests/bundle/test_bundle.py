"""Exactly the bytes of an analysis in one file: made, verified, and read in a place without a network."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from analysis import CLIENT, COLUMNS, JOB, MORE_COLUMNS, write
from click.testing import CliRunner

from jcache.bundle.format import END, EXTENT_BYTES
from jcache.bundle.reader import Bundle, BundleError
from jcache.bundle.writer import BundleWriter
from jcache.cli.group import main
from jcache.counters import OPEN
from jcache.journal import LostSegment, Version, View
from jcache.profile.format import FILES, HEAD, Batch, Request, pack_batch, pack_json, pack_start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from analysis import Served
    from conftest import RunPython

pytestmark = pytest.mark.turns("served")

DATA = random.Random(4).randbytes(300_000)
VERSION = Version(len(DATA), etag='"1"')


def jcache(*args: str | Path) -> Any:
    return CliRunner().invoke(main, ["bundle", *map(str, args)], prog_name="jcache")


def made(path: Path) -> Path:
    with path.open("wb") as file:
        writer = BundleWriter(file)
        for name in ("url:https/host/a", "url:https/host/b"):
            ranges = [(10, 200_000), (250_000, 250_010)] if name[-1] == "a" else [(0, 300_000)]
            writer.add(
                name, f"https/host/{name[-1]}", VERSION, {"type": "file"}, ranges=ranges, read=lambda a, b: DATA[a:b]
            )
        writer.end({"run": "r", "appname": "job", "report": None, "missing": {}})
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bundle = Bundle.open(made(tmp_path / "a.jcb"))
    assert list(bundle.entries) == ["url:https/host/a", "url:https/host/b"]
    first = bundle.entries["url:https/host/a"]
    assert (first.version, first.info, first.place) == (VERSION, {"type": "file"}, "https/host/a")
    assert max(first.lengths) <= EXTENT_BYTES
    got = [(start, data) for start, data, is_sound in bundle.extents(first) if is_sound]
    assert b"".join(data for _, data in got) == DATA[10:200_000] + DATA[250_000:250_010]
    assert bundle.about["appname"] == "job"
    raw = (tmp_path / "a.jcb").read_bytes()
    assert bundle.digest() == bundle.tail.sha256.hex() == hashlib.sha256(raw[: -END.size]).hexdigest()


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    assert made(tmp_path / "a.jcb").read_bytes() == made(tmp_path / "b.jcb").read_bytes()


def test_wherever_it_is_cut_it_is_none(tmp_path: Path) -> None:
    raw = made(tmp_path / "a.jcb").read_bytes()
    for size in (0, 10, 16, 1000, len(raw) // 2, len(raw) - 80, len(raw) - 1):
        (tmp_path / "cut.jcb").write_bytes(raw[:size])
        with pytest.raises(BundleError, match=r"cut\.jcb"):
            Bundle.open(tmp_path / "cut.jcb")


def test_each_flipped_bit_is_found_and_named_and_nothing_wrong_is_read(tmp_path: Path) -> None:
    raw, chance = bytearray(made(tmp_path / "a.jcb").read_bytes()), random.Random(8)
    path = tmp_path / "flipped.jcb"
    index = Bundle.open(tmp_path / "a.jcb").tail.position
    places = [
        *range(16),
        *range(len(raw) - END.size, len(raw)),
        *(chance.randrange(index, len(raw)) for _ in range(200)),
    ]
    places += [chance.randrange(16, index) for _ in range(60)]
    for at in places:
        flipped = bytearray(raw)
        flipped[at] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        result = jcache("verify", path)
        assert result.exit_code in (1, 2), at
        assert "flipped.jcb" in result.stderr or "https://host/" in result.stderr
        if result.exit_code == 1:
            bundle = Bundle.open(path)
            for entry in bundle.entries.values():
                for start, data, is_sound in bundle.extents(entry):
                    assert not is_sound or data == DATA[start : start + len(data)]


@pytest.fixture
def analysis(served: Served, run_python: RunPython, tmp_path: Path) -> Callable[..., Any]:
    urls = []
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple)
        urls.append(served.url(f"f{number}.root"))

    def run(columns: tuple[str, ...] = COLUMNS, **how: Any) -> Any:
        env = {**CLIENT, **how.pop("env", {})}
        return run_python(JOB, ",".join(columns), *urls, env=env, **how)

    return run


def bundled(analysis: Callable[..., Any], tmp_path: Path, **how: Any) -> Any:
    cold = analysis(cache=tmp_path / "recorded", env={"JCACHE_PROFILE": str(tmp_path / "profiles")}, **how)
    target = tmp_path / "ttbar.jcb"
    done = jcache("create", tmp_path / "profiles", "--dir", tmp_path / "recorded", "-o", target, "--json")
    assert done.exit_code == 0, done.stderr
    return cold, target, json.loads(done.stdout)


def test_it_takes_from_all_tiers(
    served: Served, analysis: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    analysis(cache=far)
    env = {"JCACHE_DIR": f"{near}:{far}", "JCACHE_PROFILE": str(tmp_path / "profiles"), "JCACHE_COPY": "0"}
    more = analysis(MORE_COLUMNS, env=env)
    assert 0 < more.report["cache"]["recorded_bytes"] < more.report["readv"]["bytes"] + more.report["read"]["bytes"]
    target = tmp_path / "both.jcb"
    monkeypatch.setenv("JCACHE_DIR", f"{near}:{far}")
    done = jcache("create", tmp_path / "profiles", "-o", target, "--json")
    assert (done.exit_code, json.loads(done.stdout)["missing"]) == (0, {}), done.stderr
    monkeypatch.setenv("JCACHE_DIR", str(near))
    assert jcache("create", tmp_path / "profiles", "-o", tmp_path / "near.jcb", "--json").exit_code == 1
    served.reset()
    assert analysis(MORE_COLUMNS, cache=None, env={"JCACHE_BUNDLES": str(target)}).stdout == more.stdout
    assert served.data_bytes() == 0


def test_an_analysis_runs_with_its_bundle_alone(
    served: Served, analysis: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, target, told = bundled(analysis, tmp_path)
    assert (told["files"], told["missing"]) == (2, {})
    assert told["bytes"] == served.data_bytes() == cold.report["origin"]["bytes"]
    assert jcache("verify", target).exit_code == 0
    listed = json.loads(jcache("ls", target, "--json").stdout)
    assert sum(one["bytes"] for one in listed["files"] if one["kind"] == "file") == told["bytes"]
    shutil.rmtree(tmp_path / "recorded")
    served.reset()
    place = tmp_path / "tmp"
    place.mkdir()
    env = {"JCACHE_BUNDLES": str(target), "TMPDIR": str(place)}
    warm = analysis(cache=None, env=env)
    assert warm.stdout == cold.stdout
    assert served.data_bytes() == 0
    assert {tier["place"] for tier in warm.report["tiers"]} == {str(target)}
    assert list(place.iterdir()) == [], "the cache that it began without one is gone"
    served.stop()
    alone = analysis(cache=None, env=env)
    assert alone.stdout == cold.stdout
    offline = analysis(cache=None, env={**env, "JCACHE_OFFLINE": "1"})
    assert offline.stdout == cold.stdout
    served.start()


def test_the_same_run_gives_the_same_bundle(analysis: Callable[..., Any], tmp_path: Path) -> None:
    _, target, _ = bundled(analysis, tmp_path)
    again = tmp_path / "again.jcb"
    jcache("create", tmp_path / "profiles", "--dir", tmp_path / "recorded", "-o", again)
    assert again.read_bytes() == target.read_bytes()


def test_the_cache_comes_first_and_takes_what_is_new(
    served: Served, analysis: Callable[..., Any], tmp_path: Path
) -> None:
    cold, target, _ = bundled(analysis, tmp_path)
    served.reset()
    more = analysis(MORE_COLUMNS, cache=tmp_path / "mine", env={"JCACHE_BUNDLES": str(target)})
    new = served.data_bytes()
    assert 0 < new == more.report["cache"]["recorded_bytes"] - sum(t["copied_bytes"] for t in more.report["tiers"])
    served.reset()
    again = analysis(MORE_COLUMNS, cache=tmp_path / "mine", env={"JCACHE_BUNDLES": str(target)})
    assert again.stdout == more.stdout
    assert served.data_bytes() == 0
    del cold


def test_a_newer_file_is_read_from_its_origin_and_never_mixed(
    served: Served, analysis: Callable[..., Any], tmp_path: Path
) -> None:
    cold, target, _ = bundled(analysis, tmp_path)
    for number, is_rntuple in enumerate((False, True)):
        write(served.directory / f"f{number}.root", rntuple=is_rntuple, seed=2)
        os.utime(served.directory / f"f{number}.root", (1_650_000_000, 1_650_000_000))
    plain = analysis(cache=None)
    served.reset()
    newer = analysis(cache=None, env={"JCACHE_BUNDLES": str(target)})
    assert newer.stdout == plain.stdout != cold.stdout
    assert served.data_bytes() > 0


def test_a_damaged_bundle_costs_time_and_no_wrong_byte(
    served: Served, analysis: Callable[..., Any], tmp_path: Path
) -> None:
    cold, target, _ = bundled(analysis, tmp_path)
    raw, chance = bytearray(target.read_bytes()), random.Random(1)
    for at in (chance.randrange(16, Bundle.open(target).tail.position) for _ in range(40)):
        raw[at] ^= 4
    target.write_bytes(raw)
    ran = analysis(cache=None, env={"JCACHE_BUNDLES": str(target)})
    assert ran.stdout == cold.stdout
    assert ran.report["cache"]["damaged_extents"] > 0
    assert ran.stderr.count(f"{target} is damaged: some bytes of ") == 1
    assert ".root in it are not used" in ran.stderr
    target.write_bytes(raw[:-1])
    ran = analysis(cache=tmp_path / "c", env={"JCACHE_BUNDLES": str(target)})
    assert ran.stdout == cold.stdout
    assert "is left out" in ran.stderr


def test_what_it_has_is_extracted_into_a_cache(served: Served, analysis: Callable[..., Any], tmp_path: Path) -> None:
    cold, target, told = bundled(analysis, tmp_path)
    done = jcache("extract", target, "--dir", tmp_path / "new", "--json")
    assert json.loads(done.stdout) == {
        "files": told["files"] + told["listings"],
        "bytes": pytest.approx(told["bytes"], abs=100_000),
        "failed": {},
    }
    served.reset()
    warm = analysis(cache=tmp_path / "new")
    assert warm.stdout == cold.stdout
    assert served.data_bytes() == 0


def test_what_the_cache_lacks_is_named(analysis: Callable[..., Any], tmp_path: Path) -> None:
    analysis(cache=tmp_path / "recorded", env={"JCACHE_PROFILE": str(tmp_path / "profiles")})
    shutil.rmtree(tmp_path / "recorded")
    (tmp_path / "recorded").mkdir()
    done = jcache("create", tmp_path / "profiles", "--dir", tmp_path / "recorded", "-o", tmp_path / "x.jcb")
    assert done.exit_code == 1
    assert done.stderr.count("the cache lacks") == 2


@pytest.mark.parametrize("how", ["damaged", "evicted"])
def test_what_is_damaged_or_gone_while_it_is_bundled_is_lacking_and_the_rest_is_there(
    analysis: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _, _, whole = bundled(analysis, tmp_path)
    if how == "evicted":
        read, count = View.read, itertools.count()

        def gone(view: View, part: Any) -> bytes:
            if next(count) == 1:
                raise LostSegment("a segment was removed")
            return read(view, part)

        monkeypatch.setattr(View, "read", gone)
    else:
        segment = max((tmp_path / "recorded").rglob("*.seg"), key=lambda path: path.stat().st_size)
        raw = bytearray(segment.read_bytes())
        raw[len(raw) // 3] ^= 1
        segment.write_bytes(raw)
    target = tmp_path / "rest.jcb"
    done = jcache("create", tmp_path / "profiles", "--dir", tmp_path / "recorded", "-o", target, "--json")
    told = json.loads(done.stdout)
    lacking = sum(told["missing"].values())
    assert (done.exit_code, done.stderr.count("the cache lacks")) == (1, 1)
    assert 0 < lacking <= EXTENT_BYTES
    assert (told["files"], told["bytes"]) == (whole["files"], whole["bytes"] - lacking)
    assert jcache("verify", target).exit_code == 0
    rest, more = (
        json.loads(jcache("extract", path, "--dir", tmp_path / "new", "--json").stdout)["bytes"]
        for path in (target, tmp_path / "ttbar.jcb")
    )
    assert (rest >= told["bytes"], more) == (True, lacking), "what is there already is not extracted again"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile, and an empty cache: what is bundled is little, and where it goes is what matters."""
    batch = Batch.of([Request(OPEN, 1, 1, 0, 0, [0], [10], 0, 0, 0, 0)])
    head, files = pack_json(HEAD, {"run": "r"}), pack_json(FILES, ["https://host/a"])
    (tmp_path / "a.jcp").write_bytes(pack_start() + head + files + pack_batch(batch))
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("JCACHE_DIR", str(tmp_path / "cache"))
    assert jcache("create", tmp_path / "a.jcp", "-o", tmp_path / "plain.jcb").exit_code == 0
    return tmp_path / "a.jcp"


def test_a_bundle_is_written_where_a_link_leads_and_leaves_the_link(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.jcb").symlink_to("there/b.jcb")
    for _ in range(2):
        assert jcache("create", recorded, "-o", tmp_path / "link.jcb").exit_code == 0
        assert (tmp_path / "link.jcb").is_symlink()
        assert (tmp_path / "there" / "b.jcb").read_bytes() == (tmp_path / "plain.jcb").read_bytes()
        assert os.listdir(tmp_path / "there") == ["b.jcb"]


def test_a_bundle_goes_through_a_pipe_which_stays(recorded: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        came = pool.submit((tmp_path / "pipe").read_bytes)
        assert jcache("create", recorded, "-o", tmp_path / "pipe").exit_code == 0
        assert came.result() == (tmp_path / "plain.jcb").read_bytes()
    assert (tmp_path / "pipe").is_fifo()


def test_a_bundle_is_written_to_a_device_which_stays(recorded: Path, tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # keeps nothing
        (tmp_path / "device").write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device may be made here: {error}")
    assert jcache("create", recorded, "-o", tmp_path / "device").exit_code == 0
    assert (tmp_path / "device").is_char_device()


@pytest.mark.parametrize("name", ["", ".", "no/b.jcb"])
def test_a_place_where_no_bundle_can_be_is_named_in_one_line(
    recorded: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = jcache("create", recorded, "-o", name)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_bundle_runs_in_a_namespace_without_interfaces(
    served: Served, analysis: Callable[..., Any], tmp_path: Path, run_python: RunPython
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a network namespace is made by root, with unshare")
    cold, target, _ = bundled(analysis, tmp_path)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    urls = [served.url(f"f{number}.root") for number in range(2)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE_", "_JCACHE_"))}
    import sys

    done = subprocess.run(
        ["unshare", "--net", sys.executable, script, ",".join(COLUMNS), *urls],
        env={**clean, **CLIENT, "JCACHE_BUNDLES": str(target), "JCACHE_SUMMARY": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == cold.stdout


def test_it_is_written_to_standard_output(analysis: Callable[..., Any], tmp_path: Path) -> None:
    _, target, _ = bundled(analysis, tmp_path)
    out = tmp_path / "out"
    words = ["create", str(tmp_path / "profiles"), "--dir", str(tmp_path / "recorded"), "-o", "/dev/stdout"]
    program = "import sys; from jcache.cli import main; sys.argv[0] = 'jcache'; main(['bundle', *sys.argv[1:]])"
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == target.read_bytes()
    assert b"MB of 2 files" in done.stderr or b"kB of 2 files" in done.stderr
    with out.open("wb") as file:
        subprocess.run(command, stdout=file, check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes() == target.read_bytes()


def test_the_name_of_a_directory_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["warm", "http://127.0.0.1:9/x"], ["bundle", "extract", "x.jcb"], ["verify"]):
        done = CliRunner().invoke(main, [*command, "--dir", ""])
        assert done.exit_code == 2, done.output
        assert "an empty name" in done.stderr
    assert list(tmp_path.iterdir()) == []
